//! The pool of mapped files: what is mapped costs no memory of its own, is read when it is touched, and is counted.

use super::block::{Piece, Place};
use super::lock::Lock;
use super::metrics::Account;
use super::{Block, MemoryError, Metrics, Tag, Tracking};
use memmap2::MmapOptions;
use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Files as memory. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct MappedFiles(Arc<Lock<Account>>);

impl Default for MappedFiles {
    fn default() -> MappedFiles {
        MappedFiles::new()
    }
}

impl MappedFiles {
    /// A pool in which nothing is mapped.
    pub fn new() -> MappedFiles {
        MappedFiles(Arc::new(Lock::new(Account::new(Tracking::Basic))))
    }

    /// Some bytes of a file, read only. The file may be closed; who writes to it while it is mapped changes the bytes.
    pub fn map(&self, file: &File, range: Range<u64>, tag: Tag) -> Result<Block, MemoryError> {
        let bytes = checked(file, &range, tag)?;
        // SAFETY: the map is only read. Another process that truncates the file while it is mapped ends this one with SIGBUS,
        // as it ends every program that maps files; checkpoints are written once, and the size was checked above.
        let map = unsafe { MmapOptions::new().offset(range.start).len(bytes).map(file) };
        let map = map.map_err(|error| MemoryError::File {
            tag: tag.name,
            error,
        })?;
        let ticket = self.0.lock().enter(bytes, tag);
        let start = NonNull::from(&map[..]).cast();
        let piece = Piece::new(start, Place::File(self.0.clone(), map));
        Ok(Block::new(piece, bytes, ticket))
    }

    /// What it knows of itself.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        self.0.lock().add_to(&mut metrics);
        metrics.reserved_bytes = metrics.live_bytes;
        metrics
    }

    /// Lets the peaks begin anew at what is mapped now.
    pub fn reset_peak(&self) {
        self.0.lock().reset_peak();
    }
}

/// How many bytes a range has, if the file has them.
pub(super) fn checked(file: &File, range: &Range<u64>, tag: Tag) -> Result<usize, MemoryError> {
    let metadata = file.metadata().map_err(|error| MemoryError::File {
        tag: tag.name,
        error,
    })?;
    let (begin, end, bytes) = (range.start, range.end, metadata.len());
    let length = end.checked_sub(begin).filter(|_| end <= bytes);
    length
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(MemoryError::Range { begin, end, bytes })
}
