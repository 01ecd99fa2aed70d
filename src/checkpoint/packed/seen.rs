//! What a row of the table is shown and what it answers: tensors that might be one weight, and the weight.

use super::super::{Checkpoint, PIECE_BYTES, Tensor};
use super::formats::Format;
use super::settings::Settings;
use super::{Padding, rules};
use std::collections::HashMap;

/// Most tensors that a row names besides the codes.
pub(super) const MAX_SIDES: usize = 18;

/// Tensors that might be one weight of a row.
pub(super) struct Seen<'c> {
    pub(super) format: &'static Format,
    pub(super) checkpoint: &'c Checkpoint,
    pub(super) settings: &'c Settings,
    /// What `__metadata__` says about weights, by their names.
    pub(super) described: &'c HashMap<&'c str, &'c str>,
    /// What all names begin with: `model.layers.0.self_attn.q_proj` of `...q_proj.qweight`.
    pub(super) stem: &'c str,
    pub(super) codes: u32,
    pub(super) sides: [Option<u32>; MAX_SIDES],
}

impl<'c> Seen<'c> {
    pub(super) fn tensor(&self, number: u32) -> &'c Tensor {
        &self.checkpoint.tensors[number as usize]
    }

    /// The tensor of the codes.
    pub(super) fn codes(&self) -> &'c Tensor {
        self.tensor(self.codes)
    }

    /// The number of a side tensor, by the end of its name as it stands in the row.
    pub(super) fn number(&self, end: &str) -> Option<u32> {
        let at = self.format.sides.iter().position(|side| *side == end)?;
        self.sides[at]
    }

    /// A side tensor, by the end of its name as it stands in the row.
    pub(super) fn side(&self, end: &str) -> Option<&'c Tensor> {
        Some(self.tensor(self.number(end)?))
    }

    /// A side tensor with its number.
    pub(super) fn numbered(&self, end: &str) -> Option<(&'c Tensor, u32)> {
        let number = self.number(end)?;
        Some((self.tensor(number), number))
    }

    /// The bytes of a small side tensor, if the data is here.
    pub(super) fn small(&self, end: &str) -> Option<&'c [u8]> {
        let tensor = self.side(end)?;
        let data = self.checkpoint.data(tensor).ok()?;
        (data.bytes.len() <= PIECE_BYTES).then_some(data.bytes)
    }

    pub(super) fn parts(&self) -> Vec<u32> {
        let mut parts = vec![self.codes];
        parts.extend(self.sides.iter().flatten());
        parts
    }
}

/// What a row found out about the tensors it was shown.
pub(super) struct Found {
    /// Where the name is not the stem with the row's end.
    pub(super) name: Option<String>,
    pub(super) shape: Option<Vec<u64>>,
    pub(super) elements: u64,
    pub(super) padding: Padding,
    pub(super) label: String,
    pub(super) code_bits: Option<u32>,
    pub(super) activation_bits: Option<u32>,
    pub(super) rule: rules::Rule,
    /// What is odd about it.
    pub(super) note: Option<String>,
}

impl Found {
    /// A weight of a known shape; `None` if it has more numbers than can be counted.
    pub(super) fn new(
        shape: impl Into<Vec<u64>>,
        label: String,
        code_bits: u32,
        rule: rules::Rule,
    ) -> Option<Found> {
        let shape = shape.into();
        let elements = shape
            .iter()
            .try_fold(1u64, |product, side| product.checked_mul(*side))?;
        Some(Found {
            name: None,
            shape: Some(shape),
            elements,
            padding: Padding::None,
            label,
            code_bits: Some(code_bits),
            activation_bits: None,
            rule,
            note: None,
        })
    }
}

/// The answer of a row: a weight, not of this format, or of this format but with shapes that do not fit each other.
pub(super) type Answer = Result<Option<Found>, &'static str>;

/// Sides of a matrix.
pub(super) fn matrix(tensor: &Tensor) -> Option<(u64, u64)> {
    match *tensor.shape {
        [rows, columns] => Some((rows, columns)),
        _ => None,
    }
}
