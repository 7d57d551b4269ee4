//! A job's events as a stream: history, then live, then the end with the job.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use nereid_core::{
    events::JobEvent,
    ids::{JobId, ProjectId},
};
use nereid_store::notify::Wake;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{ApiState, problem::Problem};

/// Interval of comments that keep proxies from closing a silent stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest wait for a wake-up before looking anyway: wake-ups may be lost.
const POLL: Duration = Duration::from_secs(3);
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

struct Watch {
    state: ApiState,
    project: ProjectId,
    id: JobId,
    after: u64,
    pending: VecDeque<JobEvent>,
    wakes: Receiver<Wake>,
    /// Whether the job has ended and all its events are in `pending`.
    over: bool,
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
                Ok(()) if self.pending.is_empty() && !self.over => self.wait().await?,
                Ok(()) => {}
                // The client reconnects with Last-Event-ID and so misses nothing.
                Err(e) => {
                    tracing::warn!(job = %self.id, error = e.detail(), "event stream cut short");
                    return None;
                }
            }
        }
    }

    /// Reads events that are new.
    async fn look(&mut self) -> Result<(), Problem> {
        let store = &self.state.store;
        // Status before events: whatever led to a final status is among the events then.
        let ended = store.job(self.project, self.id).await?.status.is_final();
        let events = store
            .job_events(self.project, self.id, self.after, BATCH)
            .await?;
        let complete = events.len() < usize::try_from(BATCH).unwrap_or(usize::MAX);
        self.over = ended && complete;
        if let Some(last) = events.last() {
            self.after = last.seq;
        }
        self.pending.extend(events);
        Ok(())
    }

    /// Waits until there may be something new; `None` when the process is to stop.
    async fn wait(&mut self) -> Option<()> {
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
            () = tokio::time::sleep(POLL) => Some(()),
        }
    }
}
