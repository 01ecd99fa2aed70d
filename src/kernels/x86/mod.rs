//! Kernels for the vectors of x86-64.
//!
//! All of them read a group as it lies: a lane of 32 bits is a row, and the four bytes of a lane meet the four neighbouring
//! activations of a plane, which are broadcast to all lanes. The instructions that multiply bytes take unsigned codes on one
//! side and signed activations on the other.
//!
//! From memory a kernel is as fast as its loads are early: each asks for bytes some KiB ahead of those that it works on. It
//! asks beyond the end of its group too, since the next one lies there; asking for what is not there does nothing.

/// Calls what is compiled for a number of tokens, so that their sums stay in registers.
macro_rules! of_tokens {
    ($tokens:expr, $tile:ident($($argument:expr),*)) => {
        match $tokens {
            1 => $tile::<1>($($argument),*),
            2 => $tile::<2>($($argument),*),
            3 => $tile::<3>($($argument),*),
            4 => $tile::<4>($($argument),*),
            5 => $tile::<5>($($argument),*),
            6 => $tile::<6>($($argument),*),
            7 => $tile::<7>($($argument),*),
            _ => $tile::<8>($($argument),*),
        }
    };
}

pub(super) mod avx2;
pub(super) mod avx2_trits;
pub(super) mod avx512;
pub(super) mod avx512_trits;
pub(super) mod avxvnni;

use super::TOKENS;
use std::arch::x86_64::*;

/// Four neighbouring activations as one number.
#[inline(always)]
fn four(x: &[i8], at: usize) -> i32 {
    let x = &x[at * 4..][..4];
    i32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8])
}

/// From `[8][columns]` to `[columns / 4][8][4]`, where columns are a multiple of 16: words of four codes change rows for columns,
/// four by four. Compilers copy them one by one, which takes as long as making the codes.
#[inline(always)]
pub(super) fn turn(rows: &[i8], codes: &mut [i8]) {
    let columns = rows.len() / TOKENS;
    let (codes, _) = codes.as_chunks_mut::<{ 16 * TOKENS }>();
    for (at, codes) in codes.iter_mut().enumerate() {
        let (quarters, _) = codes.as_chunks_mut::<16>();
        for half in 0..2 {
            let words = |token: usize| {
                let row = &rows[(4 * half + token) * columns + 16 * at..][..16];
                // SAFETY: 16 bytes are one vector, and SSE2 is part of x86-64.
                unsafe { _mm_loadu_si128(row.as_ptr().cast()) }
            };
            let (a, b, c, d) = (words(0), words(1), words(2), words(3));
            // SAFETY: SSE2 is part of x86-64.
            let turned = unsafe {
                let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
                let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
                [
                    _mm_unpacklo_epi64(ab, cd),
                    _mm_unpackhi_epi64(ab, cd),
                    _mm_unpacklo_epi64(ab_high, cd_high),
                    _mm_unpackhi_epi64(ab_high, cd_high),
                ]
            };
            for (word, turned) in turned.into_iter().enumerate() {
                let place = &mut quarters[2 * word + half];
                // SAFETY: the place has 16 bytes, and SSE2 is part of x86-64.
                unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), turned) }
            }
        }
    }
}
