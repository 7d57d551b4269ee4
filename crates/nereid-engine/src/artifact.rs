//! A model's files: what is written after training, read for serving and checked on the way.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use nereid_core::{
    engine::EngineError,
    models::{Runtime, Signature},
    spec::{
        Network as NetworkSpec, Tolerance,
        network::{Plan, simplify},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    model::Model, network::Network, outputs::Head, preprocessing, tensors_file::TensorsFile,
};

const DOCUMENT: &str = "model.json";
const WEIGHTS: &str = "weights.safetensors";
const GOLDEN: &str = "golden.safetensors";
const EVALUATION: &str = "evaluation.safetensors";
const HISTORY: &str = "history.json";

const FORMAT: u32 = 1;
/// Largest `model.json` in bytes; class and column names make up most of it.
const MAX_DOCUMENT_BYTES: u64 = 256 << 20;
/// Largest `golden.safetensors` in bytes.
const MAX_GOLDEN_BYTES: u64 = 64 << 20;
/// Largest `evaluation.safetensors` in bytes.
const MAX_EVALUATION_BYTES: u64 = 256 << 20;
/// Room for names and shapes in a weights file, beside four bytes a parameter.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// How far a load may stray from the reference: rounding on another machine, no more.
const LOAD_TOLERANCE: Tolerance = Tolerance {
    agreement: 0.98,
    max_difference: 1e-4,
    metric_loss: 0.1,
};

/// `model.json`: all that is needed to build the network and read its outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    format: u32,
    framework: String,
    /// With input shape and layer names filled in.
    pub(crate) network: NetworkSpec,
    pub(crate) head: Head,
    pub(crate) signature: Signature,
    /// How far outputs may stray from the golden ones at load.
    pub(crate) tolerance: Tolerance,
    /// What computes it fastest; where that is not to be had, the framework does.
    #[serde(default, skip_serializing_if = "is_framework")]
    pub(crate) runtime: Runtime,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_framework(runtime: &Runtime) -> bool {
    *runtime == Runtime::Burn
}

/// Raw samples with the outputs that the trained network gave for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Golden {
    pub(crate) rows: usize,
    pub(crate) inputs: Vec<f32>,
    pub(crate) outputs: Vec<f32>,
}

/// Raw samples to judge and to calibrate optimised models by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Evaluation {
    pub(crate) rows: usize,
    pub(crate) inputs: Vec<f32>,
    /// What is to be predicted: classes by number, labels or numbers; none of samples that are to
    /// find themselves.
    pub(crate) targets: Option<Vec<f32>>,
    /// Training samples.
    pub(crate) calibration: Vec<f32>,
}

/// A model as its files hold it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Artifact {
    pub(crate) document: Document,
    /// Weights by name, in Keras' order.
    pub(crate) weights: TensorsFile,
    pub(crate) golden: Golden,
}

impl Artifact {
    /// Describes a trained network; golden samples follow.
    pub(crate) fn new(
        plan: &Plan,
        signature: Signature,
        head: Head,
        network: &Network,
    ) -> Result<Self, EngineError> {
        let mut layers = plan.specs();
        simplify(&mut layers);
        let document = Document {
            format: FORMAT,
            framework: crate::framework_version().to_owned(),
            network: NetworkSpec {
                input_shape: Some(plan.input.clone()),
                defaults: plan.defaults,
                preset: None,
                layers,
            },
            head,
            signature,
            tolerance: LOAD_TOLERANCE,
            runtime: Runtime::Burn,
        };
        let mut weights = TensorsFile::default();
        for p in &network.parameters {
            weights.push(&p.name, p.shape.clone(), p.to_keras()?);
        }
        Ok(Self {
            document,
            weights,
            golden: Golden::default(),
        })
    }

    /// Reads a folder's files.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if a file is not what it should be.
    pub(crate) fn read(folder: &Path) -> Result<Self, EngineError> {
        let document = Document::read(folder)?;
        let plan = document.plan()?;
        let weights = read_weights(folder, &plan)?;
        let golden = TensorsFile::from_bytes(&read_file(folder, GOLDEN, MAX_GOLDEN_BYTES)?)?;
        let golden = Golden::from_file(golden, &document, &plan)?;
        Ok(Self {
            document,
            weights,
            golden,
        })
    }

