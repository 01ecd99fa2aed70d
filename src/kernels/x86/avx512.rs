//! Planes of two bits with AVX-512 VNNI: 16 rows in a vector, two vectors in a block.

use super::super::multiply::Finish;
use super::super::packing::{BLOCK_BYTES, ROWS};
use super::four;
use crate::wide::ask_ahead;
use std::arch::x86_64::*;

/// The two halves of a block.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(block: &[u8; BLOCK_BYTES]) -> [__m512i; 2] {
    // SAFETY: a block has 128 bytes: two vectors.
    unsafe {
        [
            _mm512_loadu_si512(block.as_ptr().cast()),
            _mm512_loadu_si512(block.as_ptr().add(64).cast()),
        ]
    }
}

/// Writes the sums of 32 rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(sums: [__m512i; 2], out: &mut [i32; ROWS]) {
    // SAFETY: 32 numbers of 4 bytes are two vectors.
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), sums[0]);
        _mm512_storeu_si512(out.as_mut_ptr().add(16).cast(), sums[1]);
    }
}

/// Sums of planes that were multiplied where they stand: plane p is 4^p times too large, exactly.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn join(planes: [[__m512i; 2]; 4]) -> [__m512i; 2] {
    let half = |h: usize| {
        let low = _mm512_add_epi32(planes[0][h], _mm512_srai_epi32::<2>(planes[1][h]));
        let high = _mm512_add_epi32(
            _mm512_srai_epi32::<4>(planes[2][h]),
            _mm512_srai_epi32::<6>(planes[3][h]),
        );
        _mm512_add_epi32(low, high)
    };
    [half(0), half(1)]
}

/// One token: a plane is masked and multiplied where it stands, since `and` is the only unpacking that does not take a
/// multiplier's port. Eight sums run side by side, as many as the multipliers' latency asks for.
///
/// Largest intermediate: plane 3 takes at most 4 * 128 * 128 from a block, and [`super::super::packing::MAX_COLS`] columns are
/// 2^14 blocks: 2^30.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|mask| _mm512_set1_epi8(mask as i8));
    let mut sums = [[_mm512_setzero_si512(); 2]; 4];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (xs, _) = x.as_chunks::<16>();
    for (block, x) in blocks.iter().zip(xs) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let codes = load(block);
        for plane in 0..4 {
            let x = _mm512_set1_epi32(four(x, plane));
            for half in 0..2 {
                let plane_codes = _mm512_and_si512(codes[half], masks[plane]);
                sums[plane][half] = _mm512_dpbusd_epi32(sums[plane][half], plane_codes, x);
            }
        }
    }
    store(join(sums), out);
}

/// A block of tokens: the codes of a plane are shifted down once and used for all tokens.
///
/// Largest intermediate: 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    of_tokens!(tokens, tile(group, x, out));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile<const T: usize>(group: &[u8], x: &[i8], out: &mut [i32]) {
    let mask = _mm512_set1_epi8(3);
    let mut sums = [[_mm512_setzero_si512(); 2]; T];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    for (block, x) in blocks.iter().zip(x.chunks_exact(16 * T)) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let codes = load(block);
        let plane = |half: usize, plane: usize| {
            let down = match plane {
                0 => codes[half],
                1 => _mm512_srli_epi16::<2>(codes[half]),
                2 => _mm512_srli_epi16::<4>(codes[half]),
                _ => _mm512_srli_epi16::<6>(codes[half]),
            };
            _mm512_and_si512(down, mask)
        };
        for p in 0..4 {
            let codes = [plane(0, p), plane(1, p)];
            for (token, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(four(x, p * T + token));
                sums[0] = _mm512_dpbusd_epi32(sums[0], codes[0], x);
                sums[1] = _mm512_dpbusd_epi32(sums[1], codes[1], x);
            }
        }
    }
    let (out, _) = out.as_chunks_mut::<ROWS>();
    for (sums, out) in sums.into_iter().zip(out) {
        store(sums, out);
    }
}

/// Numbers of sums, 16 at a time.
#[target_feature(enable = "avx512f")]
pub(in super::super) fn finish(finish: &Finish<'_>, sums: &[i32], out: &mut [f32]) {
    finish.run(sums, out);
}
