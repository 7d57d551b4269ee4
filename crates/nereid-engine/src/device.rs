//! Maps a kind of device to the framework's; the only place that names a backend.

use burn::tensor::Device;
use nereid_core::{engine::EngineError, workers::DeviceKind};

/// Returns what this build can compute on, given a machine that has it.
#[must_use]
pub fn devices() -> Vec<DeviceKind> {
    let built = |kind: &DeviceKind| match kind {
        DeviceKind::Cpu => true,
        DeviceKind::CpuNdarray => cfg!(feature = "ndarray"),
        DeviceKind::Gpu => cfg!(feature = "gpu"),
    };
    DeviceKind::ALL.iter().copied().filter(built).collect()
}

/// Checks that this build and this machine can compute on a device.
///
/// # Errors
/// [`EngineError::InvalidInput`] that says what is missing.
pub fn check_device(kind: DeviceKind) -> Result<(), EngineError> {
    open(kind).map(drop)
}

/// Opens a device.
///
/// # Errors
/// [`EngineError::InvalidInput`] if this build or this machine cannot compute on it.
pub(crate) fn open(kind: DeviceKind) -> Result<Device, EngineError> {
    match kind {
        DeviceKind::Cpu => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "users ask for it by name")]
        DeviceKind::CpuNdarray => Ok(Device::ndarray()),
        #[cfg(not(feature = "ndarray"))]
        DeviceKind::CpuNdarray => Err(missing(kind, "ndarray")),
        #[cfg(feature = "gpu")]
        DeviceKind::Gpu => gpu(),
        #[cfg(not(feature = "gpu"))]
        DeviceKind::Gpu => Err(missing(kind, "gpu")),
    }
}

/// Opens the graphics processor. The framework does so at the first computation and panics if
/// there is none, so that one is tried here.
#[cfg(feature = "gpu")]
fn gpu() -> Result<Device, EngineError> {
    let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    let tried = crate::guard::panics("opening the graphics processor", || {
        let one = burn::tensor::Tensor::<1>::ones([1], &device);
        crate::network::host(one + 1.0)
    });
    match tried.as_deref() {
        Ok([two]) if (two - 2.0).abs() < 1e-6 => Ok(device),
        Ok(_) => Err(unusable("it does not compute")),
        Err(e) => Err(unusable(&e.to_string())),
    }
}

#[cfg(feature = "gpu")]
fn unusable(why: &str) -> EngineError {
    EngineError::InvalidInput(format!(
        "no graphics processor can be used: {why}; a driver for Vulkan, Metal or DirectX 12 is needed"
    ))
}

#[cfg(not(all(feature = "gpu", feature = "ndarray")))]
fn missing(kind: DeviceKind, feature: &str) -> EngineError {
    let has: Vec<_> = devices().into_iter().map(DeviceKind::as_str).collect();
    let has = has.join(", ");
    EngineError::InvalidInput(format!(
        "this build computes on {has}, not on {kind}; build with feature \"{feature}\""
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_says_which_devices_it_has() {
        let has = devices();
        assert_eq!(has[0], DeviceKind::Cpu);
        for &kind in DeviceKind::ALL {
            match open(kind) {
                Ok(_) => assert!(has.contains(&kind), "{kind}"),
                Err(EngineError::InvalidInput(detail)) => {
                    // A build for graphics processors runs on machines without one.
                    let known = has.contains(&kind) && kind == DeviceKind::Gpu;
                    let named = detail.contains(kind.as_str()) && detail.contains("feature");
                    assert!(known || named, "{kind}: {detail}");
                }
                Err(other) => panic!("{kind}: {other}"),
            }
        }
    }
}
