//! Planes of two bits with AVX-VNNI: 8 rows in a vector, four vectors in a block.

use super::super::packing::{BLOCK_BYTES, ROWS};
use super::avx2::{load, store};
use super::four;
use crate::wide::ask_ahead;
use std::arch::x86_64::*;

/// One token. Planes 0 and 1 are multiplied where they stand and so are planes 2 and 3 after a shift of four bits: eight sums,
/// which sixteen registers hold beside everything else.
///
/// Largest intermediate: plane 1 takes at most 2 * 4 * 8 * 128 from a block, and [`super::super::packing::MAX_COLS`] columns
/// are 2^14 blocks: 2^27.
#[target_feature(enable = "avx2,avxvnni")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    let (even, odd) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let mut sums = [[_mm256_setzero_si256(); 2]; 4];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (xs, _) = x.as_chunks::<16>();
    for (block, x) in blocks.iter().zip(xs) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let x = [0, 1, 2, 3].map(|plane| _mm256_set1_epi32(four(x, plane)));
        for (quarter, sums) in sums.iter_mut().enumerate() {
            let low = load(block, quarter);
            let high = _mm256_srli_epi16::<4>(low);
            sums[0] = _mm256_dpbusd_avx_epi32(sums[0], _mm256_and_si256(low, even), x[0]);
            sums[1] = _mm256_dpbusd_avx_epi32(sums[1], _mm256_and_si256(low, odd), x[1]);
            sums[0] = _mm256_dpbusd_avx_epi32(sums[0], _mm256_and_si256(high, even), x[2]);
            sums[1] = _mm256_dpbusd_avx_epi32(sums[1], _mm256_and_si256(high, odd), x[3]);
        }
    }
    for (quarter, sums) in sums.into_iter().enumerate() {
        let sum = _mm256_add_epi32(sums[0], _mm256_srai_epi32::<2>(sums[1]));
        store(sum, quarter, out);
    }
}

/// A block of tokens, four at a time and 16 rows at a time: eight sums.
///
/// Largest intermediate: 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "avx2,avxvnni")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    for first in (0..tokens).step_by(4) {
        for half in 0..2 {
            match tokens - first {
                1 => tile::<1>(group, x, tokens, first, half, out),
                2 => tile::<2>(group, x, tokens, first, half, out),
                3 => tile::<3>(group, x, tokens, first, half, out),
                _ => tile::<4>(group, x, tokens, first, half, out),
            }
        }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn tile<const T: usize>(
    group: &[u8],
    x: &[i8],
    tokens: usize,
    first: usize,
    half: usize,
    out: &mut [i32],
) {
    let mask = _mm256_set1_epi8(3);
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
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
                sums[0] = _mm256_dpbusd_avx_epi32(sums[0], codes[0], x);
                sums[1] = _mm256_dpbusd_avx_epi32(sums[1], codes[1], x);
            }
        }
    }
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for (sums, out) in sums.into_iter().zip(&mut out[first..]) {
        store(sums[0], 2 * half, out);
        store(sums[1], 2 * half + 1, out);
    }
}
