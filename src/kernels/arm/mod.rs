//! Kernels for the vectors of aarch64.
//!
//! All of them read a group as it lies: a vector of 128 bits is 4 rows, eight of them are a block, and the four bytes of a
//! lane meet four neighbouring activations of a plane. They differ in what multiplies: products of bytes into 16 bits, dot
//! products of four bytes, products of small matrices. The intrinsics of the last two are not stable, so each is one
//! instruction of inline assembly; beside loads and stores these and the prefetch are all that is `unsafe` here.
//!
//! - `codes.rs`: the codes of both packings out of bytes
//! - `neon.rs`, `dotprod.rs`, `i8mm.rs`: the kernels
//!
//! Tokens of a block are taken by eights, fours, twos and ones, and the fewer they are the more rows are taken at once: always
//! sixteen sums, which together with what they are made of fill the 32 registers.

mod codes;
pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod neon;

use super::packing::{BLOCK_BYTES, ROWS};
use std::arch::aarch64::*;
use std::arch::asm;

/// Vectors of a block, 4 rows each.
const VECTORS: usize = 8;

/// How far ahead of their use packed bytes are asked for, as on x86-64; not measured on a machine of this kind.
const AHEAD: usize = 8 << 10;

/// Asks for the cache lines `AHEAD` of a block. What lies beyond the end of a group is the next; beyond the last is nothing.
#[inline(always)]
fn ask_ahead(block: &[u8; BLOCK_BYTES]) {
    let place = block.as_ptr().wrapping_add(AHEAD);
    // SAFETY: a prefetch reads nothing that the program could see, and an address that is not mapped is ignored.
    unsafe {
        asm!(
            "prfm pldl1keep, [{place}]",
            "prfm pldl1keep, [{place}, #64]",
            place = in(reg) place,
            options(readonly, nostack, preserves_flags)
        );
    }
}

/// Neighbouring vectors of a block.
#[inline]
#[target_feature(enable = "neon")]
fn load<const V: usize>(block: &[u8; BLOCK_BYTES], first: usize) -> [uint8x16_t; V] {
    let (vectors, _) = block.as_chunks::<16>();
    let mut out = [vdupq_n_u8(0); V];
    for (out, bytes) in out.iter_mut().zip(&vectors[first..][..V]) {
        // SAFETY: these are 16 bytes: one vector.
        *out = unsafe { vld1q_u8(bytes.as_ptr()) };
    }
    out
}

/// Writes the sums of the 4 rows of a vector.
#[inline]
#[target_feature(enable = "neon")]
fn store(sums: int32x4_t, vector: usize, out: &mut [i32; ROWS]) {
    let (vectors, _) = out.as_chunks_mut::<4>();
    // SAFETY: these are 4 numbers of 4 bytes: one vector.
    unsafe { vst1q_s32(vectors[vector].as_mut_ptr(), sums) }
}

/// Four activations of each of some tokens, as one or two vectors of four lanes: token t is lane t % 4 of vector t / 4. Lanes
/// beyond the tokens, of which there are 1, 2, 4 or 8, hold anything.
#[inline]
#[target_feature(enable = "neon")]
fn fours<const T: usize>(x: &[i8]) -> [int8x16_t; 2] {
    let x = &x[..4 * T];
    // SAFETY: each load reads at most the 4 T bytes that the line above found.
    unsafe {
        match T {
            8 => [vld1q_s8(x.as_ptr()), vld1q_s8(x[16..].as_ptr())],
            4 => [vld1q_s8(x.as_ptr()); 2],
            2 => [vcombine_s8(vld1_s8(x.as_ptr()), vld1_s8(x.as_ptr())); 2],
            _ => [broadcast(x); 2],
        }
    }
}

/// Four activations in every lane.
#[inline]
#[target_feature(enable = "neon")]
fn broadcast(x: &[i8]) -> int8x16_t {
    let x = [x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8];
    vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes(x)))
}
