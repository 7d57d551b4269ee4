//! Lives of a managed Postgres: start, restart, sudden death, leftovers, and what remains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nereid_local::{LocalError, ManagedPostgres, PostgresOptions};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn start(dir: &Path) -> ManagedPostgres {
    let options = PostgresOptions::for_tests(dir);
    ManagedPostgres::start(options).await.unwrap()
}

/// As `nereid dev` does it: what is committed survives a crash of the server.
async fn start_durable(dir: &Path) -> ManagedPostgres {
    let options = PostgresOptions::new(dir);
    ManagedPostgres::start(options).await.unwrap()
}

async fn run(server: &ManagedPostgres, statement: &'static str) {
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn count_rows(server: &ManagedPostgres) -> i64 {
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::query_scalar("select count(*) from kept")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

/// Waits for what another process is about to do; there is no event to wait on across processes.
async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn data_survives_a_restart() {
    let dir = data_dir();
    let server = start_durable(dir.path()).await;
    run(&server, "create table kept as select generate_series(1, 3)").await;
    let sockets = server.socket_dir().to_owned();
    server.stop().await.unwrap();
    assert!(!sockets.exists(), "the socket's folder is left behind");

    let server = start_durable(dir.path()).await;
    assert_eq!(count_rows(&server).await, 3);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn it_is_not_open_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let dir = data_dir();
    let server = start(dir.path()).await;
    let mode = server.socket_dir().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let listens: String = sqlx::query_scalar("show listen_addresses")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(listens, "");
    drop(connection);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let dir = data_dir();
    let server = start(dir.path()).await;
    let second = ManagedPostgres::start(PostgresOptions::for_tests(dir.path())).await;
    assert!(
        matches!(second, Err(LocalError::InUse { .. })),
        "{second:?}"
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_drop_without_stop_ends_the_server() {
    let dir = data_dir();
    let server = start(dir.path()).await;
    let sockets = server.socket_dir().to_owned();
    drop(server);
    wait_until("the end of a dropped server", || !sockets.exists()).await;
}

#[tokio::test]
async fn its_own_death_is_noticed_and_mended() {
    let dir = data_dir();
    let server = start_durable(dir.path()).await;
    run(&server, "create table kept as select generate_series(1, 4)").await;
    let pid = postmaster(dir.path());
    kill_process(pid, Signal::KILL).unwrap();
    let status = tokio::time::timeout(PATIENCE, server.exited())
        .await
        .unwrap();
    assert!(status.contains("137"), "{status}");
    drop(server);

    let server = start_durable(dir.path()).await;
    assert_eq!(count_rows(&server).await, 4);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_without_its_watcher_is_stopped_by_the_next_start() {
    let dir = data_dir();
    let server = start(dir.path()).await;
    run(&server, "create table kept as select generate_series(1, 5)").await;
    let sockets = server.socket_dir().to_owned();
    let orphan = postmaster(dir.path());
    for process in group_of(orphan) {
        if process != orphan {
            kill_process(process, Signal::KILL).unwrap();
        }
    }
    server.exited().await;
    drop(server);
    assert!(
        is_alive(orphan),
        "the server should have outlived its watcher"
    );

    let server = start(dir.path()).await;
    wait_until("the end of the orphan", || !is_alive(orphan)).await;
    assert_eq!(count_rows(&server).await, 5);
    server.stop().await.unwrap();
    // Nobody was left to do it.
    std::fs::remove_dir_all(sockets).unwrap();
}

#[tokio::test]
async fn kill_9_of_its_parent_stops_it_and_keeps_the_data() {
    let dir = data_dir();
    let (mut holder, sockets) = Holder::spawn(dir.path());
    holder.kill_9();
    // At once: the old server is still stopping.
    let server = start(dir.path()).await;
    assert_eq!(count_rows(&server).await, 7);
    server.stop().await.unwrap();
    wait_until("the watcher of the killed parent", || !sockets.exists()).await;
}

#[tokio::test]
async fn an_ephemeral_server_leaves_nothing_behind() {
    let (mut holder, sockets) = Holder::spawn(Path::new("ephemeral"));
    let scratch = holder.next_path();
    assert!(scratch.join("data/PG_VERSION").exists());
    holder.kill_9();
    wait_until("the files of an ephemeral server", || {
        !sockets.exists() && !scratch.exists()
    })
    .await;
}

#[tokio::test]
async fn missing_binaries_are_named() {
    let dir = data_dir();
    let error = ManagedPostgres::start(PostgresOptions {
        bin_dir: Some(dir.path().to_owned()),
        ..PostgresOptions::for_tests(dir.path().join("data"))
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("NEREID_PG_BIN"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log() {
    let dir = data_dir();
    start(dir.path()).await.stop().await.unwrap();
    let error = ManagedPostgres::start(PostgresOptions {
        max_connections: 0,
        ..PostgresOptions::for_tests(dir.path())
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("max_connections"), "{error}");
}

fn postmaster(dir: &Path) -> Pid {
    let file = std::fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    Pid::from_raw(file.lines().next().unwrap().parse().unwrap()).unwrap()
}

fn is_alive(process: Pid) -> bool {
    // A dead one that nobody has waited for yet still has its number, but no program.
    let program = format!("/proc/{process}/exe");
    std::fs::read_link(program).is_ok()
}

/// All processes of the group that a process is in.
fn group_of(process: Pid) -> Vec<Pid> {
    // The third field behind the program's name, which is in parentheses and may hold anything.
    let group = |pid: Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(2)?.parse::<i32>().ok()
    };
    let wanted = group(process).unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| group(*pid) == Some(wanted))
        .collect()
}

/// Another process that runs [`holder`] and can be killed without harm to the tests.
struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn spawn(dir: &Path) -> (Self, PathBuf) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "holder", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{}", dir.display()).unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut holder = Self { child, output };
        let sockets = holder.next_path();
        (holder, sockets)
    }

    /// Next path that the holder tells, past what the test harness prints.
    fn next_path(&mut self) -> PathBuf {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the holder failed"
            );
            if let Some((_, path)) = line.trim_end().split_once("holder-tells:") {
                return PathBuf::from(path);
            }
        }
    }

    fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// No test: what [`Holder`] runs in a process of its own.
#[tokio::test]
#[ignore = "run by other tests in a process of its own"]
async fn holder() {
    let mut lines = std::io::stdin().lines();
    let Some(Ok(dir)) = lines.next() else {
        return;
    };
    let tell = |path: &Path| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nholder-tells:{}", path.display()).unwrap();
        out.flush().unwrap();
    };
    if dir == "ephemeral" {
        let server = ManagedPostgres::ephemeral().await.unwrap();
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        let data: String = sqlx::query_scalar("show data_directory")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        tell(server.socket_dir());
        tell(Path::new(&data).parent().unwrap());
        // Held until this process is killed.
        lines.next();
        return;
    }
    let server = start(Path::new(&dir)).await;
    run(&server, "create table kept as select generate_series(1, 7)").await;
    tell(server.socket_dir());
    lines.next();
    drop(server);
}
