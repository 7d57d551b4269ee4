//! Rewrites of a model that leave its outputs as they are and take work away.

use nereid_core::{
    engine::EngineError,
    spec::{Activation, Layer, LayerSpec, network::simplify},
};

use crate::{artifact::Artifact, tensors_file::TensorsFile};

/// What a rewrite made, and the sentence about it.
pub(super) struct Rewrite {
    /// The rewritten model; `None` if there was nothing to do.
    pub(super) artifact: Option<Artifact>,
    pub(super) detail: String,
}

/// An artifact whose layers all name their inputs.
struct Graph {
    artifact: Artifact,
}

impl Graph {
    fn of(artifact: &Artifact) -> Result<Self, EngineError> {
        let mut artifact = artifact.clone();
        artifact.document.network.layers = artifact.document.plan()?.specs();
        Ok(Self { artifact })
    }

    fn layers(&mut self) -> &mut Vec<LayerSpec> {
        &mut self.artifact.document.network.layers
    }

    /// Takes a layer of one input out; what took its output takes its input instead.
    fn remove(&mut self, at: usize) {
        let layer = self.layers().remove(at);
        let (name, input) = (name(&layer), sources(&layer).first().cloned());
        let Some(input) = input else { return };
        for source in self
            .layers()
            .iter_mut()
            .flat_map(|l| l.inputs.iter_mut())
            .flatten()
        {
            if *source == name {
                source.clone_from(&input);
            }
        }
    }

    fn finish(mut self) -> Artifact {
        simplify(self.layers());
        self.artifact
    }
}

/// Drops layers that do nothing when serving.
pub(super) fn remove_dropout(artifact: &Artifact) -> Result<Rewrite, EngineError> {
    let mut graph = Graph::of(artifact)?;
    let mut removed = 0;
    // A network of nothing but Dropout would have no layer left.
    while graph.layers().len() > 1
        && let Some(at) = graph.layers().iter().position(|l| l.layer.is_noise())
    {
        graph.remove(at);
        removed += 1;
    }
    Ok(Rewrite {
        artifact: (removed > 0).then(|| graph.finish()),
        detail: format!("{removed} layers of dropout or noise, which do nothing when serving"),
    })
}

/// Multiplies batch normalisation into the weights of the layer before it.
pub(super) fn fold_batch_normalization(artifact: &Artifact) -> Result<Rewrite, EngineError> {
    let mut graph = Graph::of(artifact)?;
    let (mut folded, mut left) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < graph.layers().len() {
        let Layer::BatchNormalization(norm) = &graph.layers()[i].layer else {
            i += 1;
            continue;
        };
        let epsilon = norm.epsilon;
        let layers = graph.layers();
        let name = name(&layers[i]);
        match target(layers, i) {
            Ok((at, into)) => {
                if fold(&mut graph.artifact.weights, &into, &name, epsilon).is_some() {
                    set_bias(&mut graph.layers()[at].layer);
                    graph.remove(i);
                    folded.push(format!("{name} into {}", into.name));
                    continue;
                }
                left.push(format!("{name} stays: its weights are incomplete"));
            }
            Err(why) => left.push(format!("{name} stays: {why}")),
        }
        i += 1;
    }
    let done = !folded.is_empty();
    folded.extend(left);
    let detail = if folded.is_empty() {
        "no BatchNormalization layers".to_owned()
    } else {
        folded.join("; ")
    };
    Ok(Rewrite {
        artifact: done.then(|| graph.finish()),
        detail,
    })
}

fn name(layer: &LayerSpec) -> String {
    layer.name.clone().unwrap_or_default()
}

fn sources(layer: &LayerSpec) -> &[String] {
    layer.inputs.as_deref().unwrap_or_default()
}

/// A layer that takes normalisation in: its name, and the weight whose outputs are scaled.
struct Target {
    name: String,
    kernel: &'static str,
    /// Axes of the kernel behind its outputs.
    behind: usize,
}

