//! Draws training, validation and test rows, by what their targets are and by seed alone.

use std::collections::BTreeMap;

use nereid_core::{
    engine::EngineError,
    spec::{FitOptions, split::SplitBy, train::split_sizes},
};

use crate::{
    data::{Key, Targets},
    random::{self, Purpose},
};

/// Training, validation and test rows.
type Parts = [Vec<u32>; 3];

/// Returns the training, validation and test rows of `rows` rows; `keys` are the cells of the
/// column to go by, if the spec names one.
pub(super) fn draw(
    fit: &FitOptions,
    rows: u32,
    targets: &Targets,
    keys: Option<&[Key]>,
) -> Result<Parts, EngineError> {
    let keys = keys.unwrap_or_default();
    if fit.split.by == SplitBy::Given {
        return given(keys);
    }
    let sizes = split_sizes(u64::from(rows), fit.validation_split, fit.test_split);
    let [_, validation, test] = sizes.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if validation + test == 0 {
        return Ok([(0..rows).collect(), Vec::new(), Vec::new()]);
    }
    let parts = match (fit.split.by, targets) {
        (SplitBy::Time, _) => {
            let mut train = in_time(rows, keys);
            let held_out = train.len().saturating_sub(validation + test);
            let mut validating = train.split_off(held_out);
            let testing = validating.split_off(validation.min(validating.len()));
            [train, validating, testing]
        }
        (SplitBy::Group, _) => return grouped(fit.seed, keys, validation, test),
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
    };
    Ok(parts)
}

/// Orders rows by their keys, and equal ones as they lie in the data.
fn in_time(rows: u32, keys: &[Key]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..rows).collect();
    if keys.is_empty() {
        return order;
    }
    let numbers = keys.iter().all(|key| key.number.is_some());
    order.sort_by(|&a, &b| {
        let (a, b) = (&keys[a as usize], &keys[b as usize]);
        match (numbers, a.number, b.number) {
            (true, Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.name.cmp(&b.name),
        }
    });
    order
}

/// Puts rows where their keys say.
fn given(keys: &[Key]) -> Result<Parts, EngineError> {
    let mut parts = Parts::default();
    for (row, key) in (0_u32..).zip(keys) {
        let part = match key.name.to_ascii_lowercase().as_str() {
            "train" | "training" => 0,
            "validation" | "valid" | "val" => 1,
            "test" | "testing" => 2,
            _ => {
                let shown: String = key.name.chars().take(80).collect();
                return Err(EngineError::InvalidInput(format!(
                    "fit.split.column: row {row} says {shown:?}, which is none of train, validation and test"
                )));
            }
        };
        parts[part].push(row);
    }
    Ok(parts)
}

/// Draws whole groups until each part is about as large as asked for, with one group at least.
fn grouped(seed: u64, keys: &[Key], validation: usize, test: usize) -> Result<Parts, EngineError> {
    let mut by_name: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (row, key) in (0_u32..).zip(keys) {
        by_name.entry(&key.name).or_default().push(row);
    }
    let mut groups: Vec<Vec<u32>> = by_name.into_values().collect();
    let mut rng = random::generator(seed, Purpose::Split, [2, 0]);
    random::shuffle(&mut rng, &mut groups);
    let wanted = 1 + usize::from(validation > 0) + usize::from(test > 0);
    if groups.len() < wanted {
        return Err(EngineError::InvalidInput(format!(
            "fit.split.column: {} groups are too few for {wanted} parts",
            groups.len()
        )));
    }
    let mut parts = Parts::default();
    // Parts that are still to be drawn, training the last, need a group each.
    let mut open = wanted;
    for (part, size) in [(1, validation), (2, test)].into_iter().filter(|p| p.1 > 0) {
        open -= 1;
        let mut rest = Vec::new();
        let mut left = groups.len();
        for group in groups {
            let taken = parts[part].len();
            // A group is taken if that brings the size nearer to what was asked for.
            let nearer = 2 * taken + group.len() <= 2 * size;
            left -= 1;
            if nearer && left + rest.len() >= open {
                parts[part].extend(group);
            } else {
                rest.push(group);
            }
        }
        if parts[part].is_empty() {
            rest.sort_by_key(Vec::len);
            parts[part] = rest.remove(0);
        }
        groups = rest;
    }
    parts[0] = groups.into_iter().flatten().collect();
    for part in &mut parts {
        part.sort_unstable();
    }
    Ok(parts)
}

