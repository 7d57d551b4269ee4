//! What a client may ask of one inference beside its tensors.

use std::time::Duration;

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
