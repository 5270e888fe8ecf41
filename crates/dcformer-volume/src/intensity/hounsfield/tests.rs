use super::*;

const CHEST: &[(f64, f64, f64)] = &[
    (0.35, -1000.0, 25.0), // air around the patient
    (0.18, -820.0, 90.0),  // lung
    (0.17, -100.0, 25.0),  // fat
    (0.27, 45.0, 25.0),    // muscle and blood
    (0.03, 350.0, 200.0),  // bone
];
/// No air but that in the sinuses and a corner of the image.
const TIGHT_HEAD: &[(f64, f64, f64)] = &[
    (0.02, -1000.0, 15.0),
    (0.05, -90.0, 20.0),
    (0.73, 35.0, 12.0),
    (0.20, 1000.0, 300.0),
];
const ABDOMEN: &[(f64, f64, f64)] = &[
    (0.05, -1000.0, 25.0),
    (0.45, -105.0, 20.0),
    (0.47, 60.0, 40.0),
    (0.03, 400.0, 200.0),
];

/// Values drawn from normal distributions (share, mean, deviation), always the same ones, and `stored = map(value)`.
fn sample(tissues: &[(f64, f64, f64)], map: impl Fn(f64) -> f64) -> Sample {
    const VALUES: usize = 40_000;
    let mut state = 1_u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let mut sample = Sample::new([VALUES, 1, 1]);
    let mut values = Vec::new();
    for &(share, mean, deviation) in tissues {
        for _ in 0..(share * VALUES as f64) as usize {
            let normal: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            values.push(map((mean + deviation * normal).round()) as f32);
        }
    }
    sample.visit(0, &values);
    sample
}

fn rescale(slope: f64, intercept: f64) -> Rescale {
    Rescale { slope, intercept }
}

fn decide(metadata: Option<Rescale>, header: Rescale, sample: &Sample) -> Result<RescaleDecision> {
    let path = Path::new("scan.nii.gz");
    Candidates::new(path, RescalePolicy::Auto, metadata, header)?.decide(path, sample)
}

fn reading(metadata: Option<Rescale>, header: Rescale, sample: &Sample) -> Option<Reading> {
    decide(metadata, header, sample)
        .ok()
        .map(|decision| decision.reading)
}

#[test]
fn raw_values_of_the_first_release_need_the_metadata() {
    for tissues in [CHEST, ABDOMEN, TIGHT_HEAD] {
        for intercept in [-1024.0, -1000.0, -8192.0] {
            let raw = sample(tissues, |value| (value - intercept).max(0.0));
            assert_eq!(
                reading(Some(rescale(1.0, intercept)), Rescale::NONE, &raw),
                Some(Reading::Metadata),
                "{intercept}"
            );
            assert_eq!(
                reading(None, Rescale::NONE, &raw),
                None,
                "{intercept}: there is nothing to make HU with"
            );
        }
    }
}

#[test]
fn raw_values_with_scanner_padding_need_the_metadata() {
    let padded = |value: f64| {
        if value < -1020.0 {
            -2000.0
        } else {
            value + 1024.0
        }
    };
    let raw = sample(CHEST, padded);
    assert!(
        raw.counted()
            .any(|(value, count)| value == -2000.0 && count > 1000),
        "the case has padding"
    );
    assert_eq!(
        reading(Some(rescale(1.0, -1024.0)), Rescale::NONE, &raw),
        Some(Reading::Metadata)
    );
}

#[test]
fn hounsfield_units_of_the_second_release_are_not_rescaled_again() {
    for tissues in [CHEST, ABDOMEN, TIGHT_HEAD] {
        // As stored, with air cut at the end of 12 bits, and with cut air and padding.
        let maps: [fn(f64) -> f64; 3] = [
            |value| value,
            |value| value.max(-1000.0),
            |value| {
                if value < -1010.0 {
                    -8192.0
                } else {
                    value.max(-1000.0)
                }
            },
        ];
        for (number, map) in maps.into_iter().enumerate() {
            let hounsfield = sample(tissues, map);
            for intercept in [-1024.0, -1000.0, -8192.0] {
                let decision = decide(Some(rescale(1.0, intercept)), Rescale::NONE, &hounsfield)
                    .expect("this is CT");
                assert_eq!(
                    decision.reading,
                    Reading::Stored,
                    "map {number}, intercept {intercept}"
                );
                assert_eq!(
                    decision.rejected,
                    Some((Reading::Metadata, rescale(1.0, intercept)))
                );
                let sentence = decision.to_string();
                assert!(sentence.contains(&intercept.to_string()), "{sentence}");
            }
        }
    }
}

