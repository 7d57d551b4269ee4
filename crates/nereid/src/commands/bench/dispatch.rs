//! `nereid bench dispatch`: how fast jobs get into the queue and out of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use nereid_store::scratch::{ScratchDatabase, ServerSettings};
use nereid_worker::Tally;
use serde::Serialize;
use tokio::sync::watch;

use super::{
    DispatchArgs,
    load::{self, Submitter},
    pgbench::Pgbench,
    site::Site,
};
use crate::{config::Config, output, shutdown::Signals};

/// Clients that fill the queue before it is drained.
const FILLERS: u16 = 16;
/// Samples before those that count.
const WARM_UP: u32 = 20;

/// What was measured. Rates are per second, by the number of clients.
#[derive(Debug, Serialize)]
struct Report {
    server: ServerSettings,
    /// Rows inserted by `pgbench`, one each transaction; nothing if it is not installed.
    raw_insert: Option<BTreeMap<u16, f64>>,
    submit_http: BTreeMap<u16, f64>,
    submit_store: BTreeMap<u16, f64>,
    drain: Drain,
    start_http: Latency,
    start_store: Latency,
}

/// How fast one worker process runs the jobs of a full queue.
#[derive(Debug, Serialize)]
struct Drain {
    jobs: u64,
    slots: u32,
    per_second: f64,
}

/// Time from the call that submits a job to an idle queue until the job starts.
#[derive(Debug, Serialize)]
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures in a database of its own, and drops it however that ends.
pub async fn run(config: &Config, args: &DispatchArgs, json: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let server = config.database.url.as_ref().context(
        "no database server to measure: set database.url in the configuration, or DATABASE_URL",
    )?;
    let scratch = ScratchDatabase::create(server.reveal()).await?;
    let measured = tokio::select! {
        measured = Box::pin(measure(config, args, &scratch)) => measured,
        () = signals.received() => Err(anyhow!("interrupted")),
    };
    scratch.drop().await?;
    let report = measured?;
    if json {
        output::json(&report)
    } else {
        report.print()
    }
}

async fn measure(
    config: &Config,
    args: &DispatchArgs,
    scratch: &ScratchDatabase,
) -> anyhow::Result<Report> {
    let folder = tempfile::tempdir()?;
    let time = Duration::from_secs(args.seconds);
    let site = Site::open(config, scratch.url(), folder.path()).await?;
    let pgbench = Pgbench::prepare(folder.path(), scratch.url()).await?;
    let mut raw_insert = BTreeMap::new();
    let (mut submit_http, mut submit_store) = (BTreeMap::new(), BTreeMap::new());
    let (address, api) = site.api().await?;
    for &n in &args.clients {
        if let Some(pgbench) = &pgbench {
            raw_insert.insert(n, pgbench.per_second(n, time).await?);
        }
        let clients = site.http_clients(address, n).await?;
        submit_http.insert(n, load::per_second(clients, time).await?);
        submit_store.insert(n, load::per_second(site.store_clients(n)?, time).await?);
    }
    scratch.clear_jobs().await?;
    load::fill(site.store_clients(FILLERS)?, args.jobs).await?;
    let (mut tally, worker) = site.worker(args.slots).await?;
    let per_second = drain(&mut tally, args.jobs).await?;
    // As the peers' are, latencies are those of a queue that is new.
    scratch.clear_jobs().await?;
    let mut client = site.store_clients(1)?.remove(0);
    let start_store = latency(&mut client, &mut tally, args.samples).await?;
    let mut client = site.http_clients(address, 1).await?.remove(0);
    let start_http = latency(&mut client, &mut tally, args.samples).await?;
    worker.stop().await?;
    api.stop().await?;
    Ok(Report {
        server: scratch.settings().await?,
        raw_insert: pgbench.map(|_| raw_insert),
        submit_http,
        submit_store,
        drain: Drain {
            jobs: args.jobs,
            slots: args.slots,
            per_second,
        },
        start_http,
        start_store,
    })
}

/// Returns ended jobs per second, the first tenth left out, in which the worker warms up.
async fn drain(tally: &mut watch::Receiver<Tally>, jobs: u64) -> anyhow::Result<f64> {
    let first = tally.wait_for(|t| t.ended >= jobs / 10).await?.ended;
    let began = Instant::now();
    let last = tally.wait_for(|t| t.ended >= jobs).await?.ended;
    let rest = u32::try_from(last - first).unwrap_or(u32::MAX);
    Ok(f64::from(rest) / began.elapsed().as_secs_f64())
}

/// Submits jobs one by one to the idle queue.
async fn latency<S: Submitter>(
    client: &mut S,
    tally: &mut watch::Receiver<Tally>,
    samples: u32,
) -> anyhow::Result<Latency> {
    let mut times = Vec::new();
    for sample in 0..WARM_UP + samples {
        let before = tally.borrow_and_update().started;
        let called = Instant::now();
        let started = async {
            tally.wait_for(|t| t.started > before).await?;
            anyhow::Ok(called.elapsed())
        };
        let (submitted, started) = tokio::join!(client.submit(), started);
        submitted?;
        if sample >= WARM_UP {
            times.push(started?.as_secs_f64() * 1e3);
        }
        tally.wait_for(|t| t.ended > before).await?;
        // Out of step with whatever else has a beat here.
        tokio::time::sleep(Duration::from_millis(5).mul_f64(1.0 + 2.0 * rand::random::<f64>()))
            .await;
    }
    times.sort_by(f64::total_cmp);
    let share = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    Ok(Latency {
        p50_ms: share(50),
        p99_ms: share(99),
    })
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let ServerSettings {
            version,
            fsync,
            synchronous_commit,
        } = &self.server;
        output::line(&format!(
            "PostgreSQL {version}, fsync {fsync}, synchronous_commit {synchronous_commit}"
        ))?;
        let mut rows = Vec::new();
        if let Some(raw) = &self.raw_insert {
            self.rates(&mut rows, "raw insert (pgbench), 1/s", raw);
        } else {
            output::line(&"pgbench is not installed: no raw insert to compare with")?;
        }
        self.rates(&mut rows, "submit through HTTP, 1/s", &self.submit_http);
        self.rates(
            &mut rows,
            "submit through the store, 1/s",
            &self.submit_store,
        );
        let one =
            |what: &str, figure: String| [what.to_owned(), String::new(), figure, String::new()];
        let Drain {
            jobs,
            slots,
            per_second,
        } = &self.drain;
        rows.push(one(
            &format!("drain {jobs} jobs, one worker, {slots} slots, 1/s"),
            format!("{per_second:.0}"),
        ));
        for (how, latency) in [("HTTP", &self.start_http), ("store", &self.start_store)] {
            rows.push(one(
                &format!("call to start, {how}, p50 ms"),
                format!("{:.2}", latency.p50_ms),
            ));
            rows.push(one(
                &format!("call to start, {how}, p99 ms"),
                format!("{:.2}", latency.p99_ms),
            ));
        }
        output::table(["measure", "clients", "figure", "of raw insert"], rows)
    }

    /// Adds a row for each number of clients, with the share of the raw figure.
    fn rates(&self, rows: &mut Vec<[String; 4]>, what: &str, rates: &BTreeMap<u16, f64>) {
        for (clients, rate) in rates {
            let raw = self.raw_insert.as_ref().and_then(|raw| raw.get(clients));
            let share = raw.map_or_else(String::new, |raw| format!("{:.2}", rate / raw));
            rows.push([
                what.to_owned(),
                clients.to_string(),
                format!("{rate:.0}"),
                share,
            ]);
        }
    }
}
