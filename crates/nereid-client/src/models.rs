//! Models and their versions.

use nereid_core::{
    jobs::Job,
    models::{Model, ModelVersion},
};
use serde_json::Value;

use crate::{Client, ClientError};

impl Client {
    /// Lists models by name.
    pub async fn models(&self, limit: usize) -> Result<Vec<Model>, ClientError> {
        self.list(&["v1", "models"], &[], limit).await
    }

    /// Returns a model.
    pub async fn model(&self, name: &str) -> Result<Model, ClientError> {
        self.get(&["v1", "models", name]).await
    }

    /// Lists versions of a model, newest first.
    pub async fn model_versions(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Vec<ModelVersion>, ClientError> {
        self.list(&["v1", "models", name, "versions"], &[], limit)
            .await
    }

    /// Returns a version of a model.
    pub async fn model_version(
        &self,
        name: &str,
        version: u32,
    ) -> Result<ModelVersion, ClientError> {
        self.get(&["v1", "models", name, "versions", &version.to_string()])
            .await
    }

    /// Submits a training of the model; `spec` is a train spec without the model's name.
    pub async fn train_model(&self, name: &str, spec: &Value) -> Result<Job, ClientError> {
        self.post_quick(&["v1", "models", name, "train"], spec)
            .await
    }

    /// Submits a deployment of a version; `options` may name endpoint and replicas.
    pub async fn deploy_model(
        &self,
        name: &str,
        version: u32,
        options: &Value,
    ) -> Result<Job, ClientError> {
        let version = version.to_string();
        self.post_quick(
            &["v1", "models", name, "versions", &version, "deploy"],
            options,
        )
        .await
    }

    /// Deletes a version of a model.
    pub async fn delete_model_version(&self, name: &str, version: u32) -> Result<(), ClientError> {
        self.delete(&["v1", "models", name, "versions", &version.to_string()])
            .await
    }
}
