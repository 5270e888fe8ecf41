//! BERT, the text encoder (arXiv 1810.04805), of any size.
//!
//! Sequences are computed one after another in one matrix of tokens, without padding: padding changes no result, so
//! computing it is waste. Layers are post-norm: `x = norm(x + attention(x))`, `x = norm(x + mlp(x))`.
//!
//! A DistilBERT (arXiv 1910.01108) is a BERT without kinds of tokens; CXR-BERT (arXiv 2204.09817) one with a projection head.

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use dcformer_kernels::packed_attention;
use serde::{Deserialize, Serialize};

use super::layer_norm::LayerNorm;
use super::mlp::{self, bias_of};
use super::projection_head::ProjectionHead;

/// Standard deviation of fresh embeddings (`initializer_range` of the published models); a norm follows them.
const EMBEDDING_DEVIATION: f64 = 0.02;

/// Sizes of a [`Bert`], under the names of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the features.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads of a layer; they divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the MLPs' hidden layer.
    pub intermediate_size: usize,
    /// Most tokens of a sequence.
    pub max_position_embeddings: usize,
    /// Kinds of tokens; only the first is used. 0 for DistilBERT, which knows none.
    pub type_vocab_size: usize,
    /// Added to a variance before its root is taken.
    pub layer_norm_eps: f64,
    /// Share of features set to zero in training. Attention weights keep all of theirs: the published models drop 10 %
    /// of them too.
    pub hidden_dropout_prob: f64,
    /// Whether the weights include the pooler, which nothing here uses: kept so that an export is complete.
    #[serde(default)]
    pub pooler: bool,
    /// Length of what a projection head makes of `[CLS]` (CXR-BERT-specialized: 128); absent for an encoder without one.
    #[serde(default)]
    pub projection_size: Option<usize>,
}

impl BertConfig {
    /// BERT base (CXR-BERT-specialized, the authors' text encoder): 110 M parameters.
    pub fn base() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_dropout_prob: 0.1,
            pooler: false,
            projection_size: None,
        }
    }

    /// A small BERT for small vocabularies: 128 wide, 2 layers (the published "BERT tiny" of arXiv 1908.08962).
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 512,
            ..Self::base()
        }
    }

    /// Length of the features of a text.
    pub fn features(&self) -> usize {
        self.projection_size.unwrap_or(self.hidden_size)
    }

    /// Builds the encoder with fresh weights on `device`.
    pub fn init(&self, device: &Device) -> Bert {
        let layers = (0..self.num_hidden_layers)
            .map(|_| Layer::new(self, device))
            .collect();
        let pooler = self
            .pooler
            .then(|| linear(self.hidden_size, self.hidden_size, device));
        Bert {
            embeddings: Embeddings::new(self, device),
            layers,
            pooler,
            head: self
                .projection_size
                .map(|outputs| ProjectionHead::new(self.hidden_size, outputs, device)),
        }
    }
}

/// Tokens of several texts, one text after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextBatch {
    ids: Vec<u32>,
    lengths: Vec<usize>,
}

impl TextBatch {
    /// A batch of texts, each a list of token ids.
    ///
    /// # Panics
    /// If there is no text, or one has no token.
    pub fn new<T: AsRef<[u32]>>(texts: &[T]) -> Self {
        assert!(!texts.is_empty(), "a batch has at least one text");
        let lengths: Vec<usize> = texts.iter().map(|text| text.as_ref().len()).collect();
        assert!(
            lengths.iter().all(|&length| length > 0),
            "a text has at least one token"
        );
        Self {
            ids: texts
                .iter()
                .flat_map(|text| text.as_ref().iter().copied())
                .collect(),
            lengths,
        }
    }

    /// Token ids of all texts.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of each text.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no text; never, see [`new`](Self::new).
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The texts without repetitions, in the order in which each comes first, and for every text which of them it is.
    pub(crate) fn distinct(&self) -> (Self, Vec<usize>) {
        let mut places = HashMap::new();
        let (mut ids, mut lengths) = (Vec::new(), Vec::new());
        let which = self
            .starts()
            .zip(&self.lengths)
            .map(|(start, &length)| {
                let text = &self.ids[start..start + length];
                *places.entry(text).or_insert_with(|| {
                    ids.extend_from_slice(text);
                    lengths.push(length);
                    lengths.len() - 1
                })
            })
            .collect();
        (Self { ids, lengths }, which)
    }

    /// The texts in batches of `size`, at least 1; the last may be smaller.
    pub(crate) fn parts(&self, size: usize) -> Vec<Self> {
        let mut ids = self.ids.as_slice();
        let part = |lengths: &[usize]| {
            let (of_part, rest) = ids.split_at(lengths.iter().sum());
            ids = rest;
            Self {
                ids: of_part.to_vec(),
                lengths: lengths.to_vec(),
            }
        };
        self.lengths.chunks(size.max(1)).map(part).collect()
    }

