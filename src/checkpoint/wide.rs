//! Loops that are worth the widest vectors of x86-64.
//!
//! They are written once, for one number after the other, and compiled a second time for AVX2: the compiler makes vectors of
//! them, so the loop that is read is the loop that runs. On other machines the vectors of the target's baseline do, which on
//! aarch64 is NEON.

#![allow(unsafe_code)]

/// A loop that is worth wide vectors. `run` is inlined into its two callers.
pub(super) trait Loop {
    type Out;
    fn run(self) -> Self::Out;
}

/// Runs a loop as it is compiled for this machine.
pub(super) fn widest<L: Loop>(it: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
        return unsafe { avx2(it) };
    }
    it.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<L: Loop>(it: L) -> L::Out {
    it.run()
}
