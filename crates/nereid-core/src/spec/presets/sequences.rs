//! Presets over steps: tokens, or numbers that follow each other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Layers, check_rate, dense, dropout, wants};
use crate::{
    limits,
    spec::{
        layers::{
            Activation, Bidirectional, Embedding, LSTM, Layer, LayerNormalization, LayerSpec,
            MergeMode, MultiHeadAttention, Plain, PositionEmbedding, Recurrent, Reshape,
        },
        shapes::LayerError,
    },
    validation::Violations,
};

const MAX_DEPTH: usize = 32;

/// Adds what makes (steps, channels) of samples: of tokens by a table, of numbers by an axis.
fn begin(
    layers: &mut Layers,
    preset: &str,
    input: &[usize],
    vocabulary: Option<usize>,
    dim: usize,
) -> Result<usize, LayerError> {
    match (input, vocabulary) {
        (&[steps], Some(input_dim)) => {
            let table = Layer::Embedding(Embedding {
                input_dim,
                output_dim: dim,
                embeddings_initializer: None,
            });
            layers.add("tokens", table);
            Ok(steps)
        }
        (&[steps], None) => {
            let target_shape = vec![-1, 1];
            layers.add("steps", Layer::Reshape(Reshape { target_shape }));
            Ok(steps)
        }
        (&[steps, _], None) => Ok(steps),
        (_, Some(_)) => Err(LayerError {
            field: "vocabulary_size",
            ..wants(preset, "(steps) of tokens, given a vocabulary,", input)
        }),
        _ => Err(wants(preset, "(steps) or (steps, channels)", input)),
    }
}

fn check_size(v: &mut Violations, pointer: &str, field: &str, n: usize, most: usize) {
    v.check_range(&format!("{pointer}/{field}"), n, 1, most);
}

/// Parameters of `transformer_encoder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TransformerEncoderPreset)]
pub struct TransformerEncoder {
    /// Number of tokens, if samples are tokens; samples are numbers unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary_size: Option<usize>,
    /// Size of each step's vector.
    #[serde(default = "model_dim")]
    #[schema(minimum = 1)]
    pub model_dim: usize,
    /// Heads of each attention; they divide `model_dim`.
    #[serde(default = "four")]
    #[schema(minimum = 1)]
    pub num_heads: usize,
    /// Number of encoder layers.
    #[serde(default = "two")]
    #[schema(minimum = 1, maximum = 32)]
    pub num_layers: usize,
    /// Size of the vectors between the two dense layers of each encoder layer.
    #[serde(default = "intermediate_dim")]
    #[schema(minimum = 1)]
    pub intermediate_dim: usize,
    /// Activation between them.
    #[serde(default = "gelu")]
    pub activation: Activation,
    /// Share dropped after embeddings, attention and dense layers.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Whether steps see earlier steps only.
    #[serde(default)]
    pub use_causal_mask: bool,
}

const fn model_dim() -> usize {
    128
}
const fn intermediate_dim() -> usize {
    512
}
const fn two() -> usize {
    2
}
const fn four() -> usize {
    4
}
const fn tenth() -> f64 {
    0.1
}
const fn gelu() -> Activation {
    Activation::Gelu
}

