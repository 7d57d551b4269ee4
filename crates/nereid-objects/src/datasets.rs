//! The files of a dataset version: pinned to the objects that were there at first sight.
//!
//! A file in one object is read as it is, one in several as a tar of them, made while it is read.
//! Inspection and training both read through here, so that they see the same bytes.

mod find;
mod list;
mod tar;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, OnceLock},
};

use nereid_core::{
    datasets::{DatasetFile, FileRole},
    engine::DataFiles,
};
use tokio::runtime::Handle;

pub use self::find::{FindCause, FindFault, find};
use self::tar::TarReader;
use crate::{ObjectError, Objects, S3Uri};

/// An object as it was at first sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Where it is.
    pub uri: S3Uri,
    /// Its size.
    pub bytes: u64,
    /// Its `ETag`, without which it is not read.
    pub etag: String,
}

/// One of the objects of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path below the file's prefix.
    pub name: String,
    /// The object.
    pub pin: Pin,
}

/// A file of a dataset.
#[derive(Debug)]
pub enum PinnedFile {
    /// In one object.
    One(Pin),
    /// In several, in this order.
    Many(Arc<[Member]>),
    /// In several, whose list is read once they are needed.
    Listed(Box<DatasetFile>, OnceLock<Arc<[Member]>>),
}

impl PinnedFile {
    /// Returns the size of all its objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::One(pin) => pin.bytes,
            Self::Many(members) => members.iter().map(|m| m.pin.bytes).sum(),
            Self::Listed(file, _) => file.bytes,
        }
    }

    /// Writes down in Nereid's bucket, below `folder`, which objects make up the file, and returns
    /// it as it is kept; a list is stored under its digest, so that repeating that changes nothing.
    ///
    /// # Errors
    /// If the list cannot be written or is larger than allowed.
    pub async fn keep(
        &self,
        objects: &Objects,
        folder: &str,
        sha256: String,
    ) -> Result<DatasetFile, ObjectError> {
        match self {
            Self::One(pin) => Ok(DatasetFile {
                uri: pin.uri.to_string(),
                bytes: pin.bytes,
                sha256,
                etag: pin.etag.clone(),
                objects: None,
            }),
            Self::Many(members) => {
                let stored = list::store(objects, folder, members).await?;
                Ok(DatasetFile {
                    bytes: self.bytes(),
                    sha256,
                    ..stored
                })
            }
            Self::Listed(file, _) => Ok((**file).clone()),
        }
    }
}

/// Files of a dataset; no others than the pinned objects are read.
#[derive(Debug)]
pub struct PinnedFiles {
    objects: Objects,
    runtime: Handle,
    files: BTreeMap<FileRole, PinnedFile>,
}

impl PinnedFiles {
    /// Files that were just found.
    ///
    /// To be called within a tokio runtime; the files are to be read on threads that may block.
    #[must_use]
    pub fn new(objects: &Objects, files: BTreeMap<FileRole, PinnedFile>) -> Self {
        Self {
            objects: objects.clone(),
            runtime: Handle::current(),
            files,
        }
    }

    /// The files of a version.
    ///
    /// To be called within a tokio runtime; the files are to be read on threads that may block.
    ///
    /// # Errors
    /// If a URI is none.
    pub fn of_version(
        objects: &Objects,
        files: BTreeMap<FileRole, DatasetFile>,
    ) -> Result<Self, crate::InvalidUri> {
        let pinned = |(role, file): (FileRole, DatasetFile)| {
            let file = if file.objects.is_some() {
                PinnedFile::Listed(Box::new(file), OnceLock::new())
            } else {
                PinnedFile::One(Pin {
                    uri: file.uri.parse()?,
                    bytes: file.bytes,
                    etag: file.etag,
                })
            };
            Ok((role, file))
        };
        let files = files.into_iter().map(pinned).collect::<Result<_, _>>()?;
        Ok(Self::new(objects, files))
    }

    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<FileRole, PinnedFile> {
        &self.files
    }

    /// Opens a file; also tells how many bytes it will be read as.
    ///
    /// # Errors
    /// An [`ObjectError`] within, or [`io::ErrorKind::NotFound`] if there is no such file.
    pub fn open_sized(&self, role: FileRole) -> io::Result<(Box<dyn Read + Send>, u64)> {
        let members = match self.files.get(&role) {
            None => {
                let message = format!("the dataset has no {} file", role.as_str());
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            Some(PinnedFile::One(pin)) => {
                let runtime = self.runtime.clone();
                let opened = self
                    .objects
                    .open_blocking(&pin.uri, Some(&pin.etag), runtime);
                return Ok((Box::new(opened.map_err(io::Error::other)?), pin.bytes));
            }
            Some(PinnedFile::Many(members)) => Arc::clone(members),
            Some(PinnedFile::Listed(file, members)) => self.listed(file, members)?,
        };
        let reader = TarReader::open(&self.objects, members, &self.runtime);
        let length = reader.length();
        Ok((Box::new(reader), length))
    }
}

impl PinnedFiles {
    /// Returns the objects of a file, whose list is read once.
    fn listed(
        &self,
        file: &DatasetFile,
        members: &OnceLock<Arc<[Member]>>,
    ) -> io::Result<Arc<[Member]>> {
        if let Some(members) = members.get() {
            return Ok(Arc::clone(members));
        }
        let list = list::load(&self.objects, file);
        let read = self.runtime.block_on(list).map_err(io::Error::other)?;
        Ok(Arc::clone(members.get_or_init(|| read)))
    }
}

impl DataFiles for PinnedFiles {
    fn open(&self, role: FileRole) -> io::Result<Box<dyn Read + Send>> {
        Ok(self.open_sized(role)?.0)
    }
}
