//! Non-zeros of a weight by row and by input, its levels and moments: one pass over its blocks.

use super::super::CheckpointError;
use super::super::packed::{FoundByCodes, Marks, Reader, value, zero_bits};
use super::super::wide::widest;
use super::blocks;
use super::bytes::{self, Bytes};
use super::levels::{Levels, Seen};
use super::moments::Moments;
use super::view::{Block, Blocks, View};
use super::wide::{Code, Lane, Rows};
use crate::dtype::{NumberKind, StoredType};
use std::sync::atomic::{AtomicBool, Ordering};

/// What was counted.
pub(super) struct Counted {
    pub(super) nnz: u64,
    /// By row and by input as stored; empty where they are not told apart.
    pub(super) rows: Vec<u64>,
    pub(super) inputs: Vec<u64>,
    pub(super) levels: Levels,
    pub(super) nan: u64,
    pub(super) infinite: u64,
    pub(super) moments: Option<Moments>,
}

impl Counted {
    fn none(rows: Option<usize>, inputs: Option<usize>) -> Counted {
        Counted {
            nnz: 0,
            rows: vec![0; rows.unwrap_or(0)],
            inputs: vec![0; inputs.unwrap_or(0)],
            levels: Levels::More,
            nan: 0,
            infinite: 0,
            moments: None,
        }
    }

    /// Adds what blocks say about their rows.
    fn add_rows<'r>(&mut self, blocks: &Blocks, answers: impl Iterator<Item = &'r [u32]>) {
        for (number, answer) in (0..).zip(answers) {
            let row = blocks.get(number).row as usize;
            for (row, found) in self.rows.iter_mut().skip(row).zip(answer) {
                *row += u64::from(*found);
            }
        }
    }

    /// Adds what a thread says about inputs.
    fn add_inputs(&mut self, inputs: &[u64]) {
        for (input, found) in self.inputs.iter_mut().zip(inputs) {
            *input += found;
        }
    }
}

/// Numbers that are looked at before a weight is taken for one of many levels.
const SAMPLE: u64 = 1 << 14;

/// What one thread has counted.
struct State<'c> {
    reader: Reader<'c>,
    numbers: Vec<f32>,
    inputs: Vec<u64>,
    /// Where moments of codes of eight bits are wanted, instead of `seen`, `nan` and `infinite`.
    bytes: Bytes,
    seen: Seen,
    nnz: u64,
    nan: u64,
    infinite: u64,
}

/// What a block says: non-zeros of its rows, if they are told apart, and its moments, if they are wanted.
struct Answer {
    rows: Vec<u32>,
    moments: Option<Moments>,
}

/// Counts a weight: by its codes where they say enough, else by its numbers.
pub(super) fn count(
    reader: &Reader,
    view: &View,
    moments: bool,
) -> Result<Counted, CheckpointError> {
    if !moments
        && let Some(marks) = reader.marks()
        && let Some(own) = view.as_stored(marks.sides(), marks.is_transposed)
    {
        let counted = count_marks(&marks, &own, &first_levels(reader, view)?)?;
        return Ok(if marks.is_transposed {
            Counted {
                rows: counted.inputs,
                inputs: counted.rows,
                ..counted
            }
        } else {
            counted
        });
    }
    count_numbers(reader, view, moments)
}

/// Levels of the first numbers of a weight.
fn first_levels(reader: &Reader, view: &View) -> Result<Seen, CheckpointError> {
    let f32_type = StoredType::named("F32").expect("every table of dtypes has it");
    let mut seen = Seen::new(f32_type, zero_bits(f32_type).unwrap_or(u64::MAX));
    let mut numbers = vec![0.0; view.rows.saturating_mul(view.columns()).min(SAMPLE) as usize];
    reader.clone().read(0, &mut numbers)?;
    seen.look(&numbers);
    Ok(seen)
}

/// What one thread has counted by codes.
struct Marked<'c> {
    marks: Marks<'c>,
    found: FoundByCodes,
    buffer: Vec<u8>,
    inputs: Vec<u64>,
    seen: Seen,
    nnz: u64,
}

