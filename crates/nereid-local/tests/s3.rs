//! The embedded S3's own life; what it stores is tested through the client of `nereid-objects`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nereid_local::{EmbeddedS3, EmbeddedS3Options, LocalError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn options(dir: &tempfile::TempDir) -> EmbeddedS3Options {
    EmbeddedS3Options {
        root: dir.path().join("s3"),
        addr: ([127, 0, 0, 1], 0).into(),
        access_key: "access".to_owned(),
        secret_key: "secret".to_owned(),
        buckets: vec!["nereid".to_owned()],
        durable: true,
    }
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedS3::start(options(&dir)).await.unwrap();
    let second = EmbeddedS3Options {
        addr: first.addr(),
        ..options(&dir)
    };
    let error = EmbeddedS3::start(second).await.unwrap_err();
    assert!(matches!(error, LocalError::PortInUse { addr } if addr == first.addr()));
    assert!(
        error.to_string().contains(&first.addr().to_string()),
        "{error}"
    );
    first.shutdown().await;
}

#[tokio::test]
async fn it_serves_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let open = EmbeddedS3Options {
        addr: ([0, 0, 0, 0], 0).into(),
        ..options(&dir)
    };
    let error = EmbeddedS3::start(open).await.unwrap_err();
    assert!(matches!(error, LocalError::NotLoopback { .. }), "{error}");
}

#[tokio::test]
async fn bad_bucket_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["../x", "UPPER", ".uploads", ""] {
        let bad = EmbeddedS3Options {
            buckets: vec![name.to_owned()],
            ..options(&dir)
        };
        let error = EmbeddedS3::start(bad).await.unwrap_err();
        assert!(matches!(error, LocalError::BadBucketName { .. }), "{error}");
    }
}

#[tokio::test]
async fn requests_without_a_signature_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = EmbeddedS3::start(options(&dir)).await.unwrap();
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let request = "GET /nereid/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn shutdown_frees_the_port_even_with_idle_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = EmbeddedS3::start(options(&dir)).await.unwrap();
    let addr = server.addr();
    let _idle = TcpStream::connect(addr).await.unwrap();
    server.shutdown().await;
    let again = EmbeddedS3Options {
        addr,
        ..options(&dir)
    };
    EmbeddedS3::start(again).await.unwrap().shutdown().await;
}
