//! One object, one file: its content, then what S3 knows about it.
//!
//! Content and metadata become visible in a single rename, so a reader sees all of an object or
//! nothing of it, whenever the writer dies; and an `ETag` always belongs to its content.

use std::{
    collections::HashMap,
    fs::File,
    io::{ErrorKind, Read, Result, Seek, SeekFrom, Write},
    path::Path,
    time::SystemTime,
};

use s3s::dto::Checksum;
use serde::{Deserialize, Serialize};

/// Ends every file; another format would end in another word.
const MAGIC: &[u8; 8] = b"nereid/1";
/// Length of the metadata (4 bytes, little endian) and [`MAGIC`].
const TAIL: u64 = 12;

/// What S3 keeps about an object beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attributes {
    /// Without quotes.
    pub(super) etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub(super) metadata: HashMap<String, String>,
    #[serde(default, skip_serializing_if = "Checksums::is_empty")]
    pub(super) checksums: Checksums,
}

/// Checksums of the whole content, base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    crc32: Option<String>,
    crc32c: Option<String>,
    crc64nvme: Option<String>,
    sha1: Option<String>,
    sha256: Option<String>,
}

impl Checksums {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Checksum> for Checksums {
    fn from(sums: Checksum) -> Self {
        Self {
            crc32: sums.checksum_crc32,
            crc32c: sums.checksum_crc32c,
            crc64nvme: sums.checksum_crc64nvme,
            sha1: sums.checksum_sha1,
            sha256: sums.checksum_sha256,
        }
    }
}

impl From<Checksums> for Checksum {
    fn from(sums: Checksums) -> Self {
        Self {
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Self::default()
        }
    }
}

/// An object opened for reading; it stays whole even if it is replaced or deleted meanwhile.
#[derive(Debug)]
pub(super) struct Object {
    /// At the start of the content.
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) modified: SystemTime,
    pub(super) attributes: Attributes,
}

impl Object {
    /// Opens the object in a file, if there is one.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let stat = file.metadata()?;
        let end = stat.len().checked_sub(TAIL).ok_or_else(|| broken(path))?;
        file.seek(SeekFrom::Start(end))?;
        let (mut length, mut magic) = ([0; 4], [0; 8]);
        file.read_exact(&mut length)?;
        file.read_exact(&mut magic)?;
        let length = u64::from(u32::from_le_bytes(length));
        let bytes = end
            .checked_sub(length)
            .filter(|_| magic == *MAGIC)
            .ok_or_else(|| broken(path))?;
        file.seek(SeekFrom::Start(bytes))?;
        let attributes = serde_json::from_reader((&mut file).take(length))?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Some(Self {
            file,
            bytes,
            modified: stat.modified()?,
            attributes,
        }))
    }
}

/// Appends the metadata to a file that holds the content.
pub(super) fn seal(file: &mut File, attributes: &Attributes) -> Result<()> {
    let mut tail = serde_json::to_vec(attributes)?;
    let length = u32::try_from(tail.len()).map_err(|_| ErrorKind::FileTooLarge)?;
    tail.extend(length.to_le_bytes());
    tail.extend(MAGIC);
    file.seek(SeekFrom::End(0))?;
    file.write_all(&tail)
}

fn broken(path: &Path) -> std::io::Error {
    let message = format!("{} is no object of the embedded S3", path.display());
    std::io::Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_attributes_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x~");
        let attributes = Attributes {
            etag: "abc".to_owned(),
            metadata: HashMap::from([("k".to_owned(), "v".to_owned())]),
            ..Attributes::default()
        };
        let mut file = File::create(&path).unwrap();
        file.write_all(b"content").unwrap();
        seal(&mut file, &attributes).unwrap();

        let mut object = Object::open(&path).unwrap().unwrap();
        assert_eq!(object.attributes, attributes);
        let mut content = vec![0; usize::try_from(object.bytes).unwrap()];
        object.file.read_exact(&mut content).unwrap();
        assert_eq!(content, b"content");
    }

    #[test]
    fn other_files_are_refused_and_missing_ones_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x~");
        assert!(Object::open(&path).unwrap().is_none());
        for content in ["", "short", "longer than the tail of an object"] {
            std::fs::write(&path, content).unwrap();
            let error = Object::open(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
    }
}
