//! A network: a graph of layers, read and checked as a whole.

mod graph;
mod plan;

pub use graph::Source;
pub use plan::{Plan, PlannedLayer, simplify};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::layers::LayerSpec;
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Shape of one sample, channels last; the dataset's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub input_shape: Option<Vec<usize>>,
    /// Whose defaults fill in what layers leave out; Keras' unless given.
    #[serde(default, skip_serializing_if = "Defaults::is_keras")]
    pub defaults: Defaults,
    /// The layers, each after those it takes; the last one's output is the network's.
    #[schema(min_items = 1, max_items = 512)]
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
        if layers.is_empty() && reader.violations().len() == before {
            reader
                .violations()
                .push(at, "missing", "a network needs at least one layer");
        }
        reader.finish();
        Some(Self {
            input_shape,
            defaults,
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
mod tests {
    use super::*;
    use crate::spec::shapes;
    use serde_json::json;

    fn read(layers: &Value) -> Result<Network, Violations> {
        let mut v = Violations::default();
        let network = Network::read(json!({ "layers": layers }), "", &mut v);
        v.into_result(network.unwrap())
    }

    #[test]
    fn infers_keras_shapes_names_and_parameter_counts() {
        let network = read(&json!([
            {"type": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "activation": "relu"},
            {"type": "MaxPooling2D"},
            {"type": "Conv2D", "filters": 64, "kernel_size": [3, 3], "strides": 2},
            {"type": "BatchNormalization"},
            {"type": "Flatten"},
            {"type": "Dense", "units": 10},
        ]))
        .unwrap();
        let plan = network.plan(&[28, 28, 1], "").unwrap();
        let shapes: Vec<_> = plan
            .layers
            .iter()
            .map(|l| shapes::show(&l.shape.output))
            .collect();
        assert_eq!(
            shapes,
            [
                "(28, 28, 32)",
                "(14, 14, 32)",
                "(6, 6, 64)",
                "(6, 6, 64)",
                "(2304)",
                "(10)"
            ]
        );
        let names: Vec<_> = plan.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "conv2d",
                "max_pooling2d",
                "conv2d_1",
                "batch_normalization",
                "flatten",
                "dense"
            ]
        );
        // Keras' `model.count_params()` of the same network.
        assert_eq!(plan.parameters(), 320 + 18_496 + 256 + 23_050);
    }

    #[test]
    fn reports_every_mistake_with_its_pointer() {
        let errors = read(&json!([
            {"type": "Dense", "units": 0},
            {"type": "Dropout", "rate": 1.0},
            {"type": "Conv2d", "filters": 1},
            {"type": "Dense", "units": 3, "unit": 4},
            {"type": "Dense"},
        ]))
        .unwrap_err()
        .into_vec();
        let found: Vec<_> = errors
            .iter()
            .map(|v| (v.pointer.as_str(), v.code.as_str()))
            .collect();
        for expected in [
            ("/layers/2/type", "unknown_value"),
            ("/layers/3/unit", "unknown_field"),
            ("/layers/4", "missing"),
            ("/layers/0/units", "out_of_range"),
            ("/layers/1/rate", "out_of_range"),
        ] {
            assert!(found.contains(&expected), "{expected:?} not in {found:?}");
        }
    }

    #[test]
    fn names_the_layer_that_refuses_its_input() {
        let network = read(&json!([
            {"type": "Flatten"},
            {"type": "Conv2D", "name": "first", "filters": 8, "kernel_size": 3},
        ]))
        .unwrap();
        let errors = network.plan(&[8, 8, 1], "/network").unwrap_err().into_vec();
        assert_eq!(errors[0].pointer, "/network/layers/1");
        assert!(
            errors[0].detail.contains("\"first\""),
            "{}",
            errors[0].detail
        );
        assert!(errors[0].detail.contains("(64)"), "{}", errors[0].detail);
    }
}
