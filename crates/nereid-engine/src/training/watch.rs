//! Looks at tensors of a step: norms, values that are not finite, units that are dead.

use burn::tensor::Tensor;
use nereid_core::engine::EngineError;

use crate::network::{Parameter, Seen, host};

/// What a watched step showed of its tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Observation {
    /// Global L2 norm of all gradients, before clipping.
    pub(super) gradient_norm: f64,
    /// Mean and largest absolute values by name, if rules need them.
    gradients: Vec<Magnitude>,
    weights: Vec<Magnitude>,
    /// By layer: its units' shares of active samples.
    relus: Vec<(String, Vec<f64>)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Magnitude {
    /// Of a weight: layer and role.
    name: String,
    mean: f64,
    largest: f64,
}

impl Magnitude {
    fn issue(&self, value: f64, limit: f64, what: String) -> Issue {
        let layer = self.name.split_once('/').map(|(layer, _)| layer.to_owned());
        Issue {
            layer,
            value,
            limit,
            what,
        }
    }
}

/// What a rule found wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Issue {
    /// Layer it is in, unless it is the whole training's.
    pub(super) layer: Option<String>,
    /// What was measured, and what it was held against.
    pub(super) value: f64,
    pub(super) limit: f64,
    /// The same in words.
    pub(super) what: String,
}

/// Returns the global L2 norm of gradients, given in the order of the weights.
///
/// # Errors
/// The name of the weight nearest to the loss whose gradient is not finite.
pub(super) fn gradient_norm<'a>(
    gradients: impl DoubleEndedIterator<Item = (&'a Parameter, &'a Tensor<1>)>,
) -> Result<f64, EngineErrorOr<'a>> {
    let mut total = 0.0;
    for (parameter, gradient) in gradients.rev() {
        let squares = scalar(&(gradient.clone() * gradient.clone()).sum())?;
        total += if squares.is_finite() {
            squares
        } else {
            // Squares leave the range of 32 bits long before the gradient does.
            let values = host(gradient.clone())?;
            let squares: f64 = values.iter().map(|&g| f64::from(g).powi(2)).sum();
            if !squares.is_finite() {
                return Err(EngineErrorOr::NotFinite(parameter));
            }
            squares
        };
    }
    Ok(total.sqrt())
}

/// Why there is no norm.
pub(super) enum EngineErrorOr<'a> {
    Engine(EngineError),
    /// A gradient holds values that are not finite.
    NotFinite(&'a Parameter),
}

impl From<EngineError> for EngineErrorOr<'_> {
    fn from(e: EngineError) -> Self {
        Self::Engine(e)
    }
}

impl Observation {
    pub(super) fn new(gradient_norm: f64) -> Self {
        Self {
            gradient_norm,
            ..Self::default()
        }
    }

    /// Adds a weight and its gradient.
    pub(super) fn add_weight(
        &mut self,
        parameter: &Parameter,
        gradient: &Tensor<1>,
    ) -> Result<(), EngineError> {
        for (list, tensor) in [
            (&mut self.gradients, gradient),
            (&mut self.weights, &parameter.value),
        ] {
            let size = tensor.clone().abs();
            list.push(Magnitude {
                name: parameter.name.clone(),
                mean: scalar(&size.clone().mean())?,
                largest: scalar(&size.max())?,
            });
        }
        Ok(())
    }

    /// Adds the output of a layer with a ReLU.
    pub(super) fn add_relu(&mut self, seen: &Seen) -> Result<(), EngineError> {
        let values = host(seen.output.clone())?;
        let channels = seen.channels.max(1);
        let mut active = vec![0_u32; channels];
        for pixel in values.chunks_exact(channels) {
            for (active, &value) in active.iter_mut().zip(pixel) {
                *active += u32::from(value > 0.0);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "batches are small")]
        let rows = (values.len() / channels).max(1) as f64;
        let shares = active.iter().map(|&n| f64::from(n) / rows).collect();
        self.relus.push((seen.layer.clone(), shares));
        Ok(())
    }

    /// Finds a kernel whose gradient is below `threshold` on average.
    pub(super) fn vanishing(&self, threshold: f64) -> Option<Issue> {
        let kernel = |g: &&Magnitude| g.name.contains("kernel") && g.mean < threshold;
        let found = self.gradients.iter().find(kernel)?;
        let (name, mean) = (&found.name, found.mean);
        let what = format!("the gradient of {name} is {mean:e} on average, below {threshold:e}");
        Some(found.issue(mean, threshold, what))
    }

    /// Finds a tensor with a value that is not finite or above `threshold`.
    pub(super) fn exploding(&self, threshold: f64) -> Option<Issue> {
        let of = |kind: &'static str, list: &'_ [Magnitude]| {
            let large = |m: &&Magnitude| !m.largest.is_finite() || m.largest > threshold;
            let found = list.iter().find(large)?;
            let (name, largest) = (&found.name, found.largest);
            let what = format!("{kind} {name} holds {largest:e}, above {threshold:e}");
            Some(found.issue(largest, threshold, what))
        };
        of("the gradient of", &self.gradients).or_else(|| of("the weight", &self.weights))
    }

    /// Finds a layer of whose units more than `layer` per cent are active in less than `unit`
    /// per cent of the samples.
    pub(super) fn dead(&self, unit: f64, layer: f64) -> Option<Issue> {
        self.relus.iter().find_map(|(name, shares)| {
            let dead = shares.iter().filter(|&&share| share * 100.0 < unit).count();
            #[expect(clippy::cast_precision_loss, reason = "layers are small")]
            let percent = dead as f64 * 100.0 / shares.len().max(1) as f64;
            (percent > layer).then(|| Issue {
                layer: Some(name.clone()),
                value: percent,
                limit: layer,
                what: format!(
                    "{dead} of {} units of layer {name:?} are active for less than {unit} % of a batch",
                    shares.len()
                ),
            })
        })
    }
}

