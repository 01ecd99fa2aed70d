//! Which numbers of a weight are 0, and what numbers there are, by codes of up to eight bits, without making the numbers.
//!
//! Scales and zero points belong to runs of codes, and within a run a code is always the same number: the run has a palette
//! of at most 256. So of a run only the set of its codes matters, and a palette is made, by the steps of the
//! [`Recipe`](super::recipe::Recipe), where a code was not seen under the same scale before.
//!
//! Of most runs not even that: where a code is an integer less a zero point, or a number by itself, and then only scaled and
//! rounded, the steps keep magnitudes in their order. If the smallest and the largest become neither 0 nor infinite, none
//! between them does, and 0 are just the codes that are 0 before any scale.

use super::super::CheckpointError;
use super::super::wide::{CodeSet, Loop, widest};
use super::codes::{CHUNK, mask};
use super::recipe::Number;
use super::values::{Coded, Op, Ready, Standing, round};

/// Palettes that a thread keeps; each has a place of its own, which it may lose to another.
const PALETTES: usize = 1 << 10;

/// Reads which numbers are 0.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Marks<'c> {
    coded: Coded<'c>,
    /// Whether the rows of the codes are the columns of the weight.
    pub(in crate::checkpoint) is_transposed: bool,
    /// How zeros are told without a palette, if they can be.
    scaled: Option<Scaled>,
    /// Codes that by themselves are finite.
    finite: CodeSet,
    codes: Vec<u8>,
    runs: Runs,
    palettes: Vec<Option<Palette>>,
}

/// What was found besides zeros.
#[derive(Clone, Debug, Default)]
pub(in crate::checkpoint) struct Found {
    pub(in crate::checkpoint) nan: u64,
    pub(in crate::checkpoint) infinite: u64,
    /// Whether numbers that were not told yet are to be added to `numbers`.
    pub(in crate::checkpoint) wants_numbers: bool,
    pub(in crate::checkpoint) numbers: Vec<f32>,
}

/// Numbers by themselves, less a zero point perhaps, that are then only scaled and rounded.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    /// Whether the first step takes a zero point away.
    has_point: bool,
    /// The smallest magnitude that is not 0, and the largest that is finite, of what a code is by itself.
    least: f32,
    most: f32,
    /// Bits of a code, and the value of them, of those that are 0.
    mask: u8,
    value: u8,
}

/// What belongs to the runs of the codes that are being read.
#[derive(Clone, Debug, Default)]
struct Runs {
    /// Codes of a run, and how many of the first are before these.
    per: usize,
    skip: usize,
    /// For each step that takes something: what, of every run.
    operands: Vec<Vec<f32>>,
    /// What the code that is 0 is under the mask, of every run and of every code.
    zero_of_run: Vec<u8>,
    zeros: Vec<u8>,
    /// What the smallest and the largest magnitude become.
    least: Vec<f32>,
    most: Vec<f32>,
    /// Which runs need a palette to tell zeros.
    is_odd: Vec<bool>,
    any_odd: bool,
}

/// What codes of a run stand for.
#[derive(Clone, Debug)]
struct Palette {
    /// What the steps take.
    operands: Vec<f32>,
    numbers: Vec<f32>,
    /// Codes of which nothing more is to be said: finite, and told if they had to be.
    known: CodeSet,
}

