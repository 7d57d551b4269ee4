//! Well-known networks by name, which expand to layers that one can read and edit.
//!
//! Expansion is a pure function of the parameters, the shape of a sample and the number of
//! outputs. Parameter counts are those of the published architectures.

mod chains;
mod residual;
mod sequences;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    layers::{Activation, Layer, LayerSpec, Plain},
    network::Network,
    objective::LossKind,
    shapes::{LayerError, show},
    train::TrainSpec,
};
use crate::{
    datasets::{DatasetSchema, TargetSchema},
    validation::{Violations, parse},
};

pub use chains::{Cnn, Mlp};
pub use residual::{MobileNet, ResNet, Stem};
pub use sequences::{LstmClassifier, TransformerEncoder};

/// A network by name, with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "preset", rename_all = "snake_case")]
pub enum Preset {
    /// Dense layers.
    Mlp(Mlp),
    /// Convolutions and pools, then dense layers.
    Cnn(Cnn),
    /// Residual network of 18 layers (He et al., 2015).
    Resnet18(ResNet),
    /// Residual network of 50 layers, with strides in the 3×3 convolutions ("v1.5").
    Resnet50(ResNet),
    /// Inverted residuals and linear bottlenecks (Sandler et al., 2018).
    MobilenetV2(MobileNet),
    /// Transformer encoder (Vaswani et al., 2017) and a mean over its steps.
    TransformerEncoder(TransformerEncoder),
    /// Layers of LSTM.
    LstmClassifier(LstmClassifier),
}

impl Preset {
    /// Names of all presets.
    pub const NAMES: &'static [&'static str] = &[
        "mlp",
        "cnn",
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "transformer_encoder",
        "lstm_classifier",
    ];

    /// Returns the preset's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mlp(_) => "mlp",
            Self::Cnn(_) => "cnn",
            Self::Resnet18(_) => "resnet18",
            Self::Resnet50(_) => "resnet50",
            Self::MobilenetV2(_) => "mobilenet_v2",
            Self::TransformerEncoder(_) => "transformer_encoder",
            Self::LstmClassifier(_) => "lstm_classifier",
        }
    }

    /// Reads a preset's name and parameters.
    pub(super) fn read(
        fields: Map<String, Value>,
        pointer: &str,
        v: &mut Violations,
    ) -> Option<Self> {
        let name = fields.get("preset").and_then(Value::as_str);
        if !name.is_some_and(|name| Self::NAMES.contains(&name)) {
            let given = fields.get("preset").map(ToString::to_string);
            v.push(
                format!("{pointer}/preset"),
                "unknown_value",
                format!(
                    "unknown preset {}; known are {}",
                    given.unwrap_or_default(),
                    Self::NAMES.join(", ")
                ),
            );
            return None;
        }
        let preset: Self = parse(Value::Object(fields), pointer, v)?;
        preset.check(pointer, v);
        Some(preset)
    }

    /// Records every parameter outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        match self {
            Self::Mlp(p) => p.check(pointer, v),
            Self::Cnn(p) => p.check(pointer, v),
            Self::Resnet18(p) | Self::Resnet50(p) => p.check(pointer, v),
            Self::MobilenetV2(p) => p.check(pointer, v),
            Self::TransformerEncoder(p) => p.check(pointer, v),
            Self::LstmClassifier(p) => p.check(pointer, v),
        }
    }

    /// Writes the network out for samples of a shape; its `outputs` are logits or a number.
    ///
    /// # Errors
    /// A [`LayerError`] if the preset has no use for samples of that shape.
    pub fn expand(&self, input: &[usize], outputs: usize) -> Result<Vec<LayerSpec>, LayerError> {
        match self {
            Self::Mlp(p) => Ok(p.expand(input, outputs)),
            Self::Cnn(p) => p.expand(input, outputs),
            Self::Resnet18(p) => p.expand(input, outputs, residual::Depth::Basic),
            Self::Resnet50(p) => p.expand(input, outputs, residual::Depth::Bottleneck),
            Self::MobilenetV2(p) => p.expand(input, outputs),
            Self::TransformerEncoder(p) => p.expand(input, outputs),
            Self::LstmClassifier(p) => p.expand(input, outputs),
        }
    }
}

