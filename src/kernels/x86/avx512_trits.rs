//! Five digits to base three in a byte, with AVX-512 VNNI and VBMI.
//!
//! `byte = 84 c4 + r`, and `r` (0 to 80) is four digits. A table of 256 entries gives the four digits of a byte as planes of
//! two bits, in four registers of 64 entries; since 84 = 4 * 21, `byte >> 2` tells c4 by itself, in a table of 64.

use super::super::packing::{BLOCK_BYTES, Packing, ROWS};
use super::avx512::{join, load, store};
use super::four;
use crate::wide::ask_ahead;
use std::arch::x86_64::*;

/// Digits 0 to 3 of each byte, as planes of two bits.
static FOUR_DIGITS: [[u8; 64]; 4] = four_digits();

/// Digit 4 of the bytes whose upper six bits are the index.
static LAST_DIGIT: [u8; 64] = last_digit();

const fn four_digits() -> [[u8; 64]; 4] {
    let mut table = [[0; 64]; 4];
    let mut byte = 0;
    while byte < 256 {
        let rest = byte % 84;
        let (low, high) = (
            rest % 3 + 4 * (rest / 3 % 3),
            rest / 9 % 3 + 4 * (rest / 27 % 3),
        );
        table[byte / 64][byte % 64] = (low + 16 * high) as u8;
        byte += 1;
    }
    table
}

const fn last_digit() -> [u8; 64] {
    let mut table = [0; 64];
    let mut index = 0;
    while index < 64 {
        table[index] = (index / 21) as u8;
        index += 1;
    }
    table
}

/// The tables in registers.
#[derive(Clone, Copy)]
struct Digits {
    four: [__m512i; 4],
    last: __m512i,
}

impl Digits {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load() -> Digits {
        let table = |table: &[u8; 64]| {
            // SAFETY: a table has 64 bytes: one vector.
            unsafe { _mm512_loadu_si512(table.as_ptr().cast()) }
        };
        Digits {
            four: [
                table(&FOUR_DIGITS[0]),
                table(&FOUR_DIGITS[1]),
                table(&FOUR_DIGITS[2]),
                table(&FOUR_DIGITS[3]),
            ],
            last: table(&LAST_DIGIT),
        }
    }

    /// Digits 0 to 3 as planes of two bits, and digit 4.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn of(&self, codes: __m512i) -> (__m512i, __m512i) {
        let low = _mm512_permutex2var_epi8(self.four[0], codes, self.four[1]);
        let high = _mm512_permutex2var_epi8(self.four[2], codes, self.four[3]);
        let planes = _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
        // The shift brings bits of the next byte along; the look-up takes six bits of an index and ignores them.
        let last = _mm512_permutexvar_epi8(_mm512_srli_epi16::<2>(codes), self.last);
        (planes, last)
    }
}

/// One token. Digits 0 to 3 are multiplied where they stand, as planes are; digit 4 joins the sum of digit 0.
///
/// Largest intermediate: as for planes of two bits, 2^30.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
pub(in super::super) fn one(group: &[u8], x: &[i8], out: &mut [i32; ROWS]) {
    let digits = Digits::load();
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|mask| _mm512_set1_epi8(mask as i8));
    let mut sums = [[_mm512_setzero_si512(); 2]; 4];
    let mut last_sums = [_mm512_setzero_si512(); 2];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    let (xs, _) = x.as_chunks::<{ Packing::Trits.block_cols() }>();
    for (block, x) in blocks.iter().zip(xs) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let codes = load(block);
        let (low, low_last) = digits.of(codes[0]);
        let (high, high_last) = digits.of(codes[1]);
        for plane in 0..4 {
            let x = _mm512_set1_epi32(four(x, plane));
            let low = _mm512_and_si512(low, masks[plane]);
            let high = _mm512_and_si512(high, masks[plane]);
            sums[plane][0] = _mm512_dpbusd_epi32(sums[plane][0], low, x);
            sums[plane][1] = _mm512_dpbusd_epi32(sums[plane][1], high, x);
        }
        let x = _mm512_set1_epi32(four(x, 4));
        last_sums[0] = _mm512_dpbusd_epi32(last_sums[0], low_last, x);
        last_sums[1] = _mm512_dpbusd_epi32(last_sums[1], high_last, x);
    }
    let planes = join(sums);
    let all = [
        _mm512_add_epi32(planes[0], last_sums[0]),
        _mm512_add_epi32(planes[1], last_sums[1]),
    ];
    store(all, out);
}

/// A block of tokens: digits are looked up once and used for all tokens.
///
/// Largest intermediate: 2 * 128 for each of [`super::super::packing::MAX_COLS`] columns: 2^26.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
pub(in super::super) fn some(group: &[u8], x: &[i8], tokens: usize, out: &mut [i32]) {
    of_tokens!(tokens, tile(group, x, out));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
fn tile<const T: usize>(group: &[u8], x: &[i8], out: &mut [i32]) {
    let digits = Digits::load();
    let mask = _mm512_set1_epi8(3);
    let mut sums = [[_mm512_setzero_si512(); 2]; T];
    let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
    for (block, x) in blocks.iter().zip(x.chunks_exact(20 * T)) {
        ask_ahead(block.as_ptr());
        ask_ahead(block[64..].as_ptr());
        let codes = load(block);
        let halves = [digits.of(codes[0]), digits.of(codes[1])];
        let plane = |half: usize, plane: usize| {
            let (planes, last) = halves[half];
            let down = match plane {
                0 => planes,
                1 => _mm512_srli_epi16::<2>(planes),
                2 => _mm512_srli_epi16::<4>(planes),
                3 => _mm512_srli_epi16::<6>(planes),
                _ => return last,
            };
            _mm512_and_si512(down, mask)
        };
        for p in 0..5 {
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
