//! A whole version as one tar archive, streamed: one chunk in memory, whatever its size.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, header};
use nereid_core::{Name, models::MANIFEST_FILE};
use nereid_objects::Objects;
use tar::{EntryType, Header};
use tokio_util::io::ReaderStream;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::files::{CHUNK_BYTES, PublishedFile, PublishedFiles};
use crate::{
    ApiState,
    auth::Caller,
    extract::{Path, VersionNumber},
    problem::Problem,
};

/// Size of a tar record; content is padded to it.
const RECORD: u64 = 512;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default().routes(routes!(download_model_artifact))
}

/// Downloads a version as a tar archive
///
/// Holds `manifest.json` and every file that it lists, in a folder `{name}-{version}`.
#[utoipa::path(
    get, path = "/v1/models/{name}/versions/{version}/artifact", tag = "models",
    params(
        ("name" = Name, Path, description = "Name of the model"),
        ("version" = u32, Path, description = "Number of the version", minimum = 1, maximum = 2_147_483_647),
    ),
    responses((status = 200, description = "The archive", body = [u8], content_type = "application/x-tar")),
    security(("api_key" = ["viewer"])),
)]
async fn download_model_artifact(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path((name, number)): Path<(Name, VersionNumber)>,
) -> Result<Response, Problem> {
    let version = state
        .store
        .model_version(actor.project, &name, number.0)
        .await?;
    let published = PublishedFiles::read(&state, &version).await?;
    let modified = u64::try_from(version.created_at.timestamp()).unwrap_or(0);
    let folder = format!("{name}-{}", number.0);
    let archive = Archive::new(&folder, modified, published).map_err(Problem::internal)?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-tar"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(archive.length())),
        (header::CONTENT_DISPOSITION, attachment(&folder)?),
    ];
    let body = Body::from_stream(archive.stream(state.objects.clone()));
    Ok((headers, body).into_response())
}

fn attachment(folder: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(&format!("attachment; filename=\"{folder}.tar\""))
        .map_err(Problem::internal)
}

/// Entries of an archive, their headers made.
struct Archive {
    manifest: (Bytes, Vec<u8>),
    files: Vec<(Bytes, PublishedFile)>,
}

impl Archive {
    fn new(folder: &str, modified: u64, published: PublishedFiles) -> std::io::Result<Self> {
        let of_manifest = entry(
            &format!("{folder}/{MANIFEST_FILE}"),
            published.manifest.len() as u64,
            modified,
        )?;
        let files = published.files.into_iter().map(|file| {
            let header = entry(&format!("{folder}/{}", file.path), file.bytes, modified)?;
            Ok((header, file))
        });
        Ok(Self {
            files: files.collect::<std::io::Result<_>>()?,
            manifest: (of_manifest, published.manifest),
        })
    }

    fn length(&self) -> u64 {
        let of = |bytes: u64| RECORD + bytes + padding(bytes);
        let files: u64 = self.files.iter().map(|(_, file)| of(file.bytes)).sum();
        // Two empty records end an archive.
        of(self.manifest.1.len() as u64) + files + 2 * RECORD
    }

    fn stream(self, objects: Objects) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        let (header, manifest) = self.manifest;
        let pad = zeros(padding(manifest.len() as u64));
        let first = stream::iter([header, Bytes::from(manifest), pad].map(Ok));
        let files = stream::iter(self.files)
            .then(move |(header, file)| open(objects.clone(), header, file))
            .try_flatten();
        first
            .chain(files)
            .chain(stream::iter([Ok(zeros(2 * RECORD))]))
    }
}

async fn open(
    objects: Objects,
    header: Bytes,
    file: PublishedFile,
) -> std::io::Result<impl Stream<Item = std::io::Result<Bytes>> + Send> {
    let reader = objects
        .get_stream(&file.uri, None)
        .await
        .map_err(std::io::Error::other)?;
    if reader.info().bytes != file.bytes {
        return Err(std::io::Error::other(format!(
            "{} is not the file that was published",
            file.uri
        )));
    }
    let content = ReaderStream::with_capacity(reader, CHUNK_BYTES);
    let pad = zeros(padding(file.bytes));
    Ok(stream::iter([Ok(header)])
        .chain(content)
        .chain(stream::iter([Ok(pad)])))
}

fn entry(path: &str, bytes: u64, modified: u64) -> std::io::Result<Bytes> {
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(modified);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(RECORD) - bytes
}

fn zeros(n: u64) -> Bytes {
    const ZEROS: [u8; 1024] = [0; 1024];
    Bytes::from_static(&ZEROS[..usize::try_from(n).unwrap_or(0).min(ZEROS.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announced_length_is_that_of_the_records() {
        let published = |manifest: usize| PublishedFiles {
            manifest: vec![b' '; manifest],
            files: vec![],
        };
        for (manifest, length) in [
            (0, 512 + 1024),
            (1, 1024 + 1024),
            (512, 1024 + 1024),
            (513, 1536 + 1024),
        ] {
            let archive = Archive::new("digits-1", 0, published(manifest)).unwrap();
            assert_eq!(archive.length(), length, "{manifest}");
        }
    }

    #[test]
    fn entries_can_be_read_by_tar() {
        let mut bytes = entry("digits-1/weights.safetensors", 3, 1_700_000_000)
            .unwrap()
            .to_vec();
        bytes.extend(b"abc");
        bytes.extend(zeros(padding(3)));
        bytes.extend(zeros(2 * RECORD));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(
            entries[0].path().unwrap().to_str(),
            Some("digits-1/weights.safetensors")
        );
        assert_eq!(entries[0].size(), 3);
    }
}
