//! `nereid bench train`: samples per second of the training engine alone.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, bail};
use nereid_core::{datasets::DatasetFile, engine::DataFiles, workers::DeviceKind};
use nereid_engine::bench::{self, Case};
use nereid_objects::{Objects, PutOptions, datasets::PinnedFiles};
use serde::Serialize;

use super::{DataPlace, TrainArgs, site};
use crate::output;

/// What was measured of one network.
#[derive(Debug, Serialize)]
struct Figure {
    network: &'static str,
    batch_size: u32,
    samples: u32,
    /// With the data in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Speed>,
    /// With the data in S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    s3: Option<Speed>,
}

#[derive(Debug, Serialize)]
struct Speed {
    /// Median of the epochs after the first, which warms up.
    samples_per_second: f64,
    /// Each epoch's, the first one included.
    epochs: Vec<f64>,
}

/// Measures one network after the other, each through the engine's own trainer.
pub async fn run(args: &TrainArgs, json: bool) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (objects, _s3) = site::storage(folder.path()).await?;
    let mut figures = Vec::new();
    for mut case in chosen(&args.networks)? {
        case.dtype_policy = args.dtype_policy;
        figures.push(measure(args, case, &objects).await?);
    }
    if json {
        return output::json(&figures);
    }
    let speed = |s: &Option<Speed>| {
        let shown = s.as_ref().map(|s| format!("{:.0}", s.samples_per_second));
        shown.unwrap_or_default()
    };
    let row = |f: &Figure| {
        [
            f.network.to_owned(),
            f.batch_size.to_string(),
            f.samples.to_string(),
            speed(&f.memory),
            speed(&f.s3),
        ]
    };
    let rows = figures.iter().map(row).collect();
    let header = ["network", "batch", "samples", "samples/s", "from S3"];
    output::table(header, rows)
}

async fn measure(args: &TrainArgs, case: Case, objects: &Objects) -> anyhow::Result<Figure> {
    let mut figure = Figure {
        network: case.name,
        batch_size: case.batch,
        samples: case.rows,
        memory: None,
        s3: None,
    };
    if args.data.contains(&DataPlace::Memory) {
        figure.memory = Some(train(args, case.clone(), None).await?);
    }
    if args.data.contains(&DataPlace::S3) {
        let files = upload(&case, objects).await?;
        figure.s3 = Some(train(args, case, Some(files)).await?);
    }
    Ok(figure)
}

/// Puts the data into S3 and returns how to read it there.
async fn upload(case: &Case, objects: &Objects) -> anyhow::Result<Arc<dyn DataFiles>> {
    let mut files = BTreeMap::new();
    for (role, bytes) in case.files() {
        let uri = objects.own(format!("{}/{}", case.name, role.as_str()))?;
        let stored = objects
            .put_bytes(&uri, bytes.into(), &PutOptions::default())
            .await?;
        let file = DatasetFile {
            uri: uri.to_string(),
            bytes: stored.bytes,
            sha256: stored.sha256,
            etag: stored.etag,
            objects: None,
        };
        files.insert(role, file);
    }
    Ok(Arc::new(PinnedFiles::of_version(objects, files)?))
}

async fn train(
    args: &TrainArgs,
    case: Case,
    streamed: Option<Arc<dyn DataFiles>>,
) -> anyhow::Result<Speed> {
    // One epoch more, which warms caches and allocator up.
    let (epochs, device) = (args.epochs + 1, args.device);
    let work = move || trained(&case, epochs, device, streamed);
    let epochs = tokio::task::spawn_blocking(work);
    let epochs = epochs.await.context("the measurement died")??;
    Ok(Speed {
        samples_per_second: median(epochs.get(1..).unwrap_or_default()),
        epochs,
    })
}

fn trained(
    case: &Case,
    epochs: u32,
    device: DeviceKind,
    streamed: Option<Arc<dyn DataFiles>>,
) -> anyhow::Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let path: &Path = folder.path();
    Ok(case.run(epochs, device, streamed, path)?)
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
