//! Convolutions over the size of their kernel: figures 1 and 2 of the paper.

use serde::Serialize;

use super::cost::{Amount, Bias, Cost};
use super::{PAPER_VOLUME, Shape3};

/// Channels in and out: those of the first stage of DCFormer naive. The paper's text does not say what its figures
/// assume; parameters of standard convolutions grow with the square of it, all else in proportion.
const CHANNELS: usize = 64;
/// Kernel sizes, up to the largest of the authors' code (P1).
const KERNELS: [usize; 6] = [3, 5, 7, 9, 11, 13];

/// A figure: what convolutions cost over the size of their kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// Its number in the paper.
    pub number: u8,
    /// What it shows.
    pub title: &'static str,
    /// What is counted, of which size.
    pub assumed: String,
    /// A curve for each kind of convolution.
    pub curves: Vec<Curve>,
}

/// A kind of convolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Curve {
    /// What it is, as in "3D depthwise".
    pub name: &'static str,
    /// From the smallest kernel to the largest.
    pub points: Vec<Point>,
}

/// What a convolution costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Taps along each axis.
    pub kernel: usize,
    /// Weights.
    pub params: u64,
    /// Multiply-adds of one volume.
    pub macs: u64,
}

impl Figure {
    /// Figure 1: convolutions in 2D and 3D, standard and depthwise.
    pub fn one() -> Self {
        let standard = |dimensions| {
            move |cost: &mut Cost, kernel: usize| {
                let (taps, positions) = (kernel.pow(dimensions), positions(dimensions));
                cost.conv("", [CHANNELS; 2], taps, positions, Bias::Without);
            }
        };
        Self {
            number: 1,
            title: "Convolutions in 2D and 3D, standard and depthwise",
            assumed: assumed(),
            curves: vec![
                Curve::of("3D standard", standard(3)),
                Curve::of("2D standard", standard(2)),
                Curve::of("3D depthwise", depthwise(3)),
                Curve::of("2D depthwise", depthwise(2)),
            ],
        }
    }

    /// Figure 2: a depthwise convolution in 3D and the decomposed one, three along one axis each.
    pub fn two() -> Self {
        Self {
            number: 2,
            title: "Depthwise convolution in 3D and decomposed convolution",
            assumed: assumed(),
            curves: vec![
                Curve::of("3D depthwise", depthwise(3)),
                Curve::of("decomposed", |cost, kernel| {
                    for _axis in 0..3 {
                        cost.depthwise("", CHANNELS, kernel, positions(3), Bias::Without);
                    }
                }),
            ],
        }
    }
}

fn depthwise(dimensions: u32) -> impl Fn(&mut Cost, usize) {
    move |cost, kernel| {
        let (taps, positions) = (kernel.pow(dimensions), positions(dimensions));
        cost.depthwise("", CHANNELS, taps, positions, Bias::Without);
    }
}

/// The grid of DCFormer's first stage for volumes of the paper's size.
fn grid() -> Shape3 {
    PAPER_VOLUME.strided(8)
}

/// Positions of the grid, or of one of its slices.
fn positions(dimensions: u32) -> usize {
    let grid = grid();
    match dimensions {
        2 => grid.height * grid.width,
        _ => grid.voxels(),
    }
}

fn assumed() -> String {
    let Shape3 {
        depth,
        height,
        width,
    } = grid();
    format!(
        "{CHANNELS} channels in and out, {height} x {width} x {depth} positions ({height} x {width} in 2D), stride 1, no biases"
    )
}

impl Curve {
    fn of(name: &'static str, convolution: impl Fn(&mut Cost, usize)) -> Self {
        let point = |kernel| {
            let mut cost = Cost::default();
            convolution(&mut cost, kernel);
            let Amount { params, macs, .. } = cost.total();
            Point {
                kernel,
                params,
                macs,
            }
        };
        Self {
            name,
            points: KERNELS.map(point).to_vec(),
        }
    }
}
