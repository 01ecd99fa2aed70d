//! The pool of the machine's own memory: how a block is found for a request, and how it comes back.

use super::block::Place;
use super::classes::class_of;
use super::metrics::Account;
use super::shared::Handle;
use super::store::{Store, UNIT};
use super::track::{Event, LiveBlock, Patterns};
use super::{Block, HUGE_PAGE, MemoryError, Metrics, PoolConfig, Pressure, Tag};
use std::mem::ManuallyDrop;
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
    #[inline]
    pub fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        if !align.is_power_of_two() || align > HUGE_PAGE {
            return Err(MemoryError::Alignment { align });
        }
        let Some(class) = class_of(bytes, align) else {
            return self.large(bytes, align, tag);
        };
        let shared = &*self.0;
        let mut front = shared.fronts.any();
        if let Some(small) = front.pop(class) {
            let ticket = front.account.enter(bytes, tag);
            let place = Place::Small(self.0.home(), class, small);
            return Ok(Block::new(place, bytes, ticket));
        }
        drop(front);
        self.small(class, bytes, tag)
    }

    /// A block of zeros.
    pub fn zeroed(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        let mut block = self.allocate(bytes, align, tag)?;
        // A region of its own is new, and so it is zeros.
        if !matches!(block.place, Place::Own(..)) {
            block.bytes_mut()?.fill(0);
        }
        Ok(block)
    }

    /// A small block of a class of which the front had none.
    #[cold]
    fn small(&self, class: usize, bytes: usize, tag: Tag) -> Result<Block, MemoryError> {
        let mut fetched = self.0.refill(class, bytes, tag)?;
        let small = fetched.pop().expect("a refill is not empty");
        let ticket = {
            let mut front = self.0.fronts.any();
            fetched.retain(|small| !front.push(class, *small));
            front.account.enter(bytes, tag)
        };
        // Another thread may have filled the front meanwhile.
        let give = |store: &mut Store| {
            fetched
                .into_iter()
                .for_each(|small| store.give_small(small));
        };
        self.0.give(give);
        Ok(Block::new(
            Place::Small(self.0.home(), class, small),
            bytes,
            ticket,
        ))
    }

    fn large(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        let home = self.0.home();
        let place = if bytes.max(align) <= self.0.region_bytes {
            // The first block of that order is aligned to it.
            let room = bytes.max(align).next_multiple_of(UNIT);
            let take = |store: &mut Store| store.take_large(bytes, align);
            let (start, large) = self.0.take(room, bytes, tag, take)?;
            Place::Large(home, start, large)
        } else {
            let reserve = |store: &mut Store| store.reserve(bytes, bytes, tag);
            Place::Own(home, ManuallyDrop::new(self.0.with_room(bytes, reserve)?))
        };
        let ticket = self.0.fronts.any().account.enter(bytes, tag);
        Ok(Block::new(place, bytes, ticket))
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

    /// Has a function called with the new level whenever the pressure changes, on the thread that changes it. It may use the
    /// pool: drop what it can do without, or clean up.
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
