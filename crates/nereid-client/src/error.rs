//! What can go wrong between a client and the API.

use nereid_core::Violation;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A problem document (RFC 9457) as the API sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// One line for people.
    pub title: String,
    /// What happened and what to do.
    #[serde(default)]
    pub detail: String,
    /// Names the request in the server's log.
    #[serde(default)]
    pub request_id: Option<String>,
    /// All mistakes found in the input.
    #[serde(default)]
    pub errors: Vec<Violation>,
    /// Seconds to wait before the request is sent again, from the answer's header.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// Tells whether the very same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code.as_str(),
            "unavailable"
                | "overloaded"
                | "timeout"
                | "too_many_requests"
                | "idempotency_in_flight"
        )
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, HTTP {})", self.title, self.code, self.status)?;
        if !self.detail.is_empty() && self.detail != self.title {
            write!(f, ": {}", self.detail)?;
        }
        for error in &self.errors {
            write!(f, "\n  {} {}: {}", error.pointer, error.code, error.detail)?;
        }
        Ok(())
    }
}

/// What can go wrong between a client and the API.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The API refused.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The server could not be reached, or the connection broke.
    #[error("cannot reach {url}: {source}")]
    Transport {
        /// What was asked for.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The answer is not what the API documents; perhaps another server listens there.
    #[error("unexpected answer from {url}: {detail}")]
    Unexpected {
        /// What was asked for.
        url: String,
        /// What did not fit.
        detail: String,
    },
    /// A local file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The server's address is no URL.
    #[error("{given:?} is no http(s) URL: {detail}")]
    BadUrl {
        /// What was given.
        given: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// Tells whether the very same request may succeed a little later.
    ///
    /// After a lost connection nobody knows whether the server did what it was asked to; only a
    /// request with an idempotency key may then be sent again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.is_transient(),
            Self::Transport { .. } => true,
            _ => false,
        }
    }

    /// Returns the problem document, if the API sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(p) => Some(p),
            _ => None,
        }
    }
}
