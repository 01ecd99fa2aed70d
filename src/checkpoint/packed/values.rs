//! The numbers of a weight, as the library of its format computes them.
//!
//! A weight in, its numbers out in any order of pieces: [`Reader`] holds what codes need, and is cheap to clone for a thread
//! of its own. Codes are read in runs of a row, and the steps of a [`Recipe`](super::recipe::Recipe) go over the run one
//! after the other.

use super::super::wide::{Loop, widest};
use super::super::{Checkpoint, CheckpointError, Tensor};
use super::codes::{CHUNK, mask};
use super::floats::{number, value};
use super::palettes::Marks;
use super::recipe::{Number, Place, Step, Term};
use super::rules::{Grid, Rule};
use super::zeros::{Loaded, misfit};
use super::{Weight, bitsandbytes, trained};
use crate::dtype::StoredType;
use crate::float16::{rounded_to_bf16, rounded_to_f16};
use std::sync::Arc;

/// Reads the numbers of one weight.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Reader<'c> {
    kind: Kind<'c>,
    /// Numbers in the last dimension as it is asked for, and as it is stored.
    widths: (u64, u64),
}

#[derive(Clone, Debug)]
enum Kind<'c> {
    /// Codes that are numbers, one after the other.
    Plain { tensor: &'c Tensor, bytes: &'c [u8] },
    /// Codes with what belongs to them.
    Coded(Box<Coded<'c>>),
    /// Codes of a table of values.
    Lookup(bitsandbytes::Values<'c>),
    /// Floats that are rounded when they are used.
    Trained(trained::Values<'c>),
}

impl Weight {
    /// Why its numbers cannot be told, if they cannot.
    pub fn without_values(&self, checkpoint: &Checkpoint) -> Option<&'static str> {
        match &self.rule {
            Rule::Numbers => {
                let tensor = &checkpoint.tensors[self.parts[0] as usize];
                (tensor.dtype.name == "C64").then_some("its numbers are complex")
            }
            Rule::Grid(grid) => match grid.recipe.place {
                Place::Unknown(why) => Some(why),
                _ => None,
            },
            Rule::None(why) => Some(why),
            Rule::Lookup(_) | Rule::Trained(_) => None,
        }
    }
}

impl<'c> Reader<'c> {
    /// Reads a weight in a shape: its own, or one that its padding allows. `None` where [`Weight::without_values`] says why.
    pub(in crate::checkpoint) fn new(
        checkpoint: &'c Checkpoint,
        weight: &'c Weight,
        shape: &[u64],
    ) -> Result<Option<Reader<'c>>, CheckpointError> {
        if weight.without_values(checkpoint).is_some() {
            return Ok(None);
        }
        let tensor = &checkpoint.tensors[weight.parts[0] as usize];
        let last = |shape: &[u64]| shape.last().copied().unwrap_or(1).max(1);
        let stored = weight.shape.as_deref().unwrap_or(shape);
        let kind = match &weight.rule {
            Rule::Numbers => Kind::Plain {
                tensor,
                bytes: whole(checkpoint, tensor)?,
            },
            Rule::Grid(grid) => {
                Kind::Coded(Box::new(Coded::new(checkpoint, tensor, grid, stored)?))
            }
            Rule::Lookup(lookup) => Kind::Lookup(lookup.values(checkpoint, tensor)?),
            Rule::Trained(quantizer) => Kind::Trained(quantizer.values(checkpoint, tensor)?),
            Rule::None(_) => return Ok(None),
        };
        Ok(Some(Reader {
            kind,
            widths: (last(shape), last(stored)),
        }))
    }

    /// The tensor and its bytes, where every number is a code of whole bytes with a code for 0.
    pub(in crate::checkpoint) fn whole_codes(&self) -> Option<(&'c Tensor, &'c [u8])> {
        let Kind::Plain { tensor, bytes } = &self.kind else {
            return None;
        };
        let has_zero = super::floats::zero_bits(tensor.dtype).is_some();
        (tensor.dtype.bits >= 8 && has_zero).then_some((*tensor, *bytes))
    }

    /// Writes the numbers from one on, in the order of the weight's shape. The caller has asked how many there are.
    pub(in crate::checkpoint) fn read(
        &mut self,
        begin: u64,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        self.runs(begin, out, |kind, begin, out| match kind {
            Kind::Plain { tensor, bytes } => {
                plain(tensor, bytes, begin, out);
                Ok(())
            }
            Kind::Coded(coded) => coded.read(begin, out),
            Kind::Lookup(values) => values.read(begin, out),
            Kind::Trained(values) => {
                values.read(begin, out);
                Ok(())
            }
        })
    }

    /// Whether the columns of a matrix are stored one after the other.
    pub(in crate::checkpoint) fn is_transposed(&self, shape: &[u64]) -> bool {
        self.height().is_some() && shape.len() == 2
    }

    /// Length of the columns, where they are stored one after the other and nothing between them.
    fn height(&self) -> Option<u64> {
        let Kind::Coded(coded) = &self.kind else {
            return None;
        };
        match coded.place {
            Standing::Transposed(height) if self.widths == (height, height) => Some(height),
            _ => None,
        }
    }

    /// Writes the numbers of some rows from one number of the first on: of rows of `columns.0` numbers `columns.1` each.
    pub(in crate::checkpoint) fn read_tile(
        &mut self,
        begin: u64,
        columns: (u64, u64),
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let (stride, width) = columns;
        if width == stride {
            return self.read(begin, out);
        }
        let height = self.height();
        if let Kind::Coded(coded) = &mut self.kind
            && height == Some(stride)
        {
            return coded.tile(begin, stride, width, out, Coded::row);
        }
        let rows = out.chunks_mut(width as usize);
        for (begin, row) in (begin..).step_by(stride as usize).zip(rows) {
            self.read(begin, row)?;
        }
        Ok(())
    }

    /// How codes say which numbers are 0, of a weight with a code of up to eight bits for every number: a reader for that
    /// alone.
    pub(in crate::checkpoint) fn marks(&self) -> Option<Marks<'c>> {
        match &self.kind {
            Kind::Coded(coded) if self.widths.0 == self.widths.1 => Marks::new(coded),
            _ => None,
        }
    }

    /// Says which numbers from one on have a scale of 0.
    pub(in crate::checkpoint) fn dead_scales(
        &mut self,
        begin: u64,
        out: &mut [bool],
    ) -> Result<(), CheckpointError> {
        self.runs(begin, out, |kind, begin, out| match kind {
            Kind::Plain { .. } | Kind::Trained(_) => {
                out.fill(false);
                Ok(())
            }
            Kind::Coded(coded) => coded.dead_scales(begin, out),
            Kind::Lookup(values) => values.dead_scales(begin, out),
        })
    }

    /// Runs of numbers that follow each other as they are stored: all, or row by row where rows are stored longer.
    fn runs<T>(
        &mut self,
        begin: u64,
        out: &mut [T],
        mut each: impl FnMut(&mut Kind<'c>, u64, &mut [T]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let (width, stored) = self.widths;
        if width == stored {
            return each(&mut self.kind, begin, out);
        }
        let (mut at, mut rest) = (begin, out);
        while !rest.is_empty() {
            let here = (width - at % width).min(rest.len() as u64);
            let (run, others) = rest.split_at_mut(here as usize);
            each(&mut self.kind, at / width * stored + at % width, run)?;
            at += here;
            rest = others;
        }
        Ok(())
    }
}

