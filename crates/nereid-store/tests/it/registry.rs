//! Aliases, approval, search, lineage, audit: what two clients at once may not undo.

use nereid_core::{
    jobs::NewJob,
    models::{Alias, AliasAction, ApprovalStatus, ModelAlias, search::Filter},
};
use nereid_store::{Begun, PageRequest, Store, StoreError};
use serde_json::json;

use crate::support::{Db, artifact, code, db, deploy, deploy_spec, name, train};

const ALL: PageRequest = PageRequest {
    size: 200,
    after: None,
};
const LOCK_MODELS: &str = "SELECT 1 FROM models FOR UPDATE";

fn alias(s: &str) -> Alias {
    s.parse().unwrap()
}

impl Db {
    /// A model `m` with so many versions.
    async fn versions(&self, n: u32) {
        for _ in 0..n {
            self.trained("m").await;
        }
    }

    async fn promote(
        &self,
        store: &Store,
        version: u32,
        expected: Option<u32>,
    ) -> Result<ModelAlias, StoreError> {
        let Begun::Fresh(mut tx) = store.begin(self.project, None).await? else {
            panic!("nothing to replay")
        };
        match tx
            .promote(&name("m"), &alias("champion"), version, expected)
            .await
        {
            Ok(moved) => tx.commit(200, &moved).await.map(|()| moved),
            Err(e) => {
                tx.rollback().await?;
                Err(e)
            }
        }
    }

    async fn demote(&self) -> Result<u32, StoreError> {
        let mut tx = self.write().await;
        match tx.demote(&name("m"), &alias("champion"), None).await {
            Ok(moved) => tx.commit(200, &moved).await.map(|()| moved.version),
            Err(e) => {
                tx.rollback().await?;
                Err(e)
            }
        }
    }

    /// Numbers of versions of `m` for which a filter holds, in order.
    async fn found(&self, filter: &str, order: &str) -> Vec<u32> {
        let filter: Filter = filter.parse().unwrap();
        let order = order.parse().unwrap();
        let (mut found, mut page) = (
            Vec::new(),
            PageRequest {
                size: 1,
                after: None,
            },
        );
        loop {
            // One by one: the keyset must neither repeat nor skip any.
            let listed = self
                .store
                .search_model_versions(self.project, &filter, &order, &page);
            let listed = listed.await.unwrap();
            found.extend(listed.items.iter().map(|v| v.version));
            page.after = listed.next;
            if page.after.is_none() {
                return found;
            }
        }
    }
}

#[tokio::test]
async fn promotions_remember_and_demotions_go_back_step_by_step() {
    let db = db().await;
    db.versions(3).await;
    let (project, m, champion) = (db.project, name("m"), alias("champion"));
    assert_eq!(code(&db.demote().await.unwrap_err()), "not_found");
    for version in [1, 2, 3, 3] {
        db.promote(&db.store, version, None).await.unwrap();
    }
    let moved = db.store.alias(project, &m, &champion).await.unwrap();
    assert_eq!((moved.version, moved.previous_version), (3, Some(2)));
    assert_eq!(db.demote().await.unwrap(), 2);
    assert_eq!(db.demote().await.unwrap(), 1);
    assert_eq!(code(&db.demote().await.unwrap_err()), "no_previous");

    let history = db.store.alias_history(project, &m, &champion, &ALL).await;
    let history: Vec<_> = (history.unwrap().items.iter())
        .map(|c| (c.action, c.from_version, c.to_version))
        .collect();
    let expected = [
        (AliasAction::Demote, Some(2), Some(1)),
        (AliasAction::Demote, Some(3), Some(2)),
        (AliasAction::Promote, Some(2), Some(3)),
        (AliasAction::Promote, Some(1), Some(2)),
        (AliasAction::Promote, None, Some(1)),
    ];
    assert_eq!(
        history, expected,
        "a promotion to where it is changes nothing"
    );
    let log = db
        .store
        .audit_log(project, Some("model/m@"), &ALL)
        .await
        .unwrap();
    let newest = &log.items[0];
    assert_eq!(
        (
            newest.action.as_str(),
            newest.resource.as_str(),
            newest.detail.as_deref()
        ),
        ("demote", "model/m@champion", Some("version 1, before 2"))
    );
    assert_eq!(log.items.len(), 5);
    let none = db
        .store
        .audit_log(project, Some("model/%"), &ALL)
        .await
        .unwrap();
    assert!(none.items.is_empty(), "a prefix is no pattern");

    // What had it before is gone: no demotion ends there.
    db.promote(&db.store, 3, None).await.unwrap();
    db.store.delete_model_version(project, &m, 1).await.unwrap();
    let moved = db.store.alias(project, &m, &champion).await.unwrap();
    assert_eq!(moved.previous_version, None);
    assert_eq!(code(&db.demote().await.unwrap_err()), "no_previous");
    let gone = db.promote(&db.store, 1, None).await.unwrap_err();
    assert_eq!(gone.to_string(), "no model version \"m@1\"");
    let kept = db
        .store
        .delete_model_version(project, &m, 3)
        .await
        .unwrap_err();
    assert!(kept.to_string().contains("champion"), "{kept}");

    // Deleted and made again, it remembers nothing; the history does.
    db.store.delete_alias(project, &m, &champion).await.unwrap();
    db.store.delete_model_version(project, &m, 3).await.unwrap();
    let model = db.store.set_alias(project, &m, &champion, 2).await.unwrap();
    assert_eq!(model.previous_version, None);
    let history = db.store.alias_history(project, &m, &champion, &ALL).await;
    assert_eq!(history.unwrap().items.len(), 8);
    let shown = db.store.model(project, &m).await.unwrap().aliases;
    assert_eq!(shown, [(champion.clone(), 2)].into());
    let policy = nereid_core::models::Edit::default();
    let strict = db.store.update_model(project, &m, &policy, Some(true));
    assert!(strict.await.unwrap().require_approval);
    db.store.delete_model(project, &m).await.unwrap();
    db.trained("m").await;
    let anew = db.store.model(project, &m).await.unwrap();
    assert!(anew.aliases.is_empty() && !anew.require_approval);
}

