//! What this process has inferred, by Triton's statistics extension.
//!
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md>.
//! Each API process counts what went through itself. The hot path reads a lock that only a model's
//! first request writes, and adds to atomics.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nereid_core::{Name, ids::ProjectId};
use serde::Serialize;
use utoipa::ToSchema;

type OfEndpoint = HashMap<u32, Arc<Counters>>;

/// Counters of all models.
#[derive(Debug, Default)]
pub(crate) struct Statistics(RwLock<HashMap<ProjectId, HashMap<Name, OfEndpoint>>>);

/// Counters of one version behind one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Milliseconds since 1970.
    last_inference: AtomicU64,
    rows: AtomicU64,
    success: Span,
    fail: Span,
    input: Span,
    infer: Span,
    output: Span,
    batches: RwLock<BTreeMap<u64, Arc<Batches>>>,
}

#[derive(Debug, Default)]
struct Batches {
    input: Span,
    infer: Span,
    output: Span,
}

/// How often something happened and how long that took in all.
#[derive(Debug, Default)]
struct Span {
    count: AtomicU64,
    ns: AtomicU64,
}

/// How long the parts of one inference took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Reading the inputs.
    pub(crate) input: Duration,
    /// Waiting for a replica and computing.
    pub(crate) infer: Duration,
    /// Making the outputs.
    pub(crate) output: Duration,
}

impl Statistics {
    /// Returns the counters of a version behind an endpoint.
    pub(crate) fn of(&self, project: ProjectId, endpoint: &Name, version: u32) -> Arc<Counters> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = all
            .get(&project)
            .and_then(|p| p.get(endpoint)?.get(&version));
        if let Some(found) = found {
            return found.clone();
        }
        drop(all);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let of_project = all.entry(project).or_default();
        let of_endpoint = of_project.entry(endpoint.clone()).or_default();
        of_endpoint.entry(version).or_default().clone()
    }
}

impl Counters {
    /// Counts an inference that was answered, of `rows` samples at `now` in ms since 1970.
    pub(crate) fn succeeded(&self, rows: usize, now: u64, taken: Taken) {
        self.last_inference.fetch_max(now, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.success.add(taken.input + taken.infer + taken.output);
        let batches = self.batches_of(rows as u64);
        for (all, of_size, time) in [
            (&self.input, &batches.input, taken.input),
            (&self.infer, &batches.infer, taken.infer),
            (&self.output, &batches.output, taken.output),
        ] {
            all.add(time);
            of_size.add(time);
        }
    }

    /// Counts an inference that failed.
    pub(crate) fn failed(&self, after: Duration) {
        self.fail.add(after);
    }

    fn batches_of(&self, rows: u64) -> Arc<Batches> {
        let sizes = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = sizes.get(&rows) {
            return found.clone();
        }
        drop(sizes);
        let mut sizes = self.batches.write().unwrap_or_else(PoisonError::into_inner);
        sizes.entry(rows).or_default().clone()
    }

    /// Reads all counters.
    pub(crate) fn read(&self, name: &Name, version: u32) -> ModelStatistics {
        let sizes = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        let batch_stats = sizes.iter().map(|(&batch_size, batches)| BatchStatistics {
            batch_size,
            compute_input: batches.input.read(),
            compute_infer: batches.infer.read(),
            compute_output: batches.output.read(),
        });
        ModelStatistics {
            name: name.clone(),
            version: version.to_string(),
            last_inference: self.last_inference.load(Ordering::Relaxed),
            inference_count: self.rows.load(Ordering::Relaxed),
            execution_count: self.success.read().count,
            inference_stats: InferStatistics {
                success: self.success.read(),
                fail: self.fail.read(),
                queue: SpanStatistics::default(),
                compute_input: self.input.read(),
                compute_infer: self.infer.read(),
                compute_output: self.output.read(),
                cache_hit: SpanStatistics::default(),
                cache_miss: SpanStatistics::default(),
            },
            batch_stats: batch_stats.collect(),
        }
    }
}

impl Span {
    fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn read(&self) -> SpanStatistics {
        SpanStatistics {
            count: self.count.load(Ordering::Relaxed),
            ns: self.ns.load(Ordering::Relaxed),
        }
    }
}

/// How often something happened and how long that took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = OipDuration)]
pub(crate) struct SpanStatistics {
    /// How often.
    pub(crate) count: u64,
    /// How long in all, in nanoseconds.
    pub(crate) ns: u64,
}

/// Where the time of inferences went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipInferStatistics)]
pub(crate) struct InferStatistics {
    /// Requests that were answered.
    pub(crate) success: SpanStatistics,
    /// Requests that failed.
    pub(crate) fail: SpanStatistics,
    /// Always 0: the gateway does not see how long a replica lets a request wait, which is part of
    /// `compute_infer`.
    pub(crate) queue: SpanStatistics,
    /// Reading the inputs.
    pub(crate) compute_input: SpanStatistics,
    /// Waiting for a replica and its computing.
    pub(crate) compute_infer: SpanStatistics,
    /// Making the outputs.
    pub(crate) compute_output: SpanStatistics,
    /// Always 0.
    pub(crate) cache_hit: SpanStatistics,
    /// Always 0.
    pub(crate) cache_miss: SpanStatistics,
}

/// Where the time of requests of one size went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipBatchStatistics)]
pub(crate) struct BatchStatistics {
    /// Samples per request.
    pub(crate) batch_size: u64,
    /// Reading the inputs.
    pub(crate) compute_input: SpanStatistics,
    /// Waiting for a replica and its computing.
    pub(crate) compute_infer: SpanStatistics,
    /// Making the outputs.
    pub(crate) compute_output: SpanStatistics,
}

/// What one version behind one endpoint has inferred through this process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OipModelStatistics)]
pub(crate) struct ModelStatistics {
    /// Name of the endpoint.
    pub(crate) name: Name,
    /// Version.
    pub(crate) version: String,
    /// When it last answered, in milliseconds since 1970; 0 for never.
    pub(crate) last_inference: u64,
    /// Samples.
    pub(crate) inference_count: u64,
    /// Requests.
    pub(crate) execution_count: u64,
    /// Where the time went.
    pub(crate) inference_stats: InferStatistics,
    /// The same by the number of samples in a request.
    pub(crate) batch_stats: Vec<BatchStatistics>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_version_and_size() {
        let statistics = Statistics::default();
        let (project, name) = (ProjectId::generate(), "digits".parse().unwrap());
        let taken = Taken {
            input: Duration::from_nanos(1),
            infer: Duration::from_nanos(20),
            output: Duration::from_nanos(300),
        };
        statistics.of(project, &name, 1).succeeded(4, 9, taken);
        statistics.of(project, &name, 1).succeeded(1, 8, taken);
        statistics
            .of(project, &name, 1)
            .failed(Duration::from_nanos(7));
        let found = statistics.of(project, &name, 1).read(&name, 1);
        assert_eq!((found.inference_count, found.execution_count), (5, 2));
        assert_eq!((found.last_inference, found.batch_stats.len()), (9, 2));
        let span = |count, ns| SpanStatistics { count, ns };
        assert_eq!(found.inference_stats.success, span(2, 642));
        assert_eq!(found.inference_stats.fail, span(1, 7));
        assert_eq!(found.batch_stats[1].compute_infer, span(1, 20));
        let other = statistics.of(project, &name, 2).read(&name, 2);
        assert_eq!(other.execution_count, 0);
    }
}