#[test]
fn metadata_that_say_nothing_change_nothing() {
    let hounsfield = sample(CHEST, |value| value);
    let decision = decide(Some(Rescale::NONE), Rescale::NONE, &hounsfield).expect("this is CT");
    assert_eq!(
        (decision.reading, decision.rejected, decision.forced),
        (Reading::Stored, None, false)
    );
}

#[test]
fn a_header_is_followed_and_a_stale_one_is_not() {
    let header = rescale(0.5, -1024.0);
    let stored = sample(CHEST, |value| 2.0 * (value + 1024.0));
    assert_eq!(reading(None, header, &stored), Some(Reading::Header));
    // A converter that applied the rescaling and kept it in the header too.
    let applied = sample(CHEST, |value| value);
    assert_eq!(
        reading(None, rescale(1.0, -1024.0), &applied),
        Some(Reading::Stored)
    );
}

#[test]
fn a_small_offset_in_the_metadata_is_believed() {
    let stored = sample(CHEST, |value| value + 24.0);
    assert_eq!(
        reading(Some(rescale(1.0, -24.0)), Rescale::NONE, &stored),
        Some(Reading::Metadata)
    );
}

#[test]
fn scanner_padding_is_no_argument_against_ct() {
    for padding in [-1500.0, -2000.0, -2048.0, -3024.0, -8192.0, -32768.0] {
        let mut padded = sample(CHEST, |value| value);
        padded.visit(0, &[padding; 15_000]);
        assert_eq!(
            reading(None, Rescale::NONE, &padded),
            Some(Reading::Stored),
            "{padding}"
        );
    }
    // JPEG spreads a constant.
    let mut spread = sample(CHEST, |value| value);
    let padding: Vec<f32> = (0..15_000)
        .map(|index| -3339.0 + (index % 400) as f32)
        .collect();
    spread.visit(0, &padding);
    assert_eq!(reading(None, Rescale::NONE, &spread), Some(Reading::Stored));
}

#[test]
fn what_is_not_in_hounsfield_units_is_refused() {
    let refused = [
        (
            "a picture of 256 grey values",
            sample(CHEST, |value| {
                ((value + 1000.0) / 8.0).clamp(0.0, 255.0).round()
            }),
        ),
        (
            "values from 0 to 1",
            sample(CHEST, |value| ((value + 1000.0) / 2000.0).clamp(0.0, 1.0)),
        ),
        (
            "values from -1 to 1",
            sample(CHEST, |value| (value / 1000.0).clamp(-1.0, 1.0)),
        ),
        ("z-scores", sample(CHEST, |value| (value + 400.0) / 500.0)),
        (
            "magnetic resonance",
            sample(&[(0.5, 20.0, 10.0), (0.5, 600.0, 250.0)], |value| {
                value.max(0.0)
            }),
        ),
        (
            "nothing but padding",
            sample(&[(1.0, -3024.0, 0.0)], |value| value),
        ),
        (
            "nothing but zeros",
            sample(&[(1.0, 0.0, 0.0)], |value| value),
        ),
        (
            "nothing but air",
            sample(&[(1.0, -1000.0, 10.0)], |value| value),
        ),
    ];
    for (what, sample) in refused {
        let error = decide(None, Rescale::NONE, &sample)
            .expect_err(what)
            .to_string();
        assert!(
            error.starts_with("scan.nii.gz: stored values from")
                && error.contains("--rescale none"),
            "{what}: {error}"
        );
    }
}

