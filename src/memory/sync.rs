//! What `lock.rs` is made of. A test puts the instruments of a model checker in its place (`tests/memory.rs`).

pub(super) use std::cell::UnsafeCell;
pub(super) use std::sync::atomic::{AtomicBool, Ordering};

/// Waits a little, longer with every turn.
pub(super) fn wait(turns: &mut u32) {
    *turns += 1;
    match *turns {
        ..64 => std::hint::spin_loop(),
        64..1024 => std::thread::yield_now(),
        // Letting others run is not enough where a thread of lower priority has the lock.
        _ => std::thread::sleep(std::time::Duration::from_micros(50)),
    }
}