#[tokio::test]
async fn of_promotions_that_expect_the_same_version_one_wins() {
    let db = db().await;
    db.versions(3).await;
    db.promote(&db.store, 1, None).await.unwrap();
    let other = db.second().await;
    let held = db.hold(LOCK_MODELS).await;
    let racers = async {
        tokio::join!(
            db.promote(&db.store, 2, Some(1)),
            db.promote(&other, 3, Some(1))
        )
    };
    let release = async {
        db.until_waiting(2).await;
        drop(held);
    };
    let ((first, second), ()) = tokio::join!(racers, release);
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (code(&lost), won.previous_version),
        ("alias_moved", Some(1))
    );
    let said = format!("points to version {}, not to version 1", won.version);
    assert!(lost.to_string().contains(&said), "{lost}");
}

#[tokio::test]
async fn unordered_promotions_leave_an_unbroken_history() {
    let db = db().await;
    db.versions(4).await;
    let other = db.second().await;
    let stores = [&db.store, &other];
    let moves = (0..12_u32).map(|i| db.promote(stores[i as usize % 2], 1 + i % 4, None));
    for moved in futures::future::join_all(moves).await {
        moved.unwrap();
    }
    let (m, champion) = (name("m"), alias("champion"));
    let history = db.store.alias_history(db.project, &m, &champion, &ALL);
    let history = history.await.unwrap().items;
    for pair in history.windows(2) {
        assert_eq!(pair[0].from_version, pair[1].to_version, "{history:?}");
    }
}

#[tokio::test]
async fn a_version_is_promoted_or_deleted_but_not_both() {
    let db = db().await;
    let m = name("m");
    for round in 1..=6 {
        db.trained("m").await;
        let other = db.second().await;
        let (promoted, deleted) = tokio::join!(
            db.promote(&other, round, None),
            db.store.delete_model_version(db.project, &m, round)
        );
        assert!(
            promoted.is_ok() != deleted.is_ok(),
            "{promoted:?} {deleted:?}"
        );
    }
    let dangling = db.texts(
        "SELECT a.alias FROM model_aliases a JOIN model_versions v ON v.id = a.model_version_id WHERE v.deleted_at IS NOT NULL",
    );
    assert_eq!(dangling.await, Vec::<String>::new());
}

#[tokio::test]
async fn where_approval_is_required_nothing_else_is_deployed_or_served() {
    let db = db().await;
    let version = db.trained("m").await;
    let (project, m) = (db.project, name("m"));
    let worker = db.worker().await;
    // Without the policy a pending version may be deployed.
    let (fence, _) = db.rolled_out(worker, "m", version.id, 1).await;
    let policy = nereid_core::models::Edit::default();
    let model = db
        .store
        .update_model(project, &m, &policy, Some(true))
        .await
        .unwrap();
    assert!(model.require_approval);

    let mut by_alias = crate::endpoints::spec(0, 1);
    by_alias.variants[0].alias = Some(alias("champion"));
    let e = name("e");
    let serve = || db.store.update_endpoint(project, &e, &by_alias);
    assert_eq!(
        serve().await.unwrap_err().to_string(),
        "no alias of a model \"m@champion\""
    );
    db.promote(&db.store, 1, None).await.unwrap();
    let refused = serve().await.unwrap_err();
    assert_eq!(code(&refused), "not_approved");
    assert!(
        refused.to_string().starts_with("m@1 is not approved"),
        "{refused}"
    );
    let mut tx = db.write().await;
    assert_eq!(
        code(&tx.submit_job(&deploy("m")).await.unwrap_err()),
        "not_approved"
    );
    drop(tx);

    let decide = |status, reason| db.store.decide(project, &m, 1, status, reason);
    let approval = decide(ApprovalStatus::Approved, "looked at it")
        .await
        .unwrap();
    assert_eq!(
        (approval.status, approval.reason.as_str()),
        (ApprovalStatus::Approved, "looked at it")
    );
    assert!(approval.at.is_some());
    let served = serve().await.unwrap();
    assert_eq!(
        (
            served.variants[0].spec.version,
            &served.variants[0].spec.alias
        ),
        (1, &None)
    );

    // Rejected between submission and roll-out.
    let job = db.submit(&deploy("m")).await;
    let claim = db.claim_one(worker).await;
    assert!(claim.fence.job == job && claim.fence.job != fence.job);
    decide(ApprovalStatus::Rejected, "unfair").await.unwrap();
    let late = db
        .store
        .roll_out(
            &claim.fence,
            version.id,
            &deploy_spec("e", json!({})),
            &artifact(),
        )
        .await;
    assert_eq!(code(&late.unwrap_err()), "not_approved");
    let log = db.texts(
        "SELECT action || ': ' || detail FROM audit_log WHERE resource = 'model/m@1' ORDER BY id",
    );
    assert_eq!(log.await, ["approve: looked at it", "reject: unfair"]);
    // An alias is for clients: what is kept names the number.
    let unresolved: NewJob =
        NewJob::read(json!({"kind": "deploy", "spec": {"model": "m", "alias": "champion"}}))
            .unwrap();
    let mut tx = db.write().await;
    assert_eq!(
        code(&tx.submit_job(&unresolved).await.unwrap_err()),
        "unresolved_version"
    );
}

