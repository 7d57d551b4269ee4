//! A connection that repeats one request: on one machine a client's time would be taken for the
//! server's, so it knows only what it needs, and blocks its thread.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};
use url::Url;

use crate::commands::bench::http::length_if_whole_head;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where to send a request, and what.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    path: String,
    headers: String,
    body: Vec<u8>,
}

/// A connection to a target.
pub(super) struct Connection {
    target: Target,
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Target {
    /// Prepares a POST of `body` to `url`; each of `headers` ends its line.
    pub(super) async fn new(url: &str, headers: &str, body: Vec<u8>) -> anyhow::Result<Self> {
        let (address, path) = place(url).await?;
        Ok(Self {
            address,
            path,
            headers: headers.to_owned(),
            body,
        })
    }

    /// The same request to another server.
    pub(super) async fn at(&self, url: &str) -> anyhow::Result<Self> {
        Self::new(url, &self.headers, self.body.clone()).await
    }

    /// Connects; blocks.
    pub(super) fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let Self {
            address,
            path,
            headers,
            body,
        } = self;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {length}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        Ok(Connection {
            target: self.clone(),
            stream,
            request,
            answer: Vec::with_capacity(4096),
        })
    }
}

async fn place(url: &str) -> anyhow::Result<(SocketAddr, String)> {
    let url = Url::parse(url).with_context(|| format!("{url:?} is no URL"))?;
    ensure!(url.scheme() == "http", "only http is measured, not {url}");
    let host = url.host_str().context("a URL without a host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let mut found = tokio::net::lookup_host((host, port)).await?;
    let address = found.next().with_context(|| format!("{host} is unknown"))?;
    Ok((address, url.path().to_owned()))
}

/// Tells whether a target answers a request with 200.
pub(super) async fn answers(target: Target) -> anyhow::Result<bool> {
    let ask = move || anyhow::Ok(target.connect()?.ask()? == 200);
    tokio::task::spawn_blocking(ask).await?
}

impl Connection {
    /// Sends the request and returns the status of the answer; blocks.
    pub(super) fn ask(&mut self) -> anyhow::Result<u16> {
        self.stream.write_all(&self.request)?;
        self.answer.clear();
        let mut length = None;
        let mut chunk = [0; 16 << 10];
        while length.is_none_or(|n| self.answer.len() < n) {
            let read = self.stream.read(&mut chunk)?;
            ensure!(read > 0, "the server closed the connection");
            self.answer.extend_from_slice(&chunk[..read]);
            if length.is_none() {
                length = length_if_whole_head(&self.answer)?;
            }
        }
        let status = self.answer.get(9..12).unwrap_or_default();
        let status = std::str::from_utf8(status).unwrap_or_default();
        status.parse().context("the status of the answer")
    }

    /// Connects anew, after an error.
    pub(super) fn renew(&mut self) -> anyhow::Result<()> {
        *self = self.target.connect()?;
        Ok(())
    }
}
