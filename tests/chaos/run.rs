//! A run: undisturbed trainings for comparison, users and faults, rest, verification, the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clients::Clients,
    cluster::Cluster,
    faults::{Fault, Kind, schedule},
    http::Http,
    inject::Injector,
    ledger::{Entry, Ledger, Work},
    orphans,
    postgres::Stop,
    process::Role,
    report::{Counts, Report, say},
    specs,
    truth::Truth,
    verify::{Reference, histories, verify},
};

/// Users that train, and users that submit jobs which do nothing.
const TRAINERS: u64 = 4;
const NOOPPERS: u64 = 2;

pub struct Plan {
    pub seed: u64,
    /// How long faults are injected.
    pub duration: Duration,
    /// Mean time between two faults.
    pub mean_gap: Duration,
    /// Longest time until every job has ended once nothing fails any more.
    pub settle: Duration,
}

/// Runs a plan; panics with all there is to know if a promise was broken.
pub async fn run(plan: Plan) {
    let faults = schedule(plan.seed, plan.duration, plan.mean_gap);
    say(&format!(
        "\nchaos: seed {}, {} faults in {:.0?}",
        plan.seed,
        faults.len(),
        plan.duration
    ));
    let cluster = Arc::new(Box::pin(Cluster::start(2, 3)).await);
    let report = Arc::new(Report::new());
    if cluster
        .processes
        .iter()
        .all(|process| process.clock.is_none())
    {
        say("no clock steps: libfaketime is not installed (apt-get install libfaketime)");
    }
    let (references, mut entries) = Box::pin(undisturbed(&cluster)).await;
    report.note(&format!(
        "{} undisturbed trainings are done",
        references.len()
    ));

    let give_up = CancellationToken::new();
    let clients = Arc::new(Clients {
        http: Http::new(
            cluster.apis().iter().map(|api| api.url()).collect(),
            cluster.key.clone(),
            Arc::clone(&report),
            give_up.clone(),
        ),
        ledger: Ledger::default(),
        report: Arc::clone(&report),
        closing: CancellationToken::new(),
    });
    let mut users = clients.start(plan.seed, TRAINERS, NOOPPERS);
    let injector = Arc::new(Injector {
        cluster: Arc::clone(&cluster),
        report: Arc::clone(&report),
    });
    injector.run(&faults).await;
    cluster.clear();
    clients.closing.cancel();
    report.note("nothing fails any more");
    settle(&mut users, &plan, &report, &give_up).await;
    for process in &cluster.processes {
        injector.check_alive(process).await;
    }

    let truth = Truth::read(&cluster.postgres).await;
    entries.extend(clients.ledger.entries());
    let mut counts = verify(&truth, &entries, &references, &cluster.objects, &report).await;
    counts.submissions = clients.ledger.submissions() + references.len();
    check_faults(&faults, &cluster, &report);
    Box::pin(shut_down(&cluster, &report)).await;
    conclude(&plan, &cluster, &report, &counts, &truth, &entries);
}

/// Runs each spec once with nobody around, for comparison.
async fn undisturbed(cluster: &Cluster) -> (Vec<Reference>, Vec<Entry>) {
    let client = cluster.client(0);
    specs::prepare(&client).await;
    let ledger = Ledger::default();
    let mut jobs = Vec::new();
    for spec in 0..specs::COUNT {
        let job = client
            .submit_job(&specs::train(spec, "undisturbed"))
            .await
            .unwrap();
        ledger.accepted(job.id, Work::Train(spec));
        jobs.push(job.id);
    }
    for job in &jobs {
        crate::support::finish(&client, *job).await;
    }
    let truth = Truth::read(&cluster.postgres).await;
    let mut references = Vec::new();
    for job in &jobs {
        references.push(Reference::of(&truth.jobs[job], &cluster.objects).await);
    }
    (references, ledger.entries())
}

/// Waits until each user has seen the end of its last job.
async fn settle(
    users: &mut JoinSet<()>,
    plan: &Plan,
    report: &Report,
    give_up: &CancellationToken,
) {
    let all = async {
        while let Some(ended) = users.join_next().await {
            ended.unwrap();
        }
    };
    if timeout(plan.settle, all).await.is_err() {
        let what = format!(
            "jobs have not ended {:.0?} after the last fault",
            plan.settle
        );
        report.finding(None, what);
        give_up.cancel();
        while let Some(ended) = users.join_next().await {
            ended.unwrap();
        }
    } else {
        report.note("all jobs have ended");
    }
}

/// Every kind of fault that was due has happened at least once.
fn check_faults(faults: &[Fault], cluster: &Cluster, report: &Report) {
    let steps = cluster
        .processes
        .iter()
        .any(|process| process.clock.is_some());
    let due: BTreeSet<_> = faults.iter().map(|fault| fault.kind).collect();
    for kind in due {
        if report.count(kind) == 0 && (kind != Kind::StepClock || steps) {
            report.finding(None, format!("it never happened: {}", kind.name()));
        }
    }
}

/// Ends all processes in good order, and looks for what is left of them.
async fn shut_down(cluster: &Cluster, report: &Report) {
    let ends = cluster.processes.iter().map(async |process| {
        let status = process.end("TERM").await;
        (process, status)
    });
    for (process, status) in futures::future::join_all(ends).await {
        if !status.is_some_and(|status| status.success()) {
            let tail = process.log_tail(30);
            let what = format!("{} was asked to end, and: {status:?}\n{tail}", process.name);
            report.finding(None, what);
        }
        if process.role == Role::Worker {
            let scratch = process.data.join("scratch");
            let left: Vec<_> = std::fs::read_dir(scratch)
                .into_iter()
                .flatten()
                .flatten()
                .collect();
            if !left.is_empty() {
                report.finding(
                    None,
                    format!("{} left scratch files: {left:?}", process.name),
                );
            }
        }
    }
    cluster.postgres.down(Stop::Fast).await;
    let orphans = orphans::that_know(cluster.folder.path());
    if !orphans.is_empty() {
        report.finding(None, format!("orphan processes: {orphans:#?}"));
    }
}

fn conclude(
    plan: &Plan,
    cluster: &Cluster,
    report: &Report,
    counts: &Counts,
    truth: &Truth,
    entries: &[Entry],
) {
    say(&report.table(counts));
    let findings = report.findings();
    if findings.is_empty() {
        return;
    }
    let jobs: BTreeSet<_> = findings.iter().filter_map(|finding| finding.job).collect();
    say(&histories(truth, entries, &jobs));
    for process in &cluster.processes {
        say(&format!(
            "\n== the end of {}'s log\n{}",
            process.name,
            process.log_tail(40)
        ));
    }
    for finding in &findings {
        say(&format!("WRONG: {:?} {}", finding.job, finding.what));
    }
    panic!("{} promises broken; seed {}", findings.len(), plan.seed);
}
