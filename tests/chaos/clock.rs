//! The wall clock of a process, set from outside by libfaketime; monotonic clocks stay as they are.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use nereid_core::clock::{Clock as _, SystemClock};

/// Where distributions put the library, below `/usr/lib` and an architecture's folder.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

pub struct Clock {
    library: PathBuf,
    /// Holds the offset; read again about every second.
    file: PathBuf,
}

impl Clock {
    /// A clock that is right; none if libfaketime is not installed.
    pub fn new(folder: &Path) -> Option<Self> {
        let clock = Self {
            library: library()?,
            file: folder.join("clock"),
        };
        clock.step(0);
        Some(clock)
    }

    /// Makes a command's process, and those it starts, go by this clock.
    pub fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }

    /// Sets it to so many seconds after the real time.
    pub fn step(&self, seconds: i64) {
        // In one piece: a reader must never see half an offset.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Tells whether a process goes by this clock, and how many seconds after the real time it is.
    pub fn offset_of(&self, pid: u32) -> Option<i64> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        if !maps.contains(LIBRARY) {
            return None;
        }
        // Another process with the same settings says what the library makes of them now.
        let mut date = Command::new("date");
        self.apply(&mut date);
        let output = date.arg("+%s").output().ok()?;
        let theirs: i64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
        Some(theirs - SystemClock.now().timestamp())
    }

    /// Removes what the library leaves behind of a process that was killed.
    pub fn forget(pid: u32) {
        for name in [
            format!("faketime_shm_{pid}"),
            format!("sem.faketime_sem_{pid}"),
        ] {
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut candidates = folders.map(|folder| folder.path().join(LIBRARY));
    candidates.find(|library| library.is_file())
}
