//! Which rows train, validate and test.

use nereid_core::{
    engine::{EngineError, TrainTask},
    spec::train::split_sizes,
};

use crate::{
    data::{Check, Samples, load},
    random::{self, Purpose},
};

/// Decoded datasets and the rows of each that play a part.
pub(super) struct Splits {
    datasets: Vec<Samples>,
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
        let mut order: Vec<usize> = (0..train.rows).collect();
        let sizes = split_sizes(train.rows as u64, fit.validation_split, fit.test_split);
        let [_, validation, test] = sizes.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if validation + test > 0 {
            let mut rng = random::generator(fit.seed, Purpose::Split, [0, 0]);
            random::shuffle(&mut rng, &mut order);
        }
        let mut rest = order.split_off((validation + test).min(order.len()));
        rest.sort_unstable();
        let held_out = order.split_off(validation);
        let part = |rows: Vec<usize>| (!rows.is_empty()).then_some(Part { dataset: 0, rows });
        let mut splits = Self {
            datasets: vec![train],
            train: Part {
                dataset: 0,
                rows: rest,
            },
            validation: part(order),
            test: part(held_out),
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