/// The bytes of a tensor, which are as many as its shape says.
pub(super) fn whole<'c>(
    checkpoint: &'c Checkpoint,
    tensor: &'c Tensor,
) -> Result<&'c [u8], CheckpointError> {
    let bytes = checkpoint.data(tensor)?.bytes;
    let bits = u128::from(tensor.elements()) * u128::from(tensor.dtype.bits);
    if bits.div_ceil(8) > bytes.len() as u128 {
        let reason = "it is shorter than its shape says";
        return Err(misfit(checkpoint, tensor, reason));
    }
    Ok(bytes)
}

/// Numbers of a dtype.
fn plain(tensor: &Tensor, bytes: &[u8], begin: u64, out: &mut [f32]) {
    let (dtype, bits) = (tensor.dtype, u64::from(tensor.dtype.bits));
    if bits < 8 {
        let table = table(Number::Of(dtype), dtype.bits);
        for (out, at) in out.iter_mut().zip(begin..) {
            // Codes of 4 and of 6 bits are a stream, low bits first; one may lie in two bytes.
            let bit = at * bits;
            let byte = |at: u64| bytes.get(at as usize).copied().unwrap_or_default();
            let pair = u16::from_le_bytes([byte(bit / 8), byte(bit / 8 + 1)]);
            let code = pair >> (bit % 8) & ((1 << bits) - 1);
            *out = table[usize::from(code)];
        }
        return;
    }
    let size = (bits / 8) as usize;
    let here = bytes.get(begin as usize * size..).unwrap_or_default();
    match dtype.name {
        "BF16" => {
            for (out, code) in out.iter_mut().zip(here.as_chunks::<2>().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*code)) << 16);
            }
        }
        "F16" => {
            for (out, code) in out.iter_mut().zip(here.as_chunks::<2>().0) {
                *out = number(u16::from_le_bytes(*code).into(), dtype);
            }
        }
        "F32" => {
            for (out, code) in out.iter_mut().zip(here.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*code);
            }
        }
        _ if size == 1 => {
            let table = table(Number::Of(dtype), 8);
            for (out, code) in out.iter_mut().zip(here) {
                *out = table[usize::from(*code)];
            }
        }
        _ => {
            for (out, code) in out.iter_mut().zip(here.chunks_exact(size)) {
                let code = code.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
                *out = value(code, dtype) as f32;
            }
        }
    }
}

