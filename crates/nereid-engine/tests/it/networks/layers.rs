//! Layers at random, most of which fit some input.

use proptest::prelude::*;
use serde_json::{Value, json};

/// A layer with what it takes; the layer before if that is empty.
#[derive(Debug, Clone)]
pub struct Described {
    pub layer: Value,
    /// Numbers of earlier outputs, modulo how many there are.
    pub inputs: Vec<usize>,
}

impl From<Value> for Described {
    fn from(layer: Value) -> Self {
        Self {
            layer,
            inputs: Vec::new(),
        }
    }
}

/// A layer of one or of several inputs.
pub fn described() -> impl Strategy<Value = Described> {
    let branch = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..16_usize, 1)];
    let one = (layer(), branch).prop_map(|(layer, inputs)| Described { layer, inputs });
    let several = (joining(), prop::collection::vec(0..16_usize, 1..4))
        .prop_map(|(layer, inputs)| Described { layer, inputs });
    prop_oneof![4 => one, 2 => several]
}

/// A change to one field of a layer: another value, or none.
pub fn mutation() -> impl Strategy<Value = (&'static str, Option<Value>)> {
    let field = prop::sample::select(vec![
        "type",
        "units",
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "rate",
        "activation",
        "inputs",
        "name",
        "groups",
        "num_heads",
        "key_dim",
        "pool_size",
        "target_shape",
        "axis",
        "kernel_initializer",
        "layer",
        "size",
        "epsilon",
        "unknown",
    ]);
    let value = prop::sample::select(vec![
        None,
        Some(json!(0)),
        Some(json!(-1)),
        Some(json!(3)),
        Some(json!(1_000_000)),
        Some(json!(u64::MAX)),
        Some(json!(0.5)),
        Some(json!("l0")),
        Some(json!("flatten")),
        Some(json!([])),
        Some(json!([0, 0])),
        Some(json!([1_048_576, 1_048_576])),
        Some(json!(["l0", "l1", "input"])),
        Some(json!(["no_layer"])),
        Some(json!({"type": "LSTM", "units": 2})),
        Some(json!({"type": "random_normal", "stddev": 1e300})),
        Some(json!(true)),
    ]);
    (field, value)
}

fn joining() -> impl Strategy<Value = Value> {
    let plain = prop::sample::select(vec![
        "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum",
    ]);
    let attention = (1..3_usize, 1..4_usize, any::<bool>(), any::<bool>());
    let attention = attention.prop_map(|(heads, dim, bias, causal)| {
        json!({"type": "MultiHeadAttention", "num_heads": heads, "key_dim": dim, "use_bias": bias,
               "use_causal_mask": causal, "dropout": if bias { 0.1 } else { 0.0 }})
    });
    prop_oneof![
        3 => plain.prop_map(|kind| json!({ "type": kind })),
        3 => (-2..3_i64).prop_map(|axis| json!({"type": "Concatenate", "axis": axis})),
        1 => attention,
    ]
}

/// Recurrent layers, in one direction or in both.
fn recurrent() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["SimpleRNN", "LSTM", "GRU"]);
    (kind, 1..4_usize, any::<[bool; 4]>()).prop_map(|(kind, units, [bias, all, back, both])| {
        let mut layer = json!({"type": kind, "units": units, "use_bias": bias,
                               "return_sequences": all, "go_backwards": back});
        if kind == "GRU" {
            layer["reset_after"] = json!(bias != all);
        }
        if both {
            let merge = if all { "concat" } else { "sum" };
            return json!({"type": "Bidirectional", "layer": layer, "merge_mode": merge});
        }
        layer
    })
}

/// Further layers over planes.
fn planes() -> impl Strategy<Value = Value> {
    let window = || (1..4_usize, 1..4_usize, 1..3_usize, padding(), activation());
    let depthwise = window().prop_map(|(k, m, s, p, a)| {
        json!({"type": "DepthwiseConv2D", "kernel_size": [k, 2], "depth_multiplier": m,
               "strides": s, "padding": p, "activation": a})
    });
    let separable = window().prop_map(|(k, f, s, p, a)| {
        json!({"type": "SeparableConv2D", "kernel_size": [2, k], "filters": f, "strides": s,
               "padding": p, "activation": a, "use_bias": k > 1})
    });
    let transposed = window().prop_map(|(k, f, s, p, a)| {
        json!({"type": "Conv2DTranspose", "kernel_size": [k, 1], "filters": f, "strides": [s, 2],
               "padding": p, "activation": a})
    });
    let grouped = window().prop_map(|(k, g, s, p, a)| {
        json!({"type": "Conv2D", "kernel_size": k, "filters": 2 * g, "groups": g, "strides": s,
               "padding": p, "activation": a})
    });
    prop_oneof![depthwise, separable, transposed, grouped]
}

