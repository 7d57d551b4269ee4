//! Reading: streams that survive a cut connection, and downloads that are checked before use.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use aws_sdk_s3::{operation::get_object::GetObjectOutput, primitives::ByteStream};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream, stream::BoxStream};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    task::spawn_blocking,
};
use tokio_util::io::StreamReader;

use crate::{
    ObjectError, ObjectInfo, Objects, S3Uri, Stored,
    client::{info, quoted_etag},
};

/// Cuts in a row, without a byte in between, until a reader gives up.
const MAX_CUTS: u32 = 5;
/// Pause after the first cut; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that a download handles at a time.
const COPY_BUFFER: usize = 256 << 10;

/// What a download must turn out to be; what is `None` is not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Size.
    pub bytes: Option<u64>,
    /// SHA-256, hexadecimal.
    pub sha256: Option<String>,
    /// `ETag` that the object must still have.
    pub etag: Option<String>,
}

/// Content of an object.
///
/// A cut connection is resumed where it broke, on the same version of the object; if that is
/// gone, the read fails with [`ObjectError::PreconditionFailed`] inside the I/O error.
pub struct ObjectReader {
    info: ObjectInfo,
    inner: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectReader")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl ObjectReader {
    /// The object being read.
    #[must_use]
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }
}

impl AsyncRead for ObjectReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncBufRead for ObjectReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().inner).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl Objects {
    /// Opens an object, optionally only if it still has an `ETag`.
    ///
    /// # Errors
    /// [`ObjectError::PreconditionFailed`] if it has another one.
    pub async fn get_stream(
        &self,
        uri: &S3Uri,
        if_match: Option<&str>,
    ) -> Result<ObjectReader, ObjectError> {
        let output = self.get(uri, if_match, None).await?;
        let info = info(output.content_length, output.e_tag, output.last_modified);
        let transfer = Transfer {
            objects: self.clone(),
            uri: uri.clone(),
            etag: info.etag.clone(),
            body: output.body,
            offset: 0,
            end: info.bytes,
            cuts: 0,
        };
        let chunks = stream::unfold(Some(transfer), |state| async {
            let mut transfer = state?;
            match transfer.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(transfer))),
                Ok(None) => None,
                Err(error) => Some((Err(io::Error::other(error)), None)),
            }
        });
        Ok(ObjectReader {
            info,
            inner: StreamReader::new(chunks.boxed()),
        })
    }

    /// Reads a small object whole.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`] if it is larger than `max_bytes`; then nothing is read.
    pub async fn get_bytes(&self, uri: &S3Uri, max_bytes: u64) -> Result<Bytes, ObjectError> {
        let mut reader = self.get_stream(uri, None).await?;
        let bytes = reader.info().bytes;
        if bytes > max_bytes {
            return Err(ObjectError::TooLarge {
                target: uri.to_string(),
                bytes,
                max_bytes,
            });
        }
        let mut content = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
        while reader
            .read_buf(&mut content)
            .await
            .map_err(|e| ObjectError::from_io(e, uri))?
            > 0
        {}
        Ok(content.freeze())
    }

    /// Copies an object to a file, which appears only once its content is checked.
    ///
    /// # Errors
    /// [`ObjectError::ChecksumMismatch`] if it is not as expected; a file that was at `path`
    /// before is then left as it was.
    pub async fn download(
        &self,
        uri: &S3Uri,
        path: &Path,
        expected: &Expected,
    ) -> Result<Stored, ObjectError> {
        let reader = self.get_stream(uri, expected.etag.as_deref()).await?;
        check_size(uri, reader.info().bytes, expected)?;
        let etag = reader.info().etag.clone();
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let draft = NamedTempFile::new_in(folder).map_err(ObjectError::local(
            uri,
            format!("write into {}", folder.display()),
        ))?;
        let file = draft
            .as_file()
            .try_clone()
            .map_err(ObjectError::local(uri, format!("write {}", path.display())))?;
        let (bytes, sha256) = copy(uri, reader, tokio::fs::File::from_std(file)).await?;
        check_digest(uri, &sha256, expected.sha256.as_deref())?;
        let final_path = path.to_owned();
        spawn_blocking(move || draft.persist(final_path))
            .await
            .map_err(io::Error::from)
            .and_then(|persisted| persisted.map_err(|e| e.error))
            .map_err(ObjectError::local(uri, format!("write {}", path.display())))?;
        Ok(Stored {
            bytes,
            sha256,
            etag,
        })
    }

    async fn get(
        &self,
        uri: &S3Uri,
        if_match: Option<&str>,
        offset: Option<u64>,
    ) -> Result<GetObjectOutput, ObjectError> {
        self.client
            .get_object()
            .bucket(uri.bucket())
            .key(uri.key())
            .set_if_match(if_match.map(quoted_etag))
            .set_range(offset.map(|offset| format!("bytes={offset}-")))
            .send()
            .await
            .map_err(|e| ObjectError::sdk(uri, e))
    }
}

