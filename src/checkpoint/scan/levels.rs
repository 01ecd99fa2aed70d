//! Distinct values of a weight, exactly as long as they are few.
//!
//! Weights that were trained as floats have thousands, so after some hundred numbers of a block nothing more is asked; a
//! weight that was rounded to few values is asked about every number.

use super::super::packed::value;
use super::super::wide::{CodeSet, widest};
use super::wide::{Among, Code, FEW, Lane};
use crate::dtype::StoredType;
use std::collections::BTreeSet;

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

/// Codes that are compared with a few at a time.
const SOME: usize = 1024;

/// Codes of 16 bits.
const NARROW: usize = 1 << 16;

/// Marks of codes that are compared at a time.
const RUN: usize = 4096;

/// Codes of eight bits that are asked about at a time.
const BYTES: usize = 1 << 14;

/// Slots of the table of wide codes; a quarter of them may be taken.
const SLOTS: usize = 4096;

/// Distinct values that one thread has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    dtype: StoredType,
    /// Bits that are 0 in a zero.
    mask: u64,
    /// Codes that were seen, as long as they are so few that all are compared with all; then there are tables.
    few: Vec<u64>,
    /// Which codes of eight bits were seen.
    known: CodeSet,
    /// Of codes of 16 bits: 1 for each that was seen, and for each whose value is among those that were found. Empty until
    /// enough codes were looked at.
    narrow: Vec<u8>,
    added: Vec<u8>,
    /// Of wider codes those that were seen, plus one, by a hash; empty at first, too.
    table: Vec<u64>,
    /// Taken slots of it.
    taken: usize,
    /// Distinct finite values, as bits.
    found: BTreeSet<u64>,
}

impl Seen {
    pub(super) fn new(dtype: StoredType, mask: u64) -> Seen {
        Seen {
            dtype,
            mask,
            few: Vec::new(),
            known: CodeSet::EMPTY,
            narrow: Vec::new(),
            added: Vec::new(),
            table: Vec::new(),
            taken: 0,
            found: BTreeSet::new(),
        }
    }

    /// Whether there are more values than are listed.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() > MOST_LEVELS
    }

    /// Looks at codes until there are too many values.
    pub(super) fn look<C: Code>(&mut self, codes: &[C]) {
        let mut rest = codes;
        while self.few.len() <= FEW && !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(SOME));
            self.look_few(some);
            rest = others;
        }
        if self.is_full() || rest.is_empty() {
            return;
        }
        if self.dtype.bits == 16 {
            self.look_narrow(rest);
        } else {
            self.look_wide(rest);
        }
    }

    fn look_few<C: Code>(&mut self, codes: &[C]) {
        if let Some(first) = self.few.first() {
            let few = |at| C::Lane::short(*self.few.get(at).unwrap_or(first));
            let few = std::array::from_fn(few);
            if widest(Among { codes, few }) {
                return;
            }
        }
        let mut new: Vec<u64> = codes.iter().map(|code| code.lane().long()).collect();
        new.sort_unstable();
        new.dedup();
        new.retain(|code| !self.few.contains(code));
        new.iter().for_each(|code| self.add(*code));
        self.few.extend(new);
    }

    /// Looks at codes of eight bits, which never are too many.
    pub(super) fn look_bytes(&mut self, codes: &[u8]) {
        if self.known.is_all() {
            return;
        }
        for codes in codes.chunks(BYTES) {
            if self.known.has_all(codes) {
                continue;
            }
            for code in codes {
                if !self.known.has(*code) {
                    self.known.insert(*code);
                    self.add(u64::from(*code));
                }
            }
        }
    }

    fn look_narrow<C: Code>(&mut self, codes: &[C]) {
        let mut seen = std::mem::take(&mut self.narrow);
        let mut added = std::mem::take(&mut self.added);
        seen.resize(NARROW, 0);
        added.resize(NARROW, 0);
        // Of an array whose length the compiler knows no index is checked.
        if let Some(marks) = seen.first_chunk_mut::<NARROW>() {
            for code in codes {
                marks[usize::from(code.lane().long() as u16)] = 1;
            }
        }
        // Almost all runs of codes say what they said before.
        let runs = seen.chunks(RUN).zip(added.chunks_mut(RUN));
        for (first, (seen, added)) in (0..).step_by(RUN).zip(runs) {
            if seen == added {
                continue;
            }
            for (code, (seen, added)) in (first..).zip(seen.iter().zip(added)) {
                if seen != added {
                    self.add(code);
                    *added = 1;
                }
            }
        }
        (self.narrow, self.added) = (seen, added);
    }

    fn look_wide<C: Code>(&mut self, codes: &[C]) {
        let mut table = std::mem::take(&mut self.table);
        table.resize(SLOTS, 0);
        if let Some(table) = table.first_chunk_mut::<SLOTS>() {
            for code in codes {
                // The one code that has no successor is never kept, only added again.
                let kept = code.lane().long().wrapping_add(1);
                let is_new = kept == 0 || table[slot(kept)] != kept;
                if is_new && !self.is_kept(table, kept) {
                    self.add(kept.wrapping_sub(1));
                    if self.is_full() {
                        break;
                    }
                }
            }
        }
        self.table = table;
    }

    /// Whether a code is in the table, in its own slot or in one that follows; puts it there if not.
    #[cold]
    fn is_kept(&mut self, table: &mut [u64; SLOTS], kept: u64) -> bool {
        // What is no number may have many codes; they are not worth keeping.
        if self.taken == SLOTS / 4 {
            table.fill(0);
            self.taken = 0;
        }
        let mut at = slot(kept);
        while table[at] != 0 {
            if table[at] == kept {
                return true;
            }
            at = (at + 1) % SLOTS;
        }
        table[at] = kept;
        self.taken += usize::from(kept != 0);
        false
    }

    /// Adds the value of a code.
    fn add(&mut self, code: u64) {
        let number = if code & self.mask == 0 {
            0.0
        } else {
            value(code, self.dtype)
        };
        if number.is_finite() && !self.is_full() {
            self.found.insert(number.to_bits());
        }
    }

    /// What all threads saw.
    pub(super) fn levels(all: impl Iterator<Item = Seen>) -> Levels {
        let mut found = BTreeSet::new();
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

/// Where the table keeps a code.
fn slot(kept: u64) -> usize {
    (kept.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
}
