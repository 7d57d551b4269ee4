//! The audit log as clients read it: who changed what, when and why.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::keys::KeyRef;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Number, which rises; entries may be read in an order slightly other than that of commits.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who; absent for the anonymous administrator of `dev` and for the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<KeyRef>,
    /// What was done.
    #[schema(example = "promote")]
    pub action: String,
    /// To what: kind and name or identifier.
    #[schema(example = "model/digits@champion")]
    pub resource: String,
    /// What changed, or the reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "version 3, before 2")]
    pub detail: Option<String>,
}
