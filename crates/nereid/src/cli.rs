//! The command line's grammar.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use nereid_core::{
    Name,
    datasets::{DatasetFormat, TargetKind},
    ids::JobId,
    jobs::{JobKind, JobStatus},
    keys::Role,
    workers::DeviceKind,
};

/// Self-hosted deep learning: train on data in S3, publish versions, deploy and serve them.
#[derive(Debug, Parser)]
#[command(name = "nereid", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Configuration file (TOML); see nereid.example.toml.
    #[arg(long, global = true, env = "NEREID_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which server client commands talk to.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Address of the API, for client commands.
    #[arg(
        long,
        global = true,
        env = "NEREID_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,
    /// API key, for client commands.
    #[arg(long, global = true, env = "NEREID_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on this machine: Postgres, S3, API and a worker.
    Dev(DevArgs),
    /// Run `dev`, train and deploy a digit classifier, and keep serving it.
    Demo(DevArgs),
    /// Run the API and inference gateway.
    Api(ApiArgs),
    /// Run a worker: it trains, optimises and serves.
    Worker(WorkerArgs),
    /// Keep as many workers as the queue needs, on this machine or in Kubernetes.
    Pool(PoolArgs),
    /// Train for a worker, which starts this process and talks to it over standard input.
    #[command(hide = true)]
    Trainer(TrainerArgs),
    /// Try a runtime on a model for a worker, which starts this process in case it aborts.
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Bring the database's schema up to date.
    Migrate,
    /// Print the OpenAPI document.
    Openapi,
    /// Manage API keys, directly in the database.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Measure, in a database of its own.
    #[command(subcommand)]
    Bench(crate::commands::bench::BenchCommand),
    /// Work with datasets.
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Work with jobs.
    #[command(subcommand)]
    Job(JobCommand),
    /// Work with models.
    #[command(subcommand)]
    Model(crate::commands::models::ModelCommand),
    /// Work with endpoints.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Folder for Postgres, objects and caches.
    #[arg(
        long,
        default_value = ".nereid",
        env = "NEREID_DATA_DIR",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
    /// Address to listen on; others than loopback need API keys.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port of the API; 0 picks a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Port of gRPC (8081, or a free one if --port is 0); 0 picks a free one.
    #[arg(long)]
    pub grpc_port: Option<u16>,
    /// Port of the embedded S3; 0 picks a free one.
    #[arg(long, default_value_t = 9000)]
    pub s3_port: u16,
    /// Jobs run at the same time; overrides the configuration.
    #[arg(long)]
    pub slots: Option<u32>,
    /// End when the demo is through instead of serving on.
    #[arg(long, hide = true)]
    pub exit_when_done: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// Address and port to listen on; overrides the configuration.
    #[arg(long)]
    pub listen: Option<std::net::SocketAddr>,
    /// Port of gRPC (8081, or a free one if that of --listen is 0); 0 picks a free one.
    #[arg(long)]
    pub grpc_port: Option<u16>,
}

#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Jobs run at the same time; overrides the configuration.
    #[arg(long)]
    pub slots: Option<u32>,
    /// What to compute on; overrides the configuration.
    #[arg(long, value_parser = word::<DeviceKind>)]
    pub device: Option<DeviceKind>,
    /// Label `key=value`; repeatable, added to the configuration's.
    #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
    pub labels: Vec<(String, String)>,
    /// End once somebody has drained this worker and it has nothing left to do.
    #[arg(long)]
    pub exit_when_drained: bool,
}

#[derive(Debug, Clone, Args)]
pub struct PoolArgs {
    /// Name of the pool; its workers have it as label `nereid.pool`.
    #[arg(long, default_value = "default")]
    pub name: Name,
    /// Where workers come from.
    #[arg(long, value_enum, default_value = "local")]
    pub provider: Provider,
    /// Least number of workers.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub min: u32,
    /// Largest number of workers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max: u32,
    /// Jobs that each worker runs at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub slots: u32,
    /// What the workers compute on.
    #[arg(long, value_parser = word::<DeviceKind>, default_value = "cpu")]
    pub device: DeviceKind,
    /// Label `key=value` of the workers; repeatable.
    #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
    pub labels: Vec<(String, String)>,
    /// Seconds between two steps outwards.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub scale_out_cooldown: u32,
    /// Seconds for which fewer workers must have sufficed before some are taken away.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub scale_in_cooldown: u32,
    /// Deployment of the workers, in Kubernetes.
    #[arg(long, required_if_eq("provider", "kubernetes"))]
    pub deployment: Option<String>,
    /// Its namespace; that of the service account or the kubeconfig unless given.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Configuration file that the workers are started with.
    #[arg(skip)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// Processes of this machine.
    Local,
    /// Pods of a Deployment.
    Kubernetes,
}

#[derive(Debug, Clone, Args)]
pub struct TrainerArgs {
    /// Filter of the log, which goes to standard error.
    #[arg(long, default_value = "info")]
    pub log: String,
}

