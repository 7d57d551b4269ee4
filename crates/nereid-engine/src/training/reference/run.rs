//! Runs a case as a job would: the same reading of data, the same training loop.

use std::{collections::BTreeMap, fmt::Write, io, io::Read, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use nereid_core::{
    datasets::{DatasetSource, FileRole},
    engine::{DataFiles, DataInput, DataResources, Inspector, Monitor, Snapshot, TrainTask},
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    spec::{Callback, Metric, TrainSpec, network::Plan},
    workers::DeviceKind,
};
use serde_json::{Value, json};

use super::case::{CallbackCase, Case, InitializerCase, MetricCase};
use crate::{
    data::DatasetInspector,
    device,
    network::{Mode, Network, Parameter, TrainingPass, host},
    preprocessing,
    training::{
        batches::{self, BatchTargets},
        callbacks::{CallbackState, after_epoch},
        metrics::{Measures, Reading, Tally},
        plan,
        session::Session,
        split::Splits,
        start,
    },
};

/// What came of a training.
pub(super) struct Outcome {
    pub(super) output: Vec<f32>,
    pub(super) losses: Vec<f64>,
    pub(super) gradients: BTreeMap<String, Vec<f32>>,
    pub(super) after: BTreeMap<String, Vec<f32>>,
}

/// Trains a case from its weights.
pub(super) fn train(case: &Case, spec: &TrainSpec, device: DeviceKind) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let task = TrainTask {
        spec,
        train: data(case),
        validation: None,
        test: None,
        device,
        base: None,
        resume: None,
        resources: &DataResources::default(),
        scratch: folder.path(),
        output: folder.path(),
    };
    let splits = Splits::load(&task, &mut || Ok(())).unwrap();
    let plan = plan(&task, case.input.shape[0]).unwrap();
    let samples = splits.samples(&splits.train);
    let wanted = spec.fit.normalization;
    let columns = &task.train.schema.features;
    let rows = splits.train.rows.iter();
    let check = &mut || Ok(());
    let preprocessing = preprocessing::fit(wanted, &plan, columns, samples, rows, check).unwrap();
    let mut network = Network::build(&plan, 0, &device::open(device).unwrap());
    set(case, &mut network);
    let rows = case.input.shape[0];
    let input = TensorData::new(case.input.floats(), [rows, case.input.values.len() / rows]);
    let output = network.infer(Tensor::from_data(input, &network.device));
    let mut session = start(&task, &splits, &preprocessing, network).unwrap();
    let gradients = gradients(&session);
    session.run(&mut Silent).unwrap();
    let parameters = &session.network.parameters;
    Outcome {
        output: host(output).unwrap(),
        losses: session.state.history.iter().map(|v| v["loss"]).collect(),
        gradients,
        after: parameters.iter().map(named).collect(),
    }
}

/// Puts the case's weights into a network, which must have no others.
fn set(case: &Case, network: &mut Network) {
    let names: Vec<_> = case.weights.keys().collect();
    let mut own: Vec<_> = network.parameters.iter().map(|p| &p.name).collect();
    own.sort_unstable();
    assert_eq!(own, names, "{}", case.name);
    for parameter in &mut network.parameters {
        let array = &case.weights[&parameter.name];
        assert_eq!(
            parameter.shape, array.shape,
            "{}: {}",
            case.name, parameter.name
        );
        parameter.set_keras(&array.floats());
    }
}

fn named(parameter: &Parameter) -> (String, Vec<f32>) {
    (parameter.name.clone(), parameter.to_keras().unwrap())
}

/// Gradients of the loss of the first batch.
fn gradients(session: &Session<'_>) -> BTreeMap<String, Vec<f32>> {
    let part = &session.splits.train;
    let samples = session.splits.samples(part);
    let first = session.spec.fit.batch_size as usize;
    let rows: Vec<u32> = part.rows.iter().take(first).collect();
    let network = &session.network;
    let mut reader = samples.reader();
    let batch = batches::assemble(samples, &mut reader, &rows, session.preprocessing, None);
    let batch = batch.unwrap().onto(&network.device);
    let leaf = |p: &Parameter| {
        let value = p.value.clone();
        if p.trainable {
            value.autodiff().require_grad()
        } else {
            value
        }
    };
    let leaves: Vec<_> = network.parameters.iter().map(leaf).collect();
    let mut pass = TrainingPass {
        seed: session.spec.fit.seed,
        step: 0,
        moving: Vec::new(),
        outputs: None,
    };
    let ending = session.objective.ending;
    let outputs = network.forward(&leaves, batch.input, ending, &mut Mode::Training(&mut pass));
    let loss = session.objective.loss(outputs, &batch.targets, true);
    let loss = match network.penalty(&leaves) {
        Some(penalty) => loss + penalty,
        None => loss,
    };
    let gradients = loss.backward();
    let trainable = network
        .parameters
        .iter()
        .zip(&leaves)
        .filter(|(p, _)| p.trainable);
    let of = |(p, leaf): (&Parameter, &Tensor<1>)| {
        let mut gradient = p.clone();
        gradient.value = leaf
            .grad(&gradients)
            .unwrap_or_else(|| p.value.zeros_like());
        named(&gradient)
    };
    trainable.map(of).collect()
}

