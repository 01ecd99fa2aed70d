//! All kernels, which of them run here, and which is best.

use super::multiply::Finish;
use super::packing::{BLOCK_BYTES, Packing, ROWS};
use super::{KernelError, TOKENS, scalar};
use std::ops::Deref;
use std::sync::OnceLock;

/// The sums of one group for a single token. Unsafe, because it may only run where its instructions exist.
type One = unsafe fn(group: &[u8], x: &[i8], out: &mut [i32; ROWS]);

/// The same for a block of 1 to 8 tokens; `out` is `[tokens][32]`.
type Some = unsafe fn(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]);

/// Makes numbers of sums with the vectors of an instruction set.
type FinishWith = unsafe fn(&Finish<'_>, &[i32], &mut [f32]);

/// The instructions that a kernel is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// None in particular.
    Scalar,
    /// 256-bit vectors of x86-64.
    Avx2,
    /// Their dot product of bytes.
    AvxVnni,
    /// 512-bit vectors of x86-64 with the dot product.
    Avx512,
    /// 128-bit vectors of aarch64.
    Neon,
    /// Their dot product of bytes.
    DotProd,
    /// Their products of small matrices of bytes.
    I8mm,
}

impl Isa {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::DotProd => "dotprod",
            Isa::I8mm => "i8mm",
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Kernel {
    /// What it is called: instructions and packing.
    pub name: &'static str,
    /// Its instructions.
    pub isa: Isa,
    /// What it reads.
    pub packing: Packing,
    /// What the machine must have, in words.
    pub needs: &'static str,
    runs_here: fn() -> bool,
    /// Its place among the kernels of a packing for one token and for many: the higher, the better.
    rank: (u8, u8),
    one: One,
    some: Some,
    finish: FinishWith,
}

/// A kernel whose instructions this machine has. Having one is the proof.
#[derive(Clone, Copy, Debug)]
pub struct Runnable(&'static Kernel);

impl PartialEq for Runnable {
    fn eq(&self, other: &Runnable) -> bool {
        self.name == other.name
    }
}

impl Deref for Runnable {
    type Target = Kernel;
    fn deref(&self) -> &Kernel {
        self.0
    }
}

impl Runnable {
    /// The sums of one group for a single token.
    #[inline]
    pub(super) fn one(self, group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
        self.fits(group, x, 1, ROWS);
        // SAFETY: a `Runnable` is only made of a kernel whose instructions were found; lengths fit, as the line above found.
        unsafe { (self.0.one)(group, x, out) }
    }

    /// The sums of one group for a block of tokens.
    #[inline]
    pub(super) fn some(self, group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
        self.fits(group, x, tokens, out.len());
        // SAFETY: as above.
        unsafe { (self.0.some)(group, x, tokens, out) }
    }

    /// Makes numbers of sums.
    #[inline]
    pub(super) fn finish(self, finish: &Finish<'_>, sums: &[i32], out: &mut [f32]) {
        // SAFETY: a `Runnable` is only made of a kernel whose instructions were found.
        unsafe { (self.0.finish)(finish, sums, out) }
    }

    /// What a kernel relies on: whole blocks, as many columns of every token, a place for every sum.
    #[inline]
    fn fits(self, group: &[u8], x: &[i8], tokens: usize, out: usize) {
        let cols = group.len() / BLOCK_BYTES * self.packing.block_cols();
        let whole = group.len().is_multiple_of(BLOCK_BYTES);
        assert!(
            whole && x.len() == cols * tokens,
            "whole blocks of {tokens} tokens"
        );
        assert!(
            (1..=TOKENS).contains(&tokens) && out == tokens * ROWS,
            "a sum for each"
        );
    }
}

fn always() -> bool {
    true
}

fn finish(finish: &Finish<'_>, sums: &[i32], out: &mut [f32]) {
    finish.run(sums, out);
}

/// All kernels of this architecture.
pub static KERNELS: &[Kernel] = &[
    Kernel {
        name: "scalar-2.0",
        isa: Isa::Scalar,
        packing: Packing::Planes,
        needs: "nothing",
        runs_here: always,
        rank: (0, 0),
        one: scalar::one::<false>,
        some: scalar::some::<false>,
        finish,
    },
    Kernel {
        name: "scalar-1.6",
        isa: Isa::Scalar,
        packing: Packing::Trits,
        needs: "nothing",
        runs_here: always,
        rank: (0, 0),
        one: scalar::one::<true>,
        some: scalar::some::<true>,
        finish,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx512-2.0",
        isa: Isa::Avx512,
        packing: Packing::Planes,
        needs: "AVX-512 F, BW and VNNI",
        runs_here: || {
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni")
        },
        rank: (3, 3),
        one: super::x86::avx512::one,
        some: super::x86::avx512::some,
        finish: super::x86::avx512::finish,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx512-1.6",
        isa: Isa::Avx512,
        packing: Packing::Trits,
        needs: "AVX-512 F, BW, VNNI and VBMI",
        runs_here: || {
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vnni")
                && std::arch::is_x86_feature_detected!("avx512vbmi")
        },
        rank: (3, 3),
        one: super::x86::avx512_trits::one,
        some: super::x86::avx512_trits::some,
        finish: super::x86::avx512::finish,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avxvnni-2.0",
        isa: Isa::AvxVnni,
        packing: Packing::Planes,
        needs: "AVX2 and AVX-VNNI",
        runs_here: || {
            std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("avxvnni")
        },
        rank: (2, 2),
        one: super::x86::avxvnni::one,
        some: super::x86::avxvnni::some,
        finish: super::x86::avx2::finish,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx2-2.0",
        isa: Isa::Avx2,
        packing: Packing::Planes,
        needs: "AVX2",
        runs_here: || std::arch::is_x86_feature_detected!("avx2"),
        rank: (1, 1),
        one: super::x86::avx2::one,
        some: super::x86::avx2::some,
        finish: super::x86::avx2::finish,
    },
    #[cfg(target_arch = "x86_64")]
    Kernel {
        name: "avx2-1.6",
        isa: Isa::Avx2,
        packing: Packing::Trits,
        needs: "AVX2",
        runs_here: || std::arch::is_x86_feature_detected!("avx2"),
        rank: (1, 1),
        one: super::x86::avx2_trits::one,
        some: super::x86::avx2_trits::some,
        finish: super::x86::avx2::finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "i8mm-2.0",
        isa: Isa::I8mm,
        packing: Packing::Planes,
        needs: "the dot products and matrix products of bytes (DotProd, I8MM)",
        runs_here: || {
            std::arch::is_aarch64_feature_detected!("dotprod")
                && std::arch::is_aarch64_feature_detected!("i8mm")
        },
        rank: (3, 3),
        one: super::arm::dotprod::one::<false>,
        some: super::arm::i8mm::some::<false>,
        finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "i8mm-1.6",
        isa: Isa::I8mm,
        packing: Packing::Trits,
        needs: "the dot products and matrix products of bytes (DotProd, I8MM)",
        runs_here: || {
            std::arch::is_aarch64_feature_detected!("dotprod")
                && std::arch::is_aarch64_feature_detected!("i8mm")
        },
        rank: (3, 3),
        one: super::arm::dotprod::one::<true>,
        some: super::arm::i8mm::some::<true>,
        finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "dotprod-2.0",
        isa: Isa::DotProd,
        packing: Packing::Planes,
        needs: "the dot products of bytes (DotProd)",
        runs_here: || std::arch::is_aarch64_feature_detected!("dotprod"),
        rank: (2, 2),
        one: super::arm::dotprod::one::<false>,
        some: super::arm::dotprod::some::<false>,
        finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "dotprod-1.6",
        isa: Isa::DotProd,
        packing: Packing::Trits,
        needs: "the dot products of bytes (DotProd)",
        runs_here: || std::arch::is_aarch64_feature_detected!("dotprod"),
        rank: (2, 2),
        one: super::arm::dotprod::one::<true>,
        some: super::arm::dotprod::some::<true>,
        finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "neon-2.0",
        isa: Isa::Neon,
        packing: Packing::Planes,
        needs: "NEON",
        runs_here: || std::arch::is_aarch64_feature_detected!("neon"),
        rank: (1, 1),
        one: super::arm::neon::one::<false>,
        some: super::arm::neon::some::<false>,
        finish,
    },
    #[cfg(target_arch = "aarch64")]
    Kernel {
        name: "neon-1.6",
        isa: Isa::Neon,
        packing: Packing::Trits,
        needs: "NEON",
        runs_here: || std::arch::is_aarch64_feature_detected!("neon"),
        rank: (1, 1),
        one: super::arm::neon::one::<true>,
        some: super::arm::neon::some::<true>,
        finish,
    },
];

/// The kernels that this machine runs, found once.
pub fn available() -> &'static [Runnable] {
    static FOUND: OnceLock<Vec<Runnable>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let here = KERNELS.iter().filter(|kernel| (kernel.runs_here)());
        here.map(Runnable).collect()
    })
}