/// Finds the layer that the normalisation at `norm` can be multiplied into, or why there is none.
fn target(layers: &[LayerSpec], norm: usize) -> Result<(usize, Target), String> {
    let source = sources(&layers[norm]).first();
    let at = source.and_then(|s| layers.iter().position(|l| l.name.as_ref() == Some(s)));
    let at = at.ok_or("no layer is before it")?;
    let layer = &layers[at];
    let (kernel, behind) = match &layer.layer {
        // Of DepthwiseConv2D, the last two axes are input channels and outputs of each.
        Layer::Dense(_) | Layer::Conv1D(_) | Layer::Conv2D(_) | Layer::DepthwiseConv2D(_) => {
            ("kernel", 0)
        }
        Layer::SeparableConv2D(_) => ("pointwise_kernel", 0),
        Layer::Conv2DTranspose(_) => ("kernel", 1),
        _ => ("", 0),
    };
    if kernel.is_empty() || layer.layer.activation() != Activation::Linear {
        let kind = layer.layer.type_name();
        return Err(format!(
            "the {kind} before it has no weights or an activation in between"
        ));
    }
    let name = name(layer);
    let takers = layers.iter().flat_map(sources).filter(|s| **s == name);
    let takers = takers.count();
    if takers > 1 {
        let others = takers - 1;
        return Err(format!("{others} more take the output of {name} before it"));
    }
    let target = Target {
        name,
        kernel,
        behind,
    };
    Ok((at, target))
}

fn set_bias(layer: &mut Layer) {
    match layer {
        Layer::Dense(l) => l.use_bias = true,
        Layer::Conv1D(l) => l.use_bias = true,
        Layer::Conv2D(l) => l.use_bias = true,
        Layer::Conv2DTranspose(l) => l.use_bias = true,
        Layer::DepthwiseConv2D(l) => l.use_bias = true,
        Layer::SeparableConv2D(l) => l.use_bias = true,
        _ => {}
    }
}

/// `y = (x·k + b - mean) · s + beta` becomes `x·(k·s) + ((b - mean) · s + beta)`.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
fn fold(weights: &mut TensorsFile, into: &Target, norm: &str, epsilon: f64) -> Option<()> {
    let get = |name: String| Some(weights.tensors.get(&name)?.1.clone());
    let gamma = get(format!("{norm}/gamma"))?;
    let beta = get(format!("{norm}/beta"))?;
    let mean = get(format!("{norm}/moving_mean"))?;
    let variance = get(format!("{norm}/moving_variance"))?;
    let outputs = gamma.len();
    let bias = format!("{}/bias", into.name);
    let old = get(bias.clone()).unwrap_or_else(|| vec![0.0; outputs]);
    let lengths = [&beta, &mean, &variance, &old];
    if outputs == 0 || lengths.iter().any(|v| v.len() != outputs) {
        return None;
    }
    let scale: Vec<f64> = gamma
        .iter()
        .zip(&variance)
        .map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt())
        .collect();
    let kernel = format!("{}/{}", into.name, into.kernel);
    let (shape, kernel) = weights.tensors.get_mut(&kernel)?;
    let behind: usize = shape[shape.len() - into.behind..].iter().product();
    if behind == 0 || !kernel.len().is_multiple_of(outputs * behind) {
        return None;
    }
    for (i, w) in kernel.iter_mut().enumerate() {
        *w = (f64::from(*w) * scale[i / behind % outputs]) as f32;
    }
    let new = (0..outputs)
        .map(|i| {
            let centred = f64::from(old[i]) - f64::from(mean[i]);
            (centred * scale[i] + f64::from(beta[i])) as f32
        })
        .collect();
    weights.push(bias, vec![outputs], new);
    for role in ["gamma", "beta", "moving_mean", "moving_variance"] {
        weights.tensors.remove(&format!("{norm}/{role}"));
    }
    Some(())
}
