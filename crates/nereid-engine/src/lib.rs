//! The training and inference engine of Nereid, on the burn framework.
//!
//! Implements the traits of [`nereid_core::engine`]. It knows nothing of HTTP, S3 or Postgres;
//! no type of the framework appears in its interface.

#![allow(
    clippy::result_large_err,
    reason = "what a kernel of our own does not take is handed back, to go the framework's way"
)]

mod artifact;
pub mod bench;
mod data;
mod device;
mod guard;
mod model;
mod network;
mod onnx;
mod outputs;
mod preprocessing;
mod random;
mod serving;
mod tensors_file;
mod training;

use std::sync::Arc;

use nereid_core::engine::{Engine, ImageDecoder};

pub use device::{check_device, devices};
pub use serving::{Probe, Settings, serve_probe};

/// Version of the framework; a test holds it against the lock file.
const FRAMEWORK_VERSION: &str = "burn 0.22.1";

/// Returns the engine, with whatever runtimes are found in the usual places.
#[must_use]
pub fn engine() -> Engine {
    engine_with(Settings::default())
}

/// Returns the engine, told where runtimes are and how to try them.
#[must_use]
pub fn engine_with(settings: Settings) -> Engine {
    Engine {
        inspector: Arc::new(data::DatasetInspector),
        trainer: Arc::new(training::NetworkTrainer),
        optimizer: Arc::new(serving::ModelOptimizer {
            settings: settings.clone(),
        }),
        loader: Arc::new(serving::ModelLoader { settings }),
        rows: Arc::new(data::DatasetRows),
    }
}

/// Returns what decodes images to predict, as the engine decodes those of datasets.
#[must_use]
pub fn image_decoder() -> Arc<dyn ImageDecoder> {
    Arc::new(data::DatasetImages)
}

/// Returns the version of the framework, which is recorded with each model.
#[must_use]
pub const fn framework_version() -> &'static str {
    FRAMEWORK_VERSION
}

#[cfg(test)]
mod tests {
    #[test]
    fn framework_version_is_the_locked_one() {
        let lock = include_str!("../../../Cargo.lock");
        let version = super::framework_version().replace(' ', "\"\nversion = \"");
        assert!(lock.contains(&format!("name = \"{version}\"")));
    }
}
