//! Deployments: from a version to replicas that answer, in this process and over HTTP.

use std::sync::{Arc, atomic::Ordering};

use nereid_core::{
    endpoints::ReplicaAddress,
    inference::{Answer, InferOptions},
    jobs::{JobResult, JobStatus, NewJob, TerminationReason},
    tensors::{Batch, Tensor, TensorValues},
};
use serde_json::{Value, json};

use crate::{
    engine::{Scripted, short},
    support::{World, deploy, eventually, train, world},
};

/// Trains and deploys a version; returns where its replica answers.
async fn deployed(world: &World) -> ReplicaAddress {
    let id = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    let id = world.submit(&deploy()).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    assert!(matches!(job.result, Some(JobResult::Deploy { .. })));
    address(world).await
}

async fn address(world: &World) -> ReplicaAddress {
    let (_, _, route) = world.store.routes().await.unwrap().remove(0);
    let serving = route.generation;
    let mut variants = route.variants.into_iter();
    let variant = variants.find(|v| v.generation == serving);
    variant.unwrap().replicas.remove(0)
}

fn batch() -> Batch {
    Batch {
        rows: 2,
        values: vec![1.0, 2.0, 3.0, 4.0],
    }
}

fn assert_sums(tensors: &[Tensor]) {
    assert_eq!(tensors[0].values, TensorValues::Fp32(vec![3.0, 7.0]));
}

async fn post(
    world: &World,
    to: &ReplicaAddress,
    rows: &str,
    secret: Option<&str>,
) -> reqwest::Response {
    try_post(world, to, rows, secret).await.unwrap()
}

async fn try_post(
    world: &World,
    to: &ReplicaAddress,
    rows: &str,
    secret: Option<&str>,
) -> reqwest::Result<reqwest::Response> {
    let secret = match secret {
        Some(secret) => secret.to_owned(),
        None => world.store.cluster_secret().await.unwrap(),
    };
    reqwest::Client::new()
        .post(format!("{}/internal/v1/replicas/{}/infer", to.url, to.id))
        .bearer_auth(secret)
        .header("x-nereid-rows", rows)
        .body(batch().to_le_bytes())
        .send()
        .await
}

#[tokio::test]
async fn a_deployed_version_answers_in_process_and_over_http() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    let replica = deployed(&world).await;
    let local = worker.replicas.get(replica.id).unwrap();
    let answer = local.infer(Arc::new(batch()), InferOptions::default());
    assert_sums(&answer.await.unwrap().outputs);

    let response = post(&world, &replica, "2", None).await;
    assert_eq!(response.status(), 200);
    let answer = Answer::from_bytes(&response.bytes().await.unwrap()).unwrap();
    assert_sums(&answer.outputs);

    let status = async |rows: &str, secret: Option<&str>, to: &ReplicaAddress| {
        post(&world, to, rows, secret).await.status()
    };
    assert_eq!(status("2", Some("guessed"), &replica).await, 401);
    assert_eq!(status("3", None, &replica).await, 400);
    assert_eq!(status("4", None, &replica).await, 400);
    assert_eq!(status("none", None, &replica).await, 400);
    let mut elsewhere = replica.clone();
    elsewhere.id = nereid_core::ids::ReplicaId::generate();
    assert_eq!(status("2", None, &elsewhere).await, 404);
    let live = reqwest::get(format!("{}/livez", replica.url)).await;
    assert_eq!(live.unwrap().status(), 200);
    worker.leave().await;
}

#[tokio::test]
async fn a_second_deployment_uses_the_artifact_of_the_first_and_its_replica_if_it_serves_alike() {
    let world = world().await;
    let engine = Scripted::new(short);
    let worker = world.worker(&engine).await;
    let first = deployed(&world).await;
    let again = async |spec: Value| {
        let job = json!({"kind": "deploy", "spec": spec});
        let id = world.submit(&NewJob::read(job).unwrap()).await;
        let job = world.finished(id).await;
        assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
        assert_eq!(engine.optimised.load(Ordering::Relaxed), 1);
        address(&world).await
    };
    let same = again(json!({"model": "digits", "version": 1})).await;
    assert_eq!(first.id, same.id, "nothing changed");
    let other = json!({"model": "digits", "version": 1, "batching": {"max_batch_size": 8}});
    let second = again(other).await;
    assert_ne!(first.id, second.id);
    // Both generations share the artifact, and so the loaded model.
    assert_eq!(engine.loaded.load(Ordering::Relaxed), 1);
    assert!(worker.replicas.get(second.id).is_some());
    eventually("the old replica to leave", || async {
        worker.replicas.get(first.id).is_none().then_some(())
    })
    .await;
    worker.leave().await;
}

#[tokio::test]
async fn a_worker_that_leaves_answers_until_another_one_does() {
    let world = world().await;
    let engine = Scripted::new(short);
    let leaving = world.worker(&engine).await;
    let replica = deployed(&world).await;
    let staying = world.worker(&engine).await;
    let leave = leaving.leave();
    let watch = async {
        loop {
            let now = address(&world).await;
            if now.worker == staying.id {
                return now;
            }
            let answer = try_post(&world, &now, "2", None).await;
            let answered = answer.as_ref().is_ok_and(|a| a.status() == 200);
            // Between look and request it may have left; a gateway then tries the other one.
            let moved = answered || address(&world).await.worker == staying.id;
            assert!(moved, "{answer:?}");
        }
    };
    let ((), successor) = tokio::join!(leave, watch);
    assert_ne!(successor.id, replica.id);
    let local = staying.replicas.get(successor.id).unwrap();
    let answer = local.infer(Arc::new(batch()), InferOptions::default());
    assert_sums(&answer.await.unwrap().outputs);
    staying.leave().await;
}

#[tokio::test]
async fn a_version_that_cannot_be_loaded_fails_its_deployment() {
    let world = world().await;
    let engine = Scripted::new(|task, monitor| {
        let model = short(task, monitor)?;
        std::fs::write(task.output.join("weights.bin"), "broken").unwrap();
        Ok(model)
    });
    let worker = world.worker(&engine).await;
    let id = world.submit(&train(&json!({}))).await;
    assert_eq!(world.finished(id).await.status, JobStatus::Succeeded);
    let id = world.submit(&deploy()).await;
    let job = world.finished(id).await;
    assert_eq!(job.status, JobStatus::Failed);
    let error = job.error.unwrap();
    assert_eq!(error.reason, TerminationReason::ParityFailed, "{error:?}");
    assert!(error.message.contains("broken"), "{error:?}");
    worker.leave().await;
}

#[tokio::test]
async fn a_deleted_endpoint_is_unloaded() {
    let world = world().await;
    let worker = world.worker(&Scripted::new(short)).await;
    let replica = deployed(&world).await;
    let name = "digits".parse().unwrap();
    let delete = world.store.delete_endpoint(world.project, &name);
    delete.await.unwrap();
    eventually("the replica to leave", || async {
        worker.replicas.get(replica.id).is_none().then_some(())
    })
    .await;
    worker.leave().await;
}
