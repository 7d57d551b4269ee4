//! What can go wrong: with a worker as a whole, and with one attempt of a job.

use std::{io, net::SocketAddr, path::PathBuf};

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
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use the folder {}: {source}", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
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
        source: io::Error,
    },
}

impl RunError {
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
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
        use TerminationReason::{DiskFull, Internal, InvalidInput, Unavailable};
        Some(match self {
            Self::Halted
            | Self::Engine(EngineError::Stopped)
            | Self::Store(StoreError::LeaseLost) => return None,
            Self::Replica { reason, .. } => *reason,
            Self::Io { source, .. } | Self::Objects(ObjectError::Local { source, .. })
                if is_disk_full(source) =>
            {
                DiskFull
            }
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

/// Tells whether there is no room for what was to be written.
fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_trouble_with_files() {
        use TerminationReason::{DiskFull, Unavailable};
        let scratch = |kind: io::ErrorKind| RunError::io("cannot write", kind.into()).reason();
        assert_eq!(scratch(io::ErrorKind::StorageFull), Some(DiskFull));
        assert_eq!(scratch(io::ErrorKind::QuotaExceeded), Some(DiskFull));
        assert_eq!(scratch(io::ErrorKind::Other), Some(Unavailable));
        let download = |kind: io::ErrorKind| {
            RunError::from(ObjectError::Local {
                target: "s3://bucket/key".to_owned(),
                action: "write a file".to_owned(),
                source: kind.into(),
            })
        };
        let full = download(io::ErrorKind::StorageFull);
        assert_eq!(full.reason(), Some(DiskFull));
        let other = download(io::ErrorKind::PermissionDenied);
        assert_eq!(other.reason(), Some(Unavailable));
    }
}
