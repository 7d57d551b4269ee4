//! Declarative specs of jobs: what a client writes, validated without a tensor framework.

pub mod augmentation;
pub mod callbacks;
pub mod deploy;
pub mod finetune;
pub mod fit;
pub mod initializers;
pub mod layers;
pub mod network;
pub mod noop;
pub mod objective;
pub mod optimizer;
pub mod patterns;
pub mod precision;
pub mod presets;
pub mod regularizers;
pub mod rules;
pub mod schedule;
pub mod shapes;
pub mod split;
pub mod train;
pub mod weights;

pub use augmentation::Augmentation;
pub use callbacks::{Callback, Monitor};
pub use deploy::{DeploySpec, Tolerance, WeightFormat};
pub use finetune::{InitializeFrom, Lora, Mismatched, Scaling};
pub use fit::{ClassWeight, FitOptions, Normalization};
pub use layers::{Activation, Layer, LayerSpec, Padding};
pub use network::Network;
pub use noop::NoopSpec;
pub use objective::{Loss, Metric};
pub use optimizer::Optimizer;
pub use patterns::{Pattern, Patterns};
pub use precision::{DtypePolicy, LossScale};
pub use rules::Rule;
pub use schedule::{LearningRate, Schedule};
pub use train::{DatasetRef, Task, TrainSpec};
