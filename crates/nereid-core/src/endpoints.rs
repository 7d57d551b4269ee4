//! Inference endpoints: desired variants, their replicas, and when traffic may shift.
//!
//! An update makes a new *generation* of variants. Traffic goes to the newest generation whose
//! variants all have a ready replica; older ones are drained after that, so no request is lost.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    Name,
    autoscaling::Autoscaling,
    batching::{Batching, VariantSettings},
    ids::{EndpointId, ModelVersionId, ReplicaId, VariantId, WorkerId},
    limits,
    models::{Alias, ServingArtifact, Signature, check_one_of},
    rollouts::{Measured, Rollout, RolloutStatus},
    validation::{ObjectReader, Violations},
    words::words,
};

words! {
    /// Where an endpoint stands.
    EndpointStatus {
        /// No generation has been ready yet.
        Creating = "creating",
        /// A newer generation is getting ready; the one before serves.
        Updating = "updating",
        /// The newest generation serves.
        InService = "in_service",
        /// The newest generation cannot be loaded; the one before, if any, serves.
        Failed = "failed",
    }
}

words! {
    /// Where a replica stands.
    ReplicaStatus {
        /// Files are fetched, the model is loaded and checked.
        Loading = "loading",
        /// It answers.
        Ready = "ready",
        /// It takes no new requests.
        Draining = "draining",
        /// It could not be loaded.
        Failed = "failed",
    }
}

/// A share of an endpoint's traffic, as a client writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// Name, unique in the endpoint.
    pub name: Name,
    /// Name of the model.
    pub model: Name,
    /// Version of the model; it must have been deployed once. Always there in answers.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub version: u32,
    /// Alias that names the version in its number's place; never there in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// Share of the traffic relative to the other variants' weights.
    #[serde(default = "default_weight")]
    #[schema(minimum = 0, maximum = 1000)]
    pub weight: u32,
    /// Copies to keep loaded.
    #[serde(default = "default_replicas")]
    #[schema(minimum = 1, maximum = 64)]
    pub replicas: u32,
    /// How its replicas form batches of the requests that wait for them.
    #[serde(default)]
    pub batching: Batching,
    /// Sends a request that is not answered after so many microseconds to a second replica, too;
    /// the first answer counts. Off unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 60_000_000)]
    pub hedge_after_us: Option<u32>,
    /// Chooses the number of replicas by the load; `replicas` is then what it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

impl VariantSpec {
    /// Returns how it serves.
    #[must_use]
    pub fn settings(&self) -> VariantSettings {
        VariantSettings {
            batching: self.batching.clone(),
            hedge_after_us: self.hedge_after_us,
            autoscaling: self.autoscaling.clone(),
        }
    }
}

const fn default_weight() -> u32 {
    100
}
const fn default_replicas() -> u32 {
    1
}

/// What a client wants an endpoint to serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// Variants that share the traffic.
    #[schema(min_items = 1, max_items = 8)]
    pub variants: Vec<VariantSpec>,
    /// How traffic goes over to them.
    #[serde(default)]
    pub rollout: Rollout,
}

/// What a generation carries beside its variants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationSettings {
    /// How traffic goes over to it.
    pub rollout: Rollout,
}

impl EndpointSpec {
    /// Reads the variants out of `reader`'s object, recording every mistake.
    pub fn read(reader: &mut ObjectReader<'_>) -> Self {
        let at = reader.pointer_to("variants");
        let before = reader.violations().len();
        let variants: Vec<VariantSpec> =
            reader.list_with("variants", limits::MAX_VARIANTS, |value, at, v| {
                let named = value.get("version").is_some();
                let variant: VariantSpec = crate::validation::parse(value, at, v)?;
                let version = named.then_some(variant.version);
                check_one_of(version, variant.alias.as_ref(), true, at, v);
                v.check_range(&format!("{at}/weight"), variant.weight, 0, 1000);
                v.check_range(
                    &format!("{at}/replicas"),
                    variant.replicas,
                    1,
                    limits::MAX_REPLICAS,
                );
                variant.settings().check(at, v);
                Some(variant)
            });
        let v: &mut Violations = reader.violations();
        if variants.is_empty() && v.len() == before {
            v.push(&at, "missing", "an endpoint needs at least one variant");
        }
        for (i, variant) in variants.iter().enumerate() {
            let repeated = variants[..i].iter().any(|other| other.name == variant.name);
            v.check(!repeated, &format!("{at}/{i}/name"), "duplicate", || {
                format!("{} names another variant too", variant.name)
            });
        }
        let total: u32 = variants
            .iter()
            .map(|x| x.weight)
            .fold(0, u32::saturating_add);
        v.check(
            variants.is_empty() || total > 0,
            &at,
            "out_of_range",
            || "the weights add up to 0, so no variant would get traffic".to_owned(),
        );
        let rollout = read_rollout(reader);
        Self { variants, rollout }
    }
}

/// Reads the field `rollout` of an endpoint's or a deployment's spec.
pub(crate) fn read_rollout(reader: &mut ObjectReader<'_>) -> Rollout {
    let at = reader.pointer_to("rollout");
    let rollout: Rollout = reader.optional("rollout").unwrap_or_default();
    rollout.check(&at, reader.violations());
    rollout
}

