//! Attempts that lost their lease: they stop, and nothing they still do has any effect.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nereid_core::jobs::{Directive, JobPhase, JobStatus};
use serde_json::json;

use crate::{
    engine::{Scripted, pause, point, short, until_told, write_model},
    support::{eventually, train, world},
};

/// What a training was told.
type Told = Arc<Mutex<Option<Directive>>>;

/// An engine whose training finishes all the same once it is told to stop.
fn disobedient() -> (Scripted, Told) {
    let told = Told::default();
    let heard = Arc::clone(&told);
    let engine = Scripted::new(move |task, monitor| {
        let directive = until_told(task, monitor);
        *heard.lock().unwrap() = Some(directive);
        Ok(write_model(task.output))
    });
    (engine, told)
}

async fn heard(told: &Told) -> Directive {
    eventually("the training to be told", || async {
        *told.lock().unwrap()
    })
    .await
}

#[tokio::test]
async fn a_training_that_lost_its_lease_stops_and_leaves_nothing() {
    let world = world().await;
    let (engine, told) = disobedient();
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    // Somebody else has claimed the job.
    world
        .sql("UPDATE job_leases SET epoch = epoch + 1, claim_id = gen_random_uuid(), expires_at = now() + interval '1 hour'")
        .await;
    assert_eq!(heard(&told).await, Directive::Stop);
    worker.leave().await;
    assert_eq!(world.job(id).await.status, JobStatus::Running);
    assert_eq!(world.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_cannot_renew_its_lease_stops_by_itself() {
    let world = world().await;
    let (engine, told) = disobedient();
    let mut config = world.config();
    config.lease = Duration::from_secs(2);
    let worker = world.worker_with(config, &engine).await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    // Postgres is there, but answers no heartbeat.
    let blocked = world.block("job_leases").await;
    assert_eq!(heard(&told).await, Directive::Stop);
    drop(blocked);
    worker.leave().await;
    assert_eq!(world.keys("").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_zombie_is_stopped_and_its_writes_are_refused() {
    let world = world().await;
    let told = Told::default();
    let (heard_it, taken_over) = (Arc::clone(&told), Arc::new(AtomicBool::new(false)));
    let (first, over) = (AtomicBool::new(true), Arc::clone(&taken_over));
    let zombie = Scripted::new(move |task, monitor| {
        if !first.swap(false, Ordering::SeqCst) {
            return short(task, monitor);
        }
        *heard_it.lock().unwrap() = Some(until_told(task, monitor));
        while !over.load(Ordering::SeqCst) {
            pause(5);
        }
        // Deaf to what it was told, it goes on.
        monitor.phase(JobPhase::Evaluating);
        monitor.metrics(point(99));
        Ok(write_model(task.output))
    });
    let mut config = world.config();
    config.lease = Duration::from_secs(3);
    let (stuck, postgres) = world
        .worker_behind_postgres_gate(config.clone(), &zombie)
        .await;
    let id = world.submit(&train(&json!({}))).await;
    world.training(id).await;
    // Its connections stay, but nothing comes through any more.
    postgres.hold();
    assert_eq!(heard(&told).await, Directive::Stop);
    config.id = nereid_core::ids::WorkerId::generate();
    let next = world
        .worker_with(config.clone(), &Scripted::new(short))
        .await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    // Nothing is wrong with a job whose worker was lost.
    assert_eq!((job.attempts, job.lease_losses), (1, 1));
    let files = world.keys("models/").await;
    next.leave().await;

    postgres.open();
    taken_over.store(true, Ordering::SeqCst);
    // It lives, and takes the next job.
    let other = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(other).await.status, JobStatus::Succeeded);
    stuck.leave().await;
    assert_eq!(world.steps(id).await, [1, 2, 3]);
    assert_eq!(world.job(id).await.result, job.result);
    let ours = format!("/{id}/");
    let left: Vec<_> = world.keys("models/").await;
    let left: Vec<_> = left.into_iter().filter(|key| key.contains(&ours)).collect();
    assert_eq!(left, files);
}
