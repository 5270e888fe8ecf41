//! Which reading of stored values makes Hounsfield units of them.
//!
//! CT-RATE exists in two releases: in the first, files hold raw values and the metadata table's slope and intercept
//! make Hounsfield units; in the second, files hold Hounsfield units, and applying the table again ruins them
//! silently (CT-CLIP issues 28 and 50). Other files carry the rescaling in their header, or have lost it. So by default
//! the values themselves decide: of the readings that metadata and header offer, the one that looks like CT is taken,
//! and when none does, the scan is refused.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::volume::Rescale;

/// Where the slope and the intercept come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RescalePolicy {
    /// The values decide between the other three; a scan that looks like CT under none of them is refused.
    #[default]
    Auto,
    /// The table beside the files, or what the user gave (CT-RATE's first release).
    Metadata,
    /// The scan's own header.
    Header,
    /// Nowhere: the stored values are Hounsfield units (CT-RATE's second release).
    None,
}

/// A way to read the stored values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// With the metadata's slope and intercept, applied to the stored values in place of the header's.
    Metadata,
    /// With the header's slope and intercept.
    Header,
    /// As they are.
    Stored,
}

/// How the stored values were read, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RescaleDecision {
    /// The reading taken.
    pub reading: Reading,
    /// Its slope and intercept.
    pub rescale: Rescale,
    /// Whether the policy asked for this reading; otherwise the values decided.
    pub forced: bool,
    /// A reading that metadata or header offered and the values spoke against.
    pub rejected: Option<(Reading, Rescale)>,
}

impl fmt::Display for RescaleDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rescale { slope, intercept } = self.rescale;
        match self.reading {
            Reading::Stored => write!(f, "stored values are taken as Hounsfield units")?,
            Reading::Metadata | Reading::Header => {
                write!(
                    f,
                    "Hounsfield units = {slope} * stored + {intercept}, from the {}",
                    self.reading
                )?;
            }
        }
        match (self.forced, self.rejected) {
            (true, _) => write!(f, ", as asked for"),
            (false, Some((reading, Rescale { slope, intercept }))) => {
                write!(
                    f,
                    "; slope {slope} and intercept {intercept} of the {reading} would not give CT values"
                )
            }
            (false, None) => Ok(()),
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Header => "header",
            Self::Stored => "stored values",
        })
    }
}

/// Stored values taken at a fixed step through the whole scan, so that they do not depend on how it is read, and how
/// often each occurs: a scan has half a million voxels to look at, but only some thousand different ones.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    step: usize,
    /// How often each `i16` occurs, the smallest first.
    whole: Vec<u32>,
    /// Finite values that are no `i16`.
    others: Vec<f32>,
    /// Voxels that are NaN or infinite, of all those visited.
    pub(crate) not_finite: usize,
}

impl Sample {
    /// Enough for shares of a thousandth.
    const VALUES: usize = 500_000;

    /// For a scan of `size` voxels along `i, j, k`.
    pub(crate) fn new(size: [usize; 3]) -> Self {
        let voxels: usize = size.iter().product();
        let mut step = (voxels / Self::VALUES).max(1);
        // A step that shares a factor with the row length would visit some columns only: the edge, perhaps.
        while greatest_common_divisor(step, size[0]) > 1 {
            step += 1;
        }
        Self {
            step,
            whole: vec![0; 1 << 16],
            others: Vec::new(),
            not_finite: 0,
        }
    }

    /// Looks at the next voxels of the scan, of which `first` is the number of the first one in storage order.
    pub(crate) fn visit<T: Stored>(&mut self, first: usize, voxels: &[T]) {
        let skip = first.next_multiple_of(self.step) - first;
        for stored in voxels.iter().skip(skip).step_by(self.step) {
            if let Some(whole) = stored.whole() {
                self.whole[usize::from(whole.wrapping_sub(i16::MIN) as u16)] += 1;
            } else if stored.widen().is_finite() {
                self.others.push(stored.widen());
            }
        }
        self.not_finite += T::not_finite(voxels);
    }

    /// Values with how often they occur, those that are `i16`, in rising order, and then the others, each by itself.
    fn counted(&self) -> impl Iterator<Item = (f32, usize)> {
        // Most blocks of values do not occur, which is seen quickly.
        const BLOCK: usize = 64;
        let blocks = self
            .whole
            .chunks(BLOCK)
            .zip((i16::MIN..=i16::MAX).step_by(BLOCK));
        let whole = blocks
            .filter(|(counts, _)| counts.iter().any(|&count| count > 0))
            .flat_map(|(counts, first)| (first..=i16::MAX).zip(counts))
            .filter(|&(_, &count)| count > 0)
            .map(|(value, &count)| (f32::from(value), count as usize));
        whole.chain(self.others.iter().map(|&value| (value, 1)))
    }
}

const fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// A type that voxels are stored in.
pub(crate) trait Stored: Copy + Default + Send + Sync {
    /// The value, exactly.
    fn widen(self) -> f32;
    /// The value, if it is an `i16`.
    fn whole(self) -> Option<i16>;
    /// How many of them are NaN or infinite.
    fn not_finite(voxels: &[Self]) -> usize;
}

impl Stored for i16 {
    fn widen(self) -> f32 {
        f32::from(self)
    }

    fn whole(self) -> Option<i16> {
        Some(self)
    }

    fn not_finite(_: &[Self]) -> usize {
        0
    }
}

impl Stored for f32 {
    fn widen(self) -> f32 {
        self
    }

    fn whole(self) -> Option<i16> {
        // The cast takes NaN to 0, from which it differs.
        let whole = self as i16;
        (Self::from(whole) == self).then_some(whole)
    }

    fn not_finite(voxels: &[Self]) -> usize {
        voxels.iter().filter(|value| !value.is_finite()).count()
    }
}

/// The readings that a scan's metadata and header offer under a policy, the one to prefer first.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    readings: Vec<(Reading, Rescale)>,
    forced: bool,
}

impl Candidates {
    /// # Errors
    /// [`Error::RescaleMissing`] when the policy asks for metadata that is not there.
    pub(crate) fn new(
        path: &Path,
        policy: RescalePolicy,
        metadata: Option<Rescale>,
        header: Rescale,
    ) -> Result<Self> {
        let named = |reading, rescale| {
            if rescale == Rescale::NONE {
                (Reading::Stored, rescale)
            } else {
                (reading, rescale)
            }
        };
        let stored = (Reading::Stored, Rescale::NONE);
        let readings = match policy {
            RescalePolicy::Auto => {
                let mut readings = Vec::with_capacity(3);
                let offered = [
                    metadata.map(|rescale| named(Reading::Metadata, rescale)),
                    Some(named(Reading::Header, header)),
                    Some(stored),
                ];
                for (reading, rescale) in offered.into_iter().flatten() {
                    if readings.iter().all(|(_, known)| *known != rescale) {
                        readings.push((reading, rescale));
                    }
                }
                readings
            }
            RescalePolicy::Metadata => match metadata {
                Some(rescale) => vec![(Reading::Metadata, rescale)],
                None => {
                    return Err(Error::RescaleMissing {
                        path: path.to_owned(),
                    });
                }
            },
            RescalePolicy::Header => vec![(Reading::Header, header)],
            RescalePolicy::None => vec![stored],
        };
        for (reading, Rescale { slope, intercept }) in &readings {
            if !(slope.is_finite() && *slope != 0.0 && intercept.is_finite()) {
                return Err(Error::RescaleUnusable {
                    path: path.to_owned(),
                    reading: *reading,
                    slope: *slope,
                    intercept: *intercept,
                });
            }
        }
        Ok(Self {
            readings,
            forced: policy != RescalePolicy::Auto,
        })
    }

    /// The only reading there is, if the values cannot change it (they may still speak against it).
    pub(crate) fn only(&self) -> Option<Rescale> {
        match self.readings[..] {
            [(_, rescale)] => Some(rescale),
            _ => None,
        }
    }

    /// The best reading for part of a scan, never refusing: what the rest will probably show too.
    pub(crate) fn guess(&self, sample: &Sample) -> Rescale {
        self.best(sample)
            .map_or(self.readings[0].1, |best| self.readings[best].1)
    }

    /// The reading of a whole scan.
    ///
    /// # Errors
    /// [`Error::NotHounsfield`] when the values look like CT under no reading and none was asked for.
    pub(crate) fn decide(&self, path: &Path, sample: &Sample) -> Result<RescaleDecision> {
        let best = match self.best(sample) {
            _ if self.forced => 0,
            Some(best) => best,
            None => return Err(self.refusal(path, sample)),
        };
        let (reading, rescale) = self.readings[best];
        // What was offered in vain: only metadata and header make offers.
        let rejected = self.readings[..best].first().copied();
        Ok(RescaleDecision {
            reading,
            rescale,
            forced: self.forced,
            rejected,
        })
    }

