//! `nereid bench train`: samples per second of the training engine alone.

use anyhow::{Context, bail};
use nereid_core::workers::DeviceKind;
use nereid_engine::bench::{self, Case};
use serde::Serialize;

use super::TrainArgs;
use crate::output;

/// What was measured of one network.
#[derive(Debug, Serialize)]
struct Figure {
    network: &'static str,
    batch_size: u32,
    samples: u32,
    /// Median of the epochs after the first, which warms up.
    samples_per_second: f64,
    /// Each epoch's, the first one included.
    epochs: Vec<f64>,
}

/// Measures one network after the other, each through the engine's own trainer.
pub async fn run(args: &TrainArgs, json: bool) -> anyhow::Result<()> {
    let cases = chosen(&args.networks)?;
    let (epochs, device) = (args.epochs, args.device);
    let measured = tokio::task::spawn_blocking(move || measure(cases, epochs, device));
    let figures = measured.await.context("the measurement died")??;
    if json {
        return output::json(&figures);
    }
    let row = |f: &Figure| {
        [
            f.network.to_owned(),
            f.batch_size.to_string(),
            f.samples.to_string(),
            format!("{:.0}", f.samples_per_second),
        ]
    };
    let rows = figures.iter().map(row).collect();
    output::table(["network", "batch", "samples", "samples/s"], rows)
}

/// Returns the networks of these names; all of them if none is named.
fn chosen(names: &[String]) -> anyhow::Result<Vec<Case>> {
    let cases = bench::cases();
    if let Some(unknown) = names.iter().find(|n| cases.iter().all(|c| c.name != **n)) {
        let known: Vec<_> = cases.iter().map(|c| c.name).collect();
        bail!("no network {unknown:?}; there are {}", known.join(", "));
    }
    let wanted = |c: &Case| names.is_empty() || names.iter().any(|n| n == c.name);
    Ok(cases.into_iter().filter(wanted).collect())
}

fn measure(cases: Vec<Case>, epochs: u32, device: DeviceKind) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for case in cases {
        let folder = tempfile::tempdir()?;
        // One epoch more, which warms caches and allocator up.
        let speeds = case.run(epochs + 1, device, folder.path())?;
        figures.push(Figure {
            network: case.name,
            batch_size: case.batch,
            samples: case.rows,
            samples_per_second: median(speeds.get(1..).unwrap_or_default()),
            epochs: speeds,
        });
    }
    Ok(figures)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_networks_are_named_with_those_there_are() {
        let all = chosen(&[]).unwrap().len();
        assert_eq!(all, bench::cases().len());
        let one = chosen(&["tabular-32".to_owned()]).unwrap();
        assert_eq!(one.len(), 1);
        let error = chosen(&["nothing".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("nothing") && error.contains("tabular-32"),
            "{error}"
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }
}
