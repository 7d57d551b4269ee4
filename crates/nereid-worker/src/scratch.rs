//! Scratch folders: one per process below the data folder, gone with it.
//!
//! A process that is killed leaves its folder behind; the next one to start sees by the unlocked
//! lock file that nobody works there any more and removes it.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use nereid_core::ids::WorkerId;
use tempfile::TempDir;

use crate::error::RunError;

const LOCK_SUFFIX: &str = ".lock";

/// The scratch folder of this process.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    lock_path: PathBuf,
    // Released by the operating system when the process dies.
    _lock: File,
}

impl Scratch {
    /// Makes the folder and removes those of dead processes.
    pub(crate) fn open(data_dir: &Path, worker: WorkerId) -> io::Result<Self> {
        let root = data_dir.join("scratch");
        fs::create_dir_all(&root)?;
        sweep(&root);
        let lock_path = root.join(format!("{worker}{LOCK_SUFFIX}"));
        let lock = File::create(&lock_path)?;
        lock.lock()?;
        let folder = root.join(worker.to_string());
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            lock_path,
            _lock: lock,
        })
    }

    /// Makes an empty folder, removed when dropped.
    pub(crate) fn folder(&self, what: &str) -> Result<TempDir, RunError> {
        tempfile::Builder::new()
            .prefix(&format!("{what}-"))
            .tempdir_in(&self.folder)
            .map_err(|e| RunError::io("cannot make a scratch folder", e))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: what is left is swept by the next process.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what dead processes left; whatever fails is left to the next one.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for lock_path in entries.flatten().map(|entry| entry.path()) {
        let name = lock_path.file_name().and_then(|n| n.to_str());
        let Some(folder) = name.and_then(|n| n.strip_suffix(LOCK_SUFFIX)) else {
            continue;
        };
        let Ok(lock) = File::open(&lock_path) else {
            continue;
        };
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            continue;
        }
        tracing::info!(folder, "scratch files of a dead worker are removed");
        let _ = fs::remove_dir_all(root.join(folder));
        let _ = fs::remove_file(&lock_path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_swept_and_what_the_living_use_is_not() {
        let data = tempfile::tempdir().unwrap();
        let root = data.path().join("scratch");
        fs::create_dir_all(root.join("dead")).unwrap();
        fs::write(root.join("dead.lock"), "").unwrap();
        let living = Scratch::open(data.path(), WorkerId::generate()).unwrap();
        assert!(!root.join("dead").exists());
        let folder = living.folder("train").unwrap();
        let other = Scratch::open(data.path(), WorkerId::generate()).unwrap();
        assert!(folder.path().exists());
        drop(folder);
        drop((living, other));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}