/// Counts a weight by what its codes say, given the levels of its first numbers.
fn count_marks(marks: &Marks, view: &View, first: &Seen) -> Result<Counted, CheckpointError> {
    let blocks = view.strips();
    let (rows, inputs) = (view.counted_rows(), view.counted_inputs());
    let are_many = AtomicBool::new(first.is_full());
    let state = || Marked {
        marks: marks.clone(),
        found: FoundByCodes::default(),
        buffer: Vec::new(),
        inputs: vec![0; inputs.unwrap_or(0)],
        seen: first.clone(),
        nnz: 0,
    };
    let done = blocks::each(blocks.count, state, |state, number| {
        let block = blocks.get(number);
        let width = block.columns as usize;
        state.buffer.resize(block.rows as usize * width, 0);
        for (row, out) in (block.row..).zip(state.buffer.chunks_mut(width)) {
            let found = &mut state.found;
            found.wants_numbers = !are_many.load(Ordering::Relaxed);
            let begin = row * view.columns() + block.column;
            state.marks.read(begin, out, found)?;
            if !found.numbers.is_empty() {
                found
                    .numbers
                    .iter()
                    .for_each(|number| state.seen.look(&[*number]));
                found.numbers.clear();
                are_many.fetch_or(state.seen.is_full(), Ordering::Relaxed);
            }
        }
        let codes = state.buffer.as_chunks::<1>().0;
        let (rows_of_block, _) = count_block(view, block, codes, u8::MAX, &mut state.inputs);
        state.nnz += sum(&rows_of_block);
        Ok(match rows {
            Some(_) => rows_of_block,
            None => Vec::new(),
        })
    })?;
    let mut counted = Counted::none(rows, inputs);
    counted.add_rows(&blocks, done.answers.iter().map(|rows| &**rows));
    for state in &done.states {
        counted.nnz += state.nnz;
        counted.nan += state.found.nan;
        counted.infinite += state.found.infinite;
        counted.add_inputs(&state.inputs);
    }
    if !are_many.into_inner() {
        counted.levels = Seen::levels(done.states.into_iter().map(|state| state.seen));
    }
    Ok(counted)
}

fn sum(rows: &[u32]) -> u64 {
    rows.iter().map(|row| u64::from(*row)).sum()
}

fn count_numbers(reader: &Reader, view: &View, moments: bool) -> Result<Counted, CheckpointError> {
    let whole = reader.whole_codes();
    let f32_type = StoredType::named("F32").expect("every table of dtypes has it");
    let dtype = whole.map_or(f32_type, |(tensor, _)| tensor.dtype);
    let mask = zero_bits(dtype).unwrap_or(u64::MAX);
    let size = (dtype.bits / 8) as usize;
    let blocks = if reader.is_transposed(&view.shape) {
        view.tiles(size as u64)
    } else {
        view.blocks(size as u64)
    };
    let (rows, inputs) = (view.counted_rows(), view.counted_inputs());
    let are_many = AtomicBool::new(false);
    let state = || State {
        reader: reader.clone(),
        numbers: Vec::new(),
        inputs: vec![0; inputs.unwrap_or(0)],
        bytes: Bytes::NONE,
        seen: Seen::new(dtype, mask),
        nnz: 0,
        nan: 0,
        infinite: 0,
    };
    let done = blocks::each(blocks.count, state, |state, number| {
        let block = blocks.get(number);
        let tally = Tally {
            view,
            block,
            dtype,
            mask,
            moments,
            rows: rows.is_some(),
            are_many: &are_many,
        };
        let first = block.row * view.columns() + block.column;
        let count = (block.rows * block.columns) as usize;
        let Some((_, bytes)) = whole else {
            let mut numbers = std::mem::take(&mut state.numbers);
            numbers.resize(count, 0.0);
            let columns = (view.columns(), block.columns);
            state.reader.read_tile(first, columns, &mut numbers)?;
            let answer = tally.add(state, &numbers);
            state.numbers = numbers;
            return Ok(answer);
        };
        let begin = first as usize * size;
        let bytes = &bytes[begin..begin + count * size];
        Ok(match size {
            1 if moments => tally.add_bytes(state, bytes),
            1 => {
                state.seen.look_bytes(bytes);
                tally.add(state, bytes.as_chunks::<1>().0)
            }
            2 => tally.add(state, bytes.as_chunks::<2>().0),
            4 => tally.add(state, bytes.as_chunks::<4>().0),
            _ => tally.add(state, bytes.as_chunks::<8>().0),
        })
    })?;
    let mut counted = Counted::none(rows, inputs);
    counted.add_rows(&blocks, done.answers.iter().map(|answer| &*answer.rows));
    let all = done.answers.iter().filter_map(|answer| answer.moments);
    let sums = all.fold(Moments::NONE, |sums, moments| sums.and(&moments));
    counted.moments = moments.then_some(sums);
    for state in &done.states {
        counted.nnz += state.nnz;
        counted.nan += state.nan;
        counted.infinite += state.infinite;
        counted.add_inputs(&state.inputs);
    }
    if size == 1 && moments {
        let all = done.states.into_iter().map(|state| state.bytes);
        let all = all.fold(Bytes::NONE, Bytes::and);
        let numbers = all.numbers(dtype);
        let times = |is: fn(f64) -> bool| {
            let found = numbers.clone().filter(|(number, _)| is(*number));
            found.map(|(_, count)| count).sum()
        };
        counted.nan = times(f64::is_nan);
        counted.infinite = times(f64::is_infinite);
        counted.levels = bytes::levels(numbers.clone());
        counted.moments = Some(bytes::moments(numbers.clone()));
    } else if !are_many.into_inner() {
        counted.levels = Seen::levels(done.states.into_iter().map(|state| state.seen));
    }
    Ok(counted)
}

