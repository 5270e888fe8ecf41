//! Bringing values into range: which reading makes Hounsfield units of them, clip, window.

mod hounsfield;

use serde::{Deserialize, Serialize};

use crate::volume::Rescale;

pub(crate) use hounsfield::{Candidates, Sample, Stored};
pub use hounsfield::{Reading, RescaleDecision, RescalePolicy};

/// Range in Hounsfield units to which values are clipped before resampling.
///
/// The authors' data loader does so, as CT-CLIP's does (SPEC section 4): metal and scanner padding (-2000, -3024,
/// -8192) must not bleed into their neighbours through interpolation.
pub const CLIP_HU: [f64; 2] = [-1000.0, 1000.0];

/// A range of Hounsfield units that a network sees as -1 to 1; what lies outside is clipped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Becomes -1.
    pub low_hu: f64,
    /// Becomes 1.
    pub high_hu: f64,
}

impl Window {
    /// The window of the authors' code: `(HU + 400) / 600`.
    pub const DCFORMER: Self = Self {
        low_hu: -1000.0,
        high_hu: 200.0,
    };
    /// The window of the paper's text, and of CT-CLIP: `HU / 1000`.
    pub const FULL: Self = Self {
        low_hu: -1000.0,
        high_hu: 1000.0,
    };

    /// One value in Hounsfield units as the network sees it.
    ///
    /// # Example
    /// ```
    /// # use dcformer_volume::intensity::Window;
    /// assert_eq!(Window::DCFORMER.apply(50.0), 0.75);
    /// assert_eq!(Window::DCFORMER.apply(700.0), 1.0);
    /// ```
    pub fn apply(self, value_hu: f32) -> f32 {
        self.scale().apply(value_hu)
    }

    /// Clip before resampling for this window: [`CLIP_HU`], widened where the window is wider.
    pub fn clip_hu(self) -> [f64; 2] {
        [CLIP_HU[0].min(self.low_hu), CLIP_HU[1].max(self.high_hu)]
    }

    pub(crate) fn scale(self) -> Scale {
        let [low, high] = [self.low_hu, self.high_hu];
        Scale {
            low: low as f32,
            high: high as f32,
            zero: ((low + high) / 2.0) as f32,
            unit: ((high - low) / 2.0) as f32,
        }
    }
}

/// `(clip(value, low, high) - zero) / unit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    low: f32,
    high: f32,
    zero: f32,
    unit: f32,
}

impl Scale {
    /// Values between 0 and 1 stay what they are.
    pub(crate) const UNIT: Self = Self {
        low: 0.0,
        high: 1.0,
        zero: 0.0,
        unit: 1.0,
    };

    /// Divides where a product with the reciprocal would be faster: the edges must come out as -1 and 1 exactly.
    pub(crate) fn apply(self, value: f32) -> f32 {
        (value.clamp(self.low, self.high) - self.zero) / self.unit
    }
}

/// Stored value to the value that is resampled: `clip(slope * (stored - origin) + intercept, low, high)`, and `low`
/// (air, or background) where nothing finite is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Conversion {
    origin: f32,
    slope: f32,
    intercept: f32,
    low: f32,
    high: f32,
}

impl Conversion {
    /// To clipped Hounsfield units.
    pub(crate) fn hounsfield(Rescale { slope, intercept }: Rescale, [low, high]: [f64; 2]) -> Self {
        Self {
            origin: 0.0,
            slope: slope as f32,
            intercept: intercept as f32,
            low: low as f32,
            high: high as f32,
        }
    }

    /// The stored value `origin` to exactly 0, the value `end` to 1; all to 0 if they are the same.
    pub(crate) fn unit_range(origin: f32, end: f32) -> Self {
        let range = f64::from(end) - f64::from(origin);
        let slope = if range == 0.0 {
            0.0
        } else {
            range.recip() as f32
        };
        Self {
            origin,
            slope,
            intercept: 0.0,
            low: 0.0,
            high: 1.0,
        }
    }

    pub(crate) fn apply(self, stored: f32) -> f32 {
        let value = self.slope * (stored - self.origin) + self.intercept;
        if value.is_finite() {
            value.clamp(self.low, self.high)
        } else {
            self.low
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_windows_end_exactly_at_minus_one_and_one() {
        for window in [
            Window::DCFORMER,
            Window::FULL,
            Window {
                low_hu: -1350.0,
                high_hu: 150.0,
            },
        ] {
            assert_eq!(window.apply(window.low_hu as f32), -1.0);
            assert_eq!(window.apply(window.high_hu as f32), 1.0);
            assert_eq!(window.apply(-8192.0), -1.0);
            assert_eq!(window.apply(3071.0), 1.0);
        }
        assert_eq!(Window::FULL.apply(250.0), 0.25);
    }

    #[test]
    fn a_window_wider_than_the_clip_is_not_cut_by_it() {
        assert_eq!(Window::DCFORMER.clip_hu(), CLIP_HU);
        assert_eq!(
            Window {
                low_hu: -1350.0,
                high_hu: 3000.0
            }
            .clip_hu(),
            [-1350.0, 3000.0]
        );
    }

    #[test]
    fn values_that_are_not_finite_are_air() {
        let conversion = Conversion::hounsfield(Rescale::NONE, CLIP_HU);
        for stored in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3024.0] {
            assert_eq!(conversion.apply(stored), -1000.0, "{stored}");
        }
        assert_eq!(
            Conversion::hounsfield(
                Rescale {
                    slope: 0.5,
                    intercept: -1024.0
                },
                CLIP_HU
            )
            .apply(2128.0),
            40.0
        );
    }
}
