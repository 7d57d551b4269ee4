//! Finds out what several labels a sample are: zeros and ones, or numbers.

use nereid_core::{
    datasets::{TargetKind, TargetSchema},
    engine::EngineError,
};

use super::Target;
use crate::data::bytes::Place;

/// Collects the labels of all rows in one pass.
pub(in crate::data) struct ManyLabels {
    name: String,
    /// Names of the labels.
    names: Vec<String>,
    rows: u64,
    /// Rows that have each label, as long as all are 0 or 1.
    counts: Vec<u64>,
    /// The first that is neither 0 nor 1, with its row and its place in there.
    first_other: Option<(u64, usize, f32)>,
}

impl ManyLabels {
    pub(in crate::data) fn new(name: String, names: Vec<String>) -> Self {
        Self {
            name,
            rows: 0,
            counts: vec![0; names.len()],
            names,
            first_other: None,
        }
    }

    pub(in crate::data) fn push(&mut self, labels: &[f32]) {
        let row = self.rows;
        self.rows += 1;
        for (i, (count, &label)) in self.counts.iter_mut().zip(labels).enumerate() {
            if is_on(label) == Some(true) {
                *count += 1;
            } else if is_on(label).is_none() && self.first_other.is_none() {
                self.first_other = Some((row, i, label));
            }
        }
    }

    /// Decides as the client declared, else by whether all are 0 or 1.
    pub(in crate::data) fn finish(
        self,
        declared: Option<TargetKind>,
        place: &Place,
    ) -> Result<Target, EngineError> {
        let numbers = declared == Some(TargetKind::Value);
        match self.first_other {
            Some((row, i, other)) if declared == Some(TargetKind::Class) => {
                let detail = format!("{other} is neither 0 nor 1, as each of several labels is");
                let column = self.names.get(i).map(String::as_str);
                Err(place.fault_at("not_a_label", Some(row), column, detail))
            }
            None if !numbers => Ok(Target {
                schema: TargetSchema::Labels {
                    labels: self.names,
                    name: self.name,
                },
                class_counts: Some(self.counts),
                statistics: None,
            }),
            _ => Ok(Target {
                schema: TargetSchema::Values {
                    values: self.names,
                    name: self.name,
                },
                class_counts: None,
                statistics: None,
            }),
        }
    }
}

/// Reads a label; `None` if it is neither 0 nor 1.
pub(in crate::data) fn is_on(label: f32) -> Option<bool> {
    let one = label.to_bits() == 1.0_f32.to_bits();
    (one || label == 0.0).then_some(one)
}
