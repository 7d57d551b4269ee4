//! Where the programs of Postgres are.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::LocalError;

/// Directory that distributions install one folder per version in.
const VERSIONS_DIR: &str = "/usr/lib/postgresql";
/// Where Homebrew and builds from source put theirs.
const OTHER_DIRS: [&str; 3] = [
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/pgsql/bin",
];

/// A complete installation.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) initdb: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) pg_ctl: PathBuf,
}

impl Binaries {
    /// Looks in `bin_dir` alone if it is given, else on `PATH` and in the usual places.
    pub(super) fn find(bin_dir: Option<&Path>) -> Result<Self, LocalError> {
        let mut looked_in = Vec::new();
        if let Some(dir) = bin_dir {
            looked_in.push(dir.display().to_string());
            return Self::in_dir(dir).ok_or(LocalError::PostgresNotFound { looked_in });
        }
        looked_in.push("PATH".to_owned());
        if let Some(found) = on_path().as_deref().and_then(Self::in_dir) {
            return Ok(found);
        }
        looked_in.push(format!("{VERSIONS_DIR}/*/bin"));
        for dir in newest_first(Path::new(VERSIONS_DIR)) {
            if let Some(found) = Self::in_dir(&dir) {
                return Ok(found);
            }
        }
        for dir in OTHER_DIRS {
            looked_in.push(dir.to_owned());
            if let Some(found) = Self::in_dir(Path::new(dir)) {
                return Ok(found);
            }
        }
        Err(LocalError::PostgresNotFound { looked_in })
    }

    fn in_dir(dir: &Path) -> Option<Self> {
        let program = |name| Some(dir.join(name)).filter(|path| path.is_file());
        Some(Self {
            initdb: program("initdb")?,
            postgres: program("postgres")?,
            pg_ctl: program("pg_ctl")?,
        })
    }
}

/// The folder that holds the `postgres` on `PATH`, behind any links.
///
/// Asks the shell, because this crate does not read the environment itself.
fn on_path() -> Option<PathBuf> {
    let output = Command::new("/bin/sh")
        .args(["-c", "command -v postgres"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim()).canonicalize().ok()?;
    path.parent().map(Path::to_owned)
}

fn newest_first(versions: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(versions)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry
                .file_name()
                .to_str()?
                .split('.')
                .next()?
                .parse()
                .ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_comes_first_by_number() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17", "scripts"] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
        }
        let found: Vec<_> = newest_first(dir.path());
        let expected: Vec<_> = ["17", "15", "9.6"]
            .iter()
            .map(|v| dir.path().join(v).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_incomplete_folder_names_itself_and_the_package() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("postgres"), "").unwrap();
        let error = Binaries::find(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(error.contains("apt-get install postgresql"), "{error}");
    }
}
