//! Keeps the server's life within ours: a small shell waits for our end and then stops it.
//!
//! The shell reads a pipe whose other end only this process holds, so that any death of ours,
//! `kill -9` included, reaches it as an end of file. It is in a process group of its own: Ctrl-C
//! reaches Nereid alone, which then decides the order of shutdown.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Stdio},
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use super::account::Account;
use crate::LocalError;

/// Arguments: first signal, folder of the socket, folder to delete or "", server, its arguments.
///
/// Postgres stops in an orderly way on INT, at once on QUIT; nothing survives the last KILL. At
/// the end the shell signals its whole group, which ends the waiting subshell and its `sleep`.
const SCRIPT: &str = r#"
first=$1 sockets=$2 scratch=$3
shift 3
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    read -r line <&3
    kill -s "$first" "$server"
    sleep 5
    kill -s QUIT "$server"
    sleep 2
    kill -s KILL "$server"
) 2>/dev/null &
exec 3<&-
wait "$server"
status=$?
trap '' TERM
kill -s TERM 0
rm -rf "$sockets" ${scratch:+"$scratch"}
exit "$status"
"#;

/// What to run, and what to leave behind.
pub(super) struct Launch<'a> {
    pub(super) account: Account,
    pub(super) server: &'a Path,
    pub(super) arguments: &'a [String],
    pub(super) socket_dir: &'a Path,
    /// Deleted after the server's end.
    pub(super) scratch: Option<&'a Path>,
    pub(super) log: File,
}

/// A running server; dropping it stops the server without waiting for that.
#[derive(Debug)]
pub(super) struct Supervisor {
    pipe: Mutex<Option<ChildStdin>>,
    exited: watch::Receiver<Option<String>>,
}

impl Supervisor {
    pub(super) fn spawn(launch: Launch<'_>) -> Result<Self, LocalError> {
        let shell = Path::new("/bin/sh");
        let log = launch
            .log
            .try_clone()
            .map_err(LocalError::io("use the log for", shell))?;
        // Nothing of a throw-away server is worth the orderly shutdown.
        let first_signal = if launch.scratch.is_some() {
            "QUIT"
        } else {
            "INT"
        };
        let mut child = launch
            .account
            .command(shell)
            .args(["-c", SCRIPT, "nereid-postgres", first_signal])
            .arg(launch.socket_dir)
            .arg(launch.scratch.unwrap_or(Path::new("")))
            .arg(launch.server)
            .args(launch.arguments)
            .env("LC_ALL", "C")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(launch.log)
            .spawn()
            .map_err(LocalError::io("run", shell))?;
        let pipe = child.stdin.take();
        let (report, exited) = watch::channel(None);
        // A thread rather than a task: a server shared by tests outlives the runtime it came from.
        std::thread::Builder::new()
            .name("nereid-postgres".to_owned())
            .spawn(move || {
                let status = child
                    .wait()
                    .map_or_else(|e| e.to_string(), |s| s.to_string());
                report.send_replace(Some(status));
            })
            .map_err(LocalError::io("start a thread for", shell))?;
        Ok(Self {
            pipe: Mutex::new(pipe),
            exited,
        })
    }

    /// Asks the server to stop.
    pub(super) fn close(&self) {
        self.pipe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Waits for its end.
    pub(super) async fn exited(&self) -> String {
        let mut exited = self.exited.clone();
        let status = exited.wait_for(Option::is_some).await;
        status
            .ok()
            .and_then(|status| status.clone())
            .unwrap_or_else(|| "unknown".to_owned())
    }
}
