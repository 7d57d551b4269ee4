//! Options of the training loop, as of Keras' `fit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    augmentation::{self, Augmentation},
    finetune::{self, Lora},
    patterns::{self, Pattern, Patterns},
    precision::{self, DtypePolicy, LossScale},
    schedule::Auto,
    split::{ClassBalance, Split},
};
use crate::{limits, validation::Violations};

/// How features are scaled before training, and in the same way when serving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// `standard` for tables, `min_max` for images, `none` before an Embedding.
    #[default]
    Auto,
    /// To mean 0 and variance 1, from the training split.
    Standard,
    /// To 0…1, from the training split.
    MinMax,
    /// As they are.
    None,
}

/// Weight of each class in the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ClassWeight {
    /// `"balanced"`: `rows / (classes × rows of the class)`, as scikit-learn has it.
    Balanced(BalancedWeight),
    /// By class name; classes not named weigh 1.
    ByClass(BTreeMap<String, f64>),
}

/// The word `balanced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancedWeight {
    /// Inverse to the class frequencies.
    Balanced,
}

/// Stands for `"auto"` in [`FitOptions::batch_size`].
pub const AUTO_BATCH_SIZE: u32 = u32::MAX;

/// Samples per step, as written in a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum BatchSize {
    /// So many, from 1 to 65,536.
    Samples(u64),
    /// Found before training by measuring.
    Auto(Auto),
}

mod batch_size {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{AUTO_BATCH_SIZE, Auto, BatchSize};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn serialize<S: Serializer>(size: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        match *size {
            AUTO_BATCH_SIZE => BatchSize::Auto(Auto::Auto).serialize(serializer),
            size => size.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let read = BatchSize::deserialize(deserializer);
        match read.map_err(|_| D::Error::custom("expected a whole number from 1 or \"auto\""))? {
            BatchSize::Auto(_) => Ok(AUTO_BATCH_SIZE),
            // What is too large stays so, to be refused with its limit.
            BatchSize::Samples(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX).min(u32::MAX - 1)),
        }
    }
}

