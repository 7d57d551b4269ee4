//! A job's events as a stream: history, then live, then the end with the job.
//!
//! A stream outlives an outage of Postgres: it goes on where it was once Postgres is back.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use nereid_core::{
    events::{EventKind, JobEvent},
    ids::{JobId, ProjectId},
    jobs::JobStatus,
};
use nereid_store::notify::Wake;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{
    ApiState,
    problem::{Code, Problem},
};

/// Interval of comments that keep proxies from closing a silent stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest wait for a wake-up before looking anyway: wake-ups may be lost.
const POLL: Duration = Duration::from_secs(3);
/// Longest wait for Postgres before a look is given up.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after a look in vain.
const PAUSE: Duration = Duration::from_millis(500);
/// Events read at a time.
const BATCH: u32 = 200;

/// Opens the stream of the events after `after`.
///
/// # Errors
/// 404 if there is no such job.
pub(super) async fn open(
    state: &ApiState,
    project: ProjectId,
    id: JobId,
    after: u64,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Problem> {
    // Subscribed before the first look, so that nothing falls between the two.
    let wakes = state.wakeups.subscribe();
    let mut watch = Watch {
        state: state.clone(),
        project,
        id,
        after,
        pending: VecDeque::new(),
        wakes,
        over: false,
        ended: None,
        away: false,
    };
    watch.look().await?;
    let events = stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((Ok(encode(&event)), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

fn encode(event: &JobEvent) -> Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default()
        .id(event.seq.to_string())
        .event(event.kind.as_str())
        .data(data)
}

/// Tells of a change of status whether it ended the job.
fn is_end(event: &JobEvent) -> Option<bool> {
    if event.kind != EventKind::StatusChanged {
        return None;
    }
    let status: JobStatus = event.data.get("status")?.as_str()?.parse().ok()?;
    Some(status.is_final())
}

struct Watch {
    state: ApiState,
    project: ProjectId,
    id: JobId,
    after: u64,
    pending: VecDeque<JobEvent>,
    wakes: Receiver<Wake>,
    /// Whether the job has ended and all its events are in `pending`.
    over: bool,
    /// Whether the job had ended by the last event read; unknown before the first look.
    ended: Option<bool>,
    /// Whether the last look was in vain.
    away: bool,
}

impl Watch {
    async fn next(&mut self) -> Option<JobEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match self.look().await {
                Ok(()) => {
                    self.away = false;
                    if self.pending.is_empty() && !self.over {
                        self.wait(POLL).await?;
                    }
                }
                Err(e) if e.kind() == Code::Unavailable => {
                    if !std::mem::replace(&mut self.away, true) {
                        tracing::warn!(job = %self.id, error = ?e, "an event stream waits for Postgres");
                    }
                    self.wait(PAUSE).await?;
                }
                // The client reconnects with Last-Event-ID and so misses nothing.
                Err(e) => {
                    tracing::warn!(job = %self.id, error = ?e, "event stream cut short");
                    return None;
                }
            }
        }
    }

    /// Reads events that are new, in bounded time.
    async fn look(&mut self) -> Result<(), Problem> {
        tokio::time::timeout(LOOK, self.read_on())
            .await
            .unwrap_or_else(|_| Err(Problem::unavailable("Postgres does not answer")))
    }

    async fn read_on(&mut self) -> Result<(), Problem> {
        let store = &self.state.store;
        let ended = match self.ended {
            Some(ended) => ended,
            // Status before events: whatever led to a final status is among the events then.
            None => store.job(self.project, self.id).await?.status.is_final(),
        };
        let events = store
            .job_events(self.project, self.id, self.after, BATCH)
            .await?;
        let ended = events.iter().rev().find_map(is_end).unwrap_or(ended);
        let complete = events.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
        self.ended = Some(ended);
        self.over = ended && complete;
        if let Some(last) = events.last() {
            self.after = last.seq;
        }
        self.pending.extend(events);
        Ok(())
    }

    /// Waits until there may be something new, `longest` at most; `None` when the process is to stop.
    async fn wait(&mut self, longest: Duration) -> Option<()> {
        let Self {
            state, wakes, id, ..
        } = self;
        let woken = async {
            loop {
                match wakes.recv().await {
                    Ok(Wake::Job(job)) if job == *id => return,
                    Ok(Wake::Resync) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = state.shutdown.cancelled() => None,
            () = woken => Some(()),
            () = tokio::time::sleep(longest) => Some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_paused_or_retried_job_has_not_ended() {
        let event = |kind: &str, data: serde_json::Value| -> JobEvent {
            let job = "01980000-0000-7000-8000-000000000000";
            let at = "2026-01-01T00:00:00Z";
            let event = json!({"job_id": job, "seq": 1, "kind": kind, "data": data, "at": at});
            serde_json::from_value(event).unwrap()
        };
        let changed = |status: &str| is_end(&event("status_changed", json!({"status": status})));
        for status in ["queued", "running", "paused"] {
            assert_eq!(changed(status), Some(false), "{status}");
        }
        for status in ["succeeded", "failed", "stopped"] {
            assert_eq!(changed(status), Some(true), "{status}");
        }
        assert_eq!(
            is_end(&event("requested", json!({"request": "pause"}))),
            None
        );
    }
}
