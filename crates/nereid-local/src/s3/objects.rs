//! Reading, writing and copying whole objects.

use std::{
    io::{Seek, SeekFrom},
    sync::Arc,
};

use s3s::{
    S3Error, S3Request, S3Result,
    dto::{
        Checksum, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, ETag,
        ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
        MetadataDirective, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
    },
    s3_error,
};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{
    backend::Backend,
    folder::{Conditions, Folder},
    object::{Attributes, Object},
    receive::{claims_of, receive},
};

/// Bytes read from a file at a time.
const READ_BUFFER: usize = 128 << 10;

/// What must hold for a read to be answered with the object.
struct ReadConditions<'a> {
    has_etag: Option<&'a ETagCondition>,
    lacks_etag: Option<&'a ETagCondition>,
    modified_since: Option<&'a Timestamp>,
    unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    fn check(&self, object: &Object) -> S3Result<()> {
        let etag = ETag::Strong(object.attributes.etag.clone());
        let modified = Timestamp::from(object.modified);
        // The conditions on the ETag take precedence over those on the time.
        let is_wanted = match self.has_etag {
            Some(ETagCondition::ETag(wanted)) => wanted.strong_cmp(&etag),
            Some(ETagCondition::Any) => true,
            None => self.unmodified_since.is_none_or(|since| modified <= *since),
        };
        if !is_wanted {
            return Err(s3_error!(PreconditionFailed));
        }
        let is_known = match self.lacks_etag {
            Some(ETagCondition::ETag(known)) => known.weak_cmp(&etag),
            Some(ETagCondition::Any) => true,
            None => self.modified_since.is_some_and(|since| modified <= *since),
        };
        if is_known {
            return Err(s3_error!(NotModified));
        }
        Ok(())
    }
}

pub(super) fn get(folder: &Arc<Folder>, input: &GetObjectInput) -> S3Result<GetObjectOutput> {
    let mut object = folder.object(&input.bucket, &input.key)?;
    let conditions = ReadConditions {
        has_etag: input.if_match.as_ref(),
        lacks_etag: input.if_none_match.as_ref(),
        modified_since: input.if_modified_since.as_ref(),
        unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check(&object)?;
    let range = match &input.range {
        Some(range) => range.check(object.bytes)?,
        None => 0..object.bytes,
    };
    let length = range.end - range.start;
    let content_range = input
        .range
        .as_ref()
        .map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, object.bytes));
    object
        .file
        .seek(SeekFrom::Start(range.start))
        .map_err(S3Error::internal_error)?;
    // A part's bytes do not have the whole's checksum.
    let checksums = match content_range {
        None if input.checksum_mode.is_some() => Checksum::from(object.attributes.checksums),
        _ => Checksum::default(),
    };
    let content = tokio::fs::File::from_std(object.file).take(length);
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::wrap(ReaderStream::with_capacity(
            content,
            READ_BUFFER,
        ))),
        cache_control: object.attributes.cache_control,
        checksum_crc32: checksums.checksum_crc32,
        checksum_crc32c: checksums.checksum_crc32c,
        checksum_crc64nvme: checksums.checksum_crc64nvme,
        checksum_sha1: checksums.checksum_sha1,
        checksum_sha256: checksums.checksum_sha256,
        content_disposition: object.attributes.content_disposition,
        content_encoding: object.attributes.content_encoding,
        content_length: i64::try_from(length).ok(),
        content_range,
        content_type: object.attributes.content_type,
        e_tag: Some(ETag::Strong(object.attributes.etag)),
        last_modified: Some(Timestamp::from(object.modified)),
        metadata: Some(object.attributes.metadata),
        ..GetObjectOutput::default()
    })
}

