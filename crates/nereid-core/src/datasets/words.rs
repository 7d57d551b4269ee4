//! Words of a text, and a hash that is the same everywhere and for ever.

/// Splits a text into lower-case words as Keras' `TextVectorization` does by default
/// (`standardize="lower_and_strip_punctuation"`, `split="whitespace"`).
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split_whitespace().filter_map(|word| {
        let word: String = word
            .chars()
            .filter(|c| !c.is_ascii_punctuation())
            .flat_map(char::to_lowercase)
            .collect();
        (!word.is_empty()).then_some(word)
    })
}

/// Hashes text to one of `buckets`: FNV-1a of 64 bits, mixed by `MurmurHash3`'s finaliser.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is below a 32-bit number"
)]
pub fn bucket(text: &str, buckets: u32) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    (hash % u64::from(buckets.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_keras() {
        let split: Vec<_> = words("Don't stop, the  CAT-food! -- Ünï").collect();
        assert_eq!(split, ["dont", "stop", "the", "catfood", "ünï"]);
    }

    #[test]
    fn buckets_never_change_and_are_even() {
        // Models in the field depend on these: computed once by an independent program.
        assert_eq!(
            ["", "a", "male", "Braund, Mr. Owen Harris"].map(|t| bucket(t, 1_000_003)),
            [225_407, 439_230, 472_205, 179_199]
        );
        let mut counts = [0; 8];
        for i in 0..8_000 {
            counts[bucket(&format!("id-{i}"), 8) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&n| (900..1_100).contains(&n)),
            "{counts:?}"
        );
    }
}
