//! Both packings with products of small matrices: 2 rows of 8 codes by 2 tokens of 8 activations, four sums in a vector.
//!
//! Rows lie as four codes of a plane to a lane, so the 8 codes of a row are those of a plane in two neighbouring blocks: the
//! lanes of both, zipped, are 2 rows, and what they are is decoded afterwards. The 8 activations of a token come of two places
//! likewise. A single token has no use for the second column of a product; it goes through the dot product.

use super::super::TOKENS;
use super::super::packing::{BLOCK_BYTES, Packing, ROWS};
use super::codes::{Codes, Reader, packing};
use super::{VECTORS, dotprod, fours, load, store};
use std::arch::aarch64::*;
use std::arch::asm;

/// Adds the products of 2 rows and 2 tokens; the sums are those of row 0 with tokens 0 and 1, then those of row 1.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn product(mut sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: it reads and writes these registers only, and who calls it has the instruction.
    unsafe {
        asm!(
            "usmmla {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The lanes of two vectors, zipped: 2 rows of 8 codes, and 2 more.
#[inline]
#[target_feature(enable = "neon")]
fn zip_rows(first: uint8x16_t, second: uint8x16_t) -> [uint8x16_t; 2] {
    let (first, second) = (vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second));
    [vzip1q_u32(first, second), vzip2q_u32(first, second)].map(|rows| vreinterpretq_u8_u32(rows))
}

/// The same of activations: 2 tokens of 8.
#[inline]
#[target_feature(enable = "neon")]
fn zip_tokens(first: int8x16_t, second: int8x16_t) -> [int8x16_t; 2] {
    let (first, second) = (vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
    [vzip1q_s32(first, second), vzip2q_s32(first, second)].map(|x| vreinterpretq_s8_s32(x))
}

/// A block of tokens.
///
/// A last block without a neighbour is taken together with itself and with activations of 0; tokens that are no eight are taken
/// by fours and twos. Largest intermediate: 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "dotprod,i8mm")]
pub(in super::super) fn some<const TRITS: bool>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    out: &mut [i32],
) {
    let mut first = 0;
    while first < tokens {
        first += match tokens - first {
            8.. => tile::<TRITS, 8, 4, 2>(group, x, tokens, first, out),
            4.. => tile::<TRITS, 4, 2, 4>(group, x, tokens, first, out),
            2.. => tile::<TRITS, 2, 1, 8>(group, x, tokens, first, out),
            _ => dotprod::tile::<TRITS, 1, 8>(group, x, tokens, first, out),
        };
    }
}

/// The sums of `T` tokens from the first on, which are `P` pairs, `V` vectors of rows at a time. Gives `T`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn tile<const TRITS: bool, const T: usize, const P: usize, const V: usize>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    first: usize,
    out: &mut [i32],
) -> usize {
    let packing = const { packing(TRITS) };
    let reader = Reader::<TRITS>::new();
    let block_x = packing.block_cols() * tokens;
    let zeros = &[0; Packing::Trits.block_cols() * TOKENS][..block_x];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for vector in (0..VECTORS).step_by(V) {
        let mut sums = [[[vdupq_n_s32(0); P]; 2]; V];
        for (blocks, x) in blocks.chunks(2).zip(x.chunks(2 * block_x)) {
            let (a, b) = (&blocks[0], blocks.get(1).unwrap_or(&blocks[0]));
            let bytes = (load::<V>(a, vector), load::<V>(b, vector));
            let mut codes = [[reader.codes(vdupq_n_u8(0)); 2]; V];
            for (number, codes) in codes.iter_mut().enumerate() {
                *codes = zip_rows(bytes.0[number], bytes.1[number]).map(|rows| reader.codes(rows));
            }
            let (of_a, of_b) = x.split_at(block_x);
            let of_b = if of_b.is_empty() { zeros } else { of_b };
            let x = |plane: usize| {
                let at = (plane * tokens + first) * 4;
                (&of_a[at..], &of_b[at..])
            };
            add::<0, T, P, V>(&mut sums, &codes, x(0));
            add::<1, T, P, V>(&mut sums, &codes, x(1));
            add::<2, T, P, V>(&mut sums, &codes, x(2));
            add::<3, T, P, V>(&mut sums, &codes, x(3));
            if TRITS {
                add::<4, T, P, V>(&mut sums, &codes, x(4));
            }
        }
        for (number, [low, high]) in sums.into_iter().enumerate() {
            let of_tokens = out[first..].chunks_exact_mut(2);
            for ((low, high), out) in low.into_iter().zip(high).zip(of_tokens) {
                store(vuzp1q_s32(low, high), vector + number, &mut out[0]);
                store(vuzp2q_s32(low, high), vector + number, &mut out[1]);
            }
        }
    }
    T
}

/// Adds the products of a plane of two blocks; `x` begins with its activations of the first token in both.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn add<const PLANE: usize, const T: usize, const P: usize, const V: usize>(
    sums: &mut [[[int32x4_t; P]; 2]; V],
    codes: &[[Codes; 2]; V],
    x: (&[i8], &[i8]),
) {
    let (a, b) = (fours::<T>(x.0), fours::<T>(x.1));
    let x = [zip_tokens(a[0], b[0]), zip_tokens(a[1], b[1])];
    for (codes, sums) in codes.iter().zip(sums) {
        for (codes, sums) in codes.iter().zip(sums) {
            let codes = codes.plane::<PLANE>();
            for (pair, sum) in sums.iter_mut().enumerate() {
                *sum = product(*sum, codes, x[pair / 2][pair % 2]);
            }
        }
    }
}
