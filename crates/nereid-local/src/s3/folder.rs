//! The folder behind the embedded S3: buckets, objects, and unfinished uploads.
//!
//! `<root>/<bucket>/<key>~` are objects, `.drafts` holds bodies being received, `.uploads/<id>` the
//! parts of multipart uploads. Both are emptied at each start: whoever was sending is gone too,
//! and nothing else would ever remove what it left. All methods block.

use std::{
    fs::{DirEntry, File},
    io::{ErrorKind, Read, Result},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use s3s::{
    S3Error, S3Result,
    dto::{ETag, ETagCondition},
    s3_error,
};
use tempfile::NamedTempFile;

use super::{
    keys,
    object::{Attributes, Object, seal},
};

/// What must hold for a write to happen.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    pub(super) if_match: Option<ETagCondition>,
    pub(super) if_none_match: Option<ETagCondition>,
}

impl Conditions {
    fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    fn check(&self, existing: Option<&str>) -> S3Result<()> {
        let existing = existing.map(|etag| ETag::Strong(etag.to_owned()));
        match (&self.if_none_match, &existing) {
            (Some(ETagCondition::Any), Some(_)) => {
                return Err(s3_error!(PreconditionFailed, "the object already exists"));
            }
            (Some(ETagCondition::ETag(unwanted)), Some(etag)) if unwanted.weak_cmp(etag) => {
                return Err(s3_error!(PreconditionFailed, "the object has this ETag"));
            }
            _ => {}
        }
        match (&self.if_match, &existing) {
            (Some(_), None) => Err(s3_error!(NoSuchKey)),
            (Some(ETagCondition::ETag(wanted)), Some(etag)) if !wanted.strong_cmp(etag) => {
                Err(s3_error!(PreconditionFailed, "the object has another ETag"))
            }
            _ => Ok(()),
        }
    }
}

/// A body being received; deleted unless it is published.
#[derive(Debug)]
pub(super) struct Draft(NamedTempFile);

impl Draft {
    /// Another handle to write the content with.
    pub(super) fn handle(&self) -> Result<File> {
        self.0.as_file().try_clone()
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.0.as_file_mut()
    }
}

/// The folder, of which this process is the only user.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    durable: bool,
    // Guards the step from checking what exists to changing it. One for all keys: that step is a
    // rename, while receiving and syncing happen before.
    changing: Mutex<()>,
}

impl Folder {
    pub(super) fn open(root: &Path, durable: bool) -> Result<Self> {
        std::fs::create_dir_all(root)?;
        let folder = Self {
            root: root.canonicalize()?,
            durable,
            changing: Mutex::new(()),
        };
        for unfinished in [folder.drafts(), folder.uploads()] {
            match std::fs::remove_dir_all(&unfinished) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            std::fs::create_dir(unfinished)?;
        }
        Ok(folder)
    }

    fn drafts(&self) -> PathBuf {
        self.root.join(".drafts")
    }

    fn uploads(&self) -> PathBuf {
        self.root.join(".uploads")
    }

    /// Folder of one multipart upload; its identifier comes from outside.
    pub(super) fn upload(&self, id: &str) -> S3Result<PathBuf> {
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
        plain
            .then(|| self.uploads().join(id))
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }

    /// Makes the folder of a new multipart upload.
    pub(super) fn new_upload(&self) -> Result<PathBuf> {
        // Of the random name, letters and digits alone, so that it can be told from a path.
        tempfile::Builder::new()
            .prefix("u")
            .rand_bytes(24)
            .tempdir_in(self.uploads())
            .map(tempfile::TempDir::keep)
    }

