//! What can be watched of a job: events (also as a live stream), log, metrics, attempts.

mod stream;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use nereid_core::{
    events::{JobEvent, LogLevel, LogLine, MetricPoint},
    ids::JobId,
    jobs::Attempt,
};
use nereid_store::Page;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    ApiState,
    auth::Caller,
    extract::{Parameters, Path, Query, QueryReader},
    pages::{Paging, listing},
    problem::{Code, Problem},
};

listing!(
    /// A page of events of a job.
    JobEventList,
    JobEvent
);
listing!(
    /// A page of a job's log.
    LogLineList,
    LogLine
);

/// Largest event number, that of the database's type.
const MAX_SEQ: u64 = i64::MAX.unsigned_abs();
/// Metric points unless asked otherwise.
const DEFAULT_METRICS: u32 = 1_000;
/// Most metric points of one answer.
const MAX_METRICS: u32 = 10_000;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(list_job_events))
        .routes(routes!(list_job_logs))
        .routes(routes!(list_job_metrics))
        .routes(routes!(list_job_attempts))
}

/// From where to read events.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventQuery {
    /// Only events after this number; a stream also takes it from the header `Last-Event-ID`.
    #[param(
        minimum = 0,
        maximum = 9_223_372_036_854_775_807_i64,
        default = 0,
        required = false
    )]
    after: Option<u64>,
}

impl Parameters for EventQuery {
    fn read(reader: &mut QueryReader) -> Self {
        Self {
            after: reader.number("after", 0, MAX_SEQ),
        }
    }
}

/// Lists or streams a job's events
///
/// With `Accept: text/event-stream` the events come as a stream (Server-Sent Events): those of
/// the past first, then live, until the one that ends the job. `id` is the event's number;
/// a client that reconnects sends the last one it saw as `Last-Event-ID` and misses nothing.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = JobId, Path, description = "Identifier of the job"),
        ("Last-Event-ID" = Option<String>, Header, description = "Number of the last event seen, to go on after it", pattern = "^[0-9]{1,18}$"),
        EventQuery, Paging,
    ),
    responses((status = 200, description = "Events, oldest first", content(
        (JobEventList = "application/json"),
        (String = "text/event-stream"),
    ))),
    security(("api_key" = ["viewer"])),
)]
async fn list_job_events(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    Query(query): Query<EventQuery>,
    Query(paging): Query<Paging>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = last_event_id(&headers)?;
    let page = paging.request(&state.page_tokens, "events")?;
    let after = page.after.and_then(|p| p.parse().ok()).or(query.after);
    if wants_stream(&headers) {
        let after = seen.or(after).unwrap_or(0);
        return stream::open(&state, actor.project, id, after)
            .await
            .map(IntoResponse::into_response);
    }
    let limit = page.size;
    let items = state
        .store
        .job_events(actor.project, id, after.unwrap_or(0), limit)
        .await?;
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = items.last().filter(|_| full).map(|e| e.seq.to_string());
    let list = JobEventList::new(Page { items, next }, &state.page_tokens, "events");
    Ok(Json(list).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepts = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok());
    accepts.into_iter().any(|v| v.contains("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|v| v.parse().ok())
        .filter(|&n| n <= MAX_SEQ);
    number.map(Some).ok_or_else(|| {
        Problem::new(
            Code::InvalidParameter,
            "Last-Event-ID is no number of an event.",
        )
    })
}

/// Which lines of a log.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Only lines of this weight and above.
    #[param(value_type = LogLevel, required = false)]
    level: Option<LogLevel>,
}

impl Parameters for LogQuery {
    fn read(reader: &mut QueryReader) -> Self {
        Self {
            level: reader.optional("level"),
        }
    }
}

/// Lists a job's log
#[utoipa::path(
    get, path = "/v1/jobs/{id}/logs", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), LogQuery, Paging),
    responses((status = 200, description = "A page of lines, oldest first", body = LogLineList)),
    security(("api_key" = ["viewer"])),
)]
async fn list_job_logs(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    Query(query): Query<LogQuery>,
    Query(paging): Query<Paging>,
) -> Result<Json<LogLineList>, Problem> {
    let page = paging.request(&state.page_tokens, "logs")?;
    let page = state
        .store
        .job_logs(actor.project, id, query.level, &page)
        .await?;
    Ok(Json(LogLineList::new(page, &state.page_tokens, "logs")))
}

/// How many metric points.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MetricQuery {
    /// Most points; if there are more, they are thinned evenly.
    #[param(minimum = 1, maximum = 10_000, default = 1_000, required = false)]
    limit: u32,
}

impl Parameters for MetricQuery {
    fn read(reader: &mut QueryReader) -> Self {
        Self {
            limit: reader
                .number("limit", 1, MAX_METRICS)
                .unwrap_or(DEFAULT_METRICS),
        }
    }
}

/// Metric points of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricPoints {
    /// Points in step order.
    items: Vec<MetricPoint>,
}

/// Lists a job's metrics
#[utoipa::path(
    get, path = "/v1/jobs/{id}/metrics", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job"), MetricQuery),
    responses((status = 200, description = "Points in step order", body = MetricPoints)),
    security(("api_key" = ["viewer"])),
)]
async fn list_job_metrics(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
    Query(query): Query<MetricQuery>,
) -> Result<Json<MetricPoints>, Problem> {
    let items = state
        .store
        .job_metrics(actor.project, id, query.limit)
        .await?;
    Ok(Json(MetricPoints { items }))
}

/// Attempts at a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempts {
    /// Attempts, first to last.
    items: Vec<Attempt>,
}

/// Lists the attempts at a job
#[utoipa::path(
    get, path = "/v1/jobs/{id}/attempts", tag = "jobs",
    params(("id" = JobId, Path, description = "Identifier of the job")),
    responses((status = 200, description = "Attempts, first to last", body = Attempts)),
    security(("api_key" = ["viewer"])),
)]
async fn list_job_attempts(
    State(state): State<ApiState>,
    Caller(actor): Caller,
    Path(id): Path<JobId>,
) -> Result<Json<Attempts>, Problem> {
    let items = state.store.job_attempts(actor.project, id).await?;
    Ok(Json(Attempts { items }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    }

    #[test]
    fn streams_to_whom_asks_for_it() {
        assert!(wants_stream(&headers(
            "accept",
            "application/json, text/event-stream"
        )));
        assert!(!wants_stream(&headers("accept", "*/*")));
    }

    #[test]
    fn resumes_after_the_last_event_seen() {
        assert_eq!(
            last_event_id(&headers("last-event-id", "7")).unwrap(),
            Some(7)
        );
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        for bad in ["", "-1", "x", "9223372036854775808"] {
            assert!(
                last_event_id(&headers("last-event-id", bad)).is_err(),
                "{bad}"
            );
        }
    }
}
