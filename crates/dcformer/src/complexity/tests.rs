//! What holds for every network's cost, and what can be counted by hand.

use super::*;

const SMALL: Shape3 = Shape3 {
    depth: 64,
    height: 96,
    width: 160,
};

/// A layer's name for every network in a size that it takes.
fn costs() -> Vec<(String, Cost, Shape3)> {
    let ct_clip = Shape3 {
        depth: 240,
        height: 480,
        width: 480,
    };
    let mut costs = Vec::new();
    for Preset {
        network,
        variant,
        config,
    } in presets()
    {
        for volume in [SMALL, PAPER_VOLUME, ct_clip] {
            if config.grid(volume).is_ok() {
                let name = format!("{network} {variant} of {volume}");
                costs.push((name, config.cost(volume), volume));
            }
        }
    }
    assert!(costs.len() > 50, "{}", costs.len());
    costs
}

#[test]
fn the_parts_are_the_whole_by_kind_and_by_layer_at_every_depth() {
    for (name, cost, volume) in costs() {
        let (total, memory) = (cost.total(), cost.memory(volume));
        let kinds = cost.by_kind(volume);
        let amount: Amount = kinds.iter().map(|share| share.amount).sum();
        let kept: u64 = kinds.iter().map(|share| share.training_bytes).sum();
        assert_eq!((amount, kept), (total, memory.training_bytes), "{name}");
        let mut coarser = 0;
        for depth in [1, 2, 3, usize::MAX] {
            let layers = cost.by_layer(volume, depth);
            let amount: Amount = layers.iter().map(|share| share.amount).sum();
            let kept: u64 = layers.iter().map(|share| share.training_bytes).sum();
            assert_eq!((amount, kept), (total, memory.training_bytes), "{name}");
            assert!(layers.len() >= coarser, "{name}");
            coarser = layers.len();
        }
        assert_eq!(
            coarser,
            cost.layers().len(),
            "{name}: every layer has a name of its own"
        );
    }
}

/// Whatever a network is, it holds its volume and what it makes of it, and training keeps at least what it reads.
#[test]
fn memory_has_the_bounds_that_it_must_have() {
    for (name, cost, volume) in costs() {
        let memory = cost.memory(volume);
        let input = 4 * volume.voxels() as u64;
        let written: u64 = 4 * cost.total().activations;
        assert!(memory.inference_bytes > input, "{name}");
        assert!(memory.training_bytes > input, "{name}");
        let known = cost
            .layers()
            .iter()
            .any(|layer| layer.name == memory.inference_peak);
        assert!(known, "{name}: {}", memory.inference_peak);
        // Convolutions and linear layers alone write this; each but the last is read by something that keeps it or by a norm.
        assert!(memory.training_bytes > written / 2, "{name}");
    }
}

#[test]
fn stages_are_the_levels_of_a_network() {
    let layers = |network, depth| -> Vec<String> {
        let config = crate::models::preset(network, None).unwrap().config;
        let shares = config.cost(PAPER_VOLUME).by_layer(PAPER_VOLUME, depth);
        shares.into_iter().map(|share| share.layer).collect()
    };
    assert_eq!(
        layers("dcformer", 1),
        ["stem", "stages.0", "stages.1", "stages.2", "stages.3"]
    );
    let second = layers("dcformer", 2);
    assert_eq!(
        second[..5],
        [
            "stem.convs.0",
            "stem.convs.1",
            "stem.convs.2",
            "stem.convs.3",
            "stages.0.pool"
        ]
    );
    // All of it lies in the pyramid, which is therefore no level.
    assert_eq!(
        layers("convnext", 1)[..2],
        ["pyramid.stem", "pyramid.stages.0"]
    );
    assert_eq!(
        layers("ctvit", 1),
        ["patch_embedding", "position_bias", "spatial", "temporal"]
    );
}

/// A network of one block on 10 positions of 4 channels: mixer, MLP of 8 units, residual, counted by hand in numbers.
#[test]
fn the_memory_of_a_block_is_that_by_hand() {
    let mut cost = Cost::default();
    cost.conv("patch", [1, 4], 8, 10, Bias::With);
    let x = cost.here();
    cost.sum_of(&["a", "b"], |cost, axis| {
        cost.depthwise(axis, 4, 3, 10, Bias::With);
        cost.norm(&format!("{axis}.norm"), 4, 10);
    });
    cost.linear("expand", [4, 8], 10, Bias::With);
    cost.activation("gelu");
    cost.linear("contract", [8, 4], 10, Bias::With);
    cost.scale("gamma", 4);
    cost.add("residual", x);
    cost.max_pool("pool", 12);

    let volume = Shape3 {
        depth: 1,
        height: 8,
        width: 10,
    };
    let memory = cost.memory(volume);
    // Alive together: x (40) all along; volume 80 + x 40 = 120; the branches x + a + conv + norm = 160; the MLP, when GELU
    // has made its result, x + 80 + 80 = 200.
    assert_eq!(memory.inference_bytes, 4 * 200);
    assert_eq!(memory.inference_peak, "gelu");
    // Kept: the volume 80; x 40, which both branches read, once; each branch's convolution, which its norm reads, 2 x 40;
    // the sum 40, which `expand` reads; `expand`'s 80 for GELU; GELU's 80 for `contract`; its 40 for gamma's gradient;
    // the pool's choices 12.
    let kept = 80 + 40 + 80 + 40 + 80 + 80 + 40 + 12;
    assert_eq!(memory.training_bytes, 4 * kept);
    let shares = cost.by_layer(volume, 1);
    let of = |name| shares.iter().find(|share| share.layer == name).unwrap();
    // The first of the branches keeps what both read.
    assert_eq!(of("a").training_bytes, 4 * (40 + 40));
    assert_eq!(of("b").training_bytes, 4 * 40);
    assert_eq!(of("residual").training_bytes, 0);
}

