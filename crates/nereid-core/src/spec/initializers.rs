//! Initial values of weights, by Keras' names (<https://keras.io/api/layers/initializers/>).

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::Value;
use utoipa::ToSchema;

use super::shapes::LayerError;
use crate::limits;

const fn small() -> f64 {
    0.05
}
const fn minus_small() -> f64 {
    -0.05
}
const fn one() -> f64 {
    1.0
}

/// Which fan a [`Initializer::VarianceScaling`] divides by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FanMode {
    /// Inputs of one output.
    #[default]
    FanIn,
    /// Outputs that one input reaches.
    FanOut,
    /// The mean of both.
    FanAvg,
}

/// From which distribution a [`Initializer::VarianceScaling`] draws.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Normal, drawn anew beyond two standard deviations.
    #[default]
    TruncatedNormal,
    /// Normal.
    UntruncatedNormal,
    /// Uniform.
    Uniform,
}

/// How a weight starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Initializer {
    /// All 0.
    Zeros {},
    /// All 1.
    Ones {},
    /// All the same.
    Constant {
        /// The value.
        #[serde(default)]
        value: f64,
    },
    /// Normal.
    #[serde(alias = "normal")]
    RandomNormal {
        /// Mean.
        #[serde(default)]
        mean: f64,
        /// Standard deviation.
        #[serde(default = "small")]
        stddev: f64,
    },
    /// Uniform between two bounds.
    #[serde(alias = "uniform")]
    RandomUniform {
        /// Lower bound.
        #[serde(default = "minus_small")]
        minval: f64,
        /// Upper bound.
        #[serde(default = "small")]
        maxval: f64,
    },
    /// Normal, drawn anew beyond two standard deviations.
    TruncatedNormal {
        /// Mean.
        #[serde(default)]
        mean: f64,
        /// Standard deviation.
        #[serde(default = "small")]
        stddev: f64,
    },
    /// Uniform within `sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, 2010).
    GlorotUniform {},
    /// Truncated normal of variance `2 / (fan_in + fan_out)`.
    GlorotNormal {},
    /// Uniform within `sqrt(6 / fan_in)` (He et al., 2015).
    HeUniform {},
    /// Truncated normal of variance `2 / fan_in`.
    HeNormal {},
    /// Uniform within `sqrt(3 / fan_in)` (Klambauer et al., 2017).
    LecunUniform {},
    /// Truncated normal of variance `1 / fan_in`.
    LecunNormal {},
    /// A variance of `scale / fan`.
    VarianceScaling {
        /// Factor of the variance.
        #[serde(default = "one")]
        scale: f64,
        /// Which fan.
        #[serde(default)]
        mode: FanMode,
        /// From which distribution.
        #[serde(default)]
        distribution: Distribution,
    },
    /// Orthogonal columns, or rows if there are fewer (Saxe et al., 2013).
    Orthogonal {
        /// Factor of the matrix.
        #[serde(default = "one")]
        gain: f64,
    },
    /// PyTorch's default of most layers: uniform within `1 / sqrt(fan_in)`, of biases with their
    /// kernel's fan; of recurrent layers within `1 / sqrt(units)`.
    PytorchUniform {},
}

/// How an initialiser is written: its name, or an object with its parameters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InitializerForm {
    /// Its name, with default parameters.
    Name(String),
    /// With parameters.
    Full(Initializer),
}

/// Reads an initialiser that may be no more than a name.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Initializer>, D::Error> {
    let value = match Option::<Value>::deserialize(deserializer)? {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => serde_json::json!({ "type": name }),
        Some(other) => other,
    };
    serde_json::from_value(value)
        .map(Some)
        .map_err(|e| D::Error::custom(format!("no initializer: {e}")))
}

impl Initializer {
    pub(crate) const ZEROS: Self = Self::Zeros {};
    pub(crate) const ONES: Self = Self::Ones {};
    pub(crate) const GLOROT: Self = Self::GlorotUniform {};
    pub(crate) const ORTHOGONAL: Self = Self::Orthogonal { gain: 1.0 };
    pub(crate) const UNIFORM: Self = Self::RandomUniform {
        minval: -0.05,
        maxval: 0.05,
    };
    pub(crate) const STANDARD_NORMAL: Self = Self::RandomNormal {
        mean: 0.0,
        stddev: 1.0,
    };

    /// Checks the parameters.
    pub(crate) fn check(&self, field: &'static str, errors: &mut Vec<LayerError>) {
        let max = limits::MAX_INITIAL_VALUE;
        let mut check = |name: &str, value: f64, inside: bool, range: &str| {
            if !inside {
                let detail = format!("{name} {value} is not {range}");
                errors.push(LayerError::range(field, detail));
            }
        };
        let bounded = |v: f64| v.abs() <= max;
        let range = format!("between -{max} and {max}");
        match *self {
            Self::Constant { value } => check("value", value, bounded(value), &range),
            Self::RandomNormal { mean, stddev } | Self::TruncatedNormal { mean, stddev } => {
                check("mean", mean, bounded(mean), &range);
                let inside = (0.0..=max).contains(&stddev);
                check("stddev", stddev, inside, &format!("between 0 and {max}"));
            }
            Self::RandomUniform { minval, maxval } => {
                check("minval", minval, bounded(minval), &range);
                check("maxval", maxval, bounded(maxval), &range);
                check(
                    "minval",
                    minval,
                    minval <= maxval,
                    &format!("at most maxval, {maxval}"),
                );
            }
            Self::VarianceScaling { scale, .. } => {
                let inside = scale > 0.0 && scale <= max;
                check(
                    "scale",
                    scale,
                    inside,
                    &format!("above 0 and at most {max}"),
                );
            }
            Self::Orthogonal { gain } => check("gain", gain, bounded(gain), &range),
            _ => {}
        }
    }
}
