//! Image files, and the files beside them, in a tar, in several tars or in a folder.

use std::mem;

use nereid_core::{
    datasets::{DatasetSource, FileRole},
    engine::{DataFiles, EngineError},
};

use crate::data::{
    archive::{Archive, Member},
    bytes::{Place, Source},
    shards::{Shard, Shards},
};

/// Names of objects that hold other files.
const ARCHIVES: [&str; 3] = [".tar", ".tar.gz", ".tgz"];

/// Files, one after the other.
pub(in crate::data) enum ImageFiles {
    /// Those of one tar.
    Tar(Archive),
    /// Objects that are such files, or tars of them.
    Objects {
        shards: Shards,
        current: Current,
        /// Number of the object that the last file came from.
        number: u64,
    },
}

/// The object that was opened last.
pub(in crate::data) enum Current {
    None,
    File(Shard),
    Tar(Archive),
}

/// A file.
pub(super) struct ImageFile {
    pub(super) member: Member,
    /// Files belong together only if they come from the same tar, or folder: its number.
    pub(super) group: u64,
    /// Whether it is an object of its own, in a folder of objects.
    pub(super) alone: bool,
}

impl ImageFiles {
    /// Opens the data file.
    pub(in crate::data) fn open(
        files: &dyn DataFiles,
        source: &DatasetSource,
    ) -> Result<Self, EngineError> {
        let role = FileRole::Data;
        if source.is_many(role) {
            return Ok(Self::Objects {
                shards: Shards::open(files, role)?,
                current: Current::None,
                number: 0,
            });
        }
        Ok(Self::Tar(Archive::new(Source::open(files, role)?)))
    }

    /// The file or object that is being read.
    pub(super) fn place(&self) -> &Place {
        match self {
            Self::Tar(archive)
            | Self::Objects {
                current: Current::Tar(archive),
                ..
            } => archive.place(),
            // What is said of a file of its own names it.
            Self::Objects { shards, .. } => shards.place(),
        }
    }

    /// Returns the next file; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<ImageFile>, EngineError> {
        let (shards, current, number) = match self {
            Self::Tar(archive) => {
                let found = archive.next()?.map(|member| ImageFile {
                    member,
                    group: 0,
                    alone: false,
                });
                return Ok(found);
            }
            Self::Objects {
                shards,
                current,
                number,
            } => (shards, current, number),
        };
        loop {
            if let Current::Tar(archive) = current
                && let Some(member) = archive.next()?
            {
                return Ok(Some(ImageFile {
                    member,
                    group: *number,
                    alone: false,
                }));
            }
            *current = Current::None;
            let Some(shard) = shards.next()? else {
                return Ok(None);
            };
            let lower = shard.name.to_ascii_lowercase();
            if ARCHIVES.iter().any(|end| lower.ends_with(end)) {
                *number += 1;
                *current = Current::Tar(Archive::new(shard.open()?));
                continue;
            }
            let member = Member {
                name: shard.name.clone(),
                size: shard.size,
            };
            *current = Current::File(shard);
            return Ok(Some(ImageFile {
                member,
                group: 0,
                alone: true,
            }));
        }
    }

    /// Reads the content of the file returned last.
    pub(super) fn read(&mut self, member: &Member) -> Result<Vec<u8>, EngineError> {
        match self {
            Self::Tar(archive)
            | Self::Objects {
                current: Current::Tar(archive),
                ..
            } => archive.read(member),
            Self::Objects { current, .. } => match mem::replace(current, Current::None) {
                Current::File(shard) => shard.content(),
                _ => Ok(Vec::new()),
            },
        }
    }
}