fn padding() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("valid"), Just("same")]
}

fn activation() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "linear",
        "relu",
        "leaky_relu",
        "gelu",
        "sigmoid",
        "tanh",
        "softmax",
        "relu6",
        "elu",
        "selu",
        "gelu_approximate",
        "silu",
        "mish",
        "hard_sigmoid",
        "hard_silu",
        "softplus",
        "softsign",
    ])
}

fn layer() -> impl Strategy<Value = Value> {
    let conv = || {
        (
            1..4_usize,
            1..4_usize,
            1..4_usize,
            1..3_usize,
            padding(),
            activation(),
            any::<bool>(),
        )
    };
    let conv2 = conv().prop_map(|(f, k, l, s, p, a, b)| {
        json!({"type": "Conv2D", "filters": f, "kernel_size": [k, l], "strides": [s, 1],
               "padding": p, "activation": a, "use_bias": b})
    });
    let conv1 = conv().prop_map(|(f, k, d, s, p, a, b)| {
        json!({"type": "Conv1D", "filters": f, "kernel_size": k, "strides": s, "padding": p,
               "dilation_rate": if s == 1 { d } else { 1 }, "activation": a, "use_bias": b})
    });
    let pool = (
        prop::sample::select(vec!["Max", "Average"]),
        1..3_usize,
        1..4_usize,
        1..3_usize,
        padding(),
    );
    let pool = pool.prop_map(|(kind, rank, size, stride, p)| {
        json!({"type": format!("{kind}Pooling{rank}D"), "pool_size": size, "strides": stride, "padding": p})
    });
    let plain = prop::sample::select(vec![
        json!({"type": "GlobalAveragePooling1D"}),
        json!({"type": "GlobalAveragePooling2D"}),
        json!({"type": "Flatten"}),
        json!({"type": "Reshape", "target_shape": [-1, 2]}),
        json!({"type": "Reshape", "target_shape": [2, -1, 1]}),
        json!({"type": "Dropout", "rate": 0.3}),
        json!({"type": "BatchNormalization"}),
        json!({"type": "LayerNormalization"}),
        json!({"type": "RMSNormalization"}),
        json!({"type": "GroupNormalization", "groups": 2}),
        json!({"type": "GlobalMaxPooling1D"}),
        json!({"type": "GlobalMaxPooling2D"}),
        json!({"type": "ZeroPadding2D", "padding": [[1, 0], [0, 2]]}),
        json!({"type": "UpSampling2D", "size": [1, 2]}),
        json!({"type": "UpSampling2D", "interpolation": "bilinear"}),
        json!({"type": "RepeatVector", "n": 3}),
        json!({"type": "Reshape", "target_shape": [2, -1]}),
        json!({"type": "SpatialDropout1D", "rate": 0.3}),
        json!({"type": "SpatialDropout2D", "rate": 0.3}),
        json!({"type": "GaussianNoise", "stddev": 0.1}),
        json!({"type": "PositionEmbedding", "sequence_length": 12}),
        json!({"type": "PReLU"}),
        json!({"type": "ReLU", "max_value": 2.0, "negative_slope": 0.1, "threshold": 0.5}),
        json!({"type": "LeakyReLU"}),
        json!({"type": "ELU", "alpha": 0.5}),
        json!({"type": "Dense", "units": 3, "kernel_initializer": "he_normal", "kernel_regularizer": "l2"}),
        json!({"type": "Conv1D", "filters": 3, "kernel_size": 2, "padding": "causal",
               "kernel_regularizer": {"type": "l1_l2", "l1": 0.1}}),
        json!({"type": "Dense", "units": 4, "kernel_initializer": "orthogonal",
               "bias_initializer": {"type": "constant", "value": 0.1}}),
        json!({"type": "Embedding", "input_dim": 5, "output_dim": 3}),
    ]);
    prop_oneof![
        3 => conv2,
        2 => conv1,
        2 => pool,
        4 => plain,
        3 => recurrent(),
        3 => planes(),
        2 => (1..5_usize, activation()).prop_map(|(u, a)| json!({"type": "Dense", "units": u, "activation": a})),
        1 => activation().prop_map(|a| json!({"type": "Activation", "activation": a})),
    ]
}
