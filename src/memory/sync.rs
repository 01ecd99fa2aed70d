//! What `lock.rs` and `last.rs` are made of. `tests/orders.rs` puts the instruments of a model checker in its place.

pub(super) use std::cell::UnsafeCell;
pub(super) use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Waits a little, longer with every turn.
pub(super) fn wait(turns: &mut u32) {
    match *turns {
        // The others are done in some nanoseconds, if they run.
        turn @ ..6 => (0..1 << turn).for_each(|_| std::hint::spin_loop()),
        6..1000 => std::thread::yield_now(),
        // Letting others run is not enough where a thread of lower priority has the lock.
        _ => std::thread::sleep(std::time::Duration::from_micros(50)),
    }
    *turns += 1;
}
