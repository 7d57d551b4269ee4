//! Wake-ups by LISTEN/NOTIFY: coalesced, outside of the submitting transaction, never relied on.
//!
//! A committing `pg_notify` takes a global lock in Postgres, so changes only note their wake-ups
//! here; one task per process sends them, at most every few milliseconds. Only group commits,
//! of which a process makes one at a time, send their own, and no more often. Listeners of the
//! same process get them through Postgres too: one path, one order.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nereid_core::ids::JobId;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Store, StoreError,
    connection::{answered, late},
};

/// Channel of all of Nereid's notifications.
pub(crate) const CHANNEL: &str = "nereid";
/// Payload of [`Wake::Queue`].
pub(crate) const QUEUE: &str = "queue";
/// Least time between two sends.
const COALESCE: Duration = Duration::from_millis(5);
/// Most wake-ups held; beyond, everybody is told to look at everything.
const MAX_PENDING: usize = 4096;
/// Jobs named in one payload, which Postgres limits to 8000 bytes.
const JOBS_PER_PAYLOAD: usize = 200;
/// Wake-ups that a slow subscriber may lag behind before it misses some.
const SUBSCRIBER_BUFFER: usize = 1024;
/// Longest silence of the LISTEN connection before it is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What a wake-up is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wake {
    /// A job may be waiting (submitted, retried, handed back).
    Queue,
    /// Something happened to a job (event to read, stop requested).
    Job(JobId),
    /// Endpoints, replicas or workers changed.
    Endpoints,
    /// The LISTEN connection was lost and is back: anything may have been missed.
    Resync,
}

impl Wake {
    /// Writes wake-ups down, as many jobs to a payload as fit.
    fn payloads(wakes: &HashSet<Self>) -> Vec<String> {
        let mut jobs = Vec::new();
        let mut payloads = Vec::new();
        for wake in wakes {
            match wake {
                Self::Queue => payloads.push(QUEUE.to_owned()),
                Self::Job(id) => jobs.push(id.to_string()),
                Self::Endpoints => payloads.push("endpoints".to_owned()),
                Self::Resync => payloads.push("resync".to_owned()),
            }
        }
        let packed = jobs.chunks(JOBS_PER_PAYLOAD);
        payloads.extend(packed.map(|ids| format!("job:{}", ids.join(","))));
        payloads
    }

    /// Reads a payload; one of a newer version that this one does not know asks to look at all.
    fn parse(payload: &str) -> Vec<Self> {
        match payload {
            QUEUE => vec![Self::Queue],
            "endpoints" => vec![Self::Endpoints],
            other => {
                let ids = other.strip_prefix("job:").unwrap_or_default().split(',');
                let jobs: Result<_, _> = ids.map(|id| id.parse().map(Self::Job)).collect();
                jobs.unwrap_or_else(|_| vec![Self::Resync])
            }
        }
    }
}

/// Receives wake-ups of one process and hands them to any number of listeners; reconnects by itself.
#[derive(Debug, Clone)]
pub struct Wakeups {
    pub(crate) sender: broadcast::Sender<Wake>,
}

impl Wakeups {
    /// Subscribes to all wake-ups from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Wake> {
        self.sender.subscribe()
    }
}

/// Wake-ups noted and not yet sent.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    wakes: Mutex<HashSet<Wake>>,
    added: Notify,
    /// When a commit last carried a wake-up itself.
    carried: Mutex<Option<Instant>>,
}

impl Pending {
    pub(crate) fn add(&self, wake: Wake) {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        if wakes.len() >= MAX_PENDING {
            wakes.clear();
            wakes.insert(Wake::Resync);
        }
        wakes.insert(wake);
        drop(wakes);
        self.added.notify_one();
    }

    /// Tells whether the next commit may wake the workers itself; if not, they are woken soon.
    pub(crate) fn carry_queue(&self) -> bool {
        let now = Instant::now();
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let may = carried.is_none_or(|last| now.duration_since(last) >= COALESCE);
        if may {
            *carried = Some(now);
        }
        may
    }

