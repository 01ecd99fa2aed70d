//! What the data of a checkpoint says, tensor by tensor, as values: taken where the data is, merged and compared where it
//! is not.
//!
//! A checkpoint goes in ([`take()`]) and [`Stats`] come out; their JSON (`bitcost.stats/1`) has the same bytes on every
//! machine and for any number of threads. [`merge()`] joins parts of a checkpoint into what the whole would have given.
//!
//! Facts are those of the tensor as it is stored: rows are dimension 0, inputs dimension 1, whatever a model means by them.
//! **A weight that no part has whole is an error of merging**, never a guess: parts keep the headers of all of their tensors,
//! and those of the whole must make the same weights.
//!
//! - `facts.rs`: the value of a weight; `edge.rs`: what of it may be padding
//! - `take.rs`: from a checkpoint
//! - `merge.rs`: parts into the whole
//! - `text.rs`: as JSON, and back

mod edge;
mod facts;
mod merge;
mod take;
mod text;

pub use edge::{Line, Run};
pub use facts::{Facts, Held, Level, Listed, Padded, Real, RowReads, Sums, Told};
pub use merge::{MergeError, merge};
pub use take::{MOST_VALUES, each, others, take};
pub use text::{ReadError, Writer, is_stats, read, to_bytes, write};

use crate::checkpoint::packed::{Weight, Weights};
use crate::checkpoint::{Checkpoint, CheckpointError, Tensor};
use crate::dtype::StoredType;

/// What all files of a checkpoint, or some of them, say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Its weights, by name.
    pub weights: Vec<Facts>,
    /// Tensors that are no weight, by name: scales of activations, side tensors whose codes are missing.
    pub others: Vec<Held>,
}

impl Stats {
    /// Headers of all tensors, without their data.
    pub fn headers(&self, label: &str) -> Result<Checkpoint, CheckpointError> {
        let wrong = |held: &Held| CheckpointError::Data {
            file: label.into(),
            reason: format!(
                "tensor `{}` cannot be stored",
                crate::units::clipped(&held.name, 160)
            ),
        };
        let mut tensors = Vec::new();
        let held = self.weights.iter().flat_map(|facts| &facts.tensors);
        for held in held.chain(&self.others) {
            // Sides are multiplied in any order later, so none of them may be 0 where the others overflow.
            let numbers = held
                .shape
                .iter()
                .try_fold(1u64, |all, side| all.checked_mul((*side).max(1)));
            let dtype = StoredType::named(&held.dtype).filter(|_| numbers.is_some());
            tensors.push(Tensor {
                name: held.name.as_str().into(),
                dtype: dtype.ok_or_else(|| wrong(held))?,
                shape: held.shape.as_slice().into(),
                file: 0,
                begin: 0,
                bytes: held.bytes,
            });
        }
        Checkpoint::without_data(label, tensors)
    }

    /// Its weights over these headers, which are its own; their numbers are those of [`Stats::weights`].
    pub fn logical(&self, headers: &Checkpoint) -> Result<Weights, CheckpointError> {
        let wrong = |facts: &Facts| CheckpointError::Data {
            file: headers.files.first().map_or("", |file| &file.label).into(),
            reason: format!(
                "weight `{}` has no tensor, a format that is not known, or counts that contradict each other",
                crate::units::clipped(&facts.name, 160)
            ),
        };
        let number = |held: &Held| {
            let found = headers
                .tensors
                .binary_search_by(|tensor| (*tensor.name).cmp(&held.name));
            found.ok().and_then(|at| u32::try_from(at).ok())
        };
        let mut weights = Vec::with_capacity(self.weights.len());
        for facts in &self.weights {
            let parts: Option<Vec<u32>> = facts.tensors.iter().map(number).collect();
            let parts = parts.filter(|parts| !parts.is_empty() && facts.is_sound());
            let weight =
                parts.and_then(|parts| Weight::without_data(&facts.name, &facts.scheme, parts));
            let mut weight = weight.ok_or_else(|| wrong(facts))?;
            weight.label = facts.label.clone();
            weight.shape = facts.shape.as_deref().map(Into::into);
            weight.padding = Padded::padding(facts.padding);
            weight.elements = facts.elements;
            weight.code_bits = facts.code_bits;
            weight.activation_bits = facts.activation_bits;
            weight.bytes = facts.bytes;
            weights.push(weight);
        }
        Ok(Weights {
            weights,
            others: self.others.iter().filter_map(number).collect(),
            notes: Vec::new(),
        })
    }
}
