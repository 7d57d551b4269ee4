//! The files of a server: where they may lie, how they are made, and who else may use them.

use std::{
    fs::{File, Permissions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use rustix::process::{Pid, test_kill_process};

use super::{SUPERUSER, account::Account, binaries::Binaries};
use crate::LocalError;

/// Holds the clusters whose own data directory the unprivileged user cannot reach.
const FALLBACK_DIR: &str = "/var/lib/nereid";
/// Names the cluster's folder when it is not the data directory itself.
const LOCATION_FILE: &str = "location";
/// Most of the log that an error shows, in bytes.
const LOG_TAIL: u64 = 2_000;

/// An initialised cluster, ready to be served.
#[derive(Debug)]
pub(super) struct Cluster {
    /// What Postgres calls its data directory.
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
}

impl Cluster {
    /// Finds or makes the cluster that belongs to `data_dir`.
    pub(super) fn prepare(
        data_dir: &Path,
        durable: bool,
        account: Account,
        binaries: &Binaries,
    ) -> Result<Self, LocalError> {
        let home = home(data_dir, account, Path::new(FALLBACK_DIR))?;
        let cluster = Self {
            data: home.join("data"),
            log: home.join("postgres.log"),
        };
        if !cluster.data.join("PG_VERSION").is_file() {
            initialise(&home, &cluster.data, durable, account, binaries)?;
        }
        Ok(cluster)
    }

    /// Starts a new log and keeps the one before.
    pub(super) fn open_log(&self, account: Account) -> Result<File, LocalError> {
        let previous = self.log.with_extension("log.1");
        match std::fs::rename(&self.log, &previous) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(LocalError::io("rename", &self.log)(e));
            }
            _ => {}
        }
        let file = File::create(&self.log).map_err(LocalError::io("create", &self.log))?;
        account.own(&self.log)?;
        Ok(file)
    }

    /// The end of the log.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|e| format!("(unreadable: {e})"))
    }

    /// Tells whether the server has finished starting.
    pub(super) fn is_ready(&self) -> bool {
        // The eighth line of the lock file is the server's state, padded with blanks.
        std::fs::read_to_string(self.pid_file())
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|s| s.trim() == "ready"))
    }

    /// Stops a server of an earlier run and removes the lock file of a dead one.
    ///
    /// The caller holds the lock of the data directory, so no living Nereid owns that server.
    pub(super) fn stop_leftover(
        &self,
        account: Account,
        binaries: &Binaries,
    ) -> Result<(), LocalError> {
        let Some(pid) = self.recorded_pid() else {
            return Ok(());
        };
        if self.is_served_by(pid, account) {
            tracing::info!(
                pid = pid.as_raw_nonzero().get(),
                "stopping the Postgres of an earlier run"
            );
            for mode in ["fast", "immediate"] {
                let _ = account
                    .command(&binaries.pg_ctl)
                    .args([
                        "stop",
                        "--silent",
                        "--wait",
                        "--timeout=5",
                        "--mode",
                        mode,
                        "-D",
                    ])
                    .arg(&self.data)
                    .output()
                    .map_err(LocalError::io("run", &binaries.pg_ctl))?;
                if !self.is_served_by(pid, account) {
                    break;
                }
            }
            if self.is_served_by(pid, account) {
                return Err(LocalError::StaleServer {
                    dir: self.data.clone(),
                    pid: pid.as_raw_nonzero().get().unsigned_abs(),
                });
            }
        }
        // Its "ready" must not be taken for that of the server to come, and its process number may
        // by now be somebody else's, which Postgres would wait for.
        let pid_file = self.pid_file();
        match std::fs::remove_file(&pid_file) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(LocalError::io("remove", pid_file)(e)),
            _ => Ok(()),
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    fn recorded_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.pid_file()).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    /// Tells whether that process is alive and a server of this cluster, not just its number.
    fn is_served_by(&self, pid: Pid, account: Account) -> bool {
        if test_kill_process(pid).is_err() {
            return false;
        }
        if !Path::new("/proc/self").exists() {
            return true;
        }
        // A server works in its data directory. Asked as its own user, because a container's root
        // may not look into other users' processes.
        let link = format!("/proc/{}/cwd", pid.as_raw_nonzero());
        account
            .command(Path::new("readlink"))
            .arg(link)
            .output()
            .is_ok_and(|output| {
                Path::new(String::from_utf8_lossy(&output.stdout).trim_end()) == self.data
            })
    }
}

