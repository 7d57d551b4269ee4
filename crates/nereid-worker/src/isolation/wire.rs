//! What worker and training process say to each other, and how it is framed.
//!
//! A frame is the length of its payload (four bytes, little-endian), one byte that tells a message
//! from a piece of a file, and the payload. Messages are CBOR, which keeps every float bit for
//! bit, `NaN` included; JSON would not.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use nereid_core::{
    datasets::{DatasetSchema, DatasetSource, FileRole},
    engine::DataResources,
    events::{LogLevel, MetricPoint, RuleReport},
    jobs::{Directive, JobPhase, Progress},
    models::{Signature, TrainedModel},
    spec::TrainSpec,
    workers::DeviceKind,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::fault::{Fault, IoFault};

/// Largest payload of a frame; nothing that is sent comes near it.
const MAX_PAYLOAD: usize = 256 << 20;
/// Most bytes of a file in one frame.
pub(super) const PIECE: usize = 256 << 10;

const MESSAGE: u8 = 0;
const FILE_PIECE: u8 = 1;

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// The first message: what to train.
    Train(Box<Task>),
    Directive(Directive),
    /// The worker lives.
    Alive,
    Opened {
        stream: u32,
    },
    /// The file ends here.
    End {
        stream: u32,
    },
    Failed {
        stream: u32,
        fault: IoFault,
    },
}

/// From the training process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Phase(JobPhase),
    Progress(Progress),
    Metrics(MetricPoint),
    Rule(RuleReport),
    Log(LogLevel, String),
    Checkpoint {
        step: u64,
        path: PathBuf,
    },
    /// Asks for a file from its start; `stream` names it from now on.
    Open {
        stream: u32,
        part: Part,
        role: FileRole,
    },
    /// Asks for one more piece of a file.
    Next {
        stream: u32,
    },
    /// The rest of the file is not wanted.
    Close {
        stream: u32,
    },
    /// The last message.
    Outcome(Result<Box<Model>, Fault>),
}

/// Which of a training's datasets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
}

/// A training without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) spec: TrainSpec,
    pub(super) train: Data,
    pub(super) validation: Option<Data>,
    pub(super) test: Option<Data>,
    pub(super) device: DeviceKind,
    pub(super) base: Option<PathBuf>,
    pub(super) resume: Option<PathBuf>,
    pub(super) resources: DataResources,
    pub(super) scratch: PathBuf,
    pub(super) output: PathBuf,
    /// How long the worker may be silent.
    pub(super) patience: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Data {
    pub(super) source: DatasetSource,
    pub(super) schema: DatasetSchema,
    pub(super) digest: Option<String>,
}

/// A trained model; [`TrainedModel`] itself is never stored and has no format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Model {
    signature: Signature,
    metrics: BTreeMap<String, f64>,
    reports: BTreeMap<String, Value>,
    files: Vec<String>,
    framework_version: String,
}

impl From<TrainedModel> for Model {
    fn from(model: TrainedModel) -> Self {
        Self {
            signature: model.signature,
            metrics: model.metrics,
            reports: model.reports,
            files: model.files,
            framework_version: model.framework_version,
        }
    }
}

impl From<Model> for TrainedModel {
    fn from(model: Model) -> Self {
        Self {
            signature: model.signature,
            metrics: model.metrics,
            reports: model.reports,
            files: model.files,
            framework_version: model.framework_version,
        }
    }
}

/// What a frame holds.
#[derive(Debug)]
pub(super) enum Incoming<M> {
    Message(M),
    Piece { stream: u32, bytes: Vec<u8> },
}

/// Makes the frame of a message.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the message is too large or cannot be written down.
pub(super) fn message(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0, 0, 0, 0, MESSAGE];
    ciborium::into_writer(message, &mut frame).map_err(|e| invalid(e.to_string()))?;
    finish(frame)
}

/// Makes the frame of a piece of a file.
pub(super) fn piece(stream: u32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(9 + bytes.len());
    frame.extend([0, 0, 0, 0, FILE_PIECE]);
    frame.extend(stream.to_le_bytes());
    frame.extend(bytes);
    finish(frame)
}

fn finish(mut frame: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = frame.len() - 5;
    let short = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD);
    let short = short.ok_or_else(|| invalid(format!("a message of {length} bytes")))?;
    frame[..4].copy_from_slice(&short.to_le_bytes());
    Ok(frame)
}

/// Reads a frame.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is none; all others mean that the other side is gone.
pub(super) fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<Incoming<M>> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [a, b, c, d, kind] = head;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MAX_PAYLOAD {
        return Err(invalid(format!("a frame of {length} bytes")));
    }
    // Grown as the bytes arrive: a wrong length costs no memory.
    let mut payload = Vec::with_capacity(length.min(PIECE + 4));
    from.take(length as u64).read_to_end(&mut payload)?;
    if payload.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match (kind, payload.split_first_chunk()) {
        (MESSAGE, _) => ciborium::from_reader(&payload[..])
            .map(Incoming::Message)
            .map_err(|e| invalid(e.to_string())),
        (FILE_PIECE, Some((stream, bytes))) => Ok(Incoming::Piece {
            stream: u32::from_le_bytes(*stream),
            bytes: bytes.to_vec(),
        }),
        _ => Err(invalid(format!("a frame of unknown kind {kind}"))),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent<M: Serialize + DeserializeOwned>(what: &M) -> M {
        match read(&mut &message(what).unwrap()[..]).unwrap() {
            Incoming::Message(message) => message,
            Incoming::Piece { .. } => panic!("a piece"),
        }
    }

    #[test]
    fn numbers_arrive_bit_for_bit() {
        let model = Model {
            signature: serde_json::from_value(json!({
                "inputs": [], "outputs": [],
                "preprocessing": {"normalization": "none", "offset": [0.1], "scale": [0.3]},
            }))
            .unwrap(),
            metrics: BTreeMap::from([
                ("loss".to_owned(), 0.1 + 0.2),
                ("odd".to_owned(), f64::NAN),
                ("tiny".to_owned(), f64::MIN_POSITIVE / 3.0),
            ]),
            reports: BTreeMap::from([("matrix".to_owned(), json!([[1, -2], [0.5, null]]))]),
            files: vec!["weights".to_owned()],
            framework_version: "test".to_owned(),
        };
        let bits = |m: &Model| m.metrics.values().map(|v| v.to_bits()).collect::<Vec<_>>();
        let arrived = sent(&model);
        assert_eq!(bits(&arrived), bits(&model));
        assert_eq!(arrived.signature, model.signature);
        assert_eq!(arrived.reports, model.reports);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let frame = message(&Order::Alive).unwrap();
        let kind = |bytes: &[u8]| read::<Order>(&mut &*bytes).unwrap_err().kind();
        assert_eq!(
            kind(&frame[..frame.len() - 1]),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(kind(&[255; 9]), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[1, 0, 0, 0, 9, 0]), io::ErrorKind::InvalidData);
        assert_eq!(
            kind(&[1, 0, 0, 0, MESSAGE, 255]),
            io::ErrorKind::InvalidData
        );
    }
}
