//! Which rows train, validate and test.

mod balance;
mod draw;

use std::borrow::Cow;

use nereid_core::{
    engine::{EngineError, TrainTask},
    spec::FitOptions,
};

use self::balance::Balance;
use super::order::{RowSet, Shuffle};
use crate::data::{Check, Key, Room, Samples, Targets, does_not_fit, load, read_keys};

/// Decoded datasets and the rows of each that play a part.
pub(super) struct Splits {
    datasets: Vec<Samples>,
    balance: Option<Balance>,
    /// How the training rows are reordered in each epoch.
    pub(super) shuffle: Shuffle,
    pub(super) train: Part,
    pub(super) validation: Option<Part>,
    pub(super) test: Option<Part>,
}

/// Some rows of one dataset.
#[derive(Debug, Clone)]
pub(super) struct Part {
    dataset: usize,
    pub(super) rows: RowSet,
}

impl Splits {
    /// Reads all datasets of a task and draws the splits.
    pub(super) fn load(task: &TrainTask<'_>, check: &mut Check<'_>) -> Result<Self, EngineError> {
        let schema = &super::learnt(task);
        let fit = &task.spec.fit;
        let mut room = Room::new(task.resources, task.scratch);
        let ordered = !fit.shuffle || fit.shuffle_buffer.is_some();
        // Rows that are repeated are read again.
        let ordered = ordered && fit.class_balance.is_none();
        let train = load(&task.train, schema, &mut room, ordered, check)?;
        let shuffle = Shuffle::of(fit, &train);
        let column = fit.split.column.as_deref();
        if column.is_some() {
            // A column that cannot be split by is refused for that, not for what its cells hold.
            super::plan(task, train.rows)?;
        }
        let keys = column.map(|column| read_keys(&task.train, column, check));
        let keys = keys.transpose()?;
        let [rest, validation, test] = draw(fit, &train, keys.as_deref())?;
        check_streamed(task, &train, shuffle)?;
        let balance = balance(fit, &train, &rest);
        let part = |rows: RowSet| (rows.len() > 0).then_some(Part { dataset: 0, rows });
        let mut splits = Self {
            datasets: vec![train],
            balance,
            shuffle,
            train: Part {
                dataset: 0,
                rows: rest,
            },
            validation: part(validation),
            test: part(test),
        };
        if let Some(input) = &task.validation {
            check()?;
            splits.validation = Some(splits.add(load(input, schema, &mut room, true, check)?));
        }
        if let Some(input) = &task.test {
            check()?;
            splits.test = Some(splits.add(load(input, schema, &mut room, true, check)?));
        }
        if splits.train.rows.len() == 0 {
            let detail = "no rows are left to train on".to_owned();
            return Err(EngineError::InvalidInput(detail));
        }
        Ok(splits)
    }

    pub(super) fn samples(&self, part: &Part) -> &Samples {
        &self.datasets[part.dataset]
    }

    /// Number of rows in each epoch.
    pub(super) fn epoch_len(&self) -> usize {
        let balanced = self.balance.as_ref().map(Balance::len);
        balanced.unwrap_or(self.train.rows.len())
    }

    /// Returns the training rows of an epoch in the order of the data.
    pub(super) fn epoch_rows(&self, seed: u64, epoch: u32) -> Cow<'_, RowSet> {
        match &self.balance {
            None => Cow::Borrowed(&self.train.rows),
            Some(balance) => Cow::Owned(balance.rows(seed, epoch).into()),
        }
    }

    pub(super) fn datasets(&self) -> &[Samples] {
        &self.datasets
    }

    fn add(&mut self, samples: Samples) -> Part {
        let rows = RowSet::First(number(samples.rows));
        self.datasets.push(samples);
        Part {
            dataset: self.datasets.len() - 1,
            rows,
        }
    }
}

/// Draws training, validation and test rows.
fn draw(
    fit: &FitOptions,
    samples: &Samples,
    keys: Option<&[Key]>,
) -> Result<[RowSet; 3], EngineError> {
    let held_out = fit.validation_split + fit.test_split;
    if held_out == 0.0 && keys.is_none() {
        let none = || RowSet::List(Vec::new());
        return Ok([RowSet::First(number(samples.rows)), none(), none()]);
    }
    let mut parts = draw::draw(fit, number(samples.rows), &samples.targets, keys)?;
    if Shuffle::reads_in_order(fit, samples) {
        for rows in &mut parts {
            rows.sort_unstable();
        }
    }
    Ok(parts.map(RowSet::from))
}

fn balance(fit: &FitOptions, samples: &Samples, rows: &RowSet) -> Option<Balance> {
    let (Some(kind), Targets::Class(classes)) = (fit.class_balance, &samples.targets) else {
        return None;
    };
    let with_class = rows.iter().map(|row| (row, classes[row as usize]));
    Some(Balance::new(kind, with_class))
}

/// Checks that data which stays in its source can be trained on in its order.
fn check_streamed(
    task: &TrainTask<'_>,
    train: &Samples,
    shuffle: Shuffle,
) -> Result<(), EngineError> {
    if !train.is_streamed() {
        return Ok(());
    }
    let resources = task.resources;
    if !Shuffle::reads_in_order(&task.spec.fit, train) {
        return Err(EngineError::InvalidInput(does_not_fit(
            resources.cache_limit,
        )));
    }
    let Shuffle::Window(rows) = shuffle else {
        return Ok(());
    };
    let held = u64::from(rows)
        .min(train.rows as u64)
        .saturating_mul(train.row_bytes());
    if held > resources.memory {
        return Err(EngineError::InvalidInput(format!(
            "fit.shuffle_buffer: {rows} rows hold {held} bytes, above the {} that the worker keeps \
             in memory for data (worker.data_memory); ask for fewer",
            resources.memory
        )));
    }
    Ok(())
}

fn number(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
