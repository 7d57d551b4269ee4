//! Open Inference Protocol v2, whatever it travels by: REST and gRPC both come through here.
//!
//! <https://github.com/open-inference/open-inference-protocol>, with Triton's extensions for binary
//! tensors, classification, statistics, model configuration and the model repository. Nothing here
//! knows of HTTP or protobuf.

pub(crate) mod config;
pub(crate) mod datatype;
pub(crate) mod inputs;
pub(crate) mod outputs;
pub(crate) mod parameters;
pub(crate) mod raw;
pub(crate) mod repository;
pub(crate) mod serve;
pub(crate) mod statistics;

/// Name of the software.
pub(crate) const SERVER_NAME: &str = "nereid";
/// Framework of all models.
pub(crate) const PLATFORM: &str = "nereid";
/// Extensions of the protocol that are served, by the names that Triton gave them.
pub(crate) const EXTENSIONS: [&str; 8] = [
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];
