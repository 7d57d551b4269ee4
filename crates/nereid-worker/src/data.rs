//! A pinned dataset version as the engine reads it: streamed from S3, the very bytes inspected.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, Mutex},
};

use nereid_core::{
    datasets::{DatasetFile, DatasetVersion, FileRole},
    engine::{DataFiles, DataInput},
};
use nereid_objects::{InvalidUri, ObjectError, Objects, datasets::PinnedFiles};

use crate::sync::lock;

/// Remembers why data cannot be read, if no retry can mend it.
///
/// The engine sees only an I/O error, perhaps wrapped by a decoder, and would have the job tried
/// again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    pub(crate) fn take(&self) -> Option<String> {
        lock(&self.0).take()
    }

    fn note(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|e| e.downcast_ref());
        if let Some(message) = cause.and_then(fatal) {
            lock(&self.0).get_or_insert(message);
        }
    }
}

/// What to tell the client about an error that will not go away; each names its object.
pub(crate) fn fatal(error: &ObjectError) -> Option<String> {
    match error {
        ObjectError::PreconditionFailed { target } => Some(format!(
            "{target} is no longer the object that it was; register the dataset again, or submit the job anew, to read what is there now"
        )),
        ObjectError::NoSuchBucket { target }
        | ObjectError::NoSuchKey { target }
        | ObjectError::AccessDenied { target }
        | ObjectError::WrongRegion { target, .. }
        | ObjectError::ChecksumMismatch { target, .. } => {
            Some(format!("cannot read {target}: {error}"))
        }
        // Storage that is away comes back, credentials get renewed.
        _ => None,
    }
}

/// Files of a dataset version in S3, whose readers note what goes wrong.
struct WatchedFiles {
    files: Result<PinnedFiles, InvalidUri>,
    fault: Fault,
}

/// Makes the engine's input of a dataset version; what cannot be read for good is noted in
/// `fault`.
pub(crate) fn input(objects: &Objects, version: &DatasetVersion, fault: &Fault) -> DataInput {
    DataInput {
        source: version.source.clone(),
        schema: version.schema.clone(),
        files: files(objects, version.files.clone(), fault),
        digest: Some(version.digest.clone()),
    }
}

/// Makes readers of pinned files; what cannot be read for good is noted in `fault`.
pub(crate) fn files(
    objects: &Objects,
    files: BTreeMap<FileRole, DatasetFile>,
    fault: &Fault,
) -> Arc<dyn DataFiles> {
    Arc::new(WatchedFiles {
        files: PinnedFiles::of_version(objects, files),
        fault: fault.clone(),
    })
}

impl DataFiles for WatchedFiles {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let files = self.files.as_ref();
        let files = files.map_err(|e| io::Error::other(e.clone()))?;
        match files.open(role) {
            Ok(inner) => Ok(Box::new(WatchedReader {
                inner,
                fault: self.fault.clone(),
            })),
            Err(error) => {
                self.fault.note(&error);
                Err(error)
            }
        }
    }
}

struct WatchedReader<R> {
    inner: R,
    fault: Fault,
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Err(e) = &result {
            self.fault.note(e);
        }
        result
    }
}
