//! A model's configuration, by Triton's extension of that name.
//!
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_configuration.md>

use nereid_core::{
    Name, limits,
    models::Signature,
    tensors::{DataType, TensorSpec},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::PLATFORM;

/// How a model is served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipModelConfig)]
pub(crate) struct ModelConfig {
    /// Name of the endpoint.
    pub(crate) name: Name,
    /// Framework.
    #[schema(example = "nereid")]
    pub(crate) platform: &'static str,
    /// What runs it.
    #[schema(example = "nereid")]
    pub(crate) backend: &'static str,
    /// Which versions are served.
    pub(crate) version_policy: VersionPolicy,
    /// Most samples of one request.
    pub(crate) max_batch_size: u32,
    /// Inputs, without the batch dimension.
    pub(crate) input: Vec<TensorConfig>,
    /// Outputs, without the batch dimension.
    pub(crate) output: Vec<TensorConfig>,
}

/// Which versions are served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipVersionPolicy)]
pub(crate) struct VersionPolicy {
    /// These ones.
    pub(crate) specific: SpecificVersions,
}

/// Versions that are served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipSpecificVersions)]
pub(crate) struct SpecificVersions {
    /// Their numbers.
    pub(crate) versions: Vec<u32>,
}

/// An input or output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipTensorConfig)]
pub(crate) struct TensorConfig {
    /// Its name.
    pub(crate) name: String,
    /// Its element type.
    #[schema(example = "TYPE_FP32")]
    pub(crate) data_type: &'static str,
    /// Its shape without the batch dimension.
    pub(crate) dims: Vec<i64>,
}

impl ModelConfig {
    /// Describes how a model of a signature is served.
    pub(crate) fn new(name: Name, versions: Vec<u32>, signature: &Signature) -> Self {
        Self {
            name,
            platform: PLATFORM,
            backend: PLATFORM,
            version_policy: VersionPolicy {
                specific: SpecificVersions { versions },
            },
            max_batch_size: u32::try_from(limits::MAX_PREDICT_ROWS).unwrap_or(u32::MAX),
            input: signature.inputs.iter().map(TensorConfig::new).collect(),
            output: signature.outputs.iter().map(TensorConfig::new).collect(),
        }
    }
}

impl TensorConfig {
    fn new(tensor: &TensorSpec) -> Self {
        // Each entry has a dimension in Triton's configuration, also where a sample is one number.
        let dims = match tensor.shape.get(1..) {
            None | Some([]) => vec![1],
            Some(dims) => dims.to_vec(),
        };
        let data_type = match tensor.datatype {
            DataType::Fp32 => "TYPE_FP32",
            DataType::Int64 => "TYPE_INT64",
            DataType::Bytes => "TYPE_STRING",
        };
        Self {
            name: tensor.name.clone(),
            data_type,
            dims,
        }
    }
}
