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

/// Asks for the line of memory at a place, which need not be there: a stream that is computed with as it comes keeps too few
/// lines on their way by itself.
#[inline(always)]
pub(crate) fn soon<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch does nothing to the program, whatever the address, and every processor of x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// How far ahead of the numbers in use lines are asked for, in bytes.
pub(crate) const AHEAD: usize = 8 << 10;

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
