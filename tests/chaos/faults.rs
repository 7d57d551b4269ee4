//! What goes wrong, and when: a schedule drawn from a seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::cluster::LEASE;

macro_rules! kinds {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// Kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($name),+ }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

kinds! {
    KillWorker = "kill -9 of a worker",
    KillApi = "kill -9 of an API",
    KillTrainer = "kill -9 of a training process",
    FreezeWorker = "worker stopped beyond its lease (zombie)",
    FreezeApi = "API stopped beyond the lease",
    DrainWorker = "SIGTERM of a worker",
    DrainApi = "SIGTERM of an API",
    StepClock = "worker's clock stepped by an hour",
    RestartFast = "Postgres restarted, fast",
    RestartImmediate = "Postgres restarted, immediate",
    Outage = "Postgres away for longer than a lease",
    TerminateBackends = "all backends terminated",
    PinHorizon = "idle REPEATABLE READ transaction",
    DropConnections = "connections dropped",
    RefuseConnections = "new connections refused",
    DelayConnections = "connections delayed",
    PartitionPostgres = "process cut off from Postgres",
    PartitionS3 = "process cut off from S3",
    NarrowS3 = "S3 stalled",
    S3Status500 = "S3 answers 500",
    S3Status503 = "S3 answers 503",
    CutBodies = "S3 bodies cut",
}

/// One fault of a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// When, from the start.
    pub at: Duration,
    pub kind: Kind,
    /// Which of the things that it may hit.
    pub target: usize,
    /// How long it lasts, if it lasts.
    pub length: Duration,
    /// How strong it is, from 0 to below 1.
    pub strength: f64,
}

/// Draws a schedule: rounds of all kinds in a random order, so that each has its turn early.
pub fn schedule(seed: u64, duration: Duration, mean_gap: Duration) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    let mut at = mean_gap;
    loop {
        let mut round = Kind::ALL.to_vec();
        round.shuffle(&mut rng);
        for kind in round {
            if at >= duration {
                return faults;
            }
            faults.push(Fault {
                at,
                kind,
                target: rng.random_range(0..60),
                length: length(kind).mul_f64(rng.random_range(0.7..1.3)),
                strength: rng.random(),
            });
            at += mean_gap.mul_f64(rng.random_range(0.4..1.6));
        }
    }
}

/// Mean time that a fault lasts.
fn length(kind: Kind) -> Duration {
    match kind {
        // Long enough for others to take over; a little less sometimes, which must not matter.
        Kind::FreezeWorker | Kind::FreezeApi | Kind::PartitionPostgres | Kind::Outage => {
            LEASE.mul_f64(1.7)
        }
        Kind::PinHorizon => LEASE * 2,
        Kind::KillWorker | Kind::KillApi => Duration::from_millis(800),
        _ => Duration::from_secs(2),
    }
}
