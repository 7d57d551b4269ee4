//! A training process as its worker sees it: started without secrets, watched, never left behind.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nereid_core::engine::EngineError;
use rustix::process::Signal;

use super::{Ending, ProcessConfig, memory};

/// Longest line of standard error that is kept whole.
const MAX_LINE: u64 = 8 << 10;
/// How much of standard error is kept for the message of a crash.
const MAX_TAIL: usize = 2 << 10;
/// How the standard library announces that it aborts for want of memory.
const ALLOCATION_FAILED: &str = "memory allocation of ";
/// Pause between two looks at a process that has closed its socket and is about to end.
const NEARLY_OVER: Duration = Duration::from_millis(1);

/// A running process; killed and waited for when dropped.
pub(super) struct Process {
    child: Child,
    status: Option<ExitStatus>,
    tail: Arc<Mutex<Tail>>,
    relay: Option<JoinHandle<()>>,
    /// The kernel's count of processes killed for want of memory, before this one started.
    kernel_kills: Option<u64>,
    last_seen: Option<u64>,
}

impl Process {
    /// Starts the process and returns this end of the socket that is its standard input.
    pub(super) fn start(config: &ProcessConfig) -> io::Result<(Self, UnixStream)> {
        let (socket, theirs) = UnixStream::pair()?;
        let kernel_kills = memory::kernel_kills();
        let mut child = Command::new(&config.program)
            .arg0(&config.name)
            .args(&config.arguments)
            .env_clear()
            .envs(config.environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C is for the worker, which decides what becomes of its trainings.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let tail = Arc::<Mutex<Tail>>::default();
        let relay = child
            .stderr
            .take()
            .map(|stderr| relay(stderr, &tail, child.id()));
        let process = Self {
            child,
            status: None,
            tail,
            relay,
            kernel_kills,
            last_seen: None,
        };
        Ok((process, socket))
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it holds now.
    pub(super) fn memory(&mut self) -> Option<u64> {
        let now = memory::resident(self.child.id());
        self.last_seen = now.or(self.last_seen);
        now
    }

    pub(super) fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
    }

    /// Waits for its end, which should be near; it is killed if it does not come within `grace`.
    pub(super) fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let deadline = Instant::now() + grace;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                self.kill();
                break self.child.wait()?;
            }
            thread::park_timeout(NEARLY_OVER);
        };
        self.status = Some(status);
        if let Some(relay) = self.relay.take() {
            // The process had the only other end of this pipe.
            let _ = relay.join();
        }
        Ok(status)
    }

    /// Says why a process that nobody killed here ended without a result.
    pub(super) fn diagnose(&self, status: ExitStatus) -> EngineError {
        let death = Death {
            status,
            // Where the kernel does not tell, want of memory is the likeliest cause.
            kernel_killed: match (self.kernel_kills, memory::kernel_kills()) {
                (Some(before), Some(now)) => now > before,
                _ => true,
            },
            last_seen: self.last_seen,
            last_words: self.last_words(),
        };
        death.explain()
    }

    fn last_words(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// What is known of a death.
struct Death {
    status: ExitStatus,
    kernel_killed: bool,
    last_seen: Option<u64>,
    last_words: String,
}

impl Death {
    fn explain(&self) -> EngineError {
        let used = self.last_seen.map_or(String::new(), |bytes| {
            format!("; it used {} when last seen", memory::readable(bytes))
        });
        let words = match &*self.last_words {
            "" => String::new(),
            words => format!(": {words}"),
        };
        let signal = self.status.signal().unwrap_or_default();
        if signal == Signal::KILL.as_raw() && self.kernel_killed {
            return EngineError::OutOfMemory(format!(
                "the training process was killed, most likely by the kernel for want of memory{used}"
            ));
        }
        if signal == Signal::ABORT.as_raw() && self.last_words.contains(ALLOCATION_FAILED) {
            return EngineError::OutOfMemory(format!(
                "the training process could not get the memory it asked for{used}{words}"
            ));
        }
        let ending = self.status.code().and_then(Ending::of);
        EngineError::Crashed(ending.map_or_else(
            || format!("the training process died, {}{used}{words}", self.status),
            |ending| format!("the training process gave up: {}", ending.describe()),
        ))
    }
}

/// The last lines of standard error.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > MAX_TAIL && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |l| l.len() + 1);
        }
    }

    fn text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|l| l.trim()).collect();
        let mut text = lines.join("\n");
        if text.len() > MAX_TAIL {
            text = text.split_off(text.ceil_char_boundary(text.len() - MAX_TAIL));
        }
        text
    }
}

/// Passes standard error on to this process's log, and keeps its end.
fn relay(stderr: ChildStderr, tail: &Arc<Mutex<Tail>>, process: u32) -> JoinHandle<()> {
    let tail = Arc::clone(tail);
    // Named after the job by whoever made it.
    let training = thread::current().name().unwrap_or_default().to_owned();
    thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut stderr).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if text.is_empty() {
                continue;
            }
            log(&text, &training, process);
            tail.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
        }
    })
}

/// Logs a line at the level that it begins with; what has none was not meant as a log line.
fn log(line: &str, training: &str, process: u32) {
    let line = line.trim_start();
    let (level, rest) = line.split_once(' ').unwrap_or((line, ""));
    match level {
        "TRACE" => tracing::trace!(training, process, "{rest}"),
        "DEBUG" => tracing::debug!(training, process, "{rest}"),
        "INFO" => tracing::info!(training, process, "{rest}"),
        "WARN" => tracing::warn!(training, process, "{rest}"),
        "ERROR" => tracing::error!(training, process, "{rest}"),
        _ => tracing::warn!(training, process, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use nereid_core::jobs::TerminationReason;

    use super::*;

    fn reason(status: i32, kernel_killed: bool, last_words: &str) -> TerminationReason {
        let death = Death {
            status: ExitStatus::from_raw(status),
            kernel_killed,
            last_seen: Some(3 << 30),
            last_words: last_words.to_owned(),
        };
        death.explain().reason()
    }

    #[test]
    fn the_way_it_died_tells_what_it_died_of() {
        use TerminationReason::{Crashed, OutOfMemory};
        let (abort, kill, segv) = (6, 9, 11);
        assert_eq!(reason(kill, true, ""), OutOfMemory);
        assert_eq!(reason(kill, false, ""), Crashed, "somebody else killed it");
        let words = "memory allocation of 99 bytes failed";
        assert_eq!(reason(abort, false, words), OutOfMemory);
        assert_eq!(reason(abort, false, "assertion failed"), Crashed);
        assert_eq!(reason(segv, true, ""), Crashed);
        assert_eq!(reason((Ending::Orphaned as i32) << 8, true, ""), Crashed);
    }

    #[test]
    fn the_end_of_what_was_said_is_kept() {
        let mut tail = Tail::default();
        for i in 0..1000 {
            tail.push(format!("line {i}"));
        }
        let text = tail.text();
        assert!(text.len() <= MAX_TAIL && text.ends_with("line 998\nline 999"));
        tail.push("é".repeat(MAX_TAIL));
        assert!(tail.text().len() <= MAX_TAIL);
    }
}
