//! API keys and what their roles allow.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Name,
    ids::{KeyId, ProjectId},
    words::words,
};

/// First characters of each API key, by which secret scanners know it.
pub const KEY_PREFIX: &str = "nrd_";

words! {
    /// What a key may do; each role may do all that the ones before it may.
    #[derive(Default)]
    Role {
        /// Reads, and asks endpoints for predictions.
        #[default]
        Viewer = "viewer",
        /// Registers datasets and trains.
        Trainer = "trainer",
        /// Deploys, changes endpoints, deletes models.
        Deployer = "deployer",
        /// Everything, keys included.
        Admin = "admin",
    }
}

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Project it acts in.
    pub project: ProjectId,
    /// What it may do.
    pub role: Role,
    /// Its key; none for the anonymous administrator of `dev` on loopback.
    pub key: Option<KeyId>,
}

/// A key by which something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyRef {
    /// Its identifier.
    pub id: KeyId,
    /// Its name.
    pub name: Name,
}

/// An API key; the secret itself is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Identifier.
    pub id: KeyId,
    /// What it is for.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// First characters of the secret, to recognise it by.
    pub prefix: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}
