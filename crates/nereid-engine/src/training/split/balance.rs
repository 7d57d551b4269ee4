//! Makes classes equally frequent in each epoch by repeating rows or leaving some out.

use nereid_core::spec::split::ClassBalance;

use super::draw::rows_by_class;
use crate::random::{self, Purpose};

/// Training rows by class, of which each epoch takes equally many.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    classes: Vec<Vec<u32>>,
    /// Rows of each class in an epoch.
    each: usize,
}

impl Balance {
    /// Balances rows, given with their class.
    pub(super) fn new(kind: ClassBalance, rows: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut classes = rows_by_class(rows);
        classes.retain(|rows| !rows.is_empty());
        let sizes = classes.iter().map(Vec::len);
        let each = match kind {
            ClassBalance::Oversample => sizes.max(),
            ClassBalance::Undersample => sizes.min(),
        };
        Self {
            classes,
            each: each.unwrap_or_default(),
        }
    }

    /// Number of rows in each epoch.
    pub(super) fn len(&self) -> usize {
        self.classes.len() * self.each
    }

    /// Returns the rows of an epoch in the order of the data; a row may be there several times.
    pub(super) fn rows(&self, seed: u64, epoch: u32) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.len());
        for (class, rows) in (0_u64..).zip(&self.classes) {
            for _ in 0..self.each / rows.len() {
                all.extend_from_slice(rows);
            }
            let position = [u64::from(epoch), class];
            let mut rng = random::generator(seed, Purpose::Balance, position);
            let mut drawn = rows.clone();
            random::shuffle(&mut rng, &mut drawn);
            all.extend_from_slice(&drawn[..self.each % rows.len()]);
        }
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 0 has rows 0 to 6, class 1 rows 7 to 9; class 2 has none, class 3 row 10.
    fn balance(kind: ClassBalance) -> Balance {
        let class = |row| match row {
            0..=6 => 0,
            7..=9 => 1,
            _ => 3,
        };
        Balance::new(kind, (0..11).map(|row| (row, class(row))))
    }

    #[test]
    fn oversampling_repeats_rare_rows() {
        let balance = balance(ClassBalance::Oversample);
        let rows = balance.rows(1, 0);
        assert_eq!((rows.len(), balance.len()), (21, 21));
        assert_eq!(rows[..7], [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(rows[14..], [10; 7]);
        // Each of three rows twice, and one of them, another in other epochs, once more.
        let epochs: Vec<_> = (0..20)
            .map(|epoch| balance.rows(1, epoch)[7..14].to_vec())
            .collect();
        for rows in &epochs {
            let counts = [7, 8, 9].map(|row| rows.iter().filter(|&&r| r == row).count());
            assert!(counts.iter().all(|n| (2..=3).contains(n)), "{counts:?}");
        }
        assert!(epochs.iter().any(|rows| *rows != epochs[0]));
        assert_eq!(balance.rows(1, 3), balance.rows(1, 3));
    }

    #[test]
    fn undersampling_draws_anew_in_each_epoch() {
        let balance = balance(ClassBalance::Undersample);
        let mut seen: Vec<u32> = (0..60).flat_map(|epoch| balance.rows(1, epoch)).collect();
        assert_eq!((seen.len(), balance.len()), (180, 3));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..11).collect::<Vec<_>>());
    }
}
