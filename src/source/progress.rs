//! What a source says while it works, and how it is told to stop. Nothing here prints: the command line draws.

use std::fmt::Debug;
use std::time::Duration;

/// Watches a source at work.
pub trait Progress: Debug + Send + Sync {
    /// Something has happened.
    fn on(&self, event: &Event<'_>);

    /// Whether the work shall end where it is.
    fn stopped(&self) -> bool {
        false
    }
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Headers of so many files are read.
    Heads {
        /// Files whose header is read.
        done: usize,
        /// All files.
        of: usize,
    },
    /// A file begins to arrive, or begins anew.
    Begin {
        /// The file.
        file: &'a str,
        /// Its size.
        bytes: u64,
        /// What an earlier, cut transfer left of it.
        had: u64,
    },
    /// A piece of a file has arrived.
    Received {
        /// The file.
        file: &'a str,
        /// The size of the piece.
        bytes: u64,
    },
    /// A file is complete.
    End {
        /// The file.
        file: &'a str,
    },
    /// Another process fetches the same file.
    Locked {
        /// The file.
        file: &'a str,
    },
    /// A request failed and is repeated.
    Again {
        /// Why, as its error says it.
        reason: &'a str,
        /// How long is waited first.
        wait: Duration,
    },
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn on(&self, _event: &Event<'_>) {}
}
