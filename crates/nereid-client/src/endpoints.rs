//! Endpoints and predictions.

use nereid_core::{
    Name,
    endpoints::{Endpoint, Prediction},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Client, ClientError};

/// Answer to a prediction request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Endpoint that answered.
    pub endpoint: Name,
    /// Variant that answered.
    pub variant: Name,
    /// Model behind it.
    pub model: Name,
    /// Version behind it.
    pub version: u32,
    /// One per row.
    pub predictions: Vec<Prediction>,
}

impl Client {
    /// Lists endpoints by name.
    pub async fn endpoints(&self, limit: usize) -> Result<Vec<Endpoint>, ClientError> {
        self.list(&["v1", "endpoints"], &[], limit).await
    }

    /// Returns an endpoint.
    pub async fn endpoint(&self, name: &str) -> Result<Endpoint, ClientError> {
        self.get(&["v1", "endpoints", name]).await
    }

    /// Asks an endpoint for one prediction per row.
    pub async fn predict(&self, name: &str, rows: &[Value]) -> Result<Predictions, ClientError> {
        self.post_quick(
            &["v1", "endpoints", name, "predict"],
            &json!({ "rows": rows }),
        )
        .await
    }

    /// Makes the variants that served before serve again.
    pub async fn rollback_endpoint(&self, name: &str) -> Result<Endpoint, ClientError> {
        self.post_quick(&["v1", "endpoints", name, "rollback"], &json!({}))
            .await
    }

    /// Deletes an endpoint.
    pub async fn delete_endpoint(&self, name: &str) -> Result<(), ClientError> {
        self.delete(&["v1", "endpoints", name]).await
    }
}
