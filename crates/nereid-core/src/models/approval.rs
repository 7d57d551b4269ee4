//! Approval of versions: whether somebody has looked at one and found it fit to serve.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{keys::KeyRef, words::words};

words! {
    /// Whether a version was found fit to serve (`ModelApprovalStatus` of SageMaker).
    #[derive(Default)]
    ApprovalStatus {
        /// Nobody has decided yet.
        #[default]
        Pending = "pending",
        /// It may be deployed.
        Approved = "approved",
        /// It may not be deployed where the model asks for approval.
        Rejected = "rejected",
    }
}

/// The newest decision about a version; earlier ones are in the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// What was decided.
    pub status: ApprovalStatus,
    /// Why; may be empty.
    pub reason: String,
    /// Who decided; absent while nobody has, and for the anonymous administrator of `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<KeyRef>,
    /// When; absent while nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}
