//! From latents to logits: temperatures, contrastive losses, zero-shot probabilities (SPEC sections 3 and 7).

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};
use serde::{Deserialize, Serialize};

/// CLIP's bound of a learnt scale.
const MAX_SCALE: f64 = 100.0;

/// The least length a vector is divided by; PyTorch's `normalize`.
const MIN_LENGTH: f64 = 1e-12;

/// How similarities become logits, and with it the loss they are trained by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Temperature {
    /// Multiplied by a constant; softmax loss. The authors' code: exp(1), never trained; their paper: 1.
    Fixed {
        /// The constant.
        scale: f64,
    },
    /// Multiplied by exp(s) with a learnt s, at most 100; softmax loss (CLIP).
    Learnable {
        /// s before training.
        initial_log_scale: f64,
    },
    /// Multiplied by exp(s), without a bound, plus a bias, both learnt; pairwise sigmoid loss (SigLIP, the follow-up project).
    Sigmoid {
        /// s before training; SigLIP starts at ln 10.
        initial_log_scale: f64,
        /// The bias before training; SigLIP starts at -10.
        initial_bias: f64,
    },
}

impl Temperature {
    /// The authors' exp(1).
    pub const AUTHORS: Self = Self::Fixed {
        scale: std::f64::consts::E,
    };
    /// The paper's 1.
    pub const PAPER: Self = Self::Fixed { scale: 1.0 };
    /// CLIP's, starting at 1 / 0.07.
    pub const CLIP: Self = Self::Learnable {
        initial_log_scale: 2.659_260_036_932_778,
    };
    /// SigLIP's, starting at 10 and -10.
    pub const SIGLIP: Self = Self::Sigmoid {
        initial_log_scale: std::f64::consts::LN_10,
        initial_bias: -10.0,
    };

    /// Builds the part that turns similarities into logits.
    pub fn init(&self, device: &Device) -> LogitScale {
        let learnt = |value: f64| Some(Param::from_tensor(Tensor::full([1], value, device)));
        let (log_scale, bias) = match *self {
            Self::Fixed { .. } => (None, None),
            Self::Learnable { initial_log_scale } => (learnt(initial_log_scale), None),
            Self::Sigmoid {
                initial_log_scale,
                initial_bias,
            } => (learnt(initial_log_scale), learnt(initial_bias)),
        };
        LogitScale {
            log_scale,
            bias,
            temperature: *self,
        }
    }
}

impl Default for Temperature {
    fn default() -> Self {
        Self::AUTHORS
    }
}

/// Turns similarities into logits.
#[derive(Module, Debug)]
pub struct LogitScale {
    log_scale: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    temperature: Temperature,
}

impl LogitScale {
    /// What similarities are multiplied by, `[1]`.
    pub fn scale(&self, device: &Device) -> Tensor<1> {
        match (&self.log_scale, self.temperature) {
            (Some(log_scale), Temperature::Sigmoid { .. }) => log_scale.val().exp(),
            (Some(log_scale), _) => log_scale.val().exp().clamp_max(MAX_SCALE),
            (None, Temperature::Fixed { scale }) => Tensor::full([1], scale, device),
            (None, _) => unreachable!("a learnt temperature is built with its log-scale"),
        }
    }

