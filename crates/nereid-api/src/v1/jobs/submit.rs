//! Submission: reads a job, checks it against what it names, and queues it.

mod batch;

use axum::response::Response;
use nereid_core::{
    Violations,
    datasets::{DatasetVersion, TargetSchema},
    ids::ProjectId,
    jobs::{JobKind, JobSpec, NewJob},
    keys::{Actor, Role},
    models,
    spec::{DatasetRef, DeploySpec, InitializeFrom, TrainSpec, finetune::Base, shapes},
};
use nereid_store::{
    ResourceKind::{Dataset, DatasetVersion as Version, Model, ModelAlias, ModelVersion},
    jobs::Submitted,
};

use crate::{
    ApiState,
    once::{Interrupt, Submission},
    problem::{Code, Problem, reference},
    v1::created,
};

/// Where the spec lies in the client's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// Under `/spec`.
    Spec,
    /// At the top, beside the options; it was moved under `/spec` before it got here.
    Flat,
}

impl Nesting {
    /// Makes pointers point into the body that the client sent.
    fn localise(self, problem: Problem) -> Problem {
        match self {
            Self::Spec => problem,
            Self::Flat => problem.map_pointers(|p| {
                p.strip_prefix("/spec")
                    .map_or_else(|| p.to_owned(), ToOwned::to_owned)
            }),
        }
    }
}

/// Accepts a job, or reports all its mistakes.
pub(crate) async fn submit(
    state: &ApiState,
    actor: &Actor,
    request: Submission,
    nesting: Nesting,
) -> Result<Response, Interrupt> {
    let mut new = NewJob::read(request.body).map_err(|v| nesting.localise(v.into()))?;
    demand_role(actor, new.spec.kind())?;
    request.once.replay(state, actor).await?;
    let resolved = resolve(state, actor.project, &mut new.spec).await;
    resolved.map_err(|p| nesting.localise(p))?;
    let store = state.store.with_actor(actor.key);
    let key = request.once.into_key();
    match store.submit_job(actor.project, key, &new).await? {
        Submitted::Fresh(job) => Ok(created(&format!("/v1/jobs/{}", job.id), job)),
        Submitted::Replay(stored) => Err(Interrupt::Replay(stored)),
    }
}

/// Deploying changes what endpoints serve, so it takes more than training does.
fn demand_role(actor: &Actor, kind: JobKind) -> Result<(), Problem> {
    let needed = match kind {
        JobKind::Train | JobKind::BatchPredict | JobKind::Noop => Role::Trainer,
        JobKind::Deploy => Role::Deployer,
    };
    if actor.role >= needed {
        return Ok(());
    }
    let detail = format!(
        "A {kind} job needs the role {needed}; the key has {}.",
        actor.role
    );
    Err(Problem::new(Code::Forbidden, detail))
}

/// Checks the spec against what it names and pins versions.
async fn resolve(state: &ApiState, project: ProjectId, spec: &mut JobSpec) -> Result<(), Problem> {
    match spec {
        JobSpec::Train(spec) => resolve_train(state, project, spec).await,
        JobSpec::Deploy(spec) => resolve_deploy(state, project, spec).await,
        JobSpec::BatchPredict(spec) => batch::resolve(state, project, spec).await,
        JobSpec::Noop(_) => Ok(()),
    }
}

async fn resolve_deploy(
    state: &ApiState,
    project: ProjectId,
    spec: &mut DeploySpec,
) -> Result<(), Problem> {
    state
        .store
        .model(project, &spec.model)
        .await
        .map_err(reference(&[Model], "/spec/model"))?;
    if let Some(alias) = spec.alias.take() {
        let version = state.store.aliased_version(project, &spec.model, &alias);
        let version = version.await;
        let version = version.map_err(reference(&[Model, ModelAlias], "/spec/alias"))?;
        spec.version = version.version;
        return Ok(());
    }
    let version = state
        .store
        .model_version(project, &spec.model, spec.version)
        .await;
    version
        .map(drop)
        .map_err(reference(&[Model, ModelVersion], "/spec/version"))
}

async fn resolve_train(
    state: &ApiState,
    project: ProjectId,
    spec: &mut TrainSpec,
) -> Result<(), Problem> {
    let train = pin(state, project, &mut spec.dataset, "/spec/dataset").await?;
    let base = match &mut spec.initialize_from {
        Some(from) => Some(pin_base(state, project, from).await?),
        None => None,
    };
    let mut violations = Violations::default();
    let held_out = [
        (&mut spec.validation_dataset, "/spec/validation_dataset"),
        (&mut spec.test_dataset, "/spec/test_dataset"),
    ];
    for (dataset, pointer) in held_out {
        if let Some(dataset) = dataset {
            let version = pin(state, project, dataset, pointer).await?;
            check_alike(&train, &version, pointer, &mut violations);
        }
    }
    if let Err(found) = write_out(spec, &train, base.as_ref()) {
        for v in found.into_vec() {
            violations.push(v.pointer, &v.code, v.detail);
        }
    }
    Ok(violations.into_result(())?)
}

/// Completes a spec by what it names and checks it: a network that was not written down, or by the
/// name of a preset, is stored written out, so that one can read and edit what was trained.
fn write_out(
    spec: &mut TrainSpec,
    train: &DatasetVersion,
    version: Option<&models::ModelVersion>,
) -> Result<(), Violations> {
    let base = version.map(|version| Base {
        network: &version.spec.network,
        signature: &version.signature,
    });
    if let Some(base) = base {
        spec.adopt(base, &train.schema, "/spec")?;
    }
    *spec = spec.expand(&train.schema, "/spec")?;
    let plan = spec.plan(&train.schema, train.statistics.rows, "/spec")?;
    if let Some(base) = base {
        spec.transfer(&plan, base, &train.schema, "/spec")?;
    }
    Ok(())
}

