//! Weights in a smaller form: 16-bit floats, or 8-bit integers with a scale per output channel.
//!
//! They are computed with in 32 bits: integer arithmetic was found slower on processors, and
//! wrong in some runtimes. Integers are symmetric, clipped where that costs least on calibration
//! samples, and what they change in the mean is taken off the bias.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use nereid_core::{engine::EngineError, spec::layers::Layer, workers::DeviceKind};

use super::fold::Rewrite;
use crate::{
    artifact::Artifact,
    device,
    network::{Act, Network, host},
    preprocessing,
    tensors_file::{Packing, nearest, scale_of},
};

/// Shares of the largest value at which a channel may be clipped.
const CLIPS: [f32; 9] = [1.0, 0.975, 0.95, 0.925, 0.9, 0.85, 0.8, 0.75, 0.7];
/// Most calibration samples at once.
const CHUNK: usize = 64;

/// Roles of weights that are multiplied with, which are almost all of a model's size.
const KERNELS: [&str; 6] = [
    "kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "pointwise_kernel",
    "embeddings",
    "position_embeddings",
];

/// Mean and mean square of each channel of what a layer takes.
struct Moments {
    mean: Vec<f64>,
    square: Vec<f64>,
}

fn is_kernel(name: &str) -> bool {
    let role = name.rsplit('/').next().unwrap_or_default();
    KERNELS.contains(&role)
}

/// Rounds weights to 16-bit floats.
pub(super) fn halves(artifact: &Artifact) -> Rewrite {
    let mut artifact = artifact.clone();
    let names: Vec<_> = artifact.weights.tensors.keys().cloned().collect();
    let mut packed = 0;
    for name in names.into_iter().filter(|n| is_kernel(n)) {
        let Some((_, values)) = artifact.weights.tensors.get_mut(&name) else {
            continue;
        };
        for v in values.iter_mut() {
            *v = half::f16::from_f32(*v).to_f32();
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Rewrite {
                artifact: None,
                detail: format!("{name} holds values beyond the range of 16-bit floats"),
            };
        }
        artifact.weights.packed.insert(name, Packing::Half);
        packed += 1;
    }
    done(artifact, packed, "16-bit floats")
}

/// Rounds weights to 8-bit integers.
pub(super) fn integers(artifact: &Artifact, calibration: &[f32]) -> Result<Rewrite, EngineError> {
    let mut artifact = artifact.clone();
    let moments = moments(&artifact, calibration)?;
    let plan = artifact.document.plan()?;
    let mut packed = 0;
    for layer in &plan.layers {
        for weight in &layer.weights {
            let name = format!("{}/{}", layer.name, weight.role);
            if !is_kernel(&name) {
                continue;
            }
            let Some((shape, values)) = artifact.weights.tensors.get_mut(&name) else {
                continue;
            };
            let scales = scales_shape(&layer.layer, &weight.role, shape);
            let inputs = input_axis(&layer.layer, &weight.role, shape);
            let known = moments.get(&layer.name).zip(inputs);
            let kernel = Kernel::new(shape, &scales, known);
            let before = values.clone();
            let scale = kernel.round(values);
            let shift = kernel.shift(&before, values);
            let packing = Packing::Integers {
                shape: scales,
                scales: scale,
            };
            artifact.weights.packed.insert(name, packing);
            packed += 1;
            let bias = format!("{}/bias", layer.name);
            if let (Some(shift), Some((_, bias))) = (shift, artifact.weights.tensors.get_mut(&bias))
                && bias.len() == shift.len()
            {
                for (b, s) in bias.iter_mut().zip(shift) {
                    *b += s;
                }
            }
        }
    }
    Ok(done(
        artifact,
        packed,
        "8-bit integers, a scale for each channel",
    ))
}

fn done(artifact: Artifact, packed: usize, what: &str) -> Rewrite {
    Rewrite {
        artifact: (packed > 0).then_some(artifact),
        detail: format!("{packed} tensors of weights as {what}"),
    }
}

/// Shape of a kernel's scales: one for each output channel.
fn scales_shape(layer: &Layer, role: &str, shape: &[usize]) -> Vec<usize> {
    let last = shape.len().saturating_sub(1);
    let kept: Vec<usize> = match (layer, role) {
        (Layer::Conv2DTranspose(_), _) => vec![last - 1],
        (Layer::DepthwiseConv2D(_), _) | (_, "depthwise_kernel") => vec![last - 1, last],
        (Layer::MultiHeadAttention(_), "query/kernel" | "key/kernel" | "value/kernel") => {
            vec![last.saturating_sub(1), last]
        }
        // Each row is looked up by itself.
        (Layer::Embedding(_) | Layer::PositionEmbedding(_), _) => vec![0],
        _ => vec![last],
    };
    let axis = |(i, &n): (usize, &usize)| if kept.contains(&i) { n } else { 1 };
    shape.iter().enumerate().map(axis).collect()
}

/// Axis of a kernel that its layer's input channels are along, where moments of them are known.
fn input_axis(layer: &Layer, role: &str, shape: &[usize]) -> Option<usize> {
    let last = shape.len().checked_sub(1)?;
    match (layer, role) {
        (Layer::Conv1D(l), "kernel") if l.groups == 1 => Some(last - 1),
        (Layer::Conv2D(l), "kernel") if l.groups == 1 => Some(last - 1),
        (Layer::DepthwiseConv2D(_), _) | (_, "depthwise_kernel") => Some(last - 1),
        (Layer::Conv2DTranspose(_), _) => Some(last),
        (Layer::Dense(_) | Layer::LSTM(_) | Layer::GRU(_) | Layer::SimpleRNN(_), "kernel") => {
            Some(0)
        }
        _ => None,
    }
}

