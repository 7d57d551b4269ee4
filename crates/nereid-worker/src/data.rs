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
use nereid_objects::{ObjectError, Objects, S3Uri};
use tokio::runtime::Handle;

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

    fn note(&self, file: &str, error: &io::Error) {
        let cause = error.get_ref().and_then(|e| e.downcast_ref());
        if let Some(message) = cause.and_then(|e| fatal(file, e)) {
            lock(&self.0).get_or_insert(message);
        }
    }
}

/// What to tell the client about an error that will not go away.
fn fatal(file: &str, error: &ObjectError) -> Option<String> {
    match error {
        ObjectError::PreconditionFailed { .. } => Some(format!(
            "{file} is no longer the object that was registered; register the dataset again to train on what is there now"
        )),
        ObjectError::NoSuchBucket { .. }
        | ObjectError::NoSuchKey { .. }
        | ObjectError::AccessDenied { .. }
        | ObjectError::WrongRegion { .. }
        | ObjectError::ChecksumMismatch { .. } => Some(format!("cannot read {file}: {error}")),
        // Storage that is away comes back, credentials get renewed.
        _ => None,
    }
}

/// Files of a dataset version in S3.
struct PinnedFiles {
    objects: Objects,
    files: BTreeMap<FileRole, DatasetFile>,
    runtime: Handle,
    fault: Fault,
}

/// Makes the engine's input of a dataset version; what cannot be read for good is noted in
/// `fault`.
pub(crate) fn input(objects: &Objects, version: &DatasetVersion, fault: &Fault) -> DataInput {
    DataInput {
        source: version.source.clone(),
        schema: version.schema.clone(),
        files: Arc::new(PinnedFiles::new(objects, version.files.clone(), fault)),
        digest: Some(version.digest.clone()),
    }
}

/// Returns files in S3 as an engine reads them: streamed, and none but those of these entity tags.
///
/// To be called within a tokio runtime; the files are to be read on threads that may block.
#[must_use]
pub fn files_in_s3(
    objects: &Objects,
    files: BTreeMap<FileRole, DatasetFile>,
) -> Arc<dyn DataFiles> {
    Arc::new(PinnedFiles::new(objects, files, &Fault::default()))
}

impl PinnedFiles {
    fn new(objects: &Objects, files: BTreeMap<FileRole, DatasetFile>, fault: &Fault) -> Self {
        Self {
            objects: objects.clone(),
            files,
            runtime: Handle::current(),
            fault: fault.clone(),
        }
    }
}

impl DataFiles for PinnedFiles {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        let file = self.files.get(&role).ok_or_else(|| {
            let message = format!("the dataset has no {} file", role.as_str());
            io::Error::new(io::ErrorKind::NotFound, message)
        })?;
        let uri: S3Uri = file.uri.parse().map_err(io::Error::other)?;
        let runtime = self.runtime.clone();
        let opened = self.objects.open_blocking(&uri, Some(&file.etag), runtime);
        match opened {
            Ok(inner) => Ok(Box::new(WatchedReader {
                inner,
                file: file.uri.clone(),
                fault: self.fault.clone(),
            })),
            Err(e) => {
                let error = io::Error::other(e);
                self.fault.note(&file.uri, &error);
                Err(error)
            }
        }
    }
}

struct WatchedReader<R> {
    inner: R,
    file: String,
    fault: Fault,
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Err(e) = &result {
            self.fault.note(&self.file, e);
        }
        result
    }
}
