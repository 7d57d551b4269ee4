//! A training that goes on from a snapshot ends with the very same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use nereid_core::{
    engine::{DataInput, EngineError, Snapshot},
    events::MetricPoint,
    jobs::Directive,
    models::TrainedModel,
    spec::TrainSpec,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Numbers, Recorder, csv, input, spec, train, tune};

/// Batches of an epoch: 120 rows of 16.
const BATCHES: u64 = 8;

pub fn pictures() -> DataInput {
    let mut numbers = Numbers(3);
    let header: Vec<_> = (0..36).map(|i| format!("p{i}")).collect();
    let mut text = header.join(",") + ",label\n";
    for row in 0..150 {
        for p in 0..36 {
            let bright = if p % 3 == row % 3 { 2.0 } else { 0.0 };
            text += &format!("{:.3},", bright + numbers.next());
        }
        text += &format!("{}\n", row % 3);
    }
    let source = json!({"format": "csv", "label_column": "label", "shape": [6, 6, 1]});
    input(source, csv(text))
}

pub fn description() -> Value {
    json!({
        "network": {"layers": [
            {"type": "Conv2D", "filters": 4, "kernel_size": 3, "padding": "same", "strides": 2},
            {"type": "BatchNormalization"},
            {"type": "Activation", "activation": "relu"},
            {"type": "Dropout", "rate": 0.3},
            {"type": "Flatten"},
            {"type": "LayerNormalization"},
            {"type": "Dense", "units": 3, "activation": "softmax"}
        ]},
        "loss": {"type": "categorical_crossentropy", "label_smoothing": 0.1},
        "optimizer": {"type": "adamw", "learning_rate": 0.01},
        "metrics": ["accuracy", "f1", {"type": "top_k_accuracy", "k": 2}],
        "fit": {"epochs": 8, "batch_size": 16, "validation_split": 0.2, "seed": 11,
                "class_weight": "balanced",
                "augmentation": [{"type": "RandomTranslation", "height_factor": 0.1, "width_factor": 0.1},
                                 {"type": "RandomErasing", "factor": 0.3}, {"type": "MixUp"}]},
        "callbacks": [
            {"type": "early_stopping", "patience": 4, "restore_best_weights": true},
            {"type": "reduce_lr_on_plateau", "patience": 1, "min_delta": 0.3,
             "cooldown": 2},
            {"type": "checkpoint", "every_steps": 3}
        ]
    })
}

/// A metric point without what depends on the time.
type Timeless = (u64, u64, BTreeMap<String, u64>);

fn timeless(points: &[MetricPoint]) -> Vec<Timeless> {
    let bits = |p: &MetricPoint| {
        let timed = [
            "samples_per_second",
            "data_wait",
            "memory_bytes",
            "memory_peak_bytes",
        ];
        let values = p
            .values
            .iter()
            .filter(|(k, _)| !timed.contains(&k.as_str()));
        let values = values.map(|(k, v)| (k.clone(), v.to_bits())).collect();
        (p.step, p.epoch.to_bits(), values)
    };
    points.iter().map(bits).collect()
}

/// One training, perhaps in several attempts, and what it left.
struct Job<'a> {
    spec: &'a TrainSpec,
    data: &'a DataInput,
    output: TempDir,
    /// Kept, since their folders hold the snapshots.
    attempts: Vec<Recorder>,
    newest: Option<Snapshot>,
    points: Vec<Timeless>,
    /// Files of the version to start from, and those that are enough to go on.
    base: Option<[&'a Path; 2]>,
}

impl<'a> Job<'a> {
    fn new(spec: &'a TrainSpec, data: &'a DataInput) -> Self {
        Self {
            spec,
            data,
            output: tempfile::tempdir().unwrap(),
            attempts: Vec::new(),
            newest: None,
            points: Vec::new(),
            base: None,
        }
    }

    /// Makes an attempt from the newest snapshot on.
    fn attempt(&mut self, mut recorder: Recorder) -> Result<TrainedModel, EngineError> {
        let resume = self.newest.as_ref().map(|s| s.path.as_path());
        let base = self.base.map(|b| b[usize::from(resume.is_some())]);
        let result = tune(
            self.spec,
            self.data,
            base,
            resume,
            self.output.path(),
            &mut recorder,
        );
        let listed = fs::read_dir(recorder.scratch.0.path()).unwrap();
        let found: BTreeSet<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        let given = recorder.snapshots.iter().map(|s| s.path.clone()).collect();
        assert_eq!(found, given, "no file is left to nobody");
        if let Some(last) = recorder.snapshots.last() {
            self.newest = Some(last.clone());
        }
        self.points.extend(timeless(&recorder.points));
        if result.is_err() {
            // As the store keeps them: what follows the snapshot is overwritten.
            let kept = self.newest.as_ref().map_or(0, |s| s.step);
            self.points.retain(|(step, ..)| *step <= kept);
        }
        self.attempts.push(recorder);
        result
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.output.path().join(name)).unwrap()
    }

    #[track_caller]
    fn assert_same_as(&self, other: &Job<'_>) {
        assert_eq!(self.points, other.points);
        for name in [
            "weights.safetensors",
            "golden.safetensors",
            "history.json",
            "model.json",
        ] {
            assert!(self.file(name) == other.file(name), "{name} differs");
        }
    }
}