/// A kernel to be rounded.
struct Kernel {
    /// Position of the scale of each value.
    scale: Vec<usize>,
    channels: usize,
    /// How much the square of an error of each value counts, and the mean it is multiplied with.
    inputs: Option<(Vec<f64>, Vec<f64>)>,
}

impl Kernel {
    fn new(shape: &[usize], scales: &[usize], known: Option<(&Moments, usize)>) -> Self {
        let inputs = known.and_then(|(moments, axis)| {
            let only: Vec<_> = (0..shape.len())
                .map(|i| if i == axis { shape[i] } else { 1 })
                .collect();
            let fits = moments.mean.len() == shape[axis];
            fits.then(|| {
                let at = scale_of(shape, &only);
                let pick = |values: &[f64]| at.iter().map(|&i| values[i]).collect();
                (pick(&moments.square), pick(&moments.mean))
            })
        });
        Self {
            scale: scale_of(shape, scales),
            channels: scales.iter().product(),
            inputs,
        }
    }

    /// Rounds values to multiples of scales, which are returned.
    fn round(&self, values: &mut [f32]) -> Vec<f32> {
        let mut largest = vec![0.0_f32; self.channels];
        for (v, &at) in values.iter().zip(&self.scale) {
            largest[at] = largest[at].max(v.abs());
        }
        let mut best = vec![f64::INFINITY; self.channels];
        let mut scales = vec![1.0_f32; self.channels];
        for clip in CLIPS {
            let tried: Vec<f32> = largest.iter().map(|&m| scale(m * clip)).collect();
            let mut errors = vec![0.0; self.channels];
            for (i, (v, &at)) in values.iter().zip(&self.scale).enumerate() {
                let rounded = f32::from(nearest(*v, tried[at])) * tried[at];
                let weight = self.inputs.as_ref().map_or(1.0, |(square, _)| square[i]);
                errors[at] += weight * f64::from(v - rounded).powi(2);
            }
            for (channel, error) in errors.into_iter().enumerate() {
                if error < best[channel] {
                    best[channel] = error;
                    scales[channel] = tried[channel];
                }
            }
        }
        for (v, &at) in values.iter_mut().zip(&self.scale) {
            *v = f32::from(nearest(*v, scales[at])) * scales[at];
        }
        scales
    }

    /// What rounding takes off each output in the mean.
    #[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
    fn shift(&self, before: &[f32], after: &[f32]) -> Option<Vec<f32>> {
        let (_, mean) = self.inputs.as_ref()?;
        let mut shift = vec![0.0_f64; self.channels];
        for (i, &at) in self.scale.iter().enumerate() {
            shift[at] += f64::from(before[i] - after[i]) * mean[i];
        }
        Some(shift.into_iter().map(|s| s as f32).collect())
    }
}

/// The scale of a channel by its largest value; a channel of zeros has any.
fn scale(largest: f32) -> f32 {
    let scale = largest / 127.0;
    if scale.is_normal() { scale } else { 1.0 }
}

/// Runs calibration samples and notes what layers take.
fn moments(
    artifact: &Artifact,
    calibration: &[f32],
) -> Result<HashMap<String, Moments>, EngineError> {
    let plan = artifact.document.plan()?;
    let device = device::open(DeviceKind::Cpu)?;
    let mut network = Network::blank(&plan, &device);
    for parameter in &mut network.parameters {
        if let Some((_, values)) = artifact.weights.tensors.get(&parameter.name) {
            parameter.set_keras(values);
        }
    }
    let size = plan.input.iter().product::<usize>().max(1);
    let mut values = calibration.to_vec();
    preprocessing::apply(&artifact.document.signature.preprocessing, &mut values);
    let mut sums: HashMap<String, (f64, Moments)> = HashMap::new();
    let mut failure = None;
    for chunk in values.chunks(CHUNK * size) {
        let data = TensorData::new(chunk.to_vec(), [chunk.len() / size, size]);
        let input: Tensor<2> = Tensor::from_data(data, &device);
        network.observe(input, &mut |node, acts| {
            let Some(act) = acts.first() else { return };
            if let Err(e) = add(sums.entry(node.name.clone()).or_insert_with(empty), act) {
                failure = Some(e);
            }
        });
    }
    if let Some(e) = failure {
        return Err(e);
    }
    let mean = |(name, (n, mut moments)): (String, (f64, Moments))| {
        for sum in moments.mean.iter_mut().chain(&mut moments.square) {
            *sum /= n.max(1.0);
        }
        (name, moments)
    };
    Ok(sums.into_iter().map(mean).collect())
}

fn empty() -> (f64, Moments) {
    let moments = Moments {
        mean: Vec::new(),
        square: Vec::new(),
    };
    (0.0, moments)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 values")]
fn add((n, moments): &mut (f64, Moments), act: &Act) -> Result<(), EngineError> {
    let channels = act.channels();
    let values = host(act.clone().vectors())?;
    moments.mean.resize(channels, 0.0);
    moments.square.resize(channels, 0.0);
    for row in values.chunks(channels.max(1)) {
        for ((v, mean), square) in row.iter().zip(&mut moments.mean).zip(&mut moments.square) {
            *mean += f64::from(*v);
            *square += f64::from(*v).powi(2);
        }
    }
    *n += (values.len() / channels.max(1)) as f64;
    Ok(())
}
