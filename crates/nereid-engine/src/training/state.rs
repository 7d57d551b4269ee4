//! Where a training stands, and how it is saved and found again.

use std::{borrow::Cow, collections::BTreeMap, io::Write, path::Path, sync::Arc};

use burn::tensor::Tensor;
use nereid_core::engine::{EngineError, TrainTask};
use serde::{Deserialize, Serialize};

use super::{
    callbacks::CallbackState,
    exact,
    finder::Chosen,
    metrics::{Measures, Tally},
    optimizer::Optimizer,
    precision::Scaling,
    rules::RuleState,
    split::Splits,
};
use crate::{
    data::Samples,
    guard,
    network::{Network, flat},
    tensors_file::{self, TensorsFile},
};

const METADATA_KEY: &str = "nereid";

/// Raised whenever a state of before would be read wrongly, or trained on differently.
const FORMAT: u32 = 2;

/// Everything but tensors. Random numbers need no state: they follow from seed and position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Epochs done.
    pub(super) epoch: u32,
    /// Batches done in the epoch under way.
    pub(super) batch: usize,
    /// Steps done since the start.
    pub(super) step: u64,
    /// Learning rate.
    #[serde(with = "exact")]
    pub(super) rate: f64,
    /// Metrics of the epoch under way.
    pub(super) tally: Tally,
    pub(super) callbacks: Vec<CallbackState>,
    /// Metrics of each finished epoch.
    #[serde(with = "exact::named")]
    pub(super) history: Vec<BTreeMap<String, f64>>,
    /// Epoch (from 0) of the weights kept as the best.
    pub(super) best_epoch: Option<u32>,
    /// Whether a callback or the caller ended training.
    pub(super) finished: bool,
    /// What the spec's rules remember.
    #[serde(default)]
    pub(super) rules: Vec<RuleState>,
    /// Why a rule ends training after the step just done.
    #[serde(default)]
    pub(super) ended_by: Option<String>,
    /// What was found before training.
    #[serde(default)]
    pub(super) chosen: Chosen,
    /// Norm of the gradients of the step just done; NaN if it was not watched.
    #[serde(with = "exact", default = "unknown")]
    pub(super) gradient_norm: f64,
    /// How losses are scaled, if products are computed in half precision.
    #[serde(default)]
    pub(super) scaling: Option<Scaling>,
}

const fn unknown() -> f64 {
    f64::NAN
}

/// What the spec and the data allow a state to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) epochs: u32,
    pub(super) batches: usize,
    pub(super) rows: usize,
    pub(super) callbacks: usize,
    pub(super) rules: usize,
    pub(super) measures: &'a Measures,
}

impl State {
    pub(super) fn new(rate: f64, callbacks: usize, rules: usize) -> Self {
        Self {
            epoch: 0,
            batch: 0,
            step: 0,
            rate,
            tally: Tally::default(),
            callbacks: vec![CallbackState::default(); callbacks],
            history: Vec::new(),
            best_epoch: None,
            finished: false,
            rules: vec![RuleState::default(); rules],
            ended_by: None,
            chosen: Chosen::default(),
            gradient_norm: unknown(),
            scaling: None,
        }
    }

    /// Steps that changed the weights, or added to what will.
    fn effective_steps(&self) -> u64 {
        let skipped = self.scaling.map_or(0, |scaling| scaling.skipped);
        self.step.saturating_sub(skipped)
    }

    /// Checks numbers read from a file, by which the training counts and indexes later.
    fn check(&self, bounds: &Bounds<'_>) -> Result<(), EngineError> {
        let steps = u64::from(self.epoch) * bounds.batches as u64 + self.batch as u64;
        // Training that was ended within an epoch did fewer steps than its epochs have.
        let counted = self.step == steps || (self.finished && self.step < steps);
        let fits = self.epoch <= bounds.epochs
            && self.batch <= bounds.batches
            && counted
            && self.rate.is_finite()
            && self.callbacks.len() == bounds.callbacks
            && self.rules.len() == bounds.rules
            && self.history.len() == self.epoch as usize
            && self.best_epoch.is_none_or(|epoch| epoch < self.epoch)
            && self.scaling.is_none_or(|scaling| scaling.fits(self.step))
            && bounds.measures.fits(&self.tally, bounds.rows);
        if fits {
            return Ok(());
        }
        Err(bad("its numbers contradict each other or the spec"))
    }
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    format: u32,
    /// What was trained on what: state fits nothing else.
    fingerprint: Cow<'a, str>,
    state: Cow<'a, State>,
}

/// Identifies spec, data and framework.
pub(super) fn fingerprint(task: &TrainTask<'_>, splits: &Splits) -> Result<Arc<str>, EngineError> {
    let digests: Vec<u64> = splits.datasets().iter().map(Samples::digest).collect();
    let parts = (
        task.spec,
        &task.train.schema,
        digests,
        crate::framework_version(),
    );
    serde_json::to_string(&parts)
        .map(Arc::from)
        .map_err(|e| EngineError::Internal(format!("encoding spec: {e}")))
}