/// Options of the training loop, as of Keras' `fit` and optimiser arguments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FitOptions {
    /// Passes over the training data.
    #[schema(minimum = 1, maximum = 100_000)]
    pub epochs: u32,
    /// Samples per step; [`AUTO_BATCH_SIZE`] until one is found.
    #[serde(with = "batch_size")]
    #[schema(value_type = BatchSize)]
    pub batch_size: u32,
    /// Share of the rows held out to validate after each epoch, drawn by `seed`.
    #[schema(minimum = 0, maximum = 0.9)]
    pub validation_split: f64,
    /// Share of the rows held out to the end for the final evaluation, drawn by `seed`.
    #[schema(minimum = 0, maximum = 0.9)]
    pub test_split: f64,
    /// How those rows are chosen.
    #[serde(skip_serializing_if = "Split::is_default")]
    pub split: Split,
    /// Whether rows are reordered in each epoch.
    pub shuffle: bool,
    /// Rows of the window through which training data is shuffled in the order in which it lies
    /// in its files, as by `tf.data`'s `shuffle`: then data larger than the worker's disk is
    /// streamed. Unless given, all rows are shuffled at once, above 1 GiB of decoded data in blocks
    /// of neighbours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000_000)]
    pub shuffle_buffer: Option<u32>,
    /// Seed of splits, initial weights, order and dropout.
    pub seed: u64,
    /// Weight of each class in the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weight: Option<ClassWeight>,
    /// How training rows are sampled so that each class is as frequent as the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_balance: Option<ClassBalance>,
    /// Largest norm of each weight's gradient; longer ones are scaled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipnorm: Option<f64>,
    /// Largest absolute value of a gradient entry; others are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipvalue: Option<f64>,
    /// Largest norm of all gradients together; longer ones are scaled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_clipnorm: Option<f64>,
    /// Batches whose gradients are averaged before the weights change once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 2, maximum = 65_536)]
    pub gradient_accumulation_steps: Option<u32>,
    /// Whether a moving average of the weights is kept; it is validated, evaluated and published.
    #[serde(skip_serializing_if = "is_false")]
    pub use_ema: bool,
    /// Share of the moving average that each step keeps; 0.99 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_momentum: Option<f64>,
    /// Steps after which the weights themselves become their average; never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_overwrite_frequency: Option<u32>,
    /// Factors on the learning rate by weights, such as `{"conv*": 0.1}`; of several that fit a
    /// weight, the product, and 0 keeps it as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, f64>, example = json!({"conv*": 0.1}))]
    pub learning_rate_multipliers: BTreeMap<Pattern, f64>,
    /// Whether layers are trained, by name, such as `{"*": false, "predictions": true}`; all are
    /// unless given. Of several patterns that fit a layer the longest decides. A layer that is not
    /// trained has no gradients and does not decay, and a `BatchNormalization` uses its moving
    /// statistics and leaves them as they are, as in Keras.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bool>, example = json!({"conv*": false}))]
    pub trainable: BTreeMap<Pattern, bool>,
    /// Low-rank adaptation of what `initialize_from` takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Weights that the optimiser's `weight_decay` spares; `[]` spares none. Unless given, biases
    /// and the scales and offsets of normalisations, but with `adamw` none, as in Keras.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, max_items = 64, example = json!(["*/bias"]))]
    pub exclude_from_weight_decay: Option<Patterns>,
    /// In which numbers layers are computed while training; validation and serving compute in 32
    /// bits.
    #[serde(skip_serializing_if = "DtypePolicy::is_default")]
    pub dtype_policy: DtypePolicy,
    /// How losses are scaled where layers are computed in 16 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// How features are scaled.
    pub normalization: Normalization,
    /// Steps between metric points; a twentieth of an epoch unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub report_every_steps: Option<u32>,
    /// Random changes of training samples, in this order; never when validating or serving.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub augmentation: Vec<Augmentation>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            batch_size: 32,
            validation_split: 0.0,
            test_split: 0.0,
            split: Split::default(),
            shuffle: true,
            shuffle_buffer: None,
            seed: 0,
            class_weight: None,
            class_balance: None,
            clipnorm: None,
            clipvalue: None,
            global_clipnorm: None,
            gradient_accumulation_steps: None,
            use_ema: false,
            ema_momentum: None,
            ema_overwrite_frequency: None,
            learning_rate_multipliers: BTreeMap::new(),
            trainable: BTreeMap::new(),
            lora: None,
            exclude_from_weight_decay: None,
            dtype_policy: DtypePolicy::default(),
            loss_scale: None,
            normalization: Normalization::Auto,
            report_every_steps: None,
            augmentation: Vec::new(),
        }
    }
}

impl FitOptions {
    /// Records every option outside its range.
    pub fn check(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        v.check_range(&at("epochs"), self.epochs, 1, limits::MAX_EPOCHS);
        if self.batch_size != AUTO_BATCH_SIZE {
            let (size, most) = (self.batch_size, limits::MAX_BATCH_SIZE);
            v.check_range(&at("batch_size"), size, 1, most);
        }
        v.check_range(&at("validation_split"), self.validation_split, 0.0, 0.9);
        v.check_range(&at("test_split"), self.test_split, 0.0, 0.9);
        let held_out = self.validation_split + self.test_split;
        v.check(held_out <= 0.95, &at("test_split"), "out_of_range", || {
            format!("validation_split and test_split hold out {held_out} of the rows, above 0.95")
        });
        if let Some(rows) = self.shuffle_buffer {
            let at = at("shuffle_buffer");
            v.check_range(&at, rows, 1, limits::MAX_SHUFFLE_BUFFER);
            v.check(self.shuffle, &at, "conflict", || {
                "shuffle_buffer needs shuffle, which is false".to_owned()
            });
        }
        self.check_gradients(pointer, v);
        finetune::check_trainable(&self.trainable, &at("trainable"), v);
        if let Some(lora) = &self.lora {
            lora.check(&at("lora"), v);
        }
        precision::check(self.dtype_policy, self.loss_scale, pointer, v);
        let every = self.report_every_steps.unwrap_or(1);
        v.check_range(&at("report_every_steps"), every, 1, 1_000_000_000);
        self.split.check(held_out, &at("split"), v);
        let weighted = matches!(self.class_weight, Some(ClassWeight::Balanced(_)));
        v.check(
            self.class_balance.is_none() || !weighted,
            &at("class_balance"),
            "conflict",
            || "class_balance and class_weight \"balanced\" exclude each other".to_owned(),
        );
        let (n, most) = (self.augmentation.len(), limits::MAX_AUGMENTATIONS);
        v.check(n <= most, &at("augmentation"), "too_many", || {
            format!("{n} items are more than the {most} allowed")
        });
        augmentation::check(&self.augmentation, &at("augmentation"), v);
        if let Some(ClassWeight::ByClass(weights)) = &self.class_weight {
            for (class, weight) in weights {
                let class = crate::validation::escape(class);
                v.check_range(&at(&format!("class_weight/{class}")), *weight, 0.0, 1e6);
            }
        }
    }