pub(super) fn head(folder: &Arc<Folder>, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
    let object = folder.object(&input.bucket, &input.key)?;
    let conditions = ReadConditions {
        has_etag: input.if_match.as_ref(),
        lacks_etag: input.if_none_match.as_ref(),
        modified_since: input.if_modified_since.as_ref(),
        unmodified_since: input.if_unmodified_since.as_ref(),
    };
    conditions.check(&object)?;
    let checksums = match input.checksum_mode {
        Some(_) => Checksum::from(object.attributes.checksums),
        None => Checksum::default(),
    };
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: object.attributes.cache_control,
        checksum_crc32: checksums.checksum_crc32,
        checksum_crc32c: checksums.checksum_crc32c,
        checksum_crc64nvme: checksums.checksum_crc64nvme,
        checksum_sha1: checksums.checksum_sha1,
        checksum_sha256: checksums.checksum_sha256,
        content_disposition: object.attributes.content_disposition,
        content_encoding: object.attributes.content_encoding,
        content_length: i64::try_from(object.bytes).ok(),
        content_type: object.attributes.content_type,
        e_tag: Some(ETag::Strong(object.attributes.etag)),
        last_modified: Some(Timestamp::from(object.modified)),
        metadata: Some(object.attributes.metadata),
        ..HeadObjectOutput::default()
    })
}

pub(super) async fn put(
    backend: &Backend,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<PutObjectOutput> {
    let claims = claims_of!(req);
    let input = req.input;
    let (bucket, key) = (input.bucket, input.key);
    // Before the body is received for nothing.
    let path = backend
        .blocking(move |folder| folder.path_of(&bucket, &key))
        .await?;
    let received = receive(&backend.folder, input.body, claims).await?;
    let etag = hex::encode(received.md5);
    let attributes = Attributes {
        etag: etag.clone(),
        content_type: input.content_type,
        content_encoding: input.content_encoding,
        content_disposition: input.content_disposition,
        cache_control: input.cache_control,
        metadata: input.metadata.unwrap_or_default(),
        checksums: received.checksums.clone().into(),
    };
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
    };
    let draft = received.draft;
    backend
        .blocking(move |folder| folder.publish(draft, &attributes, &path, &conditions))
        .await?;
    Ok(PutObjectOutput {
        checksum_crc32: received.checksums.checksum_crc32,
        checksum_crc32c: received.checksums.checksum_crc32c,
        checksum_crc64nvme: received.checksums.checksum_crc64nvme,
        checksum_sha1: received.checksums.checksum_sha1,
        checksum_sha256: received.checksums.checksum_sha256,
        e_tag: Some(ETag::Strong(etag)),
        ..PutObjectOutput::default()
    })
}

pub(super) fn copy(folder: &Arc<Folder>, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
    let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
        return Err(s3_error!(NotImplemented));
    };
    let mut source = folder.object(bucket, key)?;
    let conditions = ReadConditions {
        has_etag: input.copy_source_if_match.as_ref(),
        lacks_etag: input.copy_source_if_none_match.as_ref(),
        modified_since: input.copy_source_if_modified_since.as_ref(),
        unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
    };
    conditions
        .check(&source)
        .map_err(|_| s3_error!(PreconditionFailed))?;
    let path = folder.path_of(&input.bucket, &input.key)?;
    let mut draft = folder.draft().map_err(S3Error::internal_error)?;
    Folder::append(&mut source, &mut draft).map_err(S3Error::internal_error)?;
    let replaces = input
        .metadata_directive
        .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
    let attributes = if replaces {
        Attributes {
            etag: source.attributes.etag,
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            metadata: input.metadata.unwrap_or_default(),
            checksums: source.attributes.checksums,
        }
    } else {
        source.attributes
    };
    folder.publish(draft, &attributes, &path, &Conditions::default())?;
    let copied = folder.object(&input.bucket, &input.key)?;
    Ok(CopyObjectOutput {
        copy_object_result: Some(CopyObjectResult {
            e_tag: Some(ETag::Strong(attributes.etag)),
            last_modified: Some(Timestamp::from(copied.modified)),
            ..CopyObjectResult::default()
        }),
        ..CopyObjectOutput::default()
    })
}