/// A block and what is asked about it.
struct Tally<'v> {
    view: &'v View,
    block: Block,
    dtype: StoredType,
    mask: u64,
    moments: bool,
    rows: bool,
    are_many: &'v AtomicBool,
}

impl Tally<'_> {
    /// Codes of eight bits, their moments and all.
    fn add_bytes(&self, state: &mut State, codes: &[u8]) -> Answer {
        state.bytes.add(codes);
        let (rows, _) = self.count(state, codes.as_chunks::<1>().0);
        Answer {
            rows,
            moments: None,
        }
    }

    fn add<C: Code>(&self, state: &mut State, codes: &[C]) -> Answer {
        if self.dtype.bits > 8 && !self.are_many.load(Ordering::Relaxed) {
            state.seen.look(codes);
            if state.seen.is_full() {
                self.are_many.store(true, Ordering::Relaxed);
            }
        }
        let (rows, top) = self.count(state, codes);
        let all_finite = first_without_number(self.dtype).is_none_or(|first| top < first);
        if !all_finite {
            for code in codes {
                let number = value(code.lane().long(), self.dtype);
                state.nan += u64::from(number.is_nan());
                state.infinite += u64::from(number.is_infinite());
            }
        }
        Answer {
            rows,
            moments: self
                .moments
                .then(|| Moments::of_codes(codes, self.dtype, all_finite)),
        }
    }

    fn count<C: Code>(&self, state: &mut State, codes: &[C]) -> (Vec<u32>, u64) {
        let mask = C::Lane::short(self.mask);
        let (mut rows, top) = count_block(self.view, self.block, codes, mask, &mut state.inputs);
        state.nnz += sum(&rows);
        if !self.rows {
            rows = Vec::new();
        }
        (rows, top)
    }
}

/// Counts rows and inputs of a block; gives the counts of rows and the largest code under the mask. Counts of columns are in
/// lanes as wide as the codes, which are emptied before they could be full and where other inputs begin.
fn count_block<C: Code>(
    view: &View,
    block: Block,
    codes: &[C],
    mask: C::Lane,
    inputs: &mut [u64],
) -> (Vec<u32>, u64) {
    let mut rows = vec![0; block.rows as usize];
    let width = block.columns as usize;
    let mut columns = vec![C::Lane::default(); width];
    let (mut top, mut at) = (0, 0);
    while at < rows.len() {
        let row = block.row + at as u64;
        let of_group = view.rows_of_group();
        let (group, left) = (row / of_group, of_group - row % of_group);
        let here = (rows.len() - at).min(C::Lane::ROWS);
        let end = at + here.min(usize::try_from(left).unwrap_or(here));
        let found = widest(Rows {
            codes: &codes[at * width..end * width],
            mask,
            columns: &mut columns,
            rows: &mut rows[at..end],
        });
        top = top.max(found.long());
        if !inputs.is_empty() {
            let first = (group * view.inputs) as usize;
            add_columns(&mut inputs[first..], &columns, block.column, view.taps);
        }
        columns.fill(C::Lane::default());
        at = end;
    }
    (rows, top)
}

/// Adds the counts of columns to those of their inputs.
fn add_columns<L: Lane>(inputs: &mut [u64], columns: &[L], first: u64, taps: u64) {
    if taps == 1 {
        let inputs = &mut inputs[first as usize..];
        for (input, found) in inputs.iter_mut().zip(columns) {
            *input += found.long();
        }
        return;
    }
    let mut column = first;
    let mut rest = columns;
    while !rest.is_empty() {
        let here = (taps - column % taps).min(rest.len() as u64);
        let (own, others) = rest.split_at(here as usize);
        inputs[(column / taps) as usize] += own.iter().map(|found| found.long()).sum::<u64>();
        column += here;
        rest = others;
    }
}

/// The smallest code, under the mask of zeros, that may stand for no number or for infinity; `None` where all are numbers.
fn first_without_number(dtype: StoredType) -> Option<u64> {
    if dtype.kind != NumberKind::Float {
        return None;
    }
    Some(match dtype.name {
        "F64" => 0x7ff0_0000_0000_0000,
        "F32" => 0x7f80_0000,
        "F16" => 0x7c00,
        "BF16" => 0x7f80,
        "F8_E4M3" => 0x7f,
        "F8_E5M2" => 0x7c,
        // The one code that is no number is what would be -0, so negative numbers are looked at, too.
        "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 0x80,
        _ => 0,
    })
}
