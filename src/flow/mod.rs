//! Null channels on their way through a model: which channels of every layer's input and output are always zero.
//!
//! The frozen tree and what is known of its weights go in; [`Nulls`] come out: for each layer the channels that arrive null
//! and those that leave null. The same `forward` statements that give sizes are read in a second domain, where a value is a
//! set of null channels, and each primitive has a rule of its own (`rules.rs`): a residual sum keeps what is null on both
//! sides, a product what is null on either, a concatenation shifts.
//!
//! **What is not known passes no null channel**: a module without `forward`, a reshape, an unknown class. Costs are then too
//! high, never too low.

mod known;
mod rules;
mod walk;

pub use walk::{Layer, Nulls, nulls};

use crate::channels::Channels;

/// When a channel counts as null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All its weights over inputs that are not null are zero, whatever bias and norm add.
    Weights,
    /// It is exactly zero: what bias and norm make of it is counted, and what an activation cuts off again.
    Exact,
}

/// Most channels of a value that are followed; a config may claim any number.
const MOST_FOLLOWED: usize = 1 << 28;

/// How the dimensions of a weight are meant.
///
/// Rows and inputs of blocks stand one after the other: a block is a group of a convolution, or one of several matrices that
/// are one tensor, as those of experts. The rows of a block read its inputs and no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// How many blocks there are.
    pub groups: usize,
    /// Whether inputs come before rows: a weight that is [in, out].
    pub transposed: bool,
    /// Whether dimension 0 counts the blocks: a weight that is [blocks, out, in].
    pub stacked: bool,
}

impl Form {
    /// A weight that is [out, in].
    pub const MATRIX: Form = Form {
        groups: 1,
        transposed: false,
        stacked: false,
    };

    /// Rows and inputs of all blocks of a weight of this shape; `None` where it has too few dimensions, or more channels than
    /// are followed.
    pub fn sides(self, shape: &[u64]) -> Option<(usize, usize)> {
        let side = |at: usize| usize::try_from(*shape.get(at)?).ok();
        // Dimension 0 of a matrix or convolution has all blocks, dimension 1 one of them.
        let (first, second) = if self.stacked {
            let blocks = side(0)?;
            (side(1)?.checked_mul(blocks)?, side(2)?.checked_mul(blocks)?)
        } else {
            (side(0)?, side(1)?.checked_mul(self.groups)?)
        };
        if first.max(second) > MOST_FOLLOWED {
            return None;
        }
        Some(if self.transposed {
            (second, first)
        } else {
            (first, second)
        })
    }
}

/// What is asked of the weights of a model, by their paths in the tree.
pub trait Weights {
    /// Why a weight could not be read.
    type Error;

    /// Rows whose weights are zero wherever the input is not null. A row is an output channel; `null_in` are channels of the
    /// inputs of all blocks.
    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        form: Form,
    ) -> Result<Channels, Self::Error>;

    /// The values of a vector: a bias, a gain, statistics of a norm; `None` where they are not at hand.
    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Self::Error>;
}
