//! How the replicas of a variant serve: dynamic batching, bounded queues, the response cache.
//!
//! Fields carry the names of Triton's dynamic batcher where it has them
//! (<https://github.com/triton-inference-server/server/blob/main/docs/user_guide/batcher.md>).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{autoscaling::Autoscaling, limits, validation::Violations};

/// How a replica forms batches of the requests that wait for it.
///
/// An engine that is idle computes what is there at once; what arrives meanwhile forms the next
/// batch. Only `max_queue_delay_us` makes an idle engine wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most rows of one execution; larger requests are computed in pieces.
    #[schema(minimum = 1, maximum = 4096, default = 32)]
    pub max_batch_size: u32,
    /// Longest wait of an idle engine for a fuller batch, in microseconds.
    #[schema(minimum = 0, maximum = 1_000_000, default = 0)]
    pub max_queue_delay_us: u32,
    /// Rows that an execution should have, if as many wait.
    #[schema(max_items = 16)]
    pub preferred_batch_sizes: Vec<u32>,
    /// Most requests that wait in one replica; more are answered 429.
    #[schema(minimum = 1, maximum = 65536, default = 128)]
    pub max_queue_size: u32,
    /// Longest wait in the queue, in microseconds, of requests that do not say theirs; 0 is for
    /// as long as the request may take.
    #[schema(minimum = 0, maximum = 600_000_000, default = 0)]
    pub default_timeout_us: u64,
    /// Levels of priority, 1 the highest; with 0 all requests are alike.
    #[schema(minimum = 0, maximum = 16, default = 0)]
    pub priority_levels: u32,
    /// Level of requests that say none, or one that there is not; 0 is the middle.
    #[schema(minimum = 0, maximum = 16, default = 0)]
    pub default_priority_level: u32,
    /// Executions at the same time in one replica; 0 is as many as there are processors. All
    /// replicas of a worker together never take more than its processors.
    #[schema(minimum = 0, maximum = 256, default = 0)]
    pub concurrency: u32,
    /// Keeps answers for inputs that come again; off unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_cache: Option<ResponseCache>,
}

/// A cache of answers by model and input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseCache {
    /// Most bytes of answers that each API process keeps for the variant.
    #[schema(minimum = 1024, maximum = 17_179_869_184_u64)]
    pub max_bytes: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_queue_delay_us: 0,
            preferred_batch_sizes: Vec::new(),
            max_queue_size: 128,
            default_timeout_us: 0,
            priority_levels: 0,
            default_priority_level: 0,
            concurrency: 0,
            response_cache: None,
        }
    }
}

impl Batching {
    /// Records every value out of range.
    pub fn check(&self, at: &str, v: &mut Violations) {
        let mut range = |field: &str, value: u64, min: u64, max: u64| {
            v.check_range(&format!("{at}/{field}"), value, min, max);
        };
        let levels = u64::from(limits::MAX_PRIORITY_LEVELS);
        let rows = u64::from(limits::MAX_SERVING_BATCH);
        range("max_batch_size", self.max_batch_size.into(), 1, rows);
        let delay = u64::from(limits::MAX_QUEUE_DELAY_US);
        range(
            "max_queue_delay_us",
            self.max_queue_delay_us.into(),
            0,
            delay,
        );
        let queue = u64::from(limits::MAX_QUEUE_SIZE);
        range("max_queue_size", self.max_queue_size.into(), 1, queue);
        let timeout = limits::MAX_INFERENCE_TIMEOUT_US;
        range("default_timeout_us", self.default_timeout_us, 0, timeout);
        range("priority_levels", self.priority_levels.into(), 0, levels);
        let default = u64::from(self.default_priority_level);
        range(
            "default_priority_level",
            default,
            0,
            self.priority_levels.into(),
        );
        let concurrency = u64::from(limits::MAX_CONCURRENCY);
        range("concurrency", self.concurrency.into(), 0, concurrency);
        if let Some(cache) = &self.response_cache {
            let most = limits::MAX_RESPONSE_CACHE_BYTES;
            range("response_cache/max_bytes", cache.max_bytes, 1024, most);
        }
        self.check_preferred(at, v);
    }

