//! The user that Postgres runs as: ours, or an unprivileged one when we are root.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use crate::LocalError;

/// Users to run Postgres as when Nereid is root, best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The user that runs the server and owns its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The user that runs Nereid.
    Own,
    /// Another user, because Postgres refuses root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn choose() -> Result<Self, LocalError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let path = Path::new("/etc/passwd");
        let passwd = std::fs::read_to_string(path).map_err(LocalError::io("read", path))?;
        CANDIDATES
            .iter()
            .find_map(|name| entry(&passwd, name))
            .ok_or(LocalError::NoUnprivilegedUser)
    }

    /// A command that runs as this user, in a folder that it can surely enter.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        if let Self::Other { uid, gid } = self {
            // As root, std drops the supplementary groups too before it sets the user.
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Makes this user the owner of one file or folder.
    pub(super) fn own(self, path: &Path) -> Result<(), LocalError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid))
                .map_err(LocalError::io("change the owner of", path)),
        }
    }

    /// Tells whether this user can work in a folder; asks the kernel, so that any ACL counts.
    pub(super) fn can_use(self, dir: &Path) -> bool {
        let Self::Other { .. } = self else {
            return true;
        };
        self.command(Path::new("/bin/sh"))
            .args(["-c", r#"test -w "$1" && test -x "$1""#, "sh"])
            .arg(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn entry(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        (uid != 0).then_some(Account::Other { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_user_and_group_but_never_root() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:PG,,,:/var/lib/postgresql:/bin/bash\ntoor:x:0:0::/:/bin/sh\n";
        assert_eq!(
            entry(passwd, "postgres"),
            Some(Account::Other { uid: 101, gid: 104 })
        );
        assert_eq!(entry(passwd, "toor"), None);
        assert_eq!(entry(passwd, "nobody"), None);
    }
}
