//! Assembles batches: picks rows, scales them and puts them onto the device.

use burn::tensor::{Device, Tensor, TensorData};
use nereid_core::{engine::EngineError, models::Preprocessing};

use super::augment::{Augmenter, Mixing, Position};
use crate::{
    data::{Reader, Samples, Targets},
    preprocessing,
};

/// A batch ready for the network, with its targets still on the host.
pub(super) struct Batch {
    pub(super) input: Tensor<2>,
    pub(super) targets: BatchTargets,
    /// How samples were mixed with each other, if they were.
    pub(super) mixing: Option<Mixing>,
}

/// A batch on the host, ready for the device.
pub(super) struct HostBatch {
    values: Vec<f32>,
    size: usize,
    targets: BatchTargets,
    mixing: Option<Mixing>,
}

impl HostBatch {
    /// Number of samples.
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Hands the values to the device; the CPU takes them without a copy.
    pub(super) fn onto(self, device: &Device) -> Batch {
        let shape = [self.targets.len(), self.size];
        Batch {
            input: Tensor::from_data(TensorData::new(self.values, shape), device),
            targets: self.targets,
            mixing: self.mixing,
        }
    }
}

/// Targets of a batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BatchTargets {
    Class(Vec<u32>),
    Value(Vec<f32>),
    /// Several numbers a sample, row-major.
    Many {
        values: Vec<f32>,
        width: usize,
    },
}

impl BatchTargets {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Class(v) => v.len(),
            Self::Value(v) => v.len(),
            Self::Many { values, width } => values.len() / (*width).max(1),
        }
    }

    /// Takes the targets of some samples of the batch.
    pub(super) fn pick(&self, order: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Class(v) => Self::Class(order.map(|i| v[i]).collect()),
            Self::Value(v) => Self::Value(order.map(|i| v[i]).collect()),
            Self::Many { values, width } => Self::Many {
                values: order
                    .flat_map(|i| &values[i * width..(i + 1) * width])
                    .copied()
                    .collect(),
                width: *width,
            },
        }
    }

    /// Puts numbers onto a device, a sample a row; none for classes.
    pub(super) fn values(&self, device: &Device) -> Tensor<2> {
        let (values, width) = match self {
            Self::Class(_) => (Vec::new(), 1),
            Self::Value(v) => (v.clone(), 1),
            Self::Many { values, width } => (values.clone(), *width),
        };
        let rows = values.len() / width.max(1);
        Tensor::from_data(TensorData::new(values, [rows, width]), device)
    }
}

/// Takes the given rows out of `samples`, read by a reader of them, for training with their
/// augmentation.
///
/// Runs on any thread and in any order: what a batch holds must follow from its rows and its
/// place in the training alone.
pub(super) fn assemble(
    samples: &Samples,
    reader: &mut Reader<'_>,
    rows: &[u32],
    preprocessing: &Preprocessing,
    augmentation: Option<(&Augmenter, Position)>,
) -> Result<HostBatch, EngineError> {
    let mut values = Vec::with_capacity(rows.len() * samples.size);
    reader.read(rows, &mut values)?;
    if let Some((augmenter, at)) = augmentation {
        augmenter.before_scaling(at, &mut values);
    }
    preprocessing::apply(preprocessing, &mut values);
    // What is to be found again is the sample before noise was added.
    let clean = matches!(samples.targets, Targets::Input).then(|| values.clone());
    let mixing = augmentation.and_then(|(augmenter, at)| {
        augmenter.after_scaling(at, &mut values);
        augmenter.mix(at, &mut values)
    });
    let picked = rows.iter().map(|&r| r as usize);
    let mut targets = match &samples.targets {
        Targets::Class(t) => BatchTargets::Class(picked.map(|r| t[r]).collect()),
        Targets::Value(t) => BatchTargets::Value(picked.map(|r| t[r]).collect()),
        Targets::Many { values, width } => BatchTargets::Many {
            values: picked
                .flat_map(|r| &values[r * width..(r + 1) * width])
                .copied()
                .collect(),
            width: *width,
        },
        Targets::Input => BatchTargets::Many {
            values: clean
                .filter(|_| mixing.is_none())
                .unwrap_or_else(|| values.clone()),
            width: samples.size,
        },
    };
    if let (Some(mixing), true) = (&mixing, samples.targets != Targets::Input) {
        match &mut targets {
            BatchTargets::Value(values) | BatchTargets::Many { values, .. } => {
                mixing.blend(values);
            }
            BatchTargets::Class(_) => {}
        }
    }
    Ok(HostBatch {
        values,
        size: samples.size,
        mixing: mixing.filter(|_| matches!(targets, BatchTargets::Class(_))),
        targets,
    })
}
