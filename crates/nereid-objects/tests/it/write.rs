//! Writing: conditions, parts, checksums, and nothing left behind.

use std::time::Duration;

use bytes::Bytes;
use nereid_objects::{Expected, ObjectError, PutOptions};

use crate::{Store, connect, pattern, serve};

const MANY: usize = 20 << 20;

#[tokio::test]
async fn a_large_file_travels_in_parts() {
    let store = Store::start().await;
    let content = pattern(MANY);
    let source = store.dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let uri = store.uri("models/weights.safetensors");
    let options = PutOptions::create_only();
    let stored = store
        .objects
        .upload_file(&uri, &source, &options)
        .await
        .unwrap();
    assert_eq!(stored.bytes, u64::try_from(MANY).unwrap());
    assert!(stored.etag.ends_with("-3"), "{}", stored.etag);
    assert_eq!(store.unfinished(), 0);

    let expected = Expected {
        bytes: Some(stored.bytes),
        sha256: Some(stored.sha256.clone()),
        etag: Some(stored.etag.clone()),
    };
    let copy = store.dir.path().join("copy");
    assert_eq!(
        store
            .objects
            .download(&uri, &copy, &expected)
            .await
            .unwrap(),
        stored
    );
    assert!(std::fs::read(copy).unwrap() == content);

    let again = store
        .objects
        .upload_file(&uri, &source, &options)
        .await
        .unwrap_err();
    assert!(
        matches!(again, ObjectError::PreconditionFailed { .. }),
        "{again}"
    );
    assert_eq!(store.unfinished(), 0, "parts are left behind");
}

#[tokio::test]
async fn a_small_file_travels_in_one_piece() {
    let store = Store::start().await;
    let source = store.dir.path().join("source");
    std::fs::write(&source, "content").unwrap();
    let uri = store.uri("small");
    let options = PutOptions {
        content_type: Some("text/csv".to_owned()),
        ..PutOptions::default()
    };
    let stored = store
        .objects
        .upload_file(&uri, &source, &options)
        .await
        .unwrap();
    assert!(!stored.etag.contains('-'), "{}", stored.etag);
    assert_eq!(store.objects.get_bytes(&uri, 10).await.unwrap(), "content");
}

#[tokio::test]
async fn of_concurrent_creators_exactly_one_wins() {
    let store = Store::start().await;
    for round in 0..10 {
        let uri = store.uri(&format!("race/{round}"));
        let options = PutOptions::create_only();
        let create = |name: &'static [u8]| {
            store
                .objects
                .put_bytes(&uri, Bytes::from_static(name), &options)
        };
        let (a, b) = tokio::join!(create(b"a"), create(b"b"));
        let winner = match (&a, &b) {
            (Ok(_), Err(ObjectError::PreconditionFailed { .. })) => "a",
            (Err(ObjectError::PreconditionFailed { .. }), Ok(_)) => "b",
            _ => panic!("{a:?} {b:?}"),
        };
        assert_eq!(store.objects.get_bytes(&uri, 1).await.unwrap(), winner);
    }
}

#[tokio::test]
async fn content_that_is_not_what_it_should_be_is_not_sent() {
    let store = Store::start().await;
    let options = PutOptions {
        sha256: Some("00".repeat(32)),
        ..PutOptions::default()
    };
    let uri = store.uri("x");
    let source = store.dir.path().join("source");
    std::fs::write(&source, pattern(MANY)).unwrap();
    let small = store
        .objects
        .put_bytes(&uri, "x".into(), &options)
        .await
        .unwrap_err();
    let large = store
        .objects
        .upload_file(&uri, &source, &options)
        .await
        .unwrap_err();
    for error in [small, large] {
        assert!(
            matches!(error, ObjectError::ChecksumMismatch { .. }),
            "{error}"
        );
    }
    let error = store.objects.head(&uri).await.unwrap_err();
    assert!(matches!(error, ObjectError::NoSuchKey { .. }), "{error}");
    assert_eq!(store.unfinished(), 0);
}

#[tokio::test]
async fn a_cancelled_upload_leaves_no_parts() {
    let store = Store::start().await;
    let source = store.dir.path().join("source");
    std::fs::write(&source, pattern(2 * MANY)).unwrap();
    let uri = store.uri("cancelled");
    let options = PutOptions::default();
    {
        let upload = store.objects.upload_file(&uri, &source, &options);
        tokio::pin!(upload);
        // Until the server has made the upload's folder.
        while store.unfinished() == 0 {
            tokio::select! {
                done = &mut upload => panic!("too late to cancel: {done:?}"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
    store.objects.close().await;
    assert!(store.objects.head(&uri).await.is_err());
    let Store { server, dir, .. } = store;
    // With the server's last connection every draft is gone too.
    server.shutdown().await;
    for name in [".uploads", ".drafts"] {
        let left: Vec<_> = std::fs::read_dir(dir.path().join("s3").join(name))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn objects_and_etags_survive_a_restart_of_the_server() {
    let store = Store::start().await;
    let stored = store.put("kept", pattern(1_000)).await;
    let uri = store.uri("kept");
    let Store { server, dir, .. } = store;
    server.shutdown().await;

    let server = serve(&dir.path().join("s3")).await;
    let objects = connect(server.endpoint(), "nereid", "secret").await;
    let info = objects.head(&uri).await.unwrap();
    assert_eq!((info.bytes, info.etag), (stored.bytes, stored.etag));
    server.shutdown().await;
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_may_be_deleted_again() {
    let store = Store::start().await;
    let uri = store.uri("deep/er/x");
    store.put("deep/er/x", "x").await;
    store.put("deep", "y").await;
    for _ in 0..2 {
        store.objects.delete(&uri).await.unwrap();
    }
    assert!(matches!(
        store.objects.head(&uri).await,
        Err(ObjectError::NoSuchKey { .. })
    ));
    assert_eq!(
        store
            .objects
            .get_bytes(&store.uri("deep"), 1)
            .await
            .unwrap(),
        "y"
    );
}