    /// Logits of all images and texts: similarities, scaled, plus the bias if there is one.
    ///
    /// # Shapes
    /// - `image`: `[images, latent]`, `text`: `[texts, latent]`; rows of unit length
    /// - output: `[images, texts]`
    pub fn logits(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<2> {
        let scale = self.scale(&image.device());
        let logits = image.matmul(text.transpose()) * scale.unsqueeze_dim(0);
        match &self.bias {
            None => logits,
            Some(bias) => logits + bias.val().unsqueeze_dim(0),
        }
    }

    /// The loss of a batch of pairs: row `i` of `image` belongs to row `i` of `text`. With several texts an image, it is
    /// the mean over them: first come the first texts of all images, then their second ones, and so on.
    ///
    /// # Shapes
    /// - `image`: `[pairs, latent]`, `text`: `[texts * pairs, latent]`; rows of unit length
    /// - output: `[1]`
    pub fn loss(&self, image: Tensor<2>, text: Tensor<2>) -> Tensor<1> {
        let scale = self.scale(&image.device());
        match &self.bias {
            None => clip_loss(image, text, scale),
            Some(bias) => sigmoid_loss(image, text, scale, bias.val()),
        }
    }

    /// [`zero_shot_probabilities`] at this scale. A bias changes nothing: both prompts have it.
    pub fn probabilities(
        &self,
        image: Tensor<2>,
        present: Tensor<2>,
        absent: Tensor<2>,
    ) -> Tensor<2> {
        let scale = self.scale(&image.device());
        zero_shot_probabilities(image, present, absent, scale)
    }
}

/// Symmetric cross-entropy over the similarities of a batch (CLIP).
///
/// ```text
/// l = scale * image . text^T        loss = -mean_i (log_softmax(l)[i][i] + log_softmax(l^T)[i][i]) / 2
/// ```
///
/// # Shapes
/// - `image`: `[pairs, latent]`, `text`: `[texts * pairs, latent]`; rows of unit length
/// - `scale`, output: `[1]`
pub fn clip_loss(image: Tensor<2>, text: Tensor<2>, scale: Tensor<1>) -> Tensor<1> {
    let Similarities { logits, own } = similarities(image, text, scale);
    let [pairs, texts, _] = logits.dims();
    let both = activation::log_softmax(logits.clone(), 2) + activation::log_softmax(logits, 0);
    (both * own).sum() * (-0.5 / (pairs * texts) as f64)
}

/// Scaled similarities of every image and text.
struct Similarities {
    /// `[image, text of an image, image whose text it is]`
    logits: Tensor<3>,
    /// 1 where a text is the image's own, else 0; `[image, 1, image whose text it is]`.
    own: Tensor<3>,
}

fn similarities(image: Tensor<2>, text: Tensor<2>, scale: Tensor<1>) -> Similarities {
    let pairs = image.dims()[0];
    let texts = text.dims()[0] / pairs.max(1);
    let own: Tensor<2> = Tensor::eye(pairs, &image.device());
    let logits = image.matmul(text.transpose()) * scale.unsqueeze_dim(0);
    Similarities {
        logits: logits.reshape([pairs, texts, pairs]),
        own: own.unsqueeze_dim(1),
    }
}

/// Pairwise sigmoid loss (SigLIP, arXiv 2303.15343, algorithm 1).
///
/// ```text
/// l = scale * image . text^T + bias        loss = -sum_ij log_sigmoid(z_ij l_ij) / pairs,   z_ii = 1, else -1
/// ```
///
/// # Shapes
/// - `image`: `[pairs, latent]`, `text`: `[texts * pairs, latent]`; rows of unit length
/// - `scale`, `bias`, output: `[1]`
pub fn sigmoid_loss(
    image: Tensor<2>,
    text: Tensor<2>,
    scale: Tensor<1>,
    bias: Tensor<1>,
) -> Tensor<1> {
    let Similarities { logits, own } = similarities(image, text, scale);
    let [pairs, texts, _] = logits.dims();
    let logits = logits + bias.reshape([1, 1, 1]);
    let sign = own * 2.0 - 1.0;
    activation::log_sigmoid(logits * sign).sum() * (-1.0 / (pairs * texts) as f64)
}

/// Probability that each abnormality is present: softmax over the scaled similarities to the two prompts.
///
/// # Shapes
/// - `image`: `[images, latent]`; `present`, `absent`: `[abnormalities, latent]`; rows of unit length
/// - `scale`: `[1]`; output: `[images, abnormalities]`
pub fn zero_shot_probabilities(
    image: Tensor<2>,
    present: Tensor<2>,
    absent: Tensor<2>,
    scale: Tensor<1>,
) -> Tensor<2> {
    // The softmax of two logits is the sigmoid of their difference.
    let difference = image.matmul((present - absent).transpose());
    activation::sigmoid(difference * scale.unsqueeze_dim(0))
}

/// Rows divided by their length.
pub(crate) fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    let length = rows
        .clone()
        .square()
        .sum_dim(1)
        .sqrt()
        .clamp_min(MIN_LENGTH);
    rows / length
}

#[cfg(test)]
mod tests;
