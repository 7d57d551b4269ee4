//! How often values occur, within a limit on memory.

use std::collections::HashMap;

/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 64;

/// Counts of values or words, as long as there are not too many.
pub(super) struct Counts {
    pub(super) counts: HashMap<String, u64>,
    /// Whether values were left out.
    pub(super) full: bool,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            counts: HashMap::new(),
            full: false,
        }
    }

    pub(super) fn push(&mut self, value: &str, most: usize, budget: &mut usize) {
        if let Some(n) = self.counts.get_mut(value) {
            *n += 1;
            return;
        }
        match budget.checked_sub(value.len() + ENTRY_BYTES) {
            Some(left) if self.counts.len() < most => {
                *budget = left;
                self.counts.insert(value.to_owned(), 1);
            }
            _ => self.full = true,
        }
    }

    /// Values by falling count.
    pub(super) fn by_count(&self) -> Vec<(&str, u64)> {
        let mut values: Vec<_> = self.counts.iter().map(|(v, &n)| (v.as_str(), n)).collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        values
    }
}
