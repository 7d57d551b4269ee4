//! A proxy that cuts the connection in the middle of the first answers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Runs until it is dropped.
pub(crate) struct CuttingProxy {
    pub(crate) endpoint: String,
    _tasks: JoinSet<()>,
}

impl CuttingProxy {
    /// Cuts each of the first `cuts` connections once it has answered `after` bytes.
    pub(crate) async fn start(upstream: std::net::SocketAddr, cuts: u32, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicU32::new(cuts));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let is_cut = left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok();
                let budget = if is_cut { after } else { usize::MAX };
                connections.spawn(forward(client, upstream, budget));
            }
        });
        Self {
            endpoint,
            _tasks: tasks,
        }
    }
}

async fn forward(client: TcpStream, upstream: std::net::SocketAddr, mut budget: usize) {
    let server = TcpStream::connect(upstream).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        tokio::io::copy(&mut from_client, &mut to_server)
            .await
            .map(drop)
    };
    let down = async move {
        let mut buffer = vec![0; 16 << 10];
        while budget > 0 {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            let count = count.min(budget);
            budget -= count;
            to_client.write_all(&buffer[..count]).await?;
        }
        std::io::Result::Ok(())
    };
    // Whichever ends first drops, and so closes, both connections.
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}
