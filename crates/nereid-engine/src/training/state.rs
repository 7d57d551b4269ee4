//! Where a training stands, and how it is saved and found again.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use nereid_core::engine::{EngineError, TrainTask};
use serde::{Deserialize, Serialize};

use super::{callbacks::CallbackState, exact, metrics::Tally, optimizer::Optimizer};
use crate::{
    network::{Network, flat, host},
    tensors_file::TensorsFile,
};

const METADATA_KEY: &str = "nereid";

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
    /// Whether a callback ended training.
    pub(super) finished: bool,
}

impl State {
    pub(super) fn new(rate: f64, callbacks: usize) -> Self {
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
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    /// What was trained on what: state fits nothing else.
    fingerprint: String,
    optimizer_steps: u64,
    state: State,
}

/// Identifies spec, data and framework.
pub(super) fn fingerprint(task: &TrainTask<'_>, rows: usize) -> Result<String, EngineError> {
    let parts = (
        task.spec,
        &task.train.schema,
        rows,
        crate::framework_version(),
    );
    serde_json::to_string(&parts).map_err(|e| EngineError::Internal(format!("encoding spec: {e}")))
}

/// Encodes the whole state.
pub(super) fn save(
    fingerprint: &str,
    state: &State,
    network: &Network,
    optimizer: &Optimizer,
    best: Option<&[Tensor<1>]>,
) -> Result<Vec<u8>, EngineError> {
    let header = Header {
        fingerprint: fingerprint.to_owned(),
        optimizer_steps: optimizer.steps,
        state: state.clone(),
    };
    let header = serde_json::to_string(&header)
        .map_err(|e| EngineError::Internal(format!("encoding state: {e}")))?;
    let mut file = TensorsFile::default();
    file.metadata.insert(METADATA_KEY.to_owned(), header);
    let mut push = |name: String, tensor: &Tensor<1>| {
        let values = host(tensor.clone())?;
        file.push(name, vec![values.len()], values);
        Ok::<_, EngineError>(())
    };
    for (i, parameter) in network.parameters.iter().enumerate() {
        push(format!("weights/{i}"), &parameter.value)?;
    }
    for (i, weight) in best.unwrap_or_default().iter().enumerate() {
        push(format!("best/{i}"), weight)?;
    }
    for (i, slots) in optimizer.slots.iter().enumerate() {
        for (j, slot) in slots.iter().enumerate() {
            push(format!("optimizer/{i}/{j}"), slot)?;
        }
    }
    file.to_bytes()
}

/// Restores a saved state into network and optimiser; returns it with the best weights so far.
pub(super) fn restore(
    bytes: &[u8],
    fingerprint: &str,
    network: &mut Network,
    optimizer: &mut Optimizer,
) -> Result<(State, Option<Vec<Tensor<1>>>), EngineError> {
    let invalid = |what: &str| EngineError::InvalidInput(format!("saved state: {what}"));
    let mut file = TensorsFile::from_bytes(bytes)?;
    let header = file.metadata.get(METADATA_KEY);
    let header = header.ok_or_else(|| invalid("its header is missing"))?;
    let header: Header =
        serde_json::from_str(header).map_err(|e| invalid(&format!("its header: {e}")))?;
    if header.fingerprint != fingerprint {
        return Err(invalid("it belongs to another spec, dataset or version"));
    }
    let device = network.device.clone();
    let mut take = |name: String, like: &Tensor<1>| {
        let values = file.take(&name, &like.dims())?;
        Ok::<_, EngineError>(flat(values, &device))
    };
    for (i, parameter) in network.parameters.iter_mut().enumerate() {
        parameter.value = take(format!("weights/{i}"), &parameter.value)?;
    }
    for (i, slots) in optimizer.slots.iter_mut().enumerate() {
        for (j, slot) in slots.iter_mut().enumerate() {
            *slot = take(format!("optimizer/{i}/{j}"), slot)?;
        }
    }
    optimizer.steps = header.optimizer_steps;
    let best = header.state.best_epoch.map(|_| {
        let parameters = network.parameters.iter().enumerate();
        parameters
            .map(|(i, p)| take(format!("best/{i}"), &p.value))
            .collect::<Result<Vec<_>, _>>()
    });
    Ok((header.state, best.transpose()?))
}
