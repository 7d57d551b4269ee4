//! Decoded data on local disk: a folder of bounded size, shared by the processes of a machine.
//!
//! A file gets its final name once it is complete and on disk. Who writes holds an exclusive
//! lock, who reads a shared one: what is not locked is left over, or may make room for others.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::SystemTime,
};

use nereid_core::{
    clock::{Clock, SystemClock},
    engine::EngineError,
};

use super::{
    Check,
    records::{HEADER_BYTES, Header, Records},
    samples::Targets,
};

const PARTIAL: &str = "partial";
const COMPLETE: &str = "rows";
/// Space is made in steps of this many bytes.
const STEP: u64 = 64 << 20;

/// A folder of decoded data.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
    limit: u64,
    /// Whether files stay for others to use.
    kept: bool,
}

impl Cache {
    /// Uses a folder that is kept, or one where files vanish with who wrote them.
    pub(crate) fn new(folder: &Path, limit: u64, kept: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            limit,
            kept,
        }
    }

    /// Most bytes that it may hold.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Finds complete data and marks it as used; what is damaged is removed.
    pub(super) fn find(
        &self,
        key: &str,
        check: &mut Check<'_>,
    ) -> Result<Option<(Records, Header, Targets)>, EngineError> {
        if !self.kept {
            return Ok(None);
        }
        let path = self.path(key);
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else {
            return Ok(None);
        };
        if file.try_lock_shared().is_err() {
            return Ok(None);
        }
        let found = {
            let used = file.set_modified(SystemTime::from(SystemClock.now()));
            if let Err(error) = used {
                tracing::debug!(%error, "a cache file cannot be marked as used");
            }
            Records::open(file, key, check)?
        };
        if found.is_none() {
            tracing::warn!(path = %path.display(), "a damaged cache file is removed");
            remove(&path);
        }
        Ok(found)
    }

    /// Begins to write data.
    pub(super) fn begin(&self) -> io::Result<Partial> {
        fs::create_dir_all(&self.folder)?;
        let (path, file) = self.create()?;
        if !self.kept {
            // It lives for as long as it is open, however this process ends.
            fs::remove_file(&path)?;
        }
        let mut partial = Partial {
            cache: self.clone(),
            path: self.kept.then_some(path),
            file: BufWriter::with_capacity(1 << 20, file),
            written: 0,
            room: 0,
        };
        partial.write(&[0; HEADER_BYTES])?;
        Ok(partial)
    }

    /// Creates a locked file with a name of its own.
    fn create(&self) -> io::Result<(PathBuf, File)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}.{PARTIAL}", std::process::id());
            let path = self.folder.join(name);
            let mut options = OpenOptions::new();
            let created = options.read(true).write(true).create_new(true).open(&path);
            match created {
                Ok(file) => {
                    file.lock()?;
                    // Before it was locked, it looked like one that a dead process left.
                    if path.exists() {
                        return Ok((path, file));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.{COMPLETE}"))
    }

    /// Makes room for at least `least` bytes more beside `unseen` that no name leads to; returns
    /// for how many there is room, at most a [`STEP`] unless more are needed.
    fn make_room(&self, least: u64, unseen: u64) -> io::Result<Option<u64>> {
        let mut files = Vec::new();
        let mut total = unseen.saturating_add(least);
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let kind = path.extension().and_then(|e| e.to_str());
            // What vanishes meanwhile needs no room.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let length = metadata.len();
            match kind {
                Some(PARTIAL) if is_unused(&path) => remove(&path),
                Some(PARTIAL) => total = total.saturating_add(length),
                Some(COMPLETE) => {
                    total = total.saturating_add(length);
                    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    files.push((used, length, path));
                }
                _ => {}
            }
        }
        // What was not used for longest goes first.
        files.sort();
        for (_, length, path) in files {
            if total <= self.limit {
                break;
            }
            if is_unused(&path) {
                remove(&path);
                total = total.saturating_sub(length);
            }
        }
        let more = self.limit.checked_sub(total);
        Ok(more.map(|more| least + more.min(STEP.saturating_sub(least))))
    }
}

/// Data that is being written.
pub(super) struct Partial {
    cache: Cache,
    /// Its name, if it has one.
    path: Option<PathBuf>,
    file: BufWriter<File>,
    written: u64,
    /// Bytes that room was made for.
    room: u64,
}

impl Partial {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] if the cache cannot hold them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let after = self.written + bytes.len() as u64;
        if after > self.room {
            let unseen = if self.path.is_some() { 0 } else { self.written };
            self.file.flush()?;
            let room = self.cache.make_room(bytes.len() as u64, unseen)?;
            self.room = self.written + room.ok_or(io::ErrorKind::QuotaExceeded)?;
        }
        self.file.write_all(bytes)?;
        self.written = after;
        Ok(())
    }

    /// Completes the file and puts it under its name.
    pub(super) fn finish(mut self, header: &Header) -> io::Result<Records> {
        self.file.flush()?;
        let file = self.file.get_ref();
        file.write_all_at(&header.encode()?, 0)?;
        if let Some(path) = &self.path {
            file.sync_all()?;
            fs::rename(path, self.cache.path(&header.key))?;
            File::open(&self.cache.folder)?.sync_all()?;
            self.path = None;
        }
        let file = self.file.get_ref().try_clone()?;
        // From now on it is read.
        file.lock_shared()?;
        Ok(Records::new(file, header))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

/// Tells whether nobody reads or writes a file.
fn is_unused(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => tracing::debug!(path = %path.display(), error = %e, "a file is left behind"),
    }
}
