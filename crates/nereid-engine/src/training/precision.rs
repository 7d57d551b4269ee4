//! Mixed precision: when products are computed in 16 bits, and how losses are scaled then.

use burn::tensor::{Device, FloatDType, Tensor};
use nereid_core::{
    engine::{EngineError, Monitor},
    events::LogLevel,
    limits,
    spec::{DtypePolicy, FitOptions, LossScale},
    workers::DeviceKind,
};
use serde::{Deserialize, Serialize};

use super::{exact, watch::scalar};

/// Tells whether products are to be computed in 16 bits, and says so.
///
/// # Errors
/// [`EngineError::InvalidInput`] if they are to be, on a device that cannot.
pub(super) fn is_half(
    policy: DtypePolicy,
    kind: DeviceKind,
    device: &Device,
    monitor: &mut dyn Monitor,
) -> Result<bool, EngineError> {
    let able = device.supports_dtype(FloatDType::F16);
    match policy {
        DtypePolicy::Float32 => return Ok(false),
        DtypePolicy::Auto if kind != DeviceKind::Gpu || !able => {
            let message = format!("computing in 32 bits: {kind} would not gain by 16");
            monitor.log(LogLevel::Debug, message);
            return Ok(false);
        }
        DtypePolicy::MixedFloat16 if !able => {
            return Err(EngineError::InvalidInput(format!(
                "{kind} here does not compute in 16 bits, as dtype_policy \"mixed_float16\" asks; \
                 {} and graphics processors with 16-bit shaders do, and \"auto\" uses 16 bits only \
                 where they help",
                DeviceKind::Cpu
            )));
        }
        DtypePolicy::Auto | DtypePolicy::MixedFloat16 => {}
    }
    let (level, message) = if kind == DeviceKind::Gpu {
        (
            LogLevel::Info,
            "computing products in 16 bits, all else in 32",
        )
    } else {
        (
            LogLevel::Warn,
            "computing products in 16 bits, which is slower than in 32 on a processor; \
             dtype_policy \"auto\" uses them only where they help",
        )
    };
    monitor.log(level, message.to_owned());
    Ok(true)
}

/// By how much losses are scaled, and what came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaling {
    #[serde(with = "exact")]
    pub(super) scale: f64,
    /// Steps in a row with finite gradients since the scale changed.
    good: u32,
    /// Steps that changed nothing.
    pub(super) skipped: u64,
}

impl Scaling {
    pub(super) fn new(fit: &FitOptions) -> Self {
        Self {
            scale: fit.loss_scale.unwrap_or_default().initial_scale,
            good: 0,
            skipped: 0,
        }
    }

    /// Tells whether numbers read from a file can be those of so many steps.
    pub(super) fn fits(&self, steps: u64) -> bool {
        (1.0..=limits::MAX_LOSS_SCALE).contains(&self.scale)
            && u64::from(self.good) + self.skipped <= steps
    }

    /// Notes a step with finite gradients.
    pub(super) fn worked(&mut self, spec: LossScale) {
        self.good += 1;
        if self.good >= spec.dynamic_growth_steps {
            self.scale = (self.scale * 2.0).min(limits::MAX_LOSS_SCALE);
            self.good = 0;
        }
    }

    /// Notes a step whose gradients are not finite; `false` if no smaller scale can help.
    pub(super) fn overflowed(&mut self) -> bool {
        let helps = self.scale > 1.0;
        self.scale = (self.scale / 2.0).max(1.0);
        self.good = 0;
        self.skipped += 1;
        helps
    }

    /// Undoes the scaling of gradients; `None` if any is not finite.
    pub(super) fn unscaled(
        &self,
        gradients: Vec<Option<Tensor<1>>>,
    ) -> Result<Option<Vec<Option<Tensor<1>>>>, EngineError> {
        // A sum is finite only if all its terms are; all are fetched at once.
        let sums = gradients.iter().flatten().map(|g| g.clone().abs().sum());
        let sums: Vec<_> = sums.collect();
        if !sums.is_empty() && !scalar(&Tensor::cat(sums, 0).sum())?.is_finite() {
            return Ok(None);
        }
        let unscaled = |g: Tensor<1>| g * (1.0 / self.scale);
        let gradients = gradients.into_iter().map(|g| g.map(unscaled));
        Ok(Some(gradients.collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::network::{flat, host};

    fn scaling() -> (Scaling, LossScale) {
        let fit = json!({"dtype_policy": "mixed_float16",
            "loss_scale": {"initial_scale": 8, "dynamic_growth_steps": 3}});
        let fit: FitOptions = serde_json::from_value(fit).unwrap();
        (Scaling::new(&fit), fit.loss_scale.unwrap())
    }

    #[test]
    fn scales_double_after_good_steps_in_a_row_and_halve_after_each_bad_one() {
        let (mut scaling, spec) = scaling();
        let mut seen = Vec::new();
        for good in "ggbgggggg".chars().map(|c| c == 'g') {
            if good {
                scaling.worked(spec);
            } else {
                assert!(scaling.overflowed());
            }
            seen.push(scaling.scale);
        }
        assert_eq!(seen, [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0, 8.0, 16.0]);
        assert_eq!(scaling.skipped, 1);
        let helped = (0..6).map(|_| scaling.overflowed());
        assert_eq!(
            helped.collect::<Vec<_>>(),
            [true, true, true, true, false, false]
        );
        assert!(scaling.fits(9 + 6) && !scaling.fits(6));
    }

    #[test]
    fn gradients_are_scaled_back_or_found_not_finite_wherever_that_is() {
        let (scaling, _) = scaling();
        let device = Device::flex();
        let gradients = |last: f32| {
            let last = flat(vec![16.0, last], &device);
            vec![Some(flat(vec![-8.0, 4.0], &device)), None, Some(last)]
        };
        let unscaled = scaling.unscaled(gradients(0.0)).unwrap().unwrap();
        let values = unscaled.into_iter().map(|g| g.map(|g| host(g).unwrap()));
        let values: Vec<_> = values.collect();
        assert_eq!(values, [Some(vec![-1.0, 0.5]), None, Some(vec![2.0, 0.0])]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(scaling.unscaled(gradients(bad)).unwrap().is_none(), "{bad}");
        }
    }
}
