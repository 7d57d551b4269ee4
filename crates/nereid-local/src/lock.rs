//! One Nereid per data directory: an exclusive lock that its holder's death releases.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::LocalError;

/// Name of the lock file in the directory.
const LOCK_FILE: &str = "nereid.lock";

/// An exclusive lock on a directory, held until it is dropped or the process dies.
#[derive(Debug)]
pub struct DirectoryLock {
    dir: PathBuf,
    // The lock belongs to the open file: closing it, however the process ends, releases it.
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that is just being started by another thread holds
        // a copy of the open file until it has become another program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl DirectoryLock {
    /// Locks `dir`, creating it if it is missing; never waits.
    ///
    /// # Errors
    /// [`LocalError::InUse`] with the holder's process if another instance has it.
    pub fn acquire(dir: &Path) -> Result<Self, LocalError> {
        std::fs::create_dir_all(dir).map_err(LocalError::io("create", dir))?;
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LocalError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LocalError::InUse {
                    dir: dir.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(e) => return Err(LocalError::io("lock", &path)(e.into())),
        }
        write_pid(&mut file).map_err(LocalError::io("write", &path))?;
        Ok(Self {
            dir: dir.to_owned(),
            file,
        })
    }

    /// The locked directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

// The file is never removed: a second process could then lock a file that has no name any more.
fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(dir.path()).unwrap();
        let error = DirectoryLock::acquire(dir.path()).unwrap_err();
        assert!(
            matches!(&error, LocalError::InUse { pid: Some(pid), .. } if *pid == std::process::id())
        );
        assert!(error.to_string().contains("stop it first"), "{error}");
        assert_eq!(first.dir(), dir.path());

        drop(first);
        DirectoryLock::acquire(dir.path()).unwrap();
    }
}
