//! Rewrites of a model that leave its outputs as they are and take work away.

use nereid_core::spec::{Activation, Layer, LayerSpec};

use crate::{artifact::Artifact, tensors_file::TensorsFile};

/// What a rewrite made, and the sentence about it.
pub(super) struct Rewrite {
    /// The rewritten model; `None` if there was nothing to do.
    pub(super) artifact: Option<Artifact>,
    pub(super) detail: String,
}

/// Drops layers that do nothing when serving.
pub(super) fn remove_dropout(artifact: &Artifact) -> Rewrite {
    let mut new = artifact.clone();
    let layers = &mut new.document.network.layers;
    let before = layers.len();
    layers.retain(|l| !matches!(l.layer, Layer::Dropout(_)));
    let removed = before - layers.len();
    // A network of nothing but Dropout would have no layer left.
    let done = removed > 0 && !layers.is_empty();
    Rewrite {
        artifact: done.then_some(new),
        detail: format!("{removed} Dropout layers, which do nothing when serving"),
    }
}

/// Multiplies batch normalisation into the weights of the layer before it.
pub(super) fn fold_batch_normalization(artifact: &Artifact) -> Rewrite {
    let mut new = artifact.clone();
    let (mut folded, mut left) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < new.document.network.layers.len() {
        let layers = &new.document.network.layers;
        let Layer::BatchNormalization(norm) = &layers[i].layer else {
            i += 1;
            continue;
        };
        let (name, epsilon) = (name(&layers[i]), norm.epsilon);
        let target = i.checked_sub(1).map(|p| &layers[p]);
        match target.map(|t| (name_of_foldable(t), t.layer.type_name())) {
            Some((Some(into), _)) => {
                if fold(&mut new.weights, &into, &name, epsilon).is_some() {
                    let layers = &mut new.document.network.layers;
                    layers.remove(i);
                    set_bias(&mut layers[i - 1].layer);
                    folded.push(format!("{name} into {into}"));
                    continue;
                }
                left.push(format!("{name} stays: its weights are incomplete"));
            }
            Some((None, kind)) => left.push(format!(
                "{name} stays: the {kind} before it has no weights or an activation in between"
            )),
            None => left.push(format!("{name} stays: no layer is before it")),
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
    Rewrite {
        artifact: done.then_some(new),
        detail,
    }
}

fn name(layer: &LayerSpec) -> String {
    layer.name.clone().unwrap_or_default()
}

/// Returns the name of a layer that is linear up to its output.
fn name_of_foldable(layer: &LayerSpec) -> Option<String> {
    let activation = match &layer.layer {
        Layer::Dense(l) => l.activation,
        Layer::Conv1D(l) => l.activation,
        Layer::Conv2D(l) => l.activation,
        _ => return None,
    };
    (activation == Activation::Linear).then(|| name(layer))
}

fn set_bias(layer: &mut Layer) {
    match layer {
        Layer::Dense(l) => l.use_bias = true,
        Layer::Conv1D(l) => l.use_bias = true,
        Layer::Conv2D(l) => l.use_bias = true,
        _ => {}
    }
}

/// `y = (x·k + b - mean) · s + beta` becomes `x·(k·s) + ((b - mean) · s + beta)`.
#[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit floats")]
fn fold(weights: &mut TensorsFile, into: &str, norm: &str, epsilon: f64) -> Option<()> {
    let get = |name: String| Some(weights.tensors.get(&name)?.1.clone());
    let gamma = get(format!("{norm}/gamma"))?;
    let beta = get(format!("{norm}/beta"))?;
    let mean = get(format!("{norm}/moving_mean"))?;
    let variance = get(format!("{norm}/moving_variance"))?;
    let outputs = gamma.len();
    let bias = get(format!("{into}/bias")).unwrap_or_else(|| vec![0.0; outputs]);
    let lengths = [&beta, &mean, &variance, &bias];
    if outputs == 0 || lengths.iter().any(|v| v.len() != outputs) {
        return None;
    }
    let scale: Vec<f64> = gamma
        .iter()
        .zip(&variance)
        .map(|(&g, &v)| f64::from(g) / (f64::from(v) + epsilon).sqrt())
        .collect();
    let (shape, kernel) = weights.tensors.get_mut(&format!("{into}/kernel"))?;
    if shape.last() != Some(&outputs) {
        return None;
    }
    // The last axis of every kernel is the output.
    for row in kernel.chunks_mut(outputs) {
        for (w, s) in row.iter_mut().zip(&scale) {
            *w = (f64::from(*w) * s) as f32;
        }
    }
    let bias = (0..outputs)
        .map(|i| {
            let centred = f64::from(bias[i]) - f64::from(mean[i]);
            (centred * scale[i] + f64::from(beta[i])) as f32
        })
        .collect();
    weights.push(format!("{into}/bias"), vec![outputs], bias);
    for role in ["gamma", "beta", "moving_mean", "moving_variance"] {
        weights.tensors.remove(&format!("{norm}/{role}"));
    }
    Some(())
}
