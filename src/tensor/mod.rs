//! Numbers in memory with a shape: what a running model holds and computes with.
//!
//! A [`Tensor`] is a view of a [`Block`](crate::memory::Block) of a pool or of a mapped file. Views share the block and copy
//! nothing; making one allocates nothing. The operations ([`ops`]) are those that a model of ternary layers needs beside the
//! ternary products, on plain slices: whoever runs a model asks a tensor for its numbers once and computes then.
//!
//! - `dtype.rs`: what numbers are stored as
//! - `sizes.rs`: shapes and strides
//! - `view.rs`: the tensor and its views
//! - [`ops`]: sums, norms, gates, exponentials
//! - [`dense`]: products with matrices of plain numbers

pub mod dense;
mod dtype;
pub mod ops;
mod sizes;
mod view;

pub use dtype::{BLOCK_BYTES, Dtype, Packing, ROWS};
pub use sizes::{MAX_AXES, Sizes};
pub use view::{Element, Tensor};

use crate::memory::MemoryError;

/// Why a tensor cannot be made, cut or read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// No memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// More axes than a tensor has.
    #[error("a tensor has at most {MAX_AXES} axes, not {axes}")]
    Axes {
        /// How many were asked for.
        axes: usize,
    },
    /// An axis that is not there.
    #[error("there is no axis {axis} in a tensor of shape {shape:?}")]
    Axis {
        /// The axis.
        axis: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// A part that is not within.
    #[error("{start}..{end} is not within axis {axis} of a tensor of shape {shape:?}")]
    Range {
        /// Where the part begins.
        start: usize,
        /// Where it ends.
        end: usize,
        /// The axis.
        axis: usize,
        /// The shape.
        shape: Vec<usize>,
    },
    /// More numbers than memory can hold.
    #[error("a tensor of shape {shape:?} is larger than any memory")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A shape that does not go with another.
    #[error("a tensor of shape {shape:?} cannot be seen as {asked:?}")]
    Shape {
        /// What it is.
        shape: Vec<usize>,
        /// What was asked for.
        asked: Vec<usize>,
    },
    /// Bytes that are not there.
    #[error(
        "a tensor of shape {shape:?} as {dtype} needs {needed} bytes from {start} on, and there are {bytes}"
    )]
    Bytes {
        /// The shape.
        shape: Vec<usize>,
        /// The dtype.
        dtype: Dtype,
        /// How many bytes it takes.
        needed: usize,
        /// Where they begin.
        start: usize,
        /// How many there are.
        bytes: usize,
    },
    /// Bytes that do not begin where numbers of this size may.
    #[error("numbers of {dtype} cannot begin at byte {start}")]
    Alignment {
        /// The dtype.
        dtype: Dtype,
        /// Where they begin.
        start: usize,
    },
    /// Numbers of another kind than asked for.
    #[error("the tensor holds {dtype}, not {asked}")]
    Dtype {
        /// What it holds.
        dtype: Dtype,
        /// What was asked for.
        asked: &'static str,
    },
    /// Numbers that do not lie side by side.
    #[error("the numbers of this view of shape {shape:?} do not lie side by side; copy it first")]
    Scattered {
        /// The shape.
        shape: Vec<usize>,
    },
    /// Memory that others see too, or that cannot be written.
    #[error("the memory of this tensor is shared or read-only")]
    Shared,
    /// A matrix of ternary weights is cut between groups of rows.
    #[error("packed weights are cut at multiples of {ROWS} rows, not at {at}")]
    Cut {
        /// Where it was to be cut.
        at: usize,
    },
}
