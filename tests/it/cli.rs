//! The command line as a user types it.

use serde_json::Value;

use crate::support::*;

#[test]
fn the_whole_story_by_the_command_line() {
    let server = Server::shared();
    let name = unique("cli");
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/digits.csv.gz");
    let run = |args: &[&str]| {
        let (status, out, err) = cli(&server, args);
        assert_eq!(status, 0, "{args:?}: {out}{err}");
        out
    };
    let shown = run(&[
        "dataset",
        "add",
        &name,
        "--file",
        digits,
        "--label-column",
        "label",
        "--shape",
        "8,8,1",
    ]);
    assert!(
        shown.contains("1797 rows") && shown.contains("10 classes"),
        "{shown}"
    );
    assert!(run(&["dataset", "list"]).contains(&name));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.json");
    std::fs::write(&file, tiny_job(&name, &name, 2).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let job: Value =
        serde_json::from_str(&run(&["--json", "job", "submit", "--file", file])).unwrap();
    let id = job["id"].as_str().unwrap();
    let watched = run(&["job", "watch", id]);
    assert!(
        watched.contains(&format!("succeeded: {name} version 1")),
        "{watched}"
    );
    assert!(run(&["job", "list", "--model", &name]).contains("succeeded"));
    assert!(run(&["job", "logs", id]).contains("epoch 2/2"));
    assert!(run(&["job", "attempts", id]).contains("completed"));
    assert!(run(&["model", "list"]).contains(&name));
    assert!(run(&["model", "deploy", &name]).contains("serves"));

    let pixels = vec!["0"; 64].join(",");
    let answer = run(&[
        "--json",
        "endpoint",
        "predict",
        &name,
        "--row",
        &format!("[{pixels}]"),
    ]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["predictions"].as_array().unwrap().len(), 1);
    assert!(run(&["endpoint", "list"]).contains("in_service"));

    // The exit status is the job's, and a refusal says why.
    let mut bad = tiny_job(&name, &name, 1);
    bad["spec"]["optimizer"] = serde_json::json!({"type": "sgd", "learning_rate": 90.0});
    bad["spec"]["fit"]["epochs"] = 200.into();
    std::fs::write(file, bad.to_string()).unwrap();
    let (status, out, _) = cli(&server, &["job", "submit", "--file", file, "--watch"]);
    assert_eq!(status, 1, "a diverged training: {out}");
    assert!(out.contains("diverged"), "{out}");
    bad["spec"]["fit"]["epochs"] = 0.into();
    std::fs::write(file, bad.to_string()).unwrap();
    let (status, _, err) = cli(&server, &["job", "submit", "--file", file]);
    assert_eq!(status, 1);
    assert!(err.contains("/spec/fit/epochs"), "{err}");
}

#[test]
fn an_unreachable_server_is_named() {
    let output = nereid()
        .args(["--url", "http://127.0.0.1:9", "job", "list"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("http://127.0.0.1:9"), "{message}");
}

#[test]
fn a_job_that_waits_is_shown_paused_and_cancelled_by_the_command_line() {
    let server = Server::shared();
    let run = |args: &[&str]| {
        let (status, out, err) = cli(&server, args);
        assert_eq!(status, 0, "{args:?}: {out}{err}");
        out
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.toml");
    let label = unique("waits");
    let job = format!(
        "kind = \"noop\"\ndevice = \"gpu\"\nworker_labels = {{ rack = \"b\" }}\n\
         max_queue_seconds = 3600\nlabels = {{ test = \"{label}\" }}\n[spec]\nseconds = 1\n"
    );
    std::fs::write(&file, job).unwrap();
    let shown = run(&["--json", "job", "submit", "--file", file.to_str().unwrap()]);
    let job: Value = serde_json::from_str(&shown).unwrap();
    let id = job["id"].as_str().unwrap();
    let shown = run(&["job", "show", id]);
    assert!(
        shown.contains("queued") && shown.contains("in the queue since"),
        "{shown}"
    );
    assert!(
        shown.contains("gpu") && shown.contains("fails if still waiting"),
        "{shown}"
    );
    let shown = run(&["job", "pause", id]);
    assert!(
        shown.contains("paused") && shown.contains("job resume"),
        "{shown}"
    );
    let label = format!("test={label}");
    assert!(run(&["job", "list", "--label", &label]).contains("paused"));
    assert!(run(&["job", "resume", id]).contains("queued"));
    assert!(run(&["job", "cancel", id]).contains("stopped (cancelled)"));
    let (status, _, refusal) = cli(&server, &["job", "stop", id]);
    assert_eq!(status, 1);
    assert!(refusal.contains("stopped"), "{refusal}");
    assert!(run(&["job", "attempts", id]).contains("none"));
    assert!(run(&["job", "retry", id]).contains("queued"));
    run(&["job", "cancel", id]);
}
