//! Runtimes, the gate before them and smaller weights, on small networks.

use std::ffi::OsString;

use burn::tensor::Device;
use nereid_core::{
    engine::{EngineError, Goal, Loader, Monitor, Optimizer, Snapshot},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    models::{OptimisationReport, Preprocessing, Runtime, RuntimeReport, Signature},
    spec::{Network as Spec, Normalization, Tolerance, WeightFormat},
    tensors::{Batch, DataType, TensorSpec, TensorValues},
};
use serde_json::json;
use tempfile::TempDir;

use super::{ModelLoader, ModelOptimizer, Probe, Settings, judge::Judge};
use crate::{
    artifact::{Artifact, Evaluation, write_trained},
    model::Model,
    network::Network,
    onnx::tests::library,
    outputs::Head,
    tensors_file::TensorsFile,
};

/// Goes on whatever it hears.
struct Deaf;

impl Monitor for Deaf {
    fn phase(&mut self, _: JobPhase) {}
    fn progress(&mut self, _: Progress) {}
    fn metrics(&mut self, _: MetricPoint) {}
    fn rule(&mut self, _: RuleReport) {}
    fn log(&mut self, _: LogLevel, _: String) {}
    fn checkpoint(&mut self, _: Snapshot) {}
    fn directive(&mut self) -> Directive {
        Directive::Continue
    }
}

/// Samples that are waves.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn waves(rows: usize, size: usize) -> Vec<f32> {
    let value = |i: usize| (i as f32 * 0.73).sin() * 2.0 + (i / size) as f32 % 3.0 - 1.0;
    (0..rows * size).map(value).collect()
}

/// A published version of a network that nobody trained; its own classes are the right ones.
fn version() -> TempDir {
    let shape = [8, 8, 2];
    let layers = json!([
        {"type": "Conv2D", "filters": 8, "kernel_size": 3, "padding": "same", "activation": "relu"},
        {"type": "BatchNormalization"},
        {"type": "MaxPooling2D"},
        {"type": "Dropout", "rate": 0.3},
        {"type": "Flatten"},
        {"type": "Dense", "units": 40, "activation": "gelu"},
        {"type": "Dense", "units": 3, "activation": "softmax"}
    ]);
    let spec: Spec = serde_json::from_value(json!({ "layers": layers })).unwrap();
    let plan = spec.plan(&shape, "").unwrap();
    let network = Network::build(&plan, 7, &Device::flex());
    let signature = Signature {
        inputs: vec![TensorSpec {
            name: "input".to_owned(),
            datatype: DataType::Fp32,
            shape: vec![-1, 8, 8, 2],
        }],
        outputs: vec![],
        classes: Some(["a", "b", "c"].map(str::to_owned).to_vec()),
        columns: None,
        preprocessing: Preprocessing {
            normalization: Normalization::MinMax,
            offset: vec![0.5],
            scale: vec![2.0],
            impute: vec![],
            columns: vec![],
        },
    };
    let head = Head::Classes { from_logits: false };
    let artifact = Artifact::new(&plan, signature, head, &network).unwrap();
    let (rows, size) = (200, shape.iter().product());
    let inputs = waves(rows, size);
    let model = Model::new(&artifact).unwrap();
    let outputs = model.run(inputs.clone(), rows).unwrap();
    let classes = outputs.chunks(3).map(|row| {
        let class = crate::outputs::most_likely(row);
        [0.0, 1.0, 2.0][class]
    });
    let evaluation = Evaluation {
        rows,
        targets: Some(classes.collect()),
        calibration: inputs[..32 * size].to_vec(),
        inputs,
    };
    let folder = tempfile::tempdir().unwrap();
    let golden = (16, waves(16, size));
    write_trained(folder.path(), artifact, golden, &evaluation, &[]).unwrap();
    folder
}

fn optimise(
    version: &TempDir,
    goal: Goal,
    settings: Settings,
) -> Result<(OptimisationReport, TempDir), EngineError> {
    let serving = tempfile::tempdir().unwrap();
    let optimizer = ModelOptimizer { settings };
    let (report, _) = optimizer.optimise(version.path(), serving.path(), goal, &mut Deaf)?;
    Ok((report, serving))
}