    /// Where each text begins.
    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().scan(0, |next, length| {
            let start = *next;
            *next += length;
            Some(start)
        })
    }

    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().flat_map(|&length| 0..length)
    }
}

/// Text in, one vector a token out.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    head: Option<ProjectionHead>,
}

impl Bert {
    /// Features of every token, before the head.
    ///
    /// # Shapes
    /// - output: `[tokens, hidden]`, texts one after another
    ///
    /// # Panics
    /// If a token id is not in the vocabulary, or a text is longer than `max_position_embeddings`.
    pub fn forward(&self, batch: &TextBatch) -> Tensor<2> {
        let x = self.embeddings.forward(batch);
        through(&self.layers, x, batch)
    }

    /// Features of every text: of its first token, `[CLS]`, through the head if there is one. In the last layer, nothing is
    /// computed of the other tokens but what the first attends to.
    ///
    /// # Shapes
    /// - output: `[texts, features]`, see [`BertConfig::features`]
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_cls(&self, batch: &TextBatch) -> Tensor<2> {
        let x = self.embeddings.forward(batch);
        let starts = indices(batch.starts(), &x.device());
        let first = match self.layers.split_last() {
            None => x.select(0, starts),
            Some((last, before)) => {
                let x = through(before, x, batch);
                let attended = last.attend(&x, batch.lengths()).select(0, starts.clone());
                last.transform(x.select(0, starts), attended)
            }
        };
        match &self.head {
            Some(head) => head.forward(first),
            None => first,
        }
    }
}

fn through(layers: &[Layer], x: Tensor<2>, batch: &TextBatch) -> Tensor<2> {
    layers
        .iter()
        .fold(x, |x, layer| layer.forward(x, batch.lengths()))
}

/// `of` as a tensor to select rows with.
pub(crate) fn indices(of: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = of.map(|index| index as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// Sum of what a token is, where it stands and which kind it is of; normalised.
#[derive(Module, Debug)]
struct Embeddings {
    /// `[vocabulary, hidden]`
    word: Param<Tensor<2>>,
    /// `[positions, hidden]`
    position: Param<Tensor<2>>,
    /// `[kinds, hidden]`
    token_type: Option<Param<Tensor<2>>>,
    norm: LayerNorm,
    dropout: Dropout,
}

impl Embeddings {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let table = |rows| {
            let normal = Initializer::Normal {
                mean: 0.0,
                std: EMBEDDING_DEVIATION,
            };
            normal.init([rows, config.hidden_size], device)
        };
        Self {
            word: table(config.vocab_size),
            position: table(config.max_position_embeddings),
            token_type: (config.type_vocab_size > 0).then(|| table(config.type_vocab_size)),
            norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
        }
    }

    fn forward(&self, batch: &TextBatch) -> Tensor<2> {
        let (words, positions) = (self.word.val(), self.position.val());
        let [vocabulary, _] = words.dims();
        let most = positions.dims()[0];
        let largest = batch.ids().iter().max().copied().unwrap_or(0) as usize;
        assert!(
            largest < vocabulary,
            "token {largest} is not in a vocabulary of {vocabulary}"
        );
        let longest = batch.lengths().iter().max().copied().unwrap_or(0);
        assert!(
            longest <= most,
            "a text of {longest} tokens is longer than {most}"
        );

        let device = words.device();
        let ids = indices(batch.ids().iter().map(|&id| id as usize), &device);
        let positions = positions.select(0, indices(batch.positions(), &device));
        let mut sum = words.select(0, ids) + positions;
        if let Some(kinds) = &self.token_type {
            sum = sum + kinds.val().narrow(0, 0, 1);
        }
        self.dropout.forward(self.norm.forward(sum))
    }
}

/// Attention among the tokens of a text, then an MLP on each token.
#[derive(Module, Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    expand: Linear,
    contract: Linear,
    output_norm: LayerNorm,
    dropout: Dropout,
    heads: usize,
}

impl Layer {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        Self {
            query: linear(hidden, hidden, device),
            key: linear(hidden, hidden, device),
            value: linear(hidden, hidden, device),
            attention_output: linear(hidden, hidden, device),
            attention_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
            expand: linear(hidden, wide, device),
            contract: linear(wide, hidden, device),
            output_norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
            dropout: DropoutConfig::new(config.hidden_dropout_prob).init(),
            heads: config.num_attention_heads,
        }
    }

    /// # Shapes
    /// - `x`, output: `[tokens, hidden]`
    fn forward(&self, x: Tensor<2>, lengths: &[usize]) -> Tensor<2> {
        let attended = self.attend(&x, lengths);
        self.transform(x, attended)
    }

    /// What every token gathers from its text.
    ///
    /// # Shapes
    /// - `x`, output: `[tokens, hidden]`
    fn attend(&self, x: &Tensor<2>, lengths: &[usize]) -> Tensor<2> {
        packed_attention(
            self.query.forward(x.clone()),
            self.key.forward(x.clone()),
            self.value.forward(x.clone()),
            lengths,
            self.heads,
        )
    }

    /// The rest of the layer, which knows one token at a time.
    ///
    /// # Shapes
    /// - `x`, `attended`, output: `[tokens, hidden]`
    fn transform(&self, x: Tensor<2>, attended: Tensor<2>) -> Tensor<2> {
        let attended = self
            .dropout
            .forward(self.attention_output.forward(attended));
        let x = self.attention_norm.forward(x + attended);
        let contract = (self.contract.weight.val(), bias_of(&self.contract));
        let hidden = mlp::through(x.clone(), &self.expand, contract.0, contract.1);
        self.output_norm.forward(x + self.dropout.forward(hidden))
    }
}

