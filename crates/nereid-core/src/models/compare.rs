//! Comparison of versions: what differs between them, side by side.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Alias, ApprovalStatus, ModelVersion, OptimisationReport};
use crate::{Name, limits, validation::escape};

/// Versions of a model side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// Name of the model.
    pub model: Name,
    /// The versions, in the order asked for; all other lists follow it.
    pub versions: Vec<ComparedVersion>,
    /// All final metrics that any of them has.
    pub metrics: Vec<ComparedMetric>,
    /// Where their specs differ.
    pub spec: Vec<Difference>,
    /// Where their signatures differ.
    pub signature: Vec<Difference>,
    /// Whether there are more differences than are listed.
    pub truncated: bool,
}

/// What a version is besides its metrics, spec and signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparedVersion {
    /// Number.
    pub version: u32,
    /// Aliases that point to it.
    pub aliases: Vec<Alias>,
    /// Whether it was found fit to serve.
    pub approval: ApprovalStatus,
    /// Training data.
    pub dataset: Name,
    /// Version of the training data.
    pub dataset_version: u32,
    /// SHA-256 of the training data's declaration and bytes.
    pub dataset_digest: String,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// What making it fit for serving did and measured; absent until first deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<OptimisationReport>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
}

/// A metric of several versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparedMetric {
    /// Its name.
    pub name: String,
    /// Its value in each version that has it.
    pub values: Vec<MetricOfVersion>,
}

/// A metric of a version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricOfVersion {
    /// Number of the version.
    pub version: u32,
    /// The metric.
    pub value: f64,
}

/// A place at which documents differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// JSON pointer (RFC 6901) to the place.
    #[schema(example = "/fit/epochs")]
    pub pointer: String,
    /// What each version that has something has there.
    pub values: Vec<ValueOfVersion>,
}

/// What a version's document holds at some place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ValueOfVersion {
    /// Number of the version.
    pub version: u32,
    /// Any JSON value.
    pub value: Value,
}

impl Comparison {
    /// Compares versions of `model`.
    ///
    /// # Errors
    /// None in practice: specs and signatures can always be written as JSON.
    pub fn of(model: Name, versions: &[ModelVersion]) -> Result<Self, serde_json::Error> {
        let numbers: Vec<u32> = versions.iter().map(|v| v.version).collect();
        let mut differences = Differences {
            versions: &numbers,
            left: limits::MAX_DIFFERENCES,
            truncated: false,
        };
        let specs = versions.iter().map(|v| serde_json::to_value(&v.spec));
        let spec = differences.between(&specs.collect::<Result<Vec<_>, _>>()?);
        let signatures = versions.iter().map(|v| serde_json::to_value(&v.signature));
        let signature = differences.between(&signatures.collect::<Result<Vec<_>, _>>()?);
        Ok(Self {
            model,
            versions: versions.iter().map(compared).collect(),
            metrics: metrics(versions),
            spec,
            signature,
            truncated: differences.truncated,
        })
    }
}

fn compared(v: &ModelVersion) -> ComparedVersion {
    ComparedVersion {
        version: v.version,
        aliases: v.aliases.clone(),
        approval: v.approval.status,
        dataset: v.lineage.dataset.clone(),
        dataset_version: v.lineage.dataset_version,
        dataset_digest: v.lineage.dataset_digest.clone(),
        bytes: v.bytes,
        serving: v.serving.as_ref().map(|s| s.report.clone()),
        created_at: v.created_at,
    }
}

fn metrics(versions: &[ModelVersion]) -> Vec<ComparedMetric> {
    let names: BTreeSet<_> = versions.iter().flat_map(|v| v.metrics.keys()).collect();
    let of = |name: &String| {
        let values = versions.iter().filter_map(|v| {
            let value = *v.metrics.get(name)?;
            Some(MetricOfVersion {
                version: v.version,
                value,
            })
        });
        ComparedMetric {
            name: name.clone(),
            values: values.collect(),
        }
    };
    names.into_iter().map(of).collect()
}

