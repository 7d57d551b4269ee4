//! The site that is measured: as `nereid dev`, with networks that were trained for a moment.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use nereid_client::{Client, NewDataset};
use nereid_core::{
    datasets::{DatasetFormat, DatasetSource},
    engine::Predictor,
    jobs::{Job, JobStatus},
    models::{ModelVersion, ServingArtifact},
    tensors::Batch,
};
use nereid_engine::bench::{self, Case};
use serde_json::{Value, json};

use super::client::Target;
use crate::{cli::DevArgs, config::Config, roles::dev::Dev};

/// Rows that the networks are trained on: it is not learning that is measured.
const ROWS: u32 = 256;
/// Largest file of a model.
const MAX_FILE: u64 = 1 << 30;

/// A running site.
pub(super) struct Stage<'a> {
    dev: Dev,
    client: Client,
    folder: &'a Path,
}

/// A network that is served, and the same one loaded in this process.
pub(super) struct Served {
    pub(super) network: String,
    pub(super) model: Arc<dyn Predictor>,
    pub(super) batch: Batch,
    pub(super) json: Target,
    pub(super) binary: Target,
}

/// Returns the networks of these names.
pub(super) fn chosen(names: &[String]) -> anyhow::Result<Vec<Case>> {
    let cases = bench::cases();
    let known: Vec<_> = cases.iter().map(|c| c.name).collect();
    let find = |name: &String| {
        let case = cases.iter().find(|c| c.name == *name).cloned();
        case.with_context(|| format!("no network {name:?}; there are {}", known.join(", ")))
    };
    names.iter().map(find).collect()
}

impl<'a> Stage<'a> {
    /// Starts Postgres, S3, API and worker of its own below `folder`.
    pub(super) async fn open(mut config: Config, folder: &'a Path) -> anyhow::Result<Self> {
        config.database.url = None;
        config.objects.bucket = None;
        let args = DevArgs {
            data_dir: folder.join("site"),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            grpc_port: None,
            s3_port: 0,
            slots: Some(1),
            exit_when_done: false,
        };
        let dev = Box::pin(Dev::start(&config, &args)).await?;
        let client = Client::new(&dev.api, None)?;
        Ok(Self {
            dev,
            client,
            folder,
        })
    }

    /// Stops everything.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.dev.stop().await
    }

    /// Trains and deploys a network.
    pub(super) async fn serve(
        &self,
        case: Case,
        batching: Option<&Value>,
    ) -> anyhow::Result<Served> {
        let case = Case { rows: ROWS, ..case };
        let name = case.name;
        self.add_dataset(&case).await?;
        let mut spec = case.spec.clone();
        (spec["model"], spec["dataset"]) = (json!(name), json!(name));
        spec["fit"] = json!({"epochs": 1, "batch_size": 32, "normalization": "none"});
        let train = json!({"kind": "train", "spec": spec});
        self.finish(self.client.submit_job(&train).await?).await?;
        let options = batching.map_or_else(|| json!({}), |b| json!({ "batching": b }));
        let deploy = self.client.deploy_model(name, 1, &options).await?;
        self.finish(deploy).await?;
        let version = self.client.model_version(name, 1).await?;
        let artifact = version.serving.as_ref().context("nothing was deployed")?;
        let model = self.load(name, artifact).await?;
        let batch = sample(&case);
        let (json, binary) = self.targets(&version, &batch).await?;
        Ok(Served {
            network: name.to_owned(),
            model,
            batch,
            json,
            binary,
        })
    }

    async fn add_dataset(&self, case: &Case) -> anyhow::Result<()> {
        let mut files = std::collections::BTreeMap::new();
        for (role, bytes) in case.files() {
            let file = format!("{}.npy", role.as_str());
            let uploaded = self.client.upload_bytes(&file, bytes).await?;
            files.insert(role, uploaded.uri.into());
        }
        let source = json!({"format": DatasetFormat::Npy, "files": {}, "target": "class"});
        let source: DatasetSource = serde_json::from_value(source)?;
        let new = NewDataset {
            name: case.name.parse()?,
            description: None,
            tags: [].into(),
            source: DatasetSource { files, ..source },
        };
        self.client.register_dataset(&new).await?;
        Ok(())
    }

    async fn finish(&self, job: Job) -> anyhow::Result<()> {
        let job = self.client.watch_job(job.id, |_| {}).await?;
        let (status, error) = (job.status, job.error);
        ensure!(status == JobStatus::Succeeded, "a job {status}: {error:?}");
        Ok(())
    }

    /// Loads the files that are served, once more, without a queue before them.
    async fn load(
        &self,
        name: &str,
        artifact: &ServingArtifact,
    ) -> anyhow::Result<Arc<dyn Predictor>> {
        let folder = self.folder.join(name);
        for file in &artifact.files {
            let uri = self
                .dev
                .storage
                .own(format!("{}{}", artifact.prefix, file.path))?;
            let bytes = self.dev.storage.get_bytes(&uri, MAX_FILE).await?;
            let path = folder.join(&file.path);
            if let Some(parent) = path.parent() {
                tokio::fs::create_dir_all(parent).await?;
            }
            tokio::fs::write(path, bytes).await?;
        }
        let loader = nereid_engine::engine().loader;
        Ok(tokio::task::spawn_blocking(move || loader.load(&folder)).await??)
    }

    /// Makes the requests of one row: as JSON, and in the protocol's binary extension.
    async fn targets(
        &self,
        version: &ModelVersion,
        batch: &Batch,
    ) -> anyhow::Result<(Target, Target)> {
        let Some(input) = version.signature.inputs.first() else {
            bail!("a model without an input")
        };
        let mut shape = version.signature.sample_shape();
        shape.insert(0, 1);
        let base = self.dev.api.trim_end_matches('/');
        let url = format!("{base}/v2/models/{}/infer", version.model);
        let whole = json!({"inputs": [{
            "name": input.name, "shape": shape, "datatype": "FP32", "data": batch.values,
        }]});
        let media = "content-type: application/json\r\n";
        let json = Target::new(&url, media, serde_json::to_vec(&whole)?).await?;
        let raw = batch.to_le_bytes();
        let head = json!({
            "inputs": [{
                "name": input.name, "shape": shape, "datatype": "FP32",
                "parameters": {"binary_data_size": raw.len()},
            }],
            "parameters": {"binary_data_output": true},
        });
        let mut body = serde_json::to_vec(&head)?;
        let headers = format!(
            "content-type: application/octet-stream\r\ninference-header-content-length: {}\r\n",
            body.len()
        );
        body.extend(raw);
        let binary = Target::new(&url, &headers, body).await?;
        Ok((json, binary))
    }
}

/// One row that looks like the data.
fn sample(case: &Case) -> Batch {
    let values = case.shape.iter().product();
    let value = |i: usize| f32::from(u16::try_from(i * 7_919 % 1_000).unwrap_or(0)) / 1_000.0;
    Batch {
        rows: 1,
        values: (0..values).map(value).collect(),
    }
}
