//! From a network's raw output to the tensors of its signature.

use nereid_core::{
    datasets::{
        DatasetSchema,
        columns::{ColumnEncoding, ColumnSchema},
    },
    models::{Preprocessing, Signature},
    spec::{Task, TrainSpec, objective::LossKind},
    tensors::{DataType, Tensor, TensorSpec, TensorValues},
};
use serde::{Deserialize, Serialize};

use crate::preprocessing;

/// How a network's output is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Head {
    /// One output per class.
    Classes {
        /// Whether softmax is still to be applied.
        from_logits: bool,
    },
    /// One output, which stands for the second of two classes.
    Binary {
        /// Whether the logistic function is still to be applied.
        from_logits: bool,
    },
    /// One output per label, each of which applies or not.
    Labels {
        /// Whether the logistic function is still to be applied.
        from_logits: bool,
    },
    /// One output per number.
    Value,
    /// The sample as the network found it again.
    Reconstruction {
        /// Whether the logistic function is still to be applied.
        from_logits: bool,
    },
}

impl Head {
    pub(crate) fn of(spec: &TrainSpec, schema: &DatasetSchema) -> Self {
        let from_logits = spec.outputs_logits();
        match spec.task(schema) {
            Task::Autoencoding => Self::Reconstruction { from_logits },
            Task::MultiLabel => Self::Labels { from_logits },
            Task::Regression => Self::Value,
            Task::Classification if spec.loss.kind() == LossKind::Binary => {
                Self::Binary { from_logits }
            }
            Task::Classification => Self::Classes { from_logits },
        }
    }

    /// Number of values in each of the reference outputs that are compared.
    pub(crate) fn width(self, network_output: usize) -> usize {
        match self {
            Self::Binary { .. } => 2,
            // The last one is the anomaly score.
            Self::Reconstruction { .. } => network_output + 1,
            Self::Classes { .. } | Self::Labels { .. } | Self::Value => network_output,
        }
    }

    /// Name of the output that is compared with references.
    pub(crate) fn primary(self) -> &'static str {
        match self {
            Self::Value => "prediction",
            Self::Reconstruction { .. } => "reconstruction",
            Self::Classes { .. } | Self::Binary { .. } | Self::Labels { .. } => "probabilities",
        }
    }

    /// Tells whether the largest output of a sample is its class.
    pub(crate) fn has_classes(self) -> bool {
        matches!(self, Self::Classes { .. } | Self::Binary { .. })
    }

    /// Tells whether a network's output fits, given with the shape of its input.
    pub(crate) fn accepts(self, output: &[usize], input: &[usize]) -> bool {
        match self {
            Self::Reconstruction { .. } => output == input,
            Self::Binary { .. } => output == [1],
            Self::Classes { .. } | Self::Labels { .. } | Self::Value => output.len() == 1,
        }
    }

    /// Turns raw outputs into probabilities, predictions or samples.
    ///
    /// `input` are the scaled samples, by which reconstructions are judged; as many values a
    /// sample as outputs.
    pub(crate) fn finish(
        self,
        mut raw: Vec<f32>,
        width: usize,
        input: &[f32],
        scaling: &Preprocessing,
    ) -> Vec<f32> {
        let read = |y: f32, from_logits: bool| if from_logits { logistic(y) } else { y };
        match self {
            Self::Value => raw,
            Self::Classes { from_logits } => {
                for row in raw.chunks_mut(width.max(1)) {
                    softmax(row, from_logits);
                }
                raw
            }
            Self::Labels { from_logits } => {
                for y in &mut raw {
                    *y = read(*y, from_logits);
                }
                raw
            }
            Self::Binary { from_logits } => {
                let both = raw.into_iter().map(|y| read(y, from_logits));
                both.flat_map(|p| [1.0 - p, p]).collect()
            }
            Self::Reconstruction { from_logits } => {
                let mut finished = Vec::with_capacity(raw.len() + raw.len() / width.max(1));
                let rows = raw.chunks_mut(width.max(1)).zip(input.chunks(width.max(1)));
                for (found, sample) in rows {
                    for y in found.iter_mut() {
                        *y = read(*y, from_logits);
                    }
                    let score = mean_square(found, sample);
                    preprocessing::invert(scaling, found);
                    finished.extend_from_slice(found);
                    finished.push(score);
                }
                finished
            }
        }
    }

    /// Wraps finished outputs as the signature's tensors; `shape` is that of a sample.
    pub(crate) fn tensors(self, finished: Vec<f32>, rows: usize, shape: &[usize]) -> Vec<Tensor> {
        let width = (finished.len() / rows.max(1)).max(1);
        let floats = |name: &str, shape: Vec<usize>, values| Tensor {
            name: name.to_owned(),
            shape,
            values: TensorValues::Fp32(values),
        };
        if matches!(self, Self::Reconstruction { .. }) {
            let scores = finished.chunks(width).filter_map(|row| row.last());
            let scores = scores.copied().collect();
            let samples = finished.chunks(width).flat_map(|row| &row[..width - 1]);
            let samples = samples.copied().collect();
            let whole = std::iter::once(rows).chain(shape.iter().copied());
            return vec![
                floats(self.primary(), whole.collect(), samples),
                floats("anomaly_score", vec![rows], scores),
            ];
        }
        let integers = |name: &str, shape, values| Tensor {
            name: name.to_owned(),
            shape,
            values: TensorValues::Int64(values),
        };
        let index = |row: &[f32]| i64::try_from(most_likely(row)).unwrap_or(i64::MAX);
        let second = match self {
            Self::Labels { .. } => {
                let on = finished.iter().map(|&p| i64::from(p > 0.5)).collect();
                Some(integers("labels", vec![rows, width], on))
            }
            _ if self.has_classes() => {
                let classes = finished.chunks(width).map(index).collect();
                Some(integers("class", vec![rows], classes))
            }
            _ => None,
        };
        let first = floats(self.primary(), vec![rows, width], finished);
        std::iter::once(first).chain(second).collect()
    }
}

