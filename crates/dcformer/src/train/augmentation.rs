//! Changes of a volume and its report that leave what they say: a network cannot learn by heart what is never the same.

use dcformer_volume::geometry::Shape3;
use dcformer_volume::preprocess::{PlaneOrder, Preprocess};
use half::f16;

use super::config::TrainConfig;
use crate::random::Random;

/// What is done to one volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Whether it is mirrored from left to right.
    pub mirrored: bool,
    /// Voxels along depth, height and width that it is moved by then.
    pub shift_voxels: [isize; 3],
    /// What its values are multiplied by then.
    pub scale: f32,
    /// What is added to all values.
    pub offset: f32,
    /// What is added to each value on its own; `None` for nothing.
    pub noise: Option<Noise>,
}

/// Noise of a volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Its standard deviation.
    pub deviation: f32,
    /// What it is drawn from.
    pub seed: u64,
}

impl Augmentation {
    /// None.
    pub const NONE: Self = Self {
        mirrored: false,
        shift_voxels: [0; 3],
        scale: 1.0,
        offset: 0.0,
        noise: None,
    };

    /// That of a volume of a run, whose volumes are counted through all steps; the shift is drawn by the caller.
    pub(super) fn draw(
        train: &TrainConfig,
        shift_voxels: [isize; 3],
        seed: u64,
        volume: u64,
    ) -> Self {
        let mut random = Random::new(seed, "augmentation of volume", volume);
        let mirrored = random.uniform() < train.mirror_left_right;
        let mut within = |most: f64| most * (2.0 * random.uniform() - 1.0);
        let scale = (1.0 + within(train.intensity_scale)) as f32;
        let offset = within(train.intensity_offset) as f32;
        Self {
            mirrored,
            shift_voxels,
            scale,
            offset,
            noise: (train.noise > 0.0).then(|| Noise {
                deviation: train.noise as f32,
                seed: random.bits(),
            }),
        }
    }

    /// Fills `out`, which holds the padding value, with the changed volume.
    pub(super) fn apply(&self, values: &[f16], out: &mut [f32], preprocess: &Preprocess) {
        self.copy_moved(values, out, preprocess.shape, preprocess.plane);
        self.change_intensity(out, preprocess.intensity.range());
    }

    /// `out[z][y][x] = values[z - shift][..]` where that is inside.
    fn copy_moved(&self, values: &[f16], out: &mut [f32], shape: Shape3, plane: PlaneOrder) {
        let Shape3 {
            depth,
            height,
            width,
        } = shape;
        let [shift_z, shift_y, shift_x] = self.shift_voxels;
        // In canonical orientation `i` grows towards left.
        let (mirror_y, mirror_x) = match plane {
            PlaneOrder::ColumnsFirst => (self.mirrored, false),
            PlaneOrder::RowsFirst => (false, self.mirrored),
        };
        let from = |position: usize, shift: isize, size: usize, mirror: bool| {
            let source = position.checked_add_signed(-shift)?;
            let mirrored = size.checked_sub(1 + source)?;
            Some(if mirror { mirrored } else { source })
        };
        let first = shift_x.max(0) as usize;
        let last = (width as isize + shift_x.min(0)).max(0) as usize;
        if first >= last {
            return;
        }
        let skipped = first.saturating_add_signed(-shift_x);
        for z in 0..depth {
            let Some(source_z) = from(z, shift_z, depth, false) else {
                continue;
            };
            for y in 0..height {
                let Some(source_y) = from(y, shift_y, height, mirror_y) else {
                    continue;
                };
                let out = &mut out[(z * height + y) * width..][first..last];
                let row = &values[(source_z * height + source_y) * width..][..width];
                if mirror_x {
                    copy(row.iter().rev().skip(skipped), out);
                } else {
                    copy(row[skipped..].iter(), out);
                }
            }
        }
    }

    /// Values stay in the range of a network's input, as those of a scanner would.
    fn change_intensity(&self, values: &mut [f32], [low, high]: [f32; 2]) {
        let Self { scale, offset, .. } = *self;
        match self.noise {
            Some(Noise { deviation, seed }) => {
                let mut random = Random::new(seed, "noise", 0);
                for value in values {
                    let noise = deviation * random.near_normal();
                    *value = (*value * scale + offset + noise).clamp(low, high);
                }
            }
            None if scale != 1.0 || offset != 0.0 => {
                for value in values {
                    *value = (*value * scale + offset).clamp(low, high);
                }
            }
            None => {}
        }
    }
}

fn copy<'a>(from: impl Iterator<Item = &'a f16>, to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.to_f32();
    }
}

/// The report of a mirrored scan: the words "left" and "right" have changed places.
pub(super) fn swap_sides(report: &str) -> String {
    let swapped = |part: &str| {
        let word = part.trim_end_matches(|last: char| !last.is_alphabetic());
        let other = match word.to_ascii_lowercase().as_str() {
            "left" => "right",
            "right" => "left",
            _ => return part.to_owned(),
        };
        let rest = &part[word.len()..];
        let is_upper = |letter: &str| letter.chars().all(char::is_uppercase);
        if is_upper(word) {
            other.to_uppercase() + rest
        } else if is_upper(&word[..1]) {
            other[..1].to_uppercase() + &other[1..] + rest
        } else {
            other.to_owned() + rest
        }
    };
    report
        .split_inclusive(|letter: char| !letter.is_alphabetic())
        .map(swapped)
        .collect()
}

#[cfg(test)]
mod tests;
