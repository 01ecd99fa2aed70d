//! What the machine can do at most, measured: how fast it reads memory, how many products an instruction set makes, how fast
//! its clock runs.
//!
//! A kernel is judged against these, so they have to be honest: nothing in them but the loads or the instruction itself, on as
//! many threads, beside the kernel in time. Each gives a rate, so that the caller decides how often to look.

use super::{Isa, Pool};
use crate::threads::chunks;
use std::hint::black_box;
use std::time::Instant;

/// Bytes that a thread of the read probe takes at once.
const PIECE: usize = 1 << 20;

/// Gigabytes per second at which all threads together read memory once, in order.
pub fn read_gb_s(bytes: &[u8], pool: &Pool) -> f64 {
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE).collect();
    let start = Instant::now();
    chunks(pool, pieces.len(), 1, &|range| {
        for piece in &pieces[range] {
            black_box(read(piece));
        }
    });
    bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// The same with nothing but loads in a row on each thread: what [`read_gb_s`] must not fall behind.
pub fn plain_read_gb_s(bytes: &[u8], pool: &Pool) -> f64 {
    let share = bytes.len().div_ceil(pool.threads());
    let start = Instant::now();
    pool.run(&|thread| {
        if let Some(bytes) = bytes.chunks(share).nth(thread) {
            black_box(read(bytes));
        }
    });
    bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Multiply-accumulates of 8-bit numbers per second, in units of 10^9, that all threads together make with nothing but the
/// instruction of an instruction set; `None` where it is not one of this machine.
pub fn peak_gmac_s(isa: Isa, pool: &Pool) -> Option<f64> {
    let Peak { steps, macs } = peak(isa)?;
    // Long enough that starting and ending it is a hundredth.
    const TURNS: u64 = 20_000;
    let start = Instant::now();
    pool.run(&|_| steps(TURNS));
    let took = start.elapsed().as_nanos() as f64;
    Some((TURNS * macs) as f64 * pool.threads() as f64 / took)
}

/// Cycles per nanosecond, from instructions of which each waits for the one before; `None` where their latency is not known.
pub fn clock_ghz() -> Option<f64> {
    const TURNS: u64 = 100_000;
    let start = Instant::now();
    let cycles = dependent(TURNS)?;
    Some(cycles as f64 / start.elapsed().as_nanos() as f64)
}

/// An instruction, many times over.
struct Peak {
    /// Does it in so many turns.
    steps: fn(u64),
    /// Products of a turn.
    macs: u64,
}

#[cfg(target_arch = "x86_64")]
fn peak(isa: Isa) -> Option<Peak> {
    let has = |found: bool, steps: fn(u64), macs| found.then_some(Peak { steps, macs });
    match isa {
        Isa::Avx512 => has(
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512vnni"),
            // SAFETY: the line above found the instruction.
            |turns| unsafe { x86::vpdpbusd_zmm(turns) },
            x86::CHAINS * 64,
        ),
        Isa::AvxVnni => has(
            std::arch::is_x86_feature_detected!("avxvnni"),
            // SAFETY: the line above found the instruction.
            |turns| unsafe { x86::vpdpbusd_ymm(turns) },
            x86::CHAINS * 32,
        ),
        Isa::Avx2 => has(
            std::arch::is_x86_feature_detected!("avx2"),
            // SAFETY: the line above found the instruction.
            |turns| unsafe { x86::vpmaddubsw_ymm(turns) },
            x86::CHAINS * 32,
        ),
        _ => None,
    }
}

#[cfg(target_arch = "aarch64")]
fn peak(isa: Isa) -> Option<Peak> {
    let has = |found: bool, steps: fn(u64), macs| found.then_some(Peak { steps, macs });
    match isa {
        Isa::DotProd => has(
            std::arch::is_aarch64_feature_detected!("dotprod"),
            // SAFETY: the line above found the instruction.
            |turns| unsafe { arm::sdot(turns) },
            arm::CHAINS * 16,
        ),
        Isa::I8mm => has(
            std::arch::is_aarch64_feature_detected!("i8mm"),
            // SAFETY: the line above found the instruction.
            |turns| unsafe { arm::smmla(turns) },
            arm::CHAINS * 32,
        ),
        _ => None,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn peak(_: Isa) -> Option<Peak> {
    None
}

/// Reads all bytes.
fn read(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the condition found what the function asks of the machine.
            return unsafe { x86::read_zmm(bytes) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the condition found what the function asks of the machine.
            return unsafe { x86::read_ymm(bytes) };
        }
    }
    or(bytes)
}

/// All bytes in one number. Written once; the compiler makes vectors of it.
#[inline(always)]
fn or(bytes: &[u8]) -> u64 {
    let (lines, _) = bytes.as_chunks::<64>();
    let mut all = [[0u64; 8]; 4];
    for four in lines.chunks_exact(4) {
        for (all, line) in all.iter_mut().zip(four) {
            let (words, _) = line.as_chunks::<8>();
            for (all, word) in all.iter_mut().zip(words) {
                *all |= u64::from_le_bytes(*word);
            }
        }
    }
    all.iter().flatten().fold(0, |all, word| all | word)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// Sums that do not wait for each other: more than the latency of any of these instructions times two a cycle.
    pub(super) const CHAINS: u64 = 12;

    /// Loads four vectors a turn, so that the turn itself costs nothing.
    macro_rules! loads {
        ($name:ident, $feature:literal, $bytes:literal, $load:ident, $or:ident, $zero:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(bytes: &[u8]) -> u64 {
                let mut all = [$zero(); 4];
                let (vectors, _) = bytes.as_chunks::<$bytes>();
                for four in vectors.chunks_exact(4) {
                    for (all, vector) in all.iter_mut().zip(four) {
                        // SAFETY: the chunk is as long as the vector.
                        *all = $or(*all, unsafe { $load(vector.as_ptr().cast()) });
                    }
                }
                let all = $or($or(all[0], all[1]), $or(all[2], all[3]));
                // SAFETY: every bit pattern of a vector is one of these words.
                let words: [u64; $bytes / 8] = unsafe { std::mem::transmute(all) };
                words[0]
            }
        };
    }
    loads!(
        read_zmm,
        "avx512f",
        64,
        _mm512_loadu_si512,
        _mm512_or_si512,
        _mm512_setzero_si512
    );
    loads!(
        read_ymm,
        "avx2",
        32,
        _mm256_loadu_si256,
        _mm256_or_si256,
        _mm256_setzero_si256
    );

    /// One instruction on each of twelve registers, so many times.
    macro_rules! chains {
        ($name:ident, $feature:literal, $class:ident, $instruction:literal) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(turns: u64) {
                // SAFETY: only registers that are named below are written, and a loop of `turns` ends.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, "0, {x}, {x}"), concat!($instruction, "1, {x}, {x}"),
                        concat!($instruction, "2, {x}, {x}"), concat!($instruction, "3, {x}, {x}"),
                        concat!($instruction, "4, {x}, {x}"), concat!($instruction, "5, {x}, {x}"),
                        concat!($instruction, "6, {x}, {x}"), concat!($instruction, "7, {x}, {x}"),
                        concat!($instruction, "8, {x}, {x}"), concat!($instruction, "9, {x}, {x}"),
                        concat!($instruction, "10, {x}, {x}"), concat!($instruction, "11, {x}, {x}"),
                        "dec {turns}",
                        "jnz 2b",
                        turns = inout(reg) turns.max(1) => _,
                        x = out($class) _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                        out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                        out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }
    chains!(vpdpbusd_zmm, "avx512f,avx512vnni", zmm_reg, "vpdpbusd zmm");
    chains!(vpdpbusd_ymm, "avx,avxvnni", ymm_reg, "{{vex}} vpdpbusd ymm");
    chains!(vpmaddubsw_ymm, "avx2", ymm_reg, "vpmaddubsw ymm");
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::asm;

    /// Sums that do not wait for each other.
    pub(super) const CHAINS: u64 = 16;

    /// One instruction on each of sixteen registers, so many times.
    macro_rules! chains {
        ($name:ident, $feature:literal, $instruction:literal) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name(turns: u64) {
                // SAFETY: only registers that are named below are written, and a loop of `turns` ends.
                unsafe {
                    asm!(
                        "2:",
                        concat!($instruction, " v0.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v1.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v2.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v3.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v4.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v5.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v6.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v7.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v8.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v9.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v10.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v11.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v12.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v13.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v14.4s, v16.16b, v17.16b"),
                        concat!($instruction, " v15.4s, v16.16b, v17.16b"),
                        "subs {turns}, {turns}, #1",
                        "b.ne 2b",
                        turns = inout(reg) turns.max(1) => _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
                        out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                        out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
                        options(nomem, nostack),
                    );
                }
            }
        };
    }
    chains!(sdot, "dotprod", "sdot");
    chains!(smmla, "i8mm", "smmla");
}

/// Runs so many turns of instructions of which each waits for the one before, and says how many cycles that takes.
#[cfg(target_arch = "x86_64")]
fn dependent(turns: u64) -> Option<u64> {
    // A multiplication of 64 bits takes 3 cycles on every x86-64 processor since 2008, and none is done at renaming.
    // SAFETY: only registers that are named below are written, and a loop of `turns` ends.
    unsafe {
        std::arch::asm!(
            "2:",
            "imul {x}, {x}", "imul {x}, {x}", "imul {x}, {x}", "imul {x}, {x}",
            "imul {x}, {x}", "imul {x}, {x}", "imul {x}, {x}", "imul {x}, {x}",
            "dec {turns}",
            "jnz 2b",
            turns = inout(reg) turns => _,
            x = out(reg) _,
            options(nomem, nostack),
        );
    }
    Some(turns * 8 * 3)
}

/// The same on aarch64, where an addition of registers takes a cycle.
#[cfg(target_arch = "aarch64")]
fn dependent(turns: u64) -> Option<u64> {
    // SAFETY: only registers that are named below are written, and a loop of `turns` ends.
    unsafe {
        std::arch::asm!(
            "2:",
            "add {x}, {x}, {turns}", "add {x}, {x}, {turns}", "add {x}, {x}, {turns}", "add {x}, {x}, {turns}",
            "add {x}, {x}, {turns}", "add {x}, {x}, {turns}", "add {x}, {x}, {turns}", "add {x}, {x}, {turns}",
            "subs {turns}, {turns}, #1",
            "b.ne 2b",
            turns = inout(reg) turns => _,
            x = out(reg) _,
            options(nomem, nostack),
        );
    }
    Some(turns * 8)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn dependent(_: u64) -> Option<u64> {
    None
}