/// What a code of so many bits is by itself.
fn alone(code: u32, number: Number, bits: u32) -> f32 {
    match number {
        Number::Natural { plus, minus } => {
            ((code.wrapping_add(plus) & mask(bits)) as i64 - i64::from(minus)) as f32
        }
        Number::Signed => {
            let unused = 32 - bits.clamp(1, 32);
            ((code << unused) as i32 >> unused) as f32
        }
        Number::Of(dtype) => value(code.into(), dtype) as f32,
    }
}

/// What all codes of up to eight bits are by themselves.
fn table(number: Number, bits: u32) -> Arc<[f32]> {
    (0..1u32 << bits.min(8))
        .map(|code| alone(code, number, bits))
        .collect()
}

/// Turns codes into what they are by themselves.
#[derive(Clone, Debug)]
pub(super) struct Alone {
    pub(super) number: Number,
    pub(super) bits: u32,
    /// Of codes of up to eight bits.
    pub(super) table: Arc<[f32]>,
}

impl Alone {
    fn new(number: Number, bits: u32) -> Alone {
        let table = if bits <= 8 {
            table(number, bits)
        } else {
            Arc::default()
        };
        Alone {
            number,
            bits,
            table,
        }
    }

    /// The code of up to eight bits that is a number, if one is; integers only.
    pub(super) fn code_of(&self, number: f32) -> Option<u8> {
        let whole = number as i32;
        let code = match self.number {
            Number::Natural { plus, minus } => {
                whole.wrapping_add(minus as i32).wrapping_sub(plus as i32)
            }
            _ => whole,
        };
        let code = code as u32 & mask(self.bits);
        (self.table.get(code as usize) == Some(&number)).then_some(code as u8)
    }

