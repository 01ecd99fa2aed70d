//! Both packings with dot products of four bytes: a lane is a row, and four activations are a lane of another vector.

use super::super::packing::{BLOCK_BYTES, ROWS};
use super::codes::{Codes, Reader, packing};
use super::{VECTORS, ask_ahead, fours, load, store};
use std::arch::aarch64::*;
use std::arch::asm;

/// Adds to each lane the products of its four codes with the four activations of a lane of `x`. Codes are below 128, so that
/// it does not matter that the instruction takes them as signed.
#[inline]
#[target_feature(enable = "dotprod")]
fn dot<const LANE: usize>(mut sums: int32x4_t, codes: uint8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: it reads and writes these registers only, and who calls it has the instruction.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The same where the lane is known once a loop is unrolled.
#[inline]
#[target_feature(enable = "dotprod")]
fn dot_lane(sums: int32x4_t, codes: uint8x16_t, x: int8x16_t, lane: usize) -> int32x4_t {
    match lane {
        0 => dot::<0>(sums, codes, x),
        1 => dot::<1>(sums, codes, x),
        2 => dot::<2>(sums, codes, x),
        _ => dot::<3>(sums, codes, x),
    }
}

/// One token. Planes 1 and 2 are multiplied where they stand and their sums shifted at the end; the shift that keeps plane 3
/// from being negative brings it to plane 0, whose sum it joins, as plane 4 does. An unsigned dot product would save nothing:
/// it takes an `and` in place of the shift, and eight sums more than there are registers.
///
/// Columns are whole blocks, so there are no tails. Largest intermediate: plane 2 takes at most 4 * 32 * 128 from a block, and
/// [`super::super::packing::MAX_COLS`] columns are 2^14 blocks: 2^28.
#[target_feature(enable = "dotprod")]
pub(in super::super) fn one<const TRITS: bool>(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    let packing = const { packing(TRITS) };
    let reader = Reader::<TRITS>::new();
    let masks = [0x03, 0x0c, 0x30].map(|mask| vdupq_n_u8(mask));
    let mut sums = [[vdupq_n_s32(0); 3]; VECTORS];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    for (block, x) in blocks.iter().zip(x.chunks_exact(packing.block_cols())) {
        ask_ahead(block);
        let [first_four, _] = fours::<4>(x);
        for (sums, bytes) in sums.iter_mut().zip(load::<VECTORS>(block, 0)) {
            let codes = reader.codes(bytes);
            let plane = |plane: usize| vandq_u8(codes.planes, masks[plane]);
            sums[0] = dot::<0>(sums[0], plane(0), first_four);
            sums[1] = dot::<1>(sums[1], plane(1), first_four);
            sums[2] = dot::<2>(sums[2], plane(2), first_four);
            sums[0] = dot::<3>(sums[0], codes.plane::<3>(), first_four);
            if TRITS {
                let [fifth, _] = fours::<1>(&x[16..]);
                sums[0] = dot::<0>(sums[0], codes.last, fifth);
            }
        }
    }
    for (vector, sums) in sums.into_iter().enumerate() {
        let shifted = vaddq_s32(vshrq_n_s32::<2>(sums[1]), vshrq_n_s32::<4>(sums[2]));
        store(vaddq_s32(sums[0], shifted), vector, out);
    }
}

/// A block of tokens: the codes of a plane are shifted down once and used for all tokens.
///
/// Columns are whole blocks, and tokens that are no eight are taken by fours, twos and ones. Largest intermediate: 2 * 128 for
/// each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "dotprod")]
pub(in super::super) fn some<const TRITS: bool>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    out: &mut [i32],
) {
    let mut first = 0;
    while first < tokens {
        first += match tokens - first {
            8.. => tile::<TRITS, 8, 2>(group, x, tokens, first, out),
            4.. => tile::<TRITS, 4, 4>(group, x, tokens, first, out),
            2.. => tile::<TRITS, 2, 8>(group, x, tokens, first, out),
            _ => tile::<TRITS, 1, 8>(group, x, tokens, first, out),
        };
    }
}

/// The sums of `T` tokens from the first on, `V` vectors of rows at a time. Gives `T`.
#[inline]
#[target_feature(enable = "dotprod")]
pub(super) fn tile<const TRITS: bool, const T: usize, const V: usize>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    first: usize,
    out: &mut [i32],
) -> usize {
    let packing = const { packing(TRITS) };
    let reader = Reader::<TRITS>::new();
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for vector in (0..VECTORS).step_by(V) {
        let mut sums = [[vdupq_n_s32(0); T]; V];
        let xs = x.chunks_exact(packing.block_cols() * tokens);
        for (block, x) in blocks.iter().zip(xs) {
            let codes = load::<V>(block, vector).map(|bytes| reader.codes(bytes));
            let x = &x[first * 4..];
            add::<0, T, V>(&mut sums, &codes, x);
            add::<1, T, V>(&mut sums, &codes, &x[tokens * 4..]);
            add::<2, T, V>(&mut sums, &codes, &x[tokens * 8..]);
            add::<3, T, V>(&mut sums, &codes, &x[tokens * 12..]);
            if TRITS {
                add::<4, T, V>(&mut sums, &codes, &x[tokens * 16..]);
            }
        }
        for (number, sums) in sums.into_iter().enumerate() {
            for (sum, out) in sums.into_iter().zip(&mut out[first..]) {
                store(sum, vector + number, out);
            }
        }
    }
    T
}

/// Adds the products of a plane; `x` begins with its activations of the first token.
#[inline]
#[target_feature(enable = "dotprod")]
fn add<const PLANE: usize, const T: usize, const V: usize>(
    sums: &mut [[int32x4_t; T]; V],
    codes: &[Codes; V],
    x: &[i8],
) {
    let x = fours::<T>(x);
    for (codes, sums) in codes.iter().zip(sums) {
        let codes = codes.plane::<PLANE>();
        for (token, sum) in sums.iter_mut().enumerate() {
            *sum = dot_lane(*sum, codes, x[token / 4], token % 4);
        }
    }
}