/// The best kernel of a packing for so many tokens.
pub fn best(packing: Packing, tokens: usize) -> Runnable {
    let rank = |kernel: &Runnable| {
        if tokens == 1 {
            kernel.rank.0
        } else {
            kernel.rank.1
        }
    };
    let of_packing = available()
        .iter()
        .filter(|kernel| kernel.packing == packing);
    *of_packing
        .max_by_key(|kernel| rank(kernel))
        .expect("the scalar kernels run everywhere")
}

/// The kernel of some instructions, if this machine has them, else the scalar one.
pub fn best_of(isa: Isa, packing: Packing) -> Runnable {
    let mut of_packing = available()
        .iter()
        .filter(|kernel| kernel.packing == packing);
    let found = of_packing.clone().find(|kernel| kernel.isa == isa);
    *found
        .or_else(|| of_packing.next())
        .expect("the scalar kernels run everywhere, and are the first")
}

/// The kernel of a name, if this machine runs it.
pub fn by_name(name: &str) -> Result<Runnable, KernelError> {
    if let Some(kernel) = available().iter().find(|kernel| kernel.name == name) {
        return Ok(*kernel);
    }
    let runs: Vec<&str> = available().iter().map(|kernel| kernel.name).collect();
    let runs = runs.join(", ");
    if let Some(kernel) = KERNELS.iter().find(|kernel| kernel.name == name) {
        return Err(KernelError::Lacking {
            name: kernel.name,
            needs: kernel.needs,
            runs,
        });
    }
    Err(KernelError::Unknown {
        name: name.into(),
        hint: crate::formula::did_you_mean(name, KERNELS.iter().map(|kernel| kernel.name)),
        runs,
    })
}
