//! Errors say which object, what is wrong, and whether to try again.

use std::time::{Duration, Instant};

use nereid_objects::{ObjectError, PutOptions, S3Uri};

use crate::{Store, connect};

#[tokio::test]
async fn missing_things_are_named() {
    let store = Store::start().await;
    let uri = store.uri("missing");
    let error = store.objects.get_bytes(&uri, 1).await.unwrap_err();
    assert!(matches!(error, ObjectError::NoSuchKey { .. }), "{error}");
    assert!(error.to_string().contains("s3://nereid/missing"), "{error}");

    let elsewhere: S3Uri = "s3://no-such-bucket/x".parse().unwrap();
    let got = store.objects.get_bytes(&elsewhere, 1).await.unwrap_err();
    let put = store
        .objects
        .put_bytes(&elsewhere, "x".into(), &PutOptions::default())
        .await
        .unwrap_err();
    for error in [got, put] {
        assert!(matches!(error, ObjectError::NoSuchBucket { .. }), "{error}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn wrong_credentials_are_recognised() {
    let store = Store::start().await;
    let objects = connect(store.server.endpoint(), "nereid", "wrong").await;
    let error = objects.get_bytes(&store.uri("x"), 1).await.unwrap_err();
    assert!(
        matches!(error, ObjectError::InvalidCredentials { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let store = Store::start().await;
    let uri = store.uri("x");
    store.server.shutdown().await;
    let began = Instant::now();
    let error = store.objects.get_bytes(&uri, 1).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(began.elapsed() < Duration::from_mins(1));
}

#[tokio::test]
async fn a_missing_bucket_is_created_once_by_any_number() {
    let store = Store::start().await;
    let objects = connect(store.server.endpoint(), "another", "secret").await;
    let (a, b) = tokio::join!(objects.ensure_bucket(), objects.ensure_bucket());
    a.unwrap();
    b.unwrap();
    objects.ensure_bucket().await.unwrap();
    let uri = objects.own("x").unwrap();
    objects
        .put_bytes(&uri, "x".into(), &PutOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn credentials_are_not_shown() {
    let config = nereid_objects::ObjectStoreConfig {
        credentials: Some(("access".to_owned(), "secret".to_owned())),
        ..nereid_objects::ObjectStoreConfig::new("nereid", None)
    };
    let shown = format!("{config:?}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(!config.path_style);
}
