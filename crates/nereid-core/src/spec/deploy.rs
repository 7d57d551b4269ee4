//! The spec of a deployment job: optimise a version and put it behind an endpoint.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Name,
    autoscaling::Autoscaling,
    batching::{Batching, VariantSettings},
    endpoints::read_rollout,
    limits,
    models::{Alias, Runtime, check_one_of},
    rollouts::Rollout,
    validation::{ObjectReader, Violations, parse},
};

/// In what form weights are stored for serving; all are computed with in 32 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightFormat {
    /// As trained.
    #[default]
    Float32,
    /// Half the size.
    Float16,
    /// A quarter of the size: 8-bit integers with a scale for each output channel.
    Int8,
}

/// How far an optimised model may stray from the original on the held-out sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// Least share of samples with the same most likely class: 0.999, or 0.995 for `int8` weights.
    #[schema(minimum = 0, maximum = 1)]
    pub agreement: f64,
    /// Largest difference of any output, of numbers beyond 1 relative to them: 0.001, or 0.02 for
    /// `float16` and 0.5 for `int8` weights.
    #[schema(minimum = 0)]
    pub max_difference: f64,
    /// Most that a metric may lose, in points (hundredths of the accuracy, or of the standard
    /// deviation of what is to be predicted): 0.1, or 0.5 for `int8` weights.
    #[schema(minimum = 0)]
    pub metric_loss: f64,
}

impl Tolerance {
    /// Returns the default for a form of weights.
    #[must_use]
    pub fn of(weights: WeightFormat) -> Self {
        let (agreement, max_difference, metric_loss) = match weights {
            WeightFormat::Float32 => (0.999, 1e-3, 0.1),
            WeightFormat::Float16 => (0.999, 0.02, 0.1),
            WeightFormat::Int8 => (0.995, 0.5, 0.5),
        };
        Self {
            agreement,
            max_difference,
            metric_loss,
        }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::of(WeightFormat::Float32)
    }
}

/// A tolerance as a client gives it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    agreement: Option<f64>,
    max_difference: Option<f64>,
    metric_loss: Option<f64>,
}

impl Given {
    fn or(self, default: Tolerance) -> Tolerance {
        Tolerance {
            agreement: self.agreement.unwrap_or(default.agreement),
            max_difference: self.max_difference.unwrap_or(default.max_difference),
            metric_loss: self.metric_loss.unwrap_or(default.metric_loss),
        }
    }
}

/// What to deploy and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeploySpec {
    /// Name of the model.
    pub model: Name,
    /// Version to deploy.
    #[schema(minimum = 1)]
    pub version: u32,
    /// Alias that names the version until submission writes its number, 0 before, in its place.
    #[serde(skip)]
    pub alias: Option<Alias>,
    /// Endpoint to create or update; named like the model unless given.
    pub endpoint: Name,
    /// Copies to keep loaded.
    #[schema(minimum = 1, maximum = 64)]
    pub replicas: u32,
    /// How far optimisation may stray.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// How the replicas form batches of the requests that wait for them.
    #[serde(default)]
    pub batching: Batching,
    /// Sends a request that is not answered after so many microseconds to a second replica, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 60_000_000)]
    pub hedge_after_us: Option<u32>,
    /// Chooses the number of replicas by the load; `replicas` is then what it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How traffic goes over to the version.
    #[serde(default)]
    pub rollout: Rollout,
    /// In what form weights are stored.
    #[serde(default)]
    pub weights: WeightFormat,
    /// What computes the model; the fastest on the worker that deploys it unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
}

impl DeploySpec {
    /// Returns how the endpoint's variant serves.
    #[must_use]
    pub fn settings(&self) -> VariantSettings {
        VariantSettings {
            batching: self.batching.clone(),
            hedge_after_us: self.hedge_after_us,
            autoscaling: self.autoscaling.clone(),
        }
    }

    /// Reads a spec, recording every mistake.
    pub fn read(value: Value, pointer: &str, violations: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, pointer, violations)?;
        let model: Option<Name> = r.required("model");
        let version: Option<Option<u32>> = r.optional_with("version", parse);
        let alias: Option<Option<Alias>> = r.optional_with("alias", parse);
        let endpoint = r.optional("endpoint").or_else(|| model.clone());
        let replicas: u32 = r.optional("replicas").unwrap_or(1);
        let settings = VariantSettings {
            batching: r.optional("batching").unwrap_or_default(),
            hedge_after_us: r.optional("hedge_after_us"),
            autoscaling: r.optional("autoscaling"),
        };
        let rollout = read_rollout(&mut r);
        let weights: WeightFormat = r.optional("weights").unwrap_or_default();
        let runtime: Option<Runtime> = r.optional("runtime");
        let given: Given = r.optional("tolerance").unwrap_or_default();
        let tolerance = given.or(Tolerance::of(weights));
        let v = r.violations();
        if let (Some(version), Some(alias)) = (version, &alias) {
            check_one_of(version, alias.as_ref(), true, pointer, v);
        }
        v.check_range(
            &format!("{pointer}/replicas"),
            replicas,
            1,
            limits::MAX_REPLICAS,
        );
        v.check_range(
            &format!("{pointer}/tolerance/agreement"),
            tolerance.agreement,
            0.0,
            1.0,
        );
        v.check_range(
            &format!("{pointer}/tolerance/max_difference"),
            tolerance.max_difference,
            0.0,
            1e6,
        );
        settings.check(pointer, v);
        v.check_range(
            &format!("{pointer}/tolerance/metric_loss"),
            tolerance.metric_loss,
            0.0,
            100.0,
        );
        r.finish();
        Some(Self {
            model: model?,
            version: version?.unwrap_or_default(),
            alias: alias?,
            endpoint: endpoint?,
            replicas,
            tolerance,
            batching: settings.batching,
            hedge_after_us: settings.hedge_after_us,
            autoscaling: settings.autoscaling,
            rollout,
            weights,
            runtime,
        })
    }
}
