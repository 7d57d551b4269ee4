//! Training from a version that is there: pinned, kept meanwhile, shown in the lineage.

use nereid_core::jobs::{JobSpec, JobStatus};
use serde_json::{Value, json};

use crate::support::*;

/// The tiny network's job without its network, from the newest version of `base`.
fn tuning(model: &str, base: &str, epochs: u32) -> Value {
    let mut job = tiny_job(model, base, epochs);
    job["spec"].as_object_mut().unwrap().remove("network");
    job["spec"]["initialize_from"] = json!({"model": base});
    job
}

#[tokio::test]
async fn a_version_is_fine_tuned_and_kept_until_that_is_done() {
    let server = Server::shared();
    let client = server.client();
    let (base, tuned) = (unique("base"), unique("tuned"));
    add_digits(&client, &base).await;
    succeed(&client, &tiny_job(&base, &base, 5)).await;
    let version = client.model_version(&base, 1).await.unwrap();

    // While a job is to start from it, the version stays.
    let long = client
        .submit_job(&tuning(&tuned, &base, 50_000))
        .await
        .unwrap();
    let JobSpec::Train(spec) = &long.spec else {
        panic!("it trains")
    };
    assert_eq!(spec.initialize_from.as_ref().unwrap().version, Some(1));
    assert_eq!(spec.network, version.spec.network);
    let refusal = client.delete_model_version(&base, 1).await.unwrap_err();
    let problem = refusal.problem().unwrap();
    assert_eq!(problem.code, "in_use", "{refusal}");
    assert!(
        problem.detail.contains("starts a training from it"),
        "{refusal}"
    );
    client.cancel_job(long.id).await.unwrap();
    let long = client.watch_job(long.id, |_| {}).await.unwrap();
    assert_eq!(long.status, JobStatus::Stopped);

    // One epoch for the head alone, at a rate that hardly changes it.
    let mut job = tuning(&tuned, &base, 1);
    job["spec"]["optimizer"] = json!({"type": "adam", "learning_rate": 1e-6});
    job["spec"]["fit"]["trainable"] = json!({"*": false, "dense_1": true});
    succeed(&client, &job).await;
    let found = client.model_version(&tuned, 1).await.unwrap();
    let from = found.lineage.initialized_from.clone().unwrap();
    assert_eq!((from.model.as_str(), from.version), (base.as_str(), 1));
    assert_eq!(from.version_id, version.id);
    assert_eq!(from.manifest_sha256, version.manifest_sha256);
    let [before, after] = [&version, &found].map(|v| v.metrics["test_loss"]);
    assert!((before - after).abs() < 0.01 * before, "{before} {after}");

    client.delete_model_version(&base, 1).await.unwrap();
    let gone = client.retry_job(long.id).await.unwrap_err();
    assert_eq!(gone.problem().unwrap().code, "not_found", "{gone}");
    for model in [base.as_str(), "nowhere"] {
        let mut job = tuning(&tuned, &base, 1);
        job["spec"]["initialize_from"]["model"] = json!(model);
        let refusal = client.submit_job(&job).await.unwrap_err();
        let errors = &refusal.problem().unwrap().errors;
        assert_eq!(
            errors[0].pointer, "/spec/initialize_from/model",
            "{refusal}"
        );
    }
}