    /// Writes all files into a folder and returns their names.
    pub(crate) fn write(&self, folder: &Path) -> Result<Vec<String>, EngineError> {
        write_json(folder, DOCUMENT, &self.document)?;
        write_file(folder, WEIGHTS, &self.weights.to_bytes()?)?;
        let golden = self.golden.to_file(&self.document)?;
        write_file(folder, GOLDEN, &golden.to_bytes()?)?;
        Ok([DOCUMENT, WEIGHTS, GOLDEN].map(str::to_owned).to_vec())
    }

    /// Size of the weights in bytes, without names.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }
}

impl Document {
    /// Reads a folder's description of its model.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if it is not what it should be.
    pub(crate) fn read(folder: &Path) -> Result<Self, EngineError> {
        let bytes = read_file(folder, DOCUMENT, MAX_DOCUMENT_BYTES)?;
        let document: Self = serde_json::from_slice(&bytes)
            .map_err(|e| EngineError::InvalidInput(format!("{DOCUMENT}: {e}")))?;
        if document.format != FORMAT {
            let detail = format!("{DOCUMENT} has format {}, not {FORMAT}", document.format);
            return Err(EngineError::InvalidInput(detail));
        }
        Ok(document)
    }

    /// Resolves the network's shapes.
    pub(crate) fn plan(&self) -> Result<Plan, EngineError> {
        let invalid = |detail: String| EngineError::InvalidInput(format!("{DOCUMENT}: {detail}"));
        let input = self.network.input_shape.clone().unwrap_or_default();
        let plan = self.network.plan(&input, "/network").map_err(|v| {
            let first = v.into_vec().into_iter().next();
            invalid(first.map_or(String::new(), |v| format!("{}: {}", v.pointer, v.detail)))
        })?;
        if input.is_empty() || self.signature.sample_shape() != input {
            return Err(invalid("input shape and signature differ".to_owned()));
        }
        let width: usize = plan.output().iter().product();
        let fits = self.head.accepts(plan.output(), &plan.input)
            && self
                .signature
                .classes
                .as_ref()
                .is_none_or(|c| c.len() == self.head.width(width));
        if !fits {
            return Err(invalid(
                "the network's output does not fit head and classes".to_owned(),
            ));
        }
        preprocessing::check(&self.signature.preprocessing, &input)?;
        Ok(plan)
    }
}

impl Golden {
    fn to_file(&self, document: &Document) -> Result<TensorsFile, EngineError> {
        let mut file = TensorsFile::default();
        let shape: Vec<usize> = std::iter::once(self.rows)
            .chain(document.signature.sample_shape())
            .collect();
        if self.rows == 0 {
            let detail = "no golden samples were recorded".to_owned();
            return Err(EngineError::Internal(detail));
        }
        let width = self.outputs.len() / self.rows;
        file.push("input", shape, self.inputs.clone());
        let outputs = self.outputs.clone();
        file.push(document.head.primary(), vec![self.rows, width], outputs);
        Ok(file)
    }

    fn from_file(
        mut file: TensorsFile,
        document: &Document,
        plan: &Plan,
    ) -> Result<Self, EngineError> {
        let rows = file.tensors.get("input").and_then(|(s, _)| s.first());
        let rows = rows.copied().filter(|&n| n > 0).ok_or_else(|| {
            EngineError::InvalidInput(format!("{GOLDEN}: tensor \"input\" is missing or empty"))
        })?;
        let shape: Vec<usize> = std::iter::once(rows).chain(plan.input.clone()).collect();
        let width = document.head.width(plan.output().iter().product());
        let golden = Self {
            rows,
            inputs: file.take("input", &shape)?,
            outputs: file.take(document.head.primary(), &[rows, width])?,
        };
        file.expect_empty()?;
        Ok(golden)
    }
}

