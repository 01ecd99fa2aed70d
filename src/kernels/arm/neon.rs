//! Both packings with products of bytes into 16 bits, which every aarch64 machine has.

use super::super::packing::{BLOCK_BYTES, ROWS};
use super::codes::{Codes, Reader, packing};
use super::{VECTORS, ask_ahead, broadcast, load, store};
use std::arch::aarch64::*;

/// Products that a sum of 16 bits takes: each is between -256 and 254, and 128 times -256 is -32,768.
const NARROW: usize = 128;

/// One token: all 32 rows at once, so that a group is read as one stream.
///
/// Columns are whole blocks, so there are no tails. Largest intermediates: -32,768 in 16 bits (see [`NARROW`]), and 2 * 128 for
/// each of [`super::super::packing::MAX_COLS`] columns in 32: 2^26.
#[target_feature(enable = "neon")]
pub(in super::super) fn one<const TRITS: bool>(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    tile::<TRITS, 1, 8>(group, x, 1, 0, out);
}

/// A block of tokens: by fours, twos and ones, since a sum of 4 rows takes two registers here.
///
/// Tails and largest intermediates: as for one token.
#[target_feature(enable = "neon")]
pub(in super::super) fn some<const TRITS: bool>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    out: &mut [i32],
) {
    let mut first = 0;
    while first < tokens {
        first += match tokens - first {
            4.. => tile::<TRITS, 4, 2>(group, x, tokens, first, out),
            2.. => tile::<TRITS, 2, 4>(group, x, tokens, first, out),
            _ => tile::<TRITS, 1, 8>(group, x, tokens, first, out),
        };
    }
}

/// The sums of `T` tokens from the first on, some vectors of rows at a time. Gives `T`.
#[inline]
#[target_feature(enable = "neon")]
fn tile<const TRITS: bool, const T: usize, const V: usize>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    first: usize,
    out: &mut [i32],
) -> usize {
    let packing = const { packing(TRITS) };
    let reader = Reader::<TRITS>::new();
    let blocks_at_once = NARROW / packing.planes();
    let block_x = packing.block_cols() * tokens;
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for vector in (0..VECTORS).step_by(V) {
        // The first of the two has rows 0 and 1 of a vector, two lanes for each; the second rows 2 and 3.
        let mut sums = [[[vdupq_n_s32(0); 2]; V]; T];
        let pieces = group.chunks(blocks_at_once * BLOCK_BYTES);
        for (blocks, x) in pieces.zip(x.chunks(blocks_at_once * block_x)) {
            let mut narrow = [[[vdupq_n_s16(0); 2]; V]; T];
            let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
            for (block, x) in blocks.iter().zip(x.chunks_exact(block_x)) {
                if V == VECTORS {
                    ask_ahead(block);
                }
                let codes = load::<V>(block, vector).map(|bytes| reader.codes(bytes));
                let x = &x[first * 4..];
                add::<0, T, V>(&mut narrow, &codes, x);
                add::<1, T, V>(&mut narrow, &codes, &x[tokens * 4..]);
                add::<2, T, V>(&mut narrow, &codes, &x[tokens * 8..]);
                add::<3, T, V>(&mut narrow, &codes, &x[tokens * 12..]);
                if TRITS {
                    add::<4, T, V>(&mut narrow, &codes, &x[tokens * 16..]);
                }
            }
            for (sums, narrow) in sums.iter_mut().zip(narrow) {
                for (sums, narrow) in sums.iter_mut().zip(narrow) {
                    sums[0] = vpadalq_s16(sums[0], narrow[0]);
                    sums[1] = vpadalq_s16(sums[1], narrow[1]);
                }
            }
        }
        for (sums, out) in sums.into_iter().zip(&mut out[first..]) {
            for (number, sums) in sums.into_iter().enumerate() {
                store(vpaddq_s32(sums[0], sums[1]), vector + number, out);
            }
        }
    }
    T
}

/// Adds the products of a plane; `x` begins with its activations of the first token.
#[inline]
#[target_feature(enable = "neon")]
fn add<const PLANE: usize, const T: usize, const V: usize>(
    narrow: &mut [[[int16x8_t; 2]; V]; T],
    codes: &[Codes; V],
    x: &[i8],
) {
    let (fours, _) = x[..4 * T].as_chunks::<4>();
    for (four, narrow) in fours.iter().zip(narrow) {
        let x = broadcast(four);
        for (codes, narrow) in codes.iter().zip(narrow) {
            let codes = vreinterpretq_s8_u8(codes.plane::<PLANE>());
            narrow[0] = vmlal_s8(narrow[0], vget_low_s8(codes), vget_low_s8(x));
            narrow[1] = vmlal_high_s8(narrow[1], codes, x);
        }
    }
}
