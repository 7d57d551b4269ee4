//! What clients ask of a job: pause, resume, stop, cancel, retry.

use axum::{Json, extract::State};
use nereid_core::{
    ids::JobId,
    jobs::{Job, JobRequest, JobStatus},
    keys::Actor,
};
use nereid_store::{StoreError, WriteTx};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::Path,
    once::{BareSubmission, Interrupt},
    problem::{Code, Problem},
    v1::IdempotencyHeader,
};

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(pause_job))
        .routes(routes!(resume_job))
        .routes(routes!(stop_job))
        .routes(routes!(cancel_job))
        .routes(routes!(retry_job))
}

/// Puts a job aside
///
/// A running training saves its state and frees its worker, then the job is `paused`; a waiting
/// one is `paused` at once. It goes on when resumed. Asking again changes nothing; a job that has
/// ended, or that was asked to stop, refuses.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/pause", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), IdempotencyHeader),
    responses((status = 200, description = "It is paused, or will be shortly", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn pause_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    request: BareSubmission,
) -> Result<Json<Job>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let asked = tx.request_job(id, JobRequest::Pause).await;
    finish(&state, &actor, id, tx, asked).await
}

/// Lets a paused job go on
///
/// It waits for a worker again and goes on from where it was paused. A job that has not been
/// asked to pause, or has not come to rest yet, refuses.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/resume", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), IdempotencyHeader),
    responses((status = 200, description = "It waits for a worker again", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn resume_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    request: BareSubmission,
) -> Result<Json<Job>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let asked = tx.resume_job(id).await;
    finish(&state, &actor, id, tx, asked).await
}

/// Ends a training now and keeps its model
///
/// What was trained so far is evaluated and published, then the job is `stopped` for the reason
/// `stopped_early`, with a result. A waiting or paused job that has trained before runs once more
/// for that. There is nothing to keep of any other job: it is cancelled.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/stop", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), IdempotencyHeader),
    responses((status = 200, description = "It ends", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn stop_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    request: BareSubmission,
) -> Result<Json<Job>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let asked = tx.request_job(id, JobRequest::Stop).await;
    finish(&state, &actor, id, tx, asked).await
}

/// Ends a job without a model
///
/// A waiting or paused job ends at once, a running one within a heartbeat of its worker or after
/// its current batch. Once this answers, nothing is published any more. Asking again changes
/// nothing; a job that has ended refuses.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), IdempotencyHeader),
    responses((status = 200, description = "It ends", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn cancel_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    request: BareSubmission,
) -> Result<Json<Job>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let asked = tx.request_job(id, JobRequest::Cancel).await;
    finish(&state, &actor, id, tx, asked).await
}

/// Queues a failed or stopped job again
///
/// It gets a fresh budget of attempts and goes on from its last checkpoint.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/retry", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), IdempotencyHeader),
    responses((status = 200, description = "It waits for a worker again", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn retry_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    request: BareSubmission,
) -> Result<Json<Job>, Interrupt> {
    let mut tx = request.nothing()?.begin(&state, &actor).await?;
    let asked = tx.retry_job(id).await;
    finish(&state, &actor, id, tx, asked).await
}

/// Commits what a job was asked, or says what it can be asked instead.
async fn finish(
    state: &ApiState,
    actor: &Actor,
    id: JobId,
    tx: WriteTx,
    asked: Result<Job, StoreError>,
) -> Result<Json<Job>, Interrupt> {
    match asked {
        Ok(job) => {
            tx.commit(200, &job).await?;
            Ok(Json(job))
        }
        Err(StoreError::Conflict { code, what }) => {
            tx.rollback().await?;
            let job = state.store.job(actor.project, id).await?;
            let detail = format!("{what}; {}", possible(&job));
            Err(Problem::new(Code::Conflict, detail).coded(code).into())
        }
        Err(e) => Err(e.into()),
    }
}

/// Says what a job can be asked where it stands.
fn possible(job: &Job) -> &'static str {
    match (job.status, job.requested) {
        (JobStatus::Queued | JobStatus::Running, None) => {
            "it can be paused, stopped (which keeps its model) or cancelled"
        }
        (JobStatus::Queued | JobStatus::Running, Some(JobRequest::Pause)) => {
            "it is about to pause; it can be stopped (which keeps its model) or cancelled"
        }
        (JobStatus::Queued | JobStatus::Running, Some(JobRequest::Stop)) => {
            "it is about to stop and publish its model; it can be cancelled"
        }
        (JobStatus::Queued | JobStatus::Running, Some(JobRequest::Cancel)) => "it is about to end",
        (JobStatus::Paused, _) => "it can be resumed, stopped (which keeps its model) or cancelled",
        (JobStatus::Succeeded | JobStatus::Failed | JobStatus::Stopped, _) => {
            if job.result.is_some() {
                "it can only be submitted anew"
            } else {
                "it can be retried"
            }
        }
    }
}
