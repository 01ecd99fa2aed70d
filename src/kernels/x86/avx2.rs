//! Planes of two bits with AVX2: 8 rows in a vector, four vectors in a block.
//!
//! AVX2 multiplies bytes and adds neighbours into 16 bits. Sums stay there for some blocks and are then added to those of 32
//! bits, which lie in `out`: sixteen registers do not hold them too.

use super::super::multiply::Finish;
use super::super::packing::{BLOCK_BYTES, ROWS};
use super::four;
use crate::wide::ask_ahead;
use std::arch::x86_64::*;

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

/// Adds sums of 16 bits, neighbour to neighbour, to those of 8 rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn widen(narrow: __m256i, quarter: usize, out: &mut [i32; ROWS]) {
    let (quarters, _) = out.as_chunks::<8>();
    // SAFETY: a quarter has 8 numbers of 4 bytes: one vector.
    let sums = unsafe { _mm256_loadu_si256(quarters[quarter].as_ptr().cast()) };
    let wide = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
    store(_mm256_add_epi32(sums, wide), quarter, out);
}

/// One token. Planes 0 and 1 are multiplied where they stand and so are planes 2 and 3 after a shift of four bits; planes 1
/// and 3 are 4 times too large then, which [`narrow`] divides away.
///
/// Largest intermediates: [`narrow`] gives at most 2 * 8192 for 8 blocks, with activations of -128 exactly -32,768 for twice
/// as many. In 32 bits, 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "avx2")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    out.fill(0);
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (xs, _) = x.as_chunks::<16>();
    for (blocks, xs) in blocks.chunks(16).zip(xs.chunks(16)) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for (blocks, xs) in blocks.chunks(8).zip(xs.chunks(8)) {
            narrow(blocks, xs, &mut sums);
        }
        for (quarter, sums) in sums.into_iter().enumerate() {
            widen(sums, quarter, out);
        }
    }
}

/// Adds the sums of up to 8 blocks in 16 bits.
///
/// Largest intermediates: an odd plane adds up to 2 * 4 * 2 * 128 in each of two instructions a block, with activations of
/// -128 exactly -32,768 after 8 blocks; even planes add a quarter of it, 8192.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(blocks: &[[u8; BLOCK_BYTES]], xs: &[[i8; 16]], sums: &mut [__m256i; 4]) {
    let (even, odd) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let mut odd_sums = [_mm256_setzero_si256(); 4];
    for (block, x) in blocks.iter().zip(xs) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let x = [0, 1, 2, 3].map(|plane| _mm256_set1_epi32(four(x, plane)));
        for (quarter, (sums, odd_sums)) in sums.iter_mut().zip(&mut odd_sums).enumerate() {
            let low = load(block, quarter);
            let high = _mm256_srli_epi16::<4>(low);
            let products = |codes, mask, x| _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), x);
            *sums = _mm256_add_epi16(*sums, products(low, even, x[0]));
            *odd_sums = _mm256_add_epi16(*odd_sums, products(low, odd, x[1]));
            *sums = _mm256_add_epi16(*sums, products(high, even, x[2]));
            *odd_sums = _mm256_add_epi16(*odd_sums, products(high, odd, x[3]));
        }
    }
    for (sums, odd) in sums.iter_mut().zip(odd_sums) {
        *sums = _mm256_add_epi16(*sums, _mm256_srai_epi16::<2>(odd));
    }
}

/// A block of tokens, four at a time and 16 rows at a time: the codes of a plane are shifted down once and used for all.
///
/// Largest intermediates: four planes of a block add up to 4 * 2 * 2 * 128 in 16 bits, with activations of -128 exactly
/// -32,768 after 16 blocks. In 32 bits as for one token.
#[target_feature(enable = "avx2")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    out.fill(0);
    let (out, _) = out.as_chunks_mut::<ROWS>();
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    for (blocks, x) in blocks.chunks(16).zip(x.chunks(16 * 16 * tokens)) {
        for half in 0..2 {
            for (number, out) in out.chunks_mut(4).enumerate() {
                let first = number * 4;
                match out.len() {
                    1 => tile::<1>(blocks, x, tokens, first, half, out),
                    2 => tile::<2>(blocks, x, tokens, first, half, out),
                    3 => tile::<3>(blocks, x, tokens, first, half, out),
                    _ => tile::<4>(blocks, x, tokens, first, half, out),
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(
    blocks: &[[u8; BLOCK_BYTES]],
    x: &[i8],
    tokens: usize,
    first: usize,
    half: usize,
    out: &mut [[i32; ROWS]],
) {
    let mask = _mm256_set1_epi8(3);
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for (block, x) in blocks.iter().zip(x.chunks_exact(16 * tokens)) {
        ask_ahead(block[64 * half..].as_ptr());
        let codes = [load(block, 2 * half), load(block, 2 * half + 1)];
        for plane in 0..4 {
            let down = |codes: __m256i| {
                let down = match plane {
                    0 => codes,
                    1 => _mm256_srli_epi16::<2>(codes),
                    2 => _mm256_srli_epi16::<4>(codes),
                    _ => _mm256_srli_epi16::<6>(codes),
                };
                _mm256_and_si256(down, mask)
            };
            let codes = [down(codes[0]), down(codes[1])];
            for (token, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_epi32(four(x, plane * tokens + first + token));
                sums[0] = _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(codes[0], x));
                sums[1] = _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(codes[1], x));
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        widen(sums[0], 2 * half, out);
        widen(sums[1], 2 * half + 1, out);
    }
}

/// Numbers of sums, 8 at a time.
#[target_feature(enable = "avx2")]
pub(in super::super) fn finish(finish: &Finish<'_>, sums: &[i32], out: &mut [f32]) {
    finish.run(sums, out);
}
