//! What can go wrong: with a worker as a whole, and with one attempt of a job.

use std::{net::SocketAddr, path::PathBuf};

use nereid_core::{engine::EngineError, jobs::TerminationReason};
use nereid_objects::{InvalidUri, ObjectError};
use nereid_store::StoreError;
use thiserror::Error;

/// Why a worker could not start, or ended before it was asked to.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The configuration contradicts itself.
    #[error("worker configuration: {0}")]
    Config(String),
    /// The inference server's address cannot be bound.
    #[error("cannot listen on {addr} for inference: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use the folder {}: {source}", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Postgres refused the registration.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the worker ended by itself, which it never should.
    #[error("the worker's {task} ended: {cause}")]
    Ended {
        /// The part.
        task: &'static str,
        /// What is known of the cause.
        cause: String,
    },
}

/// Why an attempt did not succeed.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// It was asked to stop; by whom, the attempt's order tells.
    #[error("stopped as asked")]
    Halted,
    /// What the job refers to is not there, or is not what it was.
    #[error("{0}")]
    Input(String),
    /// Something it needs is not there now.
    #[error("{0}")]
    Unavailable(String),
    /// A fault in Nereid.
    #[error("{0}")]
    Internal(String),
    /// The deployed version cannot be served.
    #[error("no replica could be loaded: {message}")]
    Replica {
        /// Kind of failure.
        reason: TerminationReason,
        /// What the replica's worker said.
        message: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Postgres failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// S3 failed or refused.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A key or URI that Nereid itself made is not allowed.
    #[error(transparent)]
    Uri(#[from] InvalidUri),
    /// A local file cannot be read or written.
    #[error("{context}: {source}")]
    Io {
        /// What was read or written.
        context: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl RunError {
    pub(crate) fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            context: context.into(),
            source,
        }
    }

    /// The error and its causes, as far as they are not said already.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let detail = error.to_string();
            if !text.contains(&detail) {
                text.push_str(": ");
                text.push_str(&detail);
            }
            cause = error.source();
        }
        text
    }

    /// Kind of failure, which decides whether the job is tried again; none if it was asked to
    /// stop.
    pub(crate) fn reason(&self) -> Option<TerminationReason> {
        use TerminationReason::{Internal, InvalidInput, Unavailable};
        Some(match self {
            Self::Halted
            | Self::Engine(EngineError::Stopped)
            | Self::Store(StoreError::LeaseLost) => return None,
            Self::Replica { reason, .. } => *reason,
            Self::Engine(e) => e.reason(),
            Self::Store(e) if e.is_unavailable() => Unavailable,
            Self::Objects(e) if e.is_retryable() => Unavailable,
            Self::Unavailable(_) | Self::Io { .. } | Self::Objects(ObjectError::Local { .. }) => {
                Unavailable
            }
            Self::Input(_)
            | Self::Store(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {
                InvalidInput
            }
            Self::Internal(_) | Self::Store(_) | Self::Objects(_) | Self::Uri(_) => Internal,
        })
    }
}
