//! Exported networks run elsewhere and give what they give here.

use std::{path::PathBuf, sync::mpsc, thread, time::Duration};

use burn::tensor::Device;
use nereid_core::spec::{Network as Spec, network::Plan};
use serde_json::{Value, json};

use super::{Dialect, Export, proto::ModelProto};
use crate::{
    network::Network,
    serving::{Engine, Framework, Onnxruntime, Settings, Tract},
    tensors_file::TensorsFile,
    training::reference::case::{Case, cases},
};

/// Largest difference, of numbers beyond 1 relative to them.
const ALLOWED: f32 = 1e-4;

/// Longest time that one network may take: tract was seen to optimise some for ever.
const LIMIT: Duration = Duration::from_secs(10);

/// A network with all of its weights, and samples for it.
struct Sample {
    name: String,
    plan: Plan,
    weights: TensorsFile,
    input: Vec<f32>,
    rows: usize,
}

impl Sample {
    fn of(case: &Case) -> Self {
        let spec = case.spec().unwrap();
        let network = spec.network;
        let plan = network.plan(&case.input.shape[1..], "").unwrap();
        let mut weights = TensorsFile::default();
        for weight in plan.layers.iter().flat_map(|l| {
            l.weights
                .iter()
                .map(move |w| (format!("{}/{}", l.name, w.role), w.shape.clone()))
        }) {
            let values = case.weights[&weight.0].floats();
            weights.push(weight.0, weight.1, values);
        }
        Self {
            name: case.name.clone(),
            plan,
            weights,
            input: case.input.floats(),
            rows: case.input.shape[0],
        }
    }

    /// A network whose weights and samples are waves.
    fn waving(name: &str, shape: &[usize], layers: &Value) -> Self {
        let spec: Spec = serde_json::from_value(json!({ "layers": layers })).unwrap();
        let plan = spec.plan(shape, "").unwrap();
        let mut weights = TensorsFile::default();
        for (k, (layer, weight)) in plan
            .layers
            .iter()
            .flat_map(|l| l.weights.iter().map(move |w| (l, w)))
            .enumerate()
        {
            let n = weight.shape.iter().product();
            let mut values = wave(n, k + 5);
            if weight.role == "moving_variance" {
                for v in &mut values {
                    *v = v.abs() + 0.5;
                }
            }
            let name = format!("{}/{}", layer.name, weight.role);
            weights.push(name, weight.shape.clone(), values);
        }
        Self {
            name: name.to_owned(),
            input: wave(3 * shape.iter().product::<usize>(), 1),
            plan,
            weights,
            rows: 3,
        }
    }

    fn framework(&self) -> Framework {
        let mut network = Network::blank(&self.plan, &Device::flex());
        for parameter in &mut network.parameters {
            parameter.set_keras(&self.weights.tensors[&parameter.name].1);
        }
        Framework::new(network)
    }

    fn graph(&self, dialect: Dialect) -> Result<Vec<u8>, String> {
        let export = Export::network(&self.plan, &self.weights, dialect);
        export.bytes().map_err(|e| e.to_string())
    }