#[test]
fn the_refusal_tells_what_was_found_and_tried() {
    let picture = sample(CHEST, |value| {
        ((value + 1000.0) / 5.0).clamp(0.0, 255.0).round()
    });
    let error = decide(Some(rescale(1.0, -8192.0)), rescale(2.5, 0.0), &picture)
        .expect_err("a picture")
        .to_string();
    for part in [
        "from 0 to 255",
        "slope 1 and intercept -8192 of the metadata",
        "slope 2.5 and intercept 0 of the header",
        "as stored",
    ] {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}

#[test]
fn a_policy_is_carried_out_whatever_the_values_are() {
    let (metadata, header) = (rescale(1.0, -8192.0), rescale(2.0, 3.0));
    let picture = sample(CHEST, |value| (value + 1000.0) / 8.0);
    for (policy, reading, expected) in [
        (RescalePolicy::Metadata, Reading::Metadata, metadata),
        (RescalePolicy::Header, Reading::Header, header),
        (RescalePolicy::None, Reading::Stored, Rescale::NONE),
    ] {
        let candidates = Candidates::new(Path::new("scan"), policy, Some(metadata), header)
            .expect("usable numbers");
        assert_eq!(candidates.only(), Some(expected));
        let decision = candidates
            .decide(Path::new("scan"), &picture)
            .expect("nothing is refused");
        assert_eq!(
            (decision.reading, decision.rescale, decision.forced),
            (reading, expected, true)
        );
    }
}

#[test]
fn slopes_that_cannot_be_applied_are_refused() {
    let path = Path::new("scan");
    let missing = Candidates::new(path, RescalePolicy::Metadata, None, Rescale::NONE);
    assert!(matches!(missing, Err(Error::RescaleMissing { .. })));
    for unusable in [
        rescale(0.0, 0.0),
        rescale(f64::NAN, 0.0),
        rescale(1.0, f64::INFINITY),
    ] {
        let found = Candidates::new(path, RescalePolicy::Auto, Some(unusable), Rescale::NONE);
        assert!(
            matches!(found, Err(Error::RescaleUnusable { .. })),
            "{unusable:?}"
        );
    }
}

#[test]
fn a_sample_does_not_depend_on_how_the_scan_arrives() {
    let size = [96, 80, 211];
    let voxels: Vec<f32> = (0..size.iter().product::<usize>())
        .map(|index| {
            if index % 1000 == 7 {
                f32::NAN
            } else {
                index as f32
            }
        })
        .collect();
    let mut whole = Sample::new(size);
    whole.visit(0, &voxels);
    let mut pieces = Sample::new(size);
    for (number, piece) in voxels.chunks(12_345).enumerate() {
        pieces.visit(number * 12_345, piece);
    }
    assert!(whole.step > 1, "the case must skip voxels");
    assert!(pieces.counted().eq(whole.counted()));
    assert_eq!(pieces.not_finite, whole.not_finite);
    assert_eq!(whole.not_finite, voxels.len().div_ceil(1000));
    let columns: std::collections::BTreeSet<usize> = whole
        .counted()
        .map(|(value, _)| value as usize % size[0])
        .collect();
    assert_eq!(columns.len(), size[0], "every column is visited");
}

#[test]
fn whole_numbers_count_the_same_in_every_type() {
    let stored: Vec<i16> = (0..30_000).map(|index| (index % 700) - 350).collect();
    let floats: Vec<f32> = stored.iter().map(|&value| f32::from(value)).collect();
    let (mut whole, mut float) = (Sample::new([300, 100, 1]), Sample::new([300, 100, 1]));
    whole.visit(0, &stored);
    float.visit(0, &floats);
    float.visit(30_000, &[0.5, -40_000.0, f32::NAN, 0.5]);
    let expected = (-350..350).map(|value| {
        let found = stored.iter().filter(|stored| **stored == value);
        (f32::from(value), found.count())
    });
    assert!(whole.counted().eq(expected.clone()));
    let others = [(0.5, 1), (-40_000.0, 1), (0.5, 1)];
    assert!(float.counted().eq(expected.chain(others)));
}
