//! The spec of a training job, read and checked as a whole against its dataset's schema.

mod target;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use utoipa::ToSchema;

use super::{
    callbacks::Callback,
    finetune::InitializeFrom,
    fit::FitOptions,
    network::{Network, Plan},
    objective::{Loss, Metric},
    optimizer::Optimizer,
    rules::Rule,
    schedule::LearningRate,
    split::SplitBy,
};
use crate::{
    Name,
    datasets::DatasetSchema,
    limits,
    validation::{ObjectReader, Violations, parse},
};

/// Version of the spec's format, stored with each job.
pub const SPEC_VERSION: u32 = 1;

/// A dataset, or one version of it: `digits` or `digits@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetRef {
    /// Name of the dataset.
    pub name: Name,
    /// Version; the newest at submission unless given.
    pub version: Option<u32>,
}

/// Why a string is not a [`DatasetRef`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given:?} is neither a dataset's name nor name@version: {reason}")]
pub struct InvalidDatasetRef {
    given: String,
    reason: String,
}

impl FromStr for DatasetRef {
    type Err = InvalidDatasetRef;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = |reason: String| InvalidDatasetRef {
            given: s.chars().take(80).collect(),
            reason,
        };
        let (name, version) = match s.split_once('@') {
            None => (s, None),
            Some((name, version)) => {
                let number: u32 = version
                    .parse()
                    .ok()
                    .filter(|&n| {
                        n > 0 && i32::try_from(n).is_ok() && !version.starts_with(['+', '0'])
                    })
                    .ok_or_else(|| invalid("a version is a whole number from 1".to_owned()))?;
                (name, Some(number))
            }
        };
        let name = name.parse().map_err(|e| invalid(format!("the name {e}")))?;
        Ok(Self { name, version })
    }
}

impl TryFrom<String> for DatasetRef {
    type Error = InvalidDatasetRef;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<DatasetRef> for String {
    fn from(r: DatasetRef) -> Self {
        r.to_string()
    }
}

impl fmt::Display for DatasetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => write!(f, "{}", self.name),
            Some(v) => write!(f, "{}@{v}", self.name),
        }
    }
}

/// What a network learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Which of several classes a sample is of.
    Classification,
    /// Which of several labels a sample has.
    MultiLabel,
    /// One or more numbers.
    Regression,
    /// The sample itself; labels, if there are any, are not used.
    Autoencoding,
}

/// What to train, on what and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainSpec {
    /// Name of the model that gets a new version.
    pub model: Name,
    /// Training data.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$", max_length = 74, example = "digits@1")]
    pub dataset: DatasetRef,
    /// Data to validate on after each epoch, instead of `fit.validation_split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$", max_length = 74, example = "digits@1")]
    pub validation_dataset: Option<DatasetRef>,
    /// Data for the final evaluation, instead of `fit.test_split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9._-]*(@[1-9][0-9]*)?$", max_length = 74, example = "digits@1")]
    pub test_dataset: Option<DatasetRef>,
    /// A model version to start from, instead of from drawn weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initialize_from: Option<InitializeFrom>,
    /// The layers; those of the version to start from may be left out.
    #[serde(default)]
    pub network: Network,
    /// What is learnt; found from the dataset's target unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// What training minimises.
    pub loss: Loss,
    /// What changes the weights; Adam unless given.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// What is measured beside the loss.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub metrics: Vec<Metric>,
    /// Options of the training loop.
    #[serde(default)]
    pub fit: FitOptions,
    /// What happens after epochs.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub callbacks: Vec<Callback>,
    /// Signs of an ill training to warn of, or to end it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 16)]
    pub rules: Vec<Rule>,
}