/// Draws from each class its share of every part.
fn stratified(seed: u64, classes: &[u32], validation: usize, test: usize) -> Parts {
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
        let draw = || draw(&fit(SplitBy::Stratified, 0.2, 0.1), 100, &targets, None).unwrap();
        let parts = draw();
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
        assert_eq!(parts, draw());
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
        let parts = draw(&fit(SplitBy::Time, 0.2, 0.3), 10, &targets, None).unwrap();
        assert_eq!(parts, [vec![0, 1, 2, 3, 4], vec![5, 6], vec![7, 8, 9]]);
    }

    fn keys(names: &[&str]) -> Vec<Key> {
        let key = |name: &&str| Key {
            name: (*name).to_owned(),
            number: name.parse().ok(),
        };
        names.iter().map(key).collect()
    }

    fn parts(fit: &FitOptions, names: &[&str]) -> Result<Parts, EngineError> {
        let targets = Targets::Value(vec![0.0; names.len()]);
        let rows = u32::try_from(names.len()).unwrap();
        draw(fit, rows, &targets, Some(&keys(names)))
    }

    #[test]
    fn a_column_gives_the_order_of_time() {
        let time = fit(SplitBy::Time, 0.25, 0.25);
        let numbers = parts(&time, &["100", "9", "30", "9"]).unwrap();
        assert_eq!(numbers, [vec![1, 3], vec![2], vec![0]]);
        let days = parts(
            &time,
            &["2024-01-02", "2023-12-31", "2024-01-01", "2024-02-01"],
        );
        assert_eq!(days.unwrap(), [vec![1, 2], vec![0], vec![3]]);
    }

    #[test]
    fn groups_stay_together_in_parts_of_about_the_size_asked_for() {
        let names: Vec<String> = (0..200).map(|row| format!("g{}", row * row % 37)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let options = fit(SplitBy::Group, 0.2, 0.1);
        let drawn = parts(&options, &names).unwrap();
        let groups = drawn.each_ref().map(|part| {
            let names = part.iter().map(|&row| names[row as usize]);
            names.collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(drawn.iter().map(Vec::len).sum::<usize>(), 200);
        for [a, b] in [[0, 1], [0, 2], [1, 2]] {
            assert!(groups[a].is_disjoint(&groups[b]));
        }
        let sizes = drawn.each_ref().map(Vec::len);
        assert!(
            (32..=48).contains(&sizes[1]) && (12..=28).contains(&sizes[2]),
            "{sizes:?}"
        );
        // Few and unequal groups: each part has one.
        let few = parts(
            &options,
            &["a", "a", "a", "b", "b", "b", "c", "c", "c", "c"],
        )
        .unwrap();
        assert!(few.iter().all(|part| part.len() >= 3), "{few:?}");
        let error = parts(&options, &["a"; 12]).unwrap_err();
        assert!(error.to_string().contains("too few"), "{error}");
    }

    #[test]
    fn a_given_split_is_taken_as_it_is() {
        let options = fit(SplitBy::Given, 0.0, 0.0);
        let drawn = parts(&options, &["test", "train", "VAL", "train"]).unwrap();
        assert_eq!(drawn, [vec![1, 3], vec![2], vec![0]]);
        let error = parts(&options, &["train", "dev"]).unwrap_err().to_string();
        assert!(error.contains("row 1 says \"dev\""), "{error}");
    }
}
