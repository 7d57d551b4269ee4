//! Uploads in parts: bounded memory, several parts on their way, and no parts left behind.

use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncReadExt, runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    ObjectError, Objects, PutOptions, S3Uri, Stored, client::bare_etag, read::check_digest,
};

/// Size of a part, unless there would be too many.
const PART_BYTES: u64 = 8 << 20;
/// Most parts of one object, as S3 has it.
const MAX_PARTS: u64 = 10_000;
/// Parts on their way at a time; with their size this bounds the memory.
const IN_FLIGHT: usize = 4;

/// Sends an open file; `bytes` is its size, from which that of the parts follows.
pub(crate) async fn upload(
    objects: &Objects,
    uri: &S3Uri,
    file: File,
    bytes: u64,
    options: &PutOptions,
) -> Result<Stored, ObjectError> {
    let mut upload = begin(objects, uri, options).await?;
    let part_bytes = PART_BYTES.max(bytes.div_ceil(MAX_PARTS));
    let sent = upload.send(file, part_bytes, options).await;
    match sent {
        Ok(stored) => {
            upload.is_open = false;
            Ok(stored)
        }
        Err(error) => {
            abort(&upload.client, &upload.uri, &upload.id).await;
            upload.is_open = false;
            Err(error)
        }
    }
}

/// Begins an upload in the background, so that it is known, and can be aborted, even if the caller
/// is cancelled between the server's having made it and its answer.
async fn begin(
    objects: &Objects,
    uri: &S3Uri,
    options: &PutOptions,
) -> Result<Upload, ObjectError> {
    let request = objects
        .client
        .create_multipart_upload()
        .bucket(uri.bucket())
        .key(uri.key())
        .set_content_type(options.content_type.clone())
        .checksum_algorithm(ChecksumAlgorithm::Crc32);
    let (client, background) = (objects.client.clone(), objects.background.clone());
    let (answer, begun) = oneshot::channel();
    let target = uri.clone();
    objects.background.spawn(async move {
        let created = request.send().await;
        let upload = created
            .map_err(|e| ObjectError::sdk(&target, e))
            .map(|created| Upload {
                client,
                background,
                uri: target,
                id: created.upload_id.unwrap_or_default(),
                is_open: true,
            });
        // If nobody waits for it any more, it is dropped here, and that aborts it.
        let _ = answer.send(upload);
    });
    begun
        .await
        .map_err(|_| ObjectError::unavailable(uri, "the runtime is shutting down", None))?
}

/// An upload that is aborted if its future is dropped before the end.
struct Upload {
    client: Client,
    background: TaskTracker,
    uri: S3Uri,
    id: String,
    is_open: bool,
}

impl Upload {
    async fn send(
        &self,
        file: File,
        part_bytes: u64,
        options: &PutOptions,
    ) -> Result<Stored, ObjectError> {
        let mut source = Source {
            file,
            part_bytes,
            digest: Sha256::new(),
            bytes: 0,
            parts: 0,
        };
        let uri = &self.uri;
        let chunks = stream::try_unfold(&mut source, |source| async move {
            let part = source.next(uri).await?;
            Ok::<_, ObjectError>(part.map(|part| (part, source)))
        })
        // Boxed, or callers cannot prove that the whole future is `Send`.
        .boxed();
        let mut parts: Vec<CompletedPart> = chunks
            .map_ok(|(number, content)| self.send_part(number, content))
            .try_buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await?;
        parts.sort_by_key(|part| part.part_number);
        let (bytes, sha256) = (source.bytes, hex::encode(source.digest.finalize()));
        check_digest(uri, &sha256, options.sha256.as_deref())?;
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(uri.bucket())
            .key(uri.key())
            .upload_id(&self.id)
            .set_if_none_match(options.if_none_match())
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .send()
            .await
            .map_err(|e| ObjectError::sdk(uri, e))?;
        Ok(Stored {
            bytes,
            sha256,
            etag: bare_etag(completed.e_tag.unwrap_or_default()),
        })
    }

    async fn send_part(&self, number: i32, content: Bytes) -> Result<CompletedPart, ObjectError> {
        let sent = self
            .client
            .upload_part()
            .bucket(self.uri.bucket())
            .key(self.uri.key())
            .upload_id(&self.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(content))
            .send()
            .await
            .map_err(|e| ObjectError::sdk(&self.uri, e))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a runtime the process is ending, and the bucket's lifecycle rule has to do it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (client, uri, id) = (self.client.clone(), self.uri.clone(), self.id.clone());
        self.background
            .spawn_on(async move { abort(&client, &uri, &id).await }, &runtime);
    }
}

async fn abort(client: &Client, uri: &S3Uri, id: &str) {
    let aborted = client
        .abort_multipart_upload()
        .bucket(uri.bucket())
        .key(uri.key())
        .upload_id(id)
        .send()
        .await;
    if let Err(e) = aborted {
        let error = ObjectError::sdk(uri, e);
        tracing::warn!(%uri, %error, "cannot delete the parts of a failed upload");
    }
}

/// Cuts a file into parts and digests it on the way.
struct Source {
    file: File,
    part_bytes: u64,
    digest: Sha256,
    bytes: u64,
    parts: i32,
}

impl Source {
    async fn next(&mut self, uri: &S3Uri) -> Result<Option<(i32, Bytes)>, ObjectError> {
        let capacity = usize::try_from(self.part_bytes).unwrap_or(usize::MAX);
        let mut content = BytesMut::with_capacity(capacity);
        let mut limited = (&mut self.file).take(self.part_bytes);
        while limited
            .read_buf(&mut content)
            .await
            .map_err(ObjectError::local(uri, "read the file"))?
            > 0
        {}
        if content.is_empty() {
            return Ok(None);
        }
        self.digest.update(&content);
        self.bytes += u64::try_from(content.len()).unwrap_or_default();
        self.parts += 1;
        Ok(Some((self.parts, content.freeze())))
    }
}
