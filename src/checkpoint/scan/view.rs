//! A weight as a matrix, and the blocks that it is worked on in.

use super::super::packed::{Padding, Weight, misfit};
use super::super::{Checkpoint, CheckpointError};
use super::Wanted;

/// Most rows, and most input channels, that are counted one by one: 4,194,304.
pub const MOST_CHANNELS: u64 = 1 << 22;

/// Bytes of a block: a few of them fit into the cache that a core has for itself.
const BLOCK_BYTES: u64 = 1 << 18;

/// Most columns of a strip.
const STRIP: u64 = 1 << 11;

/// Rows by inputs by taps, as stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) shape: Box<[u64]>,
    /// Sides of the matrix as stored; where it is transposed the first are the inputs.
    pub(super) rows: u64,
    pub(super) inputs: u64,
    /// Numbers of a row that belong to one input.
    pub(super) taps: u64,
    /// Runs of rows that have inputs of their own.
    pub(super) groups: u64,
    pub(super) transposed: bool,
    /// Whether it has less than two dimensions.
    pub(super) is_vector: bool,
}

/// A run of whole rows, of the columns of one row, or a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Block {
    pub(super) row: u64,
    pub(super) rows: u64,
    /// First number within the row, and how many of it.
    pub(super) column: u64,
    pub(super) columns: u64,
}

impl View {
    pub(super) fn new(
        checkpoint: &Checkpoint,
        weight: &Weight,
        wanted: &Wanted,
    ) -> Result<View, CheckpointError> {
        let shape = shape(checkpoint, weight, wanted)?;
        View::of(shape, wanted).map_err(|reason| {
            let codes = &checkpoint.tensors[weight.parts[0] as usize];
            misfit(checkpoint, codes, &reason)
        })
    }

    pub(super) fn of(shape: Box<[u64]>, wanted: &Wanted) -> Result<View, String> {
        let is_stack = wanted.stacked && shape.len() >= 3;
        let (rows, rest, groups) = match *shape {
            [] => (1, &[][..], 1),
            [stack, height, ref rest @ ..] if is_stack => {
                (stack.saturating_mul(height), rest, stack.max(1))
            }
            [rows, ref rest @ ..] => (rows, rest, wanted.groups.max(1)),
        };
        let (inputs, taps) = match rest {
            [] => (1, 1),
            [inputs, taps @ ..] => (*inputs, product(taps)),
        };
        let is_vector = shape.len() < 2;
        let groups = if is_vector { 1 } else { groups };
        if !rows.is_multiple_of(groups) {
            return Err(format!("its {rows} rows do not make {groups} groups"));
        }
        Ok(View {
            rows,
            inputs,
            taps,
            groups,
            transposed: wanted.transposed && !is_vector,
            is_vector,
            shape,
        })
    }

    /// The matrix of its codes: itself where they are stored number after number, its transpose where that has such sides.
    pub(super) fn as_stored(&self, sides: (u64, u64), is_transposed: bool) -> Option<View> {
        if !is_transposed {
            return Some(self.clone());
        }
        let is_plain = self.taps == 1 && self.groups == 1 && !self.is_vector;
        (is_plain && sides == (self.inputs, self.rows)).then(|| View {
            rows: self.inputs,
            inputs: self.rows,
            ..self.clone()
        })
    }

    /// Numbers of a row.
    pub(super) fn columns(&self) -> u64 {
        self.inputs.saturating_mul(self.taps)
    }

    /// Rows that read the same inputs.
    pub(super) fn rows_of_group(&self) -> u64 {
        (self.rows / self.groups).max(1)
    }

    /// How many rows are told apart.
    pub(super) fn counted_rows(&self) -> Option<usize> {
        (self.rows <= MOST_CHANNELS).then_some(self.rows as usize)
    }

    /// How many inputs are told apart, those of all groups.
    pub(super) fn counted_inputs(&self) -> Option<usize> {
        let inputs = self.inputs.saturating_mul(self.groups);
        (inputs <= MOST_CHANNELS && !self.is_vector).then_some(inputs as usize)
    }

