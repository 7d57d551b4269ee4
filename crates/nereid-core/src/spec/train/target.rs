//! Whether loss, metrics and the last layer fit what is to be learnt.

use super::{
    super::{
        fit::{ClassWeight, Normalization},
        layers::Activation,
        network::Plan,
        objective::{LossKind, Metric},
        shapes,
        split::SplitBy,
    },
    Task, TrainSpec,
};
use crate::{
    datasets::{DatasetSchema, TargetSchema},
    limits,
    validation::{Violations, escape},
};

impl TrainSpec {
    /// Tells whether the network's output is logits rather than probabilities.
    #[must_use]
    pub fn outputs_logits(&self) -> bool {
        self.loss.is_classification()
            && self
                .loss
                .from_logits()
                .unwrap_or_else(|| !self.ends_in_probabilities())
    }

    /// Returns what is learnt: as given, else what the target asks for.
    #[must_use]
    pub fn task(&self, schema: &DatasetSchema) -> Task {
        let found = match &schema.target {
            Some(TargetSchema::Value { .. } | TargetSchema::Values { .. }) => Task::Regression,
            Some(TargetSchema::Labels { .. }) => Task::MultiLabel,
            _ => Task::Classification,
        };
        self.task.unwrap_or(found)
    }

    /// Tells whether the samples are their own targets.
    #[must_use]
    pub fn is_autoencoder(&self) -> bool {
        self.task == Some(Task::Autoencoding)
    }

    fn ends_in_probabilities(&self) -> bool {
        let activation = self.network.final_activation();
        match self.loss.kind() {
            LossKind::Binary => activation == Activation::Sigmoid,
            _ => activation == Activation::Softmax,
        }
    }

    pub(super) fn check_target(
        &self,
        schema: &DatasetSchema,
        plan: Option<&Plan>,
        pointer: &str,
        v: &mut Violations,
    ) {
        let expected = if self.is_autoencoder() {
            self.check_autoencoder(pointer, v);
            Some(schema.shape.clone())
        } else {
            self.expected_output(schema, pointer, v)
        };
        let Some(expected) = expected else { return };
        self.check_logits(pointer, v);
        let several = shapes::size(&expected) > 1;
        let at = format!("{pointer}/loss");
        v.check(
            several || !self.loss.needs_several(),
            &at,
            "target_mismatch",
            || "this loss compares several values, but the target is one number".to_owned(),
        );
        let Some(plan) = plan else { return };
        if plan.output() != expected {
            let last = plan.layers.len().saturating_sub(1);
            let name = plan.layers.last().map_or("", |l| l.name.as_str());
            let (got, wanted) = (shapes::show(plan.output()), shapes::show(&expected));
            v.push(
                format!("{pointer}/network/layers/{last}"),
                "shape_mismatch",
                format!("the last layer {name:?} yields {got}, but the target needs {wanted}"),
            );
        }
    }

    /// Returns the output that the dataset's target needs, unless loss and target do not fit.
    fn expected_output(
        &self,
        schema: &DatasetSchema,
        pointer: &str,
        v: &mut Violations,
    ) -> Option<Vec<usize>> {
        let at = format!("{pointer}/loss");
        let Some(target) = &schema.target else {
            v.push(
                format!("{pointer}/dataset"),
                "no_target",
                "the dataset has no label to learn; only task \"autoencoding\" needs none",
            );
            return None;
        };
        self.check_task(target, pointer, v);
        match (target, self.loss.kind()) {
            (TargetSchema::Class { classes, .. }, LossKind::Binary) => {
                v.check(classes.len() == 2, &at, "target_mismatch", || {
                    let n = classes.len();
                    format!("binary losses need 2 classes, the dataset has {n}")
                });
                Some(vec![1])
            }
            (TargetSchema::Class { classes, .. }, LossKind::Categorical) => {
                Some(vec![classes.len()])
            }
            (TargetSchema::Value { .. }, LossKind::Numeric) => Some(vec![1]),
            (TargetSchema::Labels { labels, .. }, LossKind::Binary) => Some(vec![labels.len()]),
            (TargetSchema::Values { values, .. }, LossKind::Numeric) => Some(vec![values.len()]),
            (TargetSchema::Labels { .. }, _) => {
                v.push(
                    at,
                    "target_mismatch",
                    "several labels, each of which applies or not, need binary_crossentropy",
                );
                None
            }
            (TargetSchema::Values { .. }, _) => {
                v.push(
                    at,
                    "target_mismatch",
                    "a cross-entropy needs classes or labels, but the target is numbers; use mse",
                );
                None
            }
            (TargetSchema::Class { name, .. }, LossKind::Numeric) => {
                v.push(at, "target_mismatch", format!(
                    "this loss needs a number, but {name:?} is a class; register the dataset with target \"value\" or use a cross-entropy"
                ));
                None
            }
            (TargetSchema::Value { name }, _) => {
                v.push(at, "target_mismatch", format!(
                    "a cross-entropy needs a class, but {name:?} is a number; register the dataset with target \"class\" or use mse"
                ));
                None
            }
        }
    }

