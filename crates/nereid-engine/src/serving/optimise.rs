//! Makes a published version fit for serving, keeping only what leaves outputs as they were and
//! costs no time on this machine.

use std::path::Path;

use nereid_core::{
    engine::{EngineError, Goal, Monitor, Optimizer},
    events::LogLevel,
    jobs::{Directive, JobPhase},
    models::{Latency, OptimisationReport, OptimisationStep, Runtime, RuntimeReport},
    spec::{Tolerance, WeightFormat},
};

use super::{
    Settings,
    fold::{Rewrite, fold_batch_normalization, remove_dropout},
    judge::{Judge, Verdict},
    latency,
    machine::machine,
    probe, weights,
};
use crate::{
    artifact::{Artifact, Evaluation},
    guard,
    model::Model,
};

/// By how much a runtime must be faster than another one to be taken in its place.
const GAIN: f64 = 0.95;

/// The [`Optimizer`] of this engine.
#[derive(Default)]
pub(crate) struct ModelOptimizer {
    pub(crate) settings: Settings,
}

impl Optimizer for ModelOptimizer {
    fn optimise(
        &self,
        model: &Path,
        output: &Path,
        goal: Goal,
        monitor: &mut dyn Monitor,
    ) -> Result<(OptimisationReport, Vec<String>), EngineError> {
        guard::panics("optimising", || {
            let mut work = Work::start(model, output, goal, &self.settings, monitor)?;
            work.rewrite(monitor)?;
            let runtime = work.choose(monitor)?;
            work.finish(runtime)
        })
    }
}

/// An optimisation under way.
struct Work<'a> {
    original: Artifact,
    original_model: Model,
    judge: Judge,
    calibration: Vec<f32>,
    /// The best so far, and how it was judged.
    artifact: Artifact,
    model: Model,
    verdict: Verdict,
    /// The runtime that was chosen, unless the framework is.
    elsewhere: Option<Model>,
    steps: Vec<OptimisationStep>,
    runtimes: Vec<RuntimeReport>,
    goal: Goal,
    output: &'a Path,
    settings: &'a Settings,
}

impl<'a> Work<'a> {
    fn start(
        folder: &Path,
        output: &'a Path,
        goal: Goal,
        settings: &'a Settings,
        monitor: &mut dyn Monitor,
    ) -> Result<Self, EngineError> {
        monitor.phase(JobPhase::Optimising);
        let original = Artifact::read(folder)?;
        let original_model = Model::new(&original)?;
        let parity = original_model.compare(&original.golden)?;
        if !parity.within(goal.tolerance) {
            return Err(EngineError::Parity(format!(
                "even the unchanged model differs: agreement {}, largest difference {:e}",
                parity.agreement, parity.max_difference
            )));
        }
        let evaluation = Evaluation::read(folder, &original.document.plan()?)?;
        let calibration = evaluation.as_ref().map(|e| e.calibration.clone());
        let judge = Judge::new(&original, evaluation, &original_model)?;
        Ok(Self {
            verdict: judge.examine(&original_model)?,
            calibration: calibration
                .filter(|c| !c.is_empty())
                .unwrap_or_else(|| original.golden.inputs.clone()),
            judge,
            artifact: original.clone(),
            model: Model::new(&original)?,
            original,
            original_model,
            elsewhere: None,
            steps: Vec::new(),
            runtimes: Vec::new(),
            goal,
            output,
            settings,
        })
    }

    /// Tries all rewrites, each on what the ones before left.
    fn rewrite(&mut self, monitor: &mut dyn Monitor) -> Result<(), EngineError> {
        // What leaves weights as they are is held to the narrow tolerance.
        let exact = Tolerance {
            max_difference: self.goal.tolerance.max_difference.min(1e-3),
            ..self.goal.tolerance
        };
        let done = remove_dropout(&self.artifact)?;
        self.attempt("remove_dropout", done, exact, monitor)?;
        let done = fold_batch_normalization(&self.artifact)?;
        self.attempt("fold_batch_normalization", done, exact, monitor)?;
        let (name, done) = match self.goal.weights {
            WeightFormat::Float32 => return Ok(()),
            WeightFormat::Float16 => ("float16_weights", weights::halves(&self.artifact)),
            WeightFormat::Int8 => {
                let done = weights::integers(&self.artifact, &self.calibration)?;
                ("int8_weights", done)
            }
        };
        if self.attempt(name, done, self.goal.tolerance, monitor)? {
            // From here on loads must give what these weights do, which was judged good enough.
            let golden = &mut self.artifact.golden;
            golden.outputs = self.model.run(golden.inputs.clone(), golden.rows)?;
        }
        Ok(())
    }

