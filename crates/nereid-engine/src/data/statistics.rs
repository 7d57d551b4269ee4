//! Mean, standard deviation and range in one pass (Welford, 1962).

/// Figures of one column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Column {
    pub(crate) mean: f64,
    pub(crate) std: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    n: f64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

/// Running figures of several columns.
#[derive(Debug, Clone)]
pub(crate) struct Statistics(Vec<Running>);

impl Statistics {
    pub(crate) fn new(columns: usize) -> Self {
        let start = Running {
            n: 0.0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        };
        Self(vec![start; columns])
    }

    /// Number of columns for samples of a shape: one per column of a table, one per channel of
    /// an image with channels, else a single one.
    pub(crate) fn columns_of(shape: &[usize]) -> usize {
        match shape {
            [columns] => *columns,
            [_, _, channels] => *channels,
            _ => 1,
        }
    }

    /// Adds a value; NaN stands for a missing one and counts for nothing.
    pub(crate) fn push(&mut self, column: usize, value: f64) {
        if value.is_nan() {
            return;
        }
        let c = &mut self.0[column];
        c.n += 1.0;
        let delta = value - c.mean;
        c.mean += delta / c.n;
        c.squares += delta * (value - c.mean);
        c.min = c.min.min(value);
        c.max = c.max.max(value);
    }

    /// Adds a sample, whose last axis repeats over the columns.
    pub(crate) fn push_row(&mut self, row: impl Iterator<Item = f32>) {
        let columns = self.0.len();
        let mut column = 0;
        for value in row {
            self.push(column, f64::from(value));
            column += 1;
            if column == columns {
                column = 0;
            }
        }
    }

    pub(crate) fn columns(&self) -> Vec<Column> {
        let column = |c: &Running| Column {
            mean: c.mean,
            std: (c.squares / c.n.max(1.0)).sqrt(),
            min: c.min,
            max: c.max,
        };
        self.0.iter().map(column).collect()
    }
}
