//! Measures how long batches take.

use std::time::{Duration, Instant};

use nereid_core::{engine::EngineError, models::Latency};

use crate::{artifact::Golden, model::Model};

const BATCHES: [u32; 3] = [1, 8, 32];
const BUDGET: Duration = Duration::from_millis(150);
const MIN_RUNS: usize = 5;
const MAX_RUNS: usize = 2_000;

/// Runs batches of golden samples for a moment each.
pub(super) fn measure(model: &Model, golden: &Golden) -> Result<Vec<Latency>, EngineError> {
    BATCHES.iter().map(|&n| one(model, golden, n)).collect()
}

fn one(model: &Model, golden: &Golden, batch: u32) -> Result<Latency, EngineError> {
    let rows = batch as usize;
    let size = golden.inputs.len() / golden.rows.max(1);
    let wanted = rows * size;
    let values: Vec<f32> = golden.inputs.iter().copied().cycle().take(wanted).collect();
    model.run(values.clone(), rows)?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < MIN_RUNS || (times.len() < MAX_RUNS && started.elapsed() < BUDGET) {
        let values = values.clone();
        let start = Instant::now();
        model.run(values, rows)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(Latency {
        batch,
        p50_us: times[times.len() / 2],
        p99_us: times[(times.len() * 99 / 100).min(times.len() - 1)],
    })
}