/// Attention of 5 tokens in 2 heads of 3: queries, keys and values 5 x 18, logits and weights 2 x 25 each.
#[test]
fn the_memory_of_attention_is_that_by_hand() {
    let size = |bias| AttentionSize {
        sequences: 1,
        tokens: 5,
        heads: 2,
        head_dim: 3,
        products: Products::Matmul,
        bias,
    };
    let attention = |bias| {
        let mut cost = Cost::default();
        cost.linear("qkv", [6, 18], 5, Bias::Without);
        let qkv = cost.here();
        cost.attention("product", size(bias), Operands::packed(qkv));
        cost.linear("output", [6, 6], 5, Bias::Without);
        let volume = Shape3 {
            depth: 1,
            height: 5,
            width: 6,
        };
        cost.memory(volume)
    };
    for bias in [false, true] {
        let memory = attention(bias);
        // In the softmax: qkv, logits, weights. With a bias there is a second tensor of logits, but the first is gone.
        assert_eq!(memory.inference_bytes, 4 * (90 + 50 + 50));
        assert_eq!(memory.inference_peak, "product");
        // The input, qkv, the weights, and what `output` reads.
        assert_eq!(memory.training_bytes, 4 * (30 + 90 + 50 + 30));
    }
}

/// What the stem of DCFormer nano holds: the volume is gone after the first convolution's third branch, the largest set is
/// the volume, a sum, a branch's convolution and its norm, each of 32 channels at 1/64 of the voxels.
#[test]
fn the_memory_of_nanos_stem_is_that_by_hand() {
    let nano = crate::models::preset("dcformer", Some("nano"))
        .unwrap()
        .config;
    let memory = nano.cost(PAPER_VOLUME).memory(PAPER_VOLUME);
    let voxels = PAPER_VOLUME.voxels() as u64;
    assert_eq!(memory.inference_bytes, 4 * (voxels + 3 * voxels / 2));
    assert_eq!(memory.inference_peak, "stem.convs.0.width.norm");
}

#[test]
fn the_curves_are_their_formulas() {
    const C: u64 = 64;
    let (plane, grid) = (64 * 64, 64 * 64 * 32);
    let names: Vec<_> = [Figure::one(), Figure::two()]
        .iter()
        .flat_map(|figure| figure.curves.clone())
        .map(|curve| {
            let kernels: Vec<usize> = curve.points.iter().map(|point| point.kernel).collect();
            assert_eq!(kernels, [3, 5, 7, 9, 11, 13], "{}", curve.name);
            for Point {
                kernel,
                params,
                macs,
            } in curve.points
            {
                let k = kernel as u64;
                let (weights, positions) = match curve.name {
                    "2D standard" => (k.pow(2) * C * C, plane),
                    "3D standard" => (k.pow(3) * C * C, grid),
                    "2D depthwise" => (k.pow(2) * C, plane),
                    "3D depthwise" => (k.pow(3) * C, grid),
                    "decomposed" => (3 * k * C, grid),
                    other => panic!("no formula for {other}"),
                };
                assert_eq!(
                    (params, macs),
                    (weights, weights * positions),
                    "{}",
                    curve.name
                );
            }
            curve.name
        })
        .collect();
    assert_eq!(
        names,
        [
            "3D standard",
            "2D standard",
            "3D depthwise",
            "2D depthwise",
            "3D depthwise",
            "decomposed"
        ]
    );
    assert!(
        Figure::two()
            .assumed
            .contains("64 channels in and out, 64 x 64 x 32 positions")
    );
}

/// The reason that is given for `small` (P7).
#[test]
fn nine_taps_in_the_second_stage_would_make_the_papers_small() {
    use crate::models::{DcformerEncoderConfig, EncoderConfig};
    let config = DcformerEncoderConfig {
        kernels: [7, 9, 7, 7],
        ..DcformerEncoderConfig::small_paper()
    };
    let total = config.cost(PAPER_VOLUME).total();
    let projection = config.channels[4] * LATENT;
    assert_eq!(total.params + projection as u64, 26_863_296);
    assert_eq!((total.macs as f64 / 1e6).round(), 202_898.0);
}

/// Where a printed number is not ours to its last digit, the reason is given, and only there.
#[test]
fn every_difference_to_the_paper_has_a_reason() {
    let mut compared = 0;
    for row in table(PAPER_VOLUME) {
        let Some(paper) = row.paper else { continue };
        compared += 1;
        let name = format!("{} {}", row.model, row.variant);
        assert_eq!(
            paper.params.agrees && paper.macs.agrees,
            paper.reason.is_none(),
            "{name}: {paper:?}"
        );
        // But for the misprint, half of the last digit is the most: 15.1 for 15.05 is 0.33 %.
        let far = paper
            .params
            .difference_percent
            .abs()
            .max(paper.macs.difference_percent.abs());
        assert!(far < 0.34 || name == "convnext tiny", "{name}: {far}");
    }
    assert_eq!(compared, published::ROWS.len());
    let small = table(SMALL);
    assert!(small.iter().all(|row| row.paper.is_none()) && small.len() > 15);
}