/// Gives `directive` the `n`-th time and ever after.
fn from(n: usize, directive: Directive) -> Recorder {
    let go_on = Directive::Continue;
    Recorder::directed(move |asked| if asked < n { go_on } else { directive })
}

#[test]
fn wherever_a_training_is_cut_it_ends_with_the_same_bytes_and_points() {
    assert_cuts_do_not_show(&spec(description()), &pictures(), 1);
}

/// Changes parts of the description: what each of them saves must come back.
fn changed(changes: Value) -> TrainSpec {
    let mut description = description();
    for (key, value) in changes.as_object().unwrap() {
        if key == "fit" {
            let fit = description["fit"].as_object_mut().unwrap();
            fit.extend(value.as_object().unwrap().clone());
        } else {
            description[key] = value.clone();
        }
    }
    spec(description)
}

#[test]
fn schedules_accumulated_gradients_and_averaged_weights_go_on_as_they_were() {
    let callbacks = json!([
        {"type": "early_stopping", "patience": 3, "restore_best_weights": true},
        {"type": "checkpoint", "every_steps": 2}
    ]);
    let cycled = changed(json!({
        "optimizer": {"type": "sgd", "momentum": 0.9, "weight_decay": 0.01,
                      "learning_rate": {"type": "one_cycle", "max_lr": 0.3}},
        "fit": {"gradient_accumulation_steps": 3, "global_clipnorm": 1.0, "use_ema": true,
                "ema_momentum": 0.8, "ema_overwrite_frequency": 5},
        "callbacks": callbacks,
    }));
    let warmed = changed(json!({
        "optimizer": {"type": "nadam", "learning_rate": {
            "type": "cosine_decay", "initial_learning_rate": 0.02, "warmup_epochs": 1.5}},
        "fit": {"use_ema": true},
        "callbacks": [{"type": "checkpoint", "every_steps": 2}],
    }));
    for spec in [cycled, warmed] {
        assert_cuts_do_not_show(&spec, &pictures(), 5);
    }
}

#[test]
fn the_scale_of_losses_in_half_precision_goes_on_as_it_was() {
    let halved = changed(json!({
        "fit": {"dtype_policy": "mixed_float16", "gradient_accumulation_steps": 2,
                "loss_scale": {"initial_scale": 1 << 22, "dynamic_growth_steps": 3}},
    }));
    let data = pictures();
    assert_cuts_do_not_show(&halved, &data, 9);
    let mut whole = Job::new(&halved, &data);
    whole.attempt(from(usize::MAX, Directive::Stop)).unwrap();
    let points = whole.attempts[0].points.iter();
    let scales: Vec<f64> = points.map(|p| p.values["loss_scale"]).collect();
    let changes = scales.windows(2);
    assert!(changes.clone().any(|s| s[1] < s[0]) && changes.clone().any(|s| s[1] > s[0]));
}

/// Cuts a training at each `stride`-th question, twice, and compares with one that was not cut.
fn assert_cuts_do_not_show(spec: &TrainSpec, data: &DataInput, stride: usize) {
    let mut whole = Job::new(spec, data);
    let expected = whole.attempt(from(usize::MAX, Directive::Stop)).unwrap();
    let asked = whole.attempts[0].asked;
    let mut steps: Vec<u64> = whole.points.iter().map(|p| p.0).collect();
    assert!(steps.is_sorted());
    steps.dedup();
    assert_eq!(steps.len(), whole.points.len(), "each step once");

    let rates: BTreeSet<_> = whole
        .points
        .iter()
        .filter_map(|p| p.2.get("learning_rate"))
        .collect();
    assert!(rates.len() > 1, "callbacks have a state worth saving");

    let mut numbers = Numbers(20);
    let mut kinds = BTreeSet::new();
    // Stopped without a last snapshot it is as if killed: what is there was taken beside it.
    for how in [Directive::Suspend, Directive::Stop] {
        for first in (0..asked).step_by(stride) {
            let second = numbers.below(asked);
            let mut job = Job::new(spec, data);
            let mut result = Err(EngineError::Stopped);
            for cut in [first, second, usize::MAX] {
                result = job.attempt(from(cut, how));
                if result.is_ok() {
                    break;
                }
                assert!(matches!(result, Err(EngineError::Stopped)), "{result:?}");
                if how == Directive::Suspend {
                    kinds.extend(kind(&job));
                }
            }
            println!("{how:?} at question {first}, then {second}");
            assert_eq!(result.unwrap().metrics, expected.metrics);
            job.assert_same_as(&whole);
        }
    }
    let met = stride > 1 || kinds.len() == 3;
    assert!(met, "all kinds of places were met: {kinds:?}");
}

