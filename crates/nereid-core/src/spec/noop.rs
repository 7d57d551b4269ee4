//! Jobs that do nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    limits,
    validation::{ObjectReader, Violations},
};

/// What a no-op job does: nothing, for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NoopSpec {
    /// How long it holds its slot, in seconds.
    #[serde(default)]
    #[schema(minimum = 0.0, maximum = 86_400.0)]
    pub seconds: f64,
}

impl NoopSpec {
    /// Reads a spec and records all that is wrong with it.
    pub fn read(value: Value, pointer: &str, v: &mut Violations) -> Option<Self> {
        let mut r = ObjectReader::new(value, pointer, v)?;
        let seconds = r.optional("seconds").unwrap_or_default();
        let at = r.pointer_to("seconds");
        r.violations()
            .check_range(&at, seconds, 0.0, limits::MAX_NOOP_SECONDS);
        r.finish();
        Some(Self { seconds })
    }
}