    fn check_preferred(&self, at: &str, v: &mut Violations) {
        let (sizes, most) = (&self.preferred_batch_sizes, limits::MAX_PREFERRED_SIZES);
        let at = format!("{at}/preferred_batch_sizes");
        v.check(sizes.len() <= most, &at, "too_many", || {
            format!("{} sizes are more than the {most} allowed", sizes.len())
        });
        for (i, &size) in sizes.iter().enumerate().take(most) {
            v.check_range(&format!("{at}/{i}"), size, 1, self.max_batch_size);
        }
    }

    /// Level of a request that asks for `priority`, from 0 for the most urgent.
    #[must_use]
    pub fn level(&self, priority: u32) -> usize {
        let levels = self.priority_levels.max(1);
        let level = match priority {
            p if (1..=levels).contains(&p) => p,
            _ if self.default_priority_level > 0 => self.default_priority_level,
            _ => levels.div_ceil(2),
        };
        level as usize - 1
    }

    /// Rows that the next execution should have, of `waiting` ones that are there.
    ///
    /// The largest preferred size that is reached, else everything up to the limit.
    #[must_use]
    pub fn rows_of_next(&self, waiting: usize) -> usize {
        let preferred = self.preferred_batch_sizes.iter().map(|&n| n as usize);
        let reached = preferred.filter(|&n| n <= waiting).max();
        reached.unwrap_or_else(|| waiting.min(self.max_batch_size as usize))
    }

    /// Rows from which on an execution waits for no more, whatever delay is allowed.
    #[must_use]
    pub fn rows_worth_waiting_for(&self) -> usize {
        let preferred = self.preferred_batch_sizes.iter().min();
        preferred.map_or(self.max_batch_size, |&n| n) as usize
    }
}

/// What a variant's replicas and the gateway need to know about how it serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantSettings {
    /// How its replicas form batches.
    pub batching: Batching,
    /// Microseconds after which an unanswered request is sent to a second replica, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge_after_us: Option<u32>,
    /// By what the number of replicas is chosen; fixed unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

impl VariantSettings {
    /// Records every value out of range.
    pub fn check(&self, at: &str, v: &mut Violations) {
        self.batching.check(&format!("{at}/batching"), v);
        if let Some(after) = self.hedge_after_us {
            let at = format!("{at}/hedge_after_us");
            v.check_range(&at, after, 1, limits::MAX_HEDGE_AFTER_US);
        }
        if let Some(scaling) = &self.autoscaling {
            scaling.check(&format!("{at}/autoscaling"), v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(batching: &Batching) -> Vec<String> {
        let mut v = Violations::default();
        batching.check("/b", &mut v);
        v.into_vec().into_iter().map(|v| v.pointer).collect()
    }

    #[test]
    fn names_each_value_out_of_range() {
        assert!(mistakes(&Batching::default()).is_empty());
        let wrong = Batching {
            max_batch_size: 8,
            preferred_batch_sizes: vec![4, 16],
            max_queue_size: 0,
            priority_levels: 2,
            default_priority_level: 3,
            response_cache: Some(ResponseCache { max_bytes: 1 }),
            ..Batching::default()
        };
        let expected = [
            "/b/max_queue_size",
            "/b/default_priority_level",
            "/b/response_cache/max_bytes",
            "/b/preferred_batch_sizes/1",
        ];
        assert_eq!(mistakes(&wrong), expected);
    }

    #[test]
    fn priorities_are_tritons() {
        let mut batching = Batching::default();
        assert_eq!((batching.level(0), batching.level(7)), (0, 0));
        batching.priority_levels = 3;
        let levels = [0, 1, 2, 3, 4].map(|p| batching.level(p));
        assert_eq!(levels, [1, 0, 1, 2, 1]);
        batching.default_priority_level = 3;
        assert_eq!((batching.level(0), batching.level(9)), (2, 2));
    }

    #[test]
    fn takes_the_largest_preferred_size_that_is_there() {
        let mut batching = Batching::default();
        assert_eq!(
            (batching.rows_of_next(5), batching.rows_of_next(99)),
            (5, 32)
        );
        batching.preferred_batch_sizes = vec![16, 8];
        let sizes = [3, 8, 15, 20].map(|n| batching.rows_of_next(n));
        assert_eq!(sizes, [3, 8, 8, 16]);
        assert_eq!(batching.rows_worth_waiting_for(), 8);
    }

    #[test]
    fn settings_that_are_absent_have_their_defaults() {
        let read: VariantSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(read, VariantSettings::default());
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(
            serde_json::from_value::<VariantSettings>(written).unwrap(),
            read
        );
    }
}