    fn of(&self, codes: &[u32], out: &mut [f32]) {
        match self.number {
            Number::Natural { plus, minus } if self.bits <= 8 => widest(Integers {
                codes,
                plus,
                unused: 32 - self.bits,
                is_signed: false,
                minus: minus as i32,
                out,
            }),
            Number::Signed => widest(Integers {
                codes,
                plus: 0,
                unused: 32 - self.bits.clamp(1, 32),
                is_signed: true,
                minus: 0,
                out,
            }),
            _ if !self.table.is_empty() => {
                let last = self.table.len() - 1;
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = self.table[*code as usize & last];
                }
            }
            Number::Of(dtype) if matches!(dtype.name, "F32" | "F16" | "BF16") => {
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = number(*code, dtype);
                }
            }
            _ => {
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = alone(*code, self.number, self.bits);
                }
            }
        }
    }
}

/// Integers of codes: plus something in the width of codes, with their sign or without, less something.
struct Integers<'c> {
    codes: &'c [u32],
    plus: u32,
    unused: u32,
    is_signed: bool,
    minus: i32,
    out: &'c mut [f32],
}

impl Loop for Integers<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let unused = self.unused & 31;
        for (out, code) in self.out.iter_mut().zip(self.codes) {
            let high = code.wrapping_add(self.plus) << unused;
            let whole = if self.is_signed {
                high as i32 >> unused
            } else {
                (high >> unused) as i32
            };
            *out = (whole - self.minus) as f32;
        }
    }
}

/// Numbers that are rounded to 16 bits.
struct Rounded<'n> {
    numbers: &'n mut [f32],
    is_half: bool,
}

impl Loop for Rounded<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        if self.is_half {
            self.numbers
                .iter_mut()
                .for_each(|x| *x = rounded_to_f16(*x));
        } else {
            self.numbers
                .iter_mut()
                .for_each(|x| *x = rounded_to_bf16(*x));
        }
    }
}

/// A matrix of codes with what belongs to them.
#[derive(Clone, Debug)]
pub(super) struct Coded<'c> {
    pub(super) grid: &'c Grid,
    pub(super) bytes: &'c [u8],
    pub(super) alone: Alone,
    pub(super) steps: Vec<Ready<'c>>,
    pub(super) place: Standing<'c>,
    codes: Vec<u32>,
    operand: Vec<f32>,
    run: Vec<f32>,
}

/// Where its numbers stand in the weight.
#[derive(Clone, Debug)]
pub(super) enum Standing<'c> {
    Same,
    /// Rows of one matrix of codes.
    Transposed(u64),
    /// A mask with so many columns in rows of so many bytes, and how many numbers are stored before each row.
    Masked {
        mask: &'c [u8],
        columns: u64,
        row_bytes: usize,
        before: Arc<[u64]>,
    },
}

/// A step with its tensors at hand.
#[derive(Clone, Debug)]
pub(super) enum Ready<'c> {
    With(Op, Operand<'c>),
    Round(StoredType),
}

/// What is done to two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op {
    Plus,
    Minus,
    Times,
    Over,
}

impl Op {
    /// Combines what is there so far with what belongs to it.
    pub(super) fn on(self, numbers: &mut [f32], others: impl Iterator<Item = f32>) {
        let all = numbers.iter_mut().zip(others);
        match self {
            Op::Plus => all.for_each(|(x, y)| *x += y),
            Op::Minus => all.for_each(|(x, y)| *x -= y),
            Op::Times => all.for_each(|(x, y)| *x *= y),
            Op::Over => all.for_each(|(x, y)| *x /= y),
        }
    }
}

/// Rounds numbers to a dtype.
pub(super) fn round(numbers: &mut [f32], dtype: StoredType) {
    if let is_half @ ("F16" | "BF16") = dtype.name {
        widest(Rounded {
            numbers,
            is_half: is_half == "F16",
        });
    }
}