/// A variant of an endpoint with the state of its replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Variant {
    /// What the client asked for.
    #[serde(flatten)]
    pub spec: VariantSpec,
    /// Replicas wanted now; what autoscaling chose, or `replicas`.
    pub desired_replicas: u32,
    /// Its replicas.
    pub replicas_status: Vec<Replica>,
}

/// A loaded copy of a variant's model on one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Identifier.
    pub id: ReplicaId,
    /// Worker that holds it.
    pub worker_id: WorkerId,
    /// Where it stands.
    pub status: ReplicaStatus,
    /// Why it could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An inference endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Identifier.
    pub id: EndpointId,
    /// Unique name in the project; also the model name in the Open Inference Protocol.
    pub name: Name,
    /// Where it stands.
    pub status: EndpointStatus,
    /// Number of the newest generation of variants.
    pub generation: u32,
    /// Generation that answers requests now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving_generation: Option<u32>,
    /// How traffic goes, or went, over to the newest generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutState>,
    /// Variants of the newest generation.
    pub variants: Vec<Variant>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its newest generation was made.
    pub updated_at: DateTime<Utc>,
    /// Since when it has no replicas because a client unloaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unloaded_at: Option<DateTime<Utc>>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutState {
    /// Generation that is rolled out.
    pub generation: u32,
    /// Generation that served before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_generation: Option<u32>,
    /// How it is carried out.
    pub policy: Rollout,
    /// Where it stands.
    pub status: RolloutStatus,
    /// Per cent of the traffic that goes to the generation.
    pub share: u32,
    /// When this is to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<DateTime<Utc>>,
    /// Why it stands there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it last changed.
    pub changed_at: DateTime<Utc>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// A rollout with what was measured of both generations since it last changed, an hour at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutReport {
    /// Where it stands.
    pub rollout: RolloutState,
    /// Of the generation that is rolled out.
    pub new: Measured,
    /// Of the generation that served before.
    pub old: Measured,
}

/// Something that happened to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointEvent {
    /// Number within the endpoint, from 1 without gaps.
    pub seq: u64,
    /// What happened.
    pub kind: EndpointEventKind,
    /// Details; depends on the kind.
    pub data: Value,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

words! {
    /// Kind of an endpoint's event.
    EndpointEventKind {
        /// A rollout began or changed its state or share; the data say why.
        Rollout = "rollout",
        /// The number of replicas wanted of a variant changed; the data say why.
        Scaled = "scaled",
        /// A replica could not be loaded, or its worker died.
        ReplicaFailed = "replica_failed",
    }
}

/// Where the gateway may send requests of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Generation that serves.
    pub generation: u32,
    /// What a generation being rolled out gets.
    pub candidate: Option<Candidate>,
    /// Variants with a ready replica, or without any while they sleep.
    pub variants: Vec<RouteVariant>,
}

/// What a generation being rolled out gets of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The generation.
    pub generation: u32,
    /// Per cent of the requests that it answers.
    pub share: u32,
    /// Per cent of the requests that it gets a copy of.
    pub shadow: u32,
}

/// A variant that can answer.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteVariant {
    /// Identifier.
    pub id: VariantId,
    /// Generation that it belongs to.
    pub generation: u32,
    /// Whether it has no replica because it sleeps; a request wakes it.
    pub asleep: bool,
    /// Its name.
    pub name: Name,
    /// Share of the traffic.
    pub weight: u32,
    /// Name of the model.
    pub model: Name,
    /// Version of the model.
    pub version: u32,
    /// What the model takes and gives.
    pub signature: Signature,
    /// Names the files that its replicas loaded: whoever has the same answers the same.
    pub digest: String,
    /// How it serves.
    pub settings: VariantSettings,
    /// Ready replicas.
    pub replicas: Vec<ReplicaAddress>,
}

/// Where a replica answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// The replica.
    pub id: ReplicaId,
    /// Worker that holds it.
    pub worker: WorkerId,
    /// Base URL of the worker's inference server.
    pub url: String,
}

/// A replica that a worker is asked to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The replica.
    pub replica: ReplicaId,
    /// Its variant.
    pub variant: VariantId,
    /// Version it serves.
    pub version: ModelVersionId,
    /// Where it stands.
    pub status: ReplicaStatus,
    /// Files to load.
    pub artifact: ServingArtifact,
    /// How it serves.
    pub settings: VariantSettings,
}

/// A class and how likely it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClassScore {
    /// Name of the class.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

/// Response of a prediction: one entry per row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Prediction {
    /// Most likely class, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The most likely classes, the likeliest first, if `top_k` asked for them instead of all
    /// probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<ClassScore>>,
    /// Probability of each class in the signature's order, of a classifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probabilities: Option<Vec<f32>>,
    /// Labels that apply, of a classifier of several labels; those above a probability of 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Predicted number, of a regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// Predicted numbers, of a regression of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<f32>>,
    /// The row as an autoencoder found it again, flat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<Vec<f32>>,
    /// Mean squared difference of the row and its reconstruction, both scaled as in training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly_score: Option<f32>,
}

/// A row as a client sends it: nested numbers of the sample's shape, flat numbers, or an object
/// by column name.
pub type PredictRow = Value;
