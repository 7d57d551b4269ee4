//! Identifiers: one `UUIDv7` newtype per aggregate, so that they cannot be mixed up.
//!
//! `UUIDv7` (RFC 9562) sorts by creation time, which keeps B-tree inserts at the right edge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = Uuid, example = "01980000-0000-7000-8000-000000000000")]
        pub struct $name(pub Uuid);

        impl $name {
            /// Draws a new identifier.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(s).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+};
}

id! {
    /// A project: the unit of isolation, quota and fairness.
    ProjectId,
    /// An API key.
    KeyId,
    /// A dataset, the parent of its versions.
    DatasetId,
    /// An immutable version of a dataset.
    DatasetVersionId,
    /// A job.
    JobId,
    /// One claim of a job by a worker: with the epoch, the fence of every write of that attempt.
    ClaimId,
    /// A registered model, the parent of its versions.
    ModelId,
    /// An immutable version of a model.
    ModelVersionId,
    /// An inference endpoint.
    EndpointId,
    /// A variant of an endpoint in one of its generations.
    VariantId,
    /// A loaded copy of a variant's model on one worker.
    ReplicaId,
    /// A worker process.
    WorkerId,
}
