//! Errors of the engine on their way from one process to the other, reason and text unchanged.

use std::{
    collections::BTreeSet,
    io,
    sync::{Mutex, PoisonError},
};

use nereid_core::{
    datasets::FileRole,
    engine::{DataError, EngineError},
};
use serde::{Deserialize, Serialize};

/// An [`EngineError`] on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    InvalidData {
        file: FileRole,
        code: String,
        row: Option<u64>,
        column: Option<String>,
        detail: String,
    },
    InvalidInput(String),
    Diverged {
        step: u64,
        what: String,
    },
    Parity(String),
    Stopped,
    BadState(String),
    OutOfMemory(String),
    Crashed(String),
    Io {
        context: String,
        fault: IoFault,
    },
    Internal(String),
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::InvalidData(e) => Self::InvalidData {
                file: e.file,
                code: e.code.to_owned(),
                row: e.row,
                column: e.column,
                detail: e.detail,
            },
            EngineError::InvalidInput(text) => Self::InvalidInput(text),
            EngineError::Diverged { step, what } => Self::Diverged { step, what },
            EngineError::Parity(text) => Self::Parity(text),
            EngineError::Stopped => Self::Stopped,
            EngineError::BadState(text) => Self::BadState(text),
            EngineError::OutOfMemory(text) => Self::OutOfMemory(text),
            EngineError::Crashed(text) => Self::Crashed(text),
            EngineError::Io { context, source } => Self::Io {
                context,
                fault: IoFault::from(&source),
            },
            EngineError::Internal(text) => Self::Internal(text),
        }
    }
}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::InvalidData {
                file,
                code,
                row,
                column,
                detail,
            } => Self::InvalidData(DataError {
                file,
                code: known(code),
                row,
                column,
                detail,
            }),
            Fault::InvalidInput(text) => Self::InvalidInput(text),
            Fault::Diverged { step, what } => Self::Diverged { step, what },
            Fault::Parity(text) => Self::Parity(text),
            Fault::Stopped => Self::Stopped,
            Fault::BadState(text) => Self::BadState(text),
            Fault::OutOfMemory(text) => Self::OutOfMemory(text),
            Fault::Crashed(text) => Self::Crashed(text),
            Fault::Io { context, fault } => Self::Io {
                context,
                source: fault.into(),
            },
            Fault::Internal(text) => Self::Internal(text),
        }
    }
}

/// Returns a code as one of this program's constants; each is kept for ever, once.
fn known(code: String) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known.get(code.as_str()) {
        return known;
    }
    let code: &'static str = code.leak();
    known.insert(code);
    code
}

/// An [`io::Error`] on its way: what it was where it happened, with its causes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct IoFault {
    kind: IoKind,
    message: String,
}

/// The kinds that somebody tells apart.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum IoKind {
    NotFound,
    PermissionDenied,
    StorageFull,
    UnexpectedEof,
    Other,
}

impl From<&io::Error> for IoFault {
    fn from(error: &io::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        let kind = match error.kind() {
            io::ErrorKind::NotFound => IoKind::NotFound,
            io::ErrorKind::PermissionDenied => IoKind::PermissionDenied,
            io::ErrorKind::StorageFull => IoKind::StorageFull,
            io::ErrorKind::UnexpectedEof => IoKind::UnexpectedEof,
            _ => IoKind::Other,
        };
        Self { kind, message }
    }
}

impl From<IoFault> for io::Error {
    fn from(fault: IoFault) -> Self {
        let kind = match fault.kind {
            IoKind::NotFound => io::ErrorKind::NotFound,
            IoKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            IoKind::StorageFull => io::ErrorKind::StorageFull,
            IoKind::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            IoKind::Other => io::ErrorKind::Other,
        };
        Self::new(kind, fault.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::wire::{self, Incoming};

    fn sent(fault: &Fault) -> Fault {
        match wire::read(&mut &wire::message(fault).unwrap()[..]).unwrap() {
            Incoming::Message(fault) => fault,
            Incoming::Piece { .. } => panic!("a piece"),
        }
    }

    #[test]
    fn errors_keep_their_reason_and_their_text() {
        let full = io::Error::new(io::ErrorKind::StorageFull, "no space left");
        let errors = [
            EngineError::InvalidData(DataError {
                file: FileRole::Data,
                code: "not_a_number",
                row: Some(3),
                column: Some("a".to_owned()),
                detail: "\"x\"".to_owned(),
            }),
            EngineError::Io {
                context: "writing a snapshot".to_owned(),
                source: full,
            },
            EngineError::Io {
                context: "reading".to_owned(),
                source: io::Error::from_raw_os_error(5),
            },
            EngineError::Stopped,
            EngineError::BadState("cut".to_owned()),
            EngineError::Diverged {
                step: 7,
                what: "the loss".to_owned(),
            },
            EngineError::Internal("fault".to_owned()),
        ];
        for error in errors {
            let (text, reason) = (error.to_string(), error.reason());
            let arrived = EngineError::from(sent(&Fault::from(error)));
            assert_eq!((arrived.to_string(), arrived.reason()), (text, reason));
        }
    }
}
