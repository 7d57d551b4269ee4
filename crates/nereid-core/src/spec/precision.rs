//! In which numbers a network is trained: Keras' dtype policies and its `LossScaleOptimizer`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{limits, validation::Violations};

/// In which numbers layers are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DtypePolicy {
    /// All in 32 bits.
    #[default]
    Float32,
    /// Products of matrices and convolutions in 16 bits, all else and the weights in 32.
    MixedFloat16,
    /// `mixed_float16` on graphics processors that compute in 16 bits, else `float32`.
    Auto,
}

impl DtypePolicy {
    /// Tells whether it is what specs without one mean.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How losses are scaled, so that small gradients are not 0 in 16 bits.
///
/// The factor is halved after each step whose gradients are not finite, and that step changes no
/// weights; it is doubled after `dynamic_growth_steps` steps in a row with finite gradients
/// (Micikevicius et al., 2018).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossScale {
    /// Factor at first.
    #[schema(minimum = 1)]
    pub initial_scale: f64,
    /// Steps in a row with finite gradients, after which the factor is doubled.
    #[schema(minimum = 1)]
    pub dynamic_growth_steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self {
            initial_scale: 32_768.0,
            dynamic_growth_steps: 2_000,
        }
    }
}

/// Checks a policy and what it says of losses; `pointer` is that of the training's options.
pub(super) fn check(
    policy: DtypePolicy,
    scale: Option<LossScale>,
    pointer: &str,
    v: &mut Violations,
) {
    let Some(scale) = scale else { return };
    let at = format!("{pointer}/loss_scale");
    v.check(policy != DtypePolicy::Float32, &at, "conflict", || {
        "loss_scale needs dtype_policy \"mixed_float16\" or \"auto\"".to_owned()
    });
    let (initial, steps) = (scale.initial_scale, scale.dynamic_growth_steps);
    let most = limits::MAX_LOSS_SCALE;
    v.check_range(&format!("{at}/initial_scale"), initial, 1.0, most);
    let at = format!("{at}/dynamic_growth_steps");
    v.check_range(&at, steps, 1, 1_000_000_000);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::FitOptions;

    fn check(fit: Value) -> Vec<String> {
        let fit: FitOptions = serde_json::from_value(fit).unwrap();
        let mut v = Violations::default();
        fit.check("/fit", &mut v);
        v.into_vec().into_iter().map(|v| v.pointer).collect()
    }

    #[test]
    fn policies_have_keras_names_and_defaults_and_are_left_out_if_not_given() {
        assert!(check(json!({"dtype_policy": "mixed_float16", "loss_scale": {}})).is_empty());
        let auto = json!({"dtype_policy": "auto", "loss_scale": {"initial_scale": 1}});
        assert!(check(auto.clone()).is_empty());
        let read: FitOptions = serde_json::from_value(auto).unwrap();
        let scale = read.loss_scale.unwrap();
        assert_eq!(scale.dynamic_growth_steps, 2_000);
        // What was trained before is known by what its spec is written as.
        let written = serde_json::to_value(FitOptions::default()).unwrap();
        assert!(written.get("dtype_policy").is_none() && written.get("loss_scale").is_none());
    }

    #[test]
    fn scales_beyond_their_range_or_without_use_are_refused() {
        let given = json!({"dtype_policy": "auto",
            "loss_scale": {"initial_scale": 0.5, "dynamic_growth_steps": 0}});
        let at = |field: &str| format!("/fit/loss_scale/{field}");
        assert_eq!(
            check(given),
            [at("initial_scale"), at("dynamic_growth_steps")]
        );
        let unused = check(json!({"loss_scale": {}}));
        assert_eq!(unused, ["/fit/loss_scale"]);
    }
}
