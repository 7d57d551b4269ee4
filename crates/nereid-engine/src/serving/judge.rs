//! Decides on held-out samples whether a changed model still is the same model.

use nereid_core::{engine::EngineError, models::MetricComparison, spec::Tolerance};

use crate::{
    artifact::{Artifact, Evaluation},
    model::{Model, Parity},
    outputs::{Head, most_likely},
};

/// Samples run at once.
const CHUNK: usize = 256;

/// The original's answers to held-out samples.
pub(super) struct Judge {
    pub(super) inputs: Vec<f32>,
    pub(super) rows: usize,
    targets: Option<Vec<f32>>,
    head: Head,
    outputs: Vec<f32>,
    before: Option<f64>,
}

/// What was found of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) parity: Parity,
    pub(super) metric: Option<MetricComparison>,
}

impl Verdict {
    /// Says what is outside of the tolerance.
    pub(super) fn objection(&self, tolerance: Tolerance) -> Option<String> {
        let Parity {
            agreement,
            max_difference,
        } = self.parity;
        if !self.parity.within(tolerance) {
            return Some(format!(
                "agreement {agreement} and largest difference {max_difference:e} are outside the tolerance"
            ));
        }
        let metric = self.metric.as_ref()?;
        // A NaN is no small loss.
        let within = metric.loss <= tolerance.metric_loss;
        (!within).then(|| {
            format!(
                "{} went from {:.5} to {:.5}, which is {:.3} points and more than the {} allowed",
                metric.name, metric.before, metric.after, metric.loss, tolerance.metric_loss
            )
        })
    }
}

impl Judge {
    /// Notes the original's answers to the version's evaluation samples, or to its golden ones if
    /// it has no others.
    pub(super) fn new(
        artifact: &Artifact,
        evaluation: Option<Evaluation>,
        original: &Model,
    ) -> Result<Self, EngineError> {
        let (rows, inputs, targets) = match evaluation {
            Some(e) => (e.rows, e.inputs, e.targets),
            None => (artifact.golden.rows, artifact.golden.inputs.clone(), None),
        };
        let mut judge = Self {
            inputs,
            rows,
            targets,
            head: artifact.document.head,
            outputs: Vec::new(),
            before: None,
        };
        judge.outputs = judge.run(original)?;
        judge.before = judge.metric(&judge.outputs);
        Ok(judge)
    }

    /// Compares a model with the original.
    pub(super) fn examine(&self, model: &Model) -> Result<Verdict, EngineError> {
        let outputs = self.run(model)?;
        let parity = Parity::of(self.head, &outputs, &self.outputs, self.rows);
        let metric = self
            .before
            .zip(self.metric(&outputs))
            .map(|(before, after)| self.comparison(before, after));
        Ok(Verdict { parity, metric })
    }

    fn run(&self, model: &Model) -> Result<Vec<f32>, EngineError> {
        let size = self.inputs.len() / self.rows.max(1);
        let mut outputs = Vec::new();
        for chunk in self.inputs.chunks(CHUNK * size.max(1)) {
            outputs.extend(model.run(chunk.to_vec(), chunk.len() / size.max(1))?);
        }
        Ok(outputs)
    }

    /// What outputs are compared with: the targets, or the samples themselves.
    fn truth(&self) -> Option<&[f32]> {
        match self.head {
            Head::Reconstruction { .. } => Some(&self.inputs),
            _ => self.targets.as_deref(),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few thousand rows; classes are whole numbers"
    )]
    fn metric(&self, outputs: &[f32]) -> Option<f64> {
        let truth = self.truth()?;
        let width = (outputs.len() / self.rows.max(1)).max(1);
        let wide = (truth.len() / self.rows.max(1)).max(1);
        let pairs = outputs.chunks(width).zip(truth.chunks(wide));
        Some(match self.head {
            Head::Classes { .. } | Head::Binary { .. } => {
                let right = pairs.filter(|(y, t)| most_likely(y) == t[0] as usize);
                right.count() as f64 / self.rows as f64
            }
            Head::Labels { .. } => {
                let same = |(y, t): (&f32, &f32)| (*y > 0.5) == (*t > 0.5);
                let right = pairs
                    .flat_map(|(y, t)| y.iter().zip(t))
                    .filter(|p| same(*p));
                right.count() as f64 / truth.len() as f64
            }
            Head::Value | Head::Reconstruction { .. } => {
                let square = |(y, t): (&f32, &f32)| (f64::from(*y) - f64::from(*t)).powi(2);
                let squares = pairs.flat_map(|(y, t)| y.iter().zip(t)).map(square);
                (squares.sum::<f64>() / truth.len() as f64).sqrt()
            }
        })
    }

    fn comparison(&self, before: f64, after: f64) -> MetricComparison {
        let (name, loss) = match self.head {
            Head::Classes { .. } | Head::Binary { .. } => ("accuracy", (before - after) * 100.0),
            Head::Labels { .. } => ("label_accuracy", (before - after) * 100.0),
            Head::Value | Head::Reconstruction { .. } => {
                let spread = deviation(self.truth().unwrap_or_default());
                ("rmse", (after - before) / spread * 100.0)
            }
        };
        MetricComparison {
            name: name.to_owned(),
            before,
            after,
            loss,
        }
    }
}

/// Standard deviation; 1 of values that are all the same.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 values")]
fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = |v: &f32| (f64::from(*v) - mean).powi(2);
    let deviation = (values.iter().map(square).sum::<f64>() / n).sqrt();
    if deviation.is_normal() {
        deviation
    } else {
        1.0
    }
}
