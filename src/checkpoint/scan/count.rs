//! Non-zeros of a weight by row and by input, its levels and moments: one pass over its blocks.

use super::super::CheckpointError;
use super::super::packed::{Reader, value, zero_bits};
use super::blocks;
use super::levels::{Levels, Seen};
use super::moments::Moments;
use super::view::{Block, View};
use crate::dtype::StoredType;
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

/// What one thread has counted.
struct State<'c> {
    reader: Reader<'c>,
    numbers: Vec<f32>,
    inputs: Vec<u64>,
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

/// Counts a weight.
pub(super) fn count(
    reader: &Reader,
    view: &View,
    moments: bool,
) -> Result<Counted, CheckpointError> {
    let whole = reader.whole_codes();
    let f32_type = StoredType::named("F32").expect("every table of dtypes has it");
    let dtype = whole.map_or(f32_type, |(tensor, _)| tensor.dtype);
    let mask = zero_bits(dtype).unwrap_or(u64::MAX);
    let size = u64::from(dtype.bits / 8);
    let blocks = view.blocks(size);
    let (rows, inputs) = (view.counted_rows(), view.counted_inputs());
    let are_many = AtomicBool::new(false);
    let state = || State {
        reader: reader.clone(),
        numbers: Vec::new(),
        inputs: vec![0; inputs.unwrap_or(0)],
        seen: Seen::new(dtype, mask),
        nnz: 0,
        nan: 0,
        infinite: 0,
    };
    let done = blocks::each(blocks.count, state, |state, number| {
        let block = blocks.get(number);
        let first = block.row * view.columns() + block.column;
        let count = (block.rows * block.columns) as usize;
        let tally = Tally {
            view,
            block,
            dtype,
            mask,
            moments,
            rows: rows.is_some(),
            are_many: &are_many,
        };
        match whole {
            Some((_, bytes)) => {
                let begin = (first * size) as usize;
                let bytes = &bytes[begin..begin + count * size as usize];
                let codes = bytes
                    .chunks_exact(size as usize)
                    .map(|code| code.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b)));
                Ok(tally.add(state, codes))
            }
            None => {
                let mut numbers = std::mem::take(&mut state.numbers);
                numbers.resize(count, 0.0);
                state.reader.read(first, &mut numbers)?;
                let answer = tally.add(state, numbers.iter().map(|n| u64::from(n.to_bits())));
                state.numbers = numbers;
                Ok(answer)
            }
        }
    })?;
    let mut counted = Counted {
        nnz: 0,
        rows: vec![0; rows.unwrap_or(0)],
        inputs: vec![0; inputs.unwrap_or(0)],
        levels: Levels::More,
        nan: 0,
        infinite: 0,
        moments: None,
    };
    let mut sums = Moments::NONE;
    for (number, answer) in (0..).zip(&done.answers) {
        let row = blocks.get(number).row as usize;
        for (row, found) in counted.rows.iter_mut().skip(row).zip(&answer.rows) {
            *row += u64::from(*found);
        }
        sums = answer.moments.iter().fold(sums, Moments::and);
    }
    counted.moments = moments.then_some(sums);
    for state in &done.states {
        counted.nnz += state.nnz;
        counted.nan += state.nan;
        counted.infinite += state.infinite;
        for (input, found) in counted.inputs.iter_mut().zip(&state.inputs) {
            *input += found;
        }
    }
    if !are_many.into_inner() {
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
    fn add(&self, state: &mut State, codes: impl Iterator<Item = u64> + Clone) -> Answer {
        let (view, block) = (self.view, self.block);
        if !self.are_many.load(Ordering::Relaxed) {
            state.seen.look(codes.clone());
            if state.seen.is_full() {
                self.are_many.store(true, Ordering::Relaxed);
            }
        }
        let mut rows = vec![0; if self.rows { block.rows as usize } else { 0 }];
        for (at, code) in (0..).zip(codes.clone()) {
            if code & self.mask == 0 {
                continue;
            }
            let (row, column) = (at / block.columns, block.column + at % block.columns);
            state.nnz += 1;
            if let Some(row) = rows.get_mut(row as usize) {
                *row += 1;
            }
            let group = (block.row + row) / view.rows_of_group();
            let input = group * view.inputs + column / view.taps;
            if let Some(input) = state.inputs.get_mut(input as usize) {
                *input += 1;
            }
            let number = value(code, self.dtype);
            state.nan += u64::from(number.is_nan());
            state.infinite += u64::from(number.is_infinite());
        }
        let numbers = codes.map(|code| value(code, self.dtype));
        Answer {
            rows,
            moments: self.moments.then(|| Moments::of(numbers)),
        }
    }
}