    /// Keeps a rewrite if outputs stay within the tolerance and it is not slower.
    fn attempt(
        &mut self,
        name: &str,
        rewrite: Rewrite,
        tolerance: Tolerance,
        monitor: &mut dyn Monitor,
    ) -> Result<bool, EngineError> {
        obey(monitor)?;
        let Rewrite { artifact, detail } = rewrite;
        let (kept, detail) = match artifact {
            None => (false, detail),
            Some(artifact) => match self.objection(&artifact, tolerance)? {
                Err(objection) => (false, format!("refused: {objection} ({detail})")),
                Ok((model, verdict)) => {
                    self.artifact = artifact;
                    self.model = model;
                    self.verdict = verdict;
                    (true, detail)
                }
            },
        };
        let verb = if kept { "kept" } else { "not applied" };
        monitor.log(LogLevel::Info, format!("{name} {verb}: {detail}"));
        self.steps.push(OptimisationStep {
            name: name.to_owned(),
            kept,
            detail,
        });
        Ok(kept)
    }

    fn objection(
        &self,
        artifact: &Artifact,
        tolerance: Tolerance,
    ) -> Result<Result<(Model, Verdict), String>, EngineError> {
        let model = Model::new(artifact)?;
        let verdict = self.judge.examine(&model)?;
        if let Some(objection) = verdict.objection(tolerance) {
            return Ok(Err(objection));
        }
        let (inputs, rows) = (&self.judge.inputs, self.judge.rows);
        Ok(match latency::slower(&self.model, &model, inputs, rows)? {
            Some(ratio) => Err(format!("it takes {ratio:.2} times as long here")),
            None => Ok((model, verdict)),
        })
    }

    /// Measures each runtime that gives the right outputs, and takes the fastest.
    fn choose(&mut self, monitor: &mut dyn Monitor) -> Result<Runtime, EngineError> {
        let mut candidates = Vec::new();
        for runtime in Runtime::ALL {
            obey(monitor)?;
            if runtime == Runtime::Burn {
                continue;
            }
            let refused = match self.goal.runtime {
                Some(wanted) if wanted != runtime => {
                    Some(format!("{} was asked for", wanted.as_str()))
                }
                _ => match self.candidate(runtime)? {
                    Ok(model) => {
                        candidates.push((runtime, model));
                        None
                    }
                    Err(why) => Some(why),
                },
            };
            if let Some(why) = refused {
                monitor.log(
                    LogLevel::Info,
                    format!("{} refused: {why}", runtime.as_str()),
                );
                self.runtimes.push(RuntimeReport {
                    runtime,
                    latency: Vec::new(),
                    refused: Some(why),
                });
            }
        }
        if let Some(wanted) = self.goal.runtime
            && wanted != Runtime::Burn
            && candidates.is_empty()
        {
            let refused = self.runtimes.iter().find(|r| r.runtime == wanted);
            let why = refused.and_then(|r| r.refused.clone()).unwrap_or_default();
            let name = wanted.as_str();
            return Err(EngineError::InvalidInput(format!(
                "{name} cannot serve the model: {why}"
            )));
        }
        self.fastest(candidates, monitor)
    }

    /// Prepares a runtime, or says why it is none for this model.
    fn candidate(&self, runtime: Runtime) -> Result<Result<Model, String>, EngineError> {
        if self.settings.probe.is_some() {
            // The process reads what would be published.
            self.artifact.write(self.output)?;
            let tried = probe::check(self.output, runtime, self.settings);
            probe::forget(self.output);
            if let Err(e) = tried {
                return Ok(Err(e.to_string()));
            }
        }
        let tried = guard::panics("trying a runtime", || {
            let model = Model::on(&self.artifact, runtime, self.settings)?;
            let verdict = self.judge.examine(&model)?;
            let parity = model.compare(&self.artifact.golden)?;
            Ok((model, verdict, parity))
        });
        Ok(match tried {
            Ok((model, verdict, parity)) => match verdict.objection(self.goal.tolerance) {
                Some(objection) => Err(objection),
                // It must compute these very weights, however far they are from the original's.
                None if !parity.within(Tolerance::default()) => Err(format!(
                    "its outputs differ from the framework's: agreement {}, largest difference {:e}",
                    parity.agreement, parity.max_difference
                )),
                None => Ok(model),
            },
            Err(e) => Err(e.to_string()),
        })
    }

