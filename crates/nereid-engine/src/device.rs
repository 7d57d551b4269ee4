//! Maps a kind of device to the framework's; the only place that names a backend.

use burn::tensor::Device;
use nereid_core::{engine::EngineError, workers::DeviceKind};

/// Opens a device.
///
/// # Errors
/// [`EngineError::InvalidInput`] if this build cannot compute on it.
pub(crate) fn open(kind: DeviceKind) -> Result<Device, EngineError> {
    match kind {
        #[cfg(feature = "ndarray")]
        DeviceKind::Cpu => Ok(Device::ndarray()),
        #[cfg(not(feature = "ndarray"))]
        DeviceKind::Cpu => Ok(Device::flex()),
        #[cfg(feature = "gpu")]
        DeviceKind::Gpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(not(feature = "gpu"))]
        DeviceKind::Gpu => Err(EngineError::InvalidInput(
            "this build computes on the processor only; build with feature \"gpu\"".to_owned(),
        )),
    }
}
