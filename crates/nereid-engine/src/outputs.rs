//! From a network's raw output to the tensors of its signature.

use nereid_core::{
    datasets::{
        DatasetSchema,
        columns::{ColumnEncoding, ColumnSchema},
    },
    models::{Preprocessing, Signature},
    spec::{Loss, TrainSpec},
    tensors::{DataType, Tensor, TensorSpec, TensorValues},
};
use serde::{Deserialize, Serialize};

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
    /// One output, which is the number.
    Value,
}

impl Head {
    pub(crate) fn of(spec: &TrainSpec) -> Self {
        let from_logits = spec.outputs_logits();
        match spec.loss {
            Loss::BinaryCrossentropy { .. } => Self::Binary { from_logits },
            _ if spec.loss.is_classification() => Self::Classes { from_logits },
            _ => Self::Value,
        }
    }

    /// Number of values in each of the reference outputs that are compared.
    pub(crate) fn width(self, network_output: usize) -> usize {
        match self {
            Self::Binary { .. } => 2,
            Self::Classes { .. } | Self::Value => network_output,
        }
    }

    /// Name of the output that is compared with references.
    pub(crate) fn primary(self) -> &'static str {
        match self {
            Self::Value => "prediction",
            _ => "probabilities",
        }
    }

    /// Turns raw outputs, `width` a row, into probabilities or predictions.
    pub(crate) fn finish(self, mut raw: Vec<f32>, width: usize) -> Vec<f32> {
        match self {
            Self::Value => raw,
            Self::Classes { from_logits } => {
                for row in raw.chunks_mut(width.max(1)) {
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
                raw
            }
            Self::Binary { from_logits } => {
                let second = |y: f32| {
                    if from_logits {
                        1.0 / (1.0 + (-y).exp())
                    } else {
                        y
                    }
                };
                raw.into_iter()
                    .map(second)
                    .flat_map(|p| [1.0 - p, p])
                    .collect()
            }
        }
    }

    /// Wraps finished outputs as the signature's tensors.
    pub(crate) fn tensors(self, finished: Vec<f32>, rows: usize) -> Vec<Tensor> {
        let width = finished.len() / rows.max(1);
        let classes = (self != Self::Value).then(|| {
            let index = |row| i64::try_from(most_likely(row)).unwrap_or(i64::MAX);
            finished.chunks(width.max(1)).map(index).collect()
        });
        let mut tensors = vec![Tensor {
            name: self.primary().to_owned(),
            shape: vec![rows, width],
            values: TensorValues::Fp32(finished),
        }];
        if let Some(classes) = classes {
            tensors.push(Tensor {
                name: "class".to_owned(),
                shape: vec![rows],
                values: TensorValues::Int64(classes),
            });
        }
        tensors
    }
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
    let mut outputs = vec![tensor(head.primary(), DataType::Fp32, &[head.width(width)])];
    if head != Head::Value {
        outputs.push(tensor("class", DataType::Int64, &[]));
    }
    let inputs = if schema.features.is_empty() {
        vec![tensor("input", DataType::Fp32, &schema.shape)]
    } else {
        let column = |c: &ColumnSchema| tensor(&c.name, column_type(&c.encoding), &[1]);
        schema.features.iter().map(column).collect()
    };
    Signature {
        inputs,
        outputs,
        classes: schema.classes().map(<[String]>::to_vec),
        columns: schema.columns.clone(),
        preprocessing,
    }
}