/// A state caught between two steps.
///
/// Its tensors are handles that share the training's buffers. Each step makes new tensors, and
/// the framework writes into a buffer only if nobody else holds it, so that what was caught
/// stays as it is while the training goes on.
pub(super) struct Frozen {
    fingerprint: Arc<str>,
    state: State,
    tensors: Vec<(String, Tensor<1>)>,
}

impl Frozen {
    pub(super) fn new(
        (fingerprint, state, network): (&Arc<str>, &State, &Network),
        optimizer: &Optimizer,
        best: Option<&[Tensor<1>]>,
    ) -> Self {
        let weights = network.parameters.iter().enumerate();
        let weights = weights.map(|(i, p)| (format!("weights/{i}"), p.value.clone()));
        let best = best.unwrap_or_default().iter().enumerate();
        let best = best.map(|(i, weight)| (format!("best/{i}"), weight.clone()));
        let optimizer = optimizer.tensors();
        let optimizer = optimizer.map(|(name, tensor)| (name, tensor.clone()));
        Self {
            fingerprint: Arc::clone(fingerprint),
            state: state.clone(),
            tensors: weights.chain(best).chain(optimizer).collect(),
        }
    }

    /// Returns the steps done.
    pub(super) fn step(&self) -> u64 {
        self.state.step
    }

    /// Writes the whole state, letting go of each tensor as soon as it is written.
    pub(super) fn write(self, out: &mut impl Write) -> Result<(), EngineError> {
        let header = Header {
            format: FORMAT,
            fingerprint: Cow::Borrowed(&self.fingerprint),
            state: Cow::Borrowed(&self.state),
        };
        let header = serde_json::to_string(&header)
            .map_err(|e| EngineError::Internal(format!("encoding state: {e}")))?;
        tensors_file::stream(out, (METADATA_KEY, header), self.tensors)
    }
}

/// Returns what was found before the training that a state was saved of.
///
/// # Errors
/// [`EngineError::BadState`], whatever is wrong with the file.
pub(super) fn chosen(path: &Path) -> Result<Chosen, EngineError> {
    let read = || {
        let bytes = std::fs::read(path).map_err(|e| bad(&e.to_string()))?;
        let file = TensorsFile::from_bytes(&bytes)?;
        header(&file).map(|header| header.state.chosen)
    };
    guard::panics("reading a state", read).map_err(|e| match e {
        EngineError::BadState(_) => e,
        other => bad(&other.to_string()),
    })
}

fn header(file: &TensorsFile) -> Result<Header<'static>, EngineError> {
    let header = file.metadata.get(METADATA_KEY);
    let header = header.ok_or_else(|| bad("its header is missing"))?;
    serde_json::from_str(header).map_err(|e| bad(&format!("its header: {e}")))
}

/// Restores a saved state into network and optimiser; returns it with the best weights so far.
///
/// # Errors
/// [`EngineError::BadState`], whatever is wrong with the file.
pub(super) fn restore(
    path: &Path,
    fingerprint: &str,
    bounds: &Bounds<'_>,
    network: &mut Network,
    optimizer: &mut Optimizer,
) -> Result<(State, Option<Vec<Tensor<1>>>), EngineError> {
    let read = || {
        let bytes = std::fs::read(path).map_err(|e| bad(&e.to_string()))?;
        decode(&bytes, fingerprint, bounds, network, optimizer)
    };
    guard::panics("restoring a state", read).map_err(|e| match e {
        EngineError::BadState(_) => e,
        other => bad(&other.to_string()),
    })
}

fn decode(
    bytes: &[u8],
    fingerprint: &str,
    bounds: &Bounds<'_>,
    network: &mut Network,
    optimizer: &mut Optimizer,
) -> Result<(State, Option<Vec<Tensor<1>>>), EngineError> {
    let mut file = TensorsFile::from_bytes(bytes)?;
    let header = header(&file)?;
    if header.format != FORMAT || header.fingerprint != fingerprint {
        return Err(bad("it belongs to another spec, dataset or version"));
    }
    let state = header.state.into_owned();
    state.check(bounds)?;
    let device = network.device.clone();
    let mut take = |name: String, like: &Tensor<1>| {
        let values = file.take(&name, &like.dims())?;
        Ok::<_, EngineError>(flat(values, &device))
    };
    for (i, parameter) in network.parameters.iter_mut().enumerate() {
        parameter.value = take(format!("weights/{i}"), &parameter.value)?;
    }
    optimizer.restore(state.effective_steps(), &mut take)?;
    let best = state.best_epoch.map(|_| {
        let parameters = network.parameters.iter().enumerate();
        parameters
            .map(|(i, p)| take(format!("best/{i}"), &p.value))
            .collect::<Result<Vec<_>, _>>()
    });
    Ok((state, best.transpose()?))
}

fn bad(what: &str) -> EngineError {
    EngineError::BadState(what.to_owned())
}
