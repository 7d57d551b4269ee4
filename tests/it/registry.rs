//! The registry over HTTP: promote, deploy by alias, demote, and who did it.

use nereid_core::{
    models::{Alias, ApprovalStatus},
    spec::DeploySpec,
};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn promoted_deployed_by_alias_demoted_and_audited() {
    let server = Server::shared();
    let client = server.client();
    let (m, data) = (unique("registry"), unique("data"));
    let refused = |e: nereid_client::ClientError| e.problem().unwrap().code.clone();
    add_digits(&client, &data).await;
    for epochs in [1, 2] {
        succeed(&client, &tiny_job(&m, &data, epochs)).await;
    }
    let champion: Alias = "champion".parse().unwrap();
    client.promote(&m, &champion, 1, None).await.unwrap();

    // Where approval is required, an alias alone opens no door.
    let patch = json!({"require_approval": true, "tags": {"team": m, "draft": "yes"}});
    client.update_model(&m, &patch).await.unwrap();
    let patch = json!({"description": "reads digits", "tags": {"draft": null}});
    let model = client.update_model(&m, &patch).await.unwrap();
    assert_eq!((model.tags.len(), model.aliases[&champion]), (1, 1));
    let deploy = json!({"kind": "deploy", "spec": {"model": m, "alias": "champion"}});
    let pending = client.submit_job(&deploy).await.unwrap_err();
    assert_eq!(refused(pending), "not_approved");
    for version in [1, 2] {
        let decided = client.decide(&m, version, ApprovalStatus::Approved, "fine");
        assert_eq!(decided.await.unwrap().reason, "fine");
    }
    let job = succeed(&client, &deploy).await;
    let spec = serde_json::to_value(&job.spec).unwrap();
    assert_eq!(
        (&spec["spec"]["version"], &spec["spec"]["alias"]),
        (&json!(1), &json!(null))
    );
    let spec: DeploySpec = serde_json::from_value(spec["spec"].clone()).unwrap();
    assert_eq!(spec.version, 1, "what it resolved to is what is kept");

    // The alias moves on; what was deployed by it stays until somebody deploys it again.
    let stale = client.promote(&m, &champion, 2, Some(2)).await.unwrap_err();
    assert_eq!(refused(stale), "alias_moved");
    let moved = client.promote(&m, &champion, 2, Some(1)).await.unwrap();
    assert_eq!((moved.version, moved.previous_version), (2, Some(1)));
    assert_eq!(
        client.aliased_version(&m, &champion).await.unwrap().version,
        2
    );
    let row = json!(client.dataset_preview(&data, 1).await.unwrap()[0].features);
    let answer = client
        .predict(&m, std::slice::from_ref(&row))
        .await
        .unwrap();
    assert_eq!(answer.version, 1);
    succeed(&client, &deploy).await;
    assert_eq!(client.predict(&m, &[row]).await.unwrap().version, 2);

    let demoted = client.demote(&m, &champion, None).await.unwrap();
    assert_eq!((demoted.version, demoted.previous_version), (1, None));
    let again = client.demote(&m, &champion, None).await.unwrap_err();
    assert_eq!(refused(again), "no_previous");
    let history = client.alias_history(&m, &champion, 10).await.unwrap();
    assert_eq!(history.len(), 3);
    let prefix = format!("model/{m}@champion");
    let log = client.audit_log(Some(&prefix), 10).await.unwrap();
    let actions: Vec<_> = log.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["demote", "promote", "promote"]);
    assert_eq!(log[0].detail.as_deref(), Some("version 1, before 2"));

    found_compared_and_traced(&server, &m, &data).await;
    let pointed = client.delete_model_version(&m, 1).await.unwrap_err();
    assert_eq!(refused(pointed), "in_use");
}

