//! Answers that are kept for inputs that come again, bounded by their bytes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nereid_core::tensors::{Batch, Tensor, wire};
use sha2::{Digest, Sha256};

/// Bytes that an entry takes beside its tensors, about.
const ENTRY: usize = 128;

/// Names an input of a model.
pub(super) type Key = [u8; 32];

/// The answers of one variant.
///
/// Two generations: what is asked for moves to the young one, and when that has half of all bytes
/// it becomes the old one, whose entries nobody asked for are dropped. So reading costs one look-up
/// and no list is kept in order.
#[derive(Debug)]
pub(super) struct Cache {
    digest: String,
    max_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<Key, Arc<Vec<Tensor>>>,
    old: HashMap<Key, Arc<Vec<Tensor>>>,
    young_bytes: usize,
}

impl Cache {
    /// Makes a cache for the model whose files have `digest`.
    pub(super) fn new(digest: String, max_bytes: u64) -> Self {
        Self {
            digest,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            kept: Mutex::default(),
        }
    }

    /// Tells whether it is one for this model, of this size.
    pub(super) fn serves(&self, digest: &str, max_bytes: u64) -> bool {
        self.digest == digest && self.max_bytes as u64 == max_bytes
    }

    /// Names a batch by the model and the exact bits of its values.
    pub(super) fn key(&self, batch: &Batch) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.digest.as_bytes());
        hash.update((batch.rows as u64).to_le_bytes());
        hash.update(batch.to_le_bytes());
        hash.finalize().into()
    }

    /// Returns the answer to an input that was answered before.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Vec<Tensor>>> {
        let mut kept = self.lock();
        if let Some(found) = kept.young.get(key) {
            return Some(Arc::clone(found));
        }
        let found = kept.old.remove(key)?;
        self.insert(&mut kept, *key, Arc::clone(&found));
        Some(found)
    }

    /// Keeps an answer, unless it alone would take half of the room.
    pub(super) fn put(&self, key: Key, outputs: &[Tensor]) {
        if size(outputs) <= self.max_bytes / 2 {
            self.insert(&mut self.lock(), key, Arc::new(outputs.to_vec()));
        }
    }

    fn insert(&self, kept: &mut Kept, key: Key, outputs: Arc<Vec<Tensor>>) {
        let bytes = size(&outputs);
        if kept.young_bytes + bytes > self.max_bytes / 2 {
            kept.old = std::mem::take(&mut kept.young);
            kept.young_bytes = 0;
        }
        if kept.young.insert(key, outputs).is_none() {
            kept.young_bytes += bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(outputs: &[Tensor]) -> usize {
    ENTRY + wire::encoded_len(outputs)
}

#[cfg(test)]
mod tests {
    use nereid_core::tensors::TensorValues;

    use super::*;

    fn batch(value: f32) -> Batch {
        Batch {
            rows: 1,
            values: vec![value],
        }
    }

    fn outputs(value: f32) -> Vec<Tensor> {
        vec![Tensor {
            name: "y".to_owned(),
            shape: vec![1],
            values: TensorValues::Fp32(vec![value]),
        }]
    }

    fn bytes(cache: &Cache) -> usize {
        let kept = cache.lock();
        let all = kept.young.values().chain(kept.old.values());
        all.map(|o| size(o)).sum()
    }

    #[test]
    fn keeps_what_is_asked_for_within_its_bytes() {
        let cache = Cache::new("digest".to_owned(), 4_000);
        let hot = cache.key(&batch(0.0));
        cache.put(hot, &outputs(0.0));
        for i in 1_u8..200 {
            let key = cache.key(&batch(f32::from(i)));
            assert!(cache.get(&key).is_none());
            cache.put(key, &outputs(f32::from(i)));
            assert!(bytes(&cache) <= 4_000, "{}", bytes(&cache));
            assert_eq!(*cache.get(&hot).unwrap(), outputs(0.0), "{i}");
        }
        assert!(cache.get(&cache.key(&batch(1.0))).is_none());
        assert!(cache.get(&cache.key(&batch(199.0))).is_some());
    }

    #[test]
    fn another_model_or_input_is_another_key() {
        let cache = Cache::new("one".to_owned(), 4_000);
        let other = Cache::new("other".to_owned(), 4_000);
        assert_ne!(cache.key(&batch(1.0)), other.key(&batch(1.0)));
        let two_rows = Batch {
            rows: 2,
            values: vec![1.0],
        };
        assert_ne!(cache.key(&batch(1.0)), cache.key(&two_rows));
        assert!(cache.serves("one", 4_000) && !cache.serves("one", 1));
    }
}
