//! The same work on several things at once, at most so many at a time: answers in order, or the first error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does the work on all items, on at most `most` threads. After an error no further item is begun.
pub(super) fn each<T: Sync, R: Send, E: Send>(
    items: &[T],
    most: usize,
    work: impl Fn(usize, &T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::default();
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            let result = work(at, item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..most.min(items.len()) {
            scope.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let doubled: Result<Vec<u64>, ()> = each(&items, 8, |_, n| Ok(n * 2));
        assert_eq!(doubled, Ok(items.iter().map(|n| n * 2).collect()));
    }

    #[test]
    fn nothing_is_begun_after_an_error() {
        let begun = AtomicUsize::new(0);
        let items = vec![(); 1000];
        let result: Result<Vec<()>, usize> = each(&items, 1, |at, ()| {
            begun.fetch_add(1, Ordering::Relaxed);
            if at == 3 { Err(at) } else { Ok(()) }
        });
        assert_eq!((result, begun.into_inner()), (Err(3), 4));
    }
}