fn predict(folder: &TempDir, settings: Settings) -> Vec<f32> {
    let model = ModelLoader { settings }.load(folder.path()).unwrap();
    let values = waves(5, 128);
    let outputs = model.predict(&Batch { rows: 5, values }).unwrap();
    match &outputs[0].values {
        TensorValues::Fp32(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn close(a: &[f32], b: &[f32], by: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= by, "{a} {b}");
    }
}

fn of(report: &OptimisationReport, runtime: Runtime) -> &RuntimeReport {
    let found = report.runtimes.iter().find(|r| r.runtime == runtime);
    found.unwrap()
}

#[test]
fn the_runtime_that_was_asked_for_serves_the_same_answers() {
    let version = version();
    let expected = predict(&version, Settings::default());
    let goal = Goal {
        runtime: Some(Runtime::Tract),
        ..Goal::default()
    };
    let (report, serving) = optimise(&version, goal, Settings::default()).unwrap();
    assert_eq!(report.runtime, Runtime::Tract);
    assert_eq!(of(&report, Runtime::Tract).latency.len(), 3);
    let metric = report.metric.unwrap();
    assert_eq!((metric.name.as_str(), metric.loss), ("accuracy", 0.0));
    assert_eq!(report.samples, 200);
    let machine = report.machine.unwrap();
    assert!(machine.threads > 0 && !machine.cpu.is_empty());
    assert!(
        report
            .after
            .iter()
            .all(|l| l.throughput > 0.0 && l.p50_us <= l.p99_us)
    );
    close(&predict(&serving, Settings::default()), &expected, 1e-5);
}

#[test]
fn a_graph_that_answers_wrongly_is_refused() {
    let version = version();
    let artifact = Artifact::read(version.path()).unwrap();
    let original = Model::new(&artifact).unwrap();
    let plan = artifact.document.plan().unwrap();
    let evaluation = Evaluation::read(version.path(), &plan).unwrap();
    let judge = Judge::new(&artifact, evaluation, &original).unwrap();
    let tolerance = Tolerance::default();
    let on_tract = |artifact: &Artifact| {
        let model = Model::on(artifact, Runtime::Tract, &Settings::default()).unwrap();
        judge.examine(&model).unwrap().objection(tolerance)
    };
    assert_eq!(on_tract(&artifact), None);
    let mut damaged = artifact.clone();
    let kernel = damaged.weights.tensors.get_mut("conv2d/kernel").unwrap();
    kernel.1.reverse();
    let objection = on_tract(&damaged).unwrap();
    assert!(objection.contains("agreement"), "{objection}");
}

#[test]
fn a_runtime_that_aborts_is_refused_and_the_job_goes_on() {
    let version = version();
    let abort = |script: &str| Settings {
        onnxruntime: None,
        probe: Some(Probe {
            program: "/bin/sh".into(),
            arguments: ["-c", script].map(OsString::from).to_vec(),
            environment: vec![],
        }),
    };
    let settings = abort("echo terminate called >&2; kill -ABRT $$");
    let (report, serving) = optimise(&version, Goal::default(), settings.clone()).unwrap();
    let refused = of(&report, Runtime::Onnxruntime).refused.clone().unwrap();
    assert!(refused.contains("signal: 6"), "{refused}");
    assert!(refused.contains("terminate called"), "{refused}");

    // A replica elsewhere, whose library aborts, is served by the framework.
    let mut artifact = Artifact::read(serving.path()).unwrap();
    artifact.document.runtime = Runtime::Onnxruntime;
    artifact.write(serving.path()).unwrap();
    let expected = predict(&version, Settings::default());
    close(&predict(&serving, settings.clone()), &expected, 1e-5);

    let goal = Goal {
        runtime: Some(Runtime::Onnxruntime),
        ..Goal::default()
    };
    match optimise(&version, goal, settings) {
        Err(EngineError::InvalidInput(why)) => assert!(why.contains("signal: 6"), "{why}"),
        other => panic!("{:?}", other.map(|(report, _)| report)),
    }
}

#[test]
fn onnxruntime_serves_where_its_library_is_found() {
    let Some(library) = library() else { return };
    let settings = Settings {
        onnxruntime: Some(library),
        probe: None,
    };
    let version = version();
    let goal = Goal {
        runtime: Some(Runtime::Onnxruntime),
        ..Goal::default()
    };
    let (report, serving) = optimise(&version, goal, settings.clone()).unwrap();
    assert_eq!(report.runtime, Runtime::Onnxruntime);
    let expected = predict(&version, Settings::default());
    close(&predict(&serving, settings), &expected, 1e-5);
}

#[test]
fn weights_get_smaller_and_stay_within_the_gate() {
    let version = version();
    for (weights, share, by) in [
        (WeightFormat::Float16, 0.52, 2e-3),
        (WeightFormat::Int8, 0.3, 0.05),
    ] {
        let goal = Goal {
            tolerance: Tolerance::of(weights),
            weights,
            runtime: Some(Runtime::Burn),
        };
        let (report, serving) = optimise(&version, goal, Settings::default()).unwrap();
        assert_eq!(report.weights, weights, "{:?}", report.steps);
        #[expect(clippy::cast_precision_loss, reason = "small files")]
        let found = report.bytes_after as f64 / report.bytes_before as f64;
        assert!(found <= share, "{found}");
        let loss = report.metric.unwrap().loss;
        assert!(loss <= 0.5, "{loss}");
        let expected = predict(&version, Settings::default());
        close(&predict(&serving, Settings::default()), &expected, by);
        let bytes = std::fs::read(serving.path().join("weights.safetensors")).unwrap();
        let file = TensorsFile::from_bytes(&bytes).unwrap();
        assert_eq!(
            file.to_bytes().unwrap(),
            bytes,
            "values come back as they were stored"
        );
    }
}
