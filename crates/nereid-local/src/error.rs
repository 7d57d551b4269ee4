//! The one error of this crate; every message says what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

/// Why a local server could not be started or stopped.
#[derive(Debug, Error)]
pub enum LocalError {
    /// Another process holds the lock of the directory.
    #[error(
        "{} is in use by {}: stop it first, or choose another data directory",
        dir.display(),
        holder(*pid)
    )]
    InUse {
        /// The locked directory.
        dir: PathBuf,
        /// The process that holds it, if it could be read.
        pid: Option<u32>,
    },
    /// Something else listens on the address.
    #[error(
        "{addr} is already in use: stop what listens there, or choose another port (0 picks one)"
    )]
    PortInUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The embedded S3 has development credentials and must not be reachable from outside.
    #[error("the embedded S3 serves loopback only, not {addr}: use 127.0.0.1 or [::1]")]
    NotLoopback {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// A bucket name that S3 does not allow.
    #[error("{name:?} is no valid bucket name: use 3 to 63 of a-z, 0-9, '-' and '.'")]
    BadBucketName {
        /// The name asked for.
        name: String,
    },
    /// No complete Postgres installation was found.
    #[error(
        "no Postgres found (initdb, postgres and pg_ctl) in {}: install it, for example with \
         `apt-get install postgresql`, or name its bin directory in NEREID_PG_BIN, or use a \
         Postgres of your own by setting DATABASE_URL",
        looked_in.join(", ")
    )]
    PostgresNotFound {
        /// Every place that was looked at.
        looked_in: Vec<String>,
    },
    /// Nereid is root and there is no other user to run Postgres as.
    #[error(
        "Postgres refuses to run as root and neither user `postgres` nor `nobody` exists: create \
         one, or run Nereid as an ordinary user"
    )]
    NoUnprivilegedUser,
    /// A program of Postgres failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// Which one.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// The server ended, or was not ready in time.
    #[error("Postgres {what}; the end of {}: {log}", log_file.display())]
    PostgresStart {
        /// What went wrong.
        what: String,
        /// Where it logs.
        log_file: PathBuf,
        /// The end of its log.
        log: String,
    },
    /// A server of an earlier run does not stop.
    #[error(
        "a Postgres of an earlier run (process {pid}) still runs on {} and does not stop: end it \
         by hand",
        dir.display()
    )]
    StaleServer {
        /// Its directory.
        dir: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The runtime was shut down meanwhile.
    #[error("interrupted: the runtime is shutting down")]
    Interrupted,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another Nereid".to_owned(),
        |pid| format!("another Nereid (process {pid})"),
    )
}

impl LocalError {
    /// Adds what was tried, and on what, to an I/O error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
