//! Threads over blocks.
//!
//! Every thread takes the next block that nobody has, and keeps what it found in a state of its own; what blocks say comes
//! back in the order of the blocks.

use super::super::CheckpointError;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// More threads read no faster, and each has buffers of its own.
const MOST_THREADS: usize = 16;

/// The states of all threads, and the answers to all blocks in their order.
pub(super) struct Done<S, T> {
    pub(super) states: Vec<S>,
    pub(super) answers: Vec<T>,
}

/// Asks `each` about the blocks `0..count`.
pub(super) fn each<S: Send, T: Send>(
    count: u64,
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, u64) -> Result<T, CheckpointError> + Sync,
) -> Result<Done<S, T>, CheckpointError> {
    let threads = rayon::current_num_threads().min(MOST_THREADS);
    let next = AtomicU64::new(0);
    let work = |_: usize| -> Result<(S, Vec<(u64, T)>), CheckpointError> {
        let (mut state, mut answers) = (state(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok((state, answers));
            }
            match each(&mut state, number) {
                Ok(answer) => answers.push((number, answer)),
                Err(error) => {
                    // The others need not go on.
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    // A weight of one block is not worth waking anybody.
    let done: Vec<_> = if count <= 1 || threads <= 1 {
        vec![work(0)]
    } else {
        let threads = threads.min(usize::try_from(count).unwrap_or(usize::MAX));
        (0..threads).into_par_iter().map(work).collect()
    };
    let (mut states, mut answers) = (Vec::new(), Vec::new());
    for one in done {
        let (state, some) = one?;
        states.push(state);
        answers.extend(some);
    }
    answers.sort_unstable_by_key(|(number, _)| *number);
    Ok(Done {
        states,
        answers: answers.into_iter().map(|(_, answer)| answer).collect(),
    })
}
