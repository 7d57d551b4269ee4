//! Inference by tensors over REST.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    response::Response,
};
use nereid_core::{Name, tensors::DataType};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{BinaryHeader, wire};
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    oip::{datatype::Datatype, serve},
    problem::Problem,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(oip_infer))
        .routes(routes!(oip_infer_version))
}

/// Options of a request; others are passed over.
#[derive(Serialize, ToSchema)]
pub(crate) struct OipRequestParameters {
    /// Whether outputs come as bytes after the JSON unless they say otherwise.
    binary_data_output: Option<bool>,
    /// 1 is the most urgent, 0 the default.
    priority: Option<u32>,
    /// Longest time for the answer in microseconds; 0 for none.
    #[schema(maximum = 4_294_967_295_000_000_u64)]
    timeout: Option<u64>,
}

/// Options of an input; others are passed over.
#[derive(Serialize, ToSchema)]
pub(crate) struct OipInputParameters {
    /// Bytes of this input after the JSON; it has no `data` then.
    #[schema(maximum = 67_108_864)]
    binary_data_size: Option<u32>,
}

/// Options of an output; others are passed over.
#[derive(Serialize, ToSchema)]
pub(crate) struct OipOutputParameters {
    /// Whether it comes as bytes after the JSON.
    binary_data: Option<bool>,
    /// How many of the largest values of each row to answer, as `value:index:label`.
    classification: Option<u32>,
}

/// An input tensor.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct OipInput {
    /// Name of the input.
    #[schema(example = "input")]
    name: String,
    /// Shape with the batch dimension.
    #[schema(max_items = 8, example = json!([1, 4]))]
    shape: Vec<usize>,
    /// Element type.
    datatype: Datatype,
    /// Options.
    parameters: Option<OipInputParameters>,
    /// Values, row-major: flat or nested by the shape; none if they come as bytes.
    #[schema(example = json!([5.1, 3.5, 1.4, 0.2]))]
    data: Option<Vec<Value>>,
}

/// An output that a client wants.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct OipRequestedOutput {
    /// Name of the output.
    name: String,
    /// Options.
    parameters: Option<OipOutputParameters>,
}

/// An inference request.
#[derive(ToSchema)]
#[schema(example = json!({
    "id": "1",
    "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]
}))]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct OipInferRequest {
    /// Comes back in the answer.
    id: Option<String>,
    /// Options.
    parameters: Option<OipRequestParameters>,
    /// The model's one input, or one per column of a table of mixed columns.
    #[schema(min_items = 1, max_items = 4_096)]
    inputs: Vec<OipInput>,
    /// Outputs to answer; all unless given.
    outputs: Option<Vec<OipRequestedOutput>>,
}

/// An inference response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipInferResponse)]
pub(crate) struct InferResponse {
    /// Name of the endpoint.
    pub(super) model_name: Name,
    /// Version that answered.
    pub(super) model_version: String,
    /// That of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// Outputs.
    pub(super) outputs: Vec<OipOutput>,
}

/// An output tensor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipOutput {
    /// Name of the output.
    pub(super) name: String,
    /// Shape with the batch dimension.
    pub(super) shape: Vec<usize>,
    /// Element type.
    pub(super) datatype: DataType,
    /// Where its values are, if they come as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<OipBinaryOutput>,
    /// Values, row-major: numbers, or strings of type `BYTES`; none if they come as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>)]
    pub(super) data: Option<OutputData>,
}

/// How an output comes as bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OipBinaryOutput {
    /// Bytes of this output after the JSON, in the order of the outputs.
    pub(super) binary_data_size: usize,
}

/// Values of an output.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum OutputData {
    Fp32(Vec<f32>),
    Int64(Vec<i64>),
    Bytes(Vec<String>),
}

/// Infers
///
/// Tensors may come and go as bytes after the JSON, by Triton's binary tensor extension; the body
/// may be compressed by gzip or deflate. Changes nothing, so `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v2/models/{name}/infer", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint"), BinaryHeader),
    request_body = OipInferRequest,
    responses((status = 200, description = "The outputs", content(
        (InferResponse = "application/json"), (String = "application/octet-stream"),
    ))),
    security(("api_key" = ["viewer"])),
)]
async fn oip_infer(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Request,
) -> Result<Response, Problem> {
    let inference = wire::read(request, Instant::now()).await?;
    let answer = serve::infer(&state, actor.project, name, None, inference).await?;
    wire::write(answer)
}

/// Infers by a version that the endpoint serves
///
/// Tensors may come and go as bytes after the JSON, by Triton's binary tensor extension; the body
/// may be compressed by gzip or deflate. Changes nothing, so `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v2/models/{name}/versions/{version}/infer", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
        BinaryHeader,
    ),
    request_body = OipInferRequest,
    responses((status = 200, description = "The outputs", content(
        (InferResponse = "application/json"), (String = "application/octet-stream"),
    ))),
    security(("api_key" = ["viewer"])),
)]
async fn oip_infer_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    request: Request,
) -> Result<Response, Problem> {
    let inference = wire::read(request, Instant::now()).await?;
    let version = Some(version.0);
    let answer = serve::infer(&state, actor.project, name, version, inference).await?;
    wire::write(answer)
}