/// The folder that holds the cluster: `data_dir`, or one that the server's user can reach.
fn home(data_dir: &Path, account: Account, fallback: &Path) -> Result<PathBuf, LocalError> {
    let location = data_dir.join(LOCATION_FILE);
    match std::fs::read_to_string(&location) {
        Ok(path) => return Ok(PathBuf::from(path.trim_end())),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(LocalError::io("read", location)(e)),
    }
    account.own(data_dir)?;
    if account.can_use(data_dir) {
        return Ok(data_dir.to_owned());
    }
    let home = fallback_home(fallback, account)?;
    std::fs::write(&location, format!("{}\n", home.display()))
        .map_err(LocalError::io("write", &location))?;
    tracing::info!(
        data_dir = %data_dir.display(),
        location = %home.display(),
        "Postgres does not run as root and cannot reach the data directory: its files lie elsewhere"
    );
    Ok(home)
}

fn fallback_home(fallback: &Path, account: Account) -> Result<PathBuf, LocalError> {
    std::fs::create_dir_all(fallback).map_err(LocalError::io("create", fallback))?;
    std::fs::set_permissions(fallback, Permissions::from_mode(0o755))
        .map_err(LocalError::io("open to all", fallback))?;
    let home = tempfile::Builder::new()
        .prefix("postgres-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(fallback)
        .map_err(LocalError::io("create a folder in", fallback))?
        .keep();
    account.own(&home)?;
    Ok(home)
}

/// Makes a new cluster beside its final place, so that a half-made one is never served.
fn initialise(
    home: &Path,
    data: &Path,
    durable: bool,
    account: Account,
    binaries: &Binaries,
) -> Result<(), LocalError> {
    let draft = home.join("data.new");
    match std::fs::remove_dir_all(&draft) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(LocalError::io("remove", draft)(e));
        }
        _ => {}
    }
    let mut command = account.command(&binaries.initdb);
    command
        .args([
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            "-U",
            SUPERUSER,
        ])
        // Who can open the socket, whose folder is private, may connect; nobody else can.
        .args(["--auth-local=trust", "--auth-host=reject", "-D"])
        .arg(&draft)
        .env("LC_ALL", "C");
    if !durable {
        command.arg("--no-sync");
    }
    let output = command
        .output()
        .map_err(LocalError::io("run", &binaries.initdb))?;
    if !output.status.success() {
        return Err(LocalError::Program {
            program: "initdb",
            status: output.status.to_string(),
            output: text(&output),
        });
    }
    std::fs::rename(&draft, data).map_err(LocalError::io("rename", draft))
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody_in_particular() -> Option<Account> {
        let account = Account::choose().unwrap();
        (account != Account::Own).then_some(account)
    }

    #[test]
    fn our_own_user_keeps_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let found = home(dir.path(), Account::Own, Path::new("/nonexistent")).unwrap();
        assert_eq!(found, dir.path());
    }

    #[test]
    fn an_unreachable_data_directory_gets_a_lasting_home_elsewhere() {
        // Only root runs Postgres as somebody else.
        let Some(account) = nobody_in_particular() else {
            return;
        };
        let private = tempfile::tempdir().unwrap();
        std::fs::set_permissions(private.path(), Permissions::from_mode(0o700)).unwrap();
        let data_dir = private.path().join("checkout/.nereid/postgres");
        std::fs::create_dir_all(&data_dir).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();

        let first = home(&data_dir, account, elsewhere.path()).unwrap();
        assert!(first.starts_with(elsewhere.path()), "{}", first.display());
        assert!(account.can_use(&first));
        let second = home(&data_dir, account, elsewhere.path()).unwrap();
        assert_eq!(first, second);
    }
}
