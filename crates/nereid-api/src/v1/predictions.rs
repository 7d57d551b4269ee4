//! Predictions by rows, images or CSV, with labels in the answer.

use std::time::Instant;

use axum::{
    Json,
    extract::{Request, State},
};
use bytes::Bytes;
use http::{HeaderMap, header};
use nereid_core::{
    Name, Violations, endpoints::Prediction, inference::InferOptions,
    limits::MAX_INFERENCE_BODY_BYTES, tensors::Batch,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, Query, read_body, read_inference},
    gateway::Variant,
    numbers::Row,
    oip::serve::{Call, variant},
    predict::{
        self, csv, images, multipart,
        options::{PredictOptions, check_top},
    },
    problem::{Code, Problem},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(predict))
}

/// What a client sends to predict, as far as it can be read without the model.
enum Samples {
    Rows(Vec<Row>),
    Csv(Bytes),
    Images(Vec<Bytes>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictRequest {
    rows: Option<Vec<Row>>,
    images: Option<Vec<String>>,
    top_k: Option<u32>,
}

/// Rows or images to predict: one of both.
#[derive(ToSchema)]
#[schema(as = PredictRequest, example = json!({"rows": [[0.1, 0.2, 0.3, 0.4]]}))]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct PredictRequestSchema {
    /// Each row: an array of the sample's shape, its numbers in a flat array, or an object by
    /// column name.
    #[schema(min_items = 1, max_items = 4096)]
    rows: Option<Vec<Value>>,
    /// Each image: a PNG or JPEG in base64, decoded and resized as in training.
    #[schema(min_items = 1, max_items = 4096)]
    images: Option<Vec<String>>,
    /// Answer so many of the likeliest classes instead of all probabilities; of a classifier.
    #[schema(minimum = 1, maximum = 10_000)]
    top_k: Option<u32>,
}

/// Images to predict.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct PredictForm {
    /// PNG or JPEG files; fields of other names may be files too.
    #[schema(value_type = Vec<String>, format = Binary, content_media_type = "application/octet-stream")]
    images: Vec<String>,
    /// Answer so many of the likeliest classes instead of all probabilities; of a classifier.
    #[schema(minimum = 1, maximum = 10_000)]
    top_k: Option<u32>,
}

/// Predictions, one per row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PredictResponse {
    /// Endpoint that answered.
    endpoint: Name,
    /// Model behind it.
    model: Name,
    /// Version of the model.
    version: u32,
    /// Variant that answered.
    variant: Name,
    /// One per row, in order.
    predictions: Vec<Prediction>,
}

/// Predicts
///
/// Takes rows or images as JSON, rows as CSV (`text/csv`, whose first line may name the columns),
/// images as the files of a form (`multipart/form-data`), or one image as the body (`image/png`,
/// `image/jpeg`). Changes nothing, so `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/predict", tag = "inference",
    params(("name" = Name, Path, description = "Name of the endpoint"), PredictOptions),
    request_body(content(
        (PredictRequestSchema = "application/json"), (PredictForm = "multipart/form-data"),
        (String = "text/csv"),
    )),
    responses((status = 200, description = "One prediction per row", body = PredictResponse)),
    security(("api_key" = ["viewer"])),
)]
async fn predict(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(endpoint): Path<Name>,
    Query(options): Query<PredictOptions>,
    request: Request,
) -> Result<Json<PredictResponse>, Problem> {
    let started = Instant::now();
    let (samples, top_k) = read(request).await?;
    let target = state.gateway.target(actor.project, &endpoint).await?;
    let variant = variant(&target, &endpoint, None)?;
    let top_k = check_top(top_k.or(options.top_k), &variant.signature)?;
    let batch = batch(&state, samples, variant).await?;
    let rows = batch.rows;
    let finish = |outputs: Vec<_>| {
        let mut found = predict::predictions(rows, &outputs, &variant.signature)?;
        if let (Some(count), Some(classes)) = (top_k, &variant.signature.classes) {
            predict::keep_top(&mut found, count, classes);
        }
        Some(found)
    };
    let call = Call {
        project: actor.project,
        endpoint: &endpoint,
        variant,
        started,
        options: InferOptions::default(),
    };
    let predictions = call.run(&state, batch, finish).await?;
    let predictions = predictions
        .ok_or_else(|| Problem::internal(format!("unexpected outputs of {}", variant.model)))?;
    let (model, version, variant) = (variant.model.clone(), variant.version, variant.name.clone());
    Ok(Json(PredictResponse {
        endpoint,
        model,
        version,
        variant,
        predictions,
    }))
}