/// Search, comparison and lineage of the two versions, by the client and by the command line.
async fn found_compared_and_traced(server: &Server, m: &str, data: &str) {
    let client = server.client();
    let filter = format!("name = '{m}' and metrics.test_accuracy >= 0 and alias = 'champion'");
    let order = Some("metrics.test_accuracy desc");
    let found = client
        .search_versions(Some(&filter), order, 10)
        .await
        .unwrap();
    assert_eq!(found.iter().map(|v| v.version).collect::<Vec<_>>(), [1]);
    let wrong = client
        .search_versions(Some("metrics.a >"), None, 1)
        .await
        .unwrap_err();
    let wrong = wrong.problem().unwrap();
    assert_eq!(
        (wrong.status, wrong.errors[0].pointer.as_str()),
        (400, "filter")
    );
    assert!(
        wrong.errors[0].detail.starts_with("at character 12"),
        "{wrong:?}"
    );

    let versions = ["champion".to_owned(), "latest".to_owned()];
    let compared = client.compare_versions(m, &versions).await.unwrap();
    let numbers: Vec<_> = compared.versions.iter().map(|v| v.version).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(compared.versions.iter().all(|v| v.serving.is_some()));
    let epochs = compared
        .spec
        .iter()
        .find(|d| d.pointer == "/fit/epochs")
        .unwrap();
    assert_eq!(
        epochs.values.iter().map(|v| &v.value).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(
        compared
            .metrics
            .iter()
            .any(|m| m.name == "test_accuracy" && m.values.len() == 2)
    );

    let made = client.versions_of_dataset(data, 1, 10).await.unwrap();
    assert_eq!(made.len(), 2);
    let by_job = client
        .versions_of_job(made[1].lineage.job_id)
        .await
        .unwrap();
    assert_eq!(by_job[0].version, 2);

    let cli = |args: &[&str]| {
        let (status, out, err) = cli(server, args);
        assert_eq!(status, 0, "{args:?}: {err}");
        out
    };
    let second = format!("{m}@2");
    assert!(
        cli(&["model", "promote", &second, "champion"]).contains("is version 2; before, version 1")
    );
    assert!(cli(&["model", "demote", m, "champion"]).contains("is version 1"));
    assert!(cli(&["model", "history", m, "champion"]).contains("demote"));
    assert!(cli(&["model", "reject", &second, "--reason", "slow"]).contains("rejected"));
    let shown = cli(&["model", "show", &second]);
    assert!(
        shown.contains("rejected") && shown.contains("slow"),
        "{shown}"
    );
    assert!(cli(&["model", "aliases", m]).contains("champion"));
    assert!(cli(&["model", "compare", m, "champion", "2"]).contains("spec/fit/epochs"));
    let search = format!("name = '{m}'");
    assert!(cli(&["model", "search", &search, "--order-by", "version desc"]).contains("@champion"));
}

#[tokio::test]
async fn mistakes_are_named() {
    let server = Server::shared();
    let http = reqwest::Client::new();
    let m = unique("mistakes");
    let cases = [
        (
            "PUT",
            format!("/v1/models/{m}/aliases/latest"),
            json!({"version": 1}),
            400,
            "latest",
        ),
        (
            "PUT",
            format!("/v1/models/{m}/aliases/v3"),
            json!({"version": 1}),
            400,
            "v3",
        ),
        (
            "PUT",
            format!("/v1/models/{m}/aliases/a"),
            json!({"version": 0}),
            422,
            "/version",
        ),
        (
            "PUT",
            format!("/v1/models/{m}/aliases/a"),
            json!({"version": 1}),
            404,
            "no model",
        ),
        (
            "POST",
            format!("/v1/models/{m}/promote"),
            json!({"alias": "3"}),
            422,
            "/alias",
        ),
        (
            "POST",
            format!("/v1/models/{m}/demote"),
            json!({}),
            422,
            "/alias",
        ),
        (
            "PATCH",
            format!("/v1/models/{m}"),
            json!({"tags": {"": "x"}}),
            422,
            "/tags/",
        ),
        (
            "GET",
            format!("/v1/models/{m}/compare?versions=1"),
            json!(null),
            400,
            "not between 2",
        ),
        (
            "GET",
            format!("/v1/models/{m}/compare?versions=1,1"),
            json!(null),
            400,
            "named twice",
        ),
        (
            "GET",
            "/v1/model-versions?order_by=tags.a".to_owned(),
            json!(null),
            400,
            "order_by",
        ),
        (
            "POST",
            "/v1/jobs".to_owned(),
            json!({"kind": "deploy", "spec": {"model": m, "version": 1, "alias": "a"}}),
            422,
            "/spec/alias",
        ),
        (
            "POST",
            "/v1/jobs".to_owned(),
            json!({"kind": "deploy", "spec": {"model": m}}),
            422,
            "/spec/version",
        ),
        (
            "POST",
            "/v1/endpoints".to_owned(),
            json!({"name": m, "variants": [{"name": "a", "model": m, "alias": "latest"}]}),
            422,
            "/variants/0/alias",
        ),
        (
            "POST",
            "/v1/endpoints".to_owned(),
            json!({"name": m, "variants": [{"name": "a", "model": m}]}),
            422,
            "/variants/0/version",
        ),
    ];
    for (method, path, body, status, part) in cases {
        let request = http.request(method.parse().unwrap(), server.url(&path));
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        let answer = request.send().await.unwrap();
        let (got, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(
            got == status && text.contains(part),
            "{method} {path} {body}: {got} {text}"
        );
    }
}
