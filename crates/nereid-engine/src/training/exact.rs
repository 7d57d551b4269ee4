//! Numbers in saved state, as bits: JSON knows no infinity and parsing may round the last one.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_bits().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    u64::deserialize(deserializer).map(f64::from_bits)
}

/// The same for lists of named numbers.
pub(super) mod named {
    use super::{BTreeMap, Deserialize, Deserializer, Serializer};

    pub(in crate::training) fn serialize<S: Serializer>(
        values: &[BTreeMap<String, f64>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bits = |map: &BTreeMap<String, f64>| -> BTreeMap<String, u64> {
            map.iter().map(|(k, v)| (k.clone(), v.to_bits())).collect()
        };
        serializer.collect_seq(values.iter().map(bits))
    }

    pub(in crate::training) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<BTreeMap<String, f64>>, D::Error> {
        let bits = Vec::<BTreeMap<String, u64>>::deserialize(deserializer)?;
        let values = |map: BTreeMap<String, u64>| {
            map.into_iter()
                .map(|(k, v)| (k, f64::from_bits(v)))
                .collect()
        };
        Ok(bits.into_iter().map(values).collect())
    }
}
