//! CT-ViT, the image encoder of CT-CLIP (arXiv 2403.17834), which the paper compares with (table 2; SPEC section 12).
//!
//! Patches attend to each other within their slab, then each position attends along depth. It is the encoding half of an
//! autoencoder; what CT-CLIP's weights hold besides is not used for encoding. Quirks of its code that its weights depend
//! on are kept (P40): keys and values come from tokens that are not normalised, and position encodings of the second
//! transformer read memory in another order than they mean to.

mod feed_forward;
mod position_bias;

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use dcformer_kernels::{biased_attention, depthwise_conv, packed_attention};
use serde::{Deserialize, Serialize};

use self::feed_forward::FeedForward;
use self::position_bias::PositionBias;
use super::batch_norm::Statistics;
use super::buffer::Buffer;
use super::clip::Reduction;
use super::decomposed::fresh_filters;
use super::encoder::{Encoder, EncoderConfig, MOST, MOST_LAYERS, Variant, check_size};
use super::layer_norm::{LAYER_NORM_EPSILON, layer_norm};
use super::patch_embedding::PatchEmbedding;
use super::patches::PatchOrder;
use super::similarity::unit_rows;
use crate::complexity::{AttentionSize, Bias, Cost, Operands, Products, Shape3};
use crate::error::Result;

/// What the logits of attention are multiplied by; queries and keys are of unit length before their learnt scales.
const LOGIT_SCALE: f64 = 8.0;
/// Taps of a position encoding along each axis.
const POSITION_TAPS: usize = 3;

/// Sizes of a [`CtvitEncoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CtvitEncoderConfig {
    /// Features of a token.
    pub width: usize,
    /// Voxels of a patch; they divide the volume.
    pub patch: Shape3,
    /// Layers in which the tokens of a slab attend to each other.
    pub spatial_layers: usize,
    /// Layers in which the tokens of a position attend to each other.
    pub temporal_layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

impl CtvitEncoderConfig {
    /// 34.0 M parameters (paper table 2, there with the projection: 101.1 M).
    pub fn paper() -> Self {
        Self {
            width: 512,
            patch: Shape3 {
                depth: 16,
                height: 32,
                width: 32,
            },
            spatial_layers: 4,
            temporal_layers: 4,
            heads: 8,
            head_dim: 64,
        }
    }

    /// The encoder of CT-CLIP's published weights, for volumes of 480 x 480 x 240.
    pub fn ct_clip() -> Self {
        Self {
            patch: Shape3 {
                depth: 10,
                height: 20,
                width: 20,
            },
            head_dim: 32,
            ..Self::paper()
        }
    }

    /// Units of the gated layer of each MLP: two thirds of four times the width, rounded down.
    fn inner(&self) -> usize {
        self.width * 8 / 3
    }
}

impl EncoderConfig for CtvitEncoderConfig {
    type Encoder = CtvitEncoder;

    const NETWORK: &'static str = "ctvit";

    const VARIANTS: &'static [Variant<Self>] =
        &[("paper", Self::paper), ("ct-clip", Self::ct_clip)];

    const REDUCTION: Reduction = Reduction::Depth;

    const STATED_WITH_PROJECTION: bool = true;

    fn features(&self) -> usize {
        self.width
    }

    fn check(&self) -> Result<()> {
        let network = Self::NETWORK;
        check_size(network, "width", self.width, MOST)?;
        PatchEmbedding::check(network, self.patch)?;
        check_size(network, "spatial_layers", self.spatial_layers, MOST_LAYERS)?;
        check_size(
            network,
            "temporal_layers",
            self.temporal_layers,
            MOST_LAYERS,
        )?;
        check_size(network, "heads", self.heads, MOST)?;
        check_size(network, "head_dim", self.head_dim, MOST)
    }

    fn grid(&self, volume: Shape3) -> Result<Shape3> {
        PatchEmbedding::grid(Self::NETWORK, self.patch, volume)
    }

