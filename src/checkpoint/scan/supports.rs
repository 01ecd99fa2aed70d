//! Which inputs the rows of a weight read.
//!
//! Asked after counting, when it is known how many non-zeros each row has: of a row of a matrix with more than
//! [`MOST_LISTED`] that number is all there is to say, so only rows with few, and rows of convolutions, are read again.

use super::super::packed::{Reader, Weight};
use super::super::{Checkpoint, CheckpointError};
use super::Wanted;
use super::view::View;
use crate::channels::Channels;

/// Most inputs of a row that are listed.
pub const MOST_LISTED: usize = 64;

/// Numbers that are read at a time.
const PIECE: u64 = 1 << 14;

/// Which inputs each row reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supports {
    /// How many inputs each row reads.
    sizes: Vec<u64>,
    /// Where the list of each row ends.
    ends: Vec<u64>,
    /// Inputs and the non-zeros that read them, row after row; those of rows that read more than [`MOST_LISTED`] are not here.
    listed: Vec<(u32, u32)>,
}

/// The inputs that a row reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads<'s> {
    /// All of them, ascending, with the non-zeros that read them. Inputs are numbered as in
    /// [`super::Statistics::per_input`].
    Listed(&'s [(u32, u32)]),
    /// More than [`MOST_LISTED`]: how many.
    Many(u64),
}

impl Supports {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.sizes.len()
    }

    /// What a row reads.
    pub fn row(&self, row: usize) -> Option<Reads<'_>> {
        let size = *self.sizes.get(row)?;
        if size > MOST_LISTED as u64 {
            return Some(Reads::Many(size));
        }
        let begin = row
            .checked_sub(1)
            .map_or(Some(&0), |before| self.ends.get(before))?;
        let list = *begin as usize..*self.ends.get(row)? as usize;
        Some(Reads::Listed(self.listed.get(list)?))
    }

    fn push(&mut self, row: Row) {
        if row.size <= MOST_LISTED as u64 {
            self.listed.extend(row.listed);
        }
        self.sizes.push(row.size);
        self.ends.push(self.listed.len() as u64);
    }
}

/// The inputs of a row while it is read: in ascending order.
#[derive(Clone, Debug, Default)]
struct Row {
    size: u64,
    last: Option<u64>,
    listed: Vec<(u32, u32)>,
}

impl Row {
    fn add(&mut self, input: u64) {
        if self.last == Some(input) {
            if let Some((_, count)) = self.listed.last_mut() {
                *count = count.saturating_add(1);
            }
            return;
        }
        self.last = Some(input);
        self.size += 1;
        if self.size > MOST_LISTED as u64 {
            self.listed = Vec::new();
        } else {
            self.listed.push((input as u32, 1));
        }
    }
}

/// The supports of all rows, whose non-zeros are known; `None` where rows or inputs are not told apart.
pub(super) fn supports(
    reader: &Reader,
    view: &View,
    per_row: &[u64],
) -> Result<Option<Supports>, CheckpointError> {
    if view.counted_inputs().is_none() || view.counted_rows().is_none() {
        return Ok(None);
    }
    let mut supports = Supports {
        sizes: Vec::with_capacity(per_row.len()),
        ends: Vec::with_capacity(per_row.len()),
        listed: Vec::new(),
    };
    let known = |nnz: u64| nnz == 0 || (view.taps == 1 && nnz > MOST_LISTED as u64);
    let mut reader = reader.clone();
    if !view.transposed {
        for (row, nnz) in (0..).zip(per_row) {
            let mut found = Row {
                size: *nnz,
                ..Row::default()
            };
            if !known(*nnz) {
                found.size = 0;
                each_of_row(&mut reader, view, row, |input| found.add(input))?;
            }
            supports.push(found);
        }
        return Ok(Some(supports));
    }
    let mut found: Vec<Row> = vec![Row::default(); per_row.len()];
    let open: Vec<usize> = (0..per_row.len())
        .filter(|row| !known(per_row[*row]))
        .collect();
    if !open.is_empty() {
        // Rows are columns here: those that are open are looked at in every stored row.
        let mut numbers = Vec::new();
        for input in 0..view.rows {
            let group = input / view.rows_of_group();
            let first = group * view.inputs;
            let mine = |row: &&usize| (first..first + view.inputs).contains(&(**row as u64));
            numbers.resize(view.columns() as usize, 0.0);
            reader.read(input * view.columns(), &mut numbers)?;
            for row in open.iter().filter(mine) {
                let at = (*row as u64 - first) * view.taps;
                let taps = &numbers[at as usize..(at + view.taps) as usize];
                taps.iter()
                    .filter(|n| **n != 0.0)
                    .for_each(|_| found[*row].add(input));
            }
        }
    }
    for (mut row, nnz) in found.into_iter().zip(per_row) {
        if known(*nnz) {
            row.size = *nnz;
        }
        supports.push(row);
    }
    Ok(Some(supports))
}

/// Calls with the input of every non-zero of a stored row, ascending.
fn each_of_row(
    reader: &mut Reader,
    view: &View,
    row: u64,
    mut each: impl FnMut(u64),
) -> Result<(), CheckpointError> {
    let (columns, first) = (view.columns(), row / view.rows_of_group() * view.inputs);
    let mut numbers = Vec::new();
    for begin in (0..columns).step_by(PIECE as usize) {
        numbers.resize((columns - begin).min(PIECE) as usize, 0.0);
        reader.read(row * columns + begin, &mut numbers)?;
        for (number, column) in numbers.iter().zip(begin..) {
            if *number != 0.0 {
                each(first + column / view.taps);
            }
        }
    }
    Ok(())
}

/// Which input channels a row reads, by its number in [`super::Statistics::per_row`]; only its own bytes are read. A vector
/// reads none; `None` where numbers cannot be told or rows and inputs are not told apart.
pub fn row_reads(
    checkpoint: &Checkpoint,
    weight: &Weight,
    row: u64,
    wanted: &Wanted,
) -> Result<Option<Channels>, CheckpointError> {
    let view = View::new(checkpoint, weight, wanted)?;
    let Some(mut reader) = Reader::new(checkpoint, weight, &view.shape)? else {
        return Ok(None);
    };
    if view.is_vector {
        return Ok(Some(Channels::none(0)));
    }
    let (Some(inputs), Some(rows)) = (view.counted_inputs(), view.counted_rows()) else {
        return Ok(None);
    };
    if !view.transposed {
        let mut reads = Channels::none(inputs);
        if row < view.rows {
            each_of_row(&mut reader, &view, row, |input| {
                reads.insert(input as usize)
            })?;
        }
        return Ok(Some(reads));
    }
    let mut reads = Channels::none(rows);
    if row < inputs as u64 {
        let (group, output) = (row / view.inputs, row % view.inputs);
        let mut taps = vec![0.0; view.taps as usize];
        let height = view.rows_of_group();
        for input in group * height..(group + 1) * height {
            reader.read(input * view.columns() + output * view.taps, &mut taps)?;
            if taps.iter().any(|n| *n != 0.0) {
                reads.insert(input as usize);
            }
        }
    }
    Ok(Some(reads))
}