/// Looks up the version to start from and writes its number into the reference.
async fn pin_base(
    state: &ApiState,
    project: ProjectId,
    from: &mut InitializeFrom,
) -> Result<models::ModelVersion, Problem> {
    let [model_at, version_at] = [
        "/spec/initialize_from/model",
        "/spec/initialize_from/version",
    ];
    let model = state.store.model(project, &from.model).await;
    let model = model.map_err(reference(&[Model], model_at))?;
    if let Some(alias) = from.alias.take() {
        let found = state.store.aliased_version(project, &from.model, &alias);
        let alias_at = "/spec/initialize_from/alias";
        let found = found
            .await
            .map_err(reference(&[Model, ModelAlias], alias_at))?;
        from.version = Some(found.version);
        return Ok(found);
    }
    let version = from.version.or(model.latest_version).ok_or_else(|| {
        let detail = format!("the model {} has no version", model.name);
        Problem::violation(model_at, "not_found", detail)
    })?;
    from.version = Some(version);
    let found = state
        .store
        .model_version(project, &from.model, version)
        .await;
    found.map_err(reference(&[Model, ModelVersion], version_at))
}

/// Looks a dataset version up and writes its number into the reference.
async fn pin(
    state: &ApiState,
    project: ProjectId,
    dataset: &mut DatasetRef,
    pointer: &str,
) -> Result<DatasetVersion, Problem> {
    let version = state
        .store
        .dataset_version(project, &dataset.name, dataset.version)
        .await
        .map_err(reference(&[Dataset, Version], pointer))?;
    dataset.version = Some(version.version);
    Ok(version)
}

/// Records where held-out data does not look like the training data.
fn check_alike(train: &DatasetVersion, other: &DatasetVersion, pointer: &str, v: &mut Violations) {
    let (want, got) = (&train.schema.shape, &other.schema.shape);
    v.check(want == got, pointer, "shape_mismatch", || {
        let (want, got) = (shapes::show(want), shapes::show(got));
        format!("its samples have shape {got}, those of the training data {want}")
    });
    match (&train.schema.target, &other.schema.target) {
        (
            Some(TargetSchema::Class { classes, .. }),
            Some(TargetSchema::Class { classes: other, .. }),
        ) => {
            let unknown: Vec<_> = other
                .iter()
                .filter(|c| !classes.contains(c))
                .take(5)
                .collect();
            v.check(unknown.is_empty(), pointer, "target_mismatch", || {
                format!("it has classes that the training data lacks: {unknown:?}")
            });
        }
        (Some(TargetSchema::Value { .. }), Some(TargetSchema::Value { .. })) => {}
        (
            Some(TargetSchema::Labels { labels: names, .. }),
            Some(TargetSchema::Labels { labels: other, .. }),
        )
        | (
            Some(TargetSchema::Values { values: names, .. }),
            Some(TargetSchema::Values { values: other, .. }),
        ) => {
            let (want, got) = (names.len(), other.len());
            v.check(want == got, pointer, "target_mismatch", || {
                format!("it has {got} labels a sample, the training data {want}")
            });
            let sorted = |names: &Vec<String>| {
                let mut names = names.clone();
                names.sort();
                names
            };
            let mixed = names != other && sorted(names) == sorted(other);
            v.check(!mixed, pointer, "target_mismatch", || {
                "it has the training data's labels in another order".to_owned()
            });
        }
        _ => v.push(
            pointer,
            "target_mismatch",
            "its target is of another kind than the training data's",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(shape: &[usize], target: &serde_json::Value) -> DatasetVersion {
        serde_json::from_value(json!({
            "id": "01980000-0000-7000-8000-000000000000", "dataset": "d", "version": 1,
            "source": {"format": "csv", "files": {"data": "s3://b/k"}}, "files": {}, "digest": "",
            "schema": {"shape": shape, "dtype": "FP32", "target": target},
            "statistics": {"rows": 1, "mean": [], "std": [], "min": [], "max": []},
            "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn held_out_data_must_look_like_the_training_data() {
        let class = |names: &[&str]| json!({"kind": "class", "name": "y", "classes": names});
        let train = version(&[4], &class(&["a", "b"]));
        let codes = |other: &DatasetVersion| -> Vec<String> {
            let mut v = Violations::default();
            check_alike(&train, other, "/spec/test_dataset", &mut v);
            v.into_vec().into_iter().map(|v| v.code).collect()
        };
        assert!(codes(&version(&[4], &class(&["b"]))).is_empty());
        assert_eq!(codes(&version(&[5], &class(&["a"]))), ["shape_mismatch"]);
        assert_eq!(codes(&version(&[4], &class(&["c"]))), ["target_mismatch"]);
        assert_eq!(
            codes(&version(&[4], &json!({"kind": "value", "name": "y"}))),
            ["target_mismatch"]
        );
    }

    #[test]
    fn pointers_fit_the_body_that_was_sent() {
        let problem = Problem::violation("/spec/network/layers", "missing", "x");
        let flat = Nesting::Flat.localise(problem);
        assert_eq!(flat.errors()[0].pointer, "/network/layers");
        assert_eq!(flat.detail(), "/network/layers: x");
    }

    #[test]
    fn deploying_takes_more_than_training() {
        let actor = Actor {
            project: ProjectId::generate(),
            role: Role::Trainer,
            key: None,
        };
        assert!(demand_role(&actor, JobKind::Train).is_ok());
        assert!(demand_role(&actor, JobKind::Noop).is_ok());
        assert_eq!(
            demand_role(&actor, JobKind::Deploy).unwrap_err().kind(),
            Code::Forbidden
        );
    }
}
