//! `nereid bench …`: measures, and prints figures as a table or as JSON.

mod dispatch;
mod http;
mod load;
mod pgbench;
mod serve;
mod site;
mod train;

use clap::{Args, Subcommand, ValueEnum};
use nereid_core::{spec::DtypePolicy, workers::DeviceKind};

use crate::{config::Config, telemetry};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure the queue on a real Postgres: submissions, drained jobs, time from call to start.
    ///
    /// Works in a database of its own on the configured server, and drops it at the end.
    Dispatch(DispatchArgs),
    /// Measure training: samples per second of the engine alone, on made-up data.
    ///
    /// The data lies in memory, then in an S3 on loopback, streamed from there in each epoch.
    /// benches/peers/train.py runs the same networks in PyTorch and TensorFlow, in turn with these.
    Train(TrainArgs),
    /// Measure serving: requests per second and latency through HTTP, beside the raw computation.
    ///
    /// Starts a site of its own, as `nereid dev` does, in a temporary folder. benches/peers/serve.py
    /// starts servers to compare with.
    Serve(ServeArgs),
}

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Networks to measure, by name.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tabular-32,mnist-cnn-64,resnet18-32"
    )]
    pub networks: Vec<String>,
    /// Connections that ask at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub clients: u16,
    /// Length of each measurement, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Rounds; in each, everything is measured in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Requests per second of the open loop, as a share of what the closed loop reached.
    #[arg(long, default_value_t = 0.5)]
    pub load: f64,
    /// How the endpoints form batches, as JSON; the defaults unless given.
    #[arg(long, value_parser = object)]
    pub batching: Option<serde_json::Value>,
    /// Another server that serves a network by the Open Inference Protocol:
    /// `name:network=http://host:port/path`.
    #[arg(long = "peer")]
    pub peers: Vec<String>,
    /// Then offer three times of what the closed loop reached, for so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub overload: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub struct TrainArgs {
    /// Networks to measure, by name; all unless given.
    #[arg(long, value_delimiter = ',')]
    pub networks: Vec<String>,
    /// Epochs that count; the median of them is reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub epochs: u32,
    /// Where the data lies.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "memory,s3")]
    pub data: Vec<DataPlace>,
    /// What to compute on.
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: DeviceKind,
    /// In which numbers layers are computed: float32, `mixed_float16` or auto.
    #[arg(long, default_value = "float32", value_parser = policy)]
    pub dtype_policy: DtypePolicy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataPlace {
    /// Decoded, in memory.
    Memory,
    /// In S3, read again in each epoch.
    S3,
}

#[derive(Debug, Clone, Args)]
pub struct DispatchArgs {
    /// Clients that submit at the same time; each number is measured.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub clients: Vec<u16>,
    /// Length of each measurement of submissions, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Jobs that one worker process drains.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub jobs: u64,
    /// Slots of that worker.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: u32,
    /// Jobs submitted one by one to an idle queue, to time their start.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub samples: u32,
}

/// Runs a benchmark.
pub async fn run(mut config: Config, command: BenchCommand, json: bool) -> anyhow::Result<()> {
    if config.log.filter == "info" {
        // A log line per job would be measured, too, and hide the figures.
        "warn".clone_into(&mut config.log.filter);
    }
    telemetry::start(&config.log)?;
    match command {
        BenchCommand::Dispatch(args) => dispatch::run(&config, &args, json).await,
        BenchCommand::Train(args) => train::run(&args, json).await,
        BenchCommand::Serve(args) => Box::pin(serve::run(config, &args, json)).await,
    }
}

fn object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!("{other} is no object")),
        Err(e) => Err(e.to_string()),
    }
}

fn device(word: &str) -> Result<DeviceKind, String> {
    word.parse::<DeviceKind>().map_err(|e| e.to_string())
}

fn policy(word: &str) -> Result<DtypePolicy, String> {
    let word = serde_json::Value::String(word.to_owned());
    serde_json::from_value(word).map_err(|e| e.to_string())
}