#[tokio::test]
async fn search_filters_and_orders_and_takes_everything_as_data() {
    let db = db().await;
    db.versions(4).await;
    db.trained("other").await;
    db.sql(
        "UPDATE model_versions v SET metrics = CASE version
             WHEN 1 THEN '{\"acc\": 0.9}' WHEN 2 THEN '{\"acc\": 0.99}' WHEN 3 THEN '{\"acc\": 0.95, \"top 5\": 1}'
             ELSE '{}' END::jsonb,
             tags = CASE version WHEN 1 THEN '{\"team\": \"x\"}' WHEN 2 THEN '{\"team\": \"o''x%\"}' ELSE '{}' END::jsonb
         FROM models m WHERE m.id = v.model_id AND m.name = 'm'",
    )
    .await;
    db.promote(&db.store, 2, None).await.unwrap();
    for (filter, order, expected) in [
        ("name = 'm'", "metrics.acc desc", &[2, 3, 1, 4][..]),
        ("name = 'm'", "metrics.acc", &[1, 3, 2, 4]),
        ("model like '%' and version >= 3", "version desc", &[4, 3]),
        (
            "metrics.acc >= 0.95 and metrics.acc < 0.99",
            "version",
            &[3],
        ),
        ("metrics.acc != 0.9", "version", &[2, 3]),
        ("metrics.`top 5` = 1", "version", &[3]),
        ("tags.team = 'x'", "version", &[1]),
        ("tags.team != 'x'", "version", &[2]),
        ("tags.team = 'o''x%'", "version", &[2]),
        ("tags.team ilike 'O_X\\'", "version", &[]),
        ("tags.team ilike 'O_X_'", "version", &[2]),
        ("alias = 'champion'", "version", &[2]),
        ("name = 'm' and alias != 'champion'", "version", &[1, 3, 4]),
        (
            "name = 'm' and approval = 'pending' and dataset = 'digits'",
            "bytes desc",
            &[1, 2, 3, 4],
        ),
        (
            "name = 'm' and created_at > '2020-01-01'",
            "created_at desc",
            &[4, 3, 2, 1],
        ),
        ("created_at < '2020-01-01'", "version", &[]),
        ("tags.team = 'x'' OR true --'", "version", &[]),
        (
            "dataset_version = 1 and name = 'other'",
            "dataset_version",
            &[1],
        ),
    ] {
        assert_eq!(
            db.found(filter, order).await,
            expected,
            "{filter} by {order}"
        );
    }
    let elsewhere = nereid_core::ids::ProjectId::generate();
    let (all, order) = (Filter::default(), "version".parse().unwrap());
    let none = db
        .store
        .search_model_versions(elsewhere, &all, &order, &ALL);
    assert!(none.await.unwrap().items.is_empty());
}

#[tokio::test]
async fn lineage_leads_from_data_and_jobs_to_versions() {
    let db = db().await;
    db.dataset("digits", "d2").await;
    let published = db.trained("m").await;
    let failed = db.submit(&train("m", json!({}))).await;
    let digits = name("digits");
    let of = |version| {
        db.store
            .models_of_dataset(db.project, &digits, version, &ALL)
    };
    let made = of(1).await.unwrap().items;
    assert_eq!(
        made.iter().map(|v| v.id).collect::<Vec<_>>(),
        [published.id]
    );
    assert!(of(2).await.unwrap().items.is_empty());
    assert_eq!(code(&of(3).await.unwrap_err()), "not_found");
    let by_job = db
        .store
        .models_of_job(db.project, made[0].lineage.job_id)
        .await
        .unwrap();
    assert_eq!(by_job.len(), 1);
    assert!(
        db.store
            .models_of_job(db.project, failed)
            .await
            .unwrap()
            .is_empty()
    );
}
