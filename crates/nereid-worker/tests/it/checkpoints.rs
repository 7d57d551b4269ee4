//! Checkpoints: what a next attempt goes on from, and what happens if it cannot.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use nereid_core::{
    engine::EngineError,
    ids::JobId,
    jobs::{JobStatus, TerminationReason},
    limits::KEPT_CHECKPOINTS,
};
use serde_json::json;

use crate::{
    engine::{Scripted, pause, point, resumed, short, snapshot},
    support::{World, eventually, train, world},
};

/// What each training was to go on from.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// An engine whose first training takes a snapshot for each of `steps` steps, waits until all are
/// stored, and fails; the later ones do what `later` says about what they are to go on from.
fn failing_after(
    steps: u64,
    later: impl Fn(Option<&str>) -> Result<(), EngineError> + Send + Sync + 'static,
) -> (Scripted, Seen, Arc<AtomicU32>) {
    let (seen, stored) = (Seen::default(), Arc::new(AtomicU32::new(0)));
    let (record, progress) = (Arc::clone(&seen), Arc::clone(&stored));
    let first = AtomicU32::new(0);
    let engine = Scripted::new(move |task, monitor| {
        let from = resumed(task);
        record.lock().unwrap().push(from.clone());
        if first.fetch_add(1, Ordering::SeqCst) > 0 {
            later(from.as_deref())?;
            return short(task, monitor);
        }
        for step in 1..=steps {
            monitor.metrics(point(step));
            monitor.checkpoint(snapshot(task, step, &format!("step {step}")));
            while u64::from(progress.load(Ordering::SeqCst)) < step {
                pause(2);
            }
        }
        Err(EngineError::Diverged {
            step: steps,
            what: "loss".to_owned(),
        })
    });
    (engine, seen, stored)
}

/// Runs a job whose first attempt leaves the checkpoints of `steps` steps.
async fn failed_job(world: &World, steps: u64, stored: &AtomicU32) -> JobId {
    let id = world.submit(&train(&json!({}))).await;
    for step in 1..=steps {
        let end = format!("/{step}");
        eventually("the checkpoint", || async {
            let keys = world.keys("jobs/").await;
            keys.iter().any(|key| key.ends_with(&end)).then_some(())
        })
        .await;
        stored.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(world.finished(id).await.status, JobStatus::Failed);
    id
}

async fn damage(world: &World, step: u64) {
    let keys = world.keys("jobs/").await;
    let end = format!("/{step}");
    let key = keys.into_iter().find(|key| key.ends_with(&end)).unwrap();
    let uri = world.objects.own(key).unwrap();
    world.overwrite(&uri, "stEp 3").await;
}

#[tokio::test]
async fn the_last_checkpoints_are_kept_and_the_next_attempt_goes_on_from_the_newest() {
    let world = world().await;
    let (engine, seen, stored) = failing_after(5, |_| Ok(()));
    let worker = world.worker(&engine).await;
    let id = failed_job(&world, 5, &stored).await;
    eventually("old ones to be deleted", || async {
        (world.keys("jobs/").await.len() == KEPT_CHECKPOINTS).then_some(())
    })
    .await;
    world.retry(id).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!(*seen.lock().unwrap(), [None, Some("step 5".to_owned())]);
    worker.leave().await;
    // A job that succeeded never runs again.
    assert_eq!(world.keys("jobs/").await, Vec::<String>::new());
    let scratch = std::fs::read_dir(world.disk.path().join("worker/scratch"));
    assert_eq!(scratch.unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let world = world().await;
    let (engine, seen, stored) = failing_after(3, |_| Ok(()));
    let worker = world.worker(&engine).await;
    let id = failed_job(&world, 3, &stored).await;
    damage(&world, 3).await;
    world.retry(id).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!(*seen.lock().unwrap(), [None, Some("step 2".to_owned())]);
    let log = world.log(id).await;
    let warned = |line: &String| line.contains("checkpoint of step 3 is damaged");
    assert!(log.iter().any(warned), "{log:?}");
    worker.leave().await;
}

#[tokio::test]
async fn what_the_engine_cannot_restore_costs_a_fresh_start_and_no_more() {
    let world = world().await;
    let (engine, seen, stored) = failing_after(2, |from| match from {
        Some(_) => Err(EngineError::BadState("of another version".to_owned())),
        None => Ok(()),
    });
    let worker = world.worker(&engine).await;
    let id = failed_job(&world, 2, &stored).await;
    world.retry(id).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let state = |step: u64| Some(format!("step {step}"));
    assert_eq!(*seen.lock().unwrap(), [None, state(2), state(1), None]);
    // All within the one attempt.
    assert_eq!(job.attempts, 1);
    let log = world.log(id).await;
    let warned = |line: &String| line.contains("starts over");
    assert!(log.iter().any(warned), "{log:?}");
    worker.leave().await;
}

#[tokio::test]
async fn storage_that_is_away_is_no_reason_to_go_back() {
    let world = world().await;
    let (engine, seen, stored) = failing_after(1, |_| Ok(()));
    let mut config = world.config();
    config.storage_patience = std::time::Duration::from_millis(10);
    let (worker, s3) = world.worker_behind_s3_gate(config, &engine).await;
    let id = failed_job(&world, 1, &stored).await;
    s3.shut();
    world.retry(id).await;
    s3.stopped(1).await;
    let log = eventually("the attempt to fail", || async {
        let log = world.log(id).await;
        let failed = |line: &String| line.contains("unavailable");
        log.iter().any(failed).then_some(log)
    })
    .await;
    assert!(!log.iter().any(|line| line.contains("damaged")), "{log:?}");
    s3.open();
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert_eq!(job.termination_reason, Some(TerminationReason::Completed));
    assert_eq!(*seen.lock().unwrap(), [None, Some("step 1".to_owned())]);
    worker.leave().await;
}

#[tokio::test]
async fn no_checkpoint_is_noted_before_the_metrics_that_led_to_it() {
    let world = world().await;
    let (engine, _, stored) = failing_after(1, |_| Ok(()));
    let worker = world.worker(&engine).await;
    // Metrics find no room, and are tried again; what is drawn from a sequence stays drawn.
    world
        .sql(
            "CREATE SEQUENCE refused;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('refused');
                 RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full';
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON job_metrics
                 FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        )
        .await;
    let refused = async || world.count("SELECT last_value FROM refused").await;
    let id = world.submit(&train(&json!({}))).await;
    eventually("the checkpoint", || async {
        (world.keys("jobs/").await.len() == 1).then_some(())
    })
    .await;
    let before = refused().await;
    eventually("more tries", || async {
        (refused().await > before + 1).then_some(())
    })
    .await;
    // Who went on from there would report only what comes later.
    let noted = "SELECT count(*) FROM job_events WHERE kind = 'checkpointed'";
    assert_eq!(world.count(noted).await, 0);
    world.sql("DROP TRIGGER refuse ON job_metrics").await;
    eventually("the pointer to it", || async {
        (world.count(noted).await == 1).then_some(())
    })
    .await;
    assert_eq!(world.steps(id).await, [1]);
    stored.fetch_add(1, Ordering::SeqCst);
    assert_eq!(world.finished(id).await.status, JobStatus::Failed);
    worker.leave().await;
}
