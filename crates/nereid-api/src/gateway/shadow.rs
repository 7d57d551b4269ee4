//! Copies of requests for a generation that is tried as a shadow, and what gateways report.

use std::{collections::HashMap, sync::Arc, time::Duration};

use nereid_core::{
    Name,
    ids::{ProjectId, VariantId},
    tensors::{Batch, Tensor},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

use super::{
    Gateway,
    ask::Question,
    routes::Target,
    traffic::{Reading, is_same},
};

/// Copies that wait; more are not made.
pub(super) const WAITING: usize = 64;
/// Longest time that a shadow may take for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two reports.
const REPORT: Duration = Duration::from_secs(1);

/// A request that was answered, with its answer.
pub(super) struct Copy {
    pub(super) project: ProjectId,
    pub(super) endpoint: Name,
    pub(super) target: Arc<Target>,
    pub(super) batch: Arc<Batch>,
    pub(super) answer: Vec<Tensor>,
}

impl Gateway {
    /// Has a shadow answer copies of requests, one at a time: it must not take what clients need.
    pub(super) async fn mirror(&self, copies: &mut mpsc::Receiver<Copy>) {
        while let Some(copy) = copies.recv().await {
            self.compare(copy).await;
        }
        // The gateway itself holds the other end.
        tracing::error!("no more requests are copied for shadows");
    }

    async fn compare(&self, copy: Copy) {
        let Some(shadow) = copy.target.shadow() else {
            return;
        };
        let (began, rows) = (Instant::now(), copy.batch.rows);
        let question = Question {
            batch: copy.batch,
            // The last level there is: clients go first.
            priority: u32::MAX,
            deadline: Some(began + PATIENCE),
        };
        let asking = self.ask_around(copy.project, &copy.endpoint, shadow, question);
        let answered = tokio::time::timeout(PATIENCE, asking).await;
        let same = match answered {
            Ok(Ok(answer)) => {
                let timing = &answer.timing;
                shadow.statistics.answered(rows, began.elapsed(), timing);
                shadow.traffic.score(&answer.outputs);
                is_same(&copy.answer, &answer.outputs, &shadow.signature)
            }
            _ => false,
        };
        shadow.traffic.mirrored(same);
    }

    /// Reports what every variant's traffic was like, each second in which there was some.
    pub(super) async fn report(&self) {
        let process = Uuid::now_v7();
        let mut before: HashMap<VariantId, Reading> = HashMap::new();
        let mut ticks = tokio::time::interval(REPORT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut now = HashMap::new();
            let mut windows = Vec::new();
            self.routes.for_each(|variant| {
                let reading = Reading::of(variant);
                let earlier = before.get(&variant.id).cloned().unwrap_or_default();
                let window = reading.since(&earlier, variant.id);
                if !window.window.is_empty() {
                    windows.push(window);
                }
                now.insert(variant.id, reading);
            });
            match self.store.record_windows(process, &windows).await {
                Ok(()) => before = now,
                // Reported together with what comes next.
                Err(e) => tracing::warn!(error = %e, "traffic could not be reported"),
            }
        }
    }
}