impl<'c> Marks<'c> {
    /// For a weight with a code of up to eight bits for every number.
    pub(super) fn new(coded: &Coded<'c>) -> Option<Marks<'c>> {
        let is_transposed = match coded.place {
            Standing::Same => false,
            Standing::Transposed(height) if height == coded.grid.rows => true,
            _ => return None,
        };
        if coded.grid.codes.bits > 8 {
            return None;
        }
        let mut finite = CodeSet::EMPTY;
        // What is no code is never asked about.
        for code in 0..=255 {
            let number = coded.alone.table.get(usize::from(code));
            if number.is_none_or(|number| number.is_finite()) {
                finite.insert(code);
            }
        }
        let scaled = Scaled::new(coded);
        Some(Marks {
            coded: coded.clone(),
            is_transposed,
            scaled,
            finite,
            codes: Vec::new(),
            runs: Runs::default(),
            palettes: Vec::new(),
        })
    }

    /// Rows and columns of the codes.
    pub(in crate::checkpoint) fn sides(&self) -> (u64, u64) {
        (self.coded.grid.rows, self.coded.grid.columns)
    }

    /// Writes a byte for every code from one on, row after row, 0 where its number is 0.
    pub(in crate::checkpoint) fn read(
        &mut self,
        begin: u64,
        out: &mut [u8],
        found: &mut Found,
    ) -> Result<(), CheckpointError> {
        let columns = self.coded.grid.columns.max(1);
        let (mut at, mut rest) = (begin, out);
        while !rest.is_empty() {
            let here = (columns - at % columns)
                .min(rest.len() as u64)
                .min(CHUNK as u64);
            let (part, others) = rest.split_at_mut(here as usize);
            self.read_row(at / columns, at % columns, part, found)?;
            at += here;
            rest = others;
        }
        Ok(())
    }

    /// The same for some codes of one row.
    fn read_row(
        &mut self,
        row: u64,
        first: u64,
        out: &mut [u8],
        found: &mut Found,
    ) -> Result<(), CheckpointError> {
        let Coded { grid, bytes, .. } = &self.coded;
        self.codes.resize(out.len(), 0);
        grid.codes.read(bytes, row, first, &mut self.codes);
        self.load(row, first, out.len())?;
        let (codes, runs) = (&self.codes[..], &self.runs);
        if let Some(scaled) = &self.scaled {
            widest(Differ {
                codes,
                zeros: &runs.zeros,
                mask: scaled.mask,
                out,
            });
        }
        let wants_all = found.wants_numbers || !self.finite.is_all() && !self.finite.has_all(codes);
        if !wants_all && !runs.any_odd {
            return Ok(());
        }
        let (mut begin, mut end) = (0, runs.per - runs.skip);
        for (run, is_odd) in runs.is_odd.iter().enumerate() {
            let here = begin..end.min(codes.len());
            (begin, end) = (end, end.saturating_add(runs.per));
            if !is_odd && !wants_all {
                continue;
            }
            let slot = runs.slot(run);
            self.palettes.resize(PALETTES, None);
            let palette = &mut self.palettes[slot];
            let palette = match palette {
                Some(palette) if palette.is_of(runs, run) => palette,
                _ => palette.insert(Palette::new(&self.coded, runs, run, found)),
            };
            let codes = &codes[here.clone()];
            palette.look(codes, found);
            if *is_odd {
                for (out, code) in out[here].iter_mut().zip(codes) {
                    *out = u8::from(palette.numbers[usize::from(*code)] != 0.0);
                }
            }
        }
        Ok(())
    }

    /// Has what belongs to some codes of a row at hand.
    fn load(&mut self, row: u64, first: u64, here: usize) -> Result<(), CheckpointError> {
        let mut is_same = self.runs.zeros.len() == here;
        for step in &mut self.coded.steps {
            if let Ready::With(_, operand) = step {
                is_same &= !operand.load(row, first, here)?;
            }
        }
        if !is_same {
            self.runs.fill(&self.coded.steps, here);
            match &self.scaled {
                Some(scaled) => self.runs.tell(scaled, &self.coded, here),
                None => {
                    self.runs.zeros.resize(here, 0);
                    self.runs.is_odd.fill(true);
                }
            }
            self.runs.any_odd = self.runs.is_odd.contains(&true);
        }
        Ok(())
    }
}

impl Scaled {
    fn new(coded: &Coded) -> Option<Scaled> {
        let alone = &coded.alone;
        let is_integer = matches!(alone.number, Number::Natural { .. } | Number::Signed);
        let (has_point, steps) = match &*coded.steps {
            [Ready::With(Op::Minus, _), steps @ ..] if is_integer => (true, steps),
            steps => (false, steps),
        };
        let scales =
            |step: &Ready| matches!(step, Ready::With(Op::Times | Op::Over, _) | Ready::Round(_));
        let zeros = (0..=255).zip(&*alone.table).filter(|(_, n)| **n == 0.0);
        let zeros: Vec<u8> = zeros.map(|(code, _)| code).collect();
        let all = mask(alone.bits) as u8;
        let differing = zeros.iter().fold(0, |bits, code| bits | code ^ zeros[0]);
        if !steps.iter().all(scales) {
            return None;
        }
        let (mask, value) = match zeros.first() {
            _ if has_point => (all, 0),
            // Of all codes that differ in these bits only some are zeros.
            Some(_) if zeros.len() < 1 << differing.count_ones() => return None,
            Some(code) => (all & !differing, code & !differing),
            // A value that no bits under the mask are.
            None => (0, 1),
        };
        let magnitudes = alone.table.iter().map(|n| n.abs());
        let magnitudes = magnitudes.filter(|n| *n > 0.0 && n.is_finite());
        Some(Scaled {
            has_point,
            least: magnitudes.clone().fold(f32::INFINITY, f32::min),
            most: magnitudes.fold(0.0, f32::max),
            mask,
            value,
        })
    }
}

impl Runs {
    /// Cuts codes where any operand changes, and asks all for what they are in each run.
    fn fill(&mut self, steps: &[Ready], here: usize) {
        let operands = || {
            steps.iter().filter_map(|step| match step {
                Ready::With(_, operand) => Some(operand),
                Ready::Round(_) => None,
            })
        };
        let mut cut = None;
        operands().for_each(|operand| operand.cut(here, &mut cut));
        (self.per, self.skip) = cut.unwrap_or((here, 0));
        let count = (self.skip + here).div_ceil(self.per.max(1));
        self.is_odd.clear();
        self.is_odd.resize(count, false);
        self.operands.resize(operands().count(), Vec::new());
        for (operand, out) in operands().zip(&mut self.operands) {
            out.resize(count, 0.0);
            operand.of_runs(self.per, self.skip, here, out);
        }
    }

