//! A number that tells data from other data; no protection against intent.

/// A multiplicative hash: gigabytes a second, and the same in every build.
#[derive(Debug, Default)]
pub(super) struct Digest {
    state: u64,
    rows: u64,
}

impl Digest {
    /// Adds a row and its targets as they are stored.
    pub(super) fn row(&mut self, record: &[u8], targets: &[u8]) {
        self.bytes(record);
        self.bytes(targets);
        self.rows += 1;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.add(u64::from_le_bytes(*chunk));
        }
        for &byte in rest {
            self.add(u64::from(byte));
        }
    }

    pub(super) fn finish(mut self) -> u64 {
        self.add(self.rows);
        self.state
    }

    fn add(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
