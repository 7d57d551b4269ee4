//! Names of layers, and what each takes.

use std::collections::HashMap;

use super::{Network, field_pointer};
use crate::{
    spec::layers::{Activation, Layer},
    validation::Violations,
};

/// Name by which layers take the network's input.
pub(super) const INPUT: &str = "input";

/// Where a layer's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The network's input.
    Input,
    /// The output of an earlier layer, by position.
    Layer(usize),
}

impl Source {
    /// What a layer takes unless it says otherwise.
    #[must_use]
    pub fn before(layer: usize) -> Self {
        layer.checked_sub(1).map_or(Self::Input, Self::Layer)
    }
}

impl Network {
    /// Names each layer, numbering those without a name as Keras does.
    pub(super) fn names(&self, pointer: &str, violations: &mut Violations) -> Vec<String> {
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

    /// Returns the activation that the network's output went through last.
    #[must_use]
    pub fn final_activation(&self) -> Activation {
        let names = self.names("", &mut Violations::default());
        let mut at = self.layers.len().checked_sub(1);
        while let Some(i) = at {
            let layer = &self.layers[i];
            let passes = matches!(layer.layer, Layer::Flatten(_) | Layer::Reshape(_));
            if !passes && !layer.layer.is_noise() {
                return layer.layer.activation();
            }
            at = match layer.inputs.as_deref() {
                Some([name]) => names[..i].iter().position(|n| n == name),
                _ => i.checked_sub(1),
            };
        }
        Activation::Linear
    }

    /// Finds what each layer takes.
    pub(super) fn sources(
        &self,
        names: &[String],
        pointer: &str,
        violations: &mut Violations,
    ) -> Vec<Vec<Source>> {
        let positions: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (name.as_str(), i))
            .collect();
        let branches = self.layers.iter().any(|l| l.inputs.is_some());
        if let (true, Some(&i)) = (branches, positions.get(INPUT)) {
            violations.push(
                field_pointer(pointer, i, "name"),
                "invalid_value",
                format!("{INPUT:?} stands for the network's input where layers name their inputs"),
            );
        }
        let mut all = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let Some(inputs) = &layer.inputs else {
                all.push(vec![Source::before(i)]);
                continue;
            };
            let mut sources = Vec::with_capacity(inputs.len());
            for (n, input) in inputs.iter().enumerate() {
                let at = field_pointer(pointer, i, &format!("inputs/{n}"));
                match positions.get(input.as_str()) {
                    _ if input == INPUT => sources.push(Source::Input),
                    Some(&from) if from < i => sources.push(Source::Layer(from)),
                    Some(_) => {
                        let detail = format!(
                            "layer {:?}: {input:?} is not before it; a layer takes what earlier layers yield",
                            names[i]
                        );
                        violations.push(at, "layer_order", detail);
                    }
                    None => {
                        let detail = format!(
                            "layer {:?}: {input:?} is the name of no layer; \"{INPUT}\" is the network's input",
                            names[i]
                        );
                        violations.push(at, "unknown_value", detail);
                    }
                }
            }
            all.push(sources);
        }
        all
    }

    /// Checks that every output is used, and that none is lost that should not be.
    pub(super) fn check_uses(
        &self,
        names: &[String],
        sources: &[Vec<Source>],
        pointer: &str,
        violations: &mut Violations,
    ) {
        let mut uses: HashMap<Source, usize> = HashMap::new();
        for &source in sources.iter().flatten() {
            *uses.entry(source).or_default() += 1;
        }
        let last = names.len().saturating_sub(1);
        for (i, name) in names.iter().enumerate() {
            violations.check(
                i == last || uses.contains_key(&Source::Layer(i)),
                &field_pointer(pointer, i, ""),
                "unused_layer",
                || format!("layer {name:?}: no later layer takes its output"),
            );
            let positions = matches!(self.layers[i].layer, Layer::PositionEmbedding(_));
            let kept = || {
                sources[i]
                    .iter()
                    .all(|s| uses.get(s).is_some_and(|&n| n > 1))
            };
            violations.check(
                !positions || kept(),
                &field_pointer(pointer, i, ""),
                "lost_input",
                || format!("layer {name:?}: PositionEmbedding yields positions alone, and no other layer takes its input; join both with an Add"),
            );
        }
        violations.check(
            names.is_empty() || uses.contains_key(&Source::Input),
            pointer,
            "unused_layer",
            || "no layer takes the network's input".to_owned(),
        );
    }
}
