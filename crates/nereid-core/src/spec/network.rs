//! A network: a chain of layers, read and checked as a whole.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    layers::{Layer, LayerSpec},
    shapes::{self, LayerShape, Shape},
};
use crate::{
    limits,
    validation::{ObjectReader, Violations},
};

/// A chain of layers, like Keras' `Sequential`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// Shape of one sample, channels last; the dataset's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub input_shape: Option<Vec<usize>>,
    /// The layers, first to last.
    #[schema(min_items = 1, max_items = 512)]
    pub layers: Vec<LayerSpec>,
}

/// A network's layers with names and shapes resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Shape of one sample.
    pub input: Shape,
    /// Layers in order.
    pub layers: Vec<PlannedLayer>,
}

/// A layer with its resolved name and shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLayer {
    /// Unique name.
    pub name: String,
    /// Kind and parameters.
    pub layer: Layer,
    /// Shape of its input.
    pub input: Shape,
    /// Its output and parameter counts.
    pub shape: LayerShape,
}

impl Plan {
    /// Shape of the network's output, without the batch dimension.
    #[must_use]
    pub fn output(&self) -> &[usize] {
        self.layers.last().map_or(&self.input, |l| &l.shape.output)
    }

    /// Number of trainable and non-trainable parameters.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let of = |l: &PlannedLayer| l.shape.trainable.saturating_add(l.shape.non_trainable);
        self.layers.iter().fold(0, |n, l| n.saturating_add(of(l)))
    }
}

impl Network {
    /// Reads a network, recording every mistake that shows without its input shape.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut reader = ObjectReader::new(value, pointer, violations)?;
        let input_shape = reader.optional("input_shape");
        let at = reader.pointer_to("layers");
        let before = reader.violations().len();
        let layers = reader.list_with("layers", limits::MAX_LAYERS, LayerSpec::read);
        if layers.is_empty() && reader.violations().len() == before {
            reader
                .violations()
                .push(at, "missing", "a network needs at least one layer");
        }
        reader.finish();
        Some(Self {
            input_shape,
            layers,
        })
    }

    /// Resolves names and shapes for samples of shape `input`.
    ///
    /// # Errors
    /// Every mistake found, each naming its layer; inference stops at the first layer that
    /// refuses its input, since what follows has no shape.
    pub fn plan(&self, input: &[usize], pointer: &str) -> Result<Plan, Violations> {
        let mut violations = Violations::default();
        self.check_input(input, pointer, &mut violations);
        let names = self.names(pointer, &mut violations);
        let mut plan = Plan {
            input: input.to_vec(),
            layers: Vec::with_capacity(self.layers.len()),
        };
        for (i, (spec, name)) in self.layers.iter().zip(names).enumerate() {
            let input = plan.output().to_vec();
            if shapes::check_params(&spec.layer).is_err() {
                break;
            }
            if matches!(spec.layer, Layer::Embedding(_)) && i > 0 {
                let detail = format!(
                    "layer {name:?}: Embedding reads integers, so only the first layer can be one"
                );
                violations.push(field_pointer(pointer, i, ""), "layer_order", detail);
                break;
            }
            match shapes::infer(&spec.layer, &input) {
                Ok(shape) => plan.layers.push(PlannedLayer {
                    name,
                    layer: spec.layer.clone(),
                    input,
                    shape,
                }),
                Err(e) => {
                    let detail = format!("layer {name:?}: {}", e.detail);
                    violations.push(field_pointer(pointer, i, e.field), e.code, detail);
                    break;
                }
            }
        }
        let parameters = plan.parameters();
        violations.check(
            parameters <= limits::MAX_PARAMETERS,
            pointer,
            "too_large",
            || {
                format!(
                    "{parameters} parameters are more than the {} allowed",
                    limits::MAX_PARAMETERS
                )
            },
        );
        violations.into_result(plan)
    }

    fn check_input(&self, input: &[usize], pointer: &str, violations: &mut Violations) {
        if let Some(declared) = &self.input_shape
            && declared != input
        {
            let (declared, got) = (shapes::show(declared), shapes::show(input));
            violations.push(
                format!("{pointer}/input_shape"),
                "shape_mismatch",
                format!("{declared} is not the dataset's sample shape {got}"),
            );
        }
    }

    /// Names each layer, numbering those without a name as Keras does.
    fn names(&self, pointer: &str, violations: &mut Violations) -> Vec<String> {
        let mut taken: HashMap<String, usize> = HashMap::new();
        for (i, spec) in self.layers.iter().enumerate() {
            let Some(name) = &spec.name else { continue };
            let at = field_pointer(pointer, i, "name");
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
                violations.push(
                    at.clone(),
                    "invalid_value",
                    format!("{name:?} is not 1 to 63 ASCII letters, digits, '_' or '-'"),
                );
            }
            if let Some(first) = taken.insert(name.clone(), i) {
                violations.push(
                    at,
                    "duplicate",
                    format!("{name:?} is already the name of layer {first}"),
                );
            }
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut next = |stem: &'static str| loop {
            let n = counts.entry(stem).or_default();
            let name = if *n == 0 {
                stem.to_owned()
            } else {
                format!("{stem}_{n}")
            };
            *n += 1;
            if !taken.contains_key(&name) {
                return name;
            }
        };
        self.layers
            .iter()
            .map(|spec| {
                spec.name
                    .clone()
                    .unwrap_or_else(|| next(spec.layer.name_stem()))
            })
            .collect()
    }
}

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
