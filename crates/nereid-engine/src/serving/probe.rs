//! Tries a runtime that may abort in a process of its own, before it is used in this one.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nereid_core::{engine::EngineError, models::Runtime};

use super::Settings;
use crate::{artifact::Artifact, guard, model::Model};

/// Longest time that a runtime may take to load a network and to run its golden samples.
const TIME_LIMIT: Duration = Duration::from_mins(2);
/// Pause between two looks at the process.
const LOOK: Duration = Duration::from_millis(5);
/// How much of its last words is kept, in bytes.
const MAX_WORDS: u64 = 2 << 10;
/// Rows that each network is run with: alone, and as a batch.
const ROWS: [usize; 2] = [1, 32];

/// The program to start: `program arguments… FOLDER RUNTIME`, which calls [`serve`].
#[derive(Debug, Clone)]
pub struct Probe {
    /// The program.
    pub program: PathBuf,
    /// What it is given before folder and runtime.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// What was found of networks, by their folders; folders hold the same files for ever.
static KNOWN: Mutex<Option<HashMap<Known, Result<(), String>>>> = Mutex::new(None);

type Known = (PathBuf, Runtime, Option<PathBuf>);

/// Tries `runtime` on the artifact in `folder`, unless that was done before.
///
/// # Errors
/// [`EngineError::Crashed`] if the process died, hung or reported an error.
pub(super) fn check(
    folder: &Path,
    runtime: Runtime,
    settings: &Settings,
) -> Result<(), EngineError> {
    let Some(probe) = &settings.probe else {
        return Ok(());
    };
    let key = (folder.to_owned(), runtime, settings.onnxruntime.clone());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known().as_ref().and_then(|k| k.get(&key).cloned());
    let found = if let Some(found) = before {
        found
    } else {
        let found = probe.run(folder, runtime, settings);
        known().get_or_insert_default().insert(key, found.clone());
        found
    };
    found.map_err(EngineError::Crashed)
}

/// Forgets what was found of a folder whose files are about to change.
pub(super) fn forget(folder: &Path) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.as_mut() {
        known.retain(|(at, ..), _| at != folder);
    }
}

impl Probe {
    fn run(&self, folder: &Path, runtime: Runtime, settings: &Settings) -> Result<(), String> {
        let library = settings.onnxruntime.iter();
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(folder)
            .arg(runtime.as_str())
            .args(library)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("no process to try {} in: {e}", runtime.as_str()))?;
        let words = child.stderr.take();
        let reader = thread::spawn(move || last_words(words));
        let status = wait(&mut child).map_err(|e| e.to_string())?;
        let words = reader.join().unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!(
                "{} failed in a process of its own ({status}): {words}",
                runtime.as_str()
            )),
            None => Err(format!(
                "{} did not finish within {} s in a process of its own",
                runtime.as_str(),
                TIME_LIMIT.as_secs()
            )),
        }
    }
}

/// Waits for the end; `None` if it did not come in time.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            // An error means that it has just ended.
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        thread::park_timeout(LOOK);
    }
}

fn last_words(stderr: Option<impl Read>) -> String {
    let mut words = Vec::new();
    if let Some(mut stderr) = stderr {
        let _ = (&mut stderr).take(MAX_WORDS).read_to_end(&mut words);
        // Whoever writes more must not wait for a reader.
        let _ = io::copy(&mut stderr, &mut io::sink());
    }
    String::from_utf8_lossy(&words).trim().to_owned()
}

/// What runs in the process: loads a network with a runtime and compares its outputs.
///
/// # Errors
/// What is wrong with it.
pub fn serve(folder: &Path, runtime: Runtime, library: Option<PathBuf>) -> Result<(), EngineError> {
    let settings = Settings {
        onnxruntime: library,
        probe: None,
    };
    guard::panics("trying a runtime", || {
        let artifact = Artifact::read(folder)?;
        let model = Model::on(&artifact, runtime, &settings)?;
        let size = artifact.golden.inputs.len() / artifact.golden.rows.max(1);
        for rows in ROWS {
            let values = artifact.golden.inputs.iter().copied().cycle();
            model.run(values.take(rows * size).collect(), rows)?;
        }
        model.compare(&artifact.golden).map(drop)
    })
}
