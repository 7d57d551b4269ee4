//! Workers as processes of this machine.
//!
//! They outlive the pool that started them, as any worker outlives what is not its own; a pool that
//! starts again finds them by their label. A drained one ends by itself.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::Stdio};

use anyhow::Context;
use nereid_store::workers::PoolLoad;
use tokio::process::{Child, Command};

use crate::cli::PoolArgs;

/// Worker processes of this machine.
pub(super) struct Processes {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Those that this process started.
    children: Vec<Child>,
}

impl Processes {
    pub(super) fn new(args: &PoolArgs, labels: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(config) = &args.config {
            arguments.extend(["--config".into(), config.into()]);
        }
        let slots = args.slots.to_string();
        let fixed = ["worker", "--exit-when-drained", "--slots", &slots];
        arguments.extend(fixed.map(OsString::from));
        arguments.extend(["--device".into(), args.device.as_str().into()]);
        for (key, value) in labels {
            arguments.extend(["--label".into(), format!("{key}={value}").into()]);
        }
        Ok(Self {
            program,
            arguments,
            children: Vec::new(),
        })
    }

    /// Workers that are registered, and processes that are about to be.
    pub(super) fn current(&mut self, load: &PoolLoad) -> u32 {
        self.children.retain_mut(|child| match child.try_wait() {
            Ok(Some(status)) => {
                tracing::info!(pid = child.id(), %status, "a worker of the pool ended");
                false
            }
            _ => true,
        });
        super::count(load.members.len().max(self.children.len()))
    }

    pub(super) fn start(&mut self, by: u32) -> anyhow::Result<()> {
        for _ in 0..by {
            let mut command = Command::new(&self.program);
            command.args(&self.arguments).stdin(Stdio::null());
            // Each finds a free port, however the configuration fixes it for one.
            command.env("NEREID__WORKER__LISTEN", "127.0.0.1:0");
            command.process_group(0);
            let child = command.spawn().context("starting a worker")?;
            tracing::info!(pid = child.id(), "started a worker for the pool");
            self.children.push(child);
        }
        Ok(())
    }
}
