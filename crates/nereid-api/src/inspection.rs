//! Reads a dataset's files once: pins each to its ETag, hashes it while the engine reads it.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use nereid_core::{
    Violations,
    datasets::{DatasetFile, DatasetSource, FileRole, FileUris, Inspection},
    engine::{DataFiles, EngineError, Inspector},
    ids::ProjectId,
};
use nereid_objects::{
    S3Uri,
    datasets::{FindCause, FindFault, PinnedFiles, find},
};
use sha2::{Digest, Sha256};

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
    let permit = state
        .inspections
        .clone()
        .acquire_owned()
        .await
        .map_err(Problem::internal)?;
    let mut pinned = BTreeMap::new();
    for (role, uris) in uris {
        let many = source.is_many(role);
        let found = find(&state.objects, &uris, many, source.format).await;
        pinned.insert(role, found.map_err(|fault| find_problem(role, fault))?);
    }
    let files = HashedFiles {
        files: PinnedFiles::new(&state.objects, pinned),
        digests: Arc::default(),
    };
    let (inspector, declared) = (state.inspector.clone(), source.clone());
    // The permit moves along: if the client leaves, the thread still counts until it is done.
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let inspection = read(inspector.as_ref(), &declared, &files)?;
        Ok::<_, EngineError>((inspection, files))
    });
    let (inspection, files) = work.await.map_err(Problem::internal)??;
    let kept = keep(state, project, &files).await?;
    Ok(Inspected {
        digest: digest(&source, &kept),
        files: kept,
        inspection,
    })
}

/// Writes down which objects the files are made of.
async fn keep(
    state: &ApiState,
    project: ProjectId,
    files: &HashedFiles,
) -> Result<BTreeMap<FileRole, DatasetFile>, Problem> {
    let folder = format!("projects/{project}/object-lists");
    let mut kept = BTreeMap::new();
    for (role, file) in files.files.files() {
        let sha256 = files.digest(*role).unwrap_or_default();
        let pointer = pointer(*role, None);
        let file = file.keep(&state.objects, &folder, sha256).await;
        kept.insert(*role, file.map_err(client_object(&pointer))?);
    }
    Ok(kept)
}

/// Inspects the files and reads them to their ends, so that the digest of each is known.
fn read(
    inspector: &dyn Inspector,
    source: &DatasetSource,
    files: &HashedFiles,
) -> Result<Inspection, EngineError> {
    let inspection = inspector.inspect(source, files)?;
    files.finish().map_err(|source| {
        let context = "reading the rest of a file".to_owned();
        EngineError::Io { context, source }
    })?;
    Ok(inspection)
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
    if !source.label_columns.is_empty() {
        declared["label_columns"] = serde_json::json!(source.label_columns);
    }
    if !source.arrays.is_empty() {
        declared["arrays"] = serde_json::json!(source.arrays);
    }
    let many = files.iter().filter(|(_, f)| f.objects.is_some());
    let many: Vec<_> = many.map(|(role, _)| role.as_str()).collect();
    if !many.is_empty() {
        declared["several_objects"] = serde_json::json!(many);
    }
    hex::encode(Sha256::digest(declared.to_string()))
}

fn parse_uris(
    source: &DatasetSource,
    own_bucket: &str,
    project: ProjectId,
) -> Result<BTreeMap<FileRole, Vec<S3Uri>>, Violations> {
    let mut violations = Violations::default();
    let mut uris = BTreeMap::new();
    for (role, texts) in &source.files {
        let role_uris: &mut Vec<S3Uri> = uris.entry(*role).or_default();
        let list = matches!(texts, FileUris::Several(_));
        for (i, text) in texts.as_slice().iter().enumerate() {
            let pointer = pointer(*role, list.then_some(i));
            match text.parse::<S3Uri>() {
                Ok(uri) if is_foreign(&uri, own_bucket, project) => {
                    violations.push(
                        pointer,
                        "access_denied",
                        "this object belongs to another project",
                    );
                }
                Ok(uri) => role_uris.push(uri),
                Err(e) => violations.push(pointer, "invalid_value", e.to_string()),
            }
        }
    }
    violations.into_result(uris)
}

/// JSON pointer of a file, or of one in its list.
fn pointer(role: FileRole, index: Option<usize>) -> String {
    let file = format!("/files/{}", role.as_str());
    index.map_or_else(|| file.clone(), |i| format!("{file}/{i}"))
}

/// Makes the answer to a file whose objects are not to be had.
fn find_problem(role: FileRole, fault: FindFault) -> Problem {
    let pointer = pointer(role, fault.index);
    match fault.cause {
        FindCause::Storage(e) => client_object(&pointer)(e),
        FindCause::Refused { code, detail } => Problem::violation(pointer, code, detail),
    }
}

/// Tells whether an object of Nereid's own bucket belongs to another project.
pub(crate) fn is_foreign(uri: &S3Uri, own_bucket: &str, project: ProjectId) -> bool {
    uri.bucket() == own_bucket
        && uri.key().starts_with("projects/")
        && !uri.key().starts_with(&format!("projects/{project}/"))
}

type Digests = Arc<Mutex<BTreeMap<FileRole, String>>>;

/// Files that are hashed while they are read.
struct HashedFiles {
    files: PinnedFiles,
    digests: Digests,
}

impl DataFiles for HashedFiles {
    fn open(&self, role: FileRole) -> std::io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_hashing(role)?))
    }
}

impl HashedFiles {
    fn open_hashing(&self, role: FileRole) -> std::io::Result<Hashing<impl Read + Send + use<>>> {
        let (inner, left) = self.files.open_sized(role)?;
        Ok(Hashing {
            inner,
            role,
            left,
            hash: Sha256::new(),
            digests: self.digests.clone(),
        })
    }

    /// Reads what the engine left unread; afterwards the digest of each file is known.
    fn finish(&self) -> std::io::Result<()> {
        for role in self.files.files().keys() {
            if self.digest(*role).is_none() {
                std::io::copy(&mut self.open_hashing(*role)?, &mut std::io::sink())?;
            }
            if self.digest(*role).is_none() {
                let message = format!("the {} file is shorter than announced", role.as_str());
                return Err(std::io::Error::other(message));
            }
        }
        Ok(())
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
                objects: None,
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
