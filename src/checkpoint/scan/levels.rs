//! Distinct values of a weight, exactly as long as they are few.
//!
//! Weights that were trained as floats have thousands, so after some hundred numbers of a block nothing more is asked; a
//! weight that was rounded to few values is asked about every number.

use super::super::packed::value;
use super::wide::{Code, Lane};
use crate::dtype::StoredType;
use std::collections::HashSet;

/// Most distinct values that are listed.
pub const MOST_LEVELS: usize = 256;

/// The distinct finite values of a weight; both zeros are one.
#[derive(Clone, Debug, PartialEq)]
pub enum Levels {
    /// All of them, ascending; integers of 64 bits as near as a float comes.
    All(Vec<f64>),
    /// More than [`MOST_LEVELS`].
    More,
}

impl Levels {
    /// How many there are, if they are few.
    pub fn count(&self) -> Option<usize> {
        match self {
            Levels::All(levels) => Some(levels.len()),
            Levels::More => None,
        }
    }
}

/// Codes that were seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    dtype: StoredType,
    /// Bits that are 0 in a zero.
    mask: u64,
    /// Which codes of up to 16 bits were seen.
    narrow: Vec<u64>,
    /// Wider codes that were seen.
    wide: HashSet<u64>,
    last: Option<u64>,
    /// Distinct finite values.
    found: HashSet<u64>,
}

impl Seen {
    pub(super) fn new(dtype: StoredType, mask: u64) -> Seen {
        let narrow = if dtype.bits <= 16 {
            (1usize << dtype.bits).div_ceil(64)
        } else {
            0
        };
        Seen {
            dtype,
            mask,
            narrow: vec![0; narrow],
            wide: HashSet::new(),
            last: None,
            found: HashSet::new(),
        }
    }

    /// Whether there are more values than are listed.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() > MOST_LEVELS
    }

    /// Looks at codes until there are too many.
    pub(super) fn look<C: Code>(&mut self, codes: &[C]) {
        if self.is_full() {
            return;
        }
        for code in codes {
            let code = code.lane().long();
            if self.last == Some(code) {
                continue;
            }
            self.last = Some(code);
            let is_new = match self.narrow.get_mut(code as usize / 64) {
                Some(word) => {
                    let bit = 1 << (code % 64);
                    let is_new = *word & bit == 0;
                    *word |= bit;
                    is_new
                }
                None => self.wide.insert(code),
            };
            if is_new && self.add(code) {
                return;
            }
        }
    }

    /// Adds the value of a code; says whether there are too many now.
    fn add(&mut self, code: u64) -> bool {
        let number = if code & self.mask == 0 {
            0.0
        } else {
            value(code, self.dtype)
        };
        if number.is_finite() {
            self.found.insert(number.to_bits());
        }
        // Codes that are no numbers may be many; their values are not kept.
        if self.wide.len() > 1 << 12 {
            self.wide.clear();
        }
        self.is_full()
    }

    /// What all threads saw.
    pub(super) fn levels(all: impl Iterator<Item = Seen>) -> Levels {
        let mut found = HashSet::new();
        for seen in all {
            found.extend(seen.found);
            if found.len() > MOST_LEVELS {
                return Levels::More;
            }
        }
        let mut levels: Vec<f64> = found.into_iter().map(f64::from_bits).collect();
        levels.sort_unstable_by(f64::total_cmp);
        Levels::All(levels)
    }
}
