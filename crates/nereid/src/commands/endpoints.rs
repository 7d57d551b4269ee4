//! `nereid endpoint …`

use std::path::Path;

use anyhow::Context as _;
use nereid_core::{Name, endpoints::Prediction};
use serde_json::Value;

use super::Context;
use crate::{cli::EndpointCommand, output};

pub async fn run(context: &Context, command: EndpointCommand) -> anyhow::Result<()> {
    match command {
        EndpointCommand::List => list(context).await,
        EndpointCommand::Predict { name, rows, file } => {
            predict(context, &name, &rows, file.as_deref()).await
        }
        EndpointCommand::Rollback { name } => {
            let endpoint = context.client.rollback_endpoint(name.as_str()).await?;
            if context.json {
                return output::json(&endpoint);
            }
            println!(
                "endpoint {name}: generation {} is {}",
                endpoint.generation, endpoint.status
            );
            Ok(())
        }
        EndpointCommand::Delete { name } => {
            Ok(context.client.delete_endpoint(name.as_str()).await?)
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let endpoints = context.client.endpoints(1000).await?;
    if context.json {
        return output::json(&endpoints);
    }
    let rows = endpoints
        .iter()
        .map(|e| {
            let variants: Vec<_> = e
                .variants
                .iter()
                .map(|v| format!("{}@{} ({})", v.spec.model, v.spec.version, v.spec.weight))
                .collect();
            [
                e.name.to_string(),
                e.status.to_string(),
                e.generation.to_string(),
                variants.join(", "),
                output::time(e.updated_at),
            ]
        })
        .collect();
    output::table(
        [
            "ENDPOINT",
            "STATUS",
            "GENERATION",
            "VARIANTS (WEIGHT)",
            "UPDATED",
        ],
        rows,
    )
}

async fn predict(
    context: &Context,
    name: &Name,
    rows: &[String],
    file: Option<&Path>,
) -> anyhow::Result<()> {
    let mut parsed = Vec::new();
    for row in rows {
        parsed
            .push(serde_json::from_str(row).with_context(|| format!("--row {row:?} is no JSON"))?);
    }
    if let Some(path) = file {
        let shown = path.display();
        let text = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let more: Vec<Value> = serde_json::from_slice(&text)
            .with_context(|| format!("{shown} is no JSON array of rows"))?;
        parsed.extend(more);
    }
    let answer = context.client.predict(name.as_str(), &parsed).await?;
    if context.json {
        return output::json(&answer);
    }
    for prediction in &answer.predictions {
        println!("{}", show(prediction));
    }
    Ok(())
}

/// One line about a prediction: `7 (0.9981)`, `red, round`, `3.25`, `1.5, 2` or `anomaly 0.03`.
pub fn show(prediction: &Prediction) -> String {
    if let Some(labels) = &prediction.labels {
        return labels.join(", ");
    }
    if let Some(values) = &prediction.values {
        let values: Vec<_> = values.iter().map(f32::to_string).collect();
        return values.join(", ");
    }
    if let Some(score) = prediction.anomaly_score {
        return format!("anomaly {score:.4}");
    }
    match (
        &prediction.label,
        &prediction.probabilities,
        prediction.value,
    ) {
        (Some(label), Some(probabilities), _) => {
            let best = probabilities.iter().copied().fold(0.0, f32::max);
            format!("{label} ({best:.4})")
        }
        (Some(label), None, _) => label.clone(),
        (None, _, Some(value)) => value.to_string(),
        (None, _, None) => "-".to_owned(),
    }
}
