//! Planes of two bits with AVX2: 8 rows in a vector, four vectors in a block.
//!
//! AVX2 multiplies bytes and adds neighbours into 16 bits. Sums stay there for 8 blocks and are widened then; the factor 4 of
//! an odd plane is divided away before. The limits are exact: with activations of -128 a sum is -32,768.

use super::super::multiply::Finish;
use super::super::packing::{BLOCK_BYTES, ROWS};
use super::{ask_ahead, four};
use std::arch::x86_64::*;

/// Blocks after which sums of 16 bits might be full. An odd plane adds 2 * 8 * 128 in each of two instructions a block.
const NARROW: usize = 8;

/// A quarter of a block: 8 rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(block: &[u8; BLOCK_BYTES], quarter: usize) -> __m256i {
    let (quarters, _) = block.as_chunks::<32>();
    // SAFETY: a quarter has 32 bytes: one vector.
    unsafe { _mm256_loadu_si256(quarters[quarter].as_ptr().cast()) }
}

/// Writes the sums of 8 rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(sums: __m256i, quarter: usize, out: &mut [i32; ROWS]) {
    let (quarters, _) = out.as_chunks_mut::<8>();
    // SAFETY: a quarter has 8 numbers of 4 bytes: one vector.
    unsafe { _mm256_storeu_si256(quarters[quarter].as_mut_ptr().cast(), sums) }
}

/// Sums of 32 bits out of sums of 16: of even planes as they are, of odd planes over 4.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(even: __m256i, odd: __m256i) -> __m256i {
    // Even planes hold at most 8 * 1024, odd ones a quarter of 32,768: together they fit once more.
    let both = _mm256_add_epi16(even, _mm256_srai_epi16::<2>(odd));
    _mm256_madd_epi16(both, _mm256_set1_epi16(1))
}

/// One token. Planes 0 and 1 are multiplied where they stand and so are planes 2 and 3 after a shift of four bits.
///
/// Largest intermediates: -32,768 in 16 bits (see [`NARROW`]), and 2 * 128 for each of
/// [`super::super::packing::MAX_COLS`] columns in 32: 2^26.
#[target_feature(enable = "avx2")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    let (even, odd) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let mut sums = [_mm256_setzero_si256(); 4];
    let pieces = group.chunks(NARROW * BLOCK_BYTES);
    for (blocks, xs) in pieces.zip(x.chunks(NARROW * 16)) {
        let mut narrow = [[_mm256_setzero_si256(); 2]; 4];
        let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
        let (xs, _) = xs.as_chunks::<16>();
        for (block, x) in blocks.iter().zip(xs) {
            ask_ahead(block.as_ptr());
            ask_ahead(block[64..].as_ptr());
            let x = [0, 1, 2, 3].map(|plane| _mm256_set1_epi32(four(x, plane)));
            for (quarter, narrow) in narrow.iter_mut().enumerate() {
                let low = load(block, quarter);
                let high = _mm256_srli_epi16::<4>(low);
                let products =
                    |codes, mask, x| _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), x);
                narrow[0] = _mm256_add_epi16(narrow[0], products(low, even, x[0]));
                narrow[1] = _mm256_add_epi16(narrow[1], products(low, odd, x[1]));
                narrow[0] = _mm256_add_epi16(narrow[0], products(high, even, x[2]));
                narrow[1] = _mm256_add_epi16(narrow[1], products(high, odd, x[3]));
            }
        }
        for (sum, narrow) in sums.iter_mut().zip(narrow) {
            *sum = _mm256_add_epi32(*sum, widen(narrow[0], narrow[1]));
        }
    }
    for (quarter, sum) in sums.into_iter().enumerate() {
        store(sum, quarter, out);
    }
}

/// A block of tokens, four at a time and 8 rows at a time: eight sums of 16 bits.
///
/// Largest intermediates: as for one token.
#[target_feature(enable = "avx2")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    for first in (0..tokens).step_by(4) {
        for quarter in 0..4 {
            match tokens - first {
                1 => tile::<1>(group, x, tokens, first, quarter, out),
                2 => tile::<2>(group, x, tokens, first, quarter, out),
                3 => tile::<3>(group, x, tokens, first, quarter, out),
                _ => tile::<4>(group, x, tokens, first, quarter, out),
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn tile<const T: usize>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    first: usize,
    quarter: usize,
    out: &mut [i32],
) {
    let (even, odd) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let mut sums = [_mm256_setzero_si256(); T];
    let pieces = group.chunks(NARROW * BLOCK_BYTES);
    for (blocks, xs) in pieces.zip(x.chunks(NARROW * 16 * tokens)) {
        let mut narrow = [[_mm256_setzero_si256(); 2]; T];
        let (blocks, _) = blocks.as_chunks::<BLOCK_BYTES>();
        for (block, x) in blocks.iter().zip(xs.chunks_exact(16 * tokens)) {
            let low = load(block, quarter);
            let high = _mm256_srli_epi16::<4>(low);
            let codes = [
                _mm256_and_si256(low, even),
                _mm256_and_si256(low, odd),
                _mm256_and_si256(high, even),
                _mm256_and_si256(high, odd),
            ];
            for (plane, codes) in codes.into_iter().enumerate() {
                for (token, narrow) in narrow.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(four(x, plane * tokens + first + token));
                    let products = _mm256_maddubs_epi16(codes, x);
                    narrow[plane % 2] = _mm256_add_epi16(narrow[plane % 2], products);
                }
            }
        }
        for (sum, narrow) in sums.iter_mut().zip(narrow) {
            *sum = _mm256_add_epi32(*sum, widen(narrow[0], narrow[1]));
        }
    }
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for (sum, out) in sums.into_iter().zip(&mut out[first..]) {
        store(sum, quarter, out);
    }
}

/// Numbers of sums, 8 at a time.
#[target_feature(enable = "avx2")]
pub(in super::super) fn finish(finish: &Finish<'_>, sums: &[i32], out: &mut [f32]) {
    finish.run(sums, out);
}
