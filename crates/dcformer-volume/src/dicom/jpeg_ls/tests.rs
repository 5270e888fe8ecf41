//! The decoder against an encoder written from the same annex, and against damage.
//!
//! Streams of other encoders, lossless and near-lossless, are in `tests/it/dicom/real.rs`.
#![allow(
    clippy::cast_possible_truncation,
    reason = "samples of at most 16 bits, codes of at most 32"
)]

use proptest::prelude::*;

use super::model::{Model, Parameters, RUN_BITS, Regular};
use super::{Image, decode};

/// A picture and how to code it.
#[derive(Clone, Debug)]
struct Picture {
    precision: u8,
    near: u8,
    rows: u16,
    columns: u16,
    /// MAXVAL, T1, T2, T3, RESET.
    presets: [u16; 5],
    samples: Vec<i32>,
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    current: u32,
    filled: u32,
}

impl Writer {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.current = self.current << 1 | (value >> bit & 1);
            self.filled += 1;
            let width = if self.bytes.last() == Some(&0xFF) {
                7
            } else {
                8
            };
            if self.filled == width {
                self.bytes.push(self.current as u8);
                (self.current, self.filled) = (0, 0);
            }
        }
    }

    fn golomb(&mut self, model: &Model, code: i32, k: u32, limit: u32) {
        let code = code as u32;
        let longest = limit - model.parameters.error_bits - 1;
        if code >> k < longest {
            self.put(0, code >> k);
            self.put(1, 1);
            self.put(code & ((1 << k) - 1), k);
        } else {
            self.put(0, longest);
            self.put(1, 1);
            self.put(code - 1, model.parameters.error_bits);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.filled > 0 {
            self.put(0, 1);
        }
        if self.bytes.last() == Some(&0xFF) {
            self.bytes.push(0);
        }
        self.bytes
    }
}

impl Picture {
    fn encode(&self) -> Vec<u8> {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xF7, 0, 11, self.precision];
        stream.extend(self.rows.to_be_bytes());
        stream.extend(self.columns.to_be_bytes());
        stream.extend([1, 1, 0x11, 0]);
        if self.presets != [0; 5] {
            stream.extend([0xFF, 0xF8, 0, 13, 1]);
            stream.extend(self.presets.iter().flat_map(|value| value.to_be_bytes()));
        }
        stream.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, self.near, 0, 0]);
        stream.extend(self.scan());
        stream.extend([0xFF, 0xD9]);
        stream
    }

    fn scan(&self) -> Vec<u8> {
        let parameters =
            Parameters::new(self.precision, self.near, self.presets.map(i32::from)).unwrap();
        let mut model = Model::new(parameters);
        let mut writer = Writer::default();
        let columns = usize::from(self.columns);
        let mut above = vec![0; columns + 2];
        let mut line = vec![0; columns + 2];
        for samples in self.samples.chunks(columns) {
            above[columns + 1] = above[columns];
            line[0] = above[1];
            let mut column = 1;
            while column <= columns {
                let [a, b, c, d] = [
                    line[column - 1],
                    above[column],
                    above[column - 1],
                    above[column + 1],
                ];
                if let Some(Regular { context, negative }) = model.context(a, b, c, d) {
                    line[column] = regular(
                        &mut model,
                        &mut writer,
                        samples[column - 1],
                        [a, b, c],
                        context,
                        negative,
                    );
                    column += 1;
                    continue;
                }
                let near = parameters.near;
                let run = samples[column - 1..]
                    .iter()
                    .take_while(|&&sample| (sample - a).abs() <= near)
                    .count();
                line[column..column + run].fill(a);
                column += run;
                let ends = column > columns;
                write_run(&mut model, &mut writer, run, ends);
                if !ends {
                    line[column] = interruption(
                        &mut model,
                        &mut writer,
                        samples[column - 1],
                        a,
                        above[column],
                    );
                    column += 1;
                }
            }
            std::mem::swap(&mut above, &mut line);
        }
        writer.finish()
    }
}

/// Quantised and reduced error of a sample, as A.4.4 and A.4.5 have it.
fn error_of(model: &Model, difference: i32) -> i32 {
    let Parameters { near, range, .. } = model.parameters;
    let step = 2 * near + 1;
    let quantised = if difference > 0 {
        (difference + near) / step
    } else {
        -((near - difference) / step)
    };
    let reduced = if quantised < 0 {
        quantised + range
    } else {
        quantised
    };
    if reduced >= (range + 1) / 2 {
        reduced - range
    } else {
        reduced
    }
}

fn regular(
    model: &mut Model,
    writer: &mut Writer,
    sample: i32,
    [a, b, c]: [i32; 3],
    context: usize,
    negative: bool,
) -> i32 {
    let predicted = model.predict(context, negative, a, b, c);
    let difference = sample - predicted;
    let error = error_of(model, if negative { -difference } else { difference });
    let k = model.contexts[context].golomb(model.contexts[context].a);
    let code = match (model.mirrored(context, k), error >= 0) {
        (false, true) => 2 * error,
        (false, false) => -2 * error - 1,
        (true, true) => 2 * error + 1,
        (true, false) => -2 * (error + 1),
    };
    writer.golomb(model, code, k, model.parameters.limit);
    model.learn(context, error);
    model.reconstruct(predicted, if negative { -error } else { error })
}