    fn cost(&self, volume: Shape3) -> Cost {
        let slabs = volume.depth / self.patch.depth;
        let tokens = volume.voxels() / self.patch.voxels();
        let positions = tokens / slabs;
        let mut cost = Cost::default();
        let patches = PatchEmbedding::cost(self.patch, self.width, tokens);
        cost.part("patch_embedding", patches);
        let patches = cost.here();
        let bias = PositionBias::cost(self.width, self.heads, positions);
        cost.part("position_bias", bias);
        let bias = cost.here();
        cost.back_to(patches);
        let spatial = Transformer::cost(self, self.spatial_layers, [slabs, positions], true);
        cost.part("spatial", spatial);
        cost.last_use("spatial.bias", bias);
        cost.linear_map("temporal.columns");
        let temporal = Transformer::cost(self, self.temporal_layers, [positions, slabs], false);
        cost.part("temporal", temporal);
        cost.linear_map("temporal.slabs");
        cost
    }

    fn init(&self, device: &Device) -> CtvitEncoder {
        let order = PatchOrder::DepthFirst;
        CtvitEncoder {
            patch_embedding: PatchEmbedding::new(self.patch, order, self.width, device),
            position_bias: PositionBias::new(self.width, self.heads, device),
            spatial: Transformer::new(self, self.spatial_layers, device),
            temporal: Transformer::new(self, self.temporal_layers, device),
        }
    }
}

/// Volume in, grid of features out.
#[derive(Module, Debug)]
pub struct CtvitEncoder {
    patch_embedding: PatchEmbedding,
    position_bias: PositionBias,
    spatial: Transformer,
    temporal: Transformer,
}

impl Encoder for CtvitEncoder {
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`, multiples of a patch
    /// - features of the patches, after the spatial and after the temporal transformer: `[batch, depth, height, width,
    ///   features]` of the grid of patches
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        _statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5> {
        let patches = self.patch_embedding.forward(volume);
        after_stage(&patches);
        let [batch, depth, height, width, features] = patches.dims();
        let positions = height * width;
        let grid = [batch, depth, height, width];

        let bias = self.position_bias.forward([height, width]);
        let slabs = patches.reshape([batch * depth, positions, features]);
        let slabs = self.spatial.forward(slabs, grid, Some(&bias));
        after_stage(
            &slabs
                .clone()
                .reshape([batch, depth, height, width, features]),
        );

        let columns = slabs
            .reshape([batch, depth, positions, features])
            .permute([0, 2, 1, 3])
            .reshape([batch * positions, depth, features]);
        let columns = self.temporal.forward(columns, grid, None);
        let x = columns
            .reshape([batch, positions, depth, features])
            .permute([0, 2, 1, 3])
            .reshape([batch, depth, height, width, features]);
        after_stage(&x);
        x
    }
}

/// Layers and a norm.
#[derive(Module, Debug)]
struct Transformer {
    layers: Vec<Layer>,
    norm: ShiftlessNorm,
}

impl Transformer {
    fn new(config: &CtvitEncoderConfig, layers: usize, device: &Device) -> Self {
        Self {
            layers: (0..layers).map(|_| Layer::new(config, device)).collect(),
            norm: ShiftlessNorm::new(config.width, device),
        }
    }

    /// # Shapes
    /// - `x`, output: `[sequences, tokens, features]`
    /// - `grid`: batch, depth, height, width of all tokens together
    /// - `bias`: `[heads, tokens, tokens]`, added to the logits of every layer
    fn forward(&self, x: Tensor<3>, grid: [usize; 4], bias: Option<&Tensor<3>>) -> Tensor<3> {
        let layers = self.layers.iter();
        let x = layers.fold(x, |x, layer| layer.forward(x, grid, bias));
        self.norm.forward(x)
    }

