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
