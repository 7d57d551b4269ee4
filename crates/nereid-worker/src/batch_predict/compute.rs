//! The thread of a batch prediction: reads rows, asks the model, writes parts to the local disk.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use nereid_core::{
    Violation,
    batch_predictions::BatchTotals,
    datasets::{DatasetFormat, encoding::TableEncoder},
    engine::{EngineError, InputRows, Predictor},
    jobs::{Directive, Progress},
    limits,
    models::Signature,
    rows::{self, InputRow, Row, RowReading},
    spec::{BatchPredictSpec, batch_predict::OnError},
    tensors::Batch,
    validation::escape,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{
    Input, Model,
    files::{Finished, Part},
    lines::Lines,
};
use crate::{attempt::Attempt, error::RunError};

/// What the thread works on.
pub(super) struct Task {
    pub(super) attempt: Arc<Attempt>,
    pub(super) model: Model,
    pub(super) input: Input,
    pub(super) spec: BatchPredictSpec,
    pub(super) scratch: Arc<TempDir>,
    /// What earlier attempts have done.
    pub(super) done: BatchTotals,
    /// Rows of the input, if they are known.
    pub(super) rows: Option<u64>,
    pub(super) next_part: u32,
    pub(super) parts: mpsc::Sender<Finished>,
}

impl Task {
    /// Predicts all rows behind those that are done.
    ///
    /// Batches begin anew with each part, so that a part is the same whoever computes it.
    pub(super) fn run(self) -> Result<(), RunError> {
        let model = self.model.loader.load(&self.model.folder)?;
        let attempt = Arc::clone(&self.attempt);
        let mut check = || go_on(&attempt);
        let input = &self.input;
        let rows = input
            .reader
            .open(&input.source, input.files.as_ref(), &mut check)?;
        let signature = model.signature().clone();
        let ids = &self.spec.output.id_columns;
        let reading = RowReading::new(&signature, &input.source, ids);
        let header = rows.header();
        if let Some(header) = header {
            let fault = |detail| RunError::Input(format!("the input: {detail}"));
            reading.check_header(header).map_err(fault)?;
        }
        let lines = Lines::new(&self.spec.output, &signature, header)
            .map_err(|detail| RunError::Input(format!("the input: {detail}")))?;
        let columns = &signature.preprocessing.columns;
        let encoder = (!columns.is_empty()).then(|| TableEncoder::new(columns));
        let mut run = Run {
            next_part: self.next_part,
            read: 0,
            rejected: self.done.rejected,
            started: Instant::now(),
            task: self,
            model,
            signature,
            encoder,
            reading,
            lines,
            rows,
        };
        run.skip()?;
        while run.part()? {}
        Ok(())
    }
}

/// Ends the work unless it is to go on.
fn go_on(attempt: &Attempt) -> Result<(), EngineError> {
    match attempt.directive() {
        Directive::Continue => Ok(()),
        Directive::Finish | Directive::Suspend | Directive::Stop => Err(EngineError::Stopped),
    }
}

/// A row with its number, or why it cannot be read.
type Read = (u64, Result<InputRow, Vec<Violation>>);

struct Run {
    task: Task,
    model: Arc<dyn Predictor>,
    signature: Signature,
    encoder: Option<TableEncoder>,
    reading: RowReading,
    lines: Lines,
    rows: Box<dyn InputRows>,
    next_part: u32,
    /// Rows read, those that earlier attempts have done included.
    read: u64,
    rejected: u64,
    started: Instant,
}

impl Run {
    /// Passes over the rows that earlier attempts have done.
    fn skip(&mut self) -> Result<(), RunError> {
        while self.read < self.task.done.rows {
            if self.read.is_multiple_of(1_024) {
                go_on(&self.task.attempt)?;
            }
            if self.row()?.is_none() {
                let detail = format!(
                    "the input ends at row {}, where it went on before",
                    self.read
                );
                return Err(RunError::Input(detail));
            }
        }
        Ok(())
    }

