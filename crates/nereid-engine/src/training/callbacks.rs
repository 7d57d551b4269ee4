//! Early stopping and learning-rate reduction, with the semantics of Keras 3.

use std::{collections::BTreeMap, time::Duration};

use nereid_core::spec::{Callback, Metric, callbacks::checkpoint_seconds};
use serde::{Deserialize, Serialize};

use super::exact;

/// State of one callback; kept for all, so that the order is the spec's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CallbackState {
    /// Best value so far; NaN before the first.
    #[serde(with = "exact")]
    best: f64,
    wait: u32,
    cooldown: u32,
}

impl Default for CallbackState {
    fn default() -> Self {
        Self {
            best: f64::NAN,
            wait: 0,
            cooldown: 0,
        }
    }
}

/// What the callbacks decided after an epoch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// End training, and why.
    pub(super) stop: Option<String>,
    /// Keep this epoch's weights as the best.
    pub(super) keep_best: bool,
    /// Lines for the log.
    pub(super) notes: Vec<String>,
}

/// When checkpoints are due.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckpointPlan {
    pub(super) every_steps: Option<u64>,
    pub(super) every: Duration,
}

impl CheckpointPlan {
    pub(super) fn of(callbacks: &[Callback]) -> Self {
        let found = callbacks.iter().find_map(|c| match c {
            Callback::Checkpoint {
                every_steps,
                every_seconds,
            } => Some((*every_steps, *every_seconds)),
            _ => None,
        });
        let (every_steps, seconds) = found.unwrap_or((None, checkpoint_seconds()));
        Self {
            every_steps,
            every: Duration::from_secs(seconds),
        }
    }
}

/// Runs all callbacks after an epoch (from 0) and adjusts the learning rate.
pub(super) fn after_epoch(
    callbacks: &[Callback],
    states: &mut [CallbackState],
    epoch: u32,
    values: &BTreeMap<String, f64>,
    rate: &mut f64,
) -> Verdict {
    let mut verdict = Verdict::default();
    for (callback, state) in callbacks.iter().zip(states) {
        let Some((key, current)) = monitored(callback, values) else {
            continue;
        };
        match callback {
            Callback::EarlyStopping {
                patience,
                min_delta,
                restore_best_weights,
                ..
            } => {
                if improves(&key, current, state.best, *min_delta) {
                    state.best = current;
                    state.wait = 0;
                    verdict.keep_best |= *restore_best_weights;
                    continue;
                }
                state.wait += 1;
                if state.wait >= *patience && epoch > 0 {
                    let best = state.best;
                    verdict.stop = Some(format!(
                        "early stopping: {key} did not improve on {best:.6} for {} epochs",
                        state.wait
                    ));
                }
            }
            Callback::ReduceLrOnPlateau { .. } => {
                verdict
                    .notes
                    .extend(plateau(callback, state, &key, current, rate));
            }
            Callback::Checkpoint { .. } => {}
        }
    }
    verdict
}

fn plateau(
    callback: &Callback,
    state: &mut CallbackState,
    key: &str,
    current: f64,
    rate: &mut f64,
) -> Option<String> {
    let Callback::ReduceLrOnPlateau {
        factor,
        patience,
        min_delta,
        cooldown,
        min_lr,
        ..
    } = callback
    else {
        return None;
    };
    if state.cooldown > 0 {
        state.cooldown -= 1;
        state.wait = 0;
    }
    if improves(key, current, state.best, *min_delta) {
        state.best = current;
        state.wait = 0;
        return None;
    }
    if state.cooldown > 0 {
        return None;
    }
    state.wait += 1;
    if state.wait < *patience || *rate <= *min_lr {
        return None;
    }
    *rate = (*rate * factor).max(*min_lr);
    state.cooldown = *cooldown;
    state.wait = 0;
    Some(format!(
        "{key} is on a plateau: learning rate reduced to {rate:e}"
    ))
}

/// Finds the value a callback watches: as given, else `val_loss`, else `loss`.
fn monitored(callback: &Callback, values: &BTreeMap<String, f64>) -> Option<(String, f64)> {
    if matches!(callback, Callback::Checkpoint { .. }) {
        return None;
    }
    let keys = match callback.monitor() {
        Some(monitor) => vec![monitor.0.as_str()],
        None => vec!["val_loss", "loss"],
    };
    keys.iter()
        .find_map(|k| values.get(*k).map(|v| ((*k).to_owned(), *v)))
}

fn improves(key: &str, current: f64, best: f64, min_delta: f64) -> bool {
    if best.is_nan() {
        return true;
    }
    if Metric::larger_is_better(key) {
        current > best + min_delta
    } else {
        current < best - min_delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(callback: &Callback, losses: &[f64]) -> (Vec<f64>, Option<usize>) {
        let callbacks = [callback.clone()];
        let mut states = [CallbackState::default()];
        let (mut rate, mut rates) = (1.0, Vec::new());
        for (epoch, &loss) in losses.iter().enumerate() {
            let values = BTreeMap::from([("loss".to_owned(), loss)]);
            let at = u32::try_from(epoch).unwrap();
            let verdict = after_epoch(&callbacks, &mut states, at, &values, &mut rate);
            rates.push(rate);
            if verdict.stop.is_some() {
                return (rates, Some(epoch));
            }
        }
        (rates, None)
    }

    #[test]
    fn early_stopping_waits_as_keras_does() {
        let callback = Callback::EarlyStopping {
            monitor: None,
            patience: 2,
            min_delta: 0.0,
            restore_best_weights: false,
        };
        assert_eq!(run(&callback, &[3.0, 2.0, 2.5, 2.5, 1.0]).1, Some(3));
        assert_eq!(run(&callback, &[3.0, 2.0, 2.5, 1.5, 1.6]).1, None);
    }

    #[test]
    fn plateau_reduces_and_cools_down_as_keras_does() {
        let callback = Callback::ReduceLrOnPlateau {
            monitor: None,
            factor: 0.5,
            patience: 1,
            min_delta: 0.0,
            cooldown: 2,
            min_lr: 0.25,
        };
        let (rates, _) = run(&callback, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        // Keras counts an epoch again as soon as the cooldown has run out within it.
        assert_eq!(rates, [1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
    }
}
