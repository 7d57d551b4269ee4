//! A running server, and small pieces that several tests need.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use nereid_client::{Client, NewDataset};
use nereid_core::{
    datasets::{DatasetFormat, DatasetSource, DatasetVersion, FileRole},
    jobs::{Job, JobStatus},
};
use nereid_objects::{ObjectStoreConfig, Objects};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The binary under test; `NEREID_TEST_BINARY` names another build, such as an optimised one.
#[expect(
    clippy::disallowed_methods,
    reason = "which build to try differs from run to run"
)]
pub fn binary() -> String {
    let built = env!("CARGO_BIN_EXE_nereid").to_owned();
    std::env::var("NEREID_TEST_BINARY").unwrap_or(built)
}

/// Longest wait for a start or an end.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A `nereid dev` process; killed when dropped.
pub struct Server {
    child: Child,
    pub api: String,
    /// Endpoint of the embedded S3.
    pub s3: String,
    /// Address of gRPC.
    pub grpc: String,
    /// Deleted with the server, if it is the server's own.
    folder: Option<TempDir>,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The server that tests share; started by the first of them.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap();
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&["--slots", "2"]));
        *shared = Arc::downgrade(&server);
        server
    }

    /// A server of the test's own, in a temporary folder.
    pub fn start(args: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nereid-it-")
            .tempdir()
            .unwrap();
        let mut server = Self::start_in(folder.path(), args);
        server.folder = Some(folder);
        server
    }

    /// A server on a folder that outlives it.
    pub fn start_in(data_dir: &Path, args: &[&str]) -> Self {
        Self::try_start_in(data_dir, args).unwrap_or_else(|output| panic!("no start: {output}"))
    }

    /// A server of the test's own by a command with settings of its own.
    pub fn launch_in(command: Command, folder: TempDir, args: &[&str]) -> Self {
        let mut server = Self::launch(command, folder.path(), args)
            .unwrap_or_else(|output| panic!("no start: {output}"));
        server.folder = Some(folder);
        server
    }

    /// As [`Server::start_in`]; what it printed if it ends instead of getting ready.
    pub fn try_start_in(data_dir: &Path, args: &[&str]) -> Result<Self, String> {
        Self::launch(nereid(), data_dir, args)
    }

    /// As [`Server::try_start_in`], with a command that has settings of its own.
    pub fn launch(mut command: Command, data_dir: &Path, args: &[&str]) -> Result<Self, String> {
        let mut child = command
            .arg("dev")
            .args(["--port", "0", "--s3-port", "0", "--data-dir"])
            .arg(data_dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let log = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let mut seen = String::new();
        let mut lines = BufReader::new(stdout).lines();
        for line in &mut lines {
            let line = line.unwrap();
            if let Some(api) = line.trim().strip_prefix("API ") {
                let api = api.trim().to_owned();
                // Nobody reads on: what it prints later must not fill the pipe.
                std::thread::spawn(move || lines.for_each(drop));
                let said = |what: &str| {
                    let line = |line: &str| Some(line.trim().strip_prefix(what)?.trim().to_owned());
                    seen.lines().find_map(line).unwrap_or_default()
                };
                let s3 = said("S3 ");
                let s3 = s3.split_whitespace().next();
                return Ok(Self {
                    child,
                    api,
                    s3: s3.unwrap_or_default().to_owned(),
                    grpc: said("gRPC "),
                    folder: None,
                });
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        child.wait().unwrap();
        Err(seen + &log.join().unwrap())
    }

    pub fn client(&self) -> Client {
        Client::new(&self.api, None).unwrap()
    }

    /// A client of the embedded S3, whose credentials are no secret.
    pub async fn objects(&self) -> Objects {
        Objects::connect(ObjectStoreConfig {
            bucket: "nereid".to_owned(),
            endpoint: Some(self.s3.clone()),
            region: Some("us-east-1".to_owned()),
            path_style: true,
            credentials: Some(("nereid".to_owned(), "nereid-dev-secret".to_owned())),
        })
        .await
        .unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api.trim_end_matches('/'))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        signal_process(self.pid(), signal);
    }

    /// Waits for the end and returns how long it took.
    pub fn wait(&mut self) -> (std::process::ExitStatus, Duration) {
        let start = Instant::now();
        (self.child.wait().unwrap(), start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that was waited for is gone, and its number may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process.
pub fn signal_process(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .status();
}

/// The binary, with nothing of the caller's configuration.
pub fn nereid() -> Command {
    let mut command = Command::new(binary());
    for name in [
        "DATABASE_URL",
        "NEREID_URL",
        "NEREID_API_KEY",
        "NEREID_CONFIG",
        "NEREID_DATA_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a client command against a server and returns status, standard output and error.
pub fn cli(server: &Server, args: &[&str]) -> (i32, String, String) {
    let output = nereid()
        .args(args)
        .env("NEREID_URL", &server.api)
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A name that no other test uses.
pub fn unique(stem: &str) -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("{stem}-{}", &id[20..])
}

/// Registers a dataset from bytes.
pub async fn add_dataset(
    client: &Client,
    name: &str,
    format: DatasetFormat,
    files: &[(FileRole, &str, Vec<u8>)],
    label_column: Option<&str>,
    shape: Option<Vec<usize>>,
) -> DatasetVersion {
    let mut uris = std::collections::BTreeMap::new();
    for (role, file, bytes) in files {
        let stored = client.upload_bytes(file, bytes.clone()).await.unwrap();
        uris.insert(*role, stored.uri.into());
    }
    let source = DatasetSource {
        format,
        files: uris,
        label_column: label_column.map(str::to_owned),
        label_columns: Vec::new(),
        shape,
        target: None,
        columns: [].into(),
        arrays: [].into(),
    };
    let new = NewDataset {
        name: name.parse().unwrap(),
        description: None,
        tags: std::collections::BTreeMap::new(),
        source,
    };
    client.register_dataset(&new).await.unwrap()
}

/// The demo's digits.
pub async fn add_digits(client: &Client, name: &str) -> DatasetVersion {
    let bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/digits.csv.gz")).unwrap();
    let files = [(FileRole::Data, "digits.csv.gz", bytes)];
    add_dataset(
        client,
        name,
        DatasetFormat::Csv,
        &files,
        Some("label"),
        Some(vec![8, 8, 1]),
    )
    .await
}

/// Rows of a table whose class follows from its features, as CSV: `x0…`, `label`.
pub fn table_csv(rows: usize, features: usize, classes: usize) -> String {
    use std::fmt::Write;
    let mut state = 7_u64;
    let mut next = || {
        // Knuth's MMIX generator: the table must be the same in each run.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 40).unwrap()) / f64::from(1 << 24)
    };
    let mut csv = String::new();
    for i in 0..features {
        write!(csv, "x{i},").unwrap();
    }
    csv.push_str("label\n");
    for row in 0..rows {
        let class = row % classes;
        for i in 0..features {
            let centre = if i % classes == class { 1.0 } else { 0.0 };
            write!(csv, "{:.4},", centre + next()).unwrap();
        }
        writeln!(csv, "{class}").unwrap();
    }
    csv
}

/// A small network for the digits, which learns in a second.
pub fn tiny_job(model: &str, dataset: &str, epochs: u32) -> Value {
    json!({
        "kind": "train",
        "spec": {
            "model": model,
            "dataset": dataset,
            "network": {"layers": [
                {"type": "Flatten"},
                {"type": "Dense", "units": 32, "activation": "relu"},
                {"type": "BatchNormalization"},
                {"type": "Dropout", "rate": 0.1},
                {"type": "Dense", "units": 10},
            ]},
            "loss": {"type": "sparse_categorical_crossentropy"},
            "metrics": ["accuracy"],
            "fit": {"epochs": epochs, "batch_size": 32, "test_split": 0.2, "seed": 1},
        },
    })
}

/// Submits a job and waits until it has succeeded.
pub async fn succeed(client: &Client, job: &Value) -> Job {
    let job = client
        .submit_job(job)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    finish(client, job.id).await
}

/// Waits until a job has succeeded.
pub async fn finish(client: &Client, id: nereid_core::ids::JobId) -> Job {
    let job = client.watch_job(id, |_| {}).await.unwrap();
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    job
}

/// Trains the tiny network on digits and deploys it; returns the model's and endpoint's name.
pub async fn deployed_digits(client: &Client) -> String {
    let name = unique("digits");
    add_digits(client, &name).await;
    succeed(client, &tiny_job(&name, &name, 3)).await;
    let job = client.deploy_model(&name, 1, &json!({})).await.unwrap();
    finish(client, job.id).await;
    name
}

/// The JSON block behind `<!-- spec: name -->` in the README.
pub fn readme_spec(name: &str) -> Value {
    let readme = include_str!("../../README.md");
    let marker = format!("<!-- spec: {name} -->\n```json\n");
    let (_, rest) = readme.split_once(&marker).expect("the README has the spec");
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// The README's job with names of the test's own.
pub fn renamed(mut job: Value, names: &[(&str, &str)]) -> Value {
    for (field, name) in names {
        job["spec"][field] = json!(name);
    }
    job
}

/// The real MNIST files, which lie beside the repository and not in it.
#[expect(
    clippy::disallowed_methods,
    reason = "where the data lies differs from machine to machine"
)]
pub fn mnist(file: &str) -> Vec<u8> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/mnist").to_owned();
    let folder = std::env::var("NEREID_TEST_MNIST").unwrap_or(beside);
    let path = Path::new(&folder).join(file);
    std::fs::read(&path).unwrap_or_else(|e| {
        panic!(
            "this test needs MNIST: {}: {e}; set NEREID_TEST_MNIST to its folder",
            path.display()
        )
    })
}
