//! The image encoders, behind one interface.
//!
//! A network is one file: a configuration, which is an [`EncoderConfig`], and a module, which is an [`Encoder`]. One line
//! in `encoders!` below makes it known to training, timing, counting and files.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::batch_norm::Statistics;
use super::clip::Reduction;
use super::convnext::{ConvnextEncoder, ConvnextEncoderConfig};
use super::ctvit::{CtvitEncoder, CtvitEncoderConfig};
use super::dcformer::{DcformerEncoder, DcformerEncoderConfig};
use super::inceptionnext::{InceptionnextEncoder, InceptionnextEncoderConfig};
use super::poolformer::{PoolformerEncoder, PoolformerEncoderConfig};
use super::transunet::{TransunetEncoder, TransunetEncoderConfig};
use super::vit::{VitEncoder, VitEncoderConfig};
use crate::complexity::{Cost, Shape3};
use crate::error::{Error, Result};

/// Most channels, taps, tokens of an axis or codes that a configuration may ask for: beyond every published network, and
/// small enough that a damaged file cannot ask for all memory.
pub(crate) const MOST: usize = 65_536;
/// The same for layers and blocks.
pub(crate) const MOST_LAYERS: usize = 256;

/// A named size of a network and its constructor.
pub type Variant<C> = (&'static str, fn() -> C);

/// Sizes of an image encoder.
pub trait EncoderConfig: Clone + PartialEq + Sized + 'static {
    /// The network.
    type Encoder: Encoder;

    /// Name of the network, as in `config.json` and on the command line.
    const NETWORK: &'static str;

    /// The presets by name, in the order of the table.
    const VARIANTS: &'static [Variant<Self>];

    /// From a grid of features to one vector, as the paper does it with this network.
    const REDUCTION: Reduction = Reduction::Channel;

    /// Whether the paper states parameters with the projection to latents (P8).
    const STATED_WITH_PROJECTION: bool = false;

    /// Channels of the features.
    fn features(&self) -> usize;

    /// Refuses sizes with which no network can be built.
    ///
    /// # Errors
    /// [`Error::NetworkField`]
    fn check(&self) -> Result<()>;

    /// Size of the grid of features that a volume of at least one voxel becomes.
    ///
    /// # Errors
    /// [`Error::VolumeSize`] if the network cannot take it.
    fn grid(&self, volume: Shape3) -> Result<Shape3>;

    /// What the network costs, for a volume that [`grid`](Self::grid) accepts. Layers are named by their paths in
    /// [`Encoder`].
    fn cost(&self, volume: Shape3) -> Cost;

    /// Builds the encoder with fresh weights on `device`.
    fn init(&self, device: &Device) -> Self::Encoder;

    /// The preset called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if there is none.
    fn variant(name: &str) -> Result<Self> {
        let preset = Self::VARIANTS.iter().find(|(variant, _)| *variant == name);
        preset
            .map(|(_, preset)| preset())
            .ok_or_else(|| Error::UnknownName {
                what: format!("variant of {}", Self::NETWORK),
                found: name.to_owned(),
                expected: names(Self::VARIANTS.iter().map(|(variant, _)| *variant)),
            })
    }

    /// The name of the preset with these sizes, if it is one.
    fn variant_name(&self) -> Option<&'static str> {
        let preset = Self::VARIANTS.iter().find(|(_, preset)| preset() == *self);
        preset.map(|(variant, _)| *variant)
    }
}

/// Volume in, grid of features out.
pub trait Encoder: Module {
    /// Features of the last stage. `after_stage` is shown the features of each stage on the way, the last included,
    /// finest first.
    ///
    /// # Shapes
    /// - `volume`: `[batch, 1, depth, height, width]`
    /// - output: `[batch, depth, height, width, channels]` of the grid that [`EncoderConfig::grid`] states
    ///
    /// # Panics
    /// If the volume is of a size that [`EncoderConfig::grid`] refuses.
    fn forward_watched(
        &self,
        volume: Tensor<5>,
        statistics: Statistics,
        after_stage: &mut dyn FnMut(&Tensor<5>),
    ) -> Tensor<5>;

