//! Runs batches: several requests as one, large ones in pieces; a failure hits who caused it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use nereid_core::{
    engine::EngineError,
    inference::{Answer, InferError, Timing},
    tensors::{Batch, Tensor, TensorValues},
};

use super::{Shared, queue::Entry};
use crate::threads::panic_message;

/// Outputs of an execution, and what it took.
struct Done {
    outputs: Vec<Tensor>,
    rows: usize,
    executions: u32,
    began: Instant,
    took: Duration,
}

impl Shared {
    /// Answers `entries`, which were taken from the queue at `now`.
    pub(super) fn execute(&self, entries: Vec<Entry>, now: Instant) {
        if entries.len() < 2 {
            for entry in entries {
                self.reply_singly(entry);
            }
            return;
        }
        let rows: Vec<usize> = entries.iter().map(|e| e.batch.rows).collect();
        let mut joined = Batch {
            rows: rows.iter().sum(),
            values: Vec::new(),
        };
        joined.values.reserve_exact(joined.rows * self.row);
        for entry in &entries {
            joined.values.extend_from_slice(&entry.batch.values);
        }
        let done = self.run(&joined);
        drop(joined);
        match done.and_then(|done| split(&done, &rows)) {
            Ok(answers) => {
                for (entry, mut answer) in entries.into_iter().zip(answers) {
                    answer.timing.queue = now.saturating_duration_since(entry.arrived);
                    entry.reply.send(Ok(answer));
                }
            }
            // One of them may be to blame: the others must not fail with it.
            Err(_) => entries.into_iter().for_each(|e| self.reply_singly(e)),
        }
    }

    fn reply_singly(&self, entry: Entry) {
        let answer = self.execute_one(&entry.batch, entry.arrived);
        entry.reply.send(answer);
    }

    /// Computes the answer of a request alone.
    pub(super) fn execute_one(
        &self,
        batch: &Batch,
        arrived: Instant,
    ) -> Result<Answer, InferError> {
        let done = self.run(batch)?;
        let timing = Timing {
            queue: done.began.saturating_duration_since(arrived),
            ..done.timing()
        };
        let outputs = done.outputs;
        Ok(Answer { outputs, timing })
    }

    /// Runs a batch, in pieces if it is larger than allowed.
    fn run(&self, batch: &Batch) -> Result<Done, InferError> {
        let most = self.settings.max_batch_size as usize;
        let began = Instant::now();
        let (mut outputs, mut executions) = (Vec::new(), 0);
        if batch.rows <= most {
            (outputs, executions) = (self.predict(batch)?, 1);
        } else {
            for values in batch.values.chunks(most * self.row.max(1)) {
                let (rows, values) = (values.len() / self.row.max(1), values.to_vec());
                append(&mut outputs, self.predict(&Batch { rows, values })?)?;
                executions += 1;
            }
        }
        let took = began.elapsed();
        self.learn(batch.rows, took);
        Ok(Done {
            outputs,
            rows: batch.rows,
            executions,
            began,
            took,
        })
    }

    fn predict(&self, batch: &Batch) -> Result<Vec<Tensor>, InferError> {
        let run = AssertUnwindSafe(|| self.model.predict(batch));
        match catch_unwind(run) {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(EngineError::InvalidInput(detail))) => Err(InferError::Invalid(detail)),
            Ok(Err(e)) => Err(InferError::Failed(e.to_string())),
            Err(panic) => {
                let message = panic_message(&*panic);
                Err(InferError::Failed(format!("it panicked: {message}")))
            }
        }
    }
}

impl Done {
    fn timing(&self) -> Timing {
        Timing {
            queue: Duration::ZERO,
            compute: self.took,
            batch_rows: u32::try_from(self.rows).unwrap_or(u32::MAX) / self.executions.max(1),
            executions: self.executions,
        }
    }
}

/// Takes outputs apart again, by the rows of each request.
fn split(done: &Done, rows: &[usize]) -> Result<Vec<Answer>, InferError> {
    let mut timing = done.timing();
    let mut answers = Vec::with_capacity(rows.len());
    let mut from = 0;
    for &rows in rows {
        let part = |t: &Tensor| part(t, done.rows, from, rows);
        let outputs = done.outputs.iter().map(part).collect::<Result<_, _>>()?;
        answers.push(Answer { outputs, timing });
        // Counted with the first answer only.
        timing.executions = 0;
        from += rows;
    }
    Ok(answers)
}

/// Returns `rows` rows of a tensor of `all`, beginning at `from`.
fn part(tensor: &Tensor, all: usize, from: usize, rows: usize) -> Result<Tensor, InferError> {
    let mut shape = tensor.shape.clone();
    match shape.first_mut() {
        Some(first) if *first == all => *first = rows,
        _ => return Err(no_batch(tensor)),
    }
    let row = shape[1..].iter().product::<usize>();
    let range = from * row..(from + rows) * row;
    let values = match &tensor.values {
        TensorValues::Fp32(v) => v.get(range).map(|v| TensorValues::Fp32(v.to_vec())),
        TensorValues::Int64(v) => v.get(range).map(|v| TensorValues::Int64(v.to_vec())),
        TensorValues::Bytes(v) => v.get(range).map(|v| TensorValues::Bytes(v.to_vec())),
    };
    Ok(Tensor {
        name: tensor.name.clone(),
        shape,
        values: values.ok_or_else(|| no_batch(tensor))?,
    })
}

/// Adds the rows of `more` to those of `outputs`.
fn append(outputs: &mut Vec<Tensor>, more: Vec<Tensor>) -> Result<(), InferError> {
    if outputs.is_empty() {
        *outputs = more;
        return Ok(());
    }
    for (tensor, more) in outputs.iter_mut().zip(more) {
        match (&mut tensor.values, more.values) {
            (TensorValues::Fp32(to), TensorValues::Fp32(from)) => to.extend(from),
            (TensorValues::Int64(to), TensorValues::Int64(from)) => to.extend(from),
            (TensorValues::Bytes(to), TensorValues::Bytes(from)) => to.extend(from),
            _ => return Err(no_batch(tensor)),
        }
        match (tensor.shape.first_mut(), more.shape.first()) {
            (Some(to), Some(from)) => *to += from,
            _ => return Err(no_batch(tensor)),
        }
    }
    Ok(())
}

fn no_batch(tensor: &Tensor) -> InferError {
    let (name, shape) = (&tensor.name, &tensor.shape);
    InferError::Failed(format!(
        "output {name} of shape {shape:?} has no row per input"
    ))
}
