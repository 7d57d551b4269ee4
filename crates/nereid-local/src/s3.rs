//! An S3 server on loopback over a folder, for development and tests.
//!
//! `s3s` speaks the protocol (signatures, chunked bodies, XML); the storage is our own, because
//! `s3s-fs` refuses keys longer than about 130 bytes, publishes a body before it has checked it,
//! and checks `If-None-Match` before it receives the body, so that two creators can both win.

mod backend;
mod folder;
mod keys;
mod listing;
mod object;
mod objects;
mod receive;
mod uploads;

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tokio::{
    net::TcpListener,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use self::{backend::Backend, folder::Folder};
use crate::LocalError;

/// Longest wait for requests in progress at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that a lack of file descriptors does not turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How to run an [`EmbeddedS3`].
#[derive(Debug, Clone)]
pub struct EmbeddedS3Options {
    /// Folder of all buckets; created if missing. Only one server may use it.
    pub root: PathBuf,
    /// Loopback address to listen on; port 0 picks a free one.
    pub addr: SocketAddr,
    /// Access key that clients sign with.
    pub access_key: String,
    /// Secret key that clients sign with.
    pub secret_key: String,
    /// Buckets to create if they are missing.
    pub buckets: Vec<String>,
    /// Whether a stored object must survive a crash of the machine; off only in tests.
    pub durable: bool,
}

/// A running S3 server; dropping it cuts its connections.
#[derive(Debug)]
pub struct EmbeddedS3 {
    addr: SocketAddr,
    stopping: CancellationToken,
    server: JoinSet<()>,
}

impl EmbeddedS3 {
    /// Opens the folder and starts to serve it.
    ///
    /// # Errors
    /// If the address is taken or not loopback, a bucket's name is bad, or the folder unusable.
    pub async fn start(options: EmbeddedS3Options) -> Result<Self, LocalError> {
        let asked = options.addr;
        if !asked.ip().is_loopback() {
            return Err(LocalError::NotLoopback { addr: asked });
        }
        let listener = TcpListener::bind(asked).await.map_err(|e| match e.kind() {
            ErrorKind::AddrInUse => LocalError::PortInUse { addr: asked },
            _ => LocalError::io("listen on", asked.to_string())(e),
        })?;
        let addr = listener
            .local_addr()
            .map_err(LocalError::io("listen on", asked.to_string()))?;
        let auth = SimpleAuth::from_single(options.access_key.clone(), options.secret_key.clone());
        let folder = spawn_blocking(move || open(&options))
            .await
            .map_err(|_| LocalError::Interrupted)??;
        let mut builder = S3ServiceBuilder::new(Backend {
            folder: Arc::new(folder),
        });
        builder.set_auth(auth);

        let stopping = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, builder.build(), stopping.clone()));
        tracing::info!(%addr, "the embedded S3 is ready");
        Ok(Self {
            addr,
            stopping,
            server,
        })
    }

    /// Address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// URL for S3 clients; buckets are the first part of the path.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops to accept, lets requests in progress finish for some seconds, then cuts them.
    pub async fn shutdown(mut self) {
        self.stopping.cancel();
        while self.server.join_next().await.is_some() {}
    }
}

fn open(options: &EmbeddedS3Options) -> Result<Folder, LocalError> {
    let root = &options.root;
    let folder = Folder::open(root, options.durable).map_err(LocalError::io("open", root))?;
    for name in &options.buckets {
        if !s3s::path::check_bucket_name(name) {
            return Err(LocalError::BadBucketName { name: name.clone() });
        }
        let path = root.join(name);
        std::fs::create_dir_all(&path).map_err(LocalError::io("create", path))?;
    }
    Ok(folder)
}

async fn serve(listener: TcpListener, service: S3Service, stopping: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the embedded S3 cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for the acknowledgement of the headers.
        let _ = stream.set_nodelay(true);
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the embedded S3 broke");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("the embedded S3 cuts requests that did not finish in time");
    }
    connections.shutdown().await;
}