    /// Index of the reading that looks most like CT. The first of several wins unless another one finds more than
    /// twice its soft tissue: small differences (another scanner's offset) say nothing, a shift of 1000 says all.
    fn best(&self, sample: &Sample) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for (index, (_, rescale)) in self.readings.iter().enumerate() {
            let census = Census::of(sample, *rescale);
            if census.looks_like_ct() && best.is_none_or(|(_, soft)| census.soft > 2.0 * soft) {
                best = Some((index, census.soft));
            }
        }
        best.map(|(index, _)| index)
    }

    fn refusal(&self, path: &Path, sample: &Sample) -> Error {
        let (low, high) = sample.counted().fold(
            (f32::INFINITY, f32::NEG_INFINITY),
            |(low, high), (value, _)| (low.min(value), high.max(value)),
        );
        let tried =
            self.readings
                .iter()
                .map(|(reading, Rescale { slope, intercept })| match reading {
                    Reading::Stored => "as stored".to_owned(),
                    Reading::Metadata | Reading::Header => {
                        format!("with slope {slope} and intercept {intercept} of the {reading}")
                    }
                });
        let found = if low > high {
            "no finite value".to_owned()
        } else {
            format!("stored values from {low} to {high}")
        };
        Error::NotHounsfield {
            path: path.to_owned(),
            found,
            tried: tried.collect::<Vec<_>>().join(", "),
        }
    }
}

/// Shares of a scan's values, scanner padding left out, in ranges that tell CT from everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Census {
    /// Air, lung, bowel gas: -1200 to -300 HU.
    gas: f64,
    /// Fat, water, muscle, blood: -200 to 200 HU.
    soft: f64,
    /// Less dense than air: below -1200 HU.
    impossible: f64,
    /// Denser than bone and most implants: above 3500 HU.
    metal: f64,
}

impl Census {
    const GAS_HU: [f64; 2] = [-1200.0, -300.0];
    const SOFT_HU: [f64; 2] = [-200.0, 200.0];
    const METAL_HU: f64 = 3500.0;
    /// Padding lies far below air; lossy compression spreads it (-3024 becomes -3339), so it need not be one value.
    const PADDING_HU: f64 = -2500.0;
    /// Share of all values from which one repeated value below [`Self::GAS_HU`] is padding (-2000, or GE's -1500).
    const PADDING_SHARE: f64 = 0.005;
    /// Padding values there may be: outside the scanner's circle, and outside the reconstructed square.
    const PADDING_VALUES: usize = 3;

    fn of(sample: &Sample, rescale: Rescale) -> Self {
        let mut below = Vec::new();
        let (mut all, mut gas, mut soft, mut metal) = (0_usize, 0_usize, 0_usize, 0_usize);
        let mut values = 0;
        for (stored, count) in sample.counted() {
            values += count;
            let value = rescale.apply(f64::from(stored));
            if value < Self::PADDING_HU {
                continue;
            }
            all += count;
            if value < Self::GAS_HU[0] {
                below.push((value, count));
            } else if value <= Self::GAS_HU[1] {
                gas += count;
            } else if value > Self::METAL_HU {
                metal += count;
            } else if (Self::SOFT_HU[0]..=Self::SOFT_HU[1]).contains(&value) {
                soft += count;
            }
        }
        let below_air = below.iter().map(|(_, count)| count).sum::<usize>();
        let padding = Self::padding(below, values);
        all -= padding;
        let share = |count: usize| {
            if all == 0 {
                0.0
            } else {
                count as f64 / all as f64
            }
        };
        Self {
            gas: share(gas),
            soft: share(soft),
            impossible: share(below_air - padding),
            metal: share(metal),
        }
    }

    /// How many of the values below air, given with how often they occur, are one of the few constants that fill the
    /// space around the scan.
    fn padding(mut below: Vec<(f64, usize)>, values: usize) -> usize {
        below.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut constants: Vec<usize> = below
            .chunk_by(|(a, _), (b, _)| a == b)
            .map(|run| run.iter().map(|(_, count)| count).sum())
            .filter(|&count: &usize| count as f64 >= Self::PADDING_SHARE * values as f64)
            .collect();
        constants.sort_unstable_by(|a, b| b.cmp(a));
        constants.iter().take(Self::PADDING_VALUES).sum()
    }

    /// Some gas, some soft tissue, hardly anything that cannot be.
    ///
    /// The limits are far from both sides. Sound scans: a head cropped tightly has 2 % gas, a chest 30 % and more; soft
    /// tissue is 30 to 60 %. Raw values read as Hounsfield units have no gas at all (air at 0 or 24); Hounsfield units
    /// rescaled once more have air and lung below -1200 and only bone left between -200 and 200.
    fn looks_like_ct(self) -> bool {
        self.gas >= 0.005 && self.soft >= 0.05 && self.impossible <= 0.05 && self.metal <= 0.02
    }
}

#[cfg(test)]
mod tests;
