//! Datasets, models, keys, workers, the schema itself.

use nereid_core::{
    datasets::PreviewRow,
    endpoints::{EndpointStatus, ReplicaStatus},
    events::{EventKind, LogLevel},
    jobs::{JobKind, JobPhase, JobRequest, JobStatus, TerminationReason},
    keys::Role,
    models::{AliasAction, ApprovalStatus, Edit},
    workers::{DeviceKind, WorkerStatus},
};
use nereid_store::PageRequest;
use serde_json::json;

use crate::support::{code, db, name, train};

#[tokio::test]
async fn dataset_versions_are_immutable_deduplicated_and_kept_while_read() {
    let db = db().await;
    assert_eq!(
        db.dataset("digits", "d1").await,
        1,
        "the same bytes are the same version"
    );
    assert_eq!(db.dataset("digits", "d2").await, 2);
    let (project, digits) = (db.project, name("digits"));
    assert_eq!(
        db.store
            .dataset(project, &digits)
            .await
            .unwrap()
            .latest
            .version,
        2
    );
    let preview = db
        .store
        .dataset_preview(project, &digits, Some(1))
        .await
        .unwrap();
    assert_eq!(
        preview,
        [PreviewRow {
            features: vec![0.5, 1e-300],
            cells: Vec::new(),
            target: None
        }]
    );

    let job = db.submit(&train("m", json!({}))).await;
    let read = db.store.delete_dataset(project, &digits).await.unwrap_err();
    assert_eq!(code(&read), "in_use");
    let trained = db.store.model(project, &name("m")).await.unwrap_err();
    assert_eq!(code(&trained), "not_found");
    db.stop(job).await.unwrap();
    db.store.delete_dataset(project, &digits).await.unwrap();
    assert_eq!(
        code(&db.store.dataset(project, &digits).await.unwrap_err()),
        "not_found"
    );
    assert_eq!(
        db.dataset("digits", "d1").await,
        3,
        "digits@1 never means two things"
    );

    let one = PageRequest {
        size: 1,
        after: None,
    };
    db.dataset("a", "d").await;
    let first = db.store.datasets(project, &one).await.unwrap();
    assert_eq!(
        (first.items[0].name.as_str(), first.next.as_deref()),
        ("a", Some("a"))
    );
    let rest = PageRequest {
        size: 1,
        after: first.next,
    };
    let rest = db.store.datasets(project, &rest).await.unwrap();
    assert_eq!((rest.items[0].name.as_str(), rest.next), ("digits", None));
}

#[tokio::test]
async fn a_deletion_waits_for_the_submission_that_reads_what_it_deletes() {
    let db = db().await;
    let mut tx = db.write().await;
    let job = tx.submit_job(&train("m", json!({}))).await.unwrap();
    let digits = name("digits");
    let (deleted, ()) = tokio::join!(db.store.delete_dataset(db.project, &digits), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tx.commit(201, &job).await.unwrap();
    });
    assert_eq!(code(&deleted.unwrap_err()), "in_use");
}

#[tokio::test]
async fn keys_are_found_by_hash_until_revoked_and_changes_are_audited() {
    let db = db().await;
    assert!(!db.store.has_keys().await.unwrap());
    let mut tx = db.write().await;
    let key = tx
        .create_key(&name("ci"), Role::Admin, "nrd_12345678", &[7; 32])
        .await
        .unwrap();
    tx.commit(201, &key).await.unwrap();
    let mut again = db.write().await;
    let taken = again
        .create_key(&name("ci"), Role::Viewer, "nrd_", &[8; 32])
        .await
        .unwrap_err();
    assert_eq!(code(&taken), "already_exists");
    drop(again);

    let actor = db.store.authenticate(&[7; 32]).await.unwrap().unwrap();
    assert_eq!(
        (actor.project, actor.role, actor.key),
        (db.project, Role::Admin, Some(key.id))
    );
    assert!(db.store.has_keys().await.unwrap());
    let acting = db.store.with_actor(actor.key);
    acting.revoke_key(db.project, key.id).await.unwrap();
    assert_eq!(db.store.authenticate(&[7; 32]).await.unwrap(), None);
    let audited = db.texts("SELECT action || ' ' || (actor IS NOT NULL) FROM audit_log WHERE resource LIKE 'key/%' ORDER BY id");
    assert_eq!(audited.await, ["create false", "revoke true"]);
}