impl TransformerEncoder {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        let max = limits::MAX_FEATURES;
        if let Some(n) = self.vocabulary_size {
            check_size(v, pointer, "vocabulary_size", n, max);
        }
        check_size(v, pointer, "model_dim", self.model_dim, max);
        check_size(v, pointer, "num_heads", self.num_heads, max);
        check_size(v, pointer, "num_layers", self.num_layers, MAX_DEPTH);
        check_size(v, pointer, "intermediate_dim", self.intermediate_dim, max);
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
        v.check(
            self.num_heads == 0 || self.model_dim.is_multiple_of(self.num_heads),
            &format!("{pointer}/num_heads"),
            "out_of_range",
            || {
                format!(
                    "{} does not divide model_dim, {}",
                    self.num_heads, self.model_dim
                )
            },
        );
    }

    pub(super) fn expand(
        &self,
        input: &[usize],
        outputs: usize,
    ) -> Result<Vec<LayerSpec>, LayerError> {
        let mut layers = Layers::default();
        let (name, dim) = ("transformer_encoder", self.model_dim);
        let steps = begin(&mut layers, name, input, self.vocabulary_size, dim)?;
        if self.vocabulary_size.is_none() {
            layers.add("projection", dense(dim, Activation::Linear));
        }
        let vectors = layers.last();
        let positions = Layer::PositionEmbedding(PositionEmbedding {
            sequence_length: steps,
            initializer: None,
        });
        layers.add("positions", positions);
        layers.add_sum("embedding", &[&vectors, "positions"]);
        self.drop(&mut layers, "embedding_dropout");
        for i in 1..=self.num_layers {
            self.layer(&mut layers, &format!("layer{i}"));
        }
        layers.add("norm", normalization());
        layers.add("pool", Layer::GlobalAveragePooling1D(Plain {}));
        self.drop(&mut layers, "dropout");
        Ok(layers.finish(outputs))
    }

    fn drop(&self, layers: &mut Layers, name: &str) {
        if self.dropout > 0.0 {
            layers.add(name, dropout(self.dropout));
        }
    }

    /// Attention and two dense layers, each normalised before and added to what it took.
    fn layer(&self, layers: &mut Layers, name: &str) {
        let before = layers.last();
        layers.add(&format!("{name}_attention_norm"), normalization());
        let attention = Layer::MultiHeadAttention(MultiHeadAttention {
            num_heads: self.num_heads,
            key_dim: self.model_dim / self.num_heads.max(1),
            value_dim: None,
            dropout: self.dropout,
            use_bias: true,
            use_causal_mask: self.use_causal_mask,
            kernel_initializer: None,
            bias_initializer: None,
        });
        layers.add(&format!("{name}_attention"), attention);
        self.drop(layers, &format!("{name}_attention_dropout"));
        let attended = layers.last();
        let sum = format!("{name}_attention_add");
        layers.add_sum(&sum, &[&before, &attended]);
        layers.add(&format!("{name}_dense_norm"), normalization());
        let inner = dense(self.intermediate_dim, self.activation);
        layers.add(&format!("{name}_dense_1"), inner);
        let outer = dense(self.model_dim, Activation::Linear);
        layers.add(&format!("{name}_dense_2"), outer);
        self.drop(layers, &format!("{name}_dense_dropout"));
        let fed = layers.last();
        layers.add_sum(&format!("{name}_dense_add"), &[&sum, &fed]);
    }
}

fn normalization() -> Layer {
    Layer::LayerNormalization(LayerNormalization { epsilon: 1e-5 })
}

/// Parameters of `lstm_classifier`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LstmClassifierPreset)]
pub struct LstmClassifier {
    /// Number of tokens, if samples are tokens; samples are numbers unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary_size: Option<usize>,
    /// Size of each token's vector.
    #[serde(default = "sixty_four")]
    #[schema(minimum = 1)]
    pub embedding_dim: usize,
    /// Units of each layer.
    #[serde(default = "sixty_four")]
    #[schema(minimum = 1)]
    pub units: usize,
    /// Number of layers.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 32)]
    pub num_layers: usize,
    /// Whether each layer runs in both directions.
    #[serde(default)]
    pub bidirectional: bool,
    /// Share dropped after each layer.
    #[serde(default)]
    pub dropout: f64,
}

const fn sixty_four() -> usize {
    64
}
const fn one() -> usize {
    1
}

impl LstmClassifier {
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        let max = limits::MAX_FEATURES;
        if let Some(n) = self.vocabulary_size {
            check_size(v, pointer, "vocabulary_size", n, max);
        }
        check_size(v, pointer, "embedding_dim", self.embedding_dim, max);
        check_size(v, pointer, "units", self.units, max);
        check_size(v, pointer, "num_layers", self.num_layers, MAX_DEPTH);
        check_rate(v, &format!("{pointer}/dropout"), self.dropout);
    }

    pub(super) fn expand(
        &self,
        input: &[usize],
        outputs: usize,
    ) -> Result<Vec<LayerSpec>, LayerError> {
        let mut layers = Layers::default();
        let (name, dim) = ("lstm_classifier", self.embedding_dim);
        begin(&mut layers, name, input, self.vocabulary_size, dim)?;
        for i in 1..=self.num_layers {
            let lstm = self.lstm(i < self.num_layers);
            let layer = if self.bidirectional {
                Layer::Bidirectional(Bidirectional {
                    layer: Recurrent::LSTM(lstm),
                    merge_mode: MergeMode::Concat,
                })
            } else {
                Layer::LSTM(lstm)
            };
            layers.add(&format!("lstm{i}"), layer);
            if self.dropout > 0.0 {
                layers.add(&format!("dropout{i}"), dropout(self.dropout));
            }
        }
        Ok(layers.finish(outputs))
    }

    fn lstm(&self, return_sequences: bool) -> LSTM {
        LSTM {
            units: self.units,
            activation: Activation::Tanh,
            recurrent_activation: Activation::Sigmoid,
            use_bias: true,
            unit_forget_bias: true,
            return_sequences,
            go_backwards: false,
            kernel_initializer: None,
            recurrent_initializer: None,
            bias_initializer: None,
        }
    }
}
