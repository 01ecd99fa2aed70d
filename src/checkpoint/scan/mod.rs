//! What the data of a checkpoint says: statistics of weights in one pass over their bytes, values, and how far two weights
//! are apart.
//!
//! A weight is seen as a matrix of rows (outputs, dimension 0) by inputs (dimension 1); what else it has, such as the kernel
//! of a convolution, are taps of an input. It is worked on in blocks of a size that only its shape and dtype give, by as many
//! threads as rayon has, and what blocks say is joined in their order: **any number of threads gives the same bytes**. No
//! more than some blocks are in memory at a time, whatever the size of a weight.
//!
//! - `view.rs`: a weight as a matrix, and its blocks
//! - `blocks.rs`: threads over blocks
//! - `count.rs`: non-zeros by row and by column; `wide.rs`: the loops of it that become vectors
//! - `levels.rs`: distinct values; `moments.rs`: sums, extremes; `bytes.rs`: both of codes of eight bits
//! - `supports.rs`: which inputs a row reads
//! - `apart.rs`: the error of a weight against its base, and how its zeros came about

mod apart;
mod blocks;
mod bytes;
mod count;
mod levels;
mod moments;
mod supports;
mod view;
mod wide;

pub use apart::{WeightError, ZeroKinds, weight_error, zero_kinds};
pub use levels::{Levels, MOST_LEVELS};
pub use moments::Moments;
pub use supports::{MOST_LISTED, Reads, Supports, row_reads};
pub use view::MOST_CHANNELS;

use super::packed::{Reader, Weight};
use super::{Checkpoint, CheckpointError};
use std::ops::Range;
use view::View;

/// What one pass over a weight tells. Counts are exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The shape of the module's parameter; all numbers as one dimension where nobody knows it.
    pub shape: Box<[u64]>,
    /// How many numbers it has.
    pub elements: u64,
    /// How many are not exactly 0: -0 is 0, what is not a number is none.
    pub nnz: u64,
    /// Non-zeros of each output row. A vector has a row for each number, a scalar one. Empty beyond [`MOST_CHANNELS`] rows.
    pub per_row: Vec<u64>,
    /// Non-zeros that read each input channel, all taps together. Channels of the groups of a convolution stand one after the
    /// other. Scalars and vectors read none; empty beyond [`MOST_CHANNELS`] channels.
    pub per_input: Vec<u64>,
    /// Its distinct finite values.
    pub levels: Levels,
    /// How many are not a number.
    pub nan: u64,
    /// How many are infinite.
    pub infinite: u64,
    /// Sums and extremes, if asked for.
    pub moments: Option<Moments>,
    /// Which inputs each row reads, if asked for; also `None` where rows or inputs are not told apart.
    pub supports: Option<Supports>,
}

/// What is to be found out about a weight, and how its dimensions are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The shape that the model gives the parameter, where it is known: it cuts the padding of packed formats and stands in
    /// for a shape that a format does not keep.
    pub shape: Option<Box<[u64]>>,
    /// Groups of a convolution: rows in so many runs, each of which reads channels of its own.
    pub groups: u64,
    /// Whether dimension 0 is the inputs, as in GPT-2's linear layers and in transposed convolutions.
    pub transposed: bool,
    /// Whether dimension 0 counts matrices, as of experts that are one tensor: rows and inputs of all of them one after the
    /// other.
    pub stacked: bool,
    /// Whether sums and extremes are wanted.
    pub moments: bool,
    /// Whether the inputs that each row reads are wanted.
    pub supports: bool,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            shape: None,
            groups: 1,
            transposed: false,
            stacked: false,
            moments: false,
            supports: false,
        }
    }
}

/// Statistics of a weight; `None` where its numbers cannot be told, as [`Weight::without_values`] says.
pub fn statistics(
    checkpoint: &Checkpoint,
    weight: &Weight,
    wanted: &Wanted,
) -> Result<Option<Statistics>, CheckpointError> {
    let view = View::new(checkpoint, weight, wanted)?;
    let Some(reader) = Reader::new(checkpoint, weight, &view.shape)? else {
        return Ok(None);
    };
    let counted = count::count(&reader, &view, wanted.moments)?;
    let (per_row, per_input) = if view.transposed {
        (counted.inputs, counted.rows)
    } else {
        (counted.rows, counted.inputs)
    };
    let mut statistics = Statistics {
        elements: view::product(&view.shape),
        shape: view.shape.clone(),
        nnz: counted.nnz,
        per_row,
        per_input,
        levels: counted.levels,
        nan: counted.nan,
        infinite: counted.infinite,
        moments: counted.moments,
        supports: None,
    };
    if wanted.supports {
        statistics.supports = supports::supports(&reader, &view, &statistics.per_row)?;
    }
    Ok(Some(statistics))
}

/// Writes the numbers of some rows (of dimension 0, however it is meant), as the library of the format computes them; `false`
/// where they cannot be told.
pub fn values(
    checkpoint: &Checkpoint,
    weight: &Weight,
    wanted: &Wanted,
    rows: Range<u64>,
    out: &mut Vec<f32>,
) -> Result<bool, CheckpointError> {
    out.clear();
    let shape = view::shape(checkpoint, weight, wanted)?;
    let Some(mut reader) = Reader::new(checkpoint, weight, &shape)? else {
        return Ok(false);
    };
    let (count, row) = match &*shape {
        [] => (1, 1),
        [rows, row @ ..] => (*rows, view::product(row)),
    };
    let rows = rows.start.min(count)..rows.end.min(count);
    let numbers = rows.end.saturating_sub(rows.start).saturating_mul(row);
    let numbers = usize::try_from(numbers).unwrap_or(usize::MAX);
    out.resize(numbers, 0.0);
    reader.read(rows.start.saturating_mul(row), out)?;
    Ok(true)
}