/// The logistic function.
pub(crate) fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Makes outputs sum up to 1, from logits or from probabilities.
pub(crate) fn softmax(row: &mut [f32], from_logits: bool) {
    if from_logits {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for y in row.iter_mut() {
            *y = (*y - top).exp();
        }
    }
    let sum: f32 = row.iter().sum();
    for y in row.iter_mut() {
        *y /= sum;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "at most 2^20 values, and the score is a 32-bit float"
)]
fn mean_square(a: &[f32], b: &[f32]) -> f32 {
    let square = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)).powi(2);
    let sum: f64 = a.iter().zip(b).map(square).sum();
    (sum / a.len().max(1) as f64) as f32
}

/// Index of the largest value, the first of equals.
pub(crate) fn most_likely(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, y) in row.iter().enumerate() {
        if *y > row[best] {
            best = i;
        }
    }
    best
}

/// Type in which a column is sent: text stays text until it is encoded.
fn column_type(encoding: &ColumnEncoding) -> DataType {
    match encoding {
        ColumnEncoding::Number { .. } | ColumnEncoding::Boolean { .. } => DataType::Fp32,
        ColumnEncoding::Timestamp { .. }
        | ColumnEncoding::Category { .. }
        | ColumnEncoding::Text { .. } => DataType::Bytes,
    }
}

/// Describes inputs and outputs of a trained network.
pub(crate) fn signature(
    schema: &DatasetSchema,
    head: Head,
    width: usize,
    preprocessing: Preprocessing,
) -> Signature {
    let dim = |d: usize| i64::try_from(d).unwrap_or(i64::MAX);
    let tensor = |name: &str, datatype, dims: &[usize]| TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: std::iter::once(-1)
            .chain(dims.iter().map(|&d| dim(d)))
            .collect(),
    };
    let floats = |name: &str, dims: &[usize]| tensor(name, DataType::Fp32, dims);
    let outputs = match head {
        Head::Reconstruction { .. } => vec![
            floats(head.primary(), &schema.shape),
            floats("anomaly_score", &[]),
        ],
        Head::Value => vec![floats(head.primary(), &[width])],
        Head::Labels { .. } => vec![
            floats(head.primary(), &[width]),
            tensor("labels", DataType::Int64, &[width]),
        ],
        Head::Classes { .. } | Head::Binary { .. } => vec![
            floats(head.primary(), &[head.width(width)]),
            tensor("class", DataType::Int64, &[]),
        ],
    };
    let inputs = if schema.features.is_empty() {
        vec![tensor("input", DataType::Fp32, &schema.shape)]
    } else {
        let column = |c: &ColumnSchema| tensor(&c.name, column_type(&c.encoding), &[1]);
        schema.features.iter().map(column).collect()
    };
    Signature {
        inputs,
        outputs,
        classes: schema.classes().or(schema.labels()).map(<[String]>::to_vec),
        columns: schema.columns.clone(),
        preprocessing,
    }
}
