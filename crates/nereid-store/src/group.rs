//! Group commit: calls that come while a write is under way are made together by the next one.
//!
//! A commit waits for the disk, and that costs as much for one row as for a hundred. Nobody waits
//! for company: a call that comes alone is written at once.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    StoreError, connection::Pool, jobs::submit::Submissions, notify::Pending,
    queue::complete::Completions,
};

/// Most calls of one write: beyond, the wait of the first grows and nothing is won.
const MOST: usize = 512;

/// The groups of a store.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) submissions: Group<Submissions>,
    pub(crate) completions: Group<Completions>,
}

impl Groups {
    pub(crate) fn start(by_key: &Pool, pending: &Arc<Pending>) -> Self {
        Self {
            submissions: Group::start(Submissions {
                pool: by_key.clone(),
                pending: Arc::clone(pending),
            }),
            completions: Group::start(Completions(by_key.clone())),
        }
    }
}

/// What makes the calls of a group.
pub(crate) trait GroupWrite: Send + Sync + 'static {
    /// What is asked.
    type Call: Send + Sync;
    /// What comes of it.
    type Answer: Send;

    /// Makes all `calls` in one transaction; answers in their order.
    fn write(
        &self,
        calls: &[Self::Call],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

/// Where the answer to a call goes.
type Caller<W> = oneshot::Sender<Result<<W as GroupWrite>::Answer, StoreError>>;

/// Calls of one kind, and the task that makes them; the task ends with this.
pub(crate) struct Group<W: GroupWrite> {
    calls: mpsc::UnboundedSender<(W::Call, Caller<W>)>,
    _writer: JoinSet<()>,
}

impl<W: GroupWrite> Debug for Group<W> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl<W: GroupWrite> Group<W> {
    /// Starts the task.
    pub(crate) fn start(write: W) -> Self {
        // No bound is needed: each call has a caller that waits for its answer.
        let (calls, waiting) = mpsc::unbounded_channel();
        let mut writer = JoinSet::new();
        writer.spawn(write_all(write, waiting));
        Self {
            calls,
            _writer: writer,
        }
    }

    /// Makes a call, together with others that wait; a caller that goes away does not undo it.
    pub(crate) async fn call(&self, call: W::Call) -> Result<W::Answer, StoreError> {
        let (caller, answer) = oneshot::channel();
        self.calls.send((call, caller)).map_err(|_| unanswered())?;
        answer.await.map_err(|_| unanswered())?
    }
}

async fn write_all<W: GroupWrite>(
    write: W,
    mut waiting: mpsc::UnboundedReceiver<(W::Call, Caller<W>)>,
) {
    let mut batch = Vec::with_capacity(MOST);
    while waiting.recv_many(&mut batch, MOST).await > 0 {
        let (calls, callers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let answers = write_each(&write, &calls).await;
        for (caller, answer) in callers.into_iter().zip(answers) {
            // Whoever asked may have gone away.
            let _ = caller.send(answer);
        }
    }
}

/// Makes the calls; where one spoils the write of all, each is made alone.
async fn write_each<W: GroupWrite>(
    write: &W,
    calls: &[W::Call],
) -> Vec<Result<W::Answer, StoreError>> {
    match write.write(calls).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(e) if calls.len() == 1 => vec![Err(e)],
        Err(e) if e.is_unavailable() => calls.iter().map(|_| Err(same(&e))).collect(),
        Err(_) => {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls.chunks(1) {
                let alone = write.write(call).await;
                answers.push(alone.and_then(|mut all| all.pop().ok_or_else(unanswered)));
            }
            answers
        }
    }
}

fn unanswered() -> StoreError {
    StoreError::Database(sqlx::Error::WorkerCrashed)
}

/// Says again that the database is not available.
fn same(error: &StoreError) -> StoreError {
    StoreError::Database(sqlx::Error::Io(std::io::Error::other(error.to_string())))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers, one batch for each permit; 13 spoils every batch it is in.
    struct Doubler {
        permits: &'static Semaphore,
        batches: &'static Mutex<Vec<Vec<u32>>>,
    }

    impl GroupWrite for Doubler {
        type Call = u32;
        type Answer = u32;

        async fn write(&self, calls: &[u32]) -> Result<Vec<u32>, StoreError> {
            self.permits.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(calls.to_vec());
            if calls.contains(&13) {
                return Err(StoreError::LeaseLost);
            }
            Ok(calls.iter().map(|n| n * 2).collect())
        }
    }

    #[tokio::test]
    async fn what_comes_during_a_write_is_written_together_and_answered_alone() {
        static PERMITS: Semaphore = Semaphore::const_new(0);
        static BATCHES: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());
        let group = Group::start(Doubler {
            permits: &PERMITS,
            batches: &BATCHES,
        });
        let mut first = std::pin::pin!(group.call(1));
        assert!(futures::poll!(&mut first).is_pending());
        // Now it is being written, and the others come.
        tokio::task::yield_now().await;
        let mut rest = futures::future::join_all([2, 13, 4].map(|n| group.call(n)));
        assert!(futures::poll!(&mut rest).is_pending());
        PERMITS.add_permits(10);
        assert_eq!(first.await.unwrap(), 2);
        let rest = rest.await;
        assert_eq!(*rest[0].as_ref().unwrap(), 4);
        assert!(matches!(rest[1], Err(StoreError::LeaseLost)));
        assert_eq!(*rest[2].as_ref().unwrap(), 8);
        let batches = BATCHES.lock().unwrap();
        assert_eq!(batches[1], [2, 13, 4]);
        assert_eq!(batches[2..], [vec![2], vec![13], vec![4]]);
    }
}