/// A term with its tensors at hand.
#[derive(Clone, Debug)]
pub(super) enum Operand<'c> {
    Constant(f32),
    Entry(Box<Entry<'c>>),
    Two(Pair, Box<[Operand<'c>; 2]>, Vec<f32>),
}

/// Entries of a side tensor, and the numbers that were asked for last.
#[derive(Clone, Debug)]
pub(super) struct Entry<'c> {
    loaded: Loaded<'c>,
    alone: Alone,
    /// Each that belongs to the codes, once; of how many codes each is, and of how many before these the first is.
    each: Vec<f32>,
    per: u64,
    skip: u64,
    spread: Vec<f32>,
}

impl Entry<'_> {
    fn read(&mut self, row: u64, first: u64, here: usize) -> Result<&[f32], CheckpointError> {
        if let Some(runs) = self.loaded.runs(row, first, here)? {
            self.each.resize(runs.values.len(), 0.0);
            self.spread.resize(here, 0.0);
            self.alone.of(runs.values, &mut self.each);
            runs.spread(&self.each, &mut self.spread);
        }
        Ok(&self.spread)
    }

    fn load(&mut self, row: u64, first: u64, here: usize) -> Result<bool, CheckpointError> {
        let Some(runs) = self.loaded.runs(row, first, here)? else {
            return Ok(false);
        };
        self.each.resize(runs.values.len(), 0.0);
        self.alone.of(runs.values, &mut self.each);
        (self.per, self.skip) = (runs.per, runs.skip);
        Ok(true)
    }

    /// Whether so many codes have one entry.
    fn is_one(&self, here: usize) -> bool {
        self.skip.saturating_add(here as u64) <= self.per
    }
}

/// What is made of two operands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pair {
    Quotient,
    Product,
    Nearest,
}

impl Pair {
    /// Makes it of the left ones and the right ones.
    fn on(self, left: &mut [f32], right: &[f32]) {
        for (left, right) in left.iter_mut().zip(right) {
            *left = match self {
                Pair::Quotient => *left / *right,
                Pair::Product => *left * *right,
                Pair::Nearest => (-*right / *left).round_ties_even(),
            };
        }
    }
}

impl<'c> Operand<'c> {
    fn new(
        checkpoint: &'c Checkpoint,
        term: &'c Term,
        grid: &'c Grid,
    ) -> Result<Operand<'c>, CheckpointError> {
        let two = |kind, [left, right]: &'c [Term; 2]| {
            let left = Operand::new(checkpoint, left, grid)?;
            let right = Operand::new(checkpoint, right, grid)?;
            Ok(Operand::Two(kind, Box::new([left, right]), Vec::new()))
        };
        match term {
            Term::Constant(number) => Ok(Operand::Constant(*number)),
            Term::Entry(side, number) => Ok(Operand::Entry(Box::new(Entry {
                loaded: Loaded::new(checkpoint, side, grid)?,
                alone: Alone::new(*number, side.layout.bits),
                each: Vec::new(),
                per: 1,
                skip: 0,
                spread: Vec::new(),
            }))),
            Term::Quotient(both) => two(Pair::Quotient, both),
            Term::Product(both) => two(Pair::Product, both),
            Term::Nearest(both) => two(Pair::Nearest, both),
        }
    }

    /// Combines what is there so far with what belongs to it.
    fn onto(
        &mut self,
        op: Op,
        (row, first): (u64, u64),
        out: &mut [f32],
        buffer: &mut [f32],
    ) -> Result<(), CheckpointError> {
        match self {
            Operand::Constant(number) => op.on(out, std::iter::repeat(*number)),
            Operand::Entry(entry) => {
                let here = out.len();
                op.on(out, entry.read(row, first, here)?.iter().copied());
            }
            Operand::Two(..) => {
                self.read(row, first, buffer)?;
                op.on(out, buffer.iter().copied());
            }
        }
        Ok(())
    }

    /// Has what belongs to some codes of a row at hand, for [`Operand::of_runs`]; says whether it was not. An operand is
    /// asked either this or to [`Operand::read`].
    pub(super) fn load(
        &mut self,
        row: u64,
        first: u64,
        here: usize,
    ) -> Result<bool, CheckpointError> {
        match self {
            Operand::Constant(_) => Ok(false),
            Operand::Entry(entry) => entry.load(row, first, here),
            Operand::Two(_, both, _) => {
                let [left, right] = &mut **both;
                Ok(left.load(row, first, here)? | right.load(row, first, here)?)
            }
        }
    }

    /// Says of how many of so many codes each run is and how many the first has before them; where operands differ in that,
    /// every code is a run.
    pub(super) fn cut(&self, here: usize, cut: &mut Option<(usize, usize)>) {
        match self {
            Operand::Constant(_) => {}
            Operand::Entry(entry) if entry.is_one(here) => {}
            Operand::Entry(entry) => {
                let own = (entry.per as usize, entry.skip as usize);
                *cut = Some(match *cut {
                    Some(other) if other != own => (1, 0),
                    _ => own,
                });
            }
            Operand::Two(_, both, _) => both.iter().for_each(|operand| operand.cut(here, cut)),
        }
    }

    /// Writes what belongs to each run of so many codes, the first of which begins before them.
    pub(super) fn of_runs(&self, per: usize, skip: usize, here: usize, out: &mut [f32]) {
        match self {
            Operand::Constant(number) => out.fill(*number),
            Operand::Entry(entry) if entry.is_one(here) => {
                out.fill(entry.each.first().copied().unwrap_or_default());
            }
            Operand::Entry(entry) if (entry.per, entry.skip) == (per as u64, skip as u64) => {
                out.copy_from_slice(&entry.each);
            }
            Operand::Entry(entry) => {
                for (run, out) in out.iter_mut().enumerate() {
                    let column = (run * per).saturating_sub(skip) as u64;
                    *out = entry.each[((entry.skip + column) / entry.per) as usize];
                }
            }
            Operand::Two(kind, both, _) => {
                let mut others = vec![0.0; out.len()];
                both[0].of_runs(per, skip, here, out);
                both[1].of_runs(per, skip, here, &mut others);
                kind.on(out, &others);
            }
        }
    }

    /// Writes what belongs to the codes of a row from a column on.
    fn read(&mut self, row: u64, first: u64, out: &mut [f32]) -> Result<(), CheckpointError> {
        match self {
            Operand::Constant(number) => out.fill(*number),
            Operand::Entry(entry) => out.copy_from_slice(entry.read(row, first, out.len())?),
            Operand::Two(kind, both, other) => {
                let [left, right] = &mut **both;
                other.resize(out.len(), 0.0);
                left.read(row, first, out)?;
                right.read(row, first, other)?;
                kind.on(out, other);
            }
        }
        Ok(())
    }
}

