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
// One word: what is known of a small block is kept with it when it comes back, and need not be written again or moved.
#[derive(Debug)]
pub struct Block(ManuallyDrop<Box<Piece>>);

/// Some memory, and what is known of it.
// On a line of its own: threads that use different pieces must not wait for each other.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Piece {
    start: NonNull<u8>,
    bytes: usize,
    ticket: Ticket,
    place: Place,
}

/// Where a piece is, and what it takes to give it back.
#[derive(Debug)]
pub(super) enum Place {
    /// In a span of small blocks of a class.
    Small { home: Home, class: u32, span: u32 },
    /// Units of a region.
    Large(Home, Large),
    /// A region of its own.
    Own(Home, Box<Arena>),
    /// A mapped file, and the account of its pool.
    File(Arc<Lock<Account>>, Mmap),
}

// SAFETY: a piece is the only one that has its bytes; reading needs `&`, writing `&mut`.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Piece {
    /// Memory that is not counted yet; at least so many bytes as it will be given out for begin at `start`.
    pub(super) fn new(start: NonNull<u8>, place: Place) -> Box<Piece> {
        Box::new(Piece {
            start,
            bytes: 0,
            ticket: Ticket::default(),
            place,
        })
    }

    /// The small block that it is, for the store.
    pub(super) fn small(&self) -> Option<Small> {
        match self.place {
            Place::Small { span, .. } => Some(Small {
                start: self.start,
                span,
            }),
            _ => None,
        }
    }
}

impl Block {
    /// Gives a piece out that was just counted.
    #[inline]
    pub(super) fn new(mut piece: Box<Piece>, bytes: usize, ticket: Ticket) -> Block {
        piece.bytes = bytes;
        piece.ticket = ticket;
        Block(ManuallyDrop::new(piece))
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the pool gave at least so many bytes of a mapping to this block alone and unmaps none before the block is
        // gone; they are zeros at first, or a file's, so they are initialized.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.bytes) }
    }

    /// Its bytes, to be written. Those of a mapped file are read only.
    #[inline]
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], MemoryError> {
        if let Place::File(..) = self.0.place {
            return Err(MemoryError::ReadOnly);
        }
        // SAFETY: as in `bytes`; `&mut self` means that nobody else looks at them, and only files are mapped to be read.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.bytes) })
    }

    /// Whether it was zeros when it was given out, because its memory was new.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.0.place, Place::Own(..))
    }

    /// The size of most of the pages around it in KiB as the system reports it; `None` where it does not.
    pub fn page_kib(&self) -> Option<u64> {
        page_kib_at(self.bytes())
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the block is being dropped, so nobody asks it for its piece again.
        let piece = unsafe { ManuallyDrop::take(&mut self.0) };
        let (bytes, ticket) = (piece.bytes, piece.ticket);
        let Place::Small { home, class, .. } = piece.place else {
            return give_back(*piece);
        };
        // SAFETY: the block is still counted, and the pool is not used after it has left.
        let mut front = unsafe { home.shared() }.fronts.any();
        if front.closed {
            drop(front);
            return give_back(*piece);
        }
        match front.push(class as usize, piece) {
            Ok(()) => front.account.leave(bytes, ticket),
            Err(piece) => {
                drop(front);
                give_back(*piece);
            }
        }
    }
}

/// Gives a piece back to where it came from. **The last thing that is done is to leave the account**: after it the pool may be
/// gone.
#[cold]
fn give_back(piece: Piece) {
    let (bytes, ticket) = (piece.bytes, piece.ticket);
    let home = match piece.place {
        Place::Small { home, class, span } => {
            let start = piece.start;
            // SAFETY: the block is still counted.
            unsafe { home.shared() }.unload(class as usize, Small { start, span });
            home
        }
        Place::Large(home, large) => {
            // SAFETY: the block is still counted.
            unsafe { home.shared() }.give(|store| store.give_large(large));
            home
        }
        Place::Own(home, arena) => {
            let reserved = arena.len();
            drop(arena);
            // SAFETY: the block is still counted.
            let shared = unsafe { home.shared() };
            shared.give(|store| store.unreserve(reserved));
            shared.note_pressure();
            home
        }
        Place::File(account, map) => {
            drop(map);
            return account.lock().leave(bytes, ticket);
        }
    };
    // SAFETY: the block is still counted, and the pool is not used after it has left.
    let mut front = unsafe { home.shared() }.fronts.any();
    if front.closed {
        drop(front);
        // SAFETY: the front was closed, and this is the end of the block.
        unsafe { home.one_less() };
    } else {
        front.account.leave(bytes, ticket);
    }
}

/// A piece has one line for itself and no more.
const _: () = assert!(size_of::<Piece>() == 64);
