//! What pools hand out: some bytes that are given back when they are dropped.

use super::arena::{Arena, page_kib_at};
use super::metrics::Ledger;
use super::{MemoryError, Tag};
use memmap2::Mmap;
use std::sync::Arc;

/// Some bytes of a pool. They go back to it when the block is dropped, on whatever thread; the memory of a pool lives until its
/// last block does.
#[derive(Debug)]
pub struct Block {
    place: Place,
    bytes: usize,
    tag: Tag,
    ledger: Arc<Ledger>,
}

/// Where the bytes of a block are.
#[derive(Debug)]
pub(super) enum Place {
    Own(Arena),
    File(Mmap),
}

impl Block {
    pub(super) fn new(place: Place, bytes: usize, tag: Tag, ledger: Arc<Ledger>) -> Block {
        ledger.enter(bytes as u64, tag.name);
        Block {
            place,
            bytes,
            tag,
            ledger,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.place {
            Place::Own(arena) => arena.bytes(),
            Place::File(map) => &map[..self.bytes],
        }
    }

    /// Its bytes, to be written. A mapped file is read only.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], MemoryError> {
        match &mut self.place {
            Place::Own(arena) => Ok(arena.bytes_mut()),
            Place::File(_) => Err(MemoryError::ReadOnly),
        }
    }

    /// What it is for.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// The size of most of the pages around it in KiB as the system reports it; `None` where it does not.
    pub fn page_kib(&self) -> Option<u64> {
        page_kib_at(self.bytes())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.ledger.leave(self.bytes as u64, self.tag.name);
    }
}