async fn copy(
    uri: &S3Uri,
    mut from: ObjectReader,
    mut to: tokio::fs::File,
) -> Result<(u64, String), ObjectError> {
    let mut buffer = BytesMut::with_capacity(COPY_BUFFER);
    let mut digest = Sha256::new();
    let mut bytes = 0;
    loop {
        buffer.clear();
        let count = from
            .read_buf(&mut buffer)
            .await
            .map_err(|e| ObjectError::from_io(e, uri))?;
        if count == 0 {
            break;
        }
        digest.update(&buffer);
        bytes += u64::try_from(count).unwrap_or_default();
        to.write_all(&buffer)
            .await
            .map_err(ObjectError::local(uri, "write a file"))?;
    }
    to.flush()
        .await
        .map_err(ObjectError::local(uri, "write a file"))?;
    Ok((bytes, hex::encode(digest.finalize())))
}

fn check_size(uri: &S3Uri, bytes: u64, expected: &Expected) -> Result<(), ObjectError> {
    match expected.bytes {
        Some(wanted) if wanted != bytes => Err(ObjectError::ChecksumMismatch {
            target: uri.to_string(),
            reason: format!("it has {bytes} bytes instead of {wanted}"),
        }),
        _ => Ok(()),
    }
}

/// Compares a SHA-256 with the one that was promised.
pub(crate) fn check_digest(
    uri: &S3Uri,
    actual: &str,
    wanted: Option<&str>,
) -> Result<(), ObjectError> {
    match wanted {
        Some(wanted) if !wanted.eq_ignore_ascii_case(actual) => {
            Err(ObjectError::ChecksumMismatch {
                target: uri.to_string(),
                reason: format!("its SHA-256 is {actual} instead of {wanted}"),
            })
        }
        _ => Ok(()),
    }
}

/// The state of a stream between two chunks.
struct Transfer {
    objects: Objects,
    uri: S3Uri,
    etag: String,
    body: ByteStream,
    offset: u64,
    end: u64,
    cuts: u32,
}

impl Transfer {
    async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        loop {
            let error = match self.body.try_next().await {
                Ok(Some(chunk)) => {
                    self.offset += u64::try_from(chunk.len()).unwrap_or_default();
                    self.cuts = 0;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.offset >= self.end => return Ok(None),
                Ok(None) => None,
                // All bytes came; what is wrong is the checksum that the SDK compares at the end.
                Err(e) if self.offset >= self.end => {
                    return Err(ObjectError::ChecksumMismatch {
                        target: self.uri.to_string(),
                        reason: e.to_string(),
                    });
                }
                Err(e) => Some(e.into()),
            };
            self.resume(error).await?;
        }
    }

    async fn resume(
        &mut self,
        mut error: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<(), ObjectError> {
        loop {
            self.cuts += 1;
            if self.cuts > MAX_CUTS {
                let reason = format!("cut at byte {} of {}", self.offset, self.end);
                return Err(ObjectError::unavailable(&self.uri, reason, error));
            }
            tracing::debug!(uri = %self.uri, offset = self.offset, "a download was cut, resuming");
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(self.cuts - 1)).await;
            let etag = self.etag.as_str();
            match self
                .objects
                .get(&self.uri, Some(etag), Some(self.offset))
                .await
            {
                Ok(output) => {
                    self.body = output.body;
                    return Ok(());
                }
                Err(e) if e.is_retryable() => error = Some(e.into()),
                Err(e) => return Err(e),
            }
        }
    }
}
