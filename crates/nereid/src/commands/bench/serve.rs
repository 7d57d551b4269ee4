//! `nereid bench serve`: inference through HTTP beside the raw computation of the same model.
//!
//! Everything is measured in turn, round by round, so that a slow minute of the machine hits all
//! alike. The open loop counts each latency from when the request was due, whether or not a
//! connection was free then: a server that stalls cannot hide the requests it held up.

mod client;
mod load;
mod overload;
mod stage;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use nereid_core::{engine::Predictor, tensors::Batch};
use serde::Serialize;

use self::{
    client::Target,
    load::{Loop, Measured},
    overload::Overload,
    stage::{Served, Stage},
};
use super::ServeArgs;
use crate::{config::Config, output, shutdown::Signals};

/// One way to get answers from one network.
#[derive(Debug, Serialize)]
struct Figure {
    network: String,
    /// `raw`, `http json`, `http binary`, or a peer's name.
    how: String,
    /// One request after the other.
    single: Latency,
    /// All clients at once, each waiting for its answer.
    closed: Latency,
    /// At a constant rate, from when each request was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<Latency>,
}

/// Rate and latency of a measurement.
#[derive(Debug, Clone, Serialize)]
struct Latency {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// Answers other than 200.
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    clients: u16,
    figures: Vec<Figure>,
    overload: Vec<Overload>,
}

/// What is measured of one network in one way, over all rounds.
struct Way {
    network: String,
    how: String,
    source: Source,
    single: Measured,
    closed: Measured,
    open: Measured,
}

/// Where answers come from.
enum Source {
    Raw(Arc<dyn Predictor>, Batch),
    Http(Target),
}

/// Starts a site, measures, and stops it however that ends.
pub async fn run(config: Config, args: &ServeArgs, json: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let folder = tempfile::tempdir()?;
    let stage = Stage::open(config, folder.path()).await?;
    let measured = tokio::select! {
        measured = Box::pin(measure(&stage, args)) => measured,
        () = signals.received() => Err(anyhow::anyhow!("interrupted")),
    };
    stage.close().await?;
    let report = measured?;
    if json {
        output::json(&report)
    } else {
        report.print()
    }
}

async fn measure(stage: &Stage<'_>, args: &ServeArgs) -> anyhow::Result<Report> {
    let mut served = Vec::new();
    for case in stage::chosen(&args.networks)? {
        served.push(stage.serve(case, args.batching.as_ref()).await?);
    }
    let mut ways = Vec::new();
    for network in &served {
        ways.extend(ways_of(network, args).await?);
    }
    let seconds = Duration::from_secs(args.seconds);
    for round in 0..args.rounds {
        for way in &mut ways {
            tracing::info!(round, network = way.network, how = way.how, "measuring");
            way.measure(args, seconds).await?;
        }
    }
    let mut overloads = Vec::new();
    if let Some(seconds) = args.overload {
        let own = ways.iter().filter(|w| w.how == "http json");
        for way in own {
            let Source::Http(target) = &way.source else {
                continue;
            };
            let capacity = way.closed.latency().per_second;
            let time = Duration::from_secs(seconds);
            let result = overload::run(&way.network, target.clone(), capacity, time);
            overloads.push(result.await?);
        }
    }
    Ok(Report {
        clients: args.clients,
        figures: ways.into_iter().map(Way::figure).collect(),
        overload: overloads,
    })
}

/// Ways to get answers from a network: the raw model, this server, and the peers that have it.
async fn ways_of(served: &Served, args: &ServeArgs) -> anyhow::Result<Vec<Way>> {
    let raw = Source::Raw(Arc::clone(&served.model), served.batch.clone());
    let mut ways = vec![Way::new(&served.network, "raw", raw)];
    ways.push(Way::new(
        &served.network,
        "http json",
        Source::Http(served.json.clone()),
    ));
    if client::answers(served.binary.clone()).await? {
        let binary = Source::Http(served.binary.clone());
        ways.push(Way::new(&served.network, "http binary", binary));
    }
    for peer in &args.peers {
        let (name, rest) = peer.split_once(':').context("a peer is name:network=URL")?;
        let (network, url) = rest.split_once('=').context("a peer is name:network=URL")?;
        if network == served.network {
            let target = served.json.at(url).await?;
            ways.push(Way::new(network, name, Source::Http(target)));
        }
    }
    Ok(ways)
}

impl Way {
    fn new(network: &str, how: &str, source: Source) -> Self {
        Self {
            network: network.to_owned(),
            how: how.to_owned(),
            source,
            single: Measured::default(),
            closed: Measured::default(),
            open: Measured::default(),
        }
    }

    async fn measure(&mut self, args: &ServeArgs, time: Duration) -> anyhow::Result<()> {
        let clients = args.clients;
        match &self.source {
            Source::Raw(model, batch) => {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                self.single.add(load::raw(model, batch, 1, time).await?);
                self.closed
                    .add(load::raw(model, batch, threads, time).await?);
            }
            Source::Http(target) => {
                let run = async |clients, how| load::http(target, clients, how, time).await;
                self.single.add(run(1, Loop::Closed).await?);
                self.closed.add(run(clients, Loop::Closed).await?);
                let rate = self.closed.latency().per_second * args.load;
                // Connections enough that none is waited for, unless the server stalls.
                let open = run(clients.saturating_mul(2), Loop::Open(rate)).await?;
                self.open.add(open);
            }
        }
        Ok(())
    }

    fn figure(self) -> Figure {
        Figure {
            single: self.single.latency(),
            closed: self.closed.latency(),
            open: matches!(self.source, Source::Http(_)).then(|| self.open.latency()),
            network: self.network,
            how: self.how,
        }
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        let (closed, open) = (format!("closed, {}", self.clients), "open".to_owned());
        for figure in &self.figures {
            let loops = [
                ("single".to_owned(), Some(&figure.single)),
                (closed.clone(), Some(&figure.closed)),
                (open.clone(), figure.open.as_ref()),
            ];
            for (name, latency) in loops {
                if let Some(latency) = latency {
                    rows.push(row(figure, name, latency));
                }
            }
        }
        let header = [
            "network",
            "how",
            "loop",
            "1/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "failed",
        ];
        output::table(header, rows)?;
        self.overload.iter().try_for_each(Overload::print)
    }
}

fn row(figure: &Figure, name: String, latency: &Latency) -> [String; 8] {
    [
        figure.network.clone(),
        figure.how.clone(),
        name,
        format!("{:.0}", latency.per_second),
        format!("{:.0}", latency.p50_us),
        format!("{:.0}", latency.p99_us),
        format!("{:.0}", latency.p999_us),
        latency.failed.to_string(),
    ]
}
