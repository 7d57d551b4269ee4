//! Model files on local disk, addressed by digest: fetched once, verified at each use.
//!
//! A folder appears under its final name only when all its files are there and right.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use nereid_core::models::ArtifactFile;
use nereid_objects::{Expected, ObjectError, Objects};
use sha2::{Digest, Sha256};

use crate::{error::RunError, scratch::Scratch};

/// The cache of a data folder; processes may share it.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join("cache").join("models");
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }

    /// Returns a folder with `files`, which lie below `prefix` in Nereid's bucket.
    ///
    /// `digest` names the set of files; where it is cached and whole, nothing is fetched.
    pub(crate) async fn fetch(
        &self,
        objects: &Objects,
        scratch: &Scratch,
        digest: &str,
        prefix: &str,
        files: &[ArtifactFile],
    ) -> Result<PathBuf, RunError> {
        let folder = self.root.join(digest);
        if verify(&folder, files).await? {
            return Ok(folder);
        }
        let fresh = scratch.folder("fetch")?;
        for file in files {
            let path = fresh.path().join(relative(&file.path)?);
            make_parent(&path).await?;
            let uri = objects.own(format!("{prefix}{}", file.path))?;
            let expected = Expected {
                bytes: Some(file.bytes),
                sha256: Some(file.sha256.clone()),
                etag: None,
            };
            objects
                .download(&uri, &path, &expected)
                .await
                .map_err(published)?;
        }
        put_in_place(fresh.path(), &folder).await?;
        if verify(&folder, files).await? {
            Ok(folder)
        } else {
            let folder = folder.display();
            Err(RunError::Unavailable(format!(
                "files in {folder} changed while they were put there"
            )))
        }
    }
}

/// Sorts an error about a file that was published and can never be written again.
pub(crate) fn published(error: ObjectError) -> RunError {
    match error {
        ObjectError::NoSuchKey { .. } | ObjectError::ChecksumMismatch { .. } => {
            RunError::Input(format!("a published file is lost: {error}"))
        }
        other => other.into(),
    }
}

/// Digest of a set of files: their paths, sizes and digests.
pub(crate) fn digest_of(files: &[ArtifactFile]) -> String {
    let mut lines: Vec<_> = files
        .iter()
        .map(|f| format!("{}\0{}\0{}\n", f.path, f.bytes, f.sha256))
        .collect();
    lines.sort_unstable();
    hex::encode(Sha256::digest(lines.concat()))
}

/// Returns `path` if it stays below the folder it is joined to.
pub(crate) fn relative(path: &str) -> Result<&Path, RunError> {
    let relative = Path::new(path);
    let below = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if below && !path.is_empty() && !path.contains('\\') {
        Ok(relative)
    } else {
        Err(RunError::Internal(format!(
            "{path:?} is no path of an artifact's file"
        )))
    }
}

/// SHA-256 of a file, hexadecimal; reads all of it, so it belongs on a blocking thread.
pub(crate) fn file_digest(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hex::encode(hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn make_parent(path: &Path) -> Result<(), RunError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    tokio::fs::create_dir_all(parent)
        .await
        .map_err(|e| RunError::io(format!("cannot make {}", parent.display()), e))
}

/// Tells whether the folder holds exactly what `files` says; what does not is removed.
async fn verify(folder: &Path, files: &[ArtifactFile]) -> Result<bool, RunError> {
    let (folder, files) = (folder.to_owned(), files.to_owned());
    let work = move || -> Result<bool, RunError> {
        if !folder.exists() {
            return Ok(false);
        }
        for file in &files {
            let path = folder.join(relative(&file.path)?);
            let right = fs::metadata(&path).is_ok_and(|m| m.len() == file.bytes)
                && file_digest(&path).is_ok_and(|d| d == file.sha256);
            if !right {
                tracing::warn!(path = %path.display(), "cached file is damaged; fetched again");
                fs::remove_dir_all(&folder)
                    .map_err(|e| RunError::io(format!("cannot clear {}", folder.display()), e))?;
                return Ok(false);
            }
        }
        Ok(true)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| RunError::Internal(format!("checking cached files: {e}")))?
}

/// Moves a complete folder to its final name; if somebody was faster, theirs stays.
async fn put_in_place(fresh: &Path, folder: &Path) -> Result<(), RunError> {
    match tokio::fs::rename(fresh, folder).await {
        Err(_) if folder.exists() => Ok(()),
        result => result.map_err(|e| RunError::io(format!("cannot make {}", folder.display()), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &[u8]) -> ArtifactFile {
        ArtifactFile {
            path: path.to_owned(),
            bytes: content.len() as u64,
            sha256: hex::encode(Sha256::digest(content)),
        }
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for good in ["a", "a/b.bin", "weights.safetensors"] {
            assert!(relative(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../a", "a/../../b", "./a", "a\\b"] {
            assert!(relative(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digest_does_not_depend_on_the_order_but_on_everything_else() {
        let (a, b) = (file("a", b"1"), file("b", b"2"));
        assert_eq!(
            digest_of(&[a.clone(), b.clone()]),
            digest_of(&[b.clone(), a.clone()])
        );
        assert_ne!(digest_of(&[a.clone(), b]), digest_of(&[a, file("b", b"3")]));
    }

    #[tokio::test]
    async fn a_damaged_folder_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "content").unwrap();
        let files = [file("a", b"content")];
        assert!(verify(&folder, &files).await.unwrap());
        fs::write(folder.join("a"), "c0ntent").unwrap();
        assert!(!verify(&folder, &files).await.unwrap());
        assert!(!folder.exists());
    }
}
