//! In which order rows are trained on: a function of spec, data and epoch, and of nothing else.
//!
//! No order depends on what a machine can hold, since an attempt may go on elsewhere.

use std::{collections::HashSet, ops::Range, vec};

use nereid_core::spec::fit::FitOptions;
use rand::{RngExt, rngs::StdRng};

use crate::{
    data::Samples,
    random::{self, Purpose},
};

/// Rows of a dataset that play one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowSet {
    /// The first so many.
    First(u32),
    /// These, in this order.
    List(Vec<u32>),
}

impl RowSet {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::First(n) => *n as usize,
            Self::List(rows) => rows.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + Clone + '_ {
        let (range, list) = match self {
            Self::First(n) => (0..*n, &[][..]),
            Self::List(rows) => (0..0, rows.as_slice()),
        };
        range.chain(list.iter().copied())
    }

    fn at(&self, position: u32) -> u32 {
        match self {
            Self::First(_) => position,
            Self::List(rows) => rows[position as usize],
        }
    }
}

impl From<Vec<u32>> for RowSet {
    fn from(rows: Vec<u32>) -> Self {
        Self::List(rows)
    }
}

/// How an epoch's order is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shuffle {
    /// As the rows lie in the data.
    None,
    /// All rows at once.
    Full,
    /// Through a window of so many rows, in their order in the data: what `tf.data`'s `shuffle`
    /// does, and all that data read from end to end allows.
    Window(u32),
    /// Blocks of so many neighbours are reordered, and their rows pass through a window.
    Blocks { rows: u32, window: u32 },
}

/// Decoded training data up to this size is reordered as a whole.
const FULL_BYTES: u64 = 1 << 30;
/// Neighbours that are read together, so that a disk is not asked for single rows.
const BLOCK_BYTES: u64 = 64 << 10;
/// Rows that are mixed at a time: a thousand blocks and more.
const WINDOW_BYTES: u64 = 128 << 20;
const LEAST_WINDOW: u32 = 1 << 12;

impl Shuffle {
    /// Chooses by spec and by the decoded size of the training data.
    pub(super) fn of(fit: &FitOptions, samples: &Samples) -> Self {
        let row = samples.row_bytes();
        match fit.shuffle_buffer {
            _ if !fit.shuffle => Self::None,
            Some(rows) => Self::Window(rows),
            None if row.saturating_mul(samples.rows as u64) <= FULL_BYTES => Self::Full,
            None => {
                let rows = |bytes: u64| u32::try_from(bytes / row.max(1)).unwrap_or(u32::MAX);
                Self::Blocks {
                    rows: rows(BLOCK_BYTES).max(1),
                    window: rows(WINDOW_BYTES).max(LEAST_WINDOW),
                }
            }
        }
    }
}

impl Shuffle {
    /// Tells whether rows are read in about the order in which they lie in the data, or could be
    /// with more of it: then what is held out is evaluated in that order, too.
    pub(super) fn reads_in_order(fit: &FitOptions, samples: &Samples) -> bool {
        let bytes = samples.row_bytes().saturating_mul(samples.rows as u64);
        fit.shuffle_buffer.is_some() || bytes > FULL_BYTES
    }
}

/// The rows of an epoch, one after the other.
pub(super) struct Order<'a> {
    rows: &'a RowSet,
    source: Source,
    window: Option<Window>,
}

enum Source {
    Positions(Range<u32>),
    Rows(vec::IntoIter<u32>),
    Blocks {
        order: vec::IntoIter<u32>,
        rows: u32,
        within: Range<u32>,
    },
}

/// Rows of which the next one is drawn.
struct Window {
    rng: StdRng,
    rows: Vec<u32>,
    size: usize,
}

impl<'a> Order<'a> {
    /// The rows as they are listed.
    pub(super) fn listed(rows: &'a RowSet) -> Self {
        Self {
            rows,
            source: Source::Positions(0..length(rows)),
            window: None,
        }
    }