/// Mean, standard deviation and largest absolute value of a weight, drawn a few times.
pub(super) fn initial(case: &InitializerCase, plan: &Plan) -> [f64; 3] {
    let device = device::open(DeviceKind::Cpu).unwrap();
    let mut values = Vec::new();
    for seed in 0..8 {
        let network = Network::build(plan, seed, &device);
        let mut parameters = network.parameters.iter();
        let parameter = parameters.find(|p| p.name == case.weight).unwrap();
        assert_eq!(parameter.shape, case.shape, "{}", case.name);
        values.extend(parameter.to_keras().unwrap().into_iter().map(f64::from));
    }
    let n = f64::from(u32::try_from(values.len()).unwrap());
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    [mean, square.sqrt(), largest]
}

/// The case's rows as a CSV file.
fn data(case: &Case) -> DataInput {
    let size: usize = case.input.shape[1..].iter().product();
    let mut text: String = (0..size).map(|i| format!("x{i},")).collect();
    text += "y\n";
    for (i, row) in case.input.values.chunks(size).enumerate() {
        for v in row {
            write!(text, "{v},").unwrap();
        }
        match case.targets.get(i) {
            Some(Value::String(class)) => text += class,
            Some(number) => text += &number.to_string(),
            None => text.push('0'),
        }
        text.push('\n');
    }
    let files = Csv(text.into_bytes());
    let kind = if case.targets.first().is_some_and(Value::is_string) {
        "class"
    } else {
        "value"
    };
    let source: DatasetSource = serde_json::from_value(json!({
        "format": "csv",
        "files": {"data": "s3://reference/data.csv"},
        "label_column": "y",
        "shape": case.input.shape[1..],
        "target": kind,
    }))
    .unwrap();
    let inspection = DatasetInspector.inspect(&source, &files).unwrap();
    DataInput {
        source,
        schema: inspection.schema,
        files: Arc::new(files),
        digest: None,
    }
}

struct Csv(Vec<u8>);

impl DataFiles for Csv {
    fn open(&self, _: FileRole) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

/// Measures given outputs, in two batches.
pub(super) fn measure(case: &MetricCase) -> BTreeMap<String, f64> {
    let metrics: Vec<Metric> = case.metrics.iter().map(metric).collect();
    let reading = match case.reading.as_str() {
        "binary" => Reading::Binary,
        "labels" => Reading::Labels,
        "values" => Reading::Values,
        _ => Reading::Classes,
    };
    let measures = Measures::new(&metrics, case.names, reading, false);
    let outputs = case.outputs.floats();
    let wide = if reading == Reading::Labels {
        case.names
    } else {
        1
    };
    let n = case.targets.len() / wide;
    let (width, half) = (outputs.len() / n, n / 2);
    let mut tally = Tally::default();
    for rows in [0..half, half..n] {
        let outputs = &outputs[rows.start * width..rows.end * width];
        let targets = case.targets[rows.start * wide..rows.end * wide].to_vec();
        let targets = match reading {
            Reading::Values => BatchTargets::Value(targets),
            Reading::Labels => BatchTargets::Many {
                values: targets,
                width: wide,
            },
            _ => BatchTargets::Class(targets.into_iter().map(class).collect()),
        };
        measures.add(&mut tally, outputs, &targets, 0.0, true);
    }
    if let Some(matrix) = &case.matrix {
        let names: Vec<_> = (0..case.names).map(|i| i.to_string()).collect();
        let reports = measures.reports(&tally, &names);
        assert_eq!(
            reports["confusion_matrix"]["counts"],
            json!(matrix),
            "{}",
            case.name
        );
    }
    measures.values(&tally, "")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small whole numbers"
)]
fn class(target: f32) -> u32 {
    target as u32
}

fn metric(value: &Value) -> Metric {
    let value = match value {
        Value::String(name) => json!({ "type": name }),
        object => object.clone(),
    };
    serde_json::from_value(value).unwrap()
}

/// Runs a callback over epochs; returns the rate after each and the last if it ended training.
pub(super) fn callbacks(case: &CallbackCase) -> (Vec<f64>, Option<usize>) {
    let callback: Callback = serde_json::from_value(case.callback.clone()).unwrap();
    let mut states = [CallbackState::default()];
    let (mut rate, mut rates) = (case.rate, Vec::new());
    for (epoch, &value) in case.values.iter().enumerate() {
        let values = BTreeMap::from([(case.key.clone(), value)]);
        let at = u32::try_from(epoch).unwrap();
        let callbacks = std::slice::from_ref(&callback);
        let verdict = after_epoch(callbacks, &mut states, at, &values, &mut rate);
        rates.push(rate);
        if verdict.stop.is_some() {
            return (rates, Some(epoch));
        }
    }
    (rates, None)
}

/// A monitor that lets training go on.
struct Silent;

impl Monitor for Silent {
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
