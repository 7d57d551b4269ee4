//! The raw figure beside ours: `pgbench` inserting single rows into a table with a primary key.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::process::Command;

const CREATE: &str = "CREATE TABLE raw_insert (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body jsonb NOT NULL);";
const INSERT: &str = "INSERT INTO raw_insert (body) VALUES ('{}');";

/// `pgbench`, and the scripts it runs.
pub struct Pgbench {
    program: PathBuf,
    create: PathBuf,
    insert: PathBuf,
    url: String,
}

impl Pgbench {
    /// Finds the program and makes the table; nothing if it is not installed.
    pub async fn prepare(folder: &Path, url: &str) -> anyhow::Result<Option<Self>> {
        let Some(program) = find().await else {
            return Ok(None);
        };
        let pgbench = Self {
            program,
            create: folder.join("create.sql"),
            insert: folder.join("insert.sql"),
            url: url.to_owned(),
        };
        tokio::fs::write(&pgbench.create, CREATE).await?;
        tokio::fs::write(&pgbench.insert, INSERT).await?;
        let once = ["--transactions", "1"].map(str::to_owned);
        pgbench.run(&pgbench.create, &once).await?;
        Ok(Some(pgbench))
    }

    /// Returns inserted rows per second of so many clients.
    pub async fn per_second(&self, clients: u16, time: Duration) -> anyhow::Result<f64> {
        let seconds = time.as_secs().max(1);
        let args = [
            "--protocol=prepared".to_owned(),
            format!("--client={clients}"),
            format!("--jobs={}", clients.min(2)),
            format!("--time={seconds}"),
        ];
        let output = self.run(&self.insert, &args).await?;
        transactions_per_second(&output).context("pgbench printed no tps")
    }

    async fn run(&self, script: &Path, args: &[String]) -> anyhow::Result<String> {
        let output = Command::new(&self.program)
            .arg("--no-vacuum")
            .arg("--file")
            .arg(script)
            .args(args)
            // Not an argument: those are seen by everybody on the machine, and it may hold a password.
            .env("PGDATABASE", &self.url)
            .kill_on_drop(true)
            .output()
            .await
            .context("pgbench")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench failed: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Looks in `PATH`, then where Debian keeps it.
async fn find() -> Option<PathBuf> {
    let on_path = PathBuf::from("pgbench");
    let works = Command::new(&on_path).arg("--version").output().await;
    if works.is_ok_and(|o| o.status.success()) {
        return Some(on_path);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/pgbench")))
        .filter(|program| program.is_file())
        .collect();
    found.sort();
    found.pop()
}

fn transactions_per_second(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|l| l.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_figure_in_what_pgbench_prints() {
        let output = "number of clients: 1\ntps = 4447.855523 (without initial connection time)\n";
        assert_eq!(super::transactions_per_second(output), Some(4_447.855_523));
        assert_eq!(super::transactions_per_second("pgbench: error"), None);
    }
}
