//! What a thread meets first: small blocks that came back and are kept for the next that asks, and an account.
//!
//! A pool that tracks peaks and tags has one front, because a peak is a fact about all threads: it is exact only where they
//! pass one place. At the level `None` there are several; a thread goes to its own, and to another where that is taken, so
//! threads do not wait for each other.

use super::classes::{CLASSES, bytes_of};
use super::lock::{Guard, Lock};
use super::metrics::Account;
use super::store::Small;
use super::{PoolConfig, Tracking};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many free blocks of a class are kept at most, and up to how many bytes; two of any class.
const MOST: usize = 16;
const MOST_BYTES: usize = 256 << 10;

/// Free small blocks by class, and what was counted here.
#[derive(Debug)]
pub(super) struct Front {
    magazines: [Magazine; CLASSES],
    /// Bytes of all of them, and how many there may be.
    cached: usize,
    cache_bytes: usize,
    pub(super) account: Account,
    /// Whether the pool's last handle is gone, so that who gives back a block has to see whether it was the last.
    pub(super) closed: bool,
}

/// Free blocks of one class; the first `len` places are taken.
#[derive(Debug)]
struct Magazine {
    len: usize,
    blocks: [Option<Small>; MOST],
}

impl Front {
    fn new(config: &PoolConfig) -> Front {
        const EMPTY: Magazine = Magazine {
            len: 0,
            blocks: [None; MOST],
        };
        Front {
            magazines: [const { EMPTY }; CLASSES],
            cached: 0,
            cache_bytes: config.cache_bytes,
            account: Account::new(config.tracking),
            closed: false,
        }
    }

    /// A free block of a class, if one is here.
    #[inline]
    pub(super) fn pop(&mut self, class: usize) -> Option<Small> {
        let magazine = &mut self.magazines[class];
        magazine.len = magazine.len.checked_sub(1)?;
        self.cached -= bytes_of(class);
        magazine.blocks[magazine.len]
    }

    /// Keeps a free block, or says that there is no room for it.
    #[inline]
    pub(super) fn push(&mut self, class: usize, block: Small) -> bool {
        let magazine = &mut self.magazines[class];
        let cached = self.cached + bytes_of(class);
        if magazine.len >= most_of(class) || cached > self.cache_bytes {
            return false;
        }
        magazine.blocks[magazine.len] = Some(block);
        magazine.len += 1;
        self.cached = cached;
        true
    }

    /// Takes out half of the blocks of a class.
    pub(super) fn unload(&mut self, class: usize) -> Vec<Small> {
        let half = self.magazines[class].len.div_ceil(2);
        (0..half).map_while(|_| self.pop(class)).collect()
    }

    /// Takes out all blocks.
    pub(super) fn unload_all(&mut self) -> Vec<Small> {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            all.extend(std::iter::from_fn(|| self.pop(class)));
        }
        all
    }
}

/// How many free blocks of a class are kept.
const fn most_of(class: usize) -> usize {
    const TABLE: [u8; CLASSES] = {
        let mut table = [0; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            let most = MOST_BYTES / bytes_of(class);
            table[class] = if most < 2 {
                2
            } else if most > MOST {
                MOST as u8
            } else {
                most as u8
            };
            class += 1;
        }
        table
    };
    TABLE[class] as usize
}

/// How many free blocks of a class are fetched at once.
pub(super) fn batch_of(class: usize) -> usize {
    most_of(class) / 2
}

/// The fronts of a pool.
#[derive(Debug)]
pub(super) struct Fronts(Box<[Lock<Front>]>);

impl Fronts {
    pub(super) fn new(config: &PoolConfig) -> Fronts {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = match config.tracking {
            // Twice as many as run at once: one that is interrupted keeps its front.
            Tracking::None => (2 * cores).clamp(4, 64),
            _ => 1,
        };
        Fronts((0..count).map(|_| Lock::new(Front::new(config))).collect())
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Lock<Front>] {
        &self.0
    }

    /// One for this thread: its own, or the next that is free.
    #[inline]
    pub(super) fn any(&self) -> Guard<'_, Front> {
        let own = thread_number() % self.0.len();
        match self.0[own].try_lock() {
            Some(front) => front,
            None => self.other(own),
        }
    }

    #[cold]
    fn other(&self, own: usize) -> Guard<'_, Front> {
        let (before, after) = self.0.split_at(own);
        let mut others = after.iter().chain(before);
        others
            .find_map(Lock::try_lock)
            .unwrap_or_else(|| self.0[own].lock())
    }
}

/// Threads in the order in which they first met a pool.
#[inline]
fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