impl<'c> Coded<'c> {
    fn new(
        checkpoint: &'c Checkpoint,
        tensor: &'c Tensor,
        grid: &'c Grid,
        shape: &[u64],
    ) -> Result<Coded<'c>, CheckpointError> {
        let bytes = checkpoint.data(tensor)?.bytes;
        let is_empty = grid.rows == 0 || grid.columns == 0;
        let needed = grid.codes.bytes(grid.rows, grid.columns);
        if !is_empty && needed.is_none_or(|needed| needed > tensor.bytes) {
            let reason = "it has fewer codes than its shape says";
            return Err(misfit(checkpoint, tensor, reason));
        }
        let operand = |term| Operand::new(checkpoint, term, grid);
        let steps = if is_empty {
            &[][..]
        } else {
            &grid.recipe.steps
        };
        let steps = steps.iter().map(|step| {
            Ok(match step {
                Step::Plus(term) => Ready::With(Op::Plus, operand(term)?),
                Step::Minus(term) => Ready::With(Op::Minus, operand(term)?),
                Step::Times(term) => Ready::With(Op::Times, operand(term)?),
                Step::Over(term) => Ready::With(Op::Over, operand(term)?),
                Step::Round(dtype) => Ready::Round(*dtype),
            })
        });
        let place = match grid.recipe.place {
            Place::Same | Place::Unknown(_) => Standing::Same,
            Place::Transposed { rows } => Standing::Transposed(rows.max(1)),
            Place::Masked(number) => {
                let mask = &checkpoint.tensors[number as usize];
                masked(checkpoint, mask, shape, grid)?
            }
        };
        Ok(Coded {
            grid,
            bytes,
            alone: Alone::new(grid.recipe.number, grid.codes.bits),
            steps: steps.collect::<Result<_, CheckpointError>>()?,
            place,
            codes: Vec::new(),
            operand: Vec::new(),
            run: Vec::new(),
        })
    }

    /// Writes the numbers of a row of the matrix of codes.
    fn row(&mut self, row: u64, first: u64, out: &mut [f32]) -> Result<(), CheckpointError> {
        let mut first = first;
        for out in out.chunks_mut(CHUNK) {
            self.codes.resize(out.len(), 0);
            self.operand.resize(out.len(), 0.0);
            let (codes, operand) = (&mut self.codes[..], &mut self.operand[..]);
            self.grid.codes.read(self.bytes, row, first, codes);
            self.alone.of(codes, out);
            for step in &mut self.steps {
                match step {
                    Ready::Round(dtype) => round(out, *dtype),
                    Ready::With(op, term) => term.onto(*op, (row, first), out, operand)?,
                }
            }
            first += out.len() as u64;
        }
        Ok(())
    }

    /// Says which scales of a row of the matrix of codes are 0.
    fn dead_row(&mut self, row: u64, first: u64, out: &mut [f32]) -> Result<(), CheckpointError> {
        let mut first = first;
        for out in out.chunks_mut(CHUNK) {
            self.operand.resize(out.len(), 0.0);
            out.fill(1.0);
            for step in &mut self.steps {
                if let Ready::With(Op::Times, term) = step {
                    term.read(row, first, &mut self.operand)?;
                    for (out, scale) in out.iter_mut().zip(&self.operand) {
                        *out *= f32::from(*scale != 0.0);
                    }
                }
            }
            first += out.len() as u64;
        }
        Ok(())
    }

    fn read(&mut self, begin: u64, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.each(begin, out, Coded::row)
    }

    fn dead_scales(&mut self, begin: u64, out: &mut [bool]) -> Result<(), CheckpointError> {
        let mut alive = vec![0.0; out.len()];
        self.each(begin, &mut alive, Coded::dead_row)?;
        for (out, alive) in out.iter_mut().zip(alive) {
            *out = alive == 0.0;
        }
        if let Standing::Masked { .. } = self.place {
            // What is not stored has no scale; it was pruned.
            out.fill(false);
        }
        Ok(())
    }

    /// Walks the numbers of the weight from one on and has runs of them read from rows of codes.
    fn each(
        &mut self,
        begin: u64,
        out: &mut [f32],
        read: fn(&mut Self, u64, u64, &mut [f32]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let columns = self.grid.columns.max(1);
        match self.place.clone() {
            Standing::Same => {
                let (mut at, mut rest) = (begin, out);
                while !rest.is_empty() {
                    let here = (columns - at % columns).min(rest.len() as u64);
                    let (run, others) = rest.split_at_mut(here as usize);
                    read(self, at / columns, at % columns, run)?;
                    at += here;
                    rest = others;
                }
                Ok(())
            }
            Standing::Transposed(height) => {
                // A matrix of the weight has `columns` rows of `height` numbers; whole rows are read as one tile.
                let (mut at, mut rest) = (begin, out);
                while !rest.is_empty() {
                    let (line, first) = (at / height, at % height);
                    let left = columns - line % columns;
                    let whole = rest.len() as u64 / height;
                    let (lines, width) = if first == 0 && whole > 0 {
                        (whole.min(left), height)
                    } else {
                        (1, (height - first).min(rest.len() as u64))
                    };
                    let (part, others) = rest.split_at_mut((lines * width) as usize);
                    self.tile(at, height, width, part, read)?;
                    at += lines * width;
                    rest = others;
                }
                Ok(())
            }
            Standing::Masked {
                mask,
                columns: width,
                row_bytes,
                before,
            } => {
                let mut run = std::mem::take(&mut self.run);
                let (mut at, mut rest) = (begin, out);
                while !rest.is_empty() {
                    let (line, first) = (at / width, at % width);
                    let here = (width - first).min(rest.len() as u64) as usize;
                    let (part, others) = rest.split_at_mut(here);
                    let bits = &mask[line as usize * row_bytes..][..row_bytes];
                    let is_set = |column: u64| bits[column as usize / 8] >> (column % 8) & 1 == 1;
                    let skipped = (0..first).filter(|column| is_set(*column)).count() as u64;
                    let stored = (first..first + here as u64).filter(|c| is_set(*c)).count();
                    run.resize(stored, 0.0);
                    let (mut number, mut left) = (before[line as usize] + skipped, &mut run[..]);
                    while !left.is_empty() {
                        let here = (columns - number % columns).min(left.len() as u64);
                        let (run, others) = left.split_at_mut(here as usize);
                        read(self, number / columns, number % columns, run)?;
                        number += here;
                        left = others;
                    }
                    let mut numbers = run.iter();
                    for (out, column) in part.iter_mut().zip(first..) {
                        *out = match is_set(column) {
                            true => numbers.next().copied().unwrap_or_default(),
                            false => 0.0,
                        };
                    }
                    at += here as u64;
                    rest = others;
                }
                self.run = run;
                Ok(())
            }
        }
    }
}

