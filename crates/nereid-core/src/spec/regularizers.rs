//! Penalties on weights, by Keras' names (<https://keras.io/api/layers/regularizers/>).

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;
use utoipa::ToSchema;

use super::shapes::LayerError;
use crate::limits;

const fn usual() -> f64 {
    0.01
}

/// What is added to the loss for a weight `w`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Regularizer {
    /// `l1 · Σ|w|`.
    L1 {
        /// Factor of the sum of absolute values.
        #[serde(default = "usual")]
        l1: f64,
    },
    /// `l2 · Σw²`.
    L2 {
        /// Factor of the sum of squares.
        #[serde(default = "usual")]
        l2: f64,
    },
    /// `l1 · Σ|w| + l2 · Σw²`.
    #[serde(rename = "l1_l2")]
    L1L2 {
        /// Factor of the sum of absolute values.
        #[serde(default)]
        l1: f64,
        /// Factor of the sum of squares.
        #[serde(default)]
        l2: f64,
    },
}

/// How a penalty is written: its name, or an object with its parameters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RegularizerForm {
    /// Its name, with default parameters.
    Name(String),
    /// With parameters.
    Full(Regularizer),
}

/// Reads a penalty that may be no more than a name.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Regularizer>, D::Error> {
    let value = match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => serde_json::json!({ "type": name }),
        Some(other) => other,
    };
    serde_json::from_value(value)
        .map(Some)
        .map_err(|e| D::Error::custom(format!("no regularizer: {e}")))
}

impl Regularizer {
    /// Returns the factors of the sum of absolute values and of the sum of squares.
    #[must_use]
    pub fn factors(self) -> [f64; 2] {
        match self {
            Self::L1 { l1 } => [l1, 0.0],
            Self::L2 { l2 } => [0.0, l2],
            Self::L1L2 { l1, l2 } => [l1, l2],
        }
    }

    /// Checks the parameters.
    pub(crate) fn check(self, field: &'static str, errors: &mut Vec<LayerError>) {
        let max = limits::MAX_REGULARIZATION;
        for (name, factor) in ["l1", "l2"].into_iter().zip(self.factors()) {
            if !(0.0..=max).contains(&factor) {
                let detail = format!("{name} {factor} is not between 0 and {max}");
                errors.push(LayerError::range(field, detail));
            }
        }
    }
}
