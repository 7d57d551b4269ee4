//! Whether each part of the engine has a case.

use std::collections::BTreeSet;

use nereid_core::spec::{
    Loss, Metric, Optimizer,
    layers::{Activation, Layer},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::case::{MetricCase, cases};

/// What no case can hold, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "matthews_correlation",
        "neither Keras nor PyTorch has it; its own test does",
    ),
    ("swish", "another name of silu"),
    ("hard_swish", "another name of hard_silu"),
];

/// What was run.
#[derive(Default)]
pub(super) struct Coverage {
    seen: BTreeSet<String>,
    confirmed: usize,
}

impl Coverage {
    /// Notes the words of a spec.
    pub(super) fn add(&mut self, spec: &Value, confirmed: bool) {
        self.confirmed += usize::from(confirmed);
        self.words(spec);
    }

    fn words(&mut self, value: &Value) {
        match value {
            Value::String(word) => {
                self.seen.insert(word.clone());
            }
            Value::Array(values) => values.iter().for_each(|v| self.words(v)),
            Value::Object(fields) => fields.values().for_each(|v| self.words(v)),
            _ => {}
        }
    }

    /// Fails if a layer, activation, loss, optimiser or metric has no case.
    pub(super) fn assert_complete(mut self) {
        for case in cases::<MetricCase>("metrics") {
            case.metrics.iter().for_each(|m| self.words(m));
        }
        let layers = Layer::TYPES.iter().map(|&t| t.to_owned());
        let missing: Vec<_> = layers
            .chain(variants::<Activation>(&json!("?")))
            .chain(variants::<Loss>(&json!({"type": "?"})))
            .chain(variants::<Optimizer>(&json!({"type": "?"})))
            .chain(variants::<Metric>(&json!({"type": "?"})))
            .filter(|word| !self.seen.contains(word))
            .filter(|word| EXCEPTIONS.iter().all(|(known, _)| known != word))
            .collect();
        assert!(missing.is_empty(), "without a case: {}", missing.join(", "));
        assert!(self.confirmed > 100, "PyTorch confirms {}", self.confirmed);
    }
}

/// Names of all variants, which serde lists when it is given none of them.
fn variants<T: DeserializeOwned>(unknown: &Value) -> Vec<String> {
    let Err(error) = serde_json::from_value::<T>(unknown.clone()) else {
        panic!("{unknown} is a variant");
    };
    let text = error.to_string();
    let (_, listed) = text.split_once("expected").unwrap();
    let names: Vec<_> = listed.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 1, "{text}");
    names.into_iter().map(ToOwned::to_owned).collect()
}
