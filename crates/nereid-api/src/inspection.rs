//! Reads a dataset's files once: pins each to its ETag, hashes it while the engine reads it.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use nereid_core::{
    Violations,
    datasets::{DatasetFile, DatasetSource, FileRole, Inspection},
    engine::{DataFiles, EngineError, Inspector},
    ids::ProjectId,
    limits,
};
use nereid_objects::{ObjectError, Objects, S3Uri};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::{
    ApiState,
    problem::{Problem, client_object},
};

/// What was found, and the files it was found in.
pub(crate) struct Inspected {
    pub(crate) files: BTreeMap<FileRole, DatasetFile>,
    pub(crate) digest: String,
    pub(crate) inspection: Inspection,
}

/// Inspects the files that `source` names.
///
/// # Errors
/// Mistakes in the URIs, unreadable objects, or what the engine finds wrong with the content.
pub(crate) async fn inspect(
    state: &ApiState,
    project: ProjectId,
    source: DatasetSource,
) -> Result<Inspected, Problem> {
    let uris = parse_uris(&source, state.objects.bucket(), project)?;
    let mut pins = BTreeMap::new();
    for (role, uri) in uris {
        pins.insert(role, pin(&state.objects, role, uri).await?);
    }
    let permit = state
        .inspections
        .clone()
        .acquire_owned()
        .await
        .map_err(Problem::internal)?;
    let files = PinnedFiles {
        objects: state.objects.clone(),
        runtime: Handle::current(),
        pins,
        digests: Arc::default(),
    };
    let inspector = state.inspector.clone();
    // The permit moves along: if the client leaves, the thread still counts until it is done.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read(inspector.as_ref(), &source, &files)
    });
    Ok(work.await.map_err(Problem::internal)??)
}

fn read(
    inspector: &dyn Inspector,
    source: &DatasetSource,
    files: &PinnedFiles,
) -> Result<Inspected, EngineError> {
    let inspection = inspector.inspect(source, files)?;
    let files = files.finish().map_err(|source| {
        let context = "reading the rest of a file".to_owned();
        EngineError::Io { context, source }
    })?;
    let digest = digest(source, &files);
    Ok(Inspected {
        files,
        digest,
        inspection,
    })
}

/// SHA-256 over everything that decides what a reader sees: declaration and bytes, not places.
fn digest(source: &DatasetSource, files: &BTreeMap<FileRole, DatasetFile>) -> String {
    let digests: BTreeMap<_, _> = files
        .iter()
        .map(|(role, f)| (role.as_str(), &f.sha256))
        .collect();
    let mut declared = serde_json::json!({
        "format": source.format,
        "label_column": source.label_column,
        "shape": source.shape,
        "target": source.target,
        "files": digests,
    });
    // Versions registered before there were these keep the digest that they were given.
    if !source.columns.is_empty() {
        declared["columns"] = serde_json::json!(source.columns);
    }
    if !source.arrays.is_empty() {
        declared["arrays"] = serde_json::json!(source.arrays);
    }
    hex::encode(Sha256::digest(declared.to_string()))
}

fn parse_uris(
    source: &DatasetSource,
    own_bucket: &str,
    project: ProjectId,
) -> Result<BTreeMap<FileRole, S3Uri>, Violations> {
    let mut violations = Violations::default();
    let mut uris = BTreeMap::new();
    for (role, text) in &source.files {
        let pointer = format!("/files/{}", role.as_str());
        match text.parse::<S3Uri>() {
            Ok(uri) if is_foreign(&uri, own_bucket, project) => {
                violations.push(
                    pointer,
                    "access_denied",
                    "this object belongs to another project",
                );
            }
            Ok(uri) => {
                uris.insert(*role, uri);
            }
            Err(e) => violations.push(pointer, "invalid_value", e.to_string()),
        }
    }
    violations.into_result(uris)
}

/// Tells whether an object of Nereid's own bucket belongs to another project.
fn is_foreign(uri: &S3Uri, own_bucket: &str, project: ProjectId) -> bool {
    uri.bucket() == own_bucket
        && uri.key().starts_with("projects/")
        && !uri.key().starts_with(&format!("projects/{project}/"))
}

struct Pin {
    uri: S3Uri,
    bytes: u64,
    etag: String,
}

async fn pin(objects: &Objects, role: FileRole, uri: S3Uri) -> Result<Pin, Problem> {
    let pointer = format!("/files/{}", role.as_str());
    let info = objects.head(&uri).await.map_err(client_object(&pointer))?;
    let max = limits::MAX_DECODED_DATASET_BYTES;
    if info.bytes > max {
        let detail = format!("{} bytes are more than the {max} allowed", info.bytes);
        return Err(Problem::violation(pointer, "too_large", detail));
    }
    Ok(Pin {
        uri,
        bytes: info.bytes,
        etag: info.etag,
    })
}