    fn take(&self) -> HashSet<Wake> {
        mem::take(&mut *self.wakes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store {
    /// Starts the one LISTEN connection of this process; ends with `shutdown`.
    ///
    /// The future also sends what [`Store::notify`] notes; until it runs, nothing is sent.
    pub fn listen(
        &self,
        shutdown: CancellationToken,
    ) -> (Wakeups, impl Future<Output = ()> + Send + use<>) {
        let (sender, _) = broadcast::channel(SUBSCRIBER_BUFFER);
        let wakeups = Wakeups {
            sender: sender.clone(),
        };
        let store = self.clone();
        let drive = async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ((), ()) = async { tokio::join!(store.receive(&sender), store.send()) } => {}
            }
            // What was committed just before the end still wakes the others.
            if let Err(e) = store.flush().await {
                tracing::debug!(error = %e, "last notifications not sent");
            }
        };
        (wakeups, drive)
    }

    /// Queues a notification: sent within a few ms, together with others, deduplicated. Never blocks or fails.
    pub fn notify(&self, wake: Wake) {
        self.pending.add(wake);
    }

    async fn send(&self) {
        loop {
            self.pending.added.notified().await;
            let started = Instant::now();
            if let Err(e) = self.flush().await {
                tracing::warn!(error = %e, "notifications not sent; slow polls make up for them");
            }
            sleep_until(started + COALESCE).await;
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let payloads = Wake::payloads(&self.pending.take());
        if !payloads.is_empty() {
            sqlx::query!(
                "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload",
                CHANNEL,
                &payloads
            )
            .execute(&self.by_key)
            .await?;
        }
        Ok(())
    }

    async fn receive(&self, sender: &broadcast::Sender<Wake>) {
        let mut backoff = COALESCE;
        loop {
            match self.receive_until_lost(sender, &mut backoff).await {
                Ok(()) => tracing::warn!("LISTEN connection lost"),
                Err(e) => tracing::warn!(error = %e, "cannot LISTEN"),
            }
            sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    async fn receive_until_lost(
        &self,
        sender: &broadcast::Sender<Wake>,
        backoff: &mut Duration,
    ) -> Result<(), StoreError> {
        // A connection of its own: it is held for as long as the process lives.
        let own = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with((*self.pool.inner().connect_options()).clone())
            .await?;
        let mut listener = PgListener::connect_with(&own).await?;
        listener.eager_reconnect(false);
        answered(listener.listen(CHANNEL)).await?;
        *backoff = COALESCE;
        // Nobody subscribed is no error; nor is it that something was missed until now.
        let _ = sender.send(Wake::Resync);
        loop {
            match timeout(SILENCE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    for wake in Wake::parse(notification.payload()) {
                        let _ = sender.send(wake);
                    }
                }
                Ok(lost) => return Ok(lost.map(|_| ())?),
                // Nothing to tell, or nobody there to tell it.
                Err(_) => {
                    let sign = sqlx::raw_sql("SELECT 1").execute(&mut listener);
                    timeout(SILENCE, sign).await.map_err(|_| late())??;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_round_trip_and_pile_up_to_a_bound() {
        let mut wakes = HashSet::from([Wake::Queue, Wake::Endpoints, Wake::Resync]);
        wakes.extend((0..2 * JOBS_PER_PAYLOAD).map(|_| Wake::Job(JobId::generate())));
        let payloads = Wake::payloads(&wakes);
        assert_eq!(payloads.len(), 5);
        assert!(payloads.iter().all(|p| p.len() < 8000));
        let read: HashSet<Wake> = payloads.iter().flat_map(|p| Wake::parse(p)).collect();
        assert_eq!(read, wakes);
        for unknown in ["of a newer version", "job:", "job:7"] {
            assert_eq!(Wake::parse(unknown), [Wake::Resync]);
        }

        let pending = Pending::default();
        for _ in 0..2 * MAX_PENDING {
            pending.add(Wake::Job(JobId::generate()));
        }
        let held = pending.take();
        assert!(held.len() <= MAX_PENDING && held.contains(&Wake::Resync));
    }
}
