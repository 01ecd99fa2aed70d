//! How often each code of eight bits is there, which is all that their moments depend on, and their levels.
//!
//! Counts are exact, so whichever thread counts what, the sums that are made of them are the same: they go over the codes
//! from 0 to 255, and those of integers are exact as long as 53 bits hold them.

use super::super::packed::value;
use super::levels::Levels;
use super::moments::Moments;
use crate::dtype::StoredType;

/// Every pair of codes has a count of its own: half as many additions as codes, and codes that follow each other in a weight
/// of few levels seldom wait for the same one.
const PAIRS: usize = 1 << 16;

/// Fewer codes than this are not worth a table of pairs.
const FEW: usize = PAIRS;

/// Counts of codes of eight bits.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    /// Empty until a code was counted.
    each: Vec<u64>,
    /// Empty until enough codes were counted at once.
    pairs: Vec<u32>,
    /// How many pairs are in the table.
    held: u32,
}

impl Bytes {
    pub(super) const NONE: Bytes = Bytes {
        each: Vec::new(),
        pairs: Vec::new(),
        held: 0,
    };

    /// Counts codes.
    pub(super) fn add(&mut self, codes: &[u8]) {
        self.each.resize(256, 0);
        let mut rest = codes;
        if codes.len() >= FEW {
            let (pairs, last) = codes.as_chunks::<2>();
            pairs
                .chunks(u32::MAX as usize)
                .for_each(|pairs| self.add_pairs(pairs));
            rest = last;
        }
        for code in rest {
            self.each[usize::from(*code)] += 1;
        }
    }

    fn add_pairs(&mut self, codes: &[[u8; 2]]) {
        let new = codes.len() as u32;
        if self.held.checked_add(new).is_none() {
            self.empty();
        }
        self.held += new;
        self.pairs.resize(PAIRS, 0);
        // Of an array whose length the compiler knows no index is checked.
        if let Some(pairs) = self.pairs.first_chunk_mut::<PAIRS>() {
            for codes in codes {
                pairs[usize::from(u16::from_le_bytes(*codes))] += 1;
            }
        }
    }

    /// Turns the counts of pairs into those of codes.
    fn empty(&mut self) {
        for (second, row) in self.pairs.chunks_mut(256).enumerate() {
            for (first, count) in row.iter_mut().enumerate() {
                let count = u64::from(std::mem::take(count));
                self.each[first] += count;
                self.each[second] += count;
            }
        }
        self.held = 0;
    }

    /// Together with those of another thread.
    pub(super) fn and(mut self, mut other: Bytes) -> Bytes {
        self.empty();
        other.empty();
        self.each.resize(256, 0);
        for (count, more) in self.each.iter_mut().zip(other.each) {
            *count += more;
        }
        self
    }

    /// What codes of a dtype are there, as numbers, and how often.
    pub(super) fn numbers(&self, dtype: StoredType) -> impl Iterator<Item = (f64, u64)> + Clone {
        let all = (0..).zip(self.each.iter().copied());
        all.filter(|(_, count)| *count > 0)
            .map(move |(code, count)| (value(code, dtype), count))
    }
}

/// The distinct finite ones of numbers; both zeros are one. There are no more than 256.
pub(super) fn levels(numbers: impl Iterator<Item = (f64, u64)>) -> Levels {
    let finite = numbers.filter(|(number, _)| number.is_finite());
    let mut levels: Vec<f64> = finite.map(|(number, _)| number + 0.0).collect();
    levels.sort_unstable_by(f64::total_cmp);
    levels.dedup();
    Levels::All(levels)
}

/// Sums and extremes of numbers that are so many times there.
pub(super) fn moments(numbers: impl Iterator<Item = (f64, u64)>) -> Moments {
    let finite = numbers.filter(|(number, _)| number.is_finite());
    finite.fold(Moments::NONE, |sums, (number, count)| {
        sums.and(&Moments::of_equal(number, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_single_codes_are_counted_alike() {
        let codes: Vec<u8> = (0..3 * FEW as u32 + 5)
            .map(|i| (i.wrapping_mul(i) / 7) as u8 & 0xbf)
            .collect();
        let mut plain = [0; 256];
        for code in &codes {
            plain[usize::from(*code)] += 1;
        }
        for cut in [0, 1, 2, 255, FEW - 1, FEW, FEW + 1, codes.len()] {
            let (mut first, mut second) = (Bytes::NONE, Bytes::NONE);
            first.add(&codes[..cut]);
            second.add(&codes[cut..]);
            // Emptied between, as a table that could be full is.
            second.empty();
            second.add(&codes);
            second.empty();
            let both = first.and(second);
            assert!((0..256).all(|at| both.each[at] == plain[at] * 2), "{cut}");
        }
    }
}
