//! Jobs over their life: listing, stopping, retrying.

use nereid_client::JobQuery;
use nereid_core::{
    events::{EventKind, RuleReport},
    jobs::{JobStatus, TerminationReason},
    spec::rules::RuleAction,
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
async fn a_rule_that_finds_a_training_ill_is_among_the_events() {
    let server = Server::shared();
    let client = server.client();
    let name = unique("ill");
    add_digits(&client, &name).await;
    let mut job = tiny_job(&name, &name, 3);
    // Nothing is learnt, so no mean of ten steps is below the one before by half.
    job["spec"]["optimizer"] = json!({"type": "sgd", "learning_rate": 1e-9});
    job["spec"]["rules"] = json!([
        {"type": "loss_not_decreasing", "num_steps": 10, "diff_percent": 50, "patience": 2},
        {"type": "exploding_tensor", "threshold": 1e-3, "action": "stop"},
    ]);
    job["spec"]["fit"]["report_every_steps"] = json!(35);
    let id = client.submit_job(&job).await.unwrap().id;
    let mut told = Vec::new();
    let watched = client.watch_job(id, |event| {
        if event.kind == EventKind::RuleTriggered {
            told.push(serde_json::from_value::<RuleReport>(event.data.clone()).unwrap());
        }
    });
    let job = watched.await.unwrap();
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let [stalled, large] = &told[..] else {
        panic!("{told:?}")
    };
    let of = |r: &RuleReport| (r.rule.clone(), r.step, r.action);
    let (stalls, explodes) = ("loss_not_decreasing", "exploding_tensor");
    assert_eq!(of(stalled), (stalls.to_owned(), 30, RuleAction::Warn));
    assert_eq!(of(large), (explodes.to_owned(), 35, RuleAction::Stop));
    assert_eq!((stalled.layer.is_none(), large.limit), (true, 1e-3));
    assert!(large.layer.is_some() && large.value.unwrap() > 1e-3);
    let logs = client.job_logs(id, 1_000).await.unwrap();
    for report in &told {
        assert!(
            logs.iter().any(|l| l.message == report.message),
            "{report:?}"
        );
    }
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
