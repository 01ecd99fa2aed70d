//! What a thread meets first: small blocks that came back and are kept for the next that asks, and an account.
//!
//! A pool that tracks peaks and tags has one front, because a peak is a fact about all threads: it is exact only where they
//! pass one place. At the level `None` there are several; a thread goes to its own, and to another where that is taken, so
//! threads do not wait for each other.

use super::block::Piece;
use super::classes::{CLASSES, bytes_of};
use super::lock::{Guard, Lock};
use super::metrics::Account;
use super::store::Small;
use super::{PoolConfig, Tracking};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many free blocks of a class are kept at most.
const MOST: usize = 16;

/// Free small blocks by class, and what was counted here.
#[derive(Debug)]
pub(super) struct Front {
    magazines: [Magazine; CLASSES],
    pub(super) account: Account,
    /// Whether the pool's last handle is gone, so that who gives back a block has to see whether it was the last.
    pub(super) closed: bool,
}

/// Free blocks of one class; the first `len` places are taken, and `most` may be.
#[derive(Debug)]
struct Magazine {
    len: usize,
    most: usize,
    blocks: [Option<Box<Piece>>; MOST],
}

impl Front {
    fn new(config: &PoolConfig) -> Front {
        let magazine = |class| Magazine {
            len: 0,
            most: most_of(class, config.cache_bytes),
            blocks: [const { None }; MOST],
        };
        Front {
            magazines: std::array::from_fn(magazine),
            account: Account::new(config.tracking),
            closed: false,
        }
    }

    /// A free block of a class, if one is here.
    #[inline(always)]
    pub(super) fn pop(&mut self, class: usize) -> Option<Box<Piece>> {
        let magazine = &mut self.magazines[class];
        magazine.len = magazine.len.checked_sub(1)?;
        magazine.blocks[magazine.len].take()
    }

    /// Keeps a free block, or gives it back where there is no room for it.
    #[inline(always)]
    pub(super) fn push(&mut self, class: usize, block: Box<Piece>) -> Result<(), Box<Piece>> {
        let magazine = &mut self.magazines[class];
        if magazine.len >= magazine.most {
            return Err(block);
        }
        magazine.blocks[magazine.len] = Some(block);
        magazine.len += 1;
        Ok(())
    }

    /// Takes out half of the blocks of a class.
    pub(super) fn unload(&mut self, class: usize) -> Vec<Small> {
        let half = self.magazines[class].len.div_ceil(2);
        (0..half).filter_map(|_| self.pop(class)?.small()).collect()
    }

    /// Takes out all blocks.
    pub(super) fn unload_all(&mut self) -> Vec<Small> {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            all.extend(std::iter::from_fn(|| self.pop(class)?.small()));
        }
        all
    }
}

/// How many free blocks of a class are kept: one where any are.
fn most_of(class: usize, cache_bytes: usize) -> usize {
    match cache_bytes {
        0 => 0,
        bytes => (bytes / bytes_of(class)).clamp(1, MOST),
    }
}

/// How many free blocks of a class are fetched at once: one to be used, and half of what is kept.
pub(super) fn batch_of(class: usize, cache_bytes: usize) -> usize {
    most_of(class, cache_bytes) / 2 + 1
}

/// The fronts of a pool.
#[derive(Debug)]
pub(super) struct Fronts(Box<[Lock<Front>]>);

impl Fronts {
    pub(super) fn new(config: &PoolConfig) -> Fronts {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = match config.tracking {
            // More than run at once: one that is interrupted keeps its front, and those that take turns have each their own.
            Tracking::None => (8 * cores).next_power_of_two().clamp(8, 128),
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
        // A power of two of them, so that no division is needed.
        let own = thread_number() & (self.0.len() - 1);
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
