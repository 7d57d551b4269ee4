//! Jobs over their life: listing, stopping, retrying.

use nereid_client::JobQuery;
use nereid_core::{
    events::EventKind,
    jobs::{JobStatus, TerminationReason},
};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_running_training_stops_when_asked_and_can_be_retried() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("stop");
    add_digits(&client, &name).await;
    let job = client
        .submit_job(&tiny_job(&name, &name, 50_000))
        .await
        .unwrap();
    // The first progress shows that it trains; then it is asked to stop.
    let mut events = client.job_events(job.id, 0).await.unwrap();
    while let Some(event) = futures::StreamExt::next(&mut events).await {
        if event.unwrap().kind == EventKind::Progress {
            break;
        }
    }
    client.cancel_job(job.id).await.unwrap();
    let job = client.watch_job(job.id, |_| {}).await.unwrap();
    assert_eq!(job.status, JobStatus::Stopped);
    assert_eq!(job.termination_reason, Some(TerminationReason::Cancelled));
    assert!(client.model(&name).await.is_err(), "nothing was published");

    let again = client.retry_job(job.id).await.unwrap();
    assert_eq!((again.id, again.status), (job.id, JobStatus::Queued));
    client.cancel_job(job.id).await.unwrap();
    let job = client.watch_job(job.id, |_| {}).await.unwrap();
    assert_eq!(job.status, JobStatus::Stopped);
    let problem = client.cancel_job(job.id).await.unwrap_err();
    assert_eq!(problem.problem().unwrap().status, 409);
}

#[tokio::test]
async fn jobs_are_listed_by_status_kind_model_and_label_page_by_page() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("list");
    add_digits(&client, &name).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut job = tiny_job(&name, &name, 1);
        job["labels"] = json!({"suite": name, "n": n.to_string()});
        ids.push(client.submit_job(&job).await.unwrap().id);
    }
    ids.reverse();
    let query = JobQuery {
        model: Some(name.clone()),
        ..JobQuery::default()
    };
    let listed: Vec<_> = client
        .jobs(&query, 100)
        .await
        .unwrap()
        .iter()
        .map(|j| j.id)
        .collect();
    assert_eq!(listed, ids, "newest first");
    let labels = vec![
        ("suite".to_owned(), name.clone()),
        ("n".to_owned(), "3".to_owned()),
    ];
    let query = JobQuery {
        labels,
        ..JobQuery::default()
    };
    assert_eq!(client.jobs(&query, 100).await.unwrap()[0].id, ids[1]);

    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/jobs?model={name}&page_size=2{token}");
        let page: serde_json::Value = reqwest::get(server.url(&path))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        paged.extend(items.iter().map(|j| j["id"].as_str().unwrap().to_owned()));
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(
        paged,
        ids.iter().map(ToString::to_string).collect::<Vec<_>>()
    );
    for id in ids {
        finish(&client, id).await;
    }
    let query = JobQuery {
        status: Some(JobStatus::Succeeded),
        model: Some(name),
        ..JobQuery::default()
    };
    assert_eq!(client.jobs(&query, 100).await.unwrap().len(), 5);
}