impl Network {
    /// Tells whether samples are integers that a layer looks up.
    #[must_use]
    pub fn looks_up(&self) -> bool {
        let tokens = match &self.preset {
            Some(Preset::TransformerEncoder(p)) => p.vocabulary_size,
            Some(Preset::LstmClassifier(p)) => p.vocabulary_size,
            _ => None,
        };
        let looks_up = |l: &LayerSpec| matches!(l.layer, Layer::Embedding(_));
        if self.layers.is_empty() {
            tokens.is_some()
        } else {
            self.layers.iter().any(looks_up)
        }
    }

    /// Writes a preset's layers out, unless there are layers already.
    ///
    /// # Errors
    /// A violation if the preset has no use for samples of that shape.
    pub fn expand(
        &self,
        input: &[usize],
        outputs: usize,
        pointer: &str,
    ) -> Result<Self, Violations> {
        let mut network = self.clone();
        if let (Some(preset), true) = (&self.preset, self.layers.is_empty()) {
            network.layers = preset.expand(input, outputs).map_err(|e| {
                let mut violations = Violations::default();
                let field = if e.field.is_empty() {
                    "preset"
                } else {
                    e.field
                };
                violations.push(format!("{pointer}/{field}"), e.code, e.detail);
                violations
            })?;
        }
        Ok(network)
    }
}

impl TrainSpec {
    /// Writes the network out, if it is a preset: what is stored, shown and edited.
    ///
    /// # Errors
    /// A violation if the preset does not fit the dataset.
    pub fn expand(&self, schema: &DatasetSchema, pointer: &str) -> Result<Self, Violations> {
        let mut spec = self.clone();
        let outputs = self.outputs(schema);
        let at = format!("{pointer}/network");
        spec.network = self.network.expand(&schema.shape, outputs, &at)?;
        Ok(spec)
    }

    /// Number of outputs that a dataset's target needs.
    #[must_use]
    pub fn outputs(&self, schema: &DatasetSchema) -> usize {
        if self.is_autoencoder() {
            return schema.shape.iter().product();
        }
        match (&schema.target, self.loss.kind()) {
            (Some(TargetSchema::Class { classes, .. }), LossKind::Categorical) => classes.len(),
            (Some(TargetSchema::Labels { labels, .. }), _) => labels.len(),
            (Some(TargetSchema::Values { values, .. }), _) => values.len(),
            _ => 1,
        }
    }
}

/// Layers as they are written down, each after those it takes.
#[derive(Default)]
struct Layers(Vec<LayerSpec>);

impl Layers {
    /// Adds a layer without a name, which takes the one before.
    fn push(&mut self, layer: Layer) {
        self.0.push(layer.into());
    }

    /// Adds a layer, which takes the one before.
    fn add(&mut self, name: &str, layer: Layer) {
        self.0.push(LayerSpec {
            name: Some(name.to_owned()),
            inputs: None,
            layer,
        });
    }

    /// Adds a layer that takes others, by name.
    fn join(&mut self, name: &str, layer: Layer, inputs: &[&str]) {
        self.0.push(LayerSpec {
            name: Some(name.to_owned()),
            inputs: Some(inputs.iter().map(|&i| i.to_owned()).collect()),
            layer,
        });
    }

    /// Name of the layer last added.
    fn last(&self) -> String {
        let name = self.0.last().and_then(|l| l.name.clone());
        name.unwrap_or_else(|| "input".to_owned())
    }

    fn add_sum(&mut self, name: &str, inputs: &[&str]) {
        self.join(name, Layer::Add(Plain {}), inputs);
    }

    /// Adds the last layer: logits of classes, or a number.
    fn finish(mut self, outputs: usize) -> Vec<LayerSpec> {
        self.add("predictions", dense(outputs, Activation::Linear));
        self.0
    }
}

fn dense(units: usize, activation: Activation) -> Layer {
    Layer::Dense(super::layers::Dense {
        units,
        activation,
        use_bias: true,
        kernel_initializer: None,
        kernel_regularizer: None,
        bias_initializer: None,
    })
}

fn dropout(rate: f64) -> Layer {
    Layer::Dropout(super::layers::Dropout { rate })
}

fn activation(activation: Activation) -> Layer {
    Layer::Activation(super::layers::ActivationLayer { activation })
}

fn wants(preset: &str, expected: &str, input: &[usize]) -> LayerError {
    let got = show(input);
    LayerError::shape(format!(
        "{preset} needs samples of shape {expected}, got {got}"
    ))
}

fn check_rate(v: &mut Violations, pointer: &str, rate: f64) {
    v.check((0.0..1.0).contains(&rate), pointer, "out_of_range", || {
        format!("{rate} is not from 0 to below 1")
    });
}
