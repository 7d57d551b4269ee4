//! Multipart uploads: parts are files of a folder until they are joined to an object.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use s3s::{
    S3Error, S3Request, S3Result,
    crypto::{Checksum as _, Md5},
    dto::{
        CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, UploadPartInput,
        UploadPartOutput,
    },
    s3_error,
};
use serde::{Deserialize, Serialize};

use super::{
    backend::Backend,
    folder::{Conditions, Folder},
    object::{Attributes, Object},
    receive::{claims_of, receive},
};

/// Smallest part but for the last, in bytes.
const MIN_PART: u64 = 5 << 20;
/// Highest number of a part.
const MAX_PARTS: i32 = 10_000;
/// Holds the [`Upload`] in its folder.
const UPLOAD_FILE: &str = "upload.json";

/// What an upload will become.
#[derive(Debug, Serialize, Deserialize)]
struct Upload {
    bucket: String,
    key: String,
    attributes: Attributes,
}

impl Upload {
    /// Reads an upload that exists and is for this object.
    fn open(folder: &Folder, id: &str, bucket: &str, key: &str) -> S3Result<(PathBuf, Self)> {
        let dir = folder.upload(id)?;
        let text = std::fs::read(dir.join(UPLOAD_FILE)).map_err(|e| match e.kind() {
            ErrorKind::NotFound => s3_error!(NoSuchUpload),
            _ => S3Error::internal_error(e),
        })?;
        let upload: Self = serde_json::from_slice(&text).map_err(S3Error::internal_error)?;
        if upload.bucket != bucket || upload.key != key {
            return Err(s3_error!(NoSuchUpload));
        }
        Ok((dir, upload))
    }
}

pub(super) fn create(
    folder: &Arc<Folder>,
    input: CreateMultipartUploadInput,
) -> S3Result<CreateMultipartUploadOutput> {
    // Refused now rather than once everything is there.
    folder.path_of(&input.bucket, &input.key)?;
    let dir = folder.new_upload().map_err(S3Error::internal_error)?;
    let upload = Upload {
        bucket: input.bucket.clone(),
        key: input.key.clone(),
        attributes: Attributes {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default(),
            ..Attributes::default()
        },
    };
    let text = serde_json::to_vec(&upload).map_err(S3Error::internal_error)?;
    std::fs::write(dir.join(UPLOAD_FILE), text).map_err(S3Error::internal_error)?;
    let id = dir.file_name().and_then(|name| name.to_str());
    Ok(CreateMultipartUploadOutput {
        upload_id: id.map(str::to_owned),
        bucket: Some(input.bucket),
        key: Some(input.key),
        checksum_algorithm: input.checksum_algorithm,
        ..CreateMultipartUploadOutput::default()
    })
}

pub(super) async fn part(
    backend: &Backend,
    mut req: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let claims = claims_of!(req);
    let input = req.input;
    let number = input.part_number;
    if !(1..=MAX_PARTS).contains(&number) {
        return Err(s3_error!(
            InvalidArgument,
            "a part's number is from 1 to {MAX_PARTS}"
        ));
    }
    let (id, bucket, key) = (input.upload_id, input.bucket, input.key);
    let (dir, _) = backend
        .blocking(move |folder| Upload::open(folder, &id, &bucket, &key))
        .await?;
    let received = receive(&backend.folder, input.body, claims).await?;
    let etag = hex::encode(received.md5);
    let attributes = Attributes {
        etag: etag.clone(),
        ..Attributes::default()
    };
    let draft = received.draft;
    backend
        .blocking(move |folder| folder.publish_part(draft, &attributes, &part_path(&dir, number)))
        .await?;
    Ok(UploadPartOutput {
        checksum_crc32: received.checksums.checksum_crc32,
        checksum_crc32c: received.checksums.checksum_crc32c,
        checksum_crc64nvme: received.checksums.checksum_crc64nvme,
        checksum_sha1: received.checksums.checksum_sha1,
        checksum_sha256: received.checksums.checksum_sha256,
        e_tag: Some(ETag::Strong(etag)),
        ..UploadPartOutput::default()
    })
}

pub(super) fn complete(
    folder: &Arc<Folder>,
    input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    let (dir, upload) = Upload::open(folder, &input.upload_id, &input.bucket, &input.key)?;
    let path = folder.path_of(&input.bucket, &input.key)?;
    let wanted = input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default();
    let mut parts = open_parts(&dir, &wanted)?;

    let mut draft = folder.draft().map_err(S3Error::internal_error)?;
    let mut digest = Md5::new();
    for part in &mut parts {
        let md5 = hex::decode(&part.attributes.etag).map_err(S3Error::internal_error)?;
        digest.update(&md5);
        Folder::append(part, &mut draft).map_err(S3Error::internal_error)?;
    }
    let etag = format!("{}-{}", hex::encode(digest.finalize()), parts.len());
    let attributes = Attributes {
        etag: etag.clone(),
        ..upload.attributes
    };
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
    };
    folder.publish(draft, &attributes, &path, &conditions)?;
    if let Err(error) = folder.remove_upload(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove the parts of a complete upload");
    }
    Ok(CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(ETag::Strong(etag)),
        ..CompleteMultipartUploadOutput::default()
    })
}

pub(super) fn abort(folder: &Arc<Folder>, id: &str) -> S3Result<()> {
    folder.remove_upload(&folder.upload(id)?)
}

fn part_path(dir: &Path, number: i32) -> PathBuf {
    dir.join(format!("{number:05}"))
}

/// Opens the parts that the client names and checks that they are those it sent.
fn open_parts(dir: &Path, wanted: &[CompletedPart]) -> S3Result<Vec<Object>> {
    if wanted.is_empty() {
        return Err(s3_error!(InvalidPart, "an upload needs at least one part"));
    }
    if !wanted.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder));
    }
    let mut parts = Vec::with_capacity(wanted.len());
    for (index, part) in wanted.iter().enumerate() {
        let number = part.part_number.unwrap_or_default();
        let object = Object::open(&part_path(dir, number))
            .map_err(S3Error::internal_error)?
            .ok_or_else(|| s3_error!(InvalidPart, "part {number} was not uploaded"))?;
        let etag = part.e_tag.as_ref().map(ETag::value);
        if etag.is_some_and(|etag| etag != object.attributes.etag) {
            return Err(s3_error!(InvalidPart, "part {number} has another ETag"));
        }
        if index + 1 < wanted.len() && object.bytes < MIN_PART {
            return Err(s3_error!(EntityTooSmall));
        }
        parts.push(object);
    }
    Ok(parts)
}
