//! Downloads of a version's files, one at a time; the manifest says which there are.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nereid_core::{
    Name,
    models::{MANIFEST_FILE, Manifest, ModelVersion},
};
use nereid_objects::S3Uri;
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    problem::{Code, Problem},
};

/// Largest manifest that is read into memory.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;
/// Bytes of a download handled at a time.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(download_model_file))
}

/// Where the files of a published version lie.
pub(super) struct PublishedFiles {
    pub(super) manifest: Vec<u8>,
    pub(super) files: Vec<PublishedFile>,
}

/// One file of a published version.
#[derive(Debug, Clone)]
pub(super) struct PublishedFile {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) uri: S3Uri,
}

impl PublishedFiles {
    /// Reads the manifest of a version and checks it against the digest that was committed.
    pub(super) async fn read(state: &ApiState, version: &ModelVersion) -> Result<Self, Problem> {
        let uri: S3Uri = version.manifest_uri.parse().map_err(Problem::internal)?;
        let manifest = state.objects.get_bytes(&uri, MAX_MANIFEST_BYTES).await?;
        if hex::encode(Sha256::digest(&manifest)) != version.manifest_sha256 {
            return Err(Problem::internal(format!(
                "{uri} is not the manifest that was published"
            )));
        }
        let parsed: Manifest = serde_json::from_slice(&manifest).map_err(Problem::internal)?;
        let folder = uri.key().rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut files = Vec::with_capacity(parsed.files.len());
        for file in parsed.files {
            let key = format!("{folder}/{}", file.path);
            let uri = S3Uri::new(uri.bucket(), key).map_err(Problem::internal)?;
            files.push(PublishedFile {
                path: file.path,
                bytes: file.bytes,
                sha256: file.sha256,
                uri,
            });
        }
        Ok(Self {
            manifest: manifest.to_vec(),
            files,
        })
    }
}

/// Downloads a file of a version
///
/// `manifest.json` lists the others. The entity tag is the file's SHA-256.
#[utoipa::path(
    get, path = "/v1/models/{name}/versions/{version}/files/{*path}", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
        ("path" = String, Path, description = "Path of the file in the version's folder", example = "manifest.json", max_length = 512),
    ),
    responses(
        (status = 200, description = "The file's bytes", body = [u8], content_type = "application/octet-stream"),
        (status = 304, description = "The file is the one that If-None-Match names"),
    ),
    security(("api_key" = ["viewer"])),
)]
async fn download_model_file(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, version, path)): Path<(Name, VersionNumber, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let version = state
        .store
        .model_version(actor.project, &name, version.0)
        .await?;
    let published = PublishedFiles::read(&state, &version).await?;
    if path == MANIFEST_FILE {
        let bytes = published.manifest.len() as u64;
        return Ok(answer(
            &headers,
            &version.manifest_sha256,
            bytes,
            published.manifest.into(),
        ));
    }
    let file = published
        .files
        .into_iter()
        .find(|f| f.path == path)
        .ok_or_else(|| {
            let detail = format!(
                "Version {} of {name} has no file {path:?}.",
                version.version
            );
            Problem::new(Code::NotFound, detail)
        })?;
    let reader = state.objects.get_stream(&file.uri, None).await?;
    let body = Body::from_stream(ReaderStream::with_capacity(reader, CHUNK_BYTES));
    Ok(answer(&headers, &file.sha256, file.bytes, body))
}

fn answer(request: &HeaderMap, sha256: &str, bytes: u64, body: Body) -> Response {
    let etag = format!("\"{sha256}\"");
    let known = request
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok());
    let unchanged = known.is_some_and(|k| k == "*" || k.split(',').any(|t| t.trim() == etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let length = (header::CONTENT_LENGTH, HeaderValue::from(bytes));
        let media = HeaderValue::from_static("application/octet-stream");
        ([length, (header::CONTENT_TYPE, media)], body).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_304_to_whom_has_the_file() {
        let mut request = HeaderMap::new();
        let fresh = answer(&request, "aa", 1, Body::from("x"));
        assert_eq!(
            (fresh.status(), &fresh.headers()[header::ETAG]),
            (StatusCode::OK, &HeaderValue::from_static("\"aa\""))
        );
        request.insert(
            header::IF_NONE_MATCH,
            HeaderValue::from_static("\"bb\", \"aa\""),
        );
        assert_eq!(
            answer(&request, "aa", 1, Body::from("x")).status(),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(
            answer(&request, "cc", 1, Body::from("x")).status(),
            StatusCode::OK
        );
    }
}
