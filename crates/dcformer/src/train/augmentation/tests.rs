use super::*;

const SHAPE: Shape3 = Shape3 {
    depth: 2,
    height: 3,
    width: 4,
};

fn preprocess(shape: Shape3, plane: PlaneOrder) -> Preprocess {
    Preprocess {
        shape,
        plane,
        ..Preprocess::dcformer()
    }
}

/// A volume whose values tell voxels apart and lie within the range of a network's input.
fn ramp() -> Vec<f16> {
    (0..24u8)
        .map(|index| f16::from_f32(f32::from(index) / 32.0))
        .collect()
}

fn applied(augmentation: Augmentation, values: &[f16], preprocess: &Preprocess) -> Vec<f32> {
    let mut out = vec![preprocess.pad_value; values.len()];
    augmentation.apply(values, &mut out, preprocess);
    out
}

#[test]
fn a_shift_moves_every_voxel_and_pads_the_rest() {
    let values = ramp();
    for shift in [
        [0, 0, 0],
        [1, 0, 0],
        [0, -1, 2],
        [-1, 2, -3],
        [0, 0, 4],
        [0, 0, -9],
        [5, 0, 0],
    ] {
        for (mirrored, plane) in [
            (false, PlaneOrder::ColumnsFirst),
            (true, PlaneOrder::ColumnsFirst),
            (true, PlaneOrder::RowsFirst),
        ] {
            let augmentation = Augmentation {
                shift_voxels: shift,
                mirrored,
                ..Augmentation::NONE
            };
            let out = applied(augmentation, &values, &preprocess(SHAPE, plane));
            for z in 0..2isize {
                for y in 0..3isize {
                    for x in 0..4isize {
                        let [sz, mut sy, mut sx] = [z - shift[0], y - shift[1], x - shift[2]];
                        let inside =
                            (0..2).contains(&sz) && (0..3).contains(&sy) && (0..4).contains(&sx);
                        if mirrored && plane == PlaneOrder::ColumnsFirst {
                            sy = 2 - sy;
                        } else if mirrored {
                            sx = 3 - sx;
                        }
                        let expected = if inside {
                            ((sz * 3 + sy) * 4 + sx) as f32 / 32.0
                        } else {
                            -1.0
                        };
                        assert_eq!(
                            out[((z * 3 + y) * 4 + x) as usize],
                            expected,
                            "{shift:?}, mirrored {mirrored}, {plane:?} at {z} {y} {x}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn contrast_and_brightness_change_within_the_window() {
    let augmentation = Augmentation {
        scale: 1.5,
        offset: -0.25,
        ..Augmentation::NONE
    };
    let steps = preprocess(SHAPE, PlaneOrder::ColumnsFirst);
    for (value, changed) in ramp().iter().zip(applied(augmentation, &ramp(), &steps)) {
        // 1.5 / 32 is exact.
        assert_eq!(changed, (value.to_f32() * 1.5 - 0.25).min(1.0));
    }
    let darker = Augmentation {
        offset: -3.0,
        ..Augmentation::NONE
    };
    assert_eq!(applied(darker, &ramp(), &steps), [-1.0; 24]);
    let unit = Preprocess {
        intensity: dcformer_volume::preprocess::Intensity::MinMax,
        ..steps
    };
    assert_eq!(applied(darker, &ramp(), &unit), [0.0; 24]);
}

#[test]
fn noise_has_the_deviation_asked_for_and_is_drawn_once_for_a_seed() {
    let shape = Shape3 {
        depth: 32,
        height: 64,
        width: 64,
    };
    let steps = preprocess(shape, PlaneOrder::ColumnsFirst);
    let values = vec![f16::from_f32(0.25); shape.voxels()];
    let noisy = |seed| {
        let noise = Noise {
            deviation: 0.05,
            seed,
        };
        let augmentation = Augmentation {
            noise: Some(noise),
            ..Augmentation::NONE
        };
        applied(augmentation, &values, &steps)
    };
    let out = noisy(1);
    assert_eq!(out, noisy(1));
    assert_ne!(out, noisy(2));
    let count = shape.voxels() as f64;
    let differences = || out.iter().map(|value| f64::from(*value) - 0.25);
    let mean = differences().sum::<f64>() / count;
    let variance = differences().map(|value| value * value).sum::<f64>() / count;
    // Five standard errors.
    assert!(mean.abs() < 5.0 * 0.05 / count.sqrt(), "{mean}");
    let expected = 0.05f64.powi(2);
    let error = expected * (2.0 / count).sqrt();
    assert!((variance - expected).abs() < 5.0 * error, "{variance}");
    let neighbours: f64 = out
        .windows(2)
        .map(|pair| (f64::from(pair[0]) - 0.25) * (f64::from(pair[1]) - 0.25))
        .sum();
    let correlation = neighbours / (count * expected);
    assert!(correlation.abs() < 5.0 / count.sqrt(), "{correlation}");
}

#[test]
fn what_is_drawn_depends_on_seed_and_volume_and_stays_within_its_bounds() {
    let train = TrainConfig {
        mirror_left_right: 0.25,
        intensity_scale: 0.1,
        intensity_offset: 0.05,
        noise: 0.02,
        ..TrainConfig::default()
    };
    let draw = |seed, volume| Augmentation::draw(&train, [1, -2, 0], seed, volume);
    let drawn: Vec<Augmentation> = (0..4000).map(|volume| draw(7, volume)).collect();
    assert_eq!(drawn[9], draw(7, 9));
    assert_ne!(drawn[9], draw(8, 9));
    let mirrored = drawn.iter().filter(|drawn| drawn.mirrored).count();
    // 1000 within five standard errors of 27.
    assert!(mirrored.abs_diff(1000) < 137, "{mirrored}");
    let extremes = |of: fn(&Augmentation) -> f32| {
        let values = drawn.iter().map(of);
        values.fold((f32::MAX, f32::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    for ((low, high), (least, most)) in [
        (extremes(|drawn| drawn.scale), (0.9, 1.1)),
        (extremes(|drawn| drawn.offset), (-0.05, 0.05)),
    ] {
        // All are inside, and some come near to either end.
        let near = (most - least) * 0.01;
        assert!(low >= least && low < least + near, "{low}");
        assert!(high <= most && high > most - near, "{high}");
    }
    assert!(drawn.iter().all(|drawn| drawn.shift_voxels == [1, -2, 0]));
    let none = Augmentation::draw(&TrainConfig::default(), [0; 3], 7, 9);
    assert_eq!(none, Augmentation::NONE);
}

#[test]
fn sides_change_places_in_a_report_and_nothing_else_does() {
    for (report, mirrored) in [
        ("Nodule in the right lung.", "Nodule in the left lung."),
        (
            "Left-sided effusion; RIGHT lung",
            "Right-sided effusion; LEFT lung",
        ),
        ("left/right,Left", "right/left,Right"),
        (
            "Upright. Cleft. Bright lefty.",
            "Upright. Cleft. Bright lefty.",
        ),
        ("Größe links, 7 mm", "Größe links, 7 mm"),
        ("", ""),
    ] {
        assert_eq!(swap_sides(report), mirrored);
        assert_eq!(swap_sides(mirrored), report);
    }
}
