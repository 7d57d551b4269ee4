//! A network with names, shapes and weights resolved.

use super::{Defaults, Network, Source, field_pointer, graph::INPUT};
use crate::{
    limits,
    spec::{
        initializers::Initializer,
        layers::{Layer, LayerSpec},
        shapes::{self, LayerError, LayerShape, Shape},
        weights::{self, Weight},
    },
    validation::Violations,
};

/// A network's layers with names and shapes resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Shape of one sample.
    pub input: Shape,
    /// Whose defaults fill in what layers leave out.
    pub defaults: Defaults,
    /// Layers in order.
    pub layers: Vec<PlannedLayer>,
}

/// A layer with its resolved name, shapes and weights.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedLayer {
    /// Unique name.
    pub name: String,
    /// Kind and parameters.
    pub layer: Layer,
    /// What it takes.
    pub sources: Vec<Source>,
    /// Shapes of what it takes.
    pub inputs: Vec<Shape>,
    /// Its output and parameter counts.
    pub shape: LayerShape,
    /// Its weights.
    pub weights: Vec<Weight>,
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

    /// Number of parameters that training changes by gradients.
    #[must_use]
    pub fn trainable_parameters(&self) -> u64 {
        let of = |n: u64, l: &PlannedLayer| n.saturating_add(l.shape.trainable);
        self.layers.iter().fold(0, of)
    }

    /// Size of the vocabulary, if a layer looks the network's input up.
    #[must_use]
    pub fn vocabulary(&self) -> Option<usize> {
        let size = |l: &PlannedLayer| match &l.layer {
            Layer::Embedding(l) => Some(l.input_dim),
            _ => None,
        };
        self.layers.iter().filter_map(size).min()
    }

    /// Returns the layers as a spec has them, each with its name and the names of its inputs.
    #[must_use]
    pub fn specs(&self) -> Vec<LayerSpec> {
        let name = |source: &Source| match source {
            Source::Input => INPUT.to_owned(),
            Source::Layer(i) => self.layers[*i].name.clone(),
        };
        let spec = |l: &PlannedLayer| LayerSpec {
            name: Some(l.name.clone()),
            inputs: Some(l.sources.iter().map(name).collect()),
            layer: l.layer.clone(),
        };
        self.layers.iter().map(spec).collect()
    }

    /// Names the layer that has most of the parameters.
    fn largest(&self) -> String {
        let count = |l: &&PlannedLayer| l.shape.trainable.saturating_add(l.shape.non_trainable);
        let largest = self.layers.iter().max_by_key(count);
        largest.map_or(String::new(), |l| {
            format!("; layer {:?} alone has {}", l.name, count(&l))
        })
    }

    fn shape_of(&self, source: Source) -> Shape {
        match source {
            Source::Input => self.input.clone(),
            Source::Layer(i) => self.layers[i].shape.output.clone(),
        }
    }
}

/// Drops the names of inputs that a layer takes anyway, which leaves a chain as it is written.
pub fn simplify(layers: &mut [LayerSpec]) {
    let mut before = INPUT.to_owned();
    for layer in layers {
        if layer.inputs.as_deref() == Some(std::slice::from_ref(&before)) {
            layer.inputs = None;
        }
        before = layer.name.clone().unwrap_or_default();
    }
}

impl Network {
    /// Resolves names, shapes and weights for samples of shape `input`.
    ///
    /// # Errors
    /// Every mistake found, each naming its layer; inference stops at the first layer that
    /// refuses its input, since what follows has no shape.
    pub fn plan(&self, input: &[usize], pointer: &str) -> Result<Plan, Violations> {
        let mut violations = Violations::default();
        self.check_input(input, pointer, &mut violations);
        let names = self.names(pointer, &mut violations);
        let before = violations.len();
        let sources = self.sources(&names, pointer, &mut violations);
        let mut plan = Plan {
            input: input.to_vec(),
            defaults: self.defaults,
            layers: Vec::with_capacity(self.layers.len()),
        };
        if violations.len() > before {
            return Err(violations);
        }
        self.check_uses(&names, &sources, pointer, &mut violations);
        for (i, (name, sources)) in names.into_iter().zip(sources).enumerate() {
            let layer = &self.layers[i].layer;
            if shapes::check_params(layer).is_err() {
                break;
            }
            match plan.add(name.clone(), layer, sources) {
                Ok(()) => {}
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
                let max = limits::MAX_PARAMETERS;
                format!(
                    "{parameters} parameters are more than the {max} allowed{}",
                    plan.largest()
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
}

impl Plan {
    /// Adds a layer behind those it takes.
    fn add(&mut self, name: String, layer: &Layer, sources: Vec<Source>) -> Result<(), LayerError> {
        if matches!(layer, Layer::Embedding(_)) && sources != [Source::Input] {
            return Err(LayerError {
                field: "",
                code: "layer_order",
                detail: "Embedding reads integers, so it can take nothing but the network's input"
                    .to_owned(),
            });
        }
        let inputs: Vec<Shape> = sources.iter().map(|&s| self.shape_of(s)).collect();
        let output = shapes::infer(layer, &inputs)?;
        let weights = weights::weights(layer, &inputs, self.defaults);
        weights.iter().try_for_each(check_orthogonal)?;
        let count = |trainable: bool| {
            let which = weights.iter().filter(|w| w.trainable == trainable);
            which.fold(0_u64, |n, w| n.saturating_add(w.values()))
        };
        let shape = LayerShape {
            output,
            trainable: count(true),
            non_trainable: count(false),
        };
        self.layers.push(PlannedLayer {
            name,
            layer: layer.clone(),
            sources,
            inputs,
            shape,
            weights,
        });
        Ok(())
    }
}

/// Making a matrix orthogonal takes time that grows with the third power of its size.
fn check_orthogonal(weight: &Weight) -> Result<(), LayerError> {
    let Initializer::Orthogonal { .. } = weight.initializer else {
        return Ok(());
    };
    let columns = weight.shape.last().map_or(1, |&n| n as u64);
    let side = columns.min(weight.values() / columns.max(1));
    let max = limits::MAX_ORTHOGONAL;
    if side <= max {
        return Ok(());
    }
    Err(LayerError::shape(format!(
        "{} of {} has a smaller side of {side}, but \"orthogonal\" makes at most {max}; choose another initializer",
        weight.role,
        shapes::show(&weight.shape)
    )))
}
