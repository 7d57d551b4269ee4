//! Writing: one request for what fits into memory, parts for what does not.

use std::{path::Path, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{ObjectError, Objects, S3Uri, client::bare_etag, multipart, read::check_digest};

/// Files from this size on are sent in parts.
pub(crate) const MULTIPART_FROM: u64 = 16 << 20;
/// Tries of a conditional write that another one of the same key gets in the way of.
const MAX_CONFLICTS: u32 = 4;
/// Pause after such a conflict.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Write only if there is no object yet.
    pub create_only: bool,
    /// Media type to store.
    pub content_type: Option<String>,
    /// SHA-256, hexadecimal, that the content must have.
    pub sha256: Option<String>,
}

impl PutOptions {
    /// Never overwrites.
    #[must_use]
    pub fn create_only() -> Self {
        Self {
            create_only: true,
            ..Self::default()
        }
    }

    /// The condition as a header.
    pub(crate) fn if_none_match(&self) -> Option<String> {
        self.create_only.then(|| "*".to_owned())
    }
}

/// What was transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Size.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// `ETag` that the object has now.
    pub etag: String,
}

impl Objects {
    /// Writes an object from memory; the server checks its SHA-256.
    ///
    /// # Errors
    /// [`ObjectError::PreconditionFailed`] if it exists and only creation was asked for. That can
    /// be this very call's own object, if its answer was lost: compare the content to find out.
    pub async fn put_bytes(
        &self,
        uri: &S3Uri,
        content: Bytes,
        options: &PutOptions,
    ) -> Result<Stored, ObjectError> {
        let digest = Sha256::digest(&content);
        let sha256 = hex::encode(digest);
        check_digest(uri, &sha256, options.sha256.as_deref())?;
        let checksum = aws_smithy_types::base64::encode(digest);
        let mut conflicts = 0;
        let output = loop {
            let sent = self
                .client
                .put_object()
                .bucket(uri.bucket())
                .key(uri.key())
                .set_content_type(options.content_type.clone())
                .set_if_none_match(options.if_none_match())
                .checksum_sha256(&checksum)
                .body(ByteStream::from(content.clone()))
                .send()
                .await;
            match sent {
                Ok(output) => break output,
                // Neither write has won yet; the next try learns which one did.
                Err(e) if conflicts < MAX_CONFLICTS && is_conflict(&e) => {
                    conflicts += 1;
                    tokio::time::sleep(CONFLICT_PAUSE * conflicts).await;
                }
                Err(e) => return Err(ObjectError::sdk(uri, e)),
            }
        };
        Ok(Stored {
            bytes: u64::try_from(content.len()).unwrap_or_default(),
            sha256,
            etag: bare_etag(output.e_tag.unwrap_or_default()),
        })
    }

    /// Writes an object from a file, in parts if it is large.
    ///
    /// # Errors
    /// Those of [`put_bytes`](Self::put_bytes); parts that were sent by then are deleted.
    pub async fn upload_file(
        &self,
        uri: &S3Uri,
        path: &Path,
        options: &PutOptions,
    ) -> Result<Stored, ObjectError> {
        let read = || format!("read {}", path.display());
        let file = tokio::fs::File::open(path)
            .await
            .map_err(ObjectError::local(uri, read()))?;
        let stat = file
            .metadata()
            .await
            .map_err(ObjectError::local(uri, read()))?;
        if stat.len() >= MULTIPART_FROM {
            return multipart::upload(self, uri, file, stat.len(), options).await;
        }
        drop(file);
        let content = tokio::fs::read(path)
            .await
            .map_err(ObjectError::local(uri, read()))?;
        self.put_bytes(uri, content.into(), options).await
    }
}

fn is_conflict<E>(
    error: &aws_sdk_s3::error::SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
) -> bool {
    error
        .raw_response()
        .is_some_and(|response| response.status().as_u16() == 409)
}