    /// `bias`: whether something is added to the logits.
    fn cost(
        config: &CtvitEncoderConfig,
        layers: usize,
        [sequences, tokens]: [usize; 2],
        bias: bool,
    ) -> Cost {
        let mut cost = Cost::default();
        for layer in 0..layers {
            let layer_cost = Layer::cost(config, [sequences, tokens], bias);
            cost.part(format!("layers.{layer}"), layer_cost);
        }
        cost.norm_without_shift("norm", config.width, sequences * tokens);
        cost
    }
}

/// `x += position(x)`, `x += attention(x)`, `x += feed_forward(x)`.
#[derive(Module, Debug)]
struct Layer {
    position: PositionEncoding,
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    fn new(config: &CtvitEncoderConfig, device: &Device) -> Self {
        Self {
            position: PositionEncoding::new(config.width, device),
            attention: Attention::new(config, device),
            feed_forward: FeedForward::new([config.width, config.inner()], device),
        }
    }

    /// # Shapes
    /// As [`Transformer::forward`].
    fn forward(&self, x: Tensor<3>, grid: [usize; 4], bias: Option<&Tensor<3>>) -> Tensor<3> {
        let x = x.clone() + self.position.forward(x, grid);
        let x = x.clone() + self.attention.forward(x, bias);
        x.clone() + self.feed_forward.forward(x)
    }

    fn cost(config: &CtvitEncoderConfig, sizes: [usize; 2], bias: bool) -> Cost {
        let rows = sizes[0] * sizes[1];
        let mut cost = Cost::default();
        let taps = POSITION_TAPS.pow(3);
        let x = cost.here();
        cost.depthwise("position", config.width, taps, rows, Bias::With);
        cost.add("position.residual", x);
        cost.residual("attention", Attention::cost(config, sizes, bias));
        let feed_forward = FeedForward::cost([config.width, config.inner()], rows);
        cost.residual("feed_forward", feed_forward);
        cost
    }
}

/// Tells tokens where they are: a depthwise convolution of 3 x 3 x 3 that along depth sees only what lies before.
#[derive(Module, Debug)]
struct PositionEncoding {
    /// `[features, 1, depth, height, width]`
    weight: Param<Tensor<5>>,
    bias: Param<Tensor<1>>,
}

impl PositionEncoding {
    fn new(width: usize, device: &Device) -> Self {
        let (weight, bias) = fresh_filters([width, 1, 3, 3, 3], device);
        Self { weight, bias }
    }

    /// The values of `x` in the order in which they lie, whatever the sequences are, taken for a grid: in the second
    /// transformer, whose sequences run along depth, neighbours of the convolution are not neighbours of the volume (P40).
    ///
    /// # Shapes
    /// As [`Transformer::forward`].
    fn forward(&self, x: Tensor<3>, [batch, depth, height, width]: [usize; 4]) -> Tensor<3> {
        let shape = x.dims();
        let features = shape[2];
        let grid = x.reshape([batch, depth, height, width, features]);
        let weight = self.weight.val().permute([2, 3, 4, 0, 1]).squeeze_dim(4);
        let before = [POSITION_TAPS - 1, POSITION_TAPS / 2, POSITION_TAPS / 2];
        depthwise_conv(grid, weight, self.bias.val(), before).reshape(shape)
    }
}

/// Attention of queries and keys of unit length.
#[derive(Module, Debug)]
struct Attention {
    norm: ShiftlessNorm,
    /// In the weights, and used by nothing.
    context_norm: ShiftlessNorm,
    query: Linear,
    /// Keys, then values; within each, head after head.
    key_value: Linear,
    output: Linear,
    /// `[head_dim]`
    query_scale: Param<Tensor<1>>,
    /// `[head_dim]`
    key_scale: Param<Tensor<1>>,
    heads: usize,
}

impl Attention {
    fn new(config: &CtvitEncoderConfig, device: &Device) -> Self {
        let (width, inner) = (config.width, config.heads * config.head_dim);
        let linear = |inputs, outputs| {
            LinearConfig::new(inputs, outputs)
                .with_bias(false)
                .init(device)
        };
        let ones = || Initializer::Ones.init([config.head_dim], device);
        Self {
            norm: ShiftlessNorm::new(width, device),
            context_norm: ShiftlessNorm::new(width, device),
            query: linear(width, inner),
            key_value: linear(width, 2 * inner),
            output: linear(inner, width),
            query_scale: ones(),
            key_scale: ones(),
            heads: config.heads,
        }
    }

