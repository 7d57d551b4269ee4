//! Direct uploads into Nereid's bucket, stored under the SHA-256 of their content.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use futures::StreamExt;
use http::{HeaderMap, header};
use nereid_core::ids::ProjectId;
use nereid_objects::{ObjectError, PutOptions, S3Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::created;
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, check_length, too_large},
    problem::{Code, Problem},
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(upload_file))
}

/// Name of an uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", example = "digits.csv.gz")]
pub(crate) struct FileName(String);

impl TryFrom<String> for FileName {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts_well = s.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && s.len() <= 128 && s.bytes().all(allowed) {
            Ok(Self(s))
        } else {
            Err("a file name is 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-', starting with a letter or digit".to_owned())
        }
    }
}

/// A stored upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    /// S3 URI, to be named by a dataset.
    #[schema(
        example = "s3://nereid/projects/01980000-0000-7000-8000-000000000000/uploads/9f86…/digits.csv.gz"
    )]
    uri: String,
    /// Size in bytes.
    bytes: u64,
    /// SHA-256, hexadecimal.
    sha256: String,
}

/// Uploads a file
///
/// The file is stored under the SHA-256 of its content, so repeating an upload changes nothing.
/// Data above the limit is put into S3 by the client and named by its URI.
#[utoipa::path(
    put, path = "/v1/uploads/{filename}", tag = "datasets",
    params(("filename" = FileName, Path, description = "Name of the file")),
    request_body(content = [u8], content_type = "application/octet-stream", description = "The file's bytes, at least one"),
    responses((status = 201, description = "Stored", body = Upload)),
    security(("api_key" = ["trainer"])),
)]
async fn upload_file(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(name): Path<FileName>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let limit = state.config.max_upload_bytes;
    demand_octets(&parts.headers)?;
    check_length(&parts.headers, limit)?;
    let received = receive(body, limit).await?;
    if received.bytes == 0 {
        return Err(Problem::new(Code::InvalidBody, "The file is empty."));
    }
    let uri = store(&state, actor.project, &name, &received).await?;
    let Received { bytes, sha256, .. } = received;
    let location = uri.to_string();
    Ok(created(
        &location,
        Upload {
            uri: location.clone(),
            bytes,
            sha256,
        },
    ))
}

/// An upload on local disk.
struct Received {
    path: TempPath,
    bytes: u64,
    sha256: String,
}

fn demand_octets(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map(|v| v.to_str().unwrap_or_default());
    // `curl -T` sends none.
    if given.is_none_or(|g| g.eq_ignore_ascii_case("application/octet-stream")) {
        return Ok(());
    }
    let detail = format!(
        "Send application/octet-stream, not {:?}.",
        given.unwrap_or_default()
    );
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

async fn receive(body: Body, limit: u64) -> Result<Received, Problem> {
    let file = tokio::task::spawn_blocking(NamedTempFile::new)
        .await
        .map_err(Problem::internal)?;
    let (file, path) = file.map_err(Problem::unavailable)?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut hash = Sha256::new();
    let mut bytes = 0_u64;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            let detail = "The connection broke before the whole file was there.";
            Problem::new(Code::InvalidBody, detail)
        })?;
        bytes += chunk.len() as u64;
        if bytes > limit {
            return Err(too_large(limit));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(Problem::unavailable)?;
    }
    file.flush().await.map_err(Problem::unavailable)?;
    let sha256 = hex::encode(hash.finalize());
    Ok(Received {
        path,
        bytes,
        sha256,
    })
}

async fn store(
    state: &ApiState,
    project: ProjectId,
    name: &FileName,
    received: &Received,
) -> Result<S3Uri, Problem> {
    let key = format!("projects/{project}/uploads/{}/{}", received.sha256, name.0);
    let uri = state.objects.own(key).map_err(Problem::internal)?;
    let options = PutOptions {
        sha256: Some(received.sha256.clone()),
        ..PutOptions::create_only()
    };
    match state
        .objects
        .upload_file(&uri, &received.path, &options)
        .await
    {
        // The key holds the content's digest: what is there already is the same file.
        Ok(_) | Err(ObjectError::PreconditionFailed { .. }) => Ok(uri),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_cannot_leave_their_folder() {
        for good in ["a", "digits.csv.gz", "Train-images_idx3.ubyte"] {
            assert!(FileName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            "a\0",
            &"a".repeat(129),
        ] {
            assert!(FileName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn receives_hashes_and_limits() {
        let received = receive(Body::from("test"), 4).await.unwrap();
        assert_eq!(received.bytes, 4);
        assert!(received.sha256.starts_with("9f86d081884c7d65"));
        let Err(problem) = receive(Body::from("tests"), 4).await else {
            panic!("was taken")
        };
        assert_eq!(problem.kind(), Code::TooLarge);
    }
}