/// Rows of codes that are turned into columns at a time: so many numbers of 32 bits are what a cache has in a line.
const STRIP: usize = 16;

impl Coded<'_> {
    /// Writes a tile of numbers that are stored transposed in matrices of so many rows: from number `begin` on `width` of
    /// each row. It lies within a matrix.
    fn tile(
        &mut self,
        begin: u64,
        height: u64,
        width: u64,
        out: &mut [f32],
        read: fn(&mut Self, u64, u64, &mut [f32]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let (columns, width) = (self.grid.columns.max(1), width as usize);
        let (line, first) = (begin / height, begin % height);
        let top = line / columns * height + first;
        let lines = out.len() / width;
        let mut strip = std::mem::take(&mut self.run);
        strip.resize(lines * STRIP, 0.0);
        for offset in (0..width).step_by(STRIP) {
            let here = STRIP.min(width - offset);
            for (row, run) in (top + offset as u64..).zip(strip.chunks_mut(lines).take(here)) {
                read(self, row, line % columns, run)?;
            }
            for (at, row) in out.chunks_mut(width).enumerate() {
                let numbers = strip[at..].iter().step_by(lines);
                for (out, number) in row[offset..offset + here].iter_mut().zip(numbers) {
                    *out = *number;
                }
            }
        }
        self.run = strip;
        Ok(())
    }
}