/// Cuts a training at some places, with and without a last snapshot, and compares its end.
#[track_caller]
pub fn assert_resumes_exactly(spec: &TrainSpec, data: &DataInput) -> Vec<String> {
    assert_tuning_resumes_exactly(spec, data, None)
}

/// The same of a training that starts from a version: its files, and those that are enough to go on.
#[track_caller]
pub fn assert_tuning_resumes_exactly(
    spec: &TrainSpec,
    data: &DataInput,
    base: Option<[&Path; 2]>,
) -> Vec<String> {
    let new = || Job {
        base,
        ..Job::new(spec, data)
    };
    let mut whole = new();
    whole.attempt(from(usize::MAX, Directive::Stop)).unwrap();
    let asked = whole.attempts[0].asked;
    for (i, cut) in (0..asked).step_by((asked / 9).max(1)).enumerate() {
        let how = [Directive::Suspend, Directive::Stop][i % 2];
        let mut job = new();
        let mut result = job.attempt(from(cut, how));
        if result.is_err() {
            result = job.attempt(from(usize::MAX, how));
        }
        result.unwrap();
        job.assert_same_as(&whole);
    }
    whole.attempts.swap_remove(0).lines
}

/// Tells where within its epoch a training was suspended.
fn kind(job: &Job<'_>) -> Option<&'static str> {
    let attempt = job.attempts.last().unwrap();
    let step = attempt.snapshots.last()?.step;
    assert!(attempt.points.iter().all(|p| p.step <= step));
    let reported = attempt.points.iter().any(|p| p.step == step);
    Some(match (step % BATCHES, reported) {
        (0, false) => "before a validation",
        (0, true) => "after a validation",
        _ => "within an epoch",
    })
}

/// Resumes from `state` and stops at the first question after it was restored.
fn restored(spec: &TrainSpec, data: &DataInput, state: &[u8]) -> Result<(), EngineError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state");
    fs::write(&file, state).unwrap();
    let mut recorder = from(3, Directive::Stop);
    match train(spec, data, Some(&file), folder.path(), &mut recorder) {
        Err(EngineError::Stopped) => {
            assert!(recorder.lines.iter().any(|l| l.contains("resumed")));
            Ok(())
        }
        Err(e) => Err(e),
        Ok(_) => panic!("it was stopped"),
    }
}

#[test]
fn a_state_that_cannot_be_restored_says_so_and_nothing_else() {
    let data = pictures();
    let right = spec(description());
    let mut job = Job::new(&right, &data);
    // Within the third epoch, so that there are best weights and a history.
    assert!(job.attempt(from(27, Directive::Suspend)).is_err());
    let state = fs::read(&job.newest.as_ref().unwrap().path).unwrap();
    restored(&right, &data, &state).unwrap();
    let refused = |result: Result<(), EngineError>, what: &str| match result {
        Err(EngineError::BadState(_)) => {}
        other => panic!("{what}: {other:?}"),
    };

    let mut other = description();
    other["fit"]["seed"] = json!(12);
    refused(restored(&spec(other), &data, &state), "another spec");
    let mut changed = data.clone();
    let text = String::from_utf8(read(&data)).unwrap();
    changed.files = std::sync::Arc::new(csv(text.replacen("0.", "1.", 1)));
    refused(restored(&right, &changed, &state), "other data");
    let nowhere = job.output.path().join("nowhere");
    let lost = train(
        &right,
        &data,
        Some(&nowhere),
        job.output.path(),
        &mut Recorder::default(),
    );
    refused(lost.map(drop), "no file");

    let mut numbers = Numbers(8);
    let header = 8 + usize::from(state[0]) + 256 * usize::from(state[1]);
    for _ in 0..40 {
        let cut = numbers.below(state.len());
        refused(restored(&right, &data, &state[..cut]), "truncated");
        // Numbers and names of the header may turn into others that are as good as they were.
        for (start, end, must) in [(0, 8, true), (8, header, false)] {
            let mut damaged = state.clone();
            let at = start + numbers.below(end - start);
            damaged[at] ^= 1 << numbers.below(8);
            let result = restored(&right, &data, &damaged);
            if must || result.is_err() {
                refused(result, &format!("byte {at} flipped"));
            }
        }
    }
}

fn read(data: &DataInput) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = data
        .files
        .open(nereid_core::datasets::FileRole::Data)
        .unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes
}