    /// The blocks, for numbers of so many bytes.
    pub(super) fn blocks(&self, size: u64) -> Blocks {
        let most = BLOCK_BYTES / size;
        let columns = self.columns();
        if self.rows == 0 || columns == 0 {
            return Blocks {
                count: 0,
                rows: 1,
                columns: 1,
                all: (0, 0),
            };
        }
        let (rows, width) = if columns <= most {
            (most / columns, columns)
        } else {
            (1, most)
        };
        self.cut(rows, width)
    }

    /// Blocks that are as high as they are wide: of weights whose columns are stored one after the other.
    pub(super) fn tiles(&self, size: u64) -> Blocks {
        let side = (BLOCK_BYTES / size).isqrt();
        if self.rows == 0 || self.columns() == 0 {
            return self.blocks(size);
        }
        self.cut(side, side)
    }

    /// Blocks of codes of one byte, so narrow that what belongs to a row of one may stay at hand for the next row.
    pub(super) fn strips(&self) -> Blocks {
        let width = self.columns().min(STRIP);
        if self.rows == 0 || width == 0 {
            return self.blocks(1);
        }
        self.cut(BLOCK_BYTES / width, width)
    }

    fn cut(&self, rows: u64, columns: u64) -> Blocks {
        let all = (self.rows, self.columns());
        Blocks {
            count: all.0.div_ceil(rows) * all.1.div_ceil(columns),
            rows,
            columns,
            all,
        }
    }
}

/// The blocks of a matrix, in the order of its numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) count: u64,
    /// Sides of a block; the last ones may be smaller.
    pub(super) rows: u64,
    pub(super) columns: u64,
    all: (u64, u64),
}

impl Blocks {
    pub(super) fn get(&self, number: u64) -> Block {
        let per_row = self.all.1.div_ceil(self.columns);
        let row = number / per_row * self.rows;
        let column = number % per_row * self.columns;
        Block {
            row,
            rows: self.rows.min(self.all.0 - row),
            column,
            columns: self.columns.min(self.all.1 - column),
        }
    }
}

/// The shape of a weight: the model's, where it is known and fits.
pub(super) fn shape(
    checkpoint: &Checkpoint,
    weight: &Weight,
    wanted: &Wanted,
) -> Result<Box<[u64]>, CheckpointError> {
    match &wanted.shape {
        None => Ok(own(weight)),
        Some(shape) if fits(weight, shape) => Ok(shape.clone()),
        Some(shape) => {
            let codes = &checkpoint.tensors[weight.parts[0] as usize];
            let reason = format!("its shape is {:?}, the model's {shape:?}", own(weight));
            Err(misfit(checkpoint, codes, &reason))
        }
    }
}

/// The shape that the file gives it.
fn own(weight: &Weight) -> Box<[u64]> {
    let flat = || [weight.elements].into();
    weight.shape.clone().unwrap_or_else(flat)
}

/// Whether a weight may have a shape: its own, or one that its padding allows.
pub(super) fn fits(weight: &Weight, shape: &[u64]) -> bool {
    let Some(own) = &weight.shape else {
        let numbers = shape
            .iter()
            .try_fold(1u64, |all, side| all.checked_mul(*side));
        // Of two codes a byte the last may belong to nothing.
        return numbers.is_some_and(|n| n <= weight.elements && weight.elements - n <= 1);
    };
    let cut = |at: usize, most: u64| {
        own.len() == shape.len()
            && own.iter().zip(shape).enumerate().all(|(i, (own, side))| {
                own == side || (i == at && own > side && own - side <= most)
            })
    };
    match weight.padding {
        Padding::None => **own == *shape,
        Padding::Rows(most) => cut(0, most),
        Padding::Columns(most) => cut(own.len().saturating_sub(1), most),
    }
}

/// A product of sides. That of all sides of a tensor fits, that of some need not if another is 0.
pub(super) fn product(sides: &[u64]) -> u64 {
    sides.iter().fold(1, |all, side| all.saturating_mul(*side))
}
