//! Commands that change aliases and approval, and show the aliases' history.

use nereid_core::{
    Name,
    models::{Alias, ApprovalStatus, ModelAlias, ModelRef},
};

use super::{ModelCommand, number, report};
use crate::{commands::Context, output};

pub(super) async fn run(context: &Context, command: ModelCommand) -> anyhow::Result<()> {
    match command {
        ModelCommand::Aliases { name } => aliases(context, &name).await,
        ModelCommand::Promote {
            model,
            alias,
            expect,
        } => {
            let version = number(context, &model).await?;
            let name = model.model.as_str();
            let alias = context
                .client
                .promote(name, &alias, version, expect)
                .await?;
            moved(context, &alias)
        }
        ModelCommand::Demote {
            name,
            alias,
            expect,
        } => {
            let alias = context.client.demote(name.as_str(), &alias, expect).await?;
            moved(context, &alias)
        }
        ModelCommand::Unalias { name, alias } => {
            context.client.delete_alias(name.as_str(), &alias).await?;
            let line = format!("{name}@{alias} is deleted");
            report(context, &(), &line)
        }
        ModelCommand::History { name, alias } => history(context, &name, &alias).await,
        ModelCommand::Approve { model, reason } => {
            decide(context, &model, ApprovalStatus::Approved, &reason).await
        }
        ModelCommand::Reject { model, reason } => {
            decide(context, &model, ApprovalStatus::Rejected, &reason).await
        }
        other => anyhow::bail!("{other:?} is no command of the registry"),
    }
}

fn moved(context: &Context, alias: &ModelAlias) -> anyhow::Result<()> {
    let before = match alias.previous_version {
        Some(version) => format!("; before, version {version}"),
        None => String::new(),
    };
    let line = format!(
        "{}@{} is version {}{before}",
        alias.model, alias.alias, alias.version
    );
    report(context, alias, &line)
}

async fn aliases(context: &Context, name: &Name) -> anyhow::Result<()> {
    let aliases = context.client.aliases(name.as_str(), 1000).await?;
    if context.json {
        return output::json(&aliases);
    }
    let rows = aliases.iter().map(|a| {
        [
            a.alias.to_string(),
            a.version.to_string(),
            optional(a.previous_version),
            optional(a.updated_by.as_ref().map(|k| &k.name)),
            output::time(a.updated_at),
        ]
    });
    output::table(
        ["ALIAS", "VERSION", "BEFORE", "MOVED BY", "MOVED"],
        rows.collect(),
    )
}

async fn history(context: &Context, name: &Name, alias: &Alias) -> anyhow::Result<()> {
    let client = &context.client;
    let changes = client.alias_history(name.as_str(), alias, 1000).await?;
    if context.json {
        return output::json(&changes);
    }
    let rows = changes.iter().map(|c| {
        [
            output::time(c.at),
            c.action.to_string(),
            optional(c.from_version),
            optional(c.to_version),
            optional(c.by.as_ref().map(|k| &k.name)),
        ]
    });
    output::table(["TIME", "ACTION", "FROM", "TO", "BY"], rows.collect())
}

async fn decide(
    context: &Context,
    model: &ModelRef,
    status: ApprovalStatus,
    reason: &str,
) -> anyhow::Result<()> {
    // What is decided about must be said: the newest may be another one by now.
    anyhow::ensure!(
        model.version.is_some(),
        "name the version: {}@3",
        model.model
    );
    let version = number(context, model).await?;
    let name = model.model.as_str();
    let approval = context.client.decide(name, version, status, reason).await?;
    report(context, &approval, &format!("{name}@{version} is {status}"))
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}
