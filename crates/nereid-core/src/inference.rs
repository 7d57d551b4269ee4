//! What a client may ask of one inference beside its tensors, and what a replica answers.

use std::time::Duration;

use thiserror::Error;

use crate::tensors::{Tensor, wire};

/// How urgent an inference is, and how long it may take.
///
/// Triton's request parameters `priority` and `timeout`
/// (<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_parameters.md>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InferOptions {
    /// 1 is the most urgent; 0 is the default priority.
    pub priority: u32,
    /// Longest wait for the answer, counted from when the request was read.
    pub timeout: Option<Duration>,
}

/// What a replica answered, and what that took.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Outputs, as many rows as the request has.
    pub outputs: Vec<Tensor>,
    /// What it took.
    pub timing: Timing,
}

/// Where the time of an answer went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From the request's arrival at the replica until the engine began with it.
    pub queue: Duration,
    /// What the engine took for the whole batch.
    pub compute: Duration,
    /// Rows of that batch.
    pub batch_rows: u32,
    /// Executions to count for this answer: one for the first request of each batch.
    pub executions: u32,
}

/// Why a replica did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InferError {
    /// Its queue is full.
    #[error("the replica's queue is full")]
    Busy,
    /// The time for the answer was over before the engine began.
    #[error("the request's time was over before it was computed")]
    Expired,
    /// The batch does not fit the model.
    #[error("{0}")]
    Invalid(String),
    /// The model failed.
    #[error("the model failed: {0}")]
    Failed(String),
    /// The replica was unloaded.
    #[error("the replica is gone")]
    Gone,
}

/// Bytes before the tensors of an answer.
const HEAD: usize = 8 + 8 + 4 + 4;

impl Answer {
    /// Writes the answer as it travels from a replica to a gateway elsewhere.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let nanos = |d: Duration| {
            u64::try_from(d.as_nanos())
                .unwrap_or(u64::MAX)
                .to_le_bytes()
        };
        let mut bytes = Vec::with_capacity(HEAD + wire::encoded_len(&self.outputs));
        bytes.extend(nanos(self.timing.queue));
        bytes.extend(nanos(self.timing.compute));
        bytes.extend(self.timing.batch_rows.to_le_bytes());
        bytes.extend(self.timing.executions.to_le_bytes());
        wire::encode(&self.outputs, &mut bytes);
        bytes
    }

    /// Reads what [`Answer::to_bytes`] wrote; `None` if it is damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (queue, rest) = bytes.split_first_chunk()?;
        let (compute, rest) = rest.split_first_chunk()?;
        let (batch_rows, rest) = rest.split_first_chunk()?;
        let (executions, rest) = rest.split_first_chunk()?;
        let timing = Timing {
            queue: Duration::from_nanos(u64::from_le_bytes(*queue)),
            compute: Duration::from_nanos(u64::from_le_bytes(*compute)),
            batch_rows: u32::from_le_bytes(*batch_rows),
            executions: u32::from_le_bytes(*executions),
        };
        let outputs = wire::decode(rest)?;
        Some(Self { outputs, timing })
    }
}
