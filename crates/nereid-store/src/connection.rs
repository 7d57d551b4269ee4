//! Connections on which no statement waits for ever.
//!
//! Postgres ends statements that take too long, and says so. When it can no longer be reached it
//! says nothing, and the kernel waits for it for a quarter of an hour, or for good if nothing is
//! on its way. So each wait for an answer has a deadline here, and whatever cannot keep it loses
//! its connection. Both types here are executors, so that no statement gets past them.

use std::{io, time::Duration};

use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{
    Connection, Database, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use crate::store::StoreOptions;

/// Settings of each session, by Postgres' names.
const SESSION: [(&str, &str); 8] = [
    ("timezone", "UTC"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    // A process that stands still within a transaction must not hold its locks for longer than
    // heartbeats can wait: a lease of 15 s survives it.
    ("idle_in_transaction_session_timeout", "8s"),
    // Backends of hosts that went away end, and with them their locks. Without effect on a Unix
    // socket.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "15s"),
];
/// Settings of the sessions that the queue lives on: their statements go by keys, whatever the
/// statistics say. Those of a queue are nearly always stale, and a batch planned for an empty one
/// was seen to cost ten times as much on a full one. Compiling a plan costs more than running it.
const BY_KEY: [(&str, &str); 5] = [
    // By keys there is one plan only, so that making it again for each call is a waste.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];
/// Connections by key: one to submit, one to claim, one to end jobs, one to spare.
const BY_KEY_CONNECTIONS: u32 = 4;
/// Idle time after which such a connection is tried before it is used.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for an answer: above `statement_timeout`, so that Postgres' own word comes first.
const ANSWER: Duration = Duration::from_secs(35);
/// Longest wait for the answer to a ping.
const PING: Duration = Duration::from_secs(3);

/// Options that every connection of this process has.
pub(crate) fn options(options: &StoreOptions) -> Result<PgConnectOptions, sqlx::Error> {
    let connect: PgConnectOptions = options.url.parse()?;
    Ok(connect
        .application_name(&options.application_name)
        .options(SESSION))
}

/// The connections of this process.
#[derive(Debug, Clone)]
pub(crate) struct Pool(PgPool);

impl Pool {
    /// Connects.
    pub(crate) async fn connect(options: &StoreOptions) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // sqlx pings without a deadline: a dead connection would use up the whole wait for a
            // live one, and one given back in the middle of a statement would be held for ever.
            .test_before_acquire(false)
            .before_acquire(|conn, _| Box::pin(async { Ok(ping(conn).await.is_ok()) }))
            .after_release(|conn, _| Box::pin(async { ping(conn).await.map(|()| true) }))
            .connect_with(self::options(options)?)
            .await?;
        Ok(Self(pool))
    }

    /// Prepares a few more connections, for statements that must go by keys; see [`BY_KEY`].
    pub(crate) fn by_key(options: &StoreOptions) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(BY_KEY_CONNECTIONS)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move { Ok(meta.idle_for < TRIED_AFTER || ping(conn).await.is_ok()) })
            })
            .after_release(|conn, _| Box::pin(async { ping(conn).await.map(|()| true) }))
            .connect_lazy_with(self::options(options)?.options(BY_KEY));
        Ok(Self(pool))
    }

    /// Begins a transaction, which is rolled back when dropped.
    pub(crate) async fn begin(&self) -> Result<Tx, sqlx::Error> {
        let conn = self.0.begin();
        let wait = self.0.options().get_acquire_timeout() + ANSWER;
        Ok(Tx(timeout(wait, conn).await.map_err(|_| late())??))
    }

    /// The pool itself, for what has to wait for longer.
    pub(crate) const fn inner(&self) -> &PgPool {
        &self.0
    }
}

/// A transaction; rolled back when dropped.
#[derive(Debug)]
pub(crate) struct Tx(sqlx::Transaction<'static, Postgres>);

impl Tx {
    /// Commits. On an error it is unknown whether that was done.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        answered(self.0.commit()).await
    }

    /// Rolls back before it returns.
    pub(crate) async fn rollback(self) -> Result<(), sqlx::Error> {
        answered(self.0.rollback()).await
    }
}

/// Asks for a sign of life.
async fn ping(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    timeout(PING, conn.ping()).await.map_err(|_| late())?
}

/// Waits for an answer, but not for ever.
pub(crate) async fn answered<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(ANSWER, answer).await.map_err(|_| late())?
}

/// The error for an answer that did not come in time.
pub(crate) fn late() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "Postgres does not answer").into()
}

/// Ends `rows` with an error when one does not come in time.
fn in_time<'e, T: 'e>(
    rows: BoxStream<'e, Result<T, sqlx::Error>>,
) -> BoxStream<'e, Result<T, sqlx::Error>> {
    let next = |rows: Option<BoxStream<'e, Result<T, sqlx::Error>>>| async move {
        let mut rows = rows?;
        match timeout(ANSWER, rows.next()).await {
            Ok(row) => row.map(|row| (row, Some(rows))),
            Err(_) => Some((Err(late()), None)),
        }
    };
    Box::pin(stream::unfold(Some(rows), next))
}

type Rows<'e> = BoxStream<
    'e,
    Result<Either<<Postgres as Database>::QueryResult, <Postgres as Database>::Row>, sqlx::Error>,
>;

/// An executor that hands everything on and waits for no answer for ever.
macro_rules! executor {
    ($ty:ty, $self:ident => $inner:expr) => {
        impl<'c> Executor<'c> for $ty {
            type Database = Postgres;

            fn fetch_many<'e, 'q: 'e, E>($self, query: E) -> Rows<'e>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                in_time($inner.fetch_many(query))
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                $self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<<Postgres as Database>::Row>, sqlx::Error>>
            where
                'c: 'e,
                E: 'q + Execute<'q, Postgres>,
            {
                Box::pin(answered($inner.fetch_optional(query)))
            }

            fn prepare_with<'e>(
                $self,
                sql: SqlStr,
                parameters: &'e [<Postgres as Database>::TypeInfo],
            ) -> BoxFuture<'e, Result<<Postgres as Database>::Statement, sqlx::Error>>
            where
                'c: 'e,
            {
                Box::pin(answered($inner.prepare_with(sql, parameters)))
            }

            fn describe<'e>(
                $self,
                sql: SqlStr,
            ) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, sqlx::Error>>
            where
                'c: 'e,
            {
                Box::pin(answered($inner.describe(sql)))
            }
        }
    };
}

executor!(&'c mut Tx, self => (&mut *self.0));
executor!(&'c Pool, self => (&self.0));