/// Reads what is to be predicted, by its content type, and how many classes are wanted.
async fn read(request: Request) -> Result<(Samples, Option<u32>), Problem> {
    let media = media(request.headers());
    match media.as_str() {
        "text/csv" => Ok((Samples::Csv(body(request).await?), None)),
        "image/png" | "image/jpeg" => Ok((Samples::Images(vec![body(request).await?]), None)),
        "multipart/form-data" => form(request).await,
        // JSON, or refused for what it is.
        _ => json(request).await,
    }
}

fn media(headers: &HeaderMap) -> String {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let given = given.unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default();
    media.trim().to_ascii_lowercase()
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    read_body(&parts.headers, body, MAX_INFERENCE_BODY_BYTES).await
}

async fn json(request: Request) -> Result<(Samples, Option<u32>), Problem> {
    let request: PredictRequest = read_inference(request, MAX_INFERENCE_BODY_BYTES).await?;
    let samples = match (request.rows, request.images) {
        (Some(rows), None) => Samples::Rows(rows),
        (None, Some(images)) => Samples::Images(images::from_base64(&images)?),
        (Some(_), Some(_)) => {
            let detail = "rows and images cannot be predicted together; send one of them";
            return Err(Problem::violation("/images", "conflict", detail));
        }
        (None, None) => {
            let detail = "rows (or images) are required";
            return Err(Problem::violation("/rows", "missing", detail));
        }
    };
    Ok((samples, request.top_k))
}

async fn form(request: Request) -> Result<(Samples, Option<u32>), Problem> {
    let boundary = multipart::boundary(request.headers()).ok_or_else(|| {
        let detail = "multipart/form-data needs a boundary of 1 to 70 characters.";
        Problem::new(Code::UnsupportedMediaType, detail)
    })?;
    let body = body(request).await?;
    let parts = multipart::parts(&body, &boundary);
    let parts = parts.map_err(|e| Problem::new(Code::InvalidBody, format!("The form: {e}.")))?;
    let (mut images, mut top_k) = (Vec::new(), None);
    let mut violations = Violations::default();
    for part in parts {
        if part.file {
            images.push(part.content);
        } else if part.name == "top_k" {
            let text = String::from_utf8_lossy(&part.content);
            top_k = text.trim().parse().ok();
            violations.check(top_k.is_some(), "/top_k", "invalid_value", || {
                format!("{text:?} is no whole number")
            });
        } else {
            let detail = "a form holds image files and perhaps top_k";
            violations.push(format!("/{}", part.name), "unknown_field", detail);
        }
    }
    Ok((violations.into_result(Samples::Images(images))?, top_k))
}

async fn batch(state: &ApiState, samples: Samples, variant: &Variant) -> Result<Batch, Problem> {
    let signature = &variant.signature;
    match samples {
        Samples::Rows(rows) => Ok(predict::batch(&rows, signature, variant.encoder())?),
        Samples::Csv(bytes) => {
            let rows = csv::rows(&bytes, signature)?;
            Ok(predict::batch(&rows, signature, variant.encoder())?)
        }
        Samples::Images(images) => {
            // Decoding takes time and memory: only so many at once.
            let permit = state.decodings.clone().acquire_owned().await;
            let permit = permit.map_err(Problem::internal)?;
            let (decoder, signature) = (state.images.clone(), signature.clone());
            let decoding = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                images::batch(&images, &signature, decoder.as_ref())
            });
            Ok(decoding.await.map_err(Problem::internal)??)
        }
    }
}
