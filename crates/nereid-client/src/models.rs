//! Models, their versions and aliases, and the registry around them.

use nereid_core::{
    audit::AuditEntry,
    ids::JobId,
    jobs::Job,
    models::{
        Alias, AliasChange, Approval, ApprovalStatus, Model, ModelAlias, ModelVersion,
        compare::Comparison,
    },
};
use reqwest::Method;
use serde_json::{Value, json};

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

    /// Changes a model by a merge patch: `description`, `tags`, `require_approval`.
    pub async fn update_model(&self, name: &str, patch: &Value) -> Result<Model, ClientError> {
        self.change(Method::PATCH, &["v1", "models", name], patch)
            .await
    }

    /// Changes a version by a merge patch: `description`, `tags`.
    pub async fn update_model_version(
        &self,
        name: &str,
        version: u32,
        patch: &Value,
    ) -> Result<ModelVersion, ClientError> {
        let version = version.to_string();
        let segments = ["v1", "models", name, "versions", &version];
        self.change(Method::PATCH, &segments, patch).await
    }

    /// Lists the aliases of a model by name.
    pub async fn aliases(&self, name: &str, limit: usize) -> Result<Vec<ModelAlias>, ClientError> {
        self.list(&["v1", "models", name, "aliases"], &[], limit)
            .await
    }

    /// Returns an alias.
    pub async fn alias(&self, name: &str, alias: &Alias) -> Result<ModelAlias, ClientError> {
        self.get(&["v1", "models", name, "aliases", alias.as_str()])
            .await
    }

    /// Returns the version that an alias points to.
    pub async fn aliased_version(
        &self,
        name: &str,
        alias: &Alias,
    ) -> Result<ModelVersion, ClientError> {
        let path = ["v1", "models", name, "aliases", alias.as_str(), "version"];
        self.get(&path).await
    }

    /// Points an alias to a version.
    pub async fn set_alias(
        &self,
        name: &str,
        alias: &Alias,
        version: u32,
    ) -> Result<ModelAlias, ClientError> {
        let path = ["v1", "models", name, "aliases", alias.as_str()];
        self.change(Method::PUT, &path, &json!({ "version": version }))
            .await
    }

    /// Deletes an alias.
    pub async fn delete_alias(&self, name: &str, alias: &Alias) -> Result<(), ClientError> {
        self.delete(&["v1", "models", name, "aliases", alias.as_str()])
            .await
    }

    /// Lists the changes of an alias, newest first.
    pub async fn alias_history(
        &self,
        name: &str,
        alias: &Alias,
        limit: usize,
    ) -> Result<Vec<AliasChange>, ClientError> {
        let path = ["v1", "models", name, "aliases", alias.as_str(), "history"];
        self.list(&path, &[], limit).await
    }

    /// Moves an alias to a version; if `expected` is given, only from that one.
    pub async fn promote(
        &self,
        name: &str,
        alias: &Alias,
        version: u32,
        expected: Option<u32>,
    ) -> Result<ModelAlias, ClientError> {
        let body = json!({"alias": alias, "version": version, "expected_version": expected});
        self.post_quick(&["v1", "models", name, "promote"], &body)
            .await
    }

    /// Moves an alias back to the version that had it before; if `expected` is given, only from
    /// that one.
    pub async fn demote(
        &self,
        name: &str,
        alias: &Alias,
        expected: Option<u32>,
    ) -> Result<ModelAlias, ClientError> {
        let body = json!({"alias": alias, "expected_version": expected});
        self.post_quick(&["v1", "models", name, "demote"], &body)
            .await
    }

    /// Approves or rejects a version.
    pub async fn decide(
        &self,
        name: &str,
        version: u32,
        status: ApprovalStatus,
        reason: &str,
    ) -> Result<Approval, ClientError> {
        let version = version.to_string();
        let path = ["v1", "models", name, "versions", &version, "approval"];
        let body = json!({"status": status, "reason": reason});
        self.change(Method::PUT, &path, &body).await
    }

    /// Compares versions, each a number, an alias or `latest`.
    pub async fn compare_versions(
        &self,
        name: &str,
        versions: &[String],
    ) -> Result<Comparison, ClientError> {
        let query = [("versions", versions.join(","))];
        self.get_query(&["v1", "models", name, "compare"], &query)
            .await
    }

    /// Finds versions across models, by a filter and an order in MLflow's syntax.
    pub async fn search_versions(
        &self,
        filter: Option<&str>,
        order_by: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ModelVersion>, ClientError> {
        let given = [("filter", filter), ("order_by", order_by)];
        let given = given
            .into_iter()
            .filter_map(|(k, v)| Some((k, v?.to_owned())));
        let query: Vec<_> = given.collect();
        self.list(&["v1", "model-versions"], &query, limit).await
    }

    /// Lists the model versions that were made of a dataset version.
    pub async fn versions_of_dataset(
        &self,
        dataset: &str,
        version: u32,
        limit: usize,
    ) -> Result<Vec<ModelVersion>, ClientError> {
        let version = version.to_string();
        let path = [
            "v1",
            "datasets",
            dataset,
            "versions",
            &version,
            "model-versions",
        ];
        self.list(&path, &[], limit).await
    }

    /// Lists the model version that a job published, if it did.
    pub async fn versions_of_job(&self, job: JobId) -> Result<Vec<ModelVersion>, ClientError> {
        // Not paged, so it takes no page size.
        let path = ["v1", "jobs", &job.to_string(), "model-versions"];
        let page: crate::Listing<ModelVersion> = self.get(&path).await?;
        Ok(page.items)
    }

    /// Lists changes of resources that begin with `resource`, newest first.
    pub async fn audit_log(
        &self,
        resource: Option<&str>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ClientError> {
        let query: Vec<_> = resource
            .iter()
            .map(|r| ("resource", (*r).to_owned()))
            .collect();
        self.list(&["v1", "audit"], &query, limit).await
    }
}
