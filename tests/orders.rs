//! Every order in which threads can meet at a pool's lock, and at its end, by a model checker:
//! `RUSTFLAGS="--cfg bitcost_loom" cargo test --test orders`. Without the flag there is nothing to run here.

#![cfg(bitcost_loom)]
#![allow(unsafe_code, dead_code)]

#[path = "../src/memory/last.rs"]
mod last;
#[path = "../src/memory/lock.rs"]
mod lock;

/// What both are made of, as the model checker sees it.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    #[derive(Debug, Default)]
    pub(super) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(loom::cell::UnsafeCell::new(value))
        }

        /// Each is taken for a write, which nothing may be beside.
        pub(super) fn get(&self) -> *mut T {
            self.0.with_mut(|value| value)
        }
    }

    pub(super) fn wait(_: &mut u32) {
        unreachable!("nobody waits here");
    }
}

use last::Last;
use lock::Lock;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The checker never ends where a thread waits for a plain store, so nobody waits here: `lock` is `try_lock` until it succeeds.
#[test]
fn one_thread_at_a_time_has_the_value_and_sees_what_the_last_wrote() {
    loom::model(|| {
        let lock = Arc::new(Lock::new(0));
        let attempts = |lock: Arc<Lock<i32>>| {
            move || {
                let attempt = |_: &i32| lock.try_lock().map(|mut value| *value += 1).is_some();
                (0..2).filter(attempt).count() as i32
            }
        };
        let other = thread::spawn(attempts(lock.clone()));
        let here = attempts(lock.clone())();
        let there = other.join().expect("ends");
        // Once is sure: who came first found it free.
        assert!(here + there >= 1);
        assert_eq!(*lock.try_lock().expect("all are done"), here + there);
    });
}

/// As a pool ends: blocks come back to one front or the other, while the last handle tells the fronts and sums what they know.
#[test]
fn one_is_the_last_in_every_order() {
    struct Front {
        closed: bool,
        live: i64,
    }
    loom::model(|| {
        let front = |live| {
            Mutex::new(Front {
                closed: false,
                live,
            })
        };
        let fronts = Arc::new(([front(2), front(0)], Last::new(), AtomicUsize::new(0)));
        let come_back = |number: usize| {
            let shared = fronts.clone();
            move || {
                let (fronts, last, ends) = &*shared;
                let mut front = fronts[number].lock().expect("whole");
                if front.closed {
                    drop(front);
                    if last.leave() {
                        ends.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    front.live -= 1;
                }
            }
        };
        let blocks = [thread::spawn(come_back(0)), thread::spawn(come_back(1))];
        {
            let (fronts, last, ends) = &*fronts;
            let mut live = 0;
            for front in fronts {
                let mut front = front.lock().expect("whole");
                front.closed = true;
                live += front.live;
            }
            if last.begin(live) {
                ends.fetch_add(1, Ordering::Relaxed);
            }
        }
        for block in blocks {
            block.join().expect("ends");
        }
        assert_eq!(fronts.2.load(Ordering::Relaxed), 1);
    });
}
