//! Reads the files of cases.

use std::{collections::BTreeMap, fs, path::Path};

use nereid_core::{
    spec::{Network, TrainSpec, network::Plan},
    validation::Violations,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Values of a tensor, row-major, in Keras' order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "written from 32-bit floats"
    )]
    pub(crate) fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }
}

/// A training from given weights, and all that came of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Libraries whose values these are.
    sources: Vec<String>,
    /// The spec, but for model and dataset.
    pub(super) spec: Value,
    pub(crate) input: Array,
    /// Names of classes, or numbers; none if samples are their own targets.
    pub(super) targets: Vec<Value>,
    pub(crate) weights: BTreeMap<String, Array>,
    /// Of the first weights, as served.
    pub(super) output: Array,
    /// Of each epoch.
    pub(super) losses: Array,
    /// Of the first batch.
    pub(super) gradients: BTreeMap<String, Array>,
    /// Weights and moving averages after the last step.
    pub(super) after: BTreeMap<String, Array>,
}

impl Case {
    pub(crate) fn spec(&self) -> Result<TrainSpec, Violations> {
        let mut spec = self.spec.clone();
        spec["model"] = json!("reference");
        spec["dataset"] = json!("reference");
        let mut violations = Violations::default();
        let read = TrainSpec::read(spec, "", &mut violations);
        violations.into_result(read).map(Option::unwrap)
    }

    /// Tells whether PyTorch came to the same.
    pub(super) fn confirmed(&self) -> bool {
        self.sources.iter().any(|s| s == "torch")
    }
}

/// Metrics of given outputs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricCase {
    pub(crate) name: String,
    pub(super) metrics: Vec<Value>,
    /// How outputs are read: `classes`, `binary`, `labels`, `values`.
    pub(super) reading: String,
    /// Number of classes, labels or values.
    pub(super) names: usize,
    pub(super) outputs: Array,
    pub(super) targets: Vec<f32>,
    pub(super) values: BTreeMap<String, f64>,
    pub(super) matrix: Option<Vec<Vec<u64>>>,
}

/// What a callback does with given losses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallbackCase {
    pub(crate) name: String,
    pub(super) callback: Value,
    pub(super) key: String,
    pub(crate) values: Vec<f64>,
    pub(super) rate: f64,
    /// Learning rate after each epoch.
    pub(super) rates: Vec<f64>,
    /// Epoch (from 0) after which training ended.
    pub(super) stopped: Option<usize>,
}

/// Moments of a weight as Keras draws it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InitializerCase {
    pub(crate) name: String,
    layers: Value,
    input_shape: Vec<usize>,
    pub(super) weight: String,
    pub(crate) shape: Vec<usize>,
    pub(super) mean: f64,
    pub(super) std: f64,
    /// Largest absolute value.
    pub(super) largest: f64,
}

impl InitializerCase {
    /// Reads the network.
    pub(super) fn plan(&self) -> Result<Plan, Violations> {
        let mut violations = Violations::default();
        let network = json!({ "layers": self.layers });
        let network = Network::read(network, "", &mut violations);
        let network = violations.into_result(network)?;
        network.unwrap().plan(&self.input_shape, "")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    versions: BTreeMap<String, String>,
    cases: Vec<T>,
}

/// Reads all cases of a topic.
pub(crate) fn cases<T: DeserializeOwned>(topic: &str) -> Vec<T> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference");
    let text = fs::read_to_string(folder.join(format!("{topic}.json"))).unwrap();
    let file: File<T> = serde_json::from_str(&text).unwrap();
    assert!(file.versions.contains_key("tensorflow"), "{topic}");
    assert!(!file.cases.is_empty(), "{topic}");
    file.cases
}
