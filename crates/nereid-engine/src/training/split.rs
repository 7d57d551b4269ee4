//! Which rows train, validate and test.

mod balance;
mod draw;

use nereid_core::{
    engine::{EngineError, TrainTask},
    spec::FitOptions,
};

use self::balance::Balance;
use crate::data::{Check, Samples, Targets, load, read_keys};

/// Decoded datasets and the rows of each that play a part.
pub(super) struct Splits {
    datasets: Vec<Samples>,
    balance: Option<Balance>,
    pub(super) train: Part,
    pub(super) validation: Option<Part>,
    pub(super) test: Option<Part>,
}

/// Some rows of one dataset.
#[derive(Debug, Clone)]
pub(super) struct Part {
    dataset: usize,
    pub(super) rows: Vec<usize>,
}

impl Splits {
    /// Reads all datasets of a task and draws the splits.
    pub(super) fn load(task: &TrainTask<'_>, check: &mut Check<'_>) -> Result<Self, EngineError> {
        let schema = &task.train.schema;
        let fit = &task.spec.fit;
        let train = load(&task.train, schema, check)?;
        let count = u32::try_from(train.rows).unwrap_or(u32::MAX);
        let column = fit.split.column.as_deref();
        let keys = column.map(|column| read_keys(&task.train, column, check));
        let keys = keys.transpose()?;
        let drawn = draw::draw(fit, count, &train.targets, keys.as_deref())?;
        let [rest, validation, test] = drawn.map(|rows| {
            let rows = rows.into_iter().map(|row| row as usize);
            rows.collect::<Vec<_>>()
        });
        let balance = balance(fit, &train, &rest);
        let part = |rows: Vec<usize>| (!rows.is_empty()).then_some(Part { dataset: 0, rows });
        let mut splits = Self {
            datasets: vec![train],
            balance,
            train: Part {
                dataset: 0,
                rows: rest,
            },
            validation: part(validation),
            test: part(test),
        };
        if let Some(input) = &task.validation {
            check()?;
            splits.validation = Some(splits.add(load(input, schema, check)?));
        }
        if let Some(input) = &task.test {
            check()?;
            splits.test = Some(splits.add(load(input, schema, check)?));
        }
        if splits.train.rows.is_empty() {
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
    pub(super) fn epoch_rows(&self, seed: u64, epoch: u32) -> Vec<usize> {
        match &self.balance {
            None => self.train.rows.clone(),
            Some(balance) => {
                let rows = balance.rows(seed, epoch).into_iter();
                rows.map(|row| row as usize).collect()
            }
        }
    }

    pub(super) fn datasets(&self) -> &[Samples] {
        &self.datasets
    }

    fn add(&mut self, samples: Samples) -> Part {
        let rows = (0..samples.rows).collect();
        self.datasets.push(samples);
        Part {
            dataset: self.datasets.len() - 1,
            rows,
        }
    }
}

fn balance(fit: &FitOptions, samples: &Samples, rows: &[usize]) -> Option<Balance> {
    let (Some(kind), Targets::Class(classes)) = (fit.class_balance, &samples.targets) else {
        return None;
    };
    let numbered = |&row: &usize| Some((u32::try_from(row).ok()?, classes[row]));
    Some(Balance::new(kind, rows.iter().filter_map(numbered)))
}
