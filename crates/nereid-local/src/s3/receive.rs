//! Receives a body into a draft and checks it before anybody can see it.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use s3s::{
    S3Error, S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Md5},
    dto::{Checksum, ChecksumAlgorithm, StreamingBlob},
    s3_error,
};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::folder::{Draft, Folder};

/// Bytes collected before they are written.
const WRITE_BUFFER: usize = 256 << 10;

/// What the client says about the body.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) checksums: Checksum,
    pub(super) algorithm: Option<ChecksumAlgorithm>,
    /// Base64.
    pub(super) md5: Option<String>,
    /// Checksums that come after the body.
    pub(super) trailers: Option<TrailingHeaders>,
}

/// Moves the claims out of a request, whose inputs share these fields but no type.
macro_rules! claims_of {
    ($request:expr) => {{
        let request = &mut $request;
        $crate::s3::receive::Claims {
            checksums: s3s::dto::Checksum {
                checksum_crc32: request.input.checksum_crc32.take(),
                checksum_crc32c: request.input.checksum_crc32c.take(),
                checksum_crc64nvme: request.input.checksum_crc64nvme.take(),
                checksum_sha1: request.input.checksum_sha1.take(),
                checksum_sha256: request.input.checksum_sha256.take(),
                ..Default::default()
            },
            algorithm: request.input.checksum_algorithm.take(),
            md5: request.input.content_md5.take(),
            trailers: request.trailing_headers.take(),
        }
    }};
}
pub(super) use claims_of;

/// A body that is what its sender meant it to be.
pub(super) struct Received {
    pub(super) draft: Draft,
    pub(super) md5: [u8; 16],
    pub(super) checksums: Checksum,
}

/// Writes the body to a draft; an incomplete or damaged one leaves nothing.
pub(super) async fn receive(
    folder: &Arc<Folder>,
    body: Option<StreamingBlob>,
    claims: Claims,
) -> S3Result<Received> {
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let draft = folder.draft().map_err(S3Error::internal_error)?;
    let file = draft.handle().map_err(S3Error::internal_error)?;
    let mut writer = BufWriter::with_capacity(WRITE_BUFFER, tokio::fs::File::from_std(file));
    let mut md5 = Md5::new();
    let mut hasher = hasher(&claims)?;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, e))?;
        md5.update(&chunk);
        hasher.update(&chunk);
        writer
            .write_all(&chunk)
            .await
            .map_err(S3Error::internal_error)?;
    }
    writer.flush().await.map_err(S3Error::internal_error)?;
    let (md5, checksums) = (md5.finalize(), hasher.finalize());
    verify(claims, &checksums, md5)?;
    Ok(Received {
        draft,
        md5,
        checksums,
    })
}

fn hasher(claims: &Claims) -> S3Result<ChecksumHasher> {
    let named = claims.algorithm.as_ref().map(ChecksumAlgorithm::as_str);
    let wanted = |claim: &Option<String>, name: &str| claim.is_some() || named == Some(name);
    let sums = &claims.checksums;
    let hasher = ChecksumHasher {
        crc32: wanted(&sums.checksum_crc32, ChecksumAlgorithm::CRC32).then(Default::default),
        crc32c: wanted(&sums.checksum_crc32c, ChecksumAlgorithm::CRC32C).then(Default::default),
        crc64nvme: wanted(&sums.checksum_crc64nvme, ChecksumAlgorithm::CRC64NVME)
            .then(Default::default),
        sha1: wanted(&sums.checksum_sha1, ChecksumAlgorithm::SHA1).then(Default::default),
        sha256: wanted(&sums.checksum_sha256, ChecksumAlgorithm::SHA256).then(Default::default),
    };
    let known = [
        ChecksumAlgorithm::CRC32,
        ChecksumAlgorithm::CRC32C,
        ChecksumAlgorithm::CRC64NVME,
        ChecksumAlgorithm::SHA1,
        ChecksumAlgorithm::SHA256,
    ];
    match named {
        Some(name) if !known.contains(&name) => Err(s3_error!(
            InvalidArgument,
            "unknown checksum algorithm {name}"
        )),
        _ => Ok(hasher),
    }
}

fn verify(claims: Claims, computed: &Checksum, md5: [u8; 16]) -> S3Result<()> {
    let trailers = claims.trailers.and_then(|trailers| trailers.take());
    let trailer = |name: &str| {
        let value = trailers.as_ref()?.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let sums = claims.checksums;
    let pairs = [
        (
            "x-amz-checksum-crc32",
            sums.checksum_crc32,
            &computed.checksum_crc32,
        ),
        (
            "x-amz-checksum-crc32c",
            sums.checksum_crc32c,
            &computed.checksum_crc32c,
        ),
        (
            "x-amz-checksum-crc64nvme",
            sums.checksum_crc64nvme,
            &computed.checksum_crc64nvme,
        ),
        (
            "x-amz-checksum-sha1",
            sums.checksum_sha1,
            &computed.checksum_sha1,
        ),
        (
            "x-amz-checksum-sha256",
            sums.checksum_sha256,
            &computed.checksum_sha256,
        ),
    ];
    for (name, claimed, computed) in pairs {
        let claimed = claimed.or_else(|| trailer(name));
        if let (Some(claimed), Some(computed)) = (&claimed, computed)
            && claimed != computed
        {
            return Err(s3_error!(
                BadDigest,
                "{name} is {claimed}, the body has {computed}"
            ));
        }
    }
    if claims
        .md5
        .is_some_and(|claimed| claimed != STANDARD.encode(md5))
    {
        return Err(s3_error!(BadDigest, "the body does not match Content-MD5"));
    }
    Ok(())
}
