//! `nereid model …`

mod registry;
mod report;
mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use nereid_core::{
    Name,
    models::{Alias, ModelRef, VersionSelector},
};
use serde_json::{Value, json};

use super::{Context, jobs};
use crate::output;

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List models and their versions.
    List,
    /// Show a version: MODEL, MODEL@3, MODEL@champion.
    Show {
        /// The model and its version; the newest unless given.
        model: ModelRef,
    },
    /// Deploy a version behind an endpoint and wait until it serves.
    #[command(disable_version_flag = true)]
    Deploy {
        /// The model, and its version: MODEL, MODEL@3, MODEL@champion.
        name: ModelRef,
        /// The version; the newest unless given.
        #[arg(long)]
        version: Option<u32>,
        /// The endpoint; named like the model unless given.
        #[arg(long)]
        endpoint: Option<Name>,
        /// Copies to keep loaded.
        #[arg(long, default_value_t = 1)]
        replicas: u32,
        /// How weights are stored: float32, float16 or int8.
        #[arg(long)]
        weights: Option<String>,
        /// What computes the model: burn, tract or onnxruntime; the fastest unless given.
        #[arg(long)]
        runtime: Option<String>,
    },
    /// Show what optimisation did to a version: sizes, latencies, metrics and what was refused.
    Report {
        /// The model and its version; the newest unless given.
        model: ModelRef,
    },
    /// List a model's aliases.
    Aliases {
        /// The model.
        name: Name,
    },
    /// Move an alias to a version; it remembers the one before.
    Promote {
        /// The model and the version: MODEL@3, or MODEL@candidate for another alias' version.
        model: ModelRef,
        /// The alias; made if there is none.
        alias: Alias,
        /// Only if the alias points to this version now.
        #[arg(long, value_name = "VERSION")]
        expect: Option<u32>,
    },
    /// Move an alias back to the version that had it before.
    Demote {
        /// The model.
        name: Name,
        /// The alias.
        alias: Alias,
        /// Only if the alias points to this version now.
        #[arg(long, value_name = "VERSION")]
        expect: Option<u32>,
    },
    /// Delete an alias; the version stays.
    Unalias {
        /// The model.
        name: Name,
        /// The alias.
        alias: Alias,
    },
    /// Show where an alias has pointed.
    History {
        /// The model.
        name: Name,
        /// The alias.
        alias: Alias,
    },
    /// Approve a version.
    Approve {
        /// The model and the version: MODEL@3.
        model: ModelRef,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Reject a version.
    Reject {
        /// The model and the version: MODEL@3.
        model: ModelRef,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Compare versions: metrics, and where spec and signature differ.
    Compare {
        /// The model.
        name: Name,
        /// Two or more versions: numbers, aliases, or latest.
        #[arg(required = true, num_args = 2..)]
        versions: Vec<VersionSelector>,
    },
    /// Find versions across models, such as "metrics.val_accuracy >= 0.97 and tags.team = 'x'".
    Search {
        /// Conditions joined by "and".
        filter: Option<String>,
        /// A number to order by, such as "metrics.val_accuracy desc".
        #[arg(long, value_name = "FIELD")]
        order_by: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

pub async fn run(context: &Context, command: ModelCommand) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::List => list(context).await,
        ModelCommand::Show { model } => show::version(context, &model).await,
        ModelCommand::Deploy {
            name,
            version,
            endpoint,
            replicas,
            weights,
            runtime,
        } => {
            let mut options = json!({ "replicas": replicas });
            if let Some(endpoint) = endpoint {
                options["endpoint"] = json!(endpoint);
            }
            if let Some(weights) = weights {
                options["weights"] = json!(weights);
            }
            if let Some(runtime) = runtime {
                options["runtime"] = json!(runtime);
            }
            return deploy(context, name, version, &options).await;
        }
        ModelCommand::Report { model } => report::show(context, &model).await,
        ModelCommand::Compare { name, versions } => show::compare(context, &name, &versions).await,
        ModelCommand::Search {
            filter,
            order_by,
            limit,
        } => show::search(context, filter.as_deref(), order_by.as_deref(), limit).await,
        command => registry::run(context, command).await,
    }?;
    Ok(ExitCode::SUCCESS)
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
    show::versions(context, &versions)
}

/// Finds the number that a reference stands for now; the newest version's unless one is named.
async fn number(context: &Context, model: &ModelRef) -> anyhow::Result<u32> {
    let name = model.model.as_str();
    match &model.version {
        Some(VersionSelector::Number(number)) => Ok(*number),
        Some(VersionSelector::Alias(alias)) => Ok(context.client.alias(name, alias).await?.version),
        Some(VersionSelector::Latest) | None => {
            let newest = context.client.model(name).await?.latest_version;
            newest.with_context(|| format!("model {name} has no version left"))
        }
    }
}

async fn deploy(
    context: &Context,
    mut model: ModelRef,
    version: Option<u32>,
    options: &Value,
) -> anyhow::Result<ExitCode> {
    if let Some(version) = version {
        anyhow::ensure!(
            model.version.is_none(),
            "name the version behind @ or by --version, not both"
        );
        model.version = Some(VersionSelector::Number(version));
    }
    let version = number(context, &model).await?;
    let job = context
        .client
        .deploy_model(model.model.as_str(), version, options)
        .await?;
    jobs::watch_to_end(context, job.id).await
}

/// Prints JSON, or a line.
fn report<T: serde::Serialize>(context: &Context, value: &T, line: &str) -> anyhow::Result<()> {
    if context.json {
        return output::json(value);
    }
    output::line(&line)
}
