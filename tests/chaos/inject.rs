//! Injects faults into a cluster; one at a time into each process, link and server.

use std::{sync::Arc, time::Duration};

use sqlx::Connection;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::Cluster,
    faults::{Fault, Kind},
    orphans,
    postgres::Stop,
    process::Process,
    proxy::{Proxy, Weather},
    report::Report,
    support::signal_process,
};

/// Pause between two looks at something that is about to change.
const LOOK: Duration = Duration::from_millis(50);

pub struct Injector {
    pub cluster: Arc<Cluster>,
    pub report: Arc<Report>,
}

impl Injector {
    /// Injects a whole schedule and waits until the last fault is over.
    pub async fn run(self: &Arc<Self>, schedule: &[Fault]) {
        let began = Instant::now();
        let mut under_way = JoinSet::new();
        for fault in schedule.iter().copied() {
            sleep_until(began + fault.at).await;
            let injector = Arc::clone(self);
            under_way.spawn(async move { Box::pin(injector.inject(fault)).await });
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
    }

    async fn inject(&self, fault: Fault) {
        let happened = match fault.kind {
            Kind::KillWorker => self.kill(self.worker(fault), fault.length).await,
            Kind::KillApi => self.kill(self.api(fault), fault.length).await,
            Kind::KillTrainer => self.kill_trainer(fault).await,
            Kind::FreezeWorker => self.freeze(self.worker(fault), fault.length).await,
            Kind::FreezeApi => self.freeze(self.api(fault), fault.length).await,
            Kind::DrainWorker => self.drain(self.worker(fault)).await,
            Kind::DrainApi => self.drain(self.api(fault)).await,
            Kind::StepClock => self.step_clock(fault).await,
            Kind::RestartFast => self.restart(Stop::Fast, Duration::ZERO).await,
            Kind::RestartImmediate => self.restart(Stop::Immediate, Duration::ZERO).await,
            Kind::Outage => self.restart(Stop::Fast, fault.length).await,
            Kind::TerminateBackends => self.terminate_backends().await,
            Kind::PinHorizon => self.pin_horizon(fault.length).await,
            Kind::DropConnections => self.drop_connections(fault),
            _ => self.weather(fault).await,
        };
        if happened {
            self.report.injected(fault.kind);
        }
    }

    fn worker(&self, fault: Fault) -> &Process {
        pick(&self.cluster.workers(), fault)
    }

    fn api(&self, fault: Fault) -> &Process {
        pick(&self.cluster.apis(), fault)
    }

    /// Notes it if a process has ended before anybody asked it to.
    pub async fn check_alive(&self, process: &Process) {
        if let Some(status) = process.ended_by_itself().await {
            let tail = process.log_tail(30);
            let what = format!("{} ended by itself: {status}\n{tail}", process.name);
            self.report.finding(None, what);
        }
    }

    async fn kill(&self, process: &Process, pause: Duration) -> bool {
        let _turn = process.turn.lock().await;
        self.check_alive(process).await;
        self.report.note(&format!("kill -9 {}", process.name));
        process.end("KILL").await;
        sleep(pause).await;
        process.start().await;
        true
    }

    /// Kills the process that trains for some worker, as soon as there is one.
    async fn kill_trainer(&self, fault: Fault) -> bool {
        let mut workers = self.cluster.workers();
        let n = workers.len();
        workers.rotate_left(fault.target % n);
        let until = Instant::now() + fault.length * 5;
        while Instant::now() < until {
            for worker in &workers {
                let Some(pid) = worker.pid().await else {
                    continue;
                };
                if let Some(&trainer) = orphans::children_of(pid).first() {
                    let name = &worker.name;
                    self.report
                        .note(&format!("kill -9 training process of {name}"));
                    signal_process(trainer, "KILL");
                    return true;
                }
            }
            sleep(LOOK).await;
        }
        self.report
            .note("nobody trained, so no training was killed");
        false
    }

    async fn freeze(&self, process: &Process, length: Duration) -> bool {
        let _turn = process.turn.lock().await;
        self.check_alive(process).await;
        self.report
            .note(&format!("{} stands still for {length:.1?}", process.name));
        process.signal("STOP").await;
        sleep(length).await;
        process.signal("CONT").await;
        true
    }

    async fn drain(&self, process: &Process) -> bool {
        let _turn = process.turn.lock().await;
        self.check_alive(process).await;
        self.report.note(&format!("SIGTERM {}", process.name));
        let status = process.end("TERM").await;
        if !status.is_some_and(|status| status.success()) {
            let tail = process.log_tail(30);
            let what = format!("{} was asked to end, and: {status:?}\n{tail}", process.name);
            self.report.finding(None, what);
        }
        process.start().await;
        true
    }

    /// Steps a worker's clock and counts it only if the worker really went by it.
    async fn step_clock(&self, fault: Fault) -> bool {
        let processes = &self.cluster.processes;
        let Some((process, clock)) = processes
            .iter()
            .find_map(|process| Some((process, process.clock.as_ref()?)))
        else {
            return false;
        };
        let _turn = process.turn.lock().await;
        let seconds = if fault.strength < 0.5 { 3600 } else { -3600 };
        self.report
            .note(&format!("{}: clock stepped by {seconds} s", process.name));
        clock.step(seconds);
        // Twice what the library keeps an offset for, and some time to work with it.
        sleep(fault.length + Duration::from_secs(2)).await;
        let offset = process.pid().await.and_then(|pid| clock.offset_of(pid));
        clock.step(0);
        offset.is_some_and(|offset| (offset - seconds).abs() < 60)
    }

    async fn restart(&self, how: Stop, away: Duration) -> bool {
        let _turn = self.cluster.postgres_turn.lock().await;
        self.report
            .note(&format!("Postgres goes ({how:?}) for {away:.1?}"));
        self.cluster.postgres.down(how).await;
        sleep(away).await;
        self.cluster.postgres.up().await;
        true
    }

    async fn terminate_backends(&self) -> bool {
        let _turn = self.cluster.postgres_turn.lock().await;
        let ended = self.cluster.postgres.terminate_backends().await;
        self.report.note(&format!("{ended} backends terminated"));
        ended > 0
    }

    async fn pin_horizon(&self, length: Duration) -> bool {
        let session = {
            let _turn = self.cluster.postgres_turn.lock().await;
            let mut session = self.cluster.postgres.session().await;
            for statement in [
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "SELECT count(*) FROM job_leases",
            ] {
                sqlx::query(statement).execute(&mut session).await.unwrap();
            }
            session
        };
        self.report
            .note(&format!("the horizon is pinned for {length:.1?}"));
        sleep(length).await;
        // Another fault may have ended the session meanwhile.
        let _ = session.close_hard().await;
        true
    }

    fn drop_connections(&self, fault: Fault) -> bool {
        if fault.strength < 0.5 {
            self.report.note("all connections to Postgres dropped");
            for process in &self.cluster.processes {
                process.postgres.cut();
            }
        } else {
            self.report.note("all connections to S3 dropped");
            for process in &self.cluster.processes {
                process.s3.cut();
            }
        }
        true
    }

    /// Bad weather on one link, or on all links to S3, for a while.
    async fn weather(&self, fault: Fault) -> bool {
        let processes: Vec<_> = self.cluster.processes.iter().collect();
        let process = pick(&processes, fault);
        let amount = |least: f64, most: f64| least + (most - least) * fault.strength;
        let s3 = |weather| (&process.s3, "S3", weather);
        let postgres = |weather| (&process.postgres, "Postgres", weather);
        let either = |weather| {
            if fault.strength < 0.5 {
                s3(weather)
            } else {
                postgres(weather)
            }
        };
        let (link, server, weather) = match fault.kind {
            Kind::RefuseConnections => either(Weather::Refusing),
            Kind::DelayConnections => {
                either(Weather::Slow(Duration::from_secs_f64(amount(0.01, 0.2))))
            }
            Kind::PartitionPostgres => postgres(Weather::Partitioned),
            Kind::PartitionS3 => s3(Weather::Partitioned),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small and positive"
            )]
            Kind::NarrowS3 => s3(Weather::Narrow(amount(500.0, 50_000.0) as u32)),
            Kind::S3Status500 => s3(Weather::Failing(500)),
            Kind::S3Status503 => s3(Weather::Failing(503)),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small and positive"
            )]
            _ => s3(Weather::Cutting(amount(300.0, 30_000.0) as usize)),
        };
        self.report.note(&format!(
            "{} to {server}: {weather:?} for {:.1?}",
            process.name, fault.length
        ));
        under(link, weather, fault.length).await;
        true
    }
}

async fn under(link: &Proxy, weather: Weather, length: Duration) {
    let _turn = link.turn.lock().await;
    link.set(weather);
    sleep(length).await;
    link.set(Weather::Clear);
}

fn pick<'a>(processes: &[&'a Process], fault: Fault) -> &'a Process {
    processes[fault.target % processes.len()]
}