    /// Features of the last stage.
    ///
    /// # Shapes
    /// As [`forward_watched`](Self::forward_watched).
    ///
    /// # Panics
    /// As [`forward_watched`](Self::forward_watched).
    fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
        self.forward_watched(volume, statistics, &mut |_| ())
    }

    /// Features after each stage, finest first; the last are those of [`forward`](Self::forward).
    ///
    /// Tests compare these one by one with reference code; segmentation heads use them as a pyramid.
    ///
    /// # Panics
    /// As [`forward_watched`](Self::forward_watched).
    fn forward_stages(&self, volume: Tensor<5>, statistics: Statistics) -> Vec<Tensor<5>> {
        let mut stages = Vec::new();
        self.forward_watched(volume, statistics, &mut |stage| stages.push(stage.clone()));
        stages
    }
}

/// Makes the two enums of a list of networks, and hands every call to the network at hand.
macro_rules! encoders {
    ($($(#[$doc:meta])* $network:ident($config:ident, $encoder:ident)),+ $(,)?) => {
        /// Which image encoder, of which size.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "network", rename_all = "snake_case")]
        pub enum ImageEncoderConfig {
            $($(#[$doc])* $network($config)),+
        }

        /// An image encoder.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant, reason = "a program holds one encoder, not many")]
        pub enum ImageEncoder {
            $($(#[$doc])* $network($encoder)),+
        }

        impl ImageEncoderConfig {
            /// Name of the network.
            pub fn network(&self) -> &'static str {
                match self { $(Self::$network(_) => $config::NETWORK),+ }
            }

            /// The name of the preset with these sizes, if it is one.
            pub fn variant_name(&self) -> Option<&'static str> {
                match self { $(Self::$network(config) => config.variant_name()),+ }
            }

            /// Channels of the features.
            pub fn features(&self) -> usize {
                match self { $(Self::$network(config) => config.features()),+ }
            }

            /// From a grid of features to one vector, as the paper does it with this network.
            pub fn reduction(&self) -> Reduction {
                match self { $(Self::$network(_) => $config::REDUCTION),+ }
            }

            /// Whether the paper states parameters with the projection to latents (P8).
            pub fn stated_with_projection(&self) -> bool {
                match self { $(Self::$network(_) => $config::STATED_WITH_PROJECTION),+ }
            }

            /// Refuses sizes with which no network can be built.
            ///
            /// # Errors
            /// [`Error::NetworkField`]
            pub fn check(&self) -> Result<()> {
                match self { $(Self::$network(config) => config.check()),+ }
            }

            /// Size of the grid of features that a volume becomes.
            ///
            /// # Errors
            /// [`Error::VolumeSize`] if the network cannot take it.
            pub fn grid(&self, volume: Shape3) -> Result<Shape3> {
                if volume.voxels() == 0 {
                    return Err(Error::VolumeSize {
                        network: self.network(),
                        found: volume,
                        expected: "at least one voxel along each axis".to_owned(),
                    });
                }
                match self { $(Self::$network(config) => config.grid(volume)),+ }
            }

            /// What the network costs, for a volume that [`grid`](Self::grid) accepts.
            pub fn cost(&self, volume: Shape3) -> Cost {
                match self { $(Self::$network(config) => config.cost(volume)),+ }
            }

            /// Builds the encoder with fresh weights on `device`.
            pub fn init(&self, device: &Device) -> ImageEncoder {
                match self { $(Self::$network(config) => ImageEncoder::$network(config.init(device))),+ }
            }
        }

        impl Encoder for ImageEncoder {
            fn forward_watched(
                &self,
                volume: Tensor<5>,
                statistics: Statistics,
                after_stage: &mut dyn FnMut(&Tensor<5>),
            ) -> Tensor<5> {
                match self {
                    $(Self::$network(encoder) => encoder.forward_watched(volume, statistics, after_stage)),+
                }
            }

            fn forward(&self, volume: Tensor<5>, statistics: Statistics) -> Tensor<5> {
                dcformer_kernels::on_workers(|| match self {
                    $(Self::$network(encoder) => encoder.forward(volume, statistics)),+
                })
            }
        }

        /// Every network in every named size, in the order of the table: the one list that all commands go by.
        pub fn presets() -> Vec<Preset> {
            let mut presets = Vec::new();
            $(presets.extend($config::VARIANTS.iter().map(|(variant, config)| Preset {
                network: $config::NETWORK,
                variant,
                config: ImageEncoderConfig::$network(config()),
            }));)+
            presets
        }
    };
}

encoders! {
    /// DCFormer, the paper's.
    Dcformer(DcformerEncoderConfig, DcformerEncoder),
    /// A vision transformer in 3D, which the paper compares with.
    Vit(VitEncoderConfig, VitEncoder),
    /// ConvNeXt in 3D, which the paper compares with.
    Convnext(ConvnextEncoderConfig, ConvnextEncoder),
    /// PoolFormer in 3D, which the paper compares with.
    Poolformer(PoolformerEncoderConfig, PoolformerEncoder),
    /// The encoder of TransUNet in 3D, which the paper compares with.
    Transunet(TransunetEncoderConfig, TransunetEncoder),
    /// CT-ViT, the image encoder of CT-CLIP, which the paper compares with.
    Ctvit(CtvitEncoderConfig, CtvitEncoder),
    /// InceptionNeXt in 3D on DCFormer's budget.
    Inceptionnext(InceptionnextEncoderConfig, InceptionnextEncoder),
}

/// A network in a named size.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Name of the network, `--model-name`.
    pub network: &'static str,
    /// Name of its size, `--variant`.
    pub variant: &'static str,
    /// Its sizes.
    pub config: ImageEncoderConfig,
}

/// The network called `network` in the size called `variant`, or in its first one.
///
/// # Errors
/// [`Error::UnknownName`] if there is no such network or size; it lists those that there are.
pub fn preset(network: &str, variant: Option<&str>) -> Result<Preset> {
    let all = presets();
    let of_network: Vec<&Preset> = all.iter().filter(|row| row.network == network).collect();
    let Some(first) = of_network.first() else {
        let mut networks: Vec<&str> = all.iter().map(|row| row.network).collect();
        networks.dedup();
        return Err(Error::UnknownName {
            what: "network (`model.encoder`, --model-name)".to_owned(),
            found: network.to_owned(),
            expected: names(networks),
        });
    };
    let Some(variant) = variant else {
        return Ok((*first).clone());
    };
    let found = of_network.iter().find(|row| row.variant == variant);
    found
        .map(|row| (*row).clone())
        .ok_or_else(|| Error::UnknownName {
            what: format!("variant of {}", first.network),
            found: variant.to_owned(),
            expected: names(of_network.iter().map(|row| row.variant)),
        })
}

impl ImageEncoderConfig {
    /// Whether the network's configuration has a field of this name.
    pub(crate) fn has_field(&self, name: &str) -> bool {
        let fields = serde_json::to_value(self).expect("sizes and names have a JSON form");
        fields.get(name).is_some()
    }

    /// The same with some fields of the configuration replaced.
    ///
    /// # Errors
    /// [`Error::NetworkOptions`] for a field that the network does not have or a value of another type,
    /// [`Error::NetworkField`] for one with which it cannot be built.
    pub fn with_options(
        &self,
        options: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self> {
        let wrong = |source| Error::NetworkOptions {
            network: self.network(),
            source,
        };
        let mut fields = serde_json::to_value(self).map_err(wrong)?;
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(options);
        }
        let changed: Self = serde_json::from_value(fields).map_err(wrong)?;
        changed.check()?;
        Ok(changed)
    }
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Refuses a size of `network` that is 0 or beyond `most`.
pub(super) fn check_size(
    network: &'static str,
    field: &'static str,
    found: usize,
    most: usize,
) -> Result<()> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::NetworkField {
        network,
        field,
        found: found.to_string(),
        expected: format!("1 to {most}"),
    })
}

/// Refuses widths and depths of a network in stages that are 0 or beyond every published network.
pub(super) fn check_stages(
    network: &'static str,
    channels: &[usize],
    blocks: &[usize],
) -> Result<()> {
    for &channels in channels {
        check_size(network, "channels", channels, MOST)?;
    }
    for &blocks in blocks {
        check_size(network, "blocks", blocks, MOST_LAYERS)?;
    }
    Ok(())
}

/// One channel first or last is the same memory.
///
/// # Shapes
/// - `volume`: `[batch, 1, depth, height, width]`; output: `[batch, depth, height, width, 1]`
pub(super) fn channels_last(volume: Tensor<5>) -> Tensor<5> {
    let [batch, channels, depth, height, width] = volume.dims();
    assert_eq!(channels, 1, "a volume has one channel, found {channels}");
    volume.reshape([batch, depth, height, width, 1])
}

#[cfg(test)]
mod tests;
