//! A gate between a worker and what it depends on: passes everything on, holds it back, or shuts.

use std::{net::SocketAddr, path::Path};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing gets through, and nobody is told.
    Held,
    /// What the server says does not get through.
    AnswersHeld,
    /// Connections are cut, also new ones.
    Shut,
}

/// Passes connections on until dropped.
pub struct Gate {
    state: watch::Sender<State>,
    /// Times that something was held back or cut.
    stopped: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Gate {
    /// In front of a TCP server; returns its own address, too.
    pub async fn tcp(upstream: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (gate, mut tasks) = Self::new();
        let passage = gate.passage();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let passage = passage.clone();
                connections.spawn(async move {
                    if let Ok(server) = TcpStream::connect(upstream).await {
                        passage.pass(client, server).await;
                    }
                });
            }
        });
        (gate.with(tasks), addr)
    }

    /// In front of the Postgres whose socket is in `upstream`; returns the folder of its own.
    pub fn postgres(upstream: &Path) -> (Self, TempDir) {
        const SOCKET: &str = ".s.PGSQL.5432";
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let upstream = upstream.join(SOCKET);
        let (gate, mut tasks) = Self::new();
        let passage = gate.passage();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (passage, upstream) = (passage.clone(), upstream.clone());
                connections.spawn(async move {
                    if let Ok(server) = UnixStream::connect(upstream).await {
                        passage.pass(client, server).await;
                    }
                });
            }
        });
        (gate.with(tasks), folder)
    }

    fn new() -> (Self, JoinSet<()>) {
        let gate = Self {
            state: watch::Sender::new(State::Open),
            stopped: watch::Sender::new(0),
            _tasks: JoinSet::new(),
        };
        (gate, JoinSet::new())
    }

    fn with(self, tasks: JoinSet<()>) -> Self {
        Self {
            _tasks: tasks,
            ..self
        }
    }

    fn passage(&self) -> Passage {
        Passage {
            state: self.state.subscribe(),
            stopped: self.stopped.clone(),
        }
    }

    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }

    pub fn hold(&self) {
        self.stopped.send_replace(0);
        self.state.send_replace(State::Held);
    }

    pub fn hold_answers(&self) {
        self.stopped.send_replace(0);
        self.state.send_replace(State::AnswersHeld);
    }

    pub fn shut(&self) {
        self.stopped.send_replace(0);
        self.state.send_replace(State::Shut);
    }

    /// Waits until something has been held back or cut so many times since it was closed.
    pub async fn stopped(&self, times: u64) {
        let mut stopped = self.stopped.subscribe();
        stopped.wait_for(|&n| n >= times).await.unwrap();
    }
}

#[derive(Clone)]
struct Passage {
    state: watch::Receiver<State>,
    stopped: watch::Sender<u64>,
}

impl Passage {
    async fn pass<S>(mut self, client: S, server: S)
    where
        S: AsyncRead + AsyncWrite,
    {
        let (from_client, to_client) = split(client);
        let (from_server, to_server) = split(server);
        let (up, down) = (self.clone(), self.clone());
        let cut = async {
            let _ = self.state.wait_for(|&state| state == State::Shut).await;
        };
        // Whichever ends first drops, and so closes, both connections.
        let is_cut = tokio::select! {
            biased;
            () = cut => true,
            () = up.pump(from_client, to_server, &[State::Held]) => false,
            () = down.pump(from_server, to_client, &[State::Held, State::AnswersHeld]) => false,
        };
        if is_cut {
            self.stopped.send_modify(|n| *n += 1);
        }
    }

    async fn pump(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        held: &[State],
    ) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if held.contains(&self.state.borrow()) {
                self.stopped.send_modify(|n| *n += 1);
            }
            let opened = self.state.wait_for(|state| !held.contains(state));
            if opened.await.is_err() {
                return;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}
