//! Measures how long batches take, of several models by turns.

use std::time::{Duration, Instant};

use nereid_core::{engine::EngineError, models::Latency};

use crate::model::Model;

const BATCHES: [u32; 3] = [1, 8, 32];
/// What disturbs the machine for a while disturbs all models alike, since each round has a turn
/// of every one.
const ROUNDS: usize = 5;
/// Time of one turn.
const TURN: Duration = Duration::from_millis(10);
/// Least and most runs of one turn.
const MIN_RUNS: usize = 2;
const MAX_RUNS: usize = 400;
/// How much slower a model may seem before it counts as slower: measurements differ by as much.
const MARGIN: f64 = 1.1;
/// How often a model must be found slower: noise is not the same each time.
const TRIALS: usize = 3;

/// Times of a batch size in microseconds.
struct Times {
    batch: u32,
    runs: Vec<f64>,
}

impl Times {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand runs")]
    fn latency(mut self) -> Latency {
        self.runs.sort_by(f64::total_cmp);
        let n = self.runs.len();
        let mean = self.runs.iter().sum::<f64>() / n as f64;
        Latency {
            batch: self.batch,
            p50_us: self.runs[n / 2],
            p99_us: self.runs[(n * 99 / 100).min(n - 1)],
            throughput: f64::from(self.batch) * 1e6 / mean,
        }
    }
}

/// Runs batches of samples in each model, by turns; `rows` samples are in `inputs`.
///
/// # Errors
/// The first that a model reports.
pub(super) fn measure(
    models: &[&Model],
    inputs: &[f32],
    rows: usize,
) -> Result<Vec<Vec<Latency>>, EngineError> {
    let size = inputs.len() / rows.max(1);
    let mut found: Vec<Vec<Latency>> = models.iter().map(|_| Vec::new()).collect();
    for batch in BATCHES {
        let rows = batch as usize;
        let values: Vec<f32> = inputs.iter().copied().cycle().take(rows * size).collect();
        let mut times: Vec<_> = models
            .iter()
            .map(|_| Times {
                batch,
                runs: Vec::new(),
            })
            .collect();
        for model in models {
            model.run(values.clone(), rows)?;
        }
        for _ in 0..ROUNDS {
            for (model, times) in models.iter().zip(&mut times) {
                turn(model, &values, rows, &mut times.runs)?;
            }
        }
        for (found, times) in found.iter_mut().zip(times) {
            found.push(times.latency());
        }
    }
    Ok(found)
}

fn turn(
    model: &Model,
    values: &[f32],
    rows: usize,
    times: &mut Vec<f64>,
) -> Result<(), EngineError> {
    let started = Instant::now();
    let mut runs = 0;
    while runs < MIN_RUNS || (runs < MAX_RUNS && started.elapsed() < TURN) {
        let values = values.to_vec();
        let start = Instant::now();
        model.run(values, rows)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        runs += 1;
    }
    Ok(())
}

/// How long the second took by the first: the mean ratio of medians, over batch sizes.
pub(super) fn ratio(first: &[Latency], second: &[Latency]) -> f64 {
    let logs: Vec<f64> = first
        .iter()
        .zip(second)
        .map(|(a, b)| (b.p50_us / a.p50_us).ln())
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "three batch sizes")]
    let n = logs.len().max(1) as f64;
    (logs.iter().sum::<f64>() / n).exp()
}

/// Tells how many times slower the second is, if it was found so each time.
pub(super) fn slower(
    before: &Model,
    after: &Model,
    inputs: &[f32],
    rows: usize,
) -> Result<Option<f64>, EngineError> {
    let mut least = f64::INFINITY;
    for _ in 0..TRIALS {
        let found = measure(&[before, after], inputs, rows)?;
        least = least.min(ratio(&found[0], &found[1]));
        if least <= MARGIN {
            return Ok(None);
        }
    }
    Ok(Some(least))
}