/// Finds differences until there are too many.
struct Differences<'a> {
    versions: &'a [u32],
    left: usize,
    truncated: bool,
}

impl Differences<'_> {
    fn between(&mut self, documents: &[Value]) -> Vec<Difference> {
        let mut found = Vec::new();
        let documents: Vec<_> = documents.iter().map(Some).collect();
        self.walk(&documents, "", &mut found);
        found
    }

    /// Goes down as long as all have an object, or all an array, at the place.
    fn walk(&mut self, values: &[Option<&Value>], pointer: &str, found: &mut Vec<Difference>) {
        if values.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        let objects: Option<Vec<_>> = values
            .iter()
            .map(|v| v.and_then(Value::as_object))
            .collect();
        if let Some(objects) = objects {
            let keys: BTreeSet<_> = objects.iter().flat_map(|o| o.keys()).collect();
            for key in keys {
                let below: Vec<_> = objects.iter().map(|o| o.get(key)).collect();
                self.walk(&below, &format!("{pointer}/{}", escape(key)), found);
            }
            return;
        }
        let arrays: Option<Vec<_>> = values.iter().map(|v| v.and_then(Value::as_array)).collect();
        if let Some(arrays) = arrays {
            let longest = arrays.iter().map(|a| a.len()).max().unwrap_or(0);
            for i in 0..longest {
                let below: Vec<_> = arrays.iter().map(|a| a.get(i)).collect();
                self.walk(&below, &format!("{pointer}/{i}"), found);
                if self.truncated {
                    return;
                }
            }
            return;
        }
        if self.left == 0 {
            self.truncated = true;
            return;
        }
        self.left -= 1;
        let held = self.versions.iter().zip(values);
        let held = held.filter_map(|(&version, value)| {
            let value = (*value)?.clone();
            Some(ValueOfVersion { version, value })
        });
        found.push(Difference {
            pointer: pointer.to_owned(),
            values: held.collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between(documents: &[Value]) -> (Vec<(String, Value)>, bool) {
        let versions: Vec<u32> = (1..).take(documents.len()).collect();
        let mut differences = Differences {
            versions: &versions,
            left: limits::MAX_DIFFERENCES,
            truncated: false,
        };
        let found = differences.between(documents);
        let shown = found.into_iter().map(|d| {
            let values = d.values.into_iter().map(|v| json!([v.version, v.value]));
            (d.pointer, values.collect())
        });
        (shown.collect(), differences.truncated)
    }

    #[test]
    fn says_where_and_what_each_has_there() {
        let (found, truncated) = between(&[
            json!({"fit": {"epochs": 3, "a/b": 1}, "layers": [{"units": 8}, {"type": "x"}], "same": [1]}),
            json!({"fit": {"epochs": 5, "a/b": 1}, "layers": [{"units": 8}], "same": [1]}),
            json!({"fit": {"epochs": 3}, "layers": [{"units": 9}, {"type": "x"}], "same": [1]}),
        ]);
        let expected = [
            ("/fit/a~1b", json!([[1, 1], [2, 1]])),
            ("/fit/epochs", json!([[1, 3], [2, 5], [3, 3]])),
            ("/layers/0/units", json!([[1, 8], [2, 8], [3, 9]])),
            ("/layers/1", json!([[1, {"type": "x"}], [3, {"type": "x"}]])),
        ];
        let expected = expected.map(|(pointer, values)| (pointer.to_owned(), values));
        assert_eq!((found.as_slice(), truncated), (expected.as_slice(), false));
        assert!(between(&[json!({"a": 1}), json!({"a": 1})]).0.is_empty());
    }

    #[test]
    fn an_answer_stays_small() {
        let (ones, twos) = (vec![1; 5000], vec![2; 5000]);
        let (found, truncated) = between(&[json!(ones), json!(twos)]);
        assert_eq!((found.len(), truncated), (limits::MAX_DIFFERENCES, true));
    }
}
