//! Trains: reads data, fits weights, evaluates and writes the model's files.

mod augment;
mod base;
mod batches;
mod callbacks;
mod exact;
mod feed;
mod finder;
mod metrics;
mod objective;
mod optimizer;
mod order;
mod pace;
mod precision;
#[cfg(test)]
pub(crate) mod reference;
mod rules;
mod sample;
mod session;
mod snapshots;
mod split;
mod state;
mod watch;

use std::{borrow::Cow, collections::BTreeMap};

use nereid_core::{
    datasets::{DatasetSchema, TargetSchema},
    engine::{EngineError, Monitor, TrainTask, Trainer},
    events::LogLevel,
    jobs::{Directive, JobPhase},
    models::{Preprocessing, TrainedModel},
    spec::{Normalization, Task, TrainSpec, network::Plan, objective::LossKind},
    validation::Violations,
};
use serde_json::Value;

use crate::{
    artifact::{self, Artifact},
    data::Targets,
    device, guard,
    network::Network,
    outputs::{self, Head},
    preprocessing,
};
use base::Base;
use finder::{Chosen, Trials};
use metrics::{Measures, Reading};
use objective::Objective;
use session::Session;
use split::{Part, Splits};

/// Bytes of stack of each thread of a training, as a process's first thread has them.
const STACK: usize = 8 << 20;

/// The [`Trainer`] of this engine.
pub(crate) struct NetworkTrainer;

impl Trainer for NetworkTrainer {
    fn train(
        &self,
        task: &TrainTask<'_>,
        monitor: &mut dyn Monitor,
    ) -> Result<TrainedModel, EngineError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .thread_name(|i| format!("train-{i}"))
            .stack_size(STACK)
            .build()
            .map_err(|e| EngineError::Internal(format!("no threads for the training: {e}")))?;
        // What runs on one of the threads that share its work need not be woken after each part.
        guard::panics("training", || threads.install(|| train(task, monitor)))
    }
}

fn train(task: &TrainTask<'_>, monitor: &mut dyn Monitor) -> Result<TrainedModel, EngineError> {
    let device = device::open(task.device)?;
    monitor.phase(JobPhase::Downloading);
    let resumed = task.resume.is_some();
    let splits = Splits::load(task, &mut || obey(resumed, monitor))?;
    obey(resumed, monitor)?;
    let plan = plan(task, splits.samples(&splits.train).rows)?;
    let base = Base::read(task, &plan)?;
    if let Some(vocabulary) = preprocessing::embeds(&plan) {
        for samples in splits.datasets() {
            preprocessing::check_indices(samples, vocabulary, &mut || obey(resumed, monitor))?;
        }
    }
    let scaling = base.as_ref().and_then(|base| base.scaling(task.spec));
    let preprocessing = match scaling {
        Some(scaling) => scaling.clone(),
        None => scale(task, &splits, &plan, monitor)?,
    };
    obey(resumed, monitor)?;
    let width = plan.output().iter().product();
    let mut network = Network::build(&plan, task.spec.fit.seed, &device);
    base::prepare(&mut network, &plan, task, base.as_ref())?;
    network.half = precision::is_half(task.spec.fit.dtype_policy, task.device, &device, monitor)?;

    monitor.phase(JobPhase::Training);
    let trials = Trials {
        task,
        splits: &splits,
        preprocessing: &preprocessing,
        plan: &plan,
        network: &network,
    };
    let chosen = match task.resume {
        _ if !finder::wanted(task.spec) => Chosen::default(),
        Some(path) => state::chosen(path)?,
        None => trials.find(monitor)?,
    };
    let spec = chosen.apply(task.spec);
    let task = &finder::with_spec(task, &spec);
    let mut session = start(task, &splits, &preprocessing, network)?;
    session.state.chosen = chosen;
    announce(&session, &plan, monitor);
    if let Some(base) = &base {
        base.announce(&session, &task.train.schema, monitor);
    }
    session.run(monitor)?;

    monitor.phase(JobPhase::Evaluating);
    let (metrics, mut reports) = evaluate(&mut session, task, monitor)?;
    if !chosen.is_empty() {
        reports.insert("chosen".to_owned(), chosen.report());
    }
    // Not before: a training that is suspended while it is evaluated saves what it trained.
    session.network.merge_adapters();
    let schema = learnt(task);
    let head = Head::of(task.spec, &schema);
    let signature = outputs::signature(&schema, head, width, preprocessing.clone());
    let artifact = Artifact::new(&plan, signature.clone(), head, &session.network)?;
    let mut golden = sample::golden(&splits, &plan)?;
    preprocessing::fill_missing(&preprocessing, &mut golden.1);
    let mut evaluation = sample::evaluation(&splits, &plan)?;
    preprocessing::fill_missing(&preprocessing, &mut evaluation.inputs);
    preprocessing::fill_missing(&preprocessing, &mut evaluation.calibration);
    let history = &session.state.history;
    let files = artifact::write_trained(task.output, artifact, golden, &evaluation, history)?;
    Ok(TrainedModel {
        signature,
        metrics,
        reports,
        files,
        framework_version: crate::framework_version().to_owned(),
    })
}

/// Returns the training data's schema, without its target if samples are to find themselves.
fn learnt<'a>(task: &'a TrainTask<'_>) -> Cow<'a, DatasetSchema> {
    let schema = &task.train.schema;
    if !task.spec.is_autoencoder() {
        return Cow::Borrowed(schema);
    }
    Cow::Owned(DatasetSchema {
        target: None,
        ..schema.clone()
    })
}

