//! Connections that are cut, and connections that fall silent.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io,
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::support::{LEASE, claim_request, connect, db, noop};

/// Hands connections on to Postgres, until they are told to fall silent.
async fn forward(listener: UnixListener, server: &Path, silence: Arc<Notify>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = UnixStream::connect(server).await.unwrap();
        let silence = Arc::clone(&silence);
        connections.spawn(async move {
            let silent = silence.notified();
            tokio::select! {
                _ = io::copy_bidirectional(&mut client, &mut server) => {}
                () = silent => std::future::pending().await,
            }
        });
    }
}

#[tokio::test]
async fn connections_that_were_cut_are_replaced() {
    let db = db().await;
    let worker = db.worker().await;
    for _ in 0..3 {
        let id = db.submit(&noop(json!({}))).await;
        db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
            .await;
        assert_eq!(db.job(id).await.id, id, "tried before they are used");
        // What must be quick tries none, and is repeated anyway.
        let request = claim_request(worker, 1, LEASE);
        db.until(|| async {
            match db.store.claim(&request).await {
                Ok(claims) => claims.len() == 1,
                Err(e) => {
                    assert!(e.is_unavailable(), "{e}");
                    false
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn nobody_waits_for_ever_on_a_connection_that_fell_silent() {
    let db = db().await;
    let worker = db.worker().await;
    let server = nereid_local::ManagedPostgres::ephemeral().await.unwrap();
    let sockets = std::fs::read_dir(server.socket_dir()).unwrap();
    let socket = sockets
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|file| {
            file.starts_with(".s.PGSQL.") && Path::new(file).extension() != Some("lock".as_ref())
        })
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(&socket)).unwrap();
    let silence = Arc::new(Notify::new());
    let real = server.socket_dir().join(&socket);
    let forwarder = forward(listener, &real, Arc::clone(&silence));

    let url = db.url.replace(
        server.socket_dir().to_str().unwrap(),
        folder.path().to_str().unwrap(),
    );
    assert_ne!(url, db.url, "the socket's folder is in the URL");
    let test = async {
        let store = connect(&url).await;
        let shutdown = CancellationToken::new();
        let (wakeups, listening) = store.listen(shutdown.clone());
        let mut wakes = wakeups.subscribe();
        let lease = Duration::from_secs(4);
        let silent = async {
            wakes.recv().await.unwrap();
            let id = db.submit(&noop(json!({}))).await;
            let fence = db.claim_one(worker).await.fence;
            store.heartbeat(worker, lease, &[]).await.unwrap();
            silence.notify_waiters();

            let started = Instant::now();
            let beat = nereid_store::queue::Beat {
                fence,
                phase: None,
                progress: None,
            };
            // The first may fail; but by then there must be another connection.
            let beats = [beat];
            if let Err(e) = store.heartbeat(worker, lease, &beats).await {
                assert!(e.is_unavailable(), "{e}");
            }
            store.heartbeat(worker, 2 * lease, &beats).await.unwrap();
            assert!(started.elapsed() < 2 * lease, "{:?}", started.elapsed());
            assert_eq!(store.job(db.project, id).await.unwrap().id, id);
            // The one that listens notices, too.
            let resync = wakes.recv().await.unwrap();
            assert_eq!(resync, nereid_store::notify::Wake::Resync);
            shutdown.cancel();
        };
        tokio::join!(silent, listening);
    };
    tokio::select! {
        done = tokio::time::timeout(Duration::from_mins(1), test) => done.unwrap(),
        () = forwarder => {}
    }
}
