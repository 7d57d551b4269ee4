//! One process of Nereid with links of its own: started, frozen, killed, drained, started again.

use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Mutex as SyncMutex,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use crate::{
    clock::Clock,
    proxy::Proxy,
    support::{nereid, signal_process},
};

/// Longest time until a process is ready, while nothing keeps it from that.
const START_TIMEOUT: Duration = Duration::from_mins(2);
/// Pause before a process is started again that ended before it was ready.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// Longest orderly end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Api,
    Worker,
}

pub struct Process {
    pub name: String,
    pub role: Role,
    pub postgres: Proxy,
    pub s3: Proxy,
    /// Set if its clock can be stepped.
    pub clock: Option<Clock>,
    /// Held while something is done to the process itself.
    pub turn: Mutex<()>,
    pub data: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    /// Of an API: picked at the first start, the same from then on.
    address: SyncMutex<Option<SocketAddr>>,
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    // Whatever it prints later must find a reader.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub fn new(
        role: Role,
        name: String,
        folder: &Path,
        (postgres, s3): (Proxy, Proxy),
        clock: Option<Clock>,
        environment: Vec<(String, String)>,
    ) -> Self {
        Self {
            data: folder.join(&name),
            log: folder.join(format!("{name}.log")),
            name,
            role,
            postgres,
            s3,
            clock,
            turn: Mutex::default(),
            environment,
            address: SyncMutex::default(),
            running: Mutex::default(),
        }
    }

    /// Base URL of an API.
    pub fn url(&self) -> String {
        let address = self.address.lock().unwrap().expect("it has been started");
        format!("http://{address}")
    }

    /// Starts it and waits until it is ready, again if it ends before that: what supervises
    /// services does so, too, and a process that starts during an outage cannot but end.
    pub async fn start(&self) {
        let began = Instant::now();
        loop {
            let patience = START_TIMEOUT.saturating_sub(began.elapsed());
            match timeout(patience, self.try_start()).await {
                Ok(true) => return,
                Ok(false) => sleep(RESTART_PAUSE).await,
                Err(late) => panic!(
                    "{} does not start: {late}\n{}",
                    self.name,
                    self.log_tail(40)
                ),
            }
        }
    }

    async fn try_start(&self) -> bool {
        let mut child = self.command().spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Ok(Some(line)) = stdout.next_line().await {
            if let Some(url) = line.trim().strip_prefix("API ") {
                let address = url.trim().strip_prefix("http://").unwrap().parse().unwrap();
                *self.address.lock().unwrap() = Some(address);
            } else if !line.contains("takes jobs") {
                continue;
            }
            let running = Running {
                child,
                _stdout: stdout,
            };
            *self.running.lock().await = Some(running);
            return true;
        }
        let pid = child.id();
        let _ = child.wait().await;
        self.ended(pid);
        false
    }

    fn command(&self) -> Command {
        let mut command = nereid();
        match self.role {
            Role::Api => {
                let address = self.address.lock().unwrap();
                let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
                command.arg("api").arg("--listen").arg(address.to_string());
                command.args(["--grpc-port", "0"]);
            }
            Role::Worker => {
                command.args(["worker", "--slots", "1"]);
            }
        }
        command
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .env("NEREID__WORKER__DATA_DIR", &self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.open_log());
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        command
    }

    fn open_log(&self) -> File {
        let mut log = OpenOptions::new();
        log.create(true).append(true).open(&self.log).unwrap()
    }

    /// Number of the process, if it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.running.lock().await.as_ref()?.child.id()
    }

    /// Tells how it ended, if it did without being asked to.
    pub async fn ended_by_itself(&self) -> Option<ExitStatus> {
        let mut running = self.running.lock().await;
        running.as_mut()?.child.try_wait().unwrap()
    }

    pub async fn signal(&self, signal: &str) {
        if let Some(pid) = self.pid().await {
            signal_process(pid, signal);
        }
    }

    /// Sends a signal that ends it, and waits for that; by force if it takes too long.
    pub async fn end(&self, signal: &str) -> Option<ExitStatus> {
        let mut running = self.running.lock().await.take()?;
        let pid = running.child.id();
        if let Some(pid) = pid {
            signal_process(pid, signal);
        }
        let status = timeout(STOP_TIMEOUT, running.child.wait()).await;
        let status = status.map(Result::unwrap).ok();
        if status.is_none() {
            running.child.kill().await.unwrap();
        }
        self.ended(pid);
        status
    }

    fn ended(&self, pid: Option<u32>) {
        if let (Some(_), Some(pid)) = (&self.clock, pid) {
            Clock::forget(pid);
        }
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log, over all its lives.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log_text();
        let skipped = text.lines().count().saturating_sub(lines);
        let tail: Vec<_> = text.lines().skip(skipped).collect();
        tail.join("\n")
    }
}
