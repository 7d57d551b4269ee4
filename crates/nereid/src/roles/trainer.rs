//! `nereid trainer`: the process that a worker starts for each training.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use nereid_core::{engine::Engine, models::Runtime};
use nereid_engine::{Probe, Settings};
use nereid_worker::{ProcessConfig, ProcessTrainer};

use crate::{
    cli::{ProbeArgs, TrainerArgs},
    config::Config,
    shutdown::Signals,
    telemetry,
};

/// Environment that a training gets, as far as it is set; everything else, credentials above all,
/// stays with the worker.
const VARIABLES: [&str; 12] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "RAYON_NUM_THREADS",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];
/// Beginnings of the names of variables that choose and set up graphics cards.
const PREFIXES: [&str; 5] = ["CUDA_", "MESA_", "NVIDIA_", "VK_", "WGPU_"];

/// Least time for the last snapshot of a training that is suspended.
const LAST_SNAPSHOT: Duration = Duration::from_mins(2);

/// The engine of a worker: trainings run in processes of their own.
pub fn engine(config: &Config) -> anyhow::Result<Engine> {
    let program = program().context("cannot find the program to train with")?;
    let environment: Vec<_> = std::env::vars_os().filter(|(n, _)| is_passed(n)).collect();
    let library = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    let settings = Settings {
        onnxruntime: config
            .worker
            .onnxruntime
            .clone()
            .or(library.map(PathBuf::from)),
        probe: Some(Probe {
            program: program.clone(),
            arguments: vec!["probe".into()],
            environment: environment.clone(),
        }),
    };
    let process = ProcessConfig {
        program,
        name: "nereid".into(),
        arguments: ["trainer", "--log", &config.log.filter]
            .map(OsString::from)
            .into(),
        environment,
        lease: config.worker.lease,
        suspend_grace: config.worker.drain_timeout.max(LAST_SNAPSHOT),
        memory_limit: config.worker.memory_limit.map(|size| size.as_u64()),
    };
    Ok(Engine {
        trainer: Arc::new(ProcessTrainer::new(process)),
        ..nereid_engine::engine_with(settings)
    })
}

/// This very program, even if another version was put in its place meanwhile.
fn program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe()
}

fn is_passed(name: &OsString) -> bool {
    let name = name.to_str().unwrap_or_default();
    VARIABLES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Trains what the worker at standard input asks for.
pub fn run(args: &TrainerArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_trainer(&args.log)?;
    leave_signals_to_worker().context("cannot listen to signals")?;
    Ok(nereid_worker::serve(&*nereid_engine::engine().trainer))
}

/// Tries a runtime on a model: a success, a message, or whatever the runtime does to the process.
pub fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::ALL
        .into_iter()
        .find(|r| r.as_str() == args.runtime)
        .with_context(|| format!("there is no runtime {:?}", args.runtime))?;
    nereid_engine::serve_probe(&args.folder, runtime, args.library.clone())?;
    Ok(ExitCode::SUCCESS)
}

/// A supervisor may signal all processes of a service at once; here the worker decides.
fn leave_signals_to_worker() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    // The handlers stay for as long as the process lives; nobody asks what they caught.
    runtime.block_on(async { Signals::listen().map(drop) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_passed_on() {
        let passed = |name: &str| is_passed(&name.into());
        for secret in [
            "AWS_SECRET_ACCESS_KEY",
            "DATABASE_URL",
            "NEREID__DATABASE__URL",
            "NEREID_API_KEY",
            "PGPASSWORD",
        ] {
            assert!(!passed(secret), "{secret}");
        }
        assert!(passed("PATH") && passed("CUDA_VISIBLE_DEVICES"));
    }
}
