//! The pool of the machine's own memory: how a block is found for a request, and how it comes back.

use super::block::{Piece, Place};
use super::classes::class_of;
use super::metrics::Account;
use super::shared::Handle;
use super::store::{Small, Store, UNIT};
use super::track::{Event, LiveBlock, Patterns};
use super::{Block, HUGE_PAGE, MemoryError, Metrics, PoolConfig, Pressure, Tag};
use std::sync::Arc;

/// What blocks are aligned to at least: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// Memory of this machine, handed out in blocks. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct MemoryPool(Handle);

impl MemoryPool {
    /// A pool. It takes memory from the system when the first block is asked for.
    pub fn new(config: PoolConfig) -> MemoryPool {
        MemoryPool(Handle::new(config))
    }

    /// A block of so many bytes, aligned to [`ALIGN`] or to `align` where that is more, up to [`HUGE_PAGE`]. What the bytes are
    /// is not specified.
    #[inline(always)]
    pub fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        if !align.is_power_of_two() || align > HUGE_PAGE {
            return Err(MemoryError::Alignment { align });
        }
        let Some(class) = class_of(bytes, align) else {
            return self.large(bytes, align, tag);
        };
        let mut front = self.0.fronts.any();
        let Some(piece) = front.pop(class) else {
            drop(front);
            return self.small(class, bytes, tag);
        };
        let ticket = front.account.enter(bytes, tag);
        drop(front);
        Ok(Block::new(piece, bytes, ticket))
    }

    /// A block of zeros.
    pub fn zeroed(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        let mut block = self.allocate(bytes, align, tag)?;
        if !block.is_new() {
            block.bytes_mut()?.fill(0);
        }
        Ok(block)
    }

    /// A small block of a class of which the front had none; the front gets some more.
    #[cold]
    fn small(&self, class: usize, bytes: usize, tag: Tag) -> Result<Block, MemoryError> {
        let home = self.0.home();
        let fetched = self.0.refill(class, bytes, tag)?;
        let piece = |small: Small| {
            let (class, span) = (class as u32, small.span);
            Piece::new(small.start, Place::Small { home, class, span })
        };
        let mut pieces = fetched.into_iter().map(piece);
        let piece = pieces.next().expect("a refill is not empty");
        let (ticket, rest) = {
            let mut front = self.0.fronts.any();
            let push = |piece| front.push(class, piece).err()?.small();
            let rest: Vec<Small> = pieces.filter_map(push).collect();
            (front.account.enter(bytes, tag), rest)
        };
        // Another thread may have filled the front meanwhile.
        self.0.give_small(rest);
        Ok(Block::new(piece, bytes, ticket))
    }

    #[cold]
    fn large(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        let home = self.0.home();
        let piece = if bytes.max(align) <= self.0.region_bytes {
            // The first block of that order is aligned to it.
            let room = bytes.max(align).next_multiple_of(UNIT);
            let take = |store: &mut Store| store.take_large(bytes, align);
            let (start, large) = self.0.take(room, bytes, tag, take)?;
            Piece::new(start, Place::Large(home, large))
        } else {
            let reserve = |store: &mut Store| store.reserve(bytes, bytes, tag);
            let mut arena = self.0.with_room(bytes, reserve)?;
            Piece::new(arena.start(), Place::Own(home, Box::new(arena)))
        };
        let ticket = self.0.fronts.any().account.enter(bytes, tag);
        Ok(Block::new(piece, bytes, ticket))
    }

    /// What it knows of itself.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = Metrics::default();
        for front in self.0.fronts.all() {
            front.lock().account.add_to(&mut metrics);
        }
        let store = self.0.store();
        metrics.reserved_bytes = store.reserved();
        metrics.fragmentation = store.fragmentation();
        metrics
    }

    /// Lets the peaks begin anew at what is live now.
    pub fn reset_peak(&self) {
        for front in self.0.fronts.all() {
            front.lock().account.reset_peak();
        }
    }

    /// Gives back to the system what no block lies in; how many bytes that were.
    pub fn cleanup(&self) -> u64 {
        self.0.cleanup()
    }

    /// How much of what it may take it has taken.
    pub fn pressure(&self) -> Pressure {
        self.0.pressure()
    }

    /// Has a function called with the new level whenever the pressure changes, on the thread that changes it. It may give back
    /// blocks. It must not own a handle of the pool, which would then own itself and never end.
    pub fn on_pressure(&self, callback: impl Fn(Pressure) + Send + Sync + 'static) {
        self.0.watch.add(Arc::new(callback));
    }

    /// The live blocks, oldest first: at the end of a program, its leaks. From the level `Standard` on.
    pub fn live_blocks(&self) -> Option<Vec<LiveBlock>> {
        self.tracked(|account| account.records().map(|records| records.live()))
    }

    /// The last events, oldest first. At the level `Detailed`.
    pub fn timeline(&self) -> Option<Vec<Event>> {
        self.tracked(|account| account.detail.as_ref().map(|detail| detail.timeline()))
    }

    /// What is common among all blocks so far. At the level `Detailed`.
    pub fn patterns(&self) -> Option<Patterns> {
        self.tracked(|account| account.detail.as_ref().map(|detail| detail.patterns()))
    }

    /// Of the one front that a pool has from the level `Basic` on.
    fn tracked<T>(&self, read: impl Fn(&Account) -> Option<T>) -> Option<T> {
        read(&self.0.fronts.all()[0].lock().account)
    }
}
