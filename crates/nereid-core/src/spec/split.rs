//! How rows are held out, and how often those of each class are trained on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    datasets::{DatasetSchema, TargetSchema},
    validation::Violations,
};

/// How validation and test rows are chosen; how many is for `validation_split` and `test_split`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Method.
    pub by: SplitBy,
    /// Column of a table by which `time`, `group` and `given` go. It is no feature: it has to be
    /// declared as `ignore` when the dataset is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub column: Option<String>,
}

/// A method of choosing held-out rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// At random, by `seed`.
    #[default]
    Random,
    /// At random with the share of each class, up to rounding, in each part.
    Stratified,
    /// In the order of the column, numbers by value and others as text (ISO 8601 sorts well), or
    /// without one in the order of the data: the last rows are for testing, those before them to
    /// validate.
    Time,
    /// At random, but rows with the same value of the column stay together; parts are as large as
    /// asked for as far as groups allow.
    Group,
    /// As the column says: `train`, `validation` or `test`.
    Given,
}

impl Split {
    /// Tells whether the spec leaves the method as it is.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Records what shows without the dataset; `held_out` is the share of the rows asked for.
    pub fn check(&self, held_out: f64, pointer: &str, v: &mut Violations) {
        let at = format!("{pointer}/column");
        let given = self.by == SplitBy::Given;
        v.check(
            self.is_default() || given || held_out > 0.0,
            pointer,
            "conflict",
            || "split needs a validation_split or test_split above 0".to_owned(),
        );
        v.check(!given || held_out == 0.0, pointer, "conflict", || {
            "the column says which rows are held out; leave validation_split and test_split out"
                .to_owned()
        });
        match (&self.column, self.by) {
            (None, SplitBy::Group | SplitBy::Given) => {
                v.push(at, "missing", "a split by group or as given needs a column");
            }
            (Some(_), SplitBy::Random | SplitBy::Stratified) => {
                v.push(
                    at,
                    "conflict",
                    "a random or stratified split goes by no column",
                );
            }
            (Some(name), _) => v.check((1..=256).contains(&name.len()), &at, "too_long", || {
                format!("{} bytes are not between 1 and 256", name.len())
            }),
            (None, _) => {}
        }
    }

    /// Records what does not fit a dataset.
    pub fn check_column(&self, schema: &DatasetSchema, pointer: &str, v: &mut Violations) {
        let Some(name) = &self.column else { return };
        let at = format!("{pointer}/column");
        let Some(columns) = &schema.columns else {
            v.push(at, "conflict", "the dataset is no table with columns");
            return;
        };
        let label = match &schema.target {
            Some(TargetSchema::Class { name, .. } | TargetSchema::Value { name }) => Some(name),
            _ => None,
        };
        v.check(label != Some(name), &at, "conflict", || {
            format!("{name:?} is the label")
        });
        v.check(!columns.contains(name), &at, "conflict", || {
            format!(
                "{name:?} is a feature; register the dataset with columns {{{name:?}: {{\"kind\": \"ignore\"}}}}, so that nothing is learnt from it"
            )
        });
    }
}

/// How rare classes are made as frequent as others by sampling, anew in each epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassBalance {
    /// Rows of rarer classes are repeated until each class has as many as the largest.
    Oversample,
    /// Of each class as many rows are drawn as the smallest has.
    Undersample,
}
