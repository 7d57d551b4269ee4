//! `nereid model report`: what optimisation did to a version, and what it measured.

use anyhow::Context as _;
use nereid_core::models::{Latency, ModelRef, OptimisationReport, Runtime};

use super::{Context, number};
use crate::output;

pub(super) async fn show(context: &Context, model: &ModelRef) -> anyhow::Result<()> {
    let (name, number) = (&model.model, number(context, model).await?);
    let version = context.client.model_version(name.as_str(), number).await?;
    let serving = version
        .serving
        .with_context(|| format!("{name}@{number} was not deployed yet"))?;
    let report = serving.report;
    if context.json {
        return output::json(&report);
    }
    summary(&report)?;
    output::table(["STEP", "KEPT", "DETAIL"], steps(&report))?;
    let header = ["RUNTIME", "BATCH", "P50 µs", "P99 µs", "SAMPLES/s"];
    output::table(header, latencies(&report))?;
    for (runtime, why) in report
        .runtimes
        .iter()
        .filter_map(|r| Some((r.runtime, r.refused.as_ref()?)))
    {
        output::line(&format!("{} refused: {why}", runtime.as_str()))?;
    }
    Ok(())
}

fn summary(report: &OptimisationReport) -> anyhow::Result<()> {
    output::line(&format!(
        "weights {} -> {} bytes, served by {}",
        report.bytes_before,
        report.bytes_after,
        report.runtime.as_str()
    ))?;
    output::line(&format!(
        "agreement {:.4}, largest difference {:.2e} on {} samples",
        report.agreement, report.max_difference, report.samples
    ))?;
    if let Some(m) = &report.metric {
        let (name, before, after) = (&m.name, m.before, m.after);
        let text = format!(
            "{name} {before:.4} -> {after:.4}, {:.3} points lost",
            m.loss
        );
        output::line(&text)?;
    }
    match &report.machine {
        Some(m) => output::line(&format!("measured on {}, {} threads", m.cpu, m.threads)),
        None => Ok(()),
    }
}

fn steps(report: &OptimisationReport) -> Vec<[String; 3]> {
    let row = |s: &nereid_core::models::OptimisationStep| {
        let kept = if s.kept { "yes" } else { "no" };
        [s.name.clone(), kept.to_owned(), s.detail.clone()]
    };
    report.steps.iter().map(row).collect()
}

fn latencies(report: &OptimisationReport) -> Vec<[String; 5]> {
    let before = format!("before ({})", Runtime::Burn.as_str());
    let after = format!("after ({})", report.runtime.as_str());
    let measured = [(before, &report.before), (after, &report.after)];
    let each = report.runtimes.iter();
    let each = each.map(|r| (r.runtime.as_str().to_owned(), &r.latency));
    measured
        .into_iter()
        .chain(each)
        .flat_map(|(name, list)| list.iter().map(move |l| row(&name, l)))
        .collect()
}

fn row(name: &str, l: &Latency) -> [String; 5] {
    [
        name.to_owned(),
        l.batch.to_string(),
        format!("{:.1}", l.p50_us),
        format!("{:.1}", l.p99_us),
        format!("{:.0}", l.throughput),
    ]
}
