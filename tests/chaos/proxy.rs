//! One TCP link between a process and a server, with weather: what networks do to those.
//!
//! Knows no protocol, but for the canned HTTP answer of a failing S3.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Mutex, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Most bytes carried at once.
const CHUNK: usize = 16 << 10;
/// Largest head of a request that is answered with an error.
const MAX_HEAD: usize = 64 << 10;
/// Longest wait for such a request, and for its sender to hang up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// What a link does to what it carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// Carries everything at once.
    Clear,
    /// Resets new connections; those there are live on.
    Refusing,
    /// Carries nothing and says nothing; what was sent arrives when the weather clears.
    Partitioned,
    /// Delays each chunk.
    Slow(Duration),
    /// Carries so many bytes per second in each direction.
    Narrow(u32),
    /// Answers each request with this HTTP status.
    Failing(u16),
    /// Resets a connection once it has carried so many bytes in one direction.
    Cutting(usize),
}

/// Where a link leads to.
#[derive(Debug, Clone)]
pub enum Server {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy)]
struct State {
    weather: Weather,
    /// Raised to reset all connections there are.
    cuts: u64,
}

/// A listening link; dropping it ends it with all connections.
pub struct Proxy {
    /// Held while the weather is bad.
    pub turn: Mutex<()>,
    pub addr: SocketAddr,
    state: watch::Sender<State>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Opens a link to whatever `server` names at the time of each connection.
    pub async fn open(server: watch::Receiver<Server>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (state, seen) = watch::channel(State {
            weather: Weather::Clear,
            cuts: 0,
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, server, seen));
        Self {
            turn: Mutex::default(),
            addr,
            state,
            _task: task,
        }
    }

    /// Changes the weather; connections there are go on under the new one.
    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| {
            // An error is only ever the answer to a request of a connection of its own.
            if matches!(weather, Weather::Failing(_)) {
                state.cuts += 1;
            }
            state.weather = weather;
        });
    }

    /// Resets all connections there are.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn accept(
    listener: TcpListener,
    server: watch::Receiver<Server>,
    state: watch::Receiver<State>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    let server = server.borrow().clone();
                    connections.spawn(connection(client, server, state.clone()));
                }
            }
        }
    }
}

/// Carries one connection until both sides have closed it, one breaks it, or the weather does.
async fn connection(mut client: TcpStream, server: Server, mut state: watch::Receiver<State>) {
    let _ = client.set_nodelay(true);
    let before = *state.borrow();
    let carried = async {
        match before.weather {
            Weather::Refusing => return Err(reset()),
            Weather::Failing(status) => return refuse_request(&mut client, status).await,
            _ => {}
        }
        passable(&mut state.clone()).await?;
        match server {
            Server::Tcp(addr) => {
                let server = TcpStream::connect(addr).await?;
                server.set_nodelay(true)?;
                carry(&mut client, server, &state).await
            }
            Server::Unix(path) => carry(&mut client, connect_unix(&path).await?, &state).await,
        }
    };
    let cut = async {
        state
            .clone()
            .wait_for(|now| now.cuts != before.cuts)
            .await
            .is_ok()
    };
    let ended = tokio::select! {
        ended = carried => ended,
        _ = cut => Err(reset()),
    };
    state.mark_unchanged();
    if ended.is_err() {
        // Closed with a reset, as a peer's death or a firewall does it.
        let _ = client.set_zero_linger();
    }
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Waits while there is a partition, and returns the weather after it.
async fn passable(state: &mut watch::Receiver<State>) -> io::Result<Weather> {
    let clear = state
        .wait_for(|now| now.weather != Weather::Partitioned)
        .await;
    clear.map(|now| now.weather).map_err(|_| reset())
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut TcpStream,
    server: S,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = tokio::io::split(server);
    let up = pump(from_client, to_server, state.clone());
    let down = pump(from_server, to_client, state.clone());
    tokio::try_join!(up, down).map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut carried = 0;
    loop {
        let n = from.read(&mut buffer).await?;
        let weather = passable(&mut state).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let mut chunk = &buffer[..n];
        match weather {
            Weather::Slow(delay) => sleep(delay).await,
            Weather::Narrow(rate) => {
                let n = u32::try_from(n).unwrap();
                sleep(Duration::from_secs(1) * n / rate).await;
            }
            Weather::Cutting(after) if carried + n >= after => {
                chunk = &chunk[..after.saturating_sub(carried)];
                to.write_all(chunk).await?;
                return Err(reset());
            }
            Weather::Cutting(_) => carried += n,
            _ => carried = 0,
        }
        to.write_all(chunk).await?;
    }
}

/// Answers one request with an error in S3's form, whatever it asks for.
async fn refuse_request(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; CHUNK];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        match timeout(REQUEST_TIMEOUT, client.read(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => head.extend_from_slice(&buffer[..n]),
            _ => return Err(reset()),
        }
    }
    let code = if status == 503 {
        "SlowDown"
    } else {
        "InternalError"
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>{code}</Code><Message>injected by the test</Message></Error>"
    );
    let body = if head.starts_with(b"HEAD ") {
        ""
    } else {
        &body
    };
    let answer = format!(
        "HTTP/1.1 {status} {code}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    // Closed with unread bytes, the socket would be reset and the answer might never be seen.
    let drained = async {
        while client.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    timeout(REQUEST_TIMEOUT, drained).await.unwrap_or(Ok(()))
}
