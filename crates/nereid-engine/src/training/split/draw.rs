//! Draws training, validation and test rows, by what their targets are and by seed alone.

use nereid_core::spec::{FitOptions, split::SplitBy, train::split_sizes};

use crate::{
    data::Targets,
    random::{self, Purpose},
};

/// Returns the training, validation and test rows of `rows` rows.
pub(super) fn draw(fit: &FitOptions, rows: u32, targets: &Targets) -> [Vec<u32>; 3] {
    let sizes = split_sizes(u64::from(rows), fit.validation_split, fit.test_split);
    let [_, validation, test] = sizes.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if validation + test == 0 {
        return [(0..rows).collect(), Vec::new(), Vec::new()];
    }
    match (fit.split.by, targets) {
        (SplitBy::Time, _) => {
            let mut train: Vec<u32> = (0..rows).collect();
            let held_out = train.len().saturating_sub(validation + test);
            let mut validating = train.split_off(held_out);
            let testing = validating.split_off(validation.min(validating.len()));
            [train, validating, testing]
        }
        (SplitBy::Stratified, Targets::Class(classes)) => {
            stratified(fit.seed, classes, validation, test)
        }
        _ => {
            let mut order: Vec<u32> = (0..rows).collect();
            let mut rng = random::generator(fit.seed, Purpose::Split, [0, 0]);
            random::shuffle(&mut rng, &mut order);
            let mut rest = order.split_off((validation + test).min(order.len()));
            rest.sort_unstable();
            let held_out = order.split_off(validation.min(order.len()));
            [rest, order, held_out]
        }
    }
}

/// Draws from each class its share of every part.
fn stratified(seed: u64, classes: &[u32], validation: usize, test: usize) -> [Vec<u32>; 3] {
    let mut by_class = rows_by_class((0_u32..).zip(classes.iter().copied()));
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for (class, rows) in (0_u64..).zip(&mut by_class) {
        let mut rng = random::generator(seed, Purpose::Split, [1, class]);
        random::shuffle(&mut rng, rows);
    }
    for (part, total) in [(1, validation), (2, test)] {
        let counts: Vec<usize> = by_class.iter().map(Vec::len).collect();
        for (rows, quota) in by_class.iter_mut().zip(quotas(&counts, total)) {
            parts[part].extend(rows.split_off(rows.len() - quota));
        }
    }
    parts[0] = by_class.into_iter().flatten().collect();
    parts.map(|mut part| {
        part.sort_unstable();
        part
    })
}

/// Groups rows, given with their class.
pub(super) fn rows_by_class(rows: impl Iterator<Item = (u32, u32)>) -> Vec<Vec<u32>> {
    let mut by_class: Vec<Vec<u32>> = Vec::new();
    for (row, class) in rows {
        let class = class as usize;
        if by_class.len() <= class {
            by_class.resize_with(class + 1, Vec::new);
        }
        by_class[class].push(row);
    }
    by_class
}

/// Shares `total` out in proportion to `counts`: rounded down, and the rest to the largest
/// remainders.
fn quotas(counts: &[usize], total: usize) -> Vec<usize> {
    let all: usize = counts.iter().sum();
    let total = total.min(all);
    let exact = |n: usize| n as u128 * total as u128;
    let whole = (all as u128).max(1);
    let floor = |&n: &usize| usize::try_from(exact(n) / whole).unwrap_or(n);
    let mut quotas: Vec<usize> = counts.iter().map(floor).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(exact(counts[i]) % whole));
    let rest = total - quotas.iter().sum::<usize>();
    // Whoever has a remainder has a row more than its quota.
    for &i in order.iter().take(rest) {
        quotas[i] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(by: SplitBy, validation_split: f64, test_split: f64) -> FitOptions {
        let mut fit = FitOptions {
            validation_split,
            test_split,
            ..FitOptions::default()
        };
        fit.split.by = by;
        fit
    }

    /// 90 rows of class 0, 9 of class 1 and one of class 2, mixed.
    fn classes() -> Vec<u32> {
        let class = |i: u32| match i % 100 {
            50 => 2,
            i if i % 10 == 3 && i != 93 => 1,
            _ => 0,
        };
        (0..100).map(class).collect()
    }

    #[test]
    fn stratified_parts_have_the_shares_of_the_whole() {
        let classes = classes();
        let targets = Targets::Class(classes.clone());
        let parts = draw(&fit(SplitBy::Stratified, 0.2, 0.1), 100, &targets);
        let counts = parts.clone().map(|part| {
            let count = |class| {
                part.iter()
                    .filter(|&&r| classes[r as usize] == class)
                    .count()
            };
            [0, 1, 2].map(count)
        });
        assert_eq!(counts, [[63, 6, 1], [18, 2, 0], [9, 1, 0]]);
        let mut all = parts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(
            parts,
            draw(&fit(SplitBy::Stratified, 0.2, 0.1), 100, &targets)
        );
    }

    #[test]
    fn quotas_add_up() {
        assert_eq!(quotas(&[1, 1, 1, 1], 2), [1, 1, 0, 0]);
        assert_eq!(quotas(&[5, 3, 2], 5), [3, 1, 1]);
        assert_eq!(quotas(&[0, 7], 9), [0, 7]);
        assert_eq!(quotas(&[], 3), [0; 0]);
    }

    #[test]
    fn split_by_time_the_past_is_trained_on() {
        let targets = Targets::Value(vec![0.0; 10]);
        let parts = draw(&fit(SplitBy::Time, 0.2, 0.3), 10, &targets);
        assert_eq!(parts, [vec![0, 1, 2, 3, 4], vec![5, 6], vec![7, 8, 9]]);
    }
}
