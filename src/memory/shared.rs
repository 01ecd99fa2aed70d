//! The inside of a pool, which lives as long as its last handle and its last block.
//!
//! Blocks are not counted by a reference each, because that alone would cost as much as giving out a block: the accounts know
//! how many there are. When the last handle goes, every front is told, what the accounts say is summed, and from then on each
//! block that comes back counts itself; the last one frees all.

use super::classes::SPAN_UNITS;
use super::front::{Fronts, batch_of};
use super::last::Last;
use super::pressure::{self, Watch};
use super::store::{Small, Store, UNIT};
use super::{MemoryError, PoolConfig, Pressure, Tag};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Fronts, store and watch of a pool.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: PoolConfig,
    pub(super) fronts: Fronts,
    store: Mutex<Store>,
    /// Blocks that are larger get a region of their own.
    pub(super) region_bytes: usize,
    pub(super) watch: Watch,
    handles: AtomicUsize,
    /// Which block is the last, after the last handle is gone.
    last: Last,
}

/// What users of a pool have of it.
#[derive(Debug)]
pub(super) struct Handle(NonNull<Shared>);

/// What a block has of its pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home(NonNull<Shared>);

// SAFETY: it gives `&Shared` alone, which threads may share.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}
// SAFETY: as above.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

/// Holds that threads may share it; the pointers above hide that from the compiler.
const _: () = {
    const fn shareable<T: Send + Sync>() {}
    shareable::<Shared>();
};

impl Handle {
    pub(super) fn new(config: PoolConfig) -> Handle {
        let store = Store::new(&config);
        let shared = Box::new(Shared {
            fronts: Fronts::new(&config),
            region_bytes: store.region_bytes(),
            store: Mutex::new(store),
            watch: Watch::default(),
            handles: AtomicUsize::new(1),
            last: Last::new(),
            config,
        });
        Handle(NonNull::from(Box::leak(shared)))
    }

    /// For a block that is about to be counted.
    pub(super) fn home(&self) -> Home {
        Home(self.0)
    }
}

impl Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: it is freed only after this handle is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        // Who has a handle keeps the pool alive, so nothing has to be seen in order.
        self.handles.fetch_add(1, Ordering::Relaxed);
        Handle(self.0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut live: u64 = 0;
        for front in self.fronts.all() {
            let mut front = front.lock();
            front.closed = true;
            live = live.wrapping_add(front.account.live_blocks());
        }
        // A block that came back to a front after it was told has counted itself already, so the sum is right with it alone.
        if self.last.begin(live as i64) {
            // SAFETY: no handle and no block is left. Blocks that came back before a front was told were done with it when
            // its lock was taken here, those after it have counted themselves as their last step.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Home {
    /// The pool.
    ///
    /// # Safety
    ///
    /// The block whose home it is must be counted as live, and the reference must not be used after it has left.
    pub(super) unsafe fn shared<'s>(self) -> &'s Shared {
        // SAFETY: a pool lives as long as a block of it is counted as live, which the caller promises.
        unsafe { self.0.as_ref() }
    }

    /// Says that a block of a pool without handles is gone.
    ///
    /// # Safety
    ///
    /// Once for a block that left a front that was closed; nothing of the pool may be used after it.
    pub(super) unsafe fn one_less(self) {
        // SAFETY: the pool lives until the last has left, and this block has not.
        let last = unsafe { &(*self.0.as_ptr()).last };
        if last.leave() {
            // SAFETY: this was the last block, the handles are gone, and all who came before are done with it.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Shared {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free blocks of a class from the store, at least one.
    #[cold]
    pub(super) fn refill(
        &self,
        class: usize,
        bytes: usize,
        tag: Tag,
    ) -> Result<Vec<Small>, MemoryError> {
        let span = usize::from(SPAN_UNITS[class]) * UNIT;
        let batch = batch_of(class, self.config.cache_bytes);
        let take = |store: &mut Store| store.take_small(class, batch);
        self.take(span, bytes, tag, take)
    }

    /// Takes something from the store. Where nothing is left of it, what nobody uses is given up if pressure says so, and the
    /// store grows; if that cannot be, everything that nobody uses is given up before it is an error.
    pub(super) fn take<T>(
        &self,
        room: usize,
        needed: usize,
        tag: Tag,
        mut take: impl FnMut(&mut Store) -> Option<T>,
    ) -> Result<T, MemoryError> {
        if let Some(taken) = take(&mut self.store()) {
            return Ok(taken);
        }
        self.with_room(room, |store| {
            if let Some(taken) = take(store) {
                return Ok(taken);
            }
            store.grow(room, needed, tag)?;
            Ok(take(store).expect("a new region has room for what it was taken for"))
        })
    }

    /// Does what takes so many bytes from the system, and tells those who watch.
    pub(super) fn with_room<T>(
        &self,
        bytes: usize,
        mut reserve: impl FnMut(&mut Store) -> Result<T, MemoryError>,
    ) -> Result<T, MemoryError> {
        let after = self.store().reserved().saturating_add(bytes as u64);
        let level = pressure::of(after, self.config.limit);
        if self
            .config
            .cleanup
            .pressure
            .is_some_and(|from| level >= from)
        {
            self.cleanup();
        }
        let first = reserve(&mut self.store());
        let result = first.or_else(|_| {
            self.cleanup();
            reserve(&mut self.store())
        });
        self.note_pressure();
        result
    }

    /// Gives up everything that nobody uses; how many bytes went back to the system.
    pub(super) fn cleanup(&self) -> u64 {
        for front in self.fronts.all() {
            let unused = front.lock().unload_all();
            let mut store = self.store();
            unused.into_iter().for_each(|small| store.give_small(small));
        }
        let released = self.store().release(Duration::ZERO);
        if !released.is_empty() {
            self.note_pressure();
        }
        released.iter().map(|memory| memory.len() as u64).sum()
    }

    /// Gives a small block of which a front has enough back to the store, and half of what the front has.
    pub(super) fn unload(&self, class: usize, small: Small) {
        let mut smalls = self.fronts.any().unload(class);
        smalls.push(small);
        self.give_small(smalls);
    }

    /// Gives small blocks back to the store.
    pub(super) fn give_small(&self, smalls: Vec<Small>) {
        self.give(|store| smalls.into_iter().for_each(|small| store.give_small(small)));
    }

    /// Gives something back to the store, which gives up what was idle for long.
    pub(super) fn give(&self, give: impl FnOnce(&mut Store)) {
        let released = {
            let mut store = self.store();
            give(&mut store);
            store.release_idle()
        };
        if !released.is_empty() {
            self.note_pressure();
        }
    }

    pub(super) fn pressure(&self) -> Pressure {
        let reserved = self.store().reserved();
        pressure::of(reserved, self.config.limit)
    }

    pub(super) fn note_pressure(&self) {
        self.watch.note(self.pressure());
    }
}