#[derive(Debug, Clone, Args)]
pub struct ProbeArgs {
    /// Folder of the model's files.
    pub folder: PathBuf,
    /// The runtime to try: tract or onnxruntime.
    pub runtime: String,
    /// The library of ONNX Runtime.
    pub library: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print its secret, once.
    Create {
        /// What the key may do: viewer, trainer, deployer or admin.
        #[arg(long, value_parser = word::<Role>)]
        role: Role,
        /// What it is for, unique in the project; made up unless given.
        #[arg(long)]
        name: Option<Name>,
        /// Project it is bound to.
        #[arg(long, default_value = "default")]
        project: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Upload files (or name S3 URIs) and register them as a dataset version.
    Add(DatasetAdd),
    /// List datasets.
    List,
}

#[derive(Debug, Clone, Args)]
pub struct DatasetAdd {
    /// Name; an existing one gets another version.
    pub name: Name,
    /// Data: a local file or folder, an s3:// URI, or a prefix of objects that ends in /; repeat it
    /// for several shards, which are read in this order.
    #[arg(long, required = true)]
    pub file: Vec<String>,
    /// Labels in a file of their own (idx, npy): a local path or an s3:// URI.
    #[arg(long)]
    pub labels: Option<String>,
    /// Format; guessed from the file's name unless given: csv, jsonl, parquet, npy, npz, idx or
    /// images.
    #[arg(long, value_parser = json_word::<DatasetFormat>)]
    pub format: Option<DatasetFormat>,
    /// Column of a table that holds the label.
    #[arg(long, value_name = "COLUMN")]
    pub label_column: Option<String>,
    /// Columns of a table that hold several labels or numbers to predict, such as rain,wind.
    #[arg(
        long,
        value_name = "COLUMNS",
        value_delimiter = ',',
        conflicts_with = "label_column"
    )]
    pub label_columns: Vec<String>,
    /// Shape of one sample, channels last, such as 8,8,1.
    #[arg(long, value_delimiter = ',')]
    pub shape: Option<Vec<usize>>,
    /// Whether the label is a class or a value; found from the data unless given.
    #[arg(long, value_parser = json_word::<TargetKind>)]
    pub target: Option<TargetKind>,
    /// Free text.
    #[arg(long)]
    pub description: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Submit the job in a TOML, YAML or JSON file (the body of POST /v1/jobs).
    Submit {
        /// The file; - reads JSON from standard input.
        #[arg(long)]
        file: PathBuf,
        /// Watch it until it has ended.
        #[arg(long)]
        watch: bool,
    },
    /// Watch a job until it has ended; the exit status is the job's.
    Watch {
        /// The job.
        id: JobId,
    },
    /// Show a job: where it stands, and why it waits.
    #[command(alias = "show")]
    Get {
        /// The job.
        id: JobId,
    },
    /// List jobs, newest first.
    List {
        /// Only with this status.
        #[arg(long, value_parser = word::<JobStatus>)]
        status: Option<JobStatus>,
        /// Only of this kind.
        #[arg(long, value_parser = word::<JobKind>)]
        kind: Option<JobKind>,
        /// Only about this model.
        #[arg(long)]
        model: Option<String>,
        /// Only with this label; repeatable.
        #[arg(long = "label", value_parser = key_value, value_name = "KEY=VALUE")]
        labels: Vec<(String, String)>,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Print a job's log.
    Logs {
        /// The job.
        id: JobId,
    },
    /// Show a job's attempts: on which worker, from when to when, and why each ended.
    Attempts {
        /// The job.
        id: JobId,
    },
    /// Put a job aside: it saves its state, frees its worker, and goes on when resumed.
    Pause {
        /// The job.
        id: JobId,
    },
    /// Let a paused job go on.
    Resume {
        /// The job.
        id: JobId,
    },
    /// End a training now and keep its model.
    Stop {
        /// The job.
        id: JobId,
    },
    /// End a job without a model.
    Cancel {
        /// The job.
        id: JobId,
    },
    /// Queue a failed or stopped job again.
    Retry {
        /// The job.
        id: JobId,
    },
}

#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// List endpoints.
    List,
    /// Ask an endpoint for predictions.
    Predict {
        /// The endpoint.
        name: Name,
        /// One row as JSON: an array of numbers (nested or flat) or an object by column; repeatable.
        #[arg(long = "row", required_unless_present = "file")]
        rows: Vec<String>,
        /// JSON file with an array of rows.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Make the variants that served before serve again.
    Rollback {
        /// The endpoint.
        name: Name,
    },
    /// Delete an endpoint.
    Delete {
        /// The endpoint.
        name: Name,
    },
}

fn word<T: std::str::FromStr<Err = nereid_core::jobs::UnknownWord>>(s: &str) -> Result<T, String> {
    s.parse::<T>().map_err(|e| e.to_string())
}

fn json_word<T: serde::de::DeserializeOwned>(s: &str) -> Result<T, String> {
    serde_json::from_value(s.into()).map_err(|e| e.to_string())
}

fn key_value(s: &str) -> Result<(String, String), String> {
    let (key, value) = s
        .split_once('=')
        .ok_or_else(|| format!("{s:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        super::Cli::command().debug_assert();
    }
}
