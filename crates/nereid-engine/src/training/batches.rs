//! Assembles batches: picks rows, scales them and puts them onto the device.

use burn::tensor::{Device, Tensor, TensorData};
use nereid_core::models::Preprocessing;

use crate::{
    data::{Samples, Targets},
    preprocessing,
};

/// A batch ready for the network, with its targets still on the host.
pub(super) struct Batch {
    pub(super) input: Tensor<2>,
    pub(super) targets: BatchTargets,
}

/// Targets of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BatchTargets {
    Class(Vec<u32>),
    Value(Vec<f32>),
}

impl BatchTargets {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Class(v) => v.len(),
            Self::Value(v) => v.len(),
        }
    }
}

/// Takes the given rows out of `samples`.
pub(super) fn assemble(
    samples: &Samples,
    rows: &[usize],
    preprocessing: &Preprocessing,
    device: &Device,
) -> Batch {
    let mut values = Vec::with_capacity(rows.len() * samples.size);
    for &row in rows {
        samples.extend(row, &mut values);
    }
    preprocessing::apply(preprocessing, &mut values);
    let targets = match &samples.targets {
        Targets::Class(t) => BatchTargets::Class(rows.iter().map(|&r| t[r]).collect()),
        Targets::Value(t) => BatchTargets::Value(rows.iter().map(|&r| t[r]).collect()),
    };
    Batch {
        input: Tensor::from_data(TensorData::new(values, [rows.len(), samples.size]), device),
        targets,
    }
}
