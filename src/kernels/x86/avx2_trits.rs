//! Five digits to base three in a byte, with AVX2: 8 rows in a vector, four vectors in a block.
//!
//! AVX2 looks up 16 entries and not 256, so digits are found from the highest down by comparing: is the rest at least a power,
//! is it at least two? That takes some forty instructions for 32 bytes. Where a core's share of the memory's bandwidth is
//! small, or for many tokens, it is worth it.

use super::super::packing::{BLOCK_BYTES, Packing, ROWS};
use super::avx2::{load, widen};
use super::four;
use crate::wide::ask_ahead;
use std::arch::x86_64::*;

/// Columns of a block.
const COLS: usize = Packing::Trits.block_cols();

/// Blocks whose sums 16 bits hold: a block adds up to 5 * 2 * 2 * 128 to a lane, and 12 * 2560 is 30,720.
const BLOCKS: usize = 12;

/// The digits of each byte, lowest first.
#[inline]
#[target_feature(enable = "avx2")]
fn digits(codes: __m256i) -> [__m256i; 5] {
    let mut rest = codes;
    let mut digit = |power: i8| {
        let mut found = _mm256_setzero_si256();
        let power = _mm256_set1_epi8(power);
        for _ in 0..2 {
            // All ones, which is -1, where the rest is at least the power.
            let at_least = _mm256_cmpeq_epi8(_mm256_max_epu8(rest, power), rest);
            rest = _mm256_sub_epi8(rest, _mm256_and_si256(at_least, power));
            found = _mm256_sub_epi8(found, at_least);
        }
        found
    };
    let (last, third, second, first) = (digit(84), digit(27), digit(9), digit(3));
    [rest, first, second, third, last]
}

/// One token.
///
/// Largest intermediates: see [`BLOCKS`]; in 32 bits, 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "avx2")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    tile::<1>(group, x, out);
}

/// A block of tokens, 8 rows at a time: digits are found once and used for all tokens.
///
/// Largest intermediates: as for one token.
#[target_feature(enable = "avx2")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    of_tokens!(tokens, tile(group, x, out));
}

#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(group: &[u8], x: &[i8], out: &mut [i32]) {
    out.fill(0);
    let (out, _) = out.as_chunks_mut::<ROWS>();
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    for (blocks, xs) in blocks.chunks(BLOCKS).zip(x.chunks(BLOCKS * COLS * T)) {
        for quarter in 0..4 {
            let mut sums = [_mm256_setzero_si256(); T];
            for (block, x) in blocks.iter().zip(xs.chunks_exact(COLS * T)) {
                ask_ahead(block[32 * quarter..].as_ptr());
                for (plane, codes) in digits(load(block, quarter)).into_iter().enumerate() {
                    for (token, sums) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(four(x, plane * T + token));
                        *sums = _mm256_add_epi16(*sums, _mm256_maddubs_epi16(codes, x));
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(out.iter_mut()) {
                widen(sums, quarter, out);
            }
        }
    }
}
