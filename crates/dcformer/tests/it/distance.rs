//! How far lists of numbers are apart.

/// The largest difference between two lists.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "lengths differ");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // `max` would step over a NaN.
    differences.fold(0.0, |most, next| {
        if next > most || next.is_nan() {
            next
        } else {
            most
        }
    })
}
