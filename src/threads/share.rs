//! Work and memory that threads share.
//!
//! A thread takes pieces that lie side by side, so that it reads one stream; when its share is done it takes from the others',
//! because on a machine that does other things too a thread may be kept waiting.

use super::Pool;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `job` with ranges that together are `0..count`, each about `at_once` long where several threads share them. A thread's
/// own are side by side.
pub(crate) fn chunks(
    pool: &Pool,
    count: usize,
    at_once: usize,
    job: &(dyn Fn(Range<usize>) + Sync),
) {
    let threads = pool.threads();
    if threads == 1 || count == 1 {
        return job(0..count);
    }
    // The share of a thread begins here; what was taken of it so far is counted beside it.
    let begin = |thread: usize| thread * count / threads;
    let few = [const { Padded(AtomicUsize::new(0)) }; FEW];
    let many: Vec<Padded>;
    let taken = if threads <= FEW {
        &few[..threads]
    } else {
        many = (0..threads).map(|_| Padded(AtomicUsize::new(0))).collect();
        &many[..]
    };
    pool.run(&|own| {
        for thread in (0..threads).map(|step| (own + step) % threads) {
            let share = begin(thread)..begin(thread + 1);
            loop {
                let from = share.start + taken[thread].0.fetch_add(at_once, Ordering::Relaxed);
                if from >= share.end {
                    break;
                }
                job(from..share.end.min(from + at_once));
            }
        }
    });
}

/// Calls `job` with every row of `out`, so many numbers each, and its number; threads share them.
pub(crate) fn rows<T: Send>(
    pool: &Pool,
    out: &mut [T],
    width: usize,
    job: &(dyn Fn(usize, &mut [T]) + Sync),
) {
    let count = out.len() / width.max(1);
    let place = Shared::of(out);
    let at_once = count.div_ceil(4 * pool.threads());
    chunks(pool, count, at_once, &|range| {
        for row in range {
            // SAFETY: every row is given to one thread once.
            job(row, unsafe { place.slice(row * width, width) });
        }
    });
}

/// So many counts need no memory of their own: a step of a model shares work two hundred times.
const FEW: usize = 64;

/// A count on a cache line of its own, so that threads do not wait for each other's.
#[repr(align(128))]
struct Padded(AtomicUsize);

/// A slice of which several threads write different parts.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and who takes one promises that nobody else has it.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn of(slice: &'a mut [T]) -> Shared<'a, T> {
        Shared {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            of: PhantomData,
        }
    }

    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A part of it.
    ///
    /// # Safety
    ///
    /// No two parts that live at the same time may overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at, "a part lies within");
        // SAFETY: it lies within the slice, as the line above found, and the caller promises that nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_once() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for count in [1, 2, 7, 40] {
                let mut out = vec![0; 3 * count];
                rows(&pool, &mut out, 3, &|row, out| {
                    out.iter_mut().for_each(|number| *number += row + 1);
                });
                let expected: Vec<usize> = (0..3 * count).map(|at| at / 3 + 1).collect();
                assert_eq!(out, expected);
            }
        }
    }
}
