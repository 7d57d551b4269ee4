//! Inference by tensors.

use axum::{
    Json,
    extract::{Request, State},
};
use nereid_core::{
    Name, ids::ProjectId, inference::InferOptions, limits::MAX_INFERENCE_BODY_BYTES,
    models::Signature, tensors::Tensor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    first, of_version,
    tensors::{OipInput, OipInputSchema, OipOutput, batch},
};
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber, read_inference},
    gateway::Variant,
    problem::{Code, Problem},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(oip_infer))
        .routes(routes!(oip_infer_version))
}

/// An inference request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InferRequest {
    id: Option<String>,
    #[serde(default, rename = "parameters")]
    _parameters: Option<Value>,
    inputs: Vec<OipInput>,
    outputs: Option<Vec<OutputRequest>>,
}

/// An output that a client wants.
#[derive(Deserialize, ToSchema)]
#[schema(as = OipRequestedOutput)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputRequest {
    /// Name of the output.
    name: String,
    /// Ignored.
    #[serde(default, rename = "parameters")]
    #[schema(value_type = Option<Object>)]
    _parameters: Option<Value>,
}

/// An inference request.
#[derive(ToSchema)]
#[schema(as = OipInferRequest, example = json!({
    "id": "1",
    "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]
}))]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct InferRequestSchema {
    /// Comes back in the answer.
    id: Option<String>,
    /// Ignored.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    /// The model's one input, or one per column of a table of mixed columns.
    #[schema(min_items = 1, max_items = 1_048_576)]
    inputs: Vec<OipInputSchema>,
    /// Outputs to answer; all unless given.
    outputs: Option<Vec<OutputRequest>>,
}

/// An inference response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipInferResponse)]
pub(crate) struct InferResponse {
    /// Name of the endpoint.
    model_name: Name,
    /// Version that answered.
    model_version: String,
    /// That of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Outputs.
    outputs: Vec<OipOutput>,
}

/// Infers
///
/// Changes nothing, so `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v2/models/{name}/infer", tag = "open inference protocol",
    params(("name" = Name, Path, description = "Name of the endpoint")),
    request_body = InferRequestSchema,
    responses((status = 200, description = "The outputs", body = InferResponse)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_infer(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<Name>,
    request: Request,
) -> Result<Json<InferResponse>, Problem> {
    let request = read_inference(request, MAX_INFERENCE_BODY_BYTES).await?;
    let target = state.gateway.target(actor.project, &name).await?;
    infer(&state, actor.project, name, first(&target)?, request).await
}

/// Infers by a version that the endpoint serves
///
/// Changes nothing, so `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v2/models/{name}/versions/{version}/infer", tag = "open inference protocol",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("version" = u32, Path, description = "Version that the endpoint serves", minimum = 1, maximum = 2_147_483_647),
    ),
    request_body = InferRequestSchema,
    responses((status = 200, description = "The outputs", body = InferResponse)),
    security(("api_key" = ["viewer"])),
)]
async fn oip_infer_version(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version)): Path<(Name, VersionNumber)>,
    request: Request,
) -> Result<Json<InferResponse>, Problem> {
    let request = read_inference(request, MAX_INFERENCE_BODY_BYTES).await?;
    let target = state.gateway.target(actor.project, &name).await?;
    let variant = of_version(&target, &name, version)?;
    infer(&state, actor.project, name, variant, request).await
}

async fn infer(
    state: &ApiState,
    project: ProjectId,
    name: Name,
    variant: &Variant,
    request: InferRequest,
) -> Result<Json<InferResponse>, Problem> {
    let wanted = wanted(request.outputs.as_deref(), &variant.signature)?;
    let batch =
        batch(&request.inputs, &variant.signature, variant.encoder()).map_err(bad_request)?;
    let options = InferOptions::default();
    let outputs = state
        .gateway
        .infer(project, &name, variant, batch, options)
        .await?;
    let chosen = |t: &Tensor| wanted.as_ref().is_none_or(|w| w.contains(&t.name));
    Ok(Json(InferResponse {
        model_name: name,
        model_version: variant.version.to_string(),
        id: request.id,
        outputs: outputs
            .into_iter()
            .filter(chosen)
            .map(OipOutput::from)
            .collect(),
    }))
}

/// Returns the names of the outputs to answer; all if none is named.
fn wanted(
    outputs: Option<&[OutputRequest]>,
    signature: &Signature,
) -> Result<Option<Vec<String>>, Problem> {
    let Some(outputs) = outputs.filter(|o| !o.is_empty()) else {
        return Ok(None);
    };
    let known: Vec<&str> = signature.outputs.iter().map(|t| t.name.as_str()).collect();
    for output in outputs {
        if !known.contains(&output.name.as_str()) {
            let name = &output.name;
            return Err(bad_request(format!(
                "there is no output {name:?}; known are {}",
                known.join(", ")
            )));
        }
    }
    Ok(Some(outputs.iter().map(|o| o.name.clone()).collect()))
}

fn bad_request(detail: String) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::signature;

    #[test]
    fn answers_the_outputs_asked_for() {
        let signature = signature(&[2], None);
        let outputs = |name: &str| {
            [OutputRequest {
                name: name.to_owned(),
                _parameters: None,
            }]
        };
        assert_eq!(wanted(None, &signature).unwrap(), None);
        let one = wanted(Some(&outputs("prediction")), &signature).unwrap();
        assert_eq!(one.unwrap(), ["prediction"]);
        assert!(wanted(Some(&outputs("x")), &signature).is_err());
    }
}
