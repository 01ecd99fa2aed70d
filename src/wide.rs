//! Loops over numbers that are written once and compiled for wider vectors too.
//!
//! The compiler makes vectors of them, so the loop that is read is the loop that runs, and on every machine it gives what it
//! says. Crates of portable vectors are as wide as what the whole program is compiled for, which for a binary that runs
//! everywhere is half or a quarter of what the machine has.

#![allow(unsafe_code)]

/// A loop that is worth wide vectors. `run` is inlined into its callers.
pub(crate) trait Loop {
    type Out;
    fn run(self) -> Self::Out;
}

/// How far ahead of the bytes in use others are asked for. Measured on Zen 5: at 2 KiB a tenth of the bandwidth is lost, at
/// 16 KiB a little.
const AHEAD: usize = 8 << 10;

/// Asks for the line of memory that is [`AHEAD`] of a place, whatever is there: a stream that is computed with as it comes keeps
/// too few lines on their way by itself.
#[inline(always)]
pub(crate) fn ask_ahead<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program could see, and an address that is not mapped is ignored; it is
        // computed without claiming to lie within anything.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.wrapping_byte_add(AHEAD).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// The same for all lines of some numbers.
#[inline(always)]
pub(crate) fn ask_ahead_of<T>(numbers: &[T]) {
    for line in 0..size_of_val(numbers).div_ceil(64) {
        ask_ahead(numbers.as_ptr().wrapping_byte_add(64 * line));
    }
}

/// Runs a loop as it is compiled for this machine.
pub(crate) fn wide<L: Loop>(it: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
        fn avx512<L: Loop>(it: L) -> L::Out {
            it.run()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<L: Loop>(it: L) -> L::Out {
            it.run()
        }
        if std::arch::is_x86_feature_detected!("fma") {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512dq")
            {
                // SAFETY: the conditions found what the function asks of the machine.
                return unsafe { avx512(it) };
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: the conditions found what the function asks of the machine.
                return unsafe { avx2(it) };
            }
        }
    }
    it.run()
}
