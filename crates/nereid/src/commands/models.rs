//! `nereid model …`

use std::process::ExitCode;

use anyhow::Context as _;
use nereid_core::Name;
use serde_json::json;

use super::{Context, jobs};
use crate::{cli::ModelCommand, output};

pub async fn run(context: &Context, command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::List => {
            list(context).await?;
            Ok(ExitCode::SUCCESS)
        }
        ModelCommand::Deploy {
            name,
            version,
            endpoint,
            replicas,
        } => deploy(context, &name, version, endpoint, replicas).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mut versions = Vec::new();
    for model in context.client.models(1000).await? {
        versions.extend(
            context
                .client
                .model_versions(model.name.as_str(), 20)
                .await?,
        );
    }
    if context.json {
        return output::json(&versions);
    }
    let rows = versions
        .iter()
        .map(|v| {
            [
                v.model.to_string(),
                v.version.to_string(),
                format!("{}@{}", v.lineage.dataset, v.lineage.dataset_version),
                output::metrics(
                    v.metrics
                        .iter()
                        .filter(|(k, _)| k.contains("accuracy") || k.contains("loss")),
                ),
                output::time(v.created_at),
            ]
        })
        .collect();
    output::table(
        ["MODEL", "VERSION", "DATASET", "METRICS", "PUBLISHED"],
        rows,
    )
}

async fn deploy(
    context: &Context,
    name: &Name,
    version: Option<u32>,
    endpoint: Option<Name>,
    replicas: u32,
) -> anyhow::Result<ExitCode> {
    let version = if let Some(version) = version {
        version
    } else {
        let model = context.client.model(name.as_str()).await?;
        model
            .latest_version
            .with_context(|| format!("model {name} has no version left"))?
    };
    let mut options = json!({ "replicas": replicas });
    if let Some(endpoint) = endpoint {
        options["endpoint"] = json!(endpoint);
    }
    let job = context
        .client
        .deploy_model(name.as_str(), version, &options)
        .await?;
    jobs::watch_to_end(context, job.id).await
}
