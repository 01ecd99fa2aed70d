//! What pools hand out: some bytes that are given back when they are dropped.

use super::arena::page_kib_at;
use super::lock::Lock;
use super::metrics::{Account, Ticket};
use super::shared::Home;
use super::store::{Large, Small};
use super::{Arena, MemoryError};
use memmap2::Mmap;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

/// Some bytes of a pool. They go back to it when the block is dropped, on whatever thread; the memory of a pool lives until its
/// last block does.
#[derive(Debug)]
pub struct Block {
    pub(super) place: Place,
    bytes: usize,
    ticket: Ticket,
}

/// Where the bytes of a block are, and what it takes to give them back.
#[derive(Debug)]
pub(super) enum Place {
    /// Among the small blocks of a class.
    Small(Home, usize, Small),
    /// Units of a region.
    Large(Home, NonNull<u8>, Large),
    /// A region of its own.
    Own(Home, ManuallyDrop<Arena>),
    /// A mapped file, and the account of its pool.
    File(Arc<Lock<Account>>, Mmap),
}

// SAFETY: the bytes of a block are its own until it is dropped; reading needs `&`, writing `&mut`.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// A block that was just counted as live.
    #[inline]
    pub(super) fn new(place: Place, bytes: usize, ticket: Ticket) -> Block {
        Block {
            place,
            bytes,
            ticket,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        let start = match &self.place {
            Place::Small(_, _, small) => small.start,
            Place::Large(_, start, _) => *start,
            Place::Own(_, arena) => return arena.bytes(),
            Place::File(_, map) => return &map[..self.bytes],
        };
        // SAFETY: the pool gave at least so many bytes of a mapping to this block alone and unmaps none before the block is
        // gone; the system made them zeros at first, so they are initialized.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.bytes) }
    }

    /// Its bytes, to be written. Those of a mapped file are read only.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], MemoryError> {
        let start = match &mut self.place {
            Place::Small(_, _, small) => small.start,
            Place::Large(_, start, _) => *start,
            Place::Own(_, arena) => return Ok(arena.bytes_mut()),
            Place::File(..) => return Err(MemoryError::ReadOnly),
        };
        // SAFETY: as in `bytes`, and `&mut self` means that nobody else looks at them.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.bytes) })
    }

    /// The size of most of the pages around it in KiB as the system reports it; `None` where it does not.
    pub fn page_kib(&self) -> Option<u64> {
        page_kib_at(self.bytes())
    }
}

impl Drop for Block {
    /// **The last thing that is done is to leave the account.** After it the pool may be gone.
    #[inline]
    fn drop(&mut self) {
        match &mut self.place {
            Place::Small(home, class, small) => {
                // SAFETY: the block is still counted, and nothing below uses the pool after it has left.
                let shared = unsafe { home.shared() };
                let mut front = shared.fronts.any();
                if !front.closed {
                    if front.push(*class, *small) {
                        front.account.leave(self.bytes, self.ticket);
                        return;
                    }
                    let mut unloaded = front.unload(*class);
                    drop(front);
                    unloaded.push(*small);
                    shared.give(|store| {
                        unloaded
                            .into_iter()
                            .for_each(|small| store.give_small(small))
                    });
                }
            }
            Place::Large(home, _, large) => {
                // SAFETY: the block is still counted.
                unsafe { home.shared() }.give(|store| store.give_large(*large));
            }
            Place::Own(home, arena) => {
                let bytes = arena.bytes().len();
                // SAFETY: the block is being dropped, so nobody uses its memory from here on.
                unsafe { ManuallyDrop::drop(arena) };
                // SAFETY: the block is still counted.
                let shared = unsafe { home.shared() };
                shared.give(|store| store.unreserve(bytes));
                shared.note_pressure();
            }
            Place::File(account, _) => account.lock().leave(self.bytes, self.ticket),
        }
        if let Place::Small(home, ..) | Place::Large(home, ..) | Place::Own(home, _) = self.place {
            self.leave(home);
        }
    }
}

impl Block {
    fn leave(&self, home: Home) {
        // SAFETY: the block is still counted, and the pool is not used after it has left.
        let mut front = unsafe { home.shared() }.fronts.any();
        if !front.closed {
            front.account.leave(self.bytes, self.ticket);
            return;
        }
        drop(front);
        // SAFETY: the front was closed, and this is the end of the block.
        unsafe { home.one_less() };
    }
}