    /// Says of each run which code is 0, or that only a palette can say it.
    fn tell(&mut self, scaled: &Scaled, coded: &Coded, here: usize) {
        let count = self.is_odd.len();
        let (least, most) = (&mut self.least, &mut self.most);
        least.clear();
        least.resize(count, scaled.least);
        most.clear();
        most.resize(count, scaled.most);
        let mut operands = self.operands.iter();
        let mut steps = &coded.steps[..];
        if scaled.has_point {
            let points = operands.next().map(|points| &**points).unwrap_or_default();
            steps = &steps[1..];
            self.zero_of_run.clear();
            for ((run, point), is_odd) in (0..).zip(points).zip(&mut self.is_odd) {
                let code = coded.alone.code_of(*point);
                *is_odd = code.is_none();
                self.zero_of_run.push(code.unwrap_or(0));
                // Two integers differ by at least 1.
                least[run] = 1.0;
                most[run] += point.abs();
            }
            self.zeros.resize(here, 0);
            let (mut rest, mut end) = (&mut self.zeros[..], self.per - self.skip);
            for code in &self.zero_of_run {
                let (run, others) = rest.split_at_mut(end.min(rest.len()));
                run.fill(*code);
                (rest, end) = (others, self.per);
            }
        } else if self.zeros.len() != here {
            self.zeros.clear();
            self.zeros.resize(here, scaled.value);
        }
        for step in steps {
            match step {
                Ready::With(op, _) => {
                    let others = operands.next().map(|others| &**others).unwrap_or_default();
                    op.on(least, others.iter().copied());
                    op.on(most, others.iter().copied());
                }
                Ready::Round(dtype) => {
                    round(least, *dtype);
                    round(most, *dtype);
                }
            }
        }
        let ends = least.iter().zip(most);
        for (is_odd, (least, most)) in self.is_odd.iter_mut().zip(ends) {
            *is_odd |= *least == 0.0 || !least.is_finite() || !most.is_finite();
        }
    }

    /// What the steps take in a run.
    fn operands(&self, run: usize) -> impl Iterator<Item = f32> {
        self.operands.iter().map(move |operand| operand[run])
    }

    /// Where the palette of a run is kept.
    fn slot(&self, run: usize) -> usize {
        let hash = self.operands(run).fold(0u64, |hash, operand| {
            (hash.rotate_left(5) ^ u64::from(operand.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        (hash >> (u64::BITS - PALETTES.ilog2())) as usize
    }
}

impl Palette {
    fn new(coded: &Coded, runs: &Runs, run: usize, found: &Found) -> Palette {
        let mut numbers = coded.alone.table.to_vec();
        let mut operands = runs.operands(run);
        for step in &coded.steps {
            match step {
                Ready::With(op, _) => {
                    let other = operands.next().unwrap_or_default();
                    op.on(&mut numbers, std::iter::repeat(other));
                }
                Ready::Round(dtype) => round(&mut numbers, *dtype),
            }
        }
        let mut known = CodeSet::EMPTY;
        for code in 0..=255 {
            let number = numbers.get(usize::from(code));
            if number.is_none_or(|n| n.is_finite() && !found.wants_numbers) {
                known.insert(code);
            }
        }
        Palette {
            operands: runs.operands(run).collect(),
            numbers,
            known,
        }
    }

    fn is_of(&self, runs: &Runs, run: usize) -> bool {
        let own = self.operands.iter().map(|operand| operand.to_bits());
        own.eq(runs.operands(run).map(f32::to_bits))
    }

    /// Tells what is new of the numbers of codes, and how many are not finite.
    fn look(&mut self, codes: &[u8], found: &mut Found) {
        if self.known.is_all() || self.known.has_all(codes) {
            return;
        }
        for code in codes {
            if self.known.has(*code) {
                continue;
            }
            let number = self.numbers[usize::from(*code)];
            found.nan += u64::from(number.is_nan());
            found.infinite += u64::from(number.is_infinite());
            if !number.is_finite() {
                continue;
            }
            if found.wants_numbers {
                found.numbers.push(number);
            }
            for (code, other) in (0..=255).zip(&self.numbers) {
                if *other == number {
                    self.known.insert(code);
                }
            }
        }
    }
}

/// Codes against others under a mask: 0 where they are equal.
struct Differ<'c> {
    codes: &'c [u8],
    zeros: &'c [u8],
    mask: u8,
    out: &'c mut [u8],
}

impl Loop for Differ<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let all = self.codes.iter().zip(self.zeros);
        for (out, (code, zero)) in self.out.iter_mut().zip(all) {
            *out = (code & self.mask) ^ zero;
        }
    }
}