    /// The order of an epoch.
    pub(super) fn shuffled(rows: &'a RowSet, shuffle: Shuffle, seed: u64, epoch: u32) -> Self {
        let rng = |use_| random::generator(seed, Purpose::Order, [u64::from(epoch), use_]);
        let window = |size: u32| Window {
            rng: rng(1),
            rows: Vec::new(),
            size: size.max(1) as usize,
        };
        let mut order = Self::listed(rows);
        match shuffle {
            Shuffle::None => {}
            Shuffle::Full => {
                let mut all: Vec<u32> = rows.iter().collect();
                random::shuffle(&mut rng(0), &mut all);
                order.source = Source::Rows(all.into_iter());
            }
            Shuffle::Window(size) => order.window = Some(window(size)),
            Shuffle::Blocks {
                rows: n,
                window: size,
            } => {
                let mut blocks: Vec<u32> = (0..length(rows).div_ceil(n.max(1))).collect();
                random::shuffle(&mut rng(2), &mut blocks);
                order.source = Source::Blocks {
                    order: blocks.into_iter(),
                    rows: n.max(1),
                    within: 0..0,
                };
                order.window = Some(window(size));
            }
        }
        order
    }

    /// Tells of each row whether it is still to come, for who reads the data from end to end.
    ///
    /// Rows that are listed must ascend.
    pub(super) fn to_come(&self) -> Box<dyn Fn(u32) -> bool + Send + Sync + 'a> {
        let rows = self.rows;
        let held: HashSet<u32> = self.held_back().iter().copied().collect();
        let next = match &self.source {
            Source::Positions(positions) => positions.start,
            Source::Rows(_) | Source::Blocks { .. } => 0,
        };
        let next = if (next as usize) < rows.len() {
            rows.at(next)
        } else {
            u32::MAX
        };
        Box::new(move |row| {
            let part = match rows {
                RowSet::First(n) => row < *n,
                RowSet::List(rows) => rows.binary_search(&row).is_ok(),
            };
            part && (row >= next || held.contains(&row))
        })
    }

    /// Rows that are behind others in the data and still to come.
    fn held_back(&self) -> &[u32] {
        self.window.as_ref().map_or(&[], |w| &w.rows)
    }

    fn draw(&mut self) -> Option<u32> {
        let position = match &mut self.source {
            Source::Rows(rows) => return rows.next(),
            Source::Positions(positions) => positions.next(),
            Source::Blocks {
                order,
                rows,
                within,
            } => within.next().or_else(|| {
                let first = order.next()?.saturating_mul(*rows);
                let end = first.saturating_add(*rows).min(length(self.rows));
                *within = first..end;
                within.next()
            }),
        };
        position.map(|p| self.rows.at(p))
    }
}

impl Iterator for Order<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let Some(mut window) = self.window.take() else {
            return self.draw();
        };
        while window.rows.len() < window.size {
            let Some(row) = self.draw() else { break };
            window.rows.push(row);
        }
        let row = (!window.rows.is_empty()).then(|| {
            // In 32 bits, so that machines of any word size draw the same.
            let n = u32::try_from(window.rows.len()).unwrap_or(u32::MAX);
            window
                .rows
                .swap_remove(window.rng.random_range(0..n) as usize)
        });
        self.window = Some(window);
        row
    }
}

fn length(rows: &RowSet) -> u32 {
    u32::try_from(rows.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(rows: &RowSet, shuffle: Shuffle, epoch: u32) -> Vec<u32> {
        Order::shuffled(rows, shuffle, 7, epoch).collect()
    }

    #[test]
    fn each_order_has_all_rows_once_and_differs_by_epoch() {
        let sets = [
            RowSet::First(1000),
            RowSet::List((0..3000).step_by(3).collect()),
        ];
        let blocks = |rows, window| Shuffle::Blocks { rows, window };
        let ways = [
            Shuffle::Full,
            Shuffle::Window(64),
            Shuffle::Window(1 << 20),
            blocks(16, 100),
            blocks(7, 1),
        ];
        for rows in &sets {
            let all: Vec<u32> = rows.iter().collect();
            assert_eq!(order(rows, Shuffle::None, 0), all);
            for way in ways {
                let first = order(rows, way, 0);
                assert_ne!(first, order(rows, way, 1), "{way:?}");
                assert_eq!(first, order(rows, way, 0), "{way:?}");
                let mut sorted = first;
                sorted.sort_unstable();
                assert_eq!(sorted, all, "{way:?}");
            }
        }
    }

    #[test]
    fn a_window_holds_back_no_more_than_its_size() {
        let rows = RowSet::First(500);
        let mut order = Order::shuffled(&rows, Shuffle::Window(32), 1, 0);
        let mut taken = 0;
        while let Some(row) = order.next() {
            assert!(row < taken + 32, "{row} after {taken} rows");
            assert!(order.held_back().len() < 32);
            taken += 1;
        }
        assert_eq!(taken, 500);
    }
}
