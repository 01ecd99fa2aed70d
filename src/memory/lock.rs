//! A lock whose release is a plain store.
//!
//! The standard mutex costs an atomic exchange when it is taken and one when it is given back, 5 ns each here, which is more
//! than all else that giving out a block costs. Giving this one back is a store, at the price that nobody is woken: who waits
//! spins, lets others run, and then sleeps a little, so that a holder that was interrupted comes to its end. It is meant for
//! critical sections of some nanoseconds that call nothing unknown.

use super::sync::{AtomicBool, Ordering, UnsafeCell, wait};
use std::ops::{Deref, DerefMut};

/// A value for one thread at a time.
#[derive(Debug, Default)]
// On lines of its own, so that threads with different locks do not wait for each other; processors fetch lines in pairs.
#[repr(align(128))]
pub(super) struct Lock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a guard is the only way to the value, and `try_lock` makes one only where `held` was false and is now true, so there
// is one at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The value, until it is dropped.
pub(super) struct Guard<'l, T> {
    lock: &'l Lock<T>,
}

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if no other thread has it.
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // `Acquire` meets the `Release` of the last holder: what it wrote is seen here.
        let taken = self
            .held
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        // A guard that is made gives the lock back in the end, so none is made where the lock is another's.
        taken.is_ok().then(|| Guard { lock: self })
    }

    /// The value, as soon as no other thread has it.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        let mut turns = 0;
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            wait(&mut turns);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one of its lock, and it is borrowed as what it gives is.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one of its lock, and it is borrowed as what it gives is.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}