    /// Reads the next row; `None` after the last.
    fn row(&mut self) -> Result<Option<Read>, RunError> {
        let number = self.read + 1;
        let row = match self.rows.next() {
            Ok(None) => return Ok(None),
            Ok(Some(row)) => Ok(row),
            Err(EngineError::InvalidData(e)) if e.row.is_some() => {
                let column = e.column.as_deref().map(escape);
                Err(vec![Violation {
                    pointer: column.map_or_else(String::new, |c| format!("/{c}")),
                    code: e.code.to_owned(),
                    detail: e.detail,
                }])
            }
            Err(e) => return Err(e.into()),
        };
        self.read = number;
        Ok(Some((number, row)))
    }

    /// Computes a part and hands it over; `false` after the last.
    fn part(&mut self) -> Result<bool, RunError> {
        let started = Instant::now();
        let mut part = Part::default();
        let full = u64::from(self.task.spec.rows_per_part);
        let mut more = true;
        while more && part.rows < full {
            go_on(&self.task.attempt)?;
            let batch = self.batch(full - part.rows)?;
            more = !batch.is_empty();
            if more {
                part.rows += batch.len() as u64;
                self.predict(batch, &mut part)?;
                self.report();
            }
        }
        if part.rows == 0 {
            return Ok(false);
        }
        let number = self.next_part;
        let max = limits::MAX_BATCH_PARTS;
        if number as usize >= max {
            let detail =
                format!("the input has rows for more than {max} parts; raise rows_per_part");
            return Err(RunError::Input(detail));
        }
        self.next_part += 1;
        let finished = part.finish(number, started.elapsed().as_secs_f64());
        let finished = finished.map_err(unwritten)?;
        // Nobody takes it: why, the other side tells.
        let sent = self.task.parts.blocking_send(finished);
        sent.map_err(|_| RunError::Halted)?;
        Ok(more)
    }

    /// Reads the rows of one batch; none after the last.
    fn batch(&mut self, most: u64) -> Result<Vec<Read>, RunError> {
        let size: usize = self.signature.sample_shape().iter().product();
        let fits = (limits::MAX_BATCH_VALUES / size.max(1)).max(1);
        let most = most.min(u64::from(self.task.spec.batch_size));
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(fits);
        let mut batch = Vec::with_capacity(most);
        while batch.len() < most
            && let Some(row) = self.row()?
        {
            batch.push(row);
        }
        Ok(batch)
    }

