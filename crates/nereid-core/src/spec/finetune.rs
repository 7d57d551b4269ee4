//! Fine-tuning: what a training takes over from a model version, and how it changes that.
//!
//! Matched by layer name and by the shapes of weights, without the weights themselves, so that
//! what does not fit shows when a job is submitted.

mod base;

pub use base::{Base, Transfer};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    fit::Normalization,
    layers::Layer,
    network::{Plan, PlannedLayer},
    patterns::{self, Pattern, Patterns},
    train::TrainSpec,
    weights::Weight,
};
use crate::{
    Name, limits,
    models::{Alias, check_one_of},
    validation::{Violations, escape, parse},
};

/// What becomes of a layer whose weights have other shapes in the version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mismatched {
    /// The job is refused.
    #[default]
    Error,
    /// The layer starts anew, like one that the version lacks.
    Skip,
}

/// Where the numbers come from by which features are scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// From the version: its weights know inputs on that scale.
    #[default]
    Version,
    /// Found anew from the training data, as `fit.normalization` says.
    Data,
}

/// A model version that a training starts from, instead of from drawn weights.
///
/// The moving statistics of batch normalisations come along with the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InitializeFrom {
    /// Name of the model.
    pub model: Name,
    /// Its version; the newest at submission unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2_147_483_647_i64)]
    pub version: Option<u32>,
    /// Alias that names the version in its number's place; submission writes the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// Layers to take over, by name; all that the version has, too, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, max_items = 64, example = json!(["conv*"]))]
    pub layers: Option<Patterns>,
    /// What becomes of layers whose weights have other shapes in the version.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mismatched: Mismatched,
    /// How features are scaled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preprocessing: Scaling,
}

/// Low-rank adaptation (Hu et al., 2021): a kernel W becomes W + (alpha / rank) · A · B.
///
/// Of all that is taken over from the version, only A and B are trained, unless `trainable` names
/// more. They are merged into W when the model is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Columns of A and rows of B.
    #[schema(minimum = 1, maximum = 1024)]
    pub rank: u32,
    /// Weight of the product, times the rank; the rank unless given, as in Keras.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Layers to adapt, by name: Dense, Embedding and `MultiHeadAttention`; all of them unless
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, max_items = 64, example = json!(["*attention*"]))]
    pub layers: Option<Patterns>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl InitializeFrom {
    /// Reads it, recording every mistake that shows without the version.
    pub fn read(value: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
        let read: Self = parse(value, pointer, v)?;
        check_one_of(read.version, read.alias.as_ref(), false, pointer, v);
        check_layers(read.layers.as_deref(), &format!("{pointer}/layers"), v);
        Some(read)
    }

    /// Names the version: `digits@3`.
    #[must_use]
    pub fn reference(&self) -> String {
        match self.version {
            None => self.model.to_string(),
            Some(version) => format!("{}@{version}", self.model),
        }
    }
}

impl Lora {
    /// Records every option outside its range.
    pub(super) fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check_range(&at("rank"), self.rank, 1, limits::MAX_LORA_RANK);
        if let Some(alpha) = self.alpha {
            v.check_range(&at("alpha"), alpha, 1e-6, 1e6);
        }
        check_layers(self.layers.as_deref(), &at("layers"), v);
    }

    /// Factor of the product A · B.
    #[must_use]
    pub fn scale(&self) -> f64 {
        let rank = f64::from(self.rank.max(1));
        self.alpha.unwrap_or(rank) / rank
    }
}

/// Rows and columns of a weight that multiplies vectors.
fn matrix(layer: &Layer, weight: &Weight) -> Option<[usize; 2]> {
    match (layer, weight.role.as_str()) {
        (Layer::Dense(_), "kernel") | (Layer::Embedding(_), "embeddings") => {
            weight.shape.as_slice().try_into().ok()
        }
        (Layer::MultiHeadAttention(_), role) if role.ends_with("/kernel") => weight.fans,
        _ => None,
    }
}

/// Tells whether a layer is among those picked, which are all unless there are patterns.
fn picks(patterns: Option<&[Pattern]>, layer: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|p| p.matches_layer(layer)))
}

fn check_layers(patterns: Option<&[Pattern]>, pointer: &str, v: &mut Violations) {
    let Some(patterns) = patterns else { return };
    patterns::check_all(patterns, pointer, v);
    v.check(!patterns.is_empty(), pointer, "too_few", || {
        "it picks no layer; leave it out for all layers".to_owned()
    });
    for (i, pattern) in patterns.iter().enumerate().take(limits::MAX_PATTERNS) {
        check_layer(pattern, &format!("{pointer}/{i}"), v);
    }
}

/// Records a pattern that is meant for weights.
fn check_layer(pattern: &Pattern, pointer: &str, v: &mut Violations) {
    v.check(!pattern.0.contains('/'), pointer, "invalid_value", || {
        format!(
            "{:?} is compared with names of layers, which have no '/'",
            pattern.0
        )
    });
}