    /// Share of the moving average of weights that each step keeps.
    #[must_use]
    pub fn ema_momentum(&self) -> f64 {
        self.ema_momentum.unwrap_or(0.99)
    }

    /// Factor on the learning rate of a weight, named `layer/role`.
    #[must_use]
    pub fn learning_rate_multiplier(&self, weight: &str) -> f64 {
        let factors = self.learning_rate_multipliers.iter();
        let fitting = factors.filter(|(pattern, _)| pattern.matches(weight));
        fitting.map(|(_, factor)| factor).product()
    }

    fn check_gradients(&self, pointer: &str, v: &mut Violations) {
        let at = |field: &str| format!("{pointer}/{field}");
        let clips = [
            ("clipnorm", self.clipnorm),
            ("global_clipnorm", self.global_clipnorm),
            ("clipvalue", self.clipvalue),
        ];
        let mut first: Option<&str> = None;
        for (field, limit) in clips {
            let Some(limit) = limit else { continue };
            v.check_range(&at(field), limit, 1e-9, 1e9);
            if let Some(first) = first {
                let detail = format!("{field} and {first} exclude each other");
                v.push(at(field), "conflict", detail);
            }
            first = first.or(Some(field));
        }
        if let Some(steps) = self.gradient_accumulation_steps {
            let max = limits::MAX_ACCUMULATION_STEPS;
            v.check_range(&at("gradient_accumulation_steps"), steps, 2, max);
        }
        if let Some(momentum) = self.ema_momentum {
            v.check_range(&at("ema_momentum"), momentum, 0.0, 1.0);
        }
        if let Some(steps) = self.ema_overwrite_frequency {
            v.check_range(&at("ema_overwrite_frequency"), steps, 1, 1_000_000_000);
        }
        for (field, given) in [
            ("ema_momentum", self.ema_momentum.is_some()),
            (
                "ema_overwrite_frequency",
                self.ema_overwrite_frequency.is_some(),
            ),
        ] {
            v.check(!given || self.use_ema, &at(field), "conflict", || {
                format!("{field} needs use_ema: true")
            });
        }
        let factors = &self.learning_rate_multipliers;
        let (n, max) = (factors.len(), limits::MAX_PATTERNS);
        v.check(
            n <= max,
            &at("learning_rate_multipliers"),
            "too_many",
            || format!("{n} patterns are more than the {max} allowed"),
        );
        for (pattern, factor) in factors.iter().take(max) {
            let name = crate::validation::escape(&pattern.0);
            let at = at(&format!("learning_rate_multipliers/{name}"));
            pattern.check(&at, v);
            v.check_range(&at, *factor, 0.0, 1e3);
        }
        if let Some(names) = &self.exclude_from_weight_decay {
            patterns::check_all(names, &at("exclude_from_weight_decay"), v);
        }
    }
}
