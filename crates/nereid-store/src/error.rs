//! Everything that can go wrong in the store.

use std::fmt::Display;

use thiserror::Error;

/// Kind of resource an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named for what it is")]
pub enum ResourceKind {
    Project,
    Dataset,
    DatasetVersion,
    Job,
    Model,
    ModelVersion,
    ModelAlias,
    Endpoint,
    Worker,
    Key,
}

impl ResourceKind {
    /// Returns the word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Dataset => "dataset",
            Self::DatasetVersion => "dataset version",
            Self::Job => "job",
            Self::Model => "model",
            Self::ModelVersion => "model version",
            Self::ModelAlias => "alias of a model",
            Self::Endpoint => "endpoint",
            Self::Worker => "worker",
            Self::Key => "key",
        }
    }
}

/// Everything that can go wrong in the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing of that name or id in the project.
    #[error("no {} {id:?}", kind.as_str())]
    NotFound {
        /// What was looked for.
        kind: ResourceKind,
        /// By which name or id.
        id: String,
    },
    /// Something of that name is there already.
    #[error("{} {id:?} exists already", kind.as_str())]
    AlreadyExists {
        /// What was to be made.
        kind: ResourceKind,
        /// Its name.
        id: String,
    },
    /// The state does not allow the change.
    #[error("{what}")]
    Conflict {
        /// Stable code: `in_use`, `job_final`, `job_not_final`, `not_deployed`, ….
        code: &'static str,
        /// Which state forbids what, and what would be right.
        what: String,
    },
    /// A request with the same idempotency key is under way.
    #[error("a request with the same Idempotency-Key is still under way")]
    IdempotencyInFlight,
    /// The idempotency key was used with another request.
    #[error("this Idempotency-Key was used with another request")]
    IdempotencyMismatch,
    /// The attempt is no longer current: its lease ended or was taken over.
    #[error("the attempt is no longer current")]
    LeaseLost,
    /// A row does not hold what the code expects.
    #[error("corrupt row {id} in {table}.{column}: {source}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Key of the row.
        id: String,
        /// What did not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema is older or newer than this binary.
    #[error("{0}")]
    Schema(String),
    /// Postgres is away, refuses, or failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Builds [`StoreError::NotFound`].
    pub(crate) fn not_found(kind: ResourceKind, id: &(impl Display + ?Sized)) -> Self {
        let id = id.to_string();
        Self::NotFound { kind, id }
    }

    /// Builds [`StoreError::Conflict`].
    pub(crate) fn conflict(code: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self::Conflict { code, what }
    }

    /// Turns a violation of the unique index `index` into [`StoreError::AlreadyExists`].
    pub(crate) fn exists(
        index: &'static str,
        kind: ResourceKind,
        id: &(impl Display + ?Sized),
    ) -> impl FnOnce(sqlx::Error) -> Self {
        let id = id.to_string();
        move |e| match &e {
            sqlx::Error::Database(d) if d.constraint() == Some(index) => {
                Self::AlreadyExists { kind, id }
            }
            _ => Self::Database(e),
        }
    }

    /// Tells whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database(e) => match e {
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Tls(_) => true,
                // Classes 08 (connection), 53 (resources), 57 (operator intervention) and 40
                // (rollback: serialisation failure, deadlock) of appendix A of Postgres' manual; 55P03
                // is a lock that somebody holds for too long, 25P03 a transaction idle for too long.
                sqlx::Error::Database(d) => d.code().is_some_and(|c| {
                    ["08", "53", "57", "40", "55P03", "25P03"]
                        .iter()
                        .any(|class| c.starts_with(class))
                }),
                _ => false,
            },
            _ => false,
        }
    }
}
