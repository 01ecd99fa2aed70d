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

/// What is asked of the weights of a model, by their paths in the tree.
pub trait Weights {
    /// Why a weight could not be read.
    type Error;

    /// Rows whose weights are zero wherever the input is not null. A row is an output channel; of a transposed weight it is
    /// a column. `null_in` are channels of the whole input, `groups` how many blocks it falls into.
    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        groups: usize,
        transposed: bool,
    ) -> Result<Channels, Self::Error>;

    /// The values of a vector: a bias, a gain, statistics of a norm; `None` where they are not at hand.
    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Self::Error>;
}