/// Records mistakes of `fit.trainable`.
pub(super) fn check_trainable(
    trainable: &BTreeMap<Pattern, bool>,
    pointer: &str,
    v: &mut Violations,
) {
    let (n, max) = (trainable.len(), limits::MAX_PATTERNS);
    v.check(n <= max, pointer, "too_many", || {
        format!("{n} patterns are more than the {max} allowed")
    });
    for pattern in trainable.keys().take(max) {
        let at = format!("{pointer}/{}", escape(&pattern.0));
        pattern.check(&at, v);
        check_layer(pattern, &at, v);
    }
}

impl TrainSpec {
    /// Tells whether a layer is trained; `taken` is one whose weights come from a version.
    ///
    /// Of several patterns of `fit.trainable` that fit its name the longest decides, and of equally
    /// long ones one that is false. With LoRA what is taken over stays as it is unless named.
    #[must_use]
    pub fn trains(&self, layer: &str, taken: bool) -> bool {
        let usual = self.fit.lora.is_none() || !taken;
        self.said_of(layer).unwrap_or(usual)
    }

    fn said_of(&self, layer: &str) -> Option<bool> {
        let fitting = self.fit.trainable.iter();
        let fitting = fitting.filter(|(pattern, _)| pattern.matches_layer(layer));
        let said = fitting.max_by_key(|(pattern, trained)| (pattern.0.len(), !**trained));
        said.map(|(_, &trained)| trained)
    }

    /// Rows and columns of a weight that LoRA adapts, if its layer is taken over; `None` of others.
    ///
    /// A layer that is said not to be trained is not adapted either, as in Keras.
    #[must_use]
    pub fn adapts(&self, layer: &PlannedLayer, weight: &Weight) -> Option<[usize; 2]> {
        let lora = self.fit.lora.as_ref()?;
        let picked = picks(lora.layers.as_deref(), &layer.name);
        let kept = self.said_of(&layer.name) == Some(false);
        (picked && !kept)
            .then(|| matrix(&layer.layer, weight))
            .flatten()
    }

    /// Records contradictions that show without dataset and version.
    pub(super) fn check_fine_tuning(&self, pointer: &str, v: &mut Violations) {
        let Some(from) = &self.initialize_from else {
            let at = format!("{pointer}/fit/lora");
            v.check(self.fit.lora.is_none(), &at, "conflict", || {
                "lora adapts the weights of a version: it needs initialize_from".to_owned()
            });
            return;
        };
        let found = from.preprocessing == Scaling::Data;
        let at = format!("{pointer}/fit/normalization");
        let given = self.fit.normalization != Normalization::Auto;
        v.check(found || !given, &at, "conflict", || {
            "features are scaled as the version scales them; leave normalization out, or set initialize_from.preprocessing to \"data\""
                .to_owned()
        });
    }

    /// Records patterns that pick no layer, and a network of which nothing is trained.
    pub(super) fn check_picked(&self, plan: &Plan, pointer: &str, v: &mut Violations) {
        let names = || plan.layers.iter().map(|l| l.name.as_str());
        let taken = self.initialize_from.as_ref();
        let taken = taken.and_then(|from| from.layers.as_deref());
        let listed = taken.unwrap_or_default().iter().enumerate();
        for (i, pattern) in listed {
            let at = format!("{pointer}/initialize_from/layers/{i}");
            check_known(names().any(|n| pattern.matches_layer(n)), pattern, &at, v);
        }
        for pattern in self.fit.trainable.keys() {
            let at = format!("{pointer}/fit/trainable/{}", escape(&pattern.0));
            check_known(names().any(|n| pattern.matches_layer(n)), pattern, &at, v);
        }
        let Some(lora) = &self.fit.lora else {
            let trains = |l: &PlannedLayer| l.shape.trainable > 0 && self.trains(&l.name, false);
            let at = format!("{pointer}/fit/trainable");
            let any = plan.layers.iter().any(trains) || self.fit.trainable.is_empty();
            v.check(any, &at, "conflict", || {
                "no layer that has weights is left to train".to_owned()
            });
            return;
        };
        for (i, pattern) in lora.layers.iter().flatten().enumerate() {
            let at = format!("{pointer}/fit/lora/layers/{i}");
            let adaptable = plan.layers.iter().any(|l| {
                let picked = pattern.matches_layer(&l.name);
                picked && l.weights.iter().any(|w| matrix(&l.layer, w).is_some())
            });
            v.check(adaptable, &at, "unknown_value", || {
                format!(
                    "{:?} is the name of no Dense, Embedding or MultiHeadAttention layer",
                    pattern.0
                )
            });
        }
    }
}

fn check_known(known: bool, pattern: &Pattern, pointer: &str, v: &mut Violations) {
    v.check(known, pointer, "unknown_value", || {
        format!("{:?} is the name of no layer", pattern.0)
    });
}

#[cfg(test)]
mod tests;