    fn fastest(
        &mut self,
        candidates: Vec<(Runtime, Model)>,
        monitor: &mut dyn Monitor,
    ) -> Result<Runtime, EngineError> {
        let (inputs, rows) = (&self.judge.inputs, self.judge.rows);
        let mut models = vec![&self.model];
        models.extend(candidates.iter().map(|(_, model)| model));
        let found = latency::measure(&models, inputs, rows)?;
        let mut best = (Runtime::Burn, 0);
        for (i, (runtime, _)) in candidates.iter().enumerate() {
            let ratio = latency::ratio(&found[best.1], &found[i + 1]);
            if ratio < GAIN || self.goal.runtime == Some(*runtime) {
                best = (*runtime, i + 1);
            }
        }
        let names = std::iter::once(Runtime::Burn).chain(candidates.iter().map(|(r, _)| *r));
        for (runtime, latency) in names.zip(found) {
            monitor.log(LogLevel::Info, describe(runtime, &latency));
            self.runtimes.push(RuntimeReport {
                runtime,
                latency,
                refused: None,
            });
        }
        self.runtimes.sort_by_key(|r| r.runtime != best.0);
        self.elsewhere = candidates
            .into_iter()
            .find(|(runtime, _)| *runtime == best.0)
            .map(|(_, model)| model);
        let message = format!("{} serves the model", best.0.as_str());
        monitor.log(LogLevel::Info, message);
        Ok(best.0)
    }

    fn finish(
        mut self,
        runtime: Runtime,
    ) -> Result<(OptimisationReport, Vec<String>), EngineError> {
        let model = self.elsewhere.as_ref().unwrap_or(&self.model);
        let verdict = self.judge.examine(model)?;
        let parity = model.compare(&self.artifact.golden)?;
        let (inputs, rows) = (&self.judge.inputs, self.judge.rows);
        let both = latency::measure(&[&self.original_model, model], inputs, rows)?;
        let [before, after] = both.try_into().unwrap_or_default();
        let document = &mut self.artifact.document;
        document.runtime = runtime;
        // Loads compare with golden outputs, from which rewrites may have strayed so far.
        let loads = &mut document.tolerance;
        loads.max_difference = loads.max_difference.max(parity.max_difference * 2.0);
        loads.agreement = loads.agreement.min(self.goal.tolerance.agreement);
        let files = self.artifact.write(self.output)?;
        let smaller = ["float16_weights", "int8_weights"];
        let packed = self
            .steps
            .iter()
            .any(|s| s.kept && smaller.contains(&&*s.name));
        let report = OptimisationReport {
            steps: self.steps,
            before,
            after,
            bytes_before: self.original.weight_bytes(),
            bytes_after: self.artifact.weight_bytes(),
            samples: u32::try_from(rows).unwrap_or(u32::MAX),
            agreement: verdict.parity.agreement,
            max_difference: verdict.parity.max_difference,
            metric: verdict.metric,
            weights: if packed {
                self.goal.weights
            } else {
                WeightFormat::Float32
            },
            requested_weights: self.goal.weights,
            runtime,
            requested_runtime: self.goal.runtime,
            runtimes: self.runtimes,
            machine: Some(machine()),
        };
        Ok((report, files))
    }
}

fn describe(runtime: Runtime, latency: &[Latency]) -> String {
    let times: Vec<_> = latency
        .iter()
        .map(|l| format!("{:.1} µs at batch {}", l.p50_us, l.batch))
        .collect();
    format!("{}: {}", runtime.as_str(), times.join(", "))
}

fn obey(monitor: &mut dyn Monitor) -> Result<(), EngineError> {
    match monitor.directive() {
        Directive::Continue | Directive::Finish => Ok(()),
        Directive::Suspend | Directive::Stop => Err(EngineError::Stopped),
    }
}