    /// # Shapes
    /// As [`Transformer::forward`].
    fn forward(&self, x: Tensor<3>, bias: Option<&Tensor<3>>) -> Tensor<3> {
        let shape = x.dims();
        let [sequences, tokens, width] = shape;
        let x = x.reshape([sequences * tokens, width]);
        // Keys and values are of tokens that are not normalised (P40).
        let key_value = self.key_value.forward(x.clone());
        let [key, value] = <[Tensor<2>; 2]>::try_from(key_value.chunk(2, 1))
            .expect("two chunks of a width of twice the heads");
        let query = self.query.forward(self.norm.forward(x));
        let query = scaled_directions(query, &self.query_scale);
        let key = scaled_directions(key, &self.key_scale);
        // The operation divides by the root of the head's features.
        let head_dim = self.query_scale.dims()[0] as f64;
        let query = query * (LOGIT_SCALE * head_dim.sqrt());
        let gathered = match bias {
            Some(bias) => biased_attention(query, key, value, bias.clone()),
            None => packed_attention(query, key, value, &vec![tokens; sequences], self.heads),
        };
        self.output.forward(gathered).reshape(shape)
    }

    fn cost(config: &CtvitEncoderConfig, [sequences, tokens]: [usize; 2], bias: bool) -> Cost {
        let (width, inner) = (config.width, config.heads * config.head_dim);
        let rows = sequences * tokens;
        let mut cost = Cost::default();
        let x = cost.here();
        cost.norm_without_shift("norm", width, rows);
        cost.parameter("context_norm", width);
        cost.linear("query", [width, inner], rows, Bias::Without);
        cost.activation("query.direction");
        cost.scale("query_scale", config.head_dim);
        let query = cost.here();
        cost.back_to(x);
        cost.linear("key_value", [width, 2 * inner], rows, Bias::Without);
        let value = cost.here();
        cost.activation_of_part("key.direction", inner * rows);
        cost.scale("key_scale", config.head_dim);
        let key = cost.here();
        cost.attention(
            "product",
            AttentionSize {
                sequences,
                tokens,
                heads: config.heads,
                head_dim: config.head_dim,
                products: Products::Einsum,
                bias,
            },
            Operands { query, key, value },
        );
        cost.linear("output", [inner, width], rows, Bias::Without);
        cost
    }
}

/// The features of each head brought to unit length, then scaled.
///
/// # Shapes
/// - `x`, output: `[tokens, heads * head_dim]`; `scale`: `[head_dim]`
fn scaled_directions(x: Tensor<2>, scale: &Param<Tensor<1>>) -> Tensor<2> {
    let [tokens, features] = x.dims();
    let [head_dim] = scale.dims();
    let heads = x.reshape([tokens * features / head_dim, head_dim]);
    (unit_rows(heads) * scale.val().unsqueeze_dim(0)).reshape([tokens, features])
}

/// A LayerNorm whose shift is in the weights, zero, and not learnt.
#[derive(Module, Debug)]
struct ShiftlessNorm {
    gamma: Param<Tensor<1>>,
    beta: Buffer<1>,
}

impl ShiftlessNorm {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            gamma: Initializer::Ones.init([width], device),
            beta: Buffer::new(Tensor::zeros([width], device)),
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.gamma.val(), self.beta.value(), LAYER_NORM_EPSILON)
    }
}