    /// Writes the predictions of a batch, and what is wrong with rows that do not fit.
    fn predict(&mut self, batch: Vec<Read>, part: &mut Part) -> Result<(), RunError> {
        let (mut kept, mut requests, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for (number, row) in batch {
            match row {
                Ok(row) => {
                    requests.push(self.reading.row(&row));
                    kept.push((number, row));
                }
                Err(errors) => rejected.push((number, None, errors)),
            }
        }
        let fitting = self.sort_out(kept, &requests, &mut rejected);
        self.reject(rejected, part)?;
        let Some((kept, batch)) = fitting else {
            return Ok(());
        };
        let outputs = self.model.predict(&batch)?;
        let predictions = rows::predictions(batch.rows, &outputs, &self.signature);
        let predictions = predictions
            .ok_or_else(|| RunError::Internal("unexpected outputs of the model".to_owned()))?;
        let folder = self.task.scratch.path();
        for ((number, row), prediction) in kept.iter().zip(&predictions) {
            let (out, first) = part.predictions.open(folder).map_err(unwritten)?;
            let written = self.lines.write(out, first, *number, row, prediction);
            written.map_err(unwritten)?;
        }
        Ok(())
    }

    /// Makes a batch of the rows that fit; the others are added to `rejected`.
    fn sort_out(
        &self,
        kept: Vec<(u64, InputRow)>,
        requests: &[Row],
        rejected: &mut Vec<Rejected>,
    ) -> Option<(Vec<(u64, InputRow)>, Batch)> {
        let encoder = self.encoder.as_ref();
        let exact = kept.iter().all(|(_, row)| self.inexact(row).is_none());
        if exact && let Ok(batch) = rows::batch(requests, &self.signature, encoder) {
            return Some((kept, batch));
        }
        let mut fitting = (
            Vec::new(),
            Batch {
                rows: 0,
                values: Vec::new(),
            },
        );
        for ((number, row), request) in kept.into_iter().zip(requests) {
            let one = std::slice::from_ref(request);
            let errors = match (
                rows::batch(one, &self.signature, encoder),
                self.inexact(&row),
            ) {
                (Ok(mut batch), None) => {
                    fitting.0.push((number, row));
                    fitting.1.rows += 1;
                    fitting.1.values.append(&mut batch.values);
                    continue;
                }
                (Ok(_), Some(violation)) => vec![violation],
                (Err(found), _) => found.into_vec(),
            };
            let errors = errors.into_iter().map(|v| Violation {
                pointer: v
                    .pointer
                    .strip_prefix("/rows/0")
                    .unwrap_or(&v.pointer)
                    .to_owned(),
                ..v
            });
            rejected.push((number, Some(row), errors.collect()));
        }
        (fitting.1.rows > 0).then_some(fitting)
    }

    /// Finds a number that stands beside predictions and that a file has given up some digits of.
    fn inexact(&self, row: &InputRow) -> Option<Violation> {
        let InputRow::Columns(columns) = row else {
            return None;
        };
        if self.task.input.source.format != DatasetFormat::Parquet {
            return None;
        }
        let rounded = |value: &Value| match value {
            Value::Number(n) if n.is_f64() => n
                .as_f64()
                .is_some_and(|n| n.fract() == 0.0 && n.abs() >= EXACT),
            _ => false,
        };
        let (name, value) = columns
            .iter()
            .find(|(name, value)| self.lines.keeps(name) && rounded(value))?;
        Some(Violation {
            pointer: format!("/{}", escape(name)),
            code: "inexact".to_owned(),
            detail: format!(
                "{value} is too large a number to be kept with all its digits; store the column as text"
            ),
        })
    }

    fn reject(&mut self, mut rejected: Vec<Rejected>, part: &mut Part) -> Result<(), RunError> {
        rejected.sort_by_key(|(number, ..)| *number);
        for (number, row, errors) in rejected {
            if self.task.spec.on_error == OnError::Fail {
                return Err(RunError::Input(unfit(number, &errors)));
            }
            let folder = self.task.scratch.path();
            let (out, _) = part.rejections.open(folder).map_err(unwritten)?;
            let noted = self.lines.reject(out, number, row.as_ref(), &errors);
            noted.map_err(unwritten)?;
            part.rejected += 1;
            self.rejected += 1;
            if let Some(max) = self.task.spec.max_errors
                && self.rejected > max
            {
                let detail = unfit(number, &errors);
                return Err(RunError::Input(format!(
                    "more than max_errors ({max}) rows do not fit; the last one: {detail}"
                )));
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    fn report(&self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let here = self.read - self.task.done.rows;
        let rate = if seconds > 0.0 {
            here as f64 / seconds
        } else {
            0.0
        };
        self.task.attempt.outbox.progress(Progress {
            epoch: 1,
            epochs: 1,
            step: self.read,
            steps: self.task.rows.unwrap_or_default(),
            metrics: BTreeMap::from([
                ("rejected".to_owned(), self.rejected as f64),
                ("rows_per_second".to_owned(), rate),
            ]),
        });
    }
}

/// Whole numbers from here on are not all told apart by a float.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A row that does not fit, as far as it could be read.
type Rejected = (u64, Option<InputRow>, Vec<Violation>);

fn unfit(number: u64, errors: &[Violation]) -> String {
    let errors = errors.iter().take(3).map(|e| match e.pointer.as_str() {
        "" => e.detail.clone(),
        pointer => format!("{}: {}", pointer.trim_start_matches('/'), e.detail),
    });
    let errors: Vec<_> = errors.collect();
    format!("row {number} of the input: {}", errors.join("; "))
}

fn unwritten(error: io::Error) -> RunError {
    RunError::io("cannot write predictions to the local disk", error)
}
