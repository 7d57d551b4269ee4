//! How a network may be written, for the OpenAPI document.

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{Defaults, Network};
use crate::spec::{layers::LayerSpec, presets::Preset};

/// A graph of layers: a chain like Keras' `Sequential` unless layers name their inputs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WrittenNetwork {
    /// Shape of one sample, channels last; the dataset's unless given.
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub input_shape: Option<Vec<usize>>,
    /// Whose defaults fill in what layers leave out; Keras' unless given.
    pub defaults: Option<Defaults>,
    /// Name of the preset that the layers were written out from.
    #[schema(max_length = 63)]
    pub preset: Option<String>,
    /// The layers, each after those it takes; the last one's output is the network's.
    #[schema(min_items = 1, max_items = 512)]
    pub layers: Vec<LayerSpec>,
}

/// A well-known network by name; as many outputs as the dataset's target needs follow.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PresetNetwork {
    /// Shape of one sample, channels last; the dataset's unless given.
    #[schema(max_items = 4, example = json!([8, 8, 1]))]
    pub input_shape: Option<Vec<usize>>,
    /// Whose defaults fill in what layers leave out; Keras' unless given.
    pub defaults: Option<Defaults>,
    /// Name and parameters.
    #[serde(flatten)]
    pub preset: Preset,
}

/// A network, as its layers or by name.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum NetworkForm {
    /// Layer by layer.
    Written(WrittenNetwork),
    /// By name.
    Preset(PresetNetwork),
}

impl PartialSchema for Network {
    fn schema() -> RefOr<Schema> {
        NetworkForm::schema()
    }
}

impl ToSchema for Network {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NetworkForm::schemas(schemas);
    }
}