#[tokio::test]
async fn models_keep_tags_and_description() {
    let db = db().await;
    db.trained("m").await;
    let tags = [("stage".to_owned(), "prod".to_owned())].into();
    let tagged = Edit {
        tags: [("stage".to_owned(), Some("prod".to_owned()))].into(),
        ..Edit::default()
    };
    let described = Edit {
        description: Some("reads digits".to_owned()),
        ..Edit::default()
    };
    let (project, m) = (db.project, name("m"));
    let model = db
        .store
        .update_model(project, &m, &described, None)
        .await
        .unwrap();
    assert_eq!(
        (model.description.as_str(), model.tags.len()),
        ("reads digits", 0)
    );
    let version = db
        .store
        .update_model_version(project, &m, 1, &tagged)
        .await
        .unwrap();
    assert_eq!((&version.tags, version.lineage.seed), (&tags, u64::MAX));
    let missing = db
        .store
        .update_model_version(project, &m, 9, &tagged)
        .await
        .unwrap_err();
    assert_eq!(missing.to_string(), "no model version \"m@9\"");
    let job = db.submit(&train("m", json!({}))).await;
    assert_eq!(
        code(&db.store.delete_model(project, &m).await.unwrap_err()),
        "in_use"
    );
    db.stop(job).await.unwrap();
    db.store.delete_model(project, &m).await.unwrap();
    let versions = db
        .store
        .model_versions(project, &m, &PageRequest::default())
        .await;
    assert_eq!(code(&versions.unwrap_err()), "not_found");
}

#[tokio::test]
async fn the_schema_is_checked_and_knows_every_word_of_core() {
    let db = db().await;
    db.store.check_schema().await.unwrap();
    db.store.migrate().await.unwrap();
    assert_eq!(db.store.cluster_secret().await.unwrap().len(), 64);
    let checks = db.texts("SELECT conrelid::regclass || '.' || pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'");
    let checks = checks.await;
    let known = |table: &str, column: &str, words: &[&str]| {
        let start = format!("{table}.CHECK (({column} = ANY");
        let check = checks.iter().find(|c| c.starts_with(&start)).unwrap();
        let listed = check.matches("::text").count() - usize::from(check.contains("::text)"));
        assert!(listed >= words.len(), "{check}");
        assert!(
            words.iter().all(|w| check.contains(&format!("'{w}'"))),
            "{check}"
        );
    };
    macro_rules! words {
        ($table:literal, $column:literal, $words:ty) => {
            let words = <$words>::ALL.iter().map(|w| w.as_str());
            known($table, $column, &words.collect::<Vec<_>>());
        };
    }
    words!("jobs", "status", JobStatus);
    words!("jobs", "kind", JobKind);
    words!("jobs", "phase", JobPhase);
    words!("jobs", "requested", JobRequest);
    words!("job_leases", "requested", JobRequest);
    // A pause ends an attempt, but no job.
    let final_reasons = TerminationReason::ALL
        .iter()
        .filter(|r| r.final_status().is_final());
    let final_reasons: Vec<_> = final_reasons.map(|r| r.as_str()).collect();
    known("jobs", "termination_reason", &final_reasons);
    words!("job_attempts", "reason", TerminationReason);
    words!("job_leases", "kind", JobKind);
    words!("jobs", "device", DeviceKind);
    words!("job_leases", "device", DeviceKind);
    words!("workers", "device", DeviceKind);
    words!("job_events", "kind", EventKind);
    words!("job_logs", "level", LogLevel);
    words!("api_keys", "role", Role);
    words!("workers", "status", WorkerStatus);
    words!("endpoints", "status", EndpointStatus);
    words!("replicas", "status", ReplicaStatus);
    words!("model_versions", "approval_status", ApprovalStatus);
    words!("model_alias_changes", "action", AliasAction);

    let uncommented = db.texts(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
         AND relnamespace = 'public'::regnamespace AND relname <> '_sqlx_migrations'
         AND obj_description(oid) IS NULL",
    );
    assert_eq!(uncommented.await, Vec::<String>::new());
}