    /// Folder of a bucket that exists.
    pub(super) fn bucket(&self, name: &str) -> S3Result<PathBuf> {
        let path = self.root.join(name);
        if !s3s::path::check_bucket_name(name) || !path.is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        Ok(path)
    }

    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        std::fs::create_dir(self.root.join(name)).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => s3_error!(BucketAlreadyOwnedByYou),
            _ => S3Error::internal_error(e),
        })
    }

    pub(super) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        std::fs::remove_dir(self.bucket(name)?).map_err(|e| match e.kind() {
            ErrorKind::DirectoryNotEmpty => s3_error!(BucketNotEmpty),
            _ => S3Error::internal_error(e),
        })
    }

    pub(super) fn buckets(&self) -> Result<Vec<DirEntry>> {
        let mut found: Vec<DirEntry> = std::fs::read_dir(&self.root)?.collect::<Result<_>>()?;
        found.retain(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(s3s::path::check_bucket_name)
        });
        found.sort_by_key(DirEntry::file_name);
        Ok(found)
    }

    /// Path that an object has, or would have.
    pub(super) fn path_of(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let bucket = self.bucket(bucket)?;
        keys::path_of(&bucket, key).ok_or_else(|| {
            s3_error!(
                KeyTooLongError,
                "a part of the key between slashes is too long"
            )
        })
    }

    /// Opens an object that exists.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<Object> {
        Object::open(&self.path_of(bucket, key)?)
            .map_err(S3Error::internal_error)?
            .ok_or_else(|| s3_error!(NoSuchKey))
    }

    pub(super) fn draft(&self) -> Result<Draft> {
        NamedTempFile::new_in(self.drafts()).map(Draft)
    }

    /// Makes a complete draft the object at a path, if the conditions hold; all or nothing.
    pub(super) fn publish(
        &self,
        mut draft: Draft,
        attributes: &Attributes,
        path: &Path,
        conditions: &Conditions,
    ) -> S3Result<()> {
        self.seal(&mut draft, attributes)?;
        let parent = path.parent().unwrap_or(&self.root);
        {
            let _guard = self.lock();
            if !conditions.is_empty() {
                let existing = Object::open(path).map_err(S3Error::internal_error)?;
                conditions.check(existing.as_ref().map(|o| o.attributes.etag.as_str()))?;
            }
            std::fs::create_dir_all(parent).map_err(S3Error::internal_error)?;
            draft
                .0
                .persist(path)
                .map_err(|e| S3Error::internal_error(e.error))?;
        }
        if self.durable {
            File::open(parent)
                .and_then(|dir| dir.sync_all())
                .map_err(S3Error::internal_error)?;
        }
        Ok(())
    }

    /// Makes a complete draft a part of an upload, unless that was aborted meanwhile.
    pub(super) fn publish_part(
        &self,
        mut draft: Draft,
        attributes: &Attributes,
        path: &Path,
    ) -> S3Result<()> {
        self.seal(&mut draft, attributes)?;
        let _guard = self.lock();
        draft
            .0
            .persist(path)
            .map(drop)
            .map_err(|e| match e.error.kind() {
                ErrorKind::NotFound => s3_error!(NoSuchUpload),
                _ => S3Error::internal_error(e.error),
            })
    }

    /// Removes an upload with its parts.
    pub(super) fn remove_upload(&self, dir: &Path) -> S3Result<()> {
        let _guard = self.lock();
        std::fs::remove_dir_all(dir).map_err(|e| match e.kind() {
            ErrorKind::NotFound => s3_error!(NoSuchUpload),
            _ => S3Error::internal_error(e),
        })
    }

    fn seal(&self, draft: &mut Draft, attributes: &Attributes) -> S3Result<()> {
        seal(draft.file(), attributes).map_err(S3Error::internal_error)?;
        if self.durable {
            draft.file().sync_data().map_err(S3Error::internal_error)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes an object, and the folders that it leaves empty; a missing one is no error.
    pub(super) fn delete(&self, bucket: &str, key: &str) -> S3Result<()> {
        let bucket_dir = self.bucket(bucket)?;
        let path = self.path_of(bucket, key)?;
        let _guard = self.lock();
        match std::fs::remove_file(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(S3Error::internal_error(e)),
            Ok(()) => {}
        }
        for folder in path.ancestors().skip(1).take_while(|f| **f != bucket_dir) {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Appends an object's content to a draft.
    pub(super) fn append(object: &mut Object, draft: &mut Draft) -> Result<()> {
        let mut content = (&mut object.file).take(object.bytes);
        std::io::copy(&mut content, draft.file()).map(drop)
    }
}
