//! Costs counted by hand.

use super::*;

#[test]
fn layers_are_counted_by_hand() {
    let mut cost = Cost::default();
    cost.conv("dense", [2, 3], 27, 10, Bias::With);
    cost.conv("pointwise", [2, 3], 1, 10, Bias::Without);
    cost.depthwise("depthwise", 4, 9, 10, Bias::With);
    cost.norm("norm", 4, 10);
    cost.handwritten_norm("by_hand", 4);
    cost.norm_without_shift("scale_only", 4, 10);
    cost.parameter("gamma", 4);
    cost.attention(
        "attention",
        AttentionSize {
            sequences: 2,
            tokens: 5,
            heads: 3,
            head_dim: 7,
            products: Products::Matmul,
            bias: false,
        },
        Operands::packed(cost.here()),
    );
    let found: Vec<_> = cost
        .layers()
        .iter()
        .map(|layer| {
            let Amount {
                params,
                macs,
                activations,
            } = layer.amount;
            (layer.kind, [params, macs, activations])
        })
        .collect();
    let expected = [
        (Kind::Convolution, [162 + 3, 1620, 30]),
        (Kind::Linear, [6, 60, 30]),
        (Kind::Depthwise, [36 + 4, 360, 40]),
        (Kind::Norm, [8, 200, 0]),
        (Kind::Norm, [8, 0, 0]),
        (Kind::Norm, [4, 200, 0]),
        (Kind::Parameter, [4, 0, 0]),
        (
            Kind::Attention,
            [0, 2 * 2 * 3 * 25 * 7, 2 * 3 * 25 + 2 * 5 * 21],
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn parts_are_named_by_their_place() {
    let mut block = Cost::default();
    block.parameter("gamma", 1);
    let mut cost = Cost::default();
    cost.part("stages.0", block.clone());
    let mut outer = Cost::default();
    outer.part("encoder", cost);
    assert_eq!(outer.layers()[0].name, "encoder.stages.0.gamma");
}

/// 2049 tokens in 4 heads of 96: 2 x 1 612 185 984, of which NumPy prints 3.224e+09.
#[test]
fn an_einsum_is_counted_in_four_digits() {
    let mut cost = Cost::default();
    cost.attention(
        "attention",
        AttentionSize {
            sequences: 1,
            tokens: 2049,
            heads: 4,
            head_dim: 96,
            products: Products::Einsum,
            bias: false,
        },
        Operands::packed(cost.here()),
    );
    assert_eq!(cost.total().macs, 3_224_000_000);
}
