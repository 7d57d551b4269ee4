//! What a client may ask of a prediction beside its samples.

use nereid_core::{Violations, limits::MAX_CLASSES, models::Signature};
use utoipa::IntoParams;

use crate::extract::{Parameters, QueryReader};

/// Options of a prediction.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PredictOptions {
    /// Answer so many of the likeliest classes instead of all probabilities; of a classifier.
    #[param(minimum = 1, maximum = 10_000, required = false)]
    pub(crate) top_k: Option<u32>,
}

impl Parameters for PredictOptions {
    fn read(reader: &mut QueryReader) -> Self {
        Self {
            top_k: reader.optional("top_k"),
        }
    }
}

/// Checks how many classes are wanted, and that there are some.
pub(crate) fn check_top(
    top_k: Option<u32>,
    signature: &Signature,
) -> Result<Option<usize>, Violations> {
    let Some(top_k) = top_k else {
        return Ok(None);
    };
    let mut violations = Violations::default();
    let most = u32::try_from(MAX_CLASSES).unwrap_or(u32::MAX);
    violations.check_range("/top_k", top_k, 1, most);
    violations.check(signature.classes.is_some(), "/top_k", "unsupported", || {
        "only a classifier has likeliest classes".to_owned()
    });
    let count = usize::try_from(top_k).unwrap_or(usize::MAX);
    violations.into_result(Some(count))
}