/// Returns how features are scaled; probabilities are compared with values from 0 to 1.
fn normalization(spec: &TrainSpec) -> Normalization {
    let binary = spec.is_autoencoder() && spec.loss.kind() == LossKind::Binary;
    match spec.fit.normalization {
        Normalization::Auto if binary => Normalization::MinMax,
        given => given,
    }
}

/// Asks whether to go on while nothing is trained yet.
///
/// Nothing is lost by a sudden end, so that there is nothing to save first. Asked to end with a
/// model, only a training that goes on from a saved state has one to give.
fn obey(resumed: bool, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
    match monitor.directive() {
        Directive::Continue => Ok(()),
        Directive::Finish if resumed => Ok(()),
        Directive::Finish | Directive::Suspend | Directive::Stop => Err(EngineError::Stopped),
    }
}

fn plan(task: &TrainTask<'_>, rows: usize) -> Result<Plan, EngineError> {
    let plan = task.spec.plan(&task.train.schema, rows as u64, "");
    plan.map_err(invalid)
}

fn invalid(violations: Violations) -> EngineError {
    let lines: Vec<_> = violations
        .into_vec()
        .into_iter()
        .map(|v| format!("{}: {}", v.pointer, v.detail))
        .collect();
    EngineError::InvalidInput(lines.join("; "))
}

/// Finds how features are to be scaled from the training data.
fn scale(
    task: &TrainTask<'_>,
    splits: &Splits,
    plan: &Plan,
    monitor: &mut dyn Monitor,
) -> Result<Preprocessing, EngineError> {
    let samples = splits.samples(&splits.train);
    let columns = &task.train.schema.features;
    let rows = splits.train.rows.iter();
    let check = &mut || obey(task.resume.is_some(), monitor);
    preprocessing::fit(
        normalization(task.spec),
        plan,
        columns,
        samples,
        rows,
        check,
    )
}

fn start<'a>(
    task: &'a TrainTask<'_>,
    splits: &'a Splits,
    preprocessing: &'a Preprocessing,
    network: Network,
) -> Result<Session<'a>, EngineError> {
    let schema = learnt(task);
    let classes = schema.classes().unwrap_or_default();
    let counts = class_counts(splits, classes.len());
    let objective = Objective::new(task.spec, &network, classes, &counts);
    let kind = task.spec.loss.kind();
    let (reading, names) = match task.spec.task(&schema) {
        Task::Autoencoding => (Reading::Pooled, 1),
        Task::Regression => (Reading::Values, numbers(&schema)),
        Task::MultiLabel => (Reading::Labels, schema.labels().map_or(0, <[String]>::len)),
        Task::Classification if kind == LossKind::Binary => (Reading::Binary, classes.len()),
        Task::Classification => (Reading::Classes, classes.len()),
    };
    let measures = Measures::new(&task.spec.metrics, names, reading, objective.logits);
    let mut session = Session::new(task, splits, preprocessing, network, objective, measures)?;
    if let Some(path) = task.resume {
        session.restore(path)?;
    }
    Ok(session)
}

/// Numbers that each sample is to be given.
fn numbers(schema: &DatasetSchema) -> usize {
    match &schema.target {
        Some(TargetSchema::Values { values, .. }) => values.len(),
        _ => 1,
    }
}

fn class_counts(splits: &Splits, classes: usize) -> Vec<u64> {
    let mut counts = vec![0; classes];
    if let Targets::Class(targets) = &splits.samples(&splits.train).targets {
        for row in splits.train.rows.iter() {
            counts[targets[row as usize] as usize] += 1;
        }
    }
    counts
}

fn announce(session: &Session<'_>, plan: &Plan, monitor: &mut dyn Monitor) {
    let rows = |part: &Option<Part>| part.as_ref().map_or(0, |p| p.rows.len());
    let splits = session.splits;
    let message = format!(
        "{} training, {} validation and {} test samples; {} layers with {} parameters",
        splits.train.rows.len(),
        rows(&splits.validation),
        rows(&splits.test),
        plan.layers.len(),
        plan.parameters(),
    );
    monitor.log(LogLevel::Info, message);
    if session.state.step > 0 {
        let (epoch, step) = (session.state.epoch + 1, session.state.step);
        let message = format!("resumed in epoch {epoch} after step {step}");
        monitor.log(LogLevel::Info, message);
    }
}

type Evaluation = (BTreeMap<String, f64>, BTreeMap<String, Value>);

/// Collects the final metrics: of training, validation and test data.
fn evaluate(
    session: &mut Session<'_>,
    task: &TrainTask<'_>,
    monitor: &mut dyn Monitor,
) -> Result<Evaluation, EngineError> {
    let mut values = session.final_epoch();
    values.remove("learning_rate");
    let schema = learnt(task);
    let classes = schema.classes().unwrap_or_default();
    let splits = session.splits;
    let last = splits.test.as_ref().or(splits.validation.as_ref());
    let Some(part) = last else {
        return Ok((values, BTreeMap::new()));
    };
    let tally = session.evaluate(part, true, monitor)?;
    if splits.test.is_some() {
        let test = session.measures.values(&tally, "test_");
        let shown: Vec<_> = test.iter().map(|(k, v)| format!("{k} {v:.4}")).collect();
        monitor.log(LogLevel::Info, shown.join(", "));
        values.extend(test);
    }
    Ok((values, session.measures.reports(&tally, classes)))
}