impl TrainSpec {
    /// Reads a spec, recording every mistake that shows without the dataset.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, pointer, violations)?;
        let model = r.required("model");
        let dataset = r.required("dataset");
        let validation_dataset: Option<DatasetRef> = r.optional("validation_dataset");
        let test_dataset: Option<DatasetRef> = r.optional("test_dataset");
        let initialize_from = r.optional_with("initialize_from", InitializeFrom::read);
        let network = match &initialize_from {
            Some(None) => r.required_with("network", Network::read),
            _ => r
                .optional_with("network", Network::read)
                .map(Option::unwrap_or_default),
        };
        let loss: Option<Loss> = r.required("loss");
        if let Some(loss) = &loss {
            loss.check(&format!("{pointer}/loss"), r.violations());
        }
        let task = r.optional("task");
        let optimizer = r.optional_with("optimizer", Optimizer::read);
        let metrics = r.list_with("metrics", limits::MAX_METRICS, read_metric);
        let fit: FitOptions = r.optional("fit").unwrap_or_default();
        fit.check(&format!("{pointer}/fit"), r.violations());
        let callbacks = r.list_with("callbacks", limits::MAX_CALLBACKS, |value, at, v| {
            let callback: Callback = parse(value, at, v)?;
            callback.check(at, v);
            Some(callback)
        });
        let rate = optimizer.as_ref().and_then(Option::as_ref);
        if let Some(LearningRate::Scheduled(_)) = rate.map(Optimizer::learning_rate) {
            check_plateau(&callbacks, pointer, r.violations());
        }
        let rules = r.list_with("rules", limits::MAX_RULES, Rule::read);
        if validation_dataset.is_some() && fit.validation_split > 0.0 {
            let at = format!("{pointer}/validation_dataset");
            let detail = "validation_dataset and fit.validation_split exclude each other";
            r.violations().push(at, "conflict", detail);
        }
        for (field, dataset) in [
            ("validation_dataset", &validation_dataset),
            ("test_dataset", &test_dataset),
        ] {
            let given = fit.split.by == SplitBy::Given;
            let at = format!("{pointer}/{field}");
            let clash = dataset.is_some() && given;
            r.violations().check(!clash, &at, "conflict", || {
                format!("{field} and a given fit.split exclude each other")
            });
        }
        if test_dataset.is_some() && fit.test_split > 0.0 {
            let at = format!("{pointer}/test_dataset");
            r.violations().push(
                at,
                "conflict",
                "test_dataset and fit.test_split exclude each other",
            );
        }
        r.finish();
        let spec = Self {
            model: model?,
            dataset: dataset?,
            validation_dataset,
            test_dataset,
            initialize_from: initialize_from?,
            network: network?,
            task,
            loss: loss?,
            optimizer: optimizer?.unwrap_or_default(),
            metrics,
            fit,
            callbacks,
            rules,
        };
        spec.check_fine_tuning(pointer, violations);
        Some(spec)
    }

    /// Checks the spec against the dataset it names and resolves the network's shapes.
    ///
    /// # Errors
    /// Every mistake found, each with its pointer below `pointer`.
    pub fn plan(
        &self,
        schema: &DatasetSchema,
        rows: u64,
        pointer: &str,
    ) -> Result<Plan, Violations> {
        let mut v = Violations::default();
        let at = format!("{pointer}/network");
        let outputs = self.outputs(schema);
        let network = self.network.expand(&schema.shape, outputs, &at);
        let plan = match network.and_then(|n| n.plan(&schema.shape, &at)) {
            Ok(plan) => Some(plan),
            Err(errors) => {
                for e in errors.into_vec() {
                    v.push(e.pointer, &e.code, e.detail);
                }
                None
            }
        };
        if let Some(plan) = &plan {
            self.check_picked(plan, pointer, &mut v);
        }
        self.check_target(schema, plan.as_ref(), pointer, &mut v);
        self.check_metrics(schema, pointer, &mut v);
        self.check_class_weight(schema, pointer, &mut v);
        self.check_monitors(pointer, &mut v);
        self.check_rows(rows, pointer, &mut v);
        self.check_augmentation(schema, pointer, &mut v);
        let at = format!("{pointer}/fit/split");
        self.fit.split.check_column(schema, &at, &mut v);
        match plan {
            Some(plan) => v.into_result(plan),
            None => Err(v),
        }
    }

    /// Tells whether each epoch ends with a validation.
    #[must_use]
    pub fn validates(&self) -> bool {
        self.validation_dataset.is_some()
            || self.fit.validation_split > 0.0
            || self.fit.split.by == SplitBy::Given
    }

    fn check_monitors(&self, pointer: &str, v: &mut Violations) {
        let mut known: Vec<String> = vec!["loss".to_owned()];
        let scalar = |m: &&Metric| **m != Metric::ConfusionMatrix {};
        known.extend(self.metrics.iter().filter(scalar).map(Metric::key));
        if self.validates() {
            let validated: Vec<_> = known.iter().map(|k| format!("val_{k}")).collect();
            known.extend(validated);
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let needs = matches!(rule, Rule::Overfit { .. });
            let at = format!("{pointer}/rules/{i}");
            v.check(!needs || self.validates(), &at, "conflict", || {
                "overfit needs validation data: fit.validation_split or validation_dataset"
                    .to_owned()
            });
        }
        for (i, callback) in self.callbacks.iter().enumerate() {
            let Some(monitor) = callback.monitor() else {
                continue;
            };
            v.check(
                known.contains(&monitor.0),
                &format!("{pointer}/callbacks/{i}/monitor"),
                "unknown_value",
                || {
                    format!(
                        "{:?} is not measured here; measured are {}",
                        monitor.0,
                        known.join(", ")
                    )
                },
            );
        }
    }

    fn check_augmentation(&self, schema: &DatasetSchema, pointer: &str, v: &mut Violations) {
        let indices = self.network.looks_up();
        for (i, augmentation) in self.fit.augmentation.iter().enumerate() {
            let at = format!("{pointer}/fit/augmentation/{i}");
            augmentation.check_samples(&schema.shape, indices, &at, v);
        }
    }

    fn check_rows(&self, rows: u64, pointer: &str, v: &mut Violations) {
        let [train, validation, test] =
            split_sizes(rows, self.fit.validation_split, self.fit.test_split);
        for (field, share, n) in [
            ("validation_split", self.fit.validation_split, validation),
            ("test_split", self.fit.test_split, test),
        ] {
            v.check(
                share == 0.0 || n > 0,
                &format!("{pointer}/fit/{field}"),
                "out_of_range",
                || format!("{share} of {rows} rows is none"),
            );
        }
        v.check(
            train > 0,
            &format!("{pointer}/dataset"),
            "out_of_range",
            || format!("of {rows} rows none is left to train on"),
        );
    }
}

/// Records callbacks that would change a learning rate that a schedule gives anew at each step.
fn check_plateau(callbacks: &[Callback], pointer: &str, v: &mut Violations) {
    for (i, callback) in callbacks.iter().enumerate() {
        if matches!(callback, Callback::ReduceLrOnPlateau { .. }) {
            v.push(
                format!("{pointer}/callbacks/{i}"),
                "conflict",
                "reduce_lr_on_plateau needs a learning rate that is a number, not a schedule; drop one of both",
            );
        }
    }
}

/// Sizes of the training, validation and test splits of `rows` rows.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "shares are within 0..=0.9 and row counts far below 2^52"
)]
pub fn split_sizes(rows: u64, validation: f64, test: f64) -> [u64; 3] {
    let part = |share: f64| (rows as f64 * share).round() as u64;
    let (validation, test) = (part(validation), part(test));
    [rows.saturating_sub(validation + test), validation, test]
}

/// Reads a metric: `"accuracy"` or `{"type": "top_k_accuracy", "k": 3}`.
fn read_metric(value: Value, pointer: &str, v: &mut Violations) -> Option<Metric> {
    let value = match value {
        Value::String(name) => serde_json::json!({ "type": name }),
        other => other,
    };
    parse(value, pointer, v)
}
