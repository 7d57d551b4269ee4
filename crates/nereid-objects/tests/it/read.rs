//! Reading whole, in part, by blocking threads, and across cut connections.

use std::io::Read;

use futures::TryStreamExt;
use nereid_objects::{Expected, ObjectError};
use tokio::io::AsyncReadExt;

use crate::{Store, connect, pattern, proxy::CuttingProxy};

#[tokio::test]
async fn what_was_put_is_got() {
    let store = Store::start().await;
    for (key, content) in [
        ("empty", vec![]),
        ("small.bin", pattern(1_000)),
        ("a b/ü+?&=#%/x~", pattern(100_000)),
        ("../up/./x", pattern(3)),
    ] {
        let stored = store.put(key, content.clone()).await;
        let uri = store.uri(key);
        let info = store.objects.head(&uri).await.unwrap();
        assert_eq!((info.bytes, info.etag), (stored.bytes, stored.etag));
        assert!(info.last_modified.is_some());
        assert_eq!(
            store.objects.get_bytes(&uri, 1 << 20).await.unwrap(),
            content
        );
    }
}

#[tokio::test]
async fn keys_as_long_as_nereids_own_work() {
    let store = Store::start().await;
    let id = "0190d7a2-7a3c-7c3e-9a51-1f0c2b1f4a6e";
    let name = "n".repeat(63);
    let key = format!("projects/{id}/models/{name}/staging/{id}/12-{id}/weights.safetensors");
    store.put(&key, "x").await;
    assert_eq!(
        store.objects.get_bytes(&store.uri(&key), 1).await.unwrap(),
        "x"
    );
}

#[tokio::test]
async fn an_object_is_read_only_while_it_is_the_same() {
    let store = Store::start().await;
    let uri = store.uri("data.csv");
    let first = store.put("data.csv", "one").await;
    let quoted = format!("\"{}\"", first.etag);
    for etag in [first.etag.as_str(), quoted.as_str()] {
        store.objects.get_stream(&uri, Some(etag)).await.unwrap();
    }
    store.put("data.csv", "two").await;
    let error = store
        .objects
        .get_stream(&uri, Some(&first.etag))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ObjectError::PreconditionFailed { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_large_object_is_not_read_into_memory() {
    let store = Store::start().await;
    store.put("large", pattern(1_001)).await;
    let error = store
        .objects
        .get_bytes(&store.uri("large"), 1_000)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ObjectError::TooLarge {
                bytes: 1_001,
                max_bytes: 1_000,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_download_appears_only_when_it_is_what_was_expected() {
    let store = Store::start().await;
    let content = pattern(3_000_000);
    let stored = store.put("file", content.clone()).await;
    let uri = store.uri("file");
    let folder = store.dir.path().join("downloads");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("file");

    let wrong = [
        Expected {
            sha256: Some("00".repeat(32)),
            ..Expected::default()
        },
        Expected {
            bytes: Some(1),
            ..Expected::default()
        },
    ];
    for expected in wrong {
        let error = store
            .objects
            .download(&uri, &path, &expected)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ObjectError::ChecksumMismatch { .. }),
            "{error}"
        );
    }
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "something is left behind"
    );

    let right = Expected {
        bytes: Some(stored.bytes),
        sha256: Some(stored.sha256.to_uppercase()),
        etag: Some(stored.etag.clone()),
    };
    let got = store.objects.download(&uri, &path, &right).await.unwrap();
    assert_eq!(got, stored);
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[tokio::test]
async fn lists_go_over_all_pages_in_order() {
    let store = Store::start().await;
    for i in 0..1_005 {
        let folder = store.dir.path().join("s3/nereid/many");
        if i == 0 {
            store.put("many/0000", "x").await;
        } else {
            // As the server keeps it; a thousand requests would take their time.
            std::fs::copy(folder.join("0000~"), folder.join(format!("{i:04}~"))).unwrap();
        }
    }
    store.put("other", "x").await;
    let list = store.objects.list("nereid", "many/");
    let found: Vec<_> = list.try_collect().await.unwrap();
    assert_eq!(found.len(), 1_005);
    assert!(found.is_sorted_by(|a, b| a.uri < b.uri));
    assert_eq!(found[7].uri, store.uri("many/0007"));
    assert_eq!(found[7].info.bytes, 1);

    assert_eq!(
        store
            .objects
            .delete_prefix(&store.uri("many/"))
            .await
            .unwrap(),
        1_005
    );
    let left: Vec<_> = store
        .objects
        .list("nereid", "")
        .try_collect()
        .await
        .unwrap();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn a_cut_stream_goes_on_where_it_broke() {
    let store = Store::start().await;
    let content = pattern(2_000_000);
    store.put("long", content.clone()).await;
    let proxy = CuttingProxy::start(store.server.addr(), 3, 300_000).await;
    let objects = connect(proxy.endpoint.clone(), "nereid", "secret").await;

    let mut reader = objects.get_stream(&store.uri("long"), None).await.unwrap();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).await.unwrap();
    assert!(got == content, "the resumed stream has other bytes");
}

#[tokio::test]
async fn a_cut_stream_of_a_replaced_object_fails() {
    let store = Store::start().await;
    store.put("long", pattern(8_000_000)).await;
    let proxy = CuttingProxy::start(store.server.addr(), 1, 300_000).await;
    let objects = connect(proxy.endpoint.clone(), "nereid", "secret").await;
    let uri = store.uri("long");

    let mut reader = objects.get_stream(&uri, None).await.unwrap();
    store.put("long", "another").await;
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    let error = ObjectError::from_io(error, &uri);
    assert!(
        matches!(error, ObjectError::PreconditionFailed { .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_thread_reads_across_cuts_too() {
    let store = Store::start().await;
    let content = pattern(1_000_000);
    let stored = store.put("long", content.clone()).await;
    let proxy = CuttingProxy::start(store.server.addr(), 2, 200_000).await;
    let objects = connect(proxy.endpoint.clone(), "nereid", "secret").await;
    let uri = store.uri("long");
    let runtime = tokio::runtime::Handle::current();
    let got = tokio::task::spawn_blocking(move || {
        let mut reader = objects
            .open_blocking(&uri, Some(&stored.etag), runtime)
            .unwrap();
        assert_eq!(reader.info().bytes, stored.bytes);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    })
    .await
    .unwrap();
    assert!(got == content, "the resumed stream has other bytes");
}
