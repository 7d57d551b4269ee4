//! Versions as people read them: one, many, or side by side.

use nereid_core::{
    Name,
    models::{
        ModelRef, ModelVersion, VersionSelector,
        compare::{Comparison, Difference},
    },
};

use super::number;
use crate::{commands::Context, output};

/// Longest value of a cell in characters.
const MAX_CELL: usize = 60;

/// Prints versions.
pub(super) fn versions(context: &Context, versions: &[ModelVersion]) -> anyhow::Result<()> {
    if context.json {
        return output::json(&versions);
    }
    let rows = versions
        .iter()
        .map(|v| {
            [
                v.model.to_string(),
                v.version.to_string(),
                aliases(v),
                v.approval.status.to_string(),
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
    let header = [
        "MODEL",
        "VERSION",
        "ALIASES",
        "APPROVAL",
        "DATASET",
        "METRICS",
        "PUBLISHED",
    ];
    output::table(header, rows)
}

fn aliases(version: &ModelVersion) -> String {
    let aliases: Vec<_> = version.aliases.iter().map(|a| format!("@{a}")).collect();
    aliases.join(" ")
}

/// Prints all that people want to know of a version.
pub(super) async fn version(context: &Context, model: &ModelRef) -> anyhow::Result<()> {
    let number = number(context, model).await?;
    let client = &context.client;
    let v = client.model_version(model.model.as_str(), number).await?;
    if context.json {
        return output::json(&v);
    }
    let decided = v.approval.by.as_ref();
    let by = decided.map_or_else(String::new, |by| format!(" by {}", by.name));
    let tags: Vec<_> = v.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let rows = vec![
        ["version".to_owned(), format!("{}@{}", v.model, v.version)],
        ["aliases".to_owned(), aliases(&v)],
        [
            "approval".to_owned(),
            format!("{}{by} {}", v.approval.status, v.approval.reason),
        ],
        ["description".to_owned(), v.description.clone()],
        ["tags".to_owned(), tags.join(" ")],
        ["metrics".to_owned(), output::metrics(&v.metrics)],
        [
            "trained on".to_owned(),
            format!("{}@{}", v.lineage.dataset, v.lineage.dataset_version),
        ],
        ["trained by".to_owned(), v.lineage.job_id.to_string()],
        ["bytes".to_owned(), v.bytes.to_string()],
        ["published".to_owned(), output::time(v.created_at)],
    ];
    output::table(["WHAT", ""], rows)
}

/// Finds versions and prints them.
pub(super) async fn search(
    context: &Context,
    filter: Option<&str>,
    order_by: Option<&str>,
    limit: usize,
) -> anyhow::Result<()> {
    let client = &context.client;
    let found = client.search_versions(filter, order_by, limit).await?;
    versions(context, &found)
}

/// Prints versions side by side.
pub(super) async fn compare(
    context: &Context,
    name: &Name,
    versions: &[VersionSelector],
) -> anyhow::Result<()> {
    let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
    let compared = context.client.compare_versions(name.as_str(), &versions);
    let compared = compared.await?;
    if context.json {
        return output::json(&compared);
    }
    let metrics = compared.metrics.iter().flat_map(|m| {
        m.values.iter().map(|value| {
            [
                format!("metrics.{}", m.name),
                value.version.to_string(),
                format!("{:.4}", value.value),
            ]
        })
    });
    let mut rows: Vec<_> = metrics.collect();
    rows.extend(sizes(&compared));
    rows.extend(differences("spec", &compared.spec));
    rows.extend(differences("signature", &compared.signature));
    output::table(["WHAT", "VERSION", "VALUE"], rows)?;
    if compared.truncated {
        output::line(&"there are more differences than are listed")?;
    }
    Ok(())
}

fn sizes(compared: &Comparison) -> impl Iterator<Item = [String; 3]> {
    compared.versions.iter().flat_map(|v| {
        let dataset = format!("{}@{}", v.dataset, v.dataset_version);
        [("bytes", v.bytes.to_string()), ("dataset", dataset)]
            .map(|(what, value)| [what.to_owned(), v.version.to_string(), value])
    })
}

fn differences(of: &str, found: &[Difference]) -> impl Iterator<Item = [String; 3]> {
    found.iter().flat_map(move |d| {
        d.values.iter().map(move |value| {
            let shown: String = value.value.to_string().chars().take(MAX_CELL).collect();
            [
                format!("{of}{}", d.pointer),
                value.version.to_string(),
                shown,
            ]
        })
    })
}
