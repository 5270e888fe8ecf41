//! What the paper prints of its networks (table 1, table 2), beside what is counted here.

use serde::Serialize;

/// A row of the paper's tables: numbers as they are printed, and why ours are others.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The network, by the name that it has here.
    pub model: &'static str,
    /// Its size.
    pub variant: &'static str,
    /// Parameters, with `K` or `M` for 10^3 or 10^6.
    params: &'static str,
    /// Multiply-adds in units of 10^9; the paper calls them GFLOPs.
    gflops: &'static str,
    /// What the parameters are those of.
    scope: Scope,
    /// Why a printed number is not ours to its last digit, if one is not.
    reason: Option<&'static str>,
}

/// What a printed number of parameters includes (P8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The encoder alone.
    Encoder,
    /// The encoder, and the projection of its features to 512 numbers.
    WithProjection,
}

/// A row of the paper beside ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What the parameters are those of.
    pub scope: Scope,
    /// Parameters.
    pub params: Compared,
    /// Multiply-adds.
    pub macs: Compared,
    /// Why one is not ours to its last digit.
    pub reason: Option<&'static str>,
}

/// A number that the paper prints and the one that is counted here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// As it is printed, in millions (parameters) or in units of 10^9 (multiply-adds).
    pub printed: f64,
    /// What is counted here.
    pub counted: u64,
    /// How much larger ours is, in percent of the printed one.
    pub difference_percent: f64,
    /// Whether ours is the printed one to its last digit.
    pub agrees: bool,
}

/// The rows of table 1 in its order, and `small` of table 2 behind them.
pub const ROWS: [Row; 15] = {
    use Scope::{Encoder, WithProjection};
    const fn row(
        names: [&'static str; 2],
        [params, gflops]: [&'static str; 2],
        scope: Scope,
        reason: Option<&'static str>,
    ) -> Row {
        Row {
            model: names[0],
            variant: names[1],
            params,
            gflops,
            scope,
            reason,
        }
    }
    [
        row(
            ["dcformer", "nano"],
            ["920.3K", "34.21"],
            WithProjection,
            None,
        ),
        row(["convnext", "nano"], ["3.19M", "31.92"], Encoder, None),
        row(["poolformer", "nano"], ["2.79M", "27.14"], Encoder, None),
        row(["dcformer", "naive"], ["5.85M", "49.48"], Encoder, None),
        row(
            ["vit", "naive"],
            ["11.10M", "39.05"],
            Encoder,
            Some("11.09 M parameters, rounded to 11.1 and printed with two decimals, as it seems"),
        ),
        row(["convnext", "naive"], ["15.63M", "96.84"], Encoder, None),
        row(["poolformer", "naive"], ["11.31M", "63.75"], Encoder, None),
        row(["transunet", "naive"], ["12.48M", "118.9"], Encoder, None),
        row(
            ["dcformer", "tiny"],
            ["15.1M", "168.2"],
            WithProjection,
            Some("168.1455 is 168.1 when rounded once; 168.2 is what it becomes by way of 168.15"),
        ),
        row(["vit", "tiny"], ["26.34M", "86.43"], Encoder, None),
        row(
            ["convnext", "tiny"],
            ["31.59M", "156.31"],
            Encoder,
            Some(
                "the network that has the printed parameters counts 159.31, which differs from the printed number in one \
                 digit, where the other five rows of its kind agree: a misprint, as it seems (P34)",
            ),
        ),
        row(["transunet", "tiny"], ["23.93M", "207.5"], Encoder, None),
        row(["poolformer", "tiny"], ["20.68M", "117.46"], Encoder, None),
        row(
            ["ctvit", "paper"],
            ["101.1M", "160.5"],
            WithProjection,
            None,
        ),
        row(
            ["dcformer", "small-paper"],
            ["26.86M", "202.9"],
            WithProjection,
            Some(
                "kernels of 7 in all stages, as the paper's table 2 has them, count 202.84; with 9 in the second stage it \
                 would be 202.90, and the parameters the same to the printed digit (P7)",
            ),
        ),
    ]
};

/// The row of a network in a size, if the paper has one.
pub fn row(model: &str, variant: &str) -> Option<&'static Row> {
    ROWS.iter()
        .find(|row| (row.model, row.variant) == (model, variant))
}

impl Row {
    /// The printed numbers beside counted ones: parameters without and with the projection, and multiply-adds.
    pub(super) fn compare(&self, params: [u64; 2], macs: u64) -> Comparison {
        let [encoder, with_projection] = params;
        let params = match self.scope {
            Scope::Encoder => encoder,
            Scope::WithProjection => with_projection,
        };
        Comparison {
            scope: self.scope,
            params: Printed::new(self.params, 1e6).compare(params),
            macs: Printed::new(self.gflops, 1e9).compare(macs),
            reason: self.reason,
        }
    }

    /// Parameters as they are printed.
    pub fn printed_params(&self) -> &'static str {
        self.params
    }

    /// Multiply-adds as they are printed, in units of 10^9.
    pub fn printed_gflops(&self) -> &'static str {
        self.gflops
    }
}

/// A number as it is printed.
#[derive(Clone, Copy, Debug)]
struct Printed {
    value: f64,
    /// Half of what one more in the last digit would add.
    half_digit: f64,
    /// What the numbers of its table are stated in.
    unit: f64,
}

impl Printed {
    /// Reads decimal digits, with `K` or `M` behind them for units of their own.
    fn new(text: &str, unit: f64) -> Self {
        let (digits, factor) = match text.as_bytes() {
            [.., b'K'] => (&text[..text.len() - 1], 1e3),
            [.., b'M'] => (&text[..text.len() - 1], 1e6),
            _ => (text, unit),
        };
        let decimals = digits
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len());
        let number: f64 = digits.parse().expect("the printed numbers are numbers");
        Self {
            value: number * factor,
            half_digit: 0.5 * factor / 10f64.powi(decimals as i32),
            unit,
        }
    }

    fn compare(self, counted: u64) -> Compared {
        let apart = counted as f64 - self.value;
        // In tens of millions, a double holds these to far less than one; a half is taken either way.
        let agrees = apart.abs() <= self.half_digit * (1.0 + 1e-9);
        let in_units = self.value / self.unit;
        Compared {
            // The division leaves digits that were not printed.
            printed: (in_units * 1e4).round() / 1e4,
            counted,
            // The sum with zero makes a zero of a negative one.
            difference_percent: (1e4 * apart / self.value).round() / 1e2 + 0.0,
            agrees,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_numbers_agree_up_to_half_of_their_last_digit() {
        let compared = |text, unit, counted| Printed::new(text, unit).compare(counted);
        let found = compared("920.3K", 1e6, 920_288);
        assert_eq!(
            (found.printed, found.difference_percent, found.agrees),
            (0.9203, -0.0, true)
        );
        assert!(compared("63.75", 1e9, 63_745_000_000).agrees);
        assert!(!compared("63.75", 1e9, 63_744_999_000).agrees);
        let found = compared("156.31", 1e9, 159_313_035_264);
        assert_eq!(
            (found.printed, found.difference_percent, found.agrees),
            (156.31, 1.92, false)
        );
        assert!(compared("5.85M", 1e6, 5_854_999).agrees);
        assert!(!compared("5.85M", 1e6, 5_856_000).agrees);
    }
}
