//! `nereid dev` as a process: starts, restarts, refusals, signals, and death.

use std::{path::Path, process::Command, time::Duration};

use nereid_core::{events::EventKind, jobs::TerminationReason};

use crate::support::*;

/// Processes of the managed Postgres on a data folder.
fn postgres_of(data_dir: &Path) -> Vec<String> {
    let output = Command::new("ps")
        .args(["-eo", "pid,args"])
        .output()
        .unwrap();
    let needle = data_dir.to_str().unwrap().to_owned();
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_postgres = |l: &&str| l.contains("postgres") && l.contains(&needle);
    lines
        .lines()
        .filter(is_postgres)
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn data_survives_a_restart_and_the_demo_goes_on_with_the_next_version() {
    let folder = tempfile::tempdir().unwrap();
    let demo = || {
        let output = nereid()
            .args([
                "demo",
                "--exit-when-done",
                "--port",
                "0",
                "--s3-port",
                "0",
                "--data-dir",
            ])
            .arg(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let first = demo();
    assert!(
        first.contains("digits version 1: test accuracy 0.9"),
        "{first}"
    );
    let accuracy = first.split("test accuracy ").nth(1).unwrap()[..6]
        .parse::<f64>()
        .unwrap();
    assert!(accuracy >= 0.97, "{first}");
    assert!(first.contains("██"), "the image as text: {first}");
    assert!(demo().contains("digits version 2: test accuracy 0.9"));

    let server = Server::start_in(folder.path(), &[]);
    let versions = server.client().model_versions("digits", 10).await.unwrap();
    assert_eq!(
        versions.iter().map(|v| v.version).collect::<Vec<_>>(),
        [2, 1]
    );
    // The endpoint serves again without anybody doing anything.
    let preview = server.client().dataset_preview("digits", 1).await.unwrap();
    let row = serde_json::json!(preview[0].features);
    let answered = tokio::time::timeout(PATIENCE, async {
        loop {
            match server
                .client()
                .predict("digits", std::slice::from_ref(&row))
                .await
            {
                Ok(answer) => return answer,
                Err(e) => assert_eq!(e.problem().unwrap().status, 503, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(answered.await.unwrap().version, 2);
}

#[test]
fn a_second_instance_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start_in(folder.path(), &[]);
    let refusal = Server::try_start_in(folder.path(), &[])
        .err()
        .expect("a refusal");
    assert!(refusal.contains("in use"), "{refusal}");
    assert!(refusal.contains(&first.pid().to_string()), "{refusal}");
}

#[test]
fn a_busy_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--s3-port"] {
        let folder = tempfile::tempdir().unwrap();
        let other = if flag == "--port" {
            "--s3-port"
        } else {
            "--port"
        };
        let output = nereid()
            .args(["dev", flag, &port, other, "0", "--data-dir"])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(&format!("127.0.0.1:{port}")),
            "{flag}: {message}"
        );
    }
}

#[test]
fn interrupt_and_terminate_end_everything_within_ten_seconds() {
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start_in(folder.path(), &[]);
        assert!(!postgres_of(folder.path()).is_empty());
        server.signal(signal);
        let (status, took) = server.wait();
        assert!(status.success(), "{signal}: {status}");
        assert!(took < Duration::from_secs(10), "{signal}: {took:?}");
        assert_eq!(postgres_of(folder.path()), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn kill_leaves_nothing_that_blocks_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(folder.path(), &[]);
    server.signal("KILL");
    server.wait();
    let mut again = Server::start_in(folder.path(), &[]);
    again.signal("TERM");
    again.wait();
    assert_eq!(postgres_of(folder.path()), Vec::<String>::new());
}

/// A server whose leases end soon after its death.
fn start_with_short_leases(folder: &Path) -> Server {
    let mut command = nereid();
    command
        .env("NEREID__WORKER__LEASE", "2s")
        .env("NEREID__WORKER__HEARTBEAT", "500ms");
    Server::launch(command, folder, &[]).unwrap()
}

#[tokio::test]
async fn a_training_goes_on_from_its_checkpoint_after_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start_with_short_leases(folder.path());
    let client = server.client();
    add_digits(&client, "digits").await;
    let mut job = tiny_job("digits", "digits", 400);
    job["spec"]["callbacks"] = serde_json::json!([{"type": "checkpoint", "every_steps": 500}]);
    let uninterrupted = succeed(&client, &job).await;
    let id = client.submit_job(&job).await.unwrap().id;
    let mut events = client.job_events(id, 0).await.unwrap();
    while futures::StreamExt::next(&mut events)
        .await
        .unwrap()
        .unwrap()
        .kind
        != EventKind::Checkpointed
    {}
    server.signal("KILL");
    server.wait();

    let server = start_with_short_leases(folder.path());
    let client = server.client();
    finish(&client, id).await;
    let attempts = client.job_attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0].reason, Some(TerminationReason::LeaseLost));
    let logs = client.job_logs(id, 100_000).await.unwrap();
    assert!(
        logs.iter()
            .any(|l| l.epoch == 2 && l.message.contains("resum")),
        "it started over"
    );
    // Killed and resumed, the training ends with the very same weights.
    let versions = client.model_versions("digits", 10).await.unwrap();
    assert_eq!(versions.len(), 2, "published once each");
    assert_eq!(versions[1].lineage.job_id, uninterrupted.id);
    assert_eq!(versions[0].metrics, versions[1].metrics);
    let steps: Vec<_> = client
        .job_metrics(id)
        .await
        .unwrap()
        .iter()
        .map(|p| p.step)
        .collect();
    assert!(steps.windows(2).all(|w| w[0] < w[1]), "each step once");
}

#[test]
fn a_server_that_others_can_reach_needs_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = Server::try_start_in(folder.path(), &["--host", "0.0.0.0"]).err();
    assert!(
        refusal
            .expect("a refusal")
            .contains("without authentication")
    );
}
