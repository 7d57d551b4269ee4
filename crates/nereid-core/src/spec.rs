//! Declarative specs of jobs: what a client writes, validated without a tensor framework.

pub mod deploy;
pub mod fit;
pub mod layers;
pub mod network;
pub mod shapes;
pub mod train;

pub use deploy::{DeploySpec, Tolerance};
pub use fit::{Callback, ClassWeight, FitOptions, Loss, Metric, Monitor, Normalization, Optimizer};
pub use layers::{Activation, Layer, LayerSpec, Padding};
pub use network::Network;
pub use train::{DatasetRef, TrainSpec};