fn write_run(model: &mut Model, writer: &mut Writer, mut run: usize, ends: bool) {
    while run >= 1 << RUN_BITS[model.run_index] {
        writer.put(1, 1);
        run -= 1 << RUN_BITS[model.run_index];
        model.run_index = (model.run_index + 1).min(31);
    }
    if !ends {
        writer.put(0, 1);
        writer.put(run as u32, RUN_BITS[model.run_index]);
    } else if run > 0 {
        writer.put(1, 1);
    }
}

fn interruption(model: &mut Model, writer: &mut Writer, sample: i32, a: i32, b: i32) -> i32 {
    let same = (a - b).abs() <= model.parameters.near;
    let predicted = if same { a } else { b };
    let flip = !same && a > b;
    let difference = sample - predicted;
    let error = error_of(model, if flip { -difference } else { difference });
    let (context, k) = model.interruption(same);
    let folds = model.negative_folds(context, k);
    let odd = (error < 0 && folds) || (error > 0 && !folds);
    let code = 2 * error.abs() - i32::from(same) - i32::from(odd);
    writer.golomb(
        model,
        code,
        k,
        model.parameters.limit - RUN_BITS[model.run_index] - 1,
    );
    model.learn_interruption(context, error, code, same);
    model.run_index = model.run_index.saturating_sub(1);
    model.reconstruct(predicted, if flip { -error } else { error })
}

/// Pictures with long runs, slopes and noise, in which every branch of the coder is taken.
fn any_picture() -> impl Strategy<Value = Picture> {
    let sizes = (2..=16u8, 0..6u8, 1..24u16, 1..40u16);
    (sizes, any::<u64>(), 0..4u8, prop::bool::ANY).prop_map(
        |((precision, near, rows, columns), seed, kind, preset)| {
            let max = (1i32 << precision) - 1;
            let near = near.min(u8::try_from(max / 2).unwrap_or(255));
            let mut state = seed | 1;
            let mut random = |bound: i32| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state % (bound as u64 + 1)) as i32
            };
            let mut level = max / 2;
            let samples = (0..i32::from(rows) * i32::from(columns)).map(|index| match kind {
                0 => random(max),
                1 => (index / 3 + random(2)) & max,
                2 => {
                    if random(20) == 0 {
                        level = random(max);
                    }
                    level
                }
                _ => {
                    if random(9) == 0 {
                        random(max)
                    } else {
                        max
                    }
                }
            });
            let samples = samples.collect();
            let thresholds = [near.into(), max as u16 / 3, max as u16 / 2]
                .map(|value: u16| value.max(u16::from(near) + 1));
            let presets = if preset && thresholds.is_sorted() && thresholds[2] <= max as u16 {
                [max as u16, thresholds[0], thresholds[1], thresholds[2], 31]
            } else {
                [0; 5]
            };
            Picture {
                precision,
                near,
                rows,
                columns,
                presets,
                samples,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decoding_undoes_encoding(picture in any_picture()) {
        let image = decode(&picture.encode(), picture.rows, picture.columns).unwrap();
        let near = i32::from(picture.near);
        prop_assert_eq!(image.near, near);
        for (index, (found, expected)) in image.samples.iter().zip(&picture.samples).enumerate() {
            prop_assert!((found - expected).abs() <= near, "sample {}: {} for {}", index, found, expected);
        }
    }

    #[test]
    fn damage_gives_an_error_or_a_picture(picture in any_picture(), flips in prop::collection::vec(any::<(u16, u8)>(), 1..4)) {
        let mut stream = picture.encode();
        for (place, value) in flips {
            let place = usize::from(place) % stream.len();
            stream[place] = value;
        }
        if let Ok(Image { samples, .. }) = decode(&stream, picture.rows, picture.columns) {
            prop_assert_eq!(samples.len(), usize::from(picture.rows) * usize::from(picture.columns));
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    let samples = (0..20 * 20).map(|index| index * 7919 % 4096).collect();
    let picture = Picture {
        precision: 12,
        near: 0,
        rows: 20,
        columns: 20,
        presets: [0; 5],
        samples,
    };
    let stream = picture.encode();
    // Without the end marker, which nothing needs, and the last byte's padding, all is there.
    for length in 0..stream.len() - 3 {
        assert!(
            decode(&stream[..length], 20, 20).is_err(),
            "{length} of {} bytes",
            stream.len()
        );
    }
}

/// The table of C.2.4.1.1: thresholds at common precisions.
#[test]
fn default_thresholds_are_the_standards() {
    assert_eq!(super::model::default_thresholds(255, 0), [3, 7, 21]);
    assert_eq!(super::model::default_thresholds(4095, 0), [18, 67, 276]);
    assert_eq!(super::model::default_thresholds(65535, 0), [18, 67, 276]);
    assert_eq!(super::model::default_thresholds(15, 0), [2, 3, 4]);
}

#[test]
fn what_is_not_supported_is_said() {
    let picture = Picture {
        precision: 8,
        near: 0,
        rows: 2,
        columns: 2,
        presets: [0; 5],
        samples: vec![1, 2, 3, 4],
    };
    let stream = picture.encode();
    let change = |place: usize, value: u8| {
        let mut changed = stream.clone();
        changed[place] = value;
        decode(&changed, 2, 2).unwrap_err()
    };
    assert!(change(11, 3).contains("3 components"));
    assert!(change(6, 17).contains("17 bits"));
    assert!(change(21, 1).contains("mapping table"));
    assert!(change(24, 2).contains("point transform"));
    assert!(change(3, 0xC3).contains("another kind"));
    assert!(
        decode(&stream, 2, 3)
            .unwrap_err()
            .contains("2 rows of 2 in the stream, 2 of 3 in the header")
    );
}
