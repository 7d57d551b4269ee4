//! Training in a process of its own, so that whatever kills a training kills no worker.
//!
//! [`ProcessTrainer`] is a [`Trainer`](nereid_core::engine::Trainer) that starts a child process
//! for each training; [`serve`] is what runs in the child around the trainer proper. The two talk
//! over one socket, which is the child's standard input. The child never talks to Postgres or S3
//! and inherits none of their secrets: it asks its parent for the bytes of the dataset's files,
//! and hands snapshots and results over as files on the disk that both see.
//!
//! The child lives no longer than its parent: it ends when the socket closes, and when nothing
//! came for a while, because the parent was stopped and somebody else may do the work by now.

mod child;
mod fault;
mod files;
mod memory;
mod parent;
mod process;
mod remote;
mod wire;

pub use child::serve;
pub use parent::{ProcessConfig, ProcessTrainer};

use std::process::ExitCode;

/// Exit statuses of a training process that gave no result; a result leaves 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Ending {
    /// Its parent has gone.
    Orphaned = 81,
    /// Its parent was silent for too long.
    Abandoned = 82,
    /// What came in was no message.
    Garbled = 83,
}

impl Ending {
    const ALL: [Self; 3] = [Self::Orphaned, Self::Abandoned, Self::Garbled];

    const fn describe(self) -> &'static str {
        match self {
            Self::Orphaned => "its worker went away",
            Self::Abandoned => "its worker was silent for too long",
            Self::Garbled => "it did not understand its worker",
        }
    }

    fn of(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|&e| e as i32 == code)
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}
