//! A training dies, its worker does not; a worker dies, and its training with it.

use std::time::{Duration, Instant};

use futures::StreamExt;
use nereid_client::Client;
use nereid_core::{
    events::EventKind,
    ids::JobId,
    jobs::{JobStatus, TerminationReason},
};
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

/// A server with one slot and settings of its own.
fn server(settings: &[(&str, &str)]) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = nereid();
    command.envs(settings.iter().copied());
    let server = Server::launch(command, folder.path(), &["--slots", "1"]).unwrap();
    (folder, server)
}

/// Processes that train for a server.
fn trainers(server: &Server) -> Vec<u32> {
    let parent = format!("PPid:\t{}\n", server.pid());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|&id: &u32| {
        let read = |file| std::fs::read_to_string(format!("/proc/{id}/{file}"));
        let is_trainer = read("cmdline").is_ok_and(|line| line.contains("\0trainer\0"));
        is_trainer && read("status").is_ok_and(|status| status.contains(&parent))
    })
    .collect()
}

fn is_alive(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|s| !s.contains("State:\tZ"))
}

/// Starts a training and waits for its first checkpoint.
async fn checkpointed(client: &Client, epochs: u32) -> JobId {
    add_digits(client, "digits").await;
    let mut job = tiny_job("digits", "digits", epochs);
    job["spec"]["callbacks"] = json!([{"type": "checkpoint", "every_steps": 200}]);
    let id = client.submit_job(&job).await.unwrap().id;
    let mut events = client.job_events(id, 0).await.unwrap();
    let checkpoint =
        async { while events.next().await.unwrap().unwrap().kind != EventKind::Checkpointed {} };
    tokio::time::timeout(PATIENCE, checkpoint).await.unwrap();
    id
}

#[tokio::test]
async fn a_training_whose_process_dies_goes_on_from_its_checkpoint_on_the_same_worker() {
    let (_folder, server) = server(&[]);
    let client = server.client();
    let id = checkpointed(&client, 400).await;
    let [trainer] = trainers(&server)[..] else {
        panic!("{:?}", trainers(&server))
    };
    let environment = std::fs::read_to_string(format!("/proc/{trainer}/environ")).unwrap();
    assert!(!environment.contains("NEREID"), "{environment}");
    // An end that a supervisor wants for all processes of a service is the worker's business.
    signal_process(trainer, "TERM");
    signal_process(trainer, "ABRT");
    let job = finish(&client, id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    let attempts = client.job_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0].reason, Some(TerminationReason::Crashed));
    let message = attempts[0].message.as_deref().unwrap();
    assert!(message.contains("SIGABRT"), "{message}");
    assert_eq!(attempts[0].worker_id, attempts[1].worker_id);
    let logs = client.job_logs(id, 100_000).await.unwrap();
    assert!(
        logs.iter()
            .any(|l| l.epoch == 2 && l.message.contains("resumed"))
    );
    assert_eq!(client.model_versions("digits", 10).await.unwrap().len(), 1);
    assert!(!is_alive(trainer));
}

#[tokio::test]
async fn a_training_that_needs_too_much_memory_fails_and_the_next_job_runs() {
    let (_folder, server) = server(&[("NEREID__WORKER__MEMORY_LIMIT", "256MiB")]);
    let client = server.client();
    add_digits(&client, "digits").await;
    let mut job = tiny_job("digits", "digits", 3);
    job["spec"]["network"]["layers"] = json!([
        {"type": "Flatten"},
        {"type": "Dense", "units": 8192},
        {"type": "Dense", "units": 8192},
        {"type": "Dense", "units": 10},
    ]);
    let large = client.submit_job(&job).await.unwrap().id;
    let large = client.watch_job(large, |_| {}).await.unwrap();
    assert_eq!(
        large.termination_reason,
        Some(TerminationReason::OutOfMemory),
        "{:?}",
        large.error
    );
    let error = large.error.unwrap().message;
    assert!(error.contains("256 MiB"), "{error}");
    assert_eq!(
        client.job_attempts(large.id).await.unwrap().len(),
        1,
        "no retry mends it"
    );
    succeed(&client, &tiny_job("digits", "digits", 1)).await;
}

#[tokio::test]
async fn a_killed_worker_takes_its_trainings_with_it() {
    let (_folder, mut server) = server(&[]);
    checkpointed(&server.client(), 20_000).await;
    let trainers = trainers(&server);
    assert_eq!(trainers.len(), 1);
    server.signal("KILL");
    server.wait();
    let started = Instant::now();
    while trainers.iter().any(|&id| is_alive(id)) {
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "orphans {trainers:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