/// Finds out which layer was the first to hold a value that is not finite.
///
/// `weights` are those that the outputs were computed with.
pub(super) fn diagnose(
    input: &Tensor<2>,
    weights: &[Parameter],
    outputs: &[Seen],
) -> Result<String, EngineError> {
    let mut largest = (0.0_f32, String::new());
    if first_bad(&host(input.clone())?, "the batch", &mut largest).is_some() {
        return Ok("the batch itself holds values that are not finite".to_owned());
    }
    // A gradient that is not finite spreads towards the input, so the last weight was the first.
    for parameter in weights.iter().rev() {
        let values = host(parameter.value.clone())?;
        if let Some(bad) = first_bad(&values, &parameter.name, &mut largest) {
            let name = &parameter.name;
            return Ok(format!(
                "{name} was the first weight, seen from the loss, to hold {bad}, since the step before"
            ));
        }
    }
    let mut found = None;
    for seen in outputs {
        if let Some(bad) = first_bad(&host(seen.output.clone())?, &seen.layer, &mut largest) {
            found = Some(format!(
                "layer {:?} is the first whose output holds {bad}",
                seen.layer
            ));
            break;
        }
    }
    let found = found.unwrap_or_else(|| "all layers' outputs are finite".to_owned());
    let (value, place) = largest;
    Ok(format!(
        "{found}; the largest value before is {value:e}, of {place}"
    ))
}

/// Returns the first value that is not finite, or heeds the largest.
fn first_bad(values: &[f32], place: &str, largest: &mut (f32, String)) -> Option<f32> {
    if let Some(&bad) = values.iter().find(|v| !v.is_finite()) {
        return Some(bad);
    }
    let most = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    if most > largest.0 {
        *largest = (most, place.to_owned());
    }
    None
}

pub(super) fn scalar(tensor: &Tensor<1>) -> Result<f64, EngineError> {
    tensor
        .clone()
        .try_into_scalar::<f32>()
        .map(f64::from)
        .map_err(|e| EngineError::Internal(format!("reading a number: {e}")))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use nereid_core::spec::Network as Spec;
    use serde_json::json;

    use super::*;
    use crate::network::{Ending, Mode, Network, TrainingPass, flat};

    fn network() -> Network {
        let spec: Spec = serde_json::from_value(json!({"layers": [
            {"type": "Dense", "units": 2, "name": "first", "activation": "relu"},
            {"type": "Dense", "units": 2, "name": "second"},
            {"type": "Dense", "units": 1, "name": "third"}
        ]}))
        .unwrap();
        Network::build(&spec.plan(&[2], "").unwrap(), 1, &Device::flex())
    }

    fn set(network: &mut Network, name: &str, value: f32) {
        let found = network
            .parameters
            .iter_mut()
            .find(|p| p.name == name)
            .unwrap();
        let n = found.value.dims()[0];
        found.value = flat(vec![value; n], &Device::flex());
    }

    /// Runs a batch of ones and asks what is wrong.
    fn diagnosis(network: &Network, input: f32) -> String {
        let weights: Vec<_> = network.parameters.iter().map(|p| p.value.clone()).collect();
        let input: Tensor<2> = flat(vec![input; 4], &Device::flex()).reshape([2, 2]);
        let mut pass = TrainingPass {
            seed: 0,
            step: 0,
            moving: Vec::new(),
            outputs: Some(Vec::new()),
        };
        network.forward(
            &weights,
            input.clone(),
            Ending::Whole,
            &mut Mode::Training(&mut pass),
        );
        diagnose(&input, &network.parameters, &pass.outputs.unwrap()).unwrap()
    }

    #[test]
    fn the_first_layer_to_diverge_is_named() {
        let mut network = network();
        set(&mut network, "first/kernel", 1e10);
        set(&mut network, "second/kernel", 3e38);
        let found = diagnosis(&network, 1.0);
        assert!(
            found.contains("layer \"second\" is the first whose output holds inf"),
            "{found}"
        );
        assert!(found.contains("3e38, of second/kernel"), "{found}");
        set(&mut network, "second/kernel", 1.0);
        let found = diagnosis(&network, 1.0);
        assert!(found.contains("all layers' outputs are finite"), "{found}");
        // Spread by one step of training, from the second layer on towards the input.
        set(&mut network, "first/kernel", f32::NAN);
        set(&mut network, "second/bias", f32::NAN);
        let found = diagnosis(&network, 1.0);
        assert!(
            found.contains("second/bias was the first weight"),
            "{found}"
        );
        assert!(diagnosis(&network, f32::INFINITY).contains("the batch itself"));
    }

    #[test]
    fn the_norm_is_over_all_gradients() {
        let network = network();
        let gradients = [vec![3.0, 0.0], vec![0.0, 4.0]].map(|g| flat(g, &Device::flex()));
        let norm = |gradients: &[Tensor<1>]| {
            let norm = gradient_norm(network.parameters.iter().zip(gradients));
            norm.map_err(|e| match e {
                EngineErrorOr::NotFinite(parameter) => parameter.name.clone(),
                EngineErrorOr::Engine(e) => e.to_string(),
            })
        };
        assert!((norm(&gradients).unwrap() - 5.0).abs() < 1e-9);
        // Their squares overflow 32 bits.
        let large = gradients.clone().map(|g| g * 1e30);
        assert!((norm(&large).unwrap() / 5e30 - 1.0).abs() < 1e-6);
        let bad = gradients.map(|g| g * f32::NAN);
        assert_eq!(norm(&bad).unwrap_err(), "first/bias");
    }
}