type Digests = Arc<Mutex<BTreeMap<FileRole, String>>>;

/// Files pinned to the bytes that were there at first sight.
struct PinnedFiles {
    objects: Objects,
    runtime: Handle,
    pins: BTreeMap<FileRole, Pin>,
    digests: Digests,
}

impl DataFiles for PinnedFiles {
    fn open(&self, role: FileRole) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_hashing(role)?))
    }
}

impl PinnedFiles {
    fn open_hashing(&self, role: FileRole) -> std::io::Result<Hashing<impl Read + Send + use<>>> {
        let no_such = || std::io::Error::other(format!("there is no {} file", role.as_str()));
        let pin = self.pins.get(&role).ok_or_else(no_such)?;
        let runtime = self.runtime.clone();
        let opened = self
            .objects
            .open_blocking(&pin.uri, Some(&pin.etag), runtime);
        let inner = opened.map_err(|e: ObjectError| std::io::Error::other(e))?;
        Ok(Hashing {
            inner,
            role,
            left: pin.bytes,
            hash: Sha256::new(),
            digests: self.digests.clone(),
        })
    }

    /// Returns the files with their digests, reading what the engine left unread.
    fn finish(&self) -> std::io::Result<BTreeMap<FileRole, DatasetFile>> {
        let mut files = BTreeMap::new();
        for (role, pin) in &self.pins {
            if self.digest(*role).is_none() {
                std::io::copy(&mut self.open_hashing(*role)?, &mut std::io::sink())?;
            }
            let short = || std::io::Error::other(format!("{} is shorter than announced", pin.uri));
            let file = DatasetFile {
                uri: pin.uri.to_string(),
                bytes: pin.bytes,
                sha256: self.digest(*role).ok_or_else(short)?,
                etag: pin.etag.clone(),
            };
            files.insert(*role, file);
        }
        Ok(files)
    }

    fn digest(&self, role: FileRole) -> Option<String> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.get(&role).cloned()
    }
}

/// Hashes what passes through; the digest counts once all bytes have.
struct Hashing<R> {
    inner: R,
    role: FileRole,
    left: u64,
    hash: Sha256,
    digests: Digests,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        let ends = n as u64 == self.left;
        self.left = self.left.saturating_sub(n as u64);
        if ends {
            let digest = hex::encode(self.hash.clone().finalize());
            self.digests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(self.role)
                .or_insert(digest);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str) -> DatasetSource {
        serde_json::from_value(serde_json::json!({"format": "csv", "files": {"data": uri}}))
            .unwrap()
    }

    #[test]
    fn objects_of_other_projects_are_out_of_reach() {
        let project = ProjectId::generate();
        let allowed = |uri: &str| parse_uris(&source(uri), "nereid", project).is_ok();
        assert!(allowed("s3://data/digits.csv"));
        assert!(allowed("s3://nereid/shared/digits.csv"));
        assert!(allowed(&format!(
            "s3://nereid/projects/{project}/uploads/x"
        )));
        assert!(!allowed(&format!(
            "s3://nereid/projects/{}/uploads/x",
            ProjectId::generate()
        )));
        assert!(!allowed("https://example.com/x"));
    }

    #[test]
    fn the_digest_counts_once_all_bytes_were_read() {
        let digests = Digests::default();
        let mut reader = Hashing {
            inner: &b"test"[..],
            role: FileRole::Data,
            left: 4,
            hash: Sha256::new(),
            digests: digests.clone(),
        };
        let mut half = [0; 2];
        reader.read_exact(&mut half).unwrap();
        assert!(digests.lock().unwrap().is_empty());
        reader.read_exact(&mut half).unwrap();
        assert!(digests.lock().unwrap()[&FileRole::Data].starts_with("9f86d081884c7d65"));
    }

    #[test]
    fn the_digest_is_of_content_not_of_place() {
        let file = |uri: &str, sha256: &str| {
            let file = DatasetFile {
                uri: uri.to_owned(),
                bytes: 1,
                sha256: sha256.to_owned(),
                etag: "e".to_owned(),
            };
            BTreeMap::from([(FileRole::Data, file)])
        };
        let (a, b) = (source("s3://one/x"), source("s3://two/y"));
        assert_eq!(
            digest(&a, &file("s3://one/x", "aa")),
            digest(&b, &file("s3://two/y", "aa"))
        );
        assert_ne!(
            digest(&a, &file("s3://one/x", "aa")),
            digest(&a, &file("s3://one/x", "bb"))
        );
    }
}
