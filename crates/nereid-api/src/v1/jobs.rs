//! Jobs: submit, list, show.

mod requests;
mod submit;
mod watch;

use axum::{Json, extract::State, response::Response};
use nereid_core::{
    Name,
    ids::JobId,
    jobs::{Job, JobKind, JobStatus},
};
use nereid_store::jobs::JobFilter;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::submit::{Nesting, submit};
use super::IdempotencyHeader;
use crate::{
    ApiState,
    auth::Caller,
    extract::{Parameters, Path, Query, QueryReader},
    once::{Interrupt, Submission},
    pages::{Paging, listing},
    problem::Problem,
    schemas::SubmitJob,
};

listing!(
    /// A page of jobs.
    JobList,
    Job
);

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(create_job, list_jobs))
        .routes(routes!(get_job))
        .merge(requests::routes())
        .merge(watch::routes())
}

/// Submits a job
///
/// The spec is checked as a whole, against the dataset or version it names, before it is
/// accepted; all mistakes are reported at once. Once this answers, the job survives any crash.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs",
    params(IdempotencyHeader), request_body = SubmitJob,
    responses((status = 201, description = "Accepted", body = Job)),
    security(("api_key" = ["trainer"])),
)]
async fn create_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    request: Submission,
) -> Result<Response, Interrupt> {
    submit(&state, &actor, request, Nesting::Spec).await
}

/// Which jobs to list, and in which order.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobQuery {
    /// Only jobs that stand here.
    #[param(value_type = JobStatus, required = false)]
    status: Option<JobStatus>,
    /// Only jobs of this kind.
    #[param(value_type = JobKind, required = false)]
    kind: Option<JobKind>,
    /// Only jobs about this model.
    #[param(value_type = Name, required = false)]
    model: Option<Name>,
    /// Only jobs with this label, as `key:value`; given several times, all must match.
    #[param(value_type = Vec<LabelFilter>, required = false, style = Form, explode, max_items = 16)]
    label: Vec<(String, String)>,
    /// Which jobs come first.
    #[param(value_type = JobOrder, required = false)]
    order: JobOrder,
}

/// A label to look for, as `key:value`.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "^[^:]+:", max_length = 320, example = "team:vision")]
#[expect(dead_code, reason = "for the document only")]
pub(crate) struct LabelFilter(String);

/// Order of a list of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum JobOrder {
    /// Newest first.
    #[default]
    Newest,
    /// Oldest first.
    Oldest,
}

impl std::str::FromStr for JobOrder {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            other => Err(format!("{other:?} is neither \"newest\" nor \"oldest\"")),
        }
    }
}

impl Parameters for JobQuery {
    fn read(reader: &mut QueryReader) -> Self {
        Self {
            status: reader.optional("status"),
            kind: reader.optional("kind"),
            model: reader.optional("model"),
            label: read_labels(reader),
            order: reader.optional("order").unwrap_or_default(),
        }
    }
}

fn read_labels(reader: &mut QueryReader) -> Vec<(String, String)> {
    let given: Vec<String> = reader.repeated("label").map(ToOwned::to_owned).collect();
    let v = reader.violations();
    v.check(given.len() <= 16, "label", "too_many", || {
        "may be given 16 times at most".to_owned()
    });
    let mut labels = Vec::new();
    for text in given {
        match text.split_once(':') {
            Some((key, value)) if !key.is_empty() && text.chars().count() <= 320 => {
                labels.push((key.to_owned(), value.to_owned()));
            }
            _ => v.push(
                "label",
                "invalid_value",
                "must be key:value, 320 characters at most",
            ),
        }
    }
    labels
}

impl From<JobQuery> for JobFilter {
    fn from(q: JobQuery) -> Self {
        Self {
            status: q.status,
            kind: q.kind,
            model: q.model,
            labels: q.label,
            oldest_first: q.order == JobOrder::Oldest,
        }
    }
}

/// Lists jobs
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(JobQuery, Paging),
    responses((status = 200, description = "A page of jobs", body = JobList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_jobs(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Query(query): Query<JobQuery>,
    Query(paging): Query<Paging>,
) -> Result<Json<JobList>, Problem> {
    // A position in one order means nothing in the other.
    let list = if query.order == JobOrder::Oldest {
        "jobs_oldest"
    } else {
        "jobs"
    };
    let page = paging.request(&state.page_tokens, list)?;
    let page = state
        .store
        .jobs(actor.project, &query.into(), &page)
        .await?;
    Ok(Json(JobList::new(page, &state.page_tokens, list)))
}

/// Returns a job
///
/// While it is queued, `waiting` says why it does not run yet: its place in the queue, and what is
/// missing.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job")),
    responses((status = 200, description = "The job", body = Job)),
    security(("api_key" = ["viewer"])),
)]
async fn get_job(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
) -> Result<Json<Job>, Problem> {
    Ok(Json(state.store.job(actor.project, id).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> (JobQuery, usize) {
        let mut reader = QueryReader::new(&format!("/v1/jobs?{query}").parse().unwrap());
        let read = JobQuery::read(&mut reader);
        (read, reader.violations().len())
    }

    #[test]
    fn reads_filters_and_order() {
        let (query, mistakes) =
            read("status=running&kind=train&model=digits&label=a:b&label=c:d:e&order=oldest");
        assert_eq!(mistakes, 0);
        assert_eq!(
            query.label,
            [
                ("a".to_owned(), "b".to_owned()),
                ("c".to_owned(), "d:e".to_owned())
            ]
        );
        let filter = JobFilter::from(query);
        assert_eq!(filter.status, Some(JobStatus::Running));
        assert!(filter.oldest_first);
    }

    #[test]
    fn refuses_what_the_document_does_not_allow() {
        for bad in [
            "status=done",
            "kind=x",
            "model=A",
            "label=a",
            "label=:a",
            "order=up",
            "label=a%3Ab%00",
        ] {
            assert_eq!(read(bad).1, 1, "{bad}");
        }
        assert_eq!(read(&"label=a:b&".repeat(17)).1, 1);
    }
}