    fn check_task(&self, target: &TargetSchema, pointer: &str, v: &mut Violations) {
        let (found, needs) = match target {
            TargetSchema::Class { .. } => (Task::Classification, "\"classification\""),
            TargetSchema::Value { .. } | TargetSchema::Values { .. } => {
                (Task::Regression, "\"regression\"")
            }
            TargetSchema::Labels { .. } => (Task::MultiLabel, "\"multi_label\""),
        };
        v.check(
            self.task.is_none_or(|task| task == found),
            &format!("{pointer}/task"),
            "target_mismatch",
            || format!("the dataset's target asks for task {needs} (or \"autoencoding\")"),
        );
    }

    fn check_autoencoder(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check(
            self.loss.kind() != LossKind::Categorical,
            &at("loss"),
            "target_mismatch",
            || {
                "an autoencoder compares values with values; use mse or binary_crossentropy"
                    .to_owned()
            },
        );
        let standard = self.fit.normalization == Normalization::Standard;
        v.check(
            self.loss.kind() != LossKind::Binary || !standard,
            &at("fit/normalization"),
            "conflict",
            || "binary losses need values from 0 to 1; use \"min_max\", which \"auto\" stands for here".to_owned(),
        );
        v.check(
            !self.network.looks_up(),
            &at("network/layers"),
            "conflict",
            || "an autoencoder compares values, but an Embedding reads indices".to_owned(),
        );
    }

    fn check_logits(&self, pointer: &str, v: &mut Violations) {
        let probabilities = self.ends_in_probabilities();
        let at = format!("{pointer}/loss/from_logits");
        match self.loss.from_logits() {
            Some(true) if probabilities => v.push(
                at,
                "conflict",
                "from_logits is true, but the network ends in probabilities; drop the last activation or from_logits",
            ),
            Some(false) if !probabilities => v.push(
                at,
                "conflict",
                "from_logits is false, but the network does not end in softmax (or sigmoid, for binary_crossentropy)",
            ),
            _ => {}
        }
    }

    pub(super) fn check_metrics(&self, schema: &DatasetSchema, pointer: &str, v: &mut Violations) {
        let task = self.task(schema);
        let classes = schema.classes().or(schema.labels());
        let classes = classes.map_or(0, <[String]>::len);
        for (i, metric) in self.metrics.iter().enumerate() {
            let at = format!("{pointer}/metrics/{i}");
            let several = classes > 2;
            v.check(metric.fits(task, several), &at, "target_mismatch", || {
                let kind = match task {
                    Task::Classification if several => "one of several classes",
                    Task::Classification => "one of two classes",
                    Task::MultiLabel => "several labels",
                    Task::Regression => "a number",
                    Task::Autoencoding => "the sample itself",
                };
                format!("{} does not fit a target that is {kind}", metric.key())
            });
            let max = limits::MAX_AUC_CLASSES;
            v.check(
                *metric != (Metric::Auc {}) || classes <= max,
                &at,
                "out_of_range",
                || format!("auc is measured for up to {max} classes, not {classes}"),
            );
            if let (Metric::TopKAccuracy { k }, Some(classes)) = (metric, schema.classes()) {
                v.check(
                    (1..=classes.len()).contains(k),
                    &format!("{at}/k"),
                    "out_of_range",
                    || format!("{k} is not between 1 and the {} classes", classes.len()),
                );
            }
            v.check(
                !self.metrics[..i].contains(metric),
                &at,
                "duplicate",
                || format!("{} is listed twice", metric.key()),
            );
        }
    }

    pub(super) fn check_class_weight(
        &self,
        schema: &DatasetSchema,
        pointer: &str,
        v: &mut Violations,
    ) {
        let classification = self.task(schema) == Task::Classification;
        if let (Some(ClassWeight::ByClass(weights)), classes) =
            (&self.fit.class_weight, schema.classes())
        {
            let known = classes.unwrap_or_default();
            for class in weights.keys().filter(|c| !known.contains(c)) {
                let at = format!("{pointer}/fit/class_weight/{}", escape(class));
                v.push(
                    at,
                    "unknown_value",
                    format!("{class:?} is no class of the dataset"),
                );
            }
        }
        let stratified = self.fit.split.by == SplitBy::Stratified;
        for (field, given) in [
            ("class_balance", self.fit.class_balance.is_some()),
            ("split/by", stratified),
        ] {
            let at = format!("{pointer}/fit/{field}");
            v.check(!given || classification, &at, "conflict", || {
                "it needs a target that is a class".to_owned()
            });
        }
        v.check(
            self.fit.class_weight.is_none() || classification,
            &format!("{pointer}/fit/class_weight"),
            "conflict",
            || "class_weight needs a target that is a class".to_owned(),
        );
    }
}
