//! Loops that are worth the widest vectors of x86-64, and sets of codes of eight bits, which are asked about in vectors.
//!
//! Loops are written once, for one number after the other, and compiled a second time for AVX2: the compiler makes vectors of
//! them, so the loop that is read is the loop that runs. On other machines the vectors of the target's baseline do, which on
//! aarch64 is NEON. Of asking a set the compiler makes no vectors, so that is written twice.

#![allow(unsafe_code)]

pub(super) use crate::wide::Loop;

/// Runs a loop as it is compiled for this machine.
pub(super) fn widest<L: Loop>(it: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
        return unsafe { avx2(it) };
    }
    it.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<L: Loop>(it: L) -> L::Out {
    it.run()
}

/// A set of codes of eight bits.
///
/// A code is a row, its low half, and a column, its high half, of a matrix of bits. Of every row a byte has the first eight
/// columns and another the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeSet {
    /// The first columns of all rows, and the last.
    halves: [[u8; 16]; 2],
}

impl CodeSet {
    pub(super) const EMPTY: CodeSet = CodeSet {
        halves: [[0; 16]; 2],
    };

    pub(super) fn insert(&mut self, code: u8) {
        let (row, column) = (usize::from(code & 15), code >> 4);
        self.halves[usize::from(column >> 3)][row] |= 1 << (column & 7);
    }

    pub(super) fn has(&self, code: u8) -> bool {
        let (row, column) = (usize::from(code & 15), code >> 4);
        self.halves[usize::from(column >> 3)][row] >> (column & 7) & 1 == 1
    }

    pub(super) fn is_all(&self) -> bool {
        *self
            == CodeSet {
                halves: [[255; 16]; 2],
            }
    }

    /// Whether all codes are in it.
    pub(super) fn has_all(&self, codes: &[u8]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
            return unsafe { self.has_all_avx2(codes) };
        }
        self.has_each(codes)
    }

    /// One code after the other: what the other way is held against.
    fn has_each(&self, codes: &[u8]) -> bool {
        codes.iter().all(|code| self.has(*code))
    }

    /// Shuffling picks the rows, and the bit of the column, for 32 codes at a time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn has_all_avx2(&self, codes: &[u8]) -> bool {
        use std::arch::x86_64::*;
        let table = |half: &[u8; 16]| load(&std::array::from_fn(|at| half[at % 16]));
        let [low, high] = [0, 1].map(|half: usize| table(&self.halves[half]));
        let bit = table(&std::array::from_fn(|column| 1 << (column % 8)));
        let (half, none) = (_mm256_set1_epi8(15), _mm256_setzero_si256());
        let mut missing = none;
        let (runs, rest) = codes.as_chunks::<32>();
        for codes in runs {
            let codes = load(codes);
            let row = _mm256_and_si256(codes, half);
            let column = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), half);
            // The sign of a code says in which half of the columns it is.
            let row = _mm256_blendv_epi8(
                _mm256_shuffle_epi8(low, row),
                _mm256_shuffle_epi8(high, row),
                codes,
            );
            let found = _mm256_and_si256(row, _mm256_shuffle_epi8(bit, column));
            missing = _mm256_or_si256(missing, _mm256_cmpeq_epi8(found, none));
        }
        _mm256_testz_si256(missing, missing) == 1 && self.has_each(rest)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn load(codes: &[u8; 32]) -> std::arch::x86_64::__m256i {
    // SAFETY: 32 codes are 32 bytes, and the load asks for no alignment.
    unsafe { std::arch::x86_64::_mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_in_a_set_or_not_wherever_it_stands() {
        let is_in = |code: u8| u32::from(code).pow(2) / 7 % 3 != 0;
        let (good, bad): (Vec<u8>, Vec<u8>) = (0..=255).partition(|code| is_in(*code));
        let mut set = CodeSet::EMPTY;
        good.iter().for_each(|code| set.insert(*code));
        for length in (0..70).chain([good.len()]) {
            let mut codes = good[..length].to_vec();
            assert!(set.has_all(&codes) && set.has_each(&codes));
            for at in 0..length {
                let code = std::mem::replace(&mut codes[at], bad[at % bad.len()]);
                assert!(!set.has_all(&codes) && !set.has_each(&codes));
                codes[at] = code;
            }
        }
        for code in 0..=255 {
            assert_eq!(set.has_all(&[code; 32]), is_in(code));
            assert_eq!(set.has(code), is_in(code));
        }
        assert!(!set.is_all());
        bad.iter().for_each(|code| set.insert(*code));
        assert!(set.is_all());
    }
}