/// A mask, and how many of the numbers that are stored come before each of its rows.
fn masked<'c>(
    checkpoint: &'c Checkpoint,
    tensor: &'c Tensor,
    shape: &[u64],
    grid: &Grid,
) -> Result<Standing<'c>, CheckpointError> {
    let mask = whole(checkpoint, tensor)?;
    let wrong = |reason| misfit(checkpoint, tensor, reason);
    let ([rows, row_bytes], [height, columns]) = (&*tensor.shape, shape) else {
        return Err(wrong("it is no mask of a matrix"));
    };
    if rows != height || *row_bytes != columns.div_ceil(8) {
        return Err(wrong("it is no mask of the weight's shape"));
    }
    let row_bytes = *row_bytes as usize;
    let mut count = 0;
    let mut before = Vec::with_capacity(*rows as usize);
    for row in mask.chunks_exact(row_bytes.max(1)) {
        before.push(count);
        // Bits beyond the last column are none of the weight's.
        let in_row = row.iter().zip((0u64..).step_by(8)).map(|(byte, first)| {
            let valid = columns.saturating_sub(first).min(8);
            (u32::from(*byte) & ((1 << valid) - 1)).count_ones()
        });
        count += in_row.map(u64::from).sum::<u64>();
    }
    if count > grid.rows.saturating_mul(grid.columns) {
        return Err(wrong("it has more ones than there are numbers"));
    }
    Ok(Standing::Masked {
        mask,
        columns: (*columns).max(1),
        row_bytes,
        before: before.into(),
    })
}
