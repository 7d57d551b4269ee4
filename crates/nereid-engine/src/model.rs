//! A model ready to run: network, preprocessing and outputs in one.

use nereid_core::{
    engine::EngineError,
    models::{Runtime, Signature},
    spec::Tolerance,
    workers::DeviceKind,
};

use crate::{
    artifact::{Artifact, Golden},
    device,
    network::Network,
    outputs::{Head, most_likely},
    preprocessing,
    serving::{Engine, Settings, prepare},
};

/// A network with what comes before and after it.
pub(crate) struct Model {
    engine: Box<dyn Engine>,
    head: Head,
    pub(crate) signature: Signature,
    /// Values of one sample.
    size: usize,
    /// Values of one raw output.
    width: usize,
    vocabulary: Option<usize>,
}

/// How far outputs are from their reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Parity {
    /// Share of samples with the same most likely class; 1 for all else.
    pub(crate) agreement: f64,
    /// Largest difference of any output; of numbers beyond 1, relative to them.
    pub(crate) max_difference: f64,
}

impl Parity {
    /// Compares finished outputs of `rows` samples with what was expected.
    pub(crate) fn of(head: Head, outputs: &[f32], expected: &[f32], rows: usize) -> Self {
        if outputs.len() != expected.len() {
            return Self {
                agreement: 0.0,
                max_difference: f64::MAX,
            };
        }
        let mut max_difference = 0.0_f64;
        for (&got, &expected) in outputs.iter().zip(expected) {
            let (got, expected) = (f64::from(got), f64::from(expected));
            let difference = (got - expected).abs() / expected.abs().max(1.0);
            // A NaN would pass any comparison unseen.
            max_difference = max_difference.max(if difference.is_nan() {
                f64::MAX
            } else {
                difference
            });
        }
        let width = (outputs.len() / rows.max(1)).max(1);
        let pairs = outputs.chunks(width).zip(expected.chunks(width));
        let same = pairs
            .filter(|(a, b)| !head.has_classes() || most_likely(a) == most_likely(b))
            .count();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
        let agreement = same as f64 / rows.max(1) as f64;
        Self {
            agreement,
            max_difference,
        }
    }

    pub(crate) fn within(&self, tolerance: Tolerance) -> bool {
        self.agreement >= tolerance.agreement && self.max_difference <= tolerance.max_difference
    }
}

impl Model {
    /// Builds the network as it was trained; each weight must be there and fit.
    pub(crate) fn new(artifact: &Artifact) -> Result<Self, EngineError> {
        Self::on(artifact, Runtime::Burn, &Settings::default())
    }

    /// Builds the network for a runtime.
    pub(crate) fn on(
        artifact: &Artifact,
        runtime: Runtime,
        settings: &Settings,
    ) -> Result<Self, EngineError> {
        let plan = artifact.document.plan()?;
        let device = device::open(DeviceKind::Cpu)?;
        let mut network = Network::blank(&plan, &device);
        let mut weights = artifact.weights.clone();
        for parameter in &mut network.parameters {
            let values = weights.take(&parameter.name, &parameter.shape)?;
            if values.iter().any(|v| !v.is_finite()) {
                let detail = format!(
                    "tensor {:?} holds a value that is not finite",
                    parameter.name
                );
                return Err(EngineError::InvalidInput(detail));
            }
            parameter.set_keras(&values);
        }
        weights.expect_empty()?;
        Ok(Self {
            engine: prepare(runtime, artifact, network, settings)?,
            head: artifact.document.head,
            signature: artifact.document.signature.clone(),
            size: plan.input.iter().product(),
            width: plan.output().iter().product(),
            vocabulary: preprocessing::embeds(&plan),
        })
    }

    /// Runs raw samples and returns probabilities or predictions.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if the values do not fit the signature.
    pub(crate) fn run(&self, mut values: Vec<f32>, rows: usize) -> Result<Vec<f32>, EngineError> {
        preprocessing::fill_missing(&self.signature.preprocessing, &mut values);
        self.check(&values, rows)?;
        preprocessing::apply(&self.signature.preprocessing, &mut values);
        let kept = match self.head {
            Head::Reconstruction { .. } => values.clone(),
            _ => Vec::new(),
        };
        let raw = self.engine.infer(values, rows)?;
        if raw.len() != rows * self.width {
            let detail = format!("{} outputs of {rows} samples", raw.len());
            return Err(EngineError::Internal(detail));
        }
        let scaling = &self.signature.preprocessing;
        Ok(self.head.finish(raw, self.width, &kept, scaling))
    }

    /// Wraps finished outputs as the signature's tensors.
    pub(crate) fn tensors(
        &self,
        finished: Vec<f32>,
        rows: usize,
    ) -> Vec<nereid_core::tensors::Tensor> {
        let shape = self.signature.sample_shape();
        self.head.tensors(finished, rows, &shape)
    }

    fn check(&self, values: &[f32], rows: usize) -> Result<(), EngineError> {
        let invalid = |detail: String| Err(EngineError::InvalidInput(detail));
        let size = self.size;
        if rows == 0 || rows.checked_mul(size) != Some(values.len()) {
            let n = values.len();
            return invalid(format!(
                "{n} values for {rows} samples of {size} values each"
            ));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let (row, column) = (at / size, at % size);
            return invalid(format!(
                "value {column} of sample {row} is not a finite number"
            ));
        }
        if let Some(vocabulary) = self.vocabulary
            && let Some((at, value)) = preprocessing::find_bad_index(values, vocabulary)
        {
            let (row, column) = (at / size, at % size);
            return invalid(format!(
                "value {column} of sample {row} is {value}, no whole number from 0 to {}",
                vocabulary - 1
            ));
        }
        Ok(())
    }

    /// Compares outputs on golden samples with the recorded ones.
    pub(crate) fn compare(&self, golden: &Golden) -> Result<Parity, EngineError> {
        let outputs = self.run(golden.inputs.clone(), golden.rows)?;
        Ok(Parity::of(
            self.head,
            &outputs,
            &golden.outputs,
            golden.rows,
        ))
    }
}
