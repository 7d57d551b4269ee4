//! The list of a file's objects, as it lies in Nereid's bucket: one object a line, as JSON.

use std::sync::Arc;

use bytes::BytesMut;
use nereid_core::{
    datasets::{DatasetFile, FileObjects},
    limits,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{Member, Pin};
use crate::{ObjectError, Objects, PutOptions, S3Uri, read::check_digest};

/// An object of the list.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    name: std::borrow::Cow<'a, str>,
    uri: String,
    bytes: u64,
    etag: std::borrow::Cow<'a, str>,
}

fn encode(members: &[Member]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    for member in members {
        let line = Line {
            name: member.name.as_str().into(),
            uri: member.pin.uri.to_string(),
            bytes: member.pin.bytes,
            etag: member.pin.etag.as_str().into(),
        };
        serde_json::to_writer(&mut out, &line)?;
        out.push(b'\n');
    }
    Ok(out)
}

fn decode(list: &[u8]) -> Result<Arc<[Member]>, String> {
    let lines = list.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    let member = |line| {
        let line: Line<'_> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        Ok(Member {
            name: line.name.into_owned(),
            pin: Pin {
                uri: line
                    .uri
                    .parse()
                    .map_err(|e: crate::InvalidUri| e.to_string())?,
                bytes: line.bytes,
                etag: line.etag.into_owned(),
            },
        })
    };
    lines.map(member).collect()
}

/// Stores the list under its digest.
pub(super) async fn store(
    objects: &Objects,
    folder: &str,
    members: &[Member],
) -> Result<DatasetFile, ObjectError> {
    let refused = |reason: String| ObjectError::Other {
        target: format!("s3://{}/{folder}", objects.bucket()),
        reason,
        source: None,
    };
    let content = encode(members).map_err(|e| refused(e.to_string()))?;
    let (bytes, max) = (content.len() as u64, limits::MAX_OBJECT_LIST_BYTES);
    let sha256 = hex::encode(Sha256::digest(&content));
    let uri = objects.own(format!("{folder}/{sha256}.jsonl"));
    let uri = uri.map_err(|e| refused(e.to_string()))?;
    if bytes > max {
        return Err(ObjectError::TooLarge {
            target: uri.to_string(),
            bytes,
            max_bytes: max,
        });
    }
    let options = PutOptions {
        content_type: Some("application/jsonl".to_owned()),
        ..PutOptions::create_only()
    };
    let etag = match objects.put_bytes(&uri, content.into(), &options).await {
        Ok(stored) => stored.etag,
        // The key holds the content's digest: what is there already is the same list.
        Err(ObjectError::PreconditionFailed { .. }) => objects.head(&uri).await?.etag,
        Err(e) => return Err(e),
    };
    Ok(DatasetFile {
        uri: uri.to_string(),
        bytes,
        sha256: sha256.clone(),
        etag,
        objects: Some(FileObjects {
            count: members.len() as u64,
            list_sha256: sha256,
        }),
    })
}

/// Reads a list that was stored, and checks that it is the one.
pub(super) async fn load(
    objects: &Objects,
    file: &DatasetFile,
) -> Result<Arc<[Member]>, ObjectError> {
    let damaged = |reason: String| ObjectError::ChecksumMismatch {
        target: file.uri.clone(),
        reason,
    };
    let uri: S3Uri = file
        .uri
        .parse()
        .map_err(|e: crate::InvalidUri| damaged(e.to_string()))?;
    let mut reader = objects.get_stream(&uri, Some(&file.etag)).await?;
    let (bytes, max) = (reader.info().bytes, limits::MAX_OBJECT_LIST_BYTES);
    if bytes > max {
        return Err(ObjectError::TooLarge {
            target: file.uri.clone(),
            bytes,
            max_bytes: max,
        });
    }
    let mut content = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or_default());
    while reader
        .read_buf(&mut content)
        .await
        .map_err(|e| ObjectError::from_io(e, &uri))?
        > 0
    {}
    let wanted = file.objects.as_ref().map(|o| o.list_sha256.as_str());
    check_digest(&uri, &hex::encode(Sha256::digest(&content)), wanted)?;
    decode(&content).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let member = |name: &str, bytes| Member {
            name: name.to_owned(),
            pin: Pin {
                uri: S3Uri::new("data", format!("photos/{name}")).unwrap(),
                bytes,
                etag: format!("e{bytes}-2"),
            },
        };
        let members = [member("cat/1 \"ü\".png", 7), member("dog/2.jpg", 0)];
        let list = encode(&members).unwrap();
        assert_eq!(*decode(&list).unwrap(), members);
        assert!(decode(&list[..list.len() - 4]).is_err());
    }
}
