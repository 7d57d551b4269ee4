//! A network: a graph of layers, read and checked as a whole.

mod forms;
mod graph;
mod plan;

pub use forms::{NetworkForm, PresetNetwork, WrittenNetwork};
pub use graph::Source;
pub use plan::{Plan, PlannedLayer, simplify};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{layers::LayerSpec, presets::Preset};
use crate::{
    limits,
    validation::{ObjectReader, Violations},
};

/// Whose defaults fill in what a layer leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Defaults {
    /// Keras 3's.
    #[default]
    Keras,
    /// PyTorch's: initial values, BatchNorm's momentum of 0.9 (0.1 as PyTorch counts it) and
    /// unbiased moving variance, epsilons of 1e-5, a slope of 0.01 of leaky rectifiers.
    Pytorch,
}

impl Defaults {
    fn is_keras(&self) -> bool {
        *self == Self::Keras
    }
}

/// A graph of layers: a chain like Keras' `Sequential` unless layers name their inputs.
///
/// It is written as its layers, or as the name of a preset with parameters. Once a preset is
/// written out, the layers count, and its name is no more than a memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Shape of one sample, channels last; the dataset's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_shape: Option<Vec<usize>>,
    /// Whose defaults fill in what layers leave out; Keras' unless given.
    #[serde(default, skip_serializing_if = "Defaults::is_keras")]
    pub defaults: Defaults,
    /// What the layers were written out from, or are to be.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The layers, each after those it takes; the last one's output is the network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerSpec>,
}

impl Network {
    /// Reads a network, recording every mistake that shows without its input shape.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut reader = ObjectReader::new(value, pointer, violations)?;
        let input_shape = reader.optional("input_shape");
        let defaults: Defaults = reader.optional("defaults").unwrap_or_default();
        let at = reader.pointer_to("layers");
        let before = reader.violations().len();
        let layers = reader.list_with("layers", limits::MAX_LAYERS, |value, at, v| {
            LayerSpec::read(value, at, defaults, v)
        });
        let preset = reader.take("preset");
        if preset.is_none() && layers.is_empty() && reader.violations().len() == before {
            let detail = "a network needs at least one layer, or the name of a preset";
            reader.violations().push(at, "missing", detail);
        }
        let preset = match preset {
            None => {
                reader.finish();
                None
            }
            Some(name) => {
                let mut fields = reader.rest();
                fields.insert("preset".to_owned(), name);
                Some(Preset::read(fields, pointer, violations)?)
            }
        };
        Some(Self {
            input_shape,
            defaults,
            preset,
            layers,
        })
    }
}

/// Pointer to a field of a layer, or to the layer as a whole.
fn field_pointer(pointer: &str, layer: usize, field: &str) -> String {
    let at = format!("{pointer}/layers/{layer}");
    if field.is_empty() {
        at
    } else {
        format!("{at}/{field}")
    }
}

#[cfg(test)]
mod tests;
