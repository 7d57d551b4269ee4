//! Metrics, log lines, and the wake-ups that tell of them.

use std::{collections::BTreeMap, time::Duration};

use chrono::DateTime;
use nereid_core::{
    events::{LogLevel, MetricPoint, NewLogLine},
    jobs::TerminationReason,
};
use nereid_store::{PageRequest, StoreError, notify::Wake};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{db, ended, train};

fn point(step: u64, loss: f64) -> MetricPoint {
    MetricPoint {
        step,
        epoch: 1.5,
        values: BTreeMap::from([("loss".to_owned(), loss)]),
        at: DateTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_resumed_attempt_repeats_steps_without_duplicating_them() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let first = db.claim_one(worker).await.fence;
    let points: Vec<_> = (0..100).map(|step| point(step, 1.0)).collect();
    db.store.append_metrics(&first, &points).await.unwrap();
    db.store
        .end_attempt(&first, &ended(TerminationReason::Unavailable))
        .await
        .unwrap();
    let second = db.claim_one(worker).await.fence;
    // It goes on from a checkpoint of step 94.
    db.store.rewind_metrics(&second, 94).await.unwrap();
    let refused = db.store.rewind_metrics(&first, 0).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)));
    let left = db.store.job_metrics(db.project, id, 1000).await.unwrap();
    assert_eq!(
        left.len(),
        95,
        "nothing beyond what the training goes on from"
    );
    let mut repeated: Vec<_> = (90..110).map(|step| point(step, 2.0)).collect();
    let val_loss = BTreeMap::from([("val_loss".to_owned(), 3.0)]);
    repeated.push(MetricPoint {
        values: val_loss,
        ..point(109, 0.0)
    });
    db.store.append_metrics(&second, &repeated).await.unwrap();

    let all = db.store.job_metrics(db.project, id, 1000).await.unwrap();
    let steps: Vec<u64> = all.iter().map(|p| p.step).collect();
    assert_eq!(steps, (0..110).collect::<Vec<_>>());
    assert_eq!((all[89].values["loss"], all[90].values["loss"]), (1.0, 2.0));
    assert_eq!(
        all[109].values.len(),
        2,
        "the same step's epoch metrics join its own"
    );
    for (limit, expected) in [(1, vec![109]), (2, vec![0, 109]), (4, vec![0, 36, 72, 109])] {
        let thinned = db.store.job_metrics(db.project, id, limit).await.unwrap();
        assert_eq!(thinned.iter().map(|p| p.step).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn log_lines_are_numbered_across_attempts_and_filtered_by_level() {
    let db = db().await;
    let id = db.submit(&train("m", json!({}))).await;
    let worker = db.worker().await;
    let line = |level, message: &str| NewLogLine {
        level,
        message: message.to_owned(),
        at: DateTime::UNIX_EPOCH,
    };
    let lines = [line(LogLevel::Debug, "a\0b"), line(LogLevel::Error, "c")];
    for _ in 0..2 {
        let fence = db.claim_one(worker).await.fence;
        db.store.append_logs(&fence, &lines).await.unwrap();
        db.store
            .end_attempt(&fence, &ended(TerminationReason::Unavailable))
            .await
            .unwrap();
    }
    let page = PageRequest {
        size: 3,
        after: None,
    };
    let logs = db
        .store
        .job_logs(db.project, id, None, &page)
        .await
        .unwrap();
    let seen: Vec<_> = logs
        .items
        .iter()
        .map(|l| (l.seq, l.epoch, l.message.as_str()))
        .collect();
    assert_eq!(
        seen,
        [(1, 1, "a\u{fffd}b"), (2, 1, "c"), (3, 2, "a\u{fffd}b")]
    );
    let rest = PageRequest {
        size: 3,
        after: logs.next,
    };
    let warnings = db
        .store
        .job_logs(db.project, id, Some(LogLevel::Warn), &rest)
        .await
        .unwrap();
    assert_eq!(
        warnings.items.iter().map(|l| l.seq).collect::<Vec<_>>(),
        [4]
    );
    assert_eq!(warnings.next, None);
}

#[tokio::test]
async fn changes_wake_other_processes_after_their_commit_and_again_after_a_lost_connection() {
    let db = db().await;
    let other = db.second().await;
    let shutdown = CancellationToken::new();
    let (_, sender) = db.store.listen(shutdown.clone());
    let (wakeups, receiver) = other.listen(shutdown.clone());
    let mut wakes = wakeups.subscribe();
    let test = async {
        let mut next = async || {
            timeout(Duration::from_secs(10), wakes.recv())
                .await
                .unwrap()
                .unwrap()
        };
        assert_eq!(
            next().await,
            Wake::Resync,
            "connected: look at everything once"
        );

        let mut tx = db.write().await;
        tx.submit_job(&train("m", json!({}))).await.unwrap();
        drop(tx);
        let id = db.submit(&train("m", json!({}))).await;
        let woken = [next().await, next().await];
        assert!(
            woken.contains(&Wake::Queue) && woken.contains(&Wake::Job(id)),
            "{woken:?}"
        );

        db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            .await;
        assert_eq!(next().await, Wake::Resync);
        db.stop(id).await.unwrap();
        assert_eq!(next().await, Wake::Job(id));
        shutdown.cancel();
    };
    tokio::join!(test, sender, receiver);
}