/// Fresh weights that keep the variance of their inputs. The published models' 0.02 is nearly that at their width of 768;
/// at 128 it would make every sentence's `[CLS]` the same, and a small encoder from scratch would take thousands of steps
/// to leave that.
pub(super) fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    let keep_variance = Initializer::Normal {
        mean: 0.0,
        std: 1.0 / (inputs as f64).sqrt(),
    };
    let mut linear = LinearConfig::new(inputs, outputs)
        .with_initializer(keep_variance)
        .init(device);
    linear.bias = Some(Initializer::Zeros.init([outputs], device));
    linear
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> BertConfig {
        BertConfig {
            hidden_size: 8,
            intermediate_size: 12,
            max_position_embeddings: 6,
            hidden_dropout_prob: 0.5,
            ..BertConfig::tiny(20)
        }
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn base_has_the_published_number_of_parameters() {
        let config = BertConfig {
            pooler: true,
            ..BertConfig::base()
        };
        // `BertModel(BertConfig())` of Hugging Face. Nothing is allocated: parameters are lazy.
        assert_eq!(config.init(&Device::flex()).num_params(), 109_482_240);
    }

    #[test]
    fn distilbert_has_the_published_number_of_parameters() {
        let config = BertConfig {
            num_hidden_layers: 6,
            type_vocab_size: 0,
            ..BertConfig::base()
        };
        // `DistilBertModel(DistilBertConfig())` of Hugging Face.
        assert_eq!(config.init(&Device::flex()).num_params(), 66_362_880);
    }

    #[test]
    fn the_first_token_stands_for_its_text() {
        let bert = small().init(&Device::flex());
        let batch = TextBatch::new(&[vec![1, 5, 2], vec![7], vec![3, 3, 4, 9]]);
        assert_eq!(batch.lengths(), [3, 1, 4]);
        let all = values(bert.forward(&batch));
        let first: Vec<f32> = [0, 3, 4]
            .iter()
            .flat_map(|at| all[8 * at..8 * at + 8].to_vec())
            .collect();
        assert_eq!(values(bert.forward_cls(&batch)), first);
    }

    #[test]
    fn repeated_texts_are_kept_once_and_found_again() {
        let texts = [vec![4, 2], vec![4], vec![4, 2], vec![2, 4], vec![4]];
        let (distinct, which) = TextBatch::new(&texts).distinct();
        assert_eq!(distinct, TextBatch::new(&[vec![4, 2], vec![4], vec![2, 4]]));
        assert_eq!(which, [0, 1, 0, 2, 1]);
    }

    #[test]
    fn parts_hold_all_texts_in_their_order() {
        let texts = [vec![4, 2], vec![4], vec![7, 2, 1], vec![2, 4], vec![5]];
        let batch = TextBatch::new(&texts);
        let expected = [&texts[..2], &texts[2..4], &texts[4..]].map(TextBatch::new);
        assert_eq!(batch.parts(2), expected);
        assert_eq!(batch.parts(9), [batch]);
    }

    #[test]
    fn features_are_dropped_only_in_training() {
        let batch = TextBatch::new(&[[1, 2, 3]]);
        let training = small().init(&Device::flex().autodiff());
        assert_ne!(
            values(training.forward(&batch)),
            values(training.forward(&batch))
        );
        let frozen = training.freeze();
        assert_eq!(
            values(frozen.forward(&batch)),
            values(frozen.forward(&batch))
        );
        assert_eq!(
            values(frozen.forward(&batch)),
            values(frozen.valid().forward(&batch))
        );
    }

    #[test]
    #[should_panic(expected = "token 20 is not in a vocabulary of 20")]
    fn an_unknown_token_is_not_looked_up() {
        small()
            .init(&Device::flex())
            .forward(&TextBatch::new(&[[20]]));
    }

    #[test]
    #[should_panic(expected = "a text of 7 tokens is longer than 6")]
    fn a_text_has_a_position_for_every_token() {
        small()
            .init(&Device::flex())
            .forward(&TextBatch::new(&[[0; 7]]));
    }
}