impl Evaluation {
    /// Reads a version's samples; versions of old have none.
    ///
    /// # Errors
    /// [`EngineError::InvalidInput`] if the file is not what it should be.
    pub(crate) fn read(folder: &Path, plan: &Plan) -> Result<Option<Self>, EngineError> {
        if !folder.join(EVALUATION).is_file() {
            return Ok(None);
        }
        let bytes = read_file(folder, EVALUATION, MAX_EVALUATION_BYTES)?;
        let mut file = TensorsFile::from_bytes(&bytes)?;
        let size: usize = plan.input.iter().product();
        let mut take = |name: &str| file.tensors.remove(name).unwrap_or_default();
        let (shape, inputs) = take("input");
        let (_, calibration) = take("calibration");
        let (_, targets) = take("target");
        let rows = shape.first().copied().unwrap_or(0);
        let fits = rows > 0
            && inputs.len() == rows * size
            && calibration.len().is_multiple_of(size)
            && targets.len().is_multiple_of(rows)
            && inputs.iter().chain(&calibration).all(|v| v.is_finite());
        if !fits {
            let detail = format!("{EVALUATION} does not hold samples of the model");
            return Err(EngineError::InvalidInput(detail));
        }
        Ok(Some(Self {
            rows,
            inputs,
            targets: (!targets.is_empty()).then_some(targets),
            calibration,
        }))
    }

    fn write(&self, folder: &Path, plan: &Plan) -> Result<(), EngineError> {
        let mut file = TensorsFile::default();
        let size = plan.input.iter().product::<usize>().max(1);
        let shape = |values: &[f32]| [&[values.len() / size], plan.input.as_slice()].concat();
        file.push("input", shape(&self.inputs), self.inputs.clone());
        file.push(
            "calibration",
            shape(&self.calibration),
            self.calibration.clone(),
        );
        if let Some(targets) = &self.targets {
            let width = targets.len() / self.rows.max(1);
            file.push("target", vec![self.rows, width], targets.clone());
        }
        write_file(folder, EVALUATION, &file.to_bytes()?)
    }
}

/// Reads the weights of a folder's model.
///
/// # Errors
/// [`EngineError::InvalidInput`] if the file is larger than they are, or no such file.
pub(crate) fn read_weights(folder: &Path, plan: &Plan) -> Result<TensorsFile, EngineError> {
    let max = plan.parameters().saturating_mul(4) + MAX_HEADER_BYTES;
    TensorsFile::from_bytes(&read_file(folder, WEIGHTS, max)?)
}

/// Records golden outputs and writes the files of a trained model.
///
/// The outputs come from the model built anew out of what is written, so that writing and
/// reading are part of what they prove.
pub(crate) fn write_trained(
    folder: &Path,
    mut artifact: Artifact,
    (rows, inputs): (usize, Vec<f32>),
    evaluation: &Evaluation,
    history: &[BTreeMap<String, f64>],
) -> Result<Vec<String>, EngineError> {
    let model = Model::new(&artifact)?;
    artifact.golden = Golden {
        rows,
        outputs: model.run(inputs.clone(), rows)?,
        inputs,
    };
    let mut files = artifact.write(folder)?;
    evaluation.write(folder, &artifact.document.plan()?)?;
    files.push(EVALUATION.to_owned());
    write_json(folder, HISTORY, &serde_json::json!({ "epochs": history }))?;
    files.push(HISTORY.to_owned());
    Ok(files)
}

fn read_file(folder: &Path, name: &str, max: u64) -> Result<Vec<u8>, EngineError> {
    let failed = |source| EngineError::Io {
        context: format!("reading {name}"),
        source,
    };
    let file = match File::open(folder.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(EngineError::InvalidInput(format!("{name} is missing")));
        }
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        let detail = format!("{name} is larger than the {max} bytes it may have");
        return Err(EngineError::InvalidInput(detail));
    }
    Ok(bytes)
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
    fs::write(folder.join(name), bytes).map_err(|source| EngineError::Io {
        context: format!("writing {name}"),
        source,
    })
}

fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), EngineError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| EngineError::Internal(format!("encoding {name}: {e}")))?;
    write_file(folder, name, &bytes)
}