    /// Compares all samples together and the first one alone; `None` if both are right.
    fn difference(&self, engine: &dyn Engine) -> Option<String> {
        let size = self.input.len() / self.rows;
        for rows in [self.rows, 1] {
            let input = self.input[..rows * size].to_vec();
            let expected = self.framework().infer(input.clone(), rows).unwrap();
            let got = match engine.infer(input, rows) {
                Ok(got) => got,
                Err(e) => return Some(e.to_string()),
            };
            if got.len() != expected.len() {
                return Some(format!("{} outputs, not {}", got.len(), expected.len()));
            }
            for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                // A NaN is no small difference.
                let close = (a - b).abs() <= ALLOWED * b.abs().max(1.0);
                if !close {
                    return Some(format!("{rows} rows, output {i}: {a}, not {b}"));
                }
            }
        }
        None
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn wave(n: usize, k: usize) -> Vec<f32> {
    let value = |i: usize| ((i as f32 * 1.7 + k as f32 * 0.9).sin()) * 0.6;
    (0..n).map(value).collect()
}

/// Every layer and activation, as Keras' and PyTorch's numbers are compared with, and what these
/// cases do not hold.
fn samples() -> Vec<Sample> {
    let mut samples: Vec<Sample> = ["layers", "more_layers"]
        .into_iter()
        .flat_map(cases::<Case>)
        .map(|case| Sample::of(&case))
        .collect();
    let further = [
        (
            "joins of both layouts",
            vec![4, 3, 4],
            json!([
                {"type": "Conv2D", "name": "a", "filters": 4, "kernel_size": 3, "padding": "same"},
                {"type": "Add", "name": "b", "inputs": ["a", "input"]},
                {"type": "Concatenate", "name": "c", "axis": 1, "inputs": ["b", "input"]},
                {"type": "Concatenate", "name": "d", "axis": 2, "inputs": ["c", "c"]},
                {"type": "Concatenate", "name": "e", "inputs": ["d", "d"]},
                {"type": "MaxPooling2D", "padding": "same"},
                {"type": "Flatten"},
                {"type": "Dense", "units": 3, "activation": "softmax"}
            ]),
        ),
        (
            "softmax over channels of planes",
            vec![4, 3, 2],
            json!([
                {"type": "Conv2D", "filters": 3, "kernel_size": [2, 3], "activation": "softmax"}
            ]),
        ),
        (
            "broadcasting",
            vec![4, 3, 2],
            json!([
                {"type": "GlobalAveragePooling2D", "name": "mean"},
                {"type": "Reshape", "name": "one", "target_shape": [1, 1, 2]},
                {"type": "Conv2D", "name": "planes", "filters": 2, "kernel_size": 1, "inputs": ["input"]},
                {"type": "Multiply", "inputs": ["planes", "one"]},
                {"type": "Average", "inputs": ["planes", "multiply", "input"]}
            ]),
        ),
        (
            "deep steps",
            vec![7, 3],
            json!([
                {"type": "Conv1D", "filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
                {"type": "BatchNormalization"},
                {"type": "GRU", "units": 3, "return_sequences": true, "go_backwards": true},
                {"type": "LSTM", "units": 2, "return_sequences": true},
                {"type": "Bidirectional", "layer": {"type": "SimpleRNN", "units": 3}}
            ]),
        ),
        (
            "a transposed convolution with gaps",
            vec![3, 3, 2],
            json!([
                {"type": "Conv2DTranspose", "filters": 2, "kernel_size": [2, 4], "strides": [3, 2]},
                {"type": "Conv2DTranspose", "filters": 2, "kernel_size": 2, "strides": 3, "padding": "same"},
                {"type": "UpSampling2D", "size": [2, 3], "interpolation": "bilinear"}
            ]),
        ),
        (
            "group normalisation of vectors",
            vec![6],
            json!([
                {"type": "GroupNormalization", "groups": 3}
            ]),
        ),
    ];
    for (name, shape, layers) in further {
        samples.push(Sample::waving(name, &shape, &layers));
    }
    samples
}

#[test]
fn tract_gives_what_the_framework_gives() {
    let (mut wrong, mut refused, mut right) = (Vec::new(), Vec::new(), 0);
    for sample in samples() {
        let graph = match sample.graph(Dialect::Tract) {
            Ok(graph) => graph,
            Err(why) => {
                refused.push(format!("{}: {why}", sample.name));
                continue;
            }
        };
        let (send, done) = mpsc::channel();
        let name = sample.name.clone();
        thread::spawn(move || {
            let found = match Tract::load(&graph, sample.plan.input.clone()) {
                Ok(tract) => sample.difference(&tract),
                Err(e) => Some(e.to_string()),
            };
            let _ = send.send(found);
        });
        match done.recv_timeout(LIMIT) {
            Ok(None) => right += 1,
            Ok(Some(what)) => wrong.push(format!("{name}: {what}")),
            Err(_) => wrong.push(format!("{name}: it is prepared for ever")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {right}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(right > 100, "{right}");
    // It would compute these with other functions, without a word.
    let expected = refused.iter().all(|r| r.contains("inside of layer"));
    assert!(expected, "{}", refused.join("\n"));
}

/// The library that CI and developers name; tests that need one say when they are skipped.
pub(crate) fn library() -> Option<PathBuf> {
    let path = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: ORT_DYLIB_PATH names no library of ONNX Runtime");
    }
    path
}

#[test]
fn onnxruntime_gives_what_the_framework_gives() {
    let Some(library) = library() else { return };
    let settings = Settings {
        onnxruntime: Some(library),
        probe: None,
    };
    let (mut wrong, mut right) = (Vec::new(), 0);
    for sample in samples() {
        let found = sample.graph(Dialect::Standard).and_then(|graph| {
            let input = sample.plan.input.clone();
            Onnxruntime::of_graph(graph, input, &settings).map_err(|e| e.to_string())
        });
        let found = match found {
            Ok(engine) => sample.difference(&engine),
            Err(why) => Some(why),
        };
        match found {
            None => right += 1,
            Some(what) => wrong.push(format!("{}: {what}", sample.name)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {right}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(right > 100, "{right}");
}

#[test]
fn convolutions_follow_each_other_without_turning() {
    let layers = json!([
        {"type": "Conv2D", "filters": 4, "kernel_size": 3, "activation": "relu"},
        {"type": "BatchNormalization"},
        {"type": "MaxPooling2D"},
        {"type": "Conv2D", "filters": 4, "kernel_size": 2},
        {"type": "GlobalAveragePooling2D"},
        {"type": "Dense", "units": 2}
    ]);
    let sample = Sample::waving("chain", &[9, 9, 3], &layers);
    let export = Export::network(&sample.plan, &sample.weights, Dialect::Standard);
    let ModelProto { graph, .. } = export.message().unwrap();
    let turns = graph.unwrap().node;
    let turns = turns.iter().filter(|n| n.op_type == "Transpose").count();
    assert_eq!(turns, 1, "channels come first once, at the input");
}
