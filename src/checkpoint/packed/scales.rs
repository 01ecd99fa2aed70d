//! How scales lie over a weight: one for all of it, for each row, for each group of columns, for each block.
//!
//! The shape of a weight and of its scales in, [`Spread`] out: which scale belongs to which number, and what to call that.

use super::super::Tensor;
use super::rules::{Map, Side};
use super::words::group_size;
use std::fmt;

/// Which scale belongs to which number of a weight of one or more matrices on top of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// Rows of all matrices together, and columns.
    pub(super) rows: u64,
    pub(super) columns: u64,
    /// Rows of one matrix.
    height: u64,
    /// The scales as a matrix.
    pub(super) scales: (u64, u64),
    /// Rows and columns that share a scale.
    pub(super) block: (u64, u64),
}

impl Spread {
    /// Scales in as many dimensions as the weight has, with sides that are 1 or count blocks, or in one dimension with one for
    /// each row, or a single one. Kernels of convolutions are rows of all that one output reads. `hint` is the block that
    /// settings name.
    pub(super) fn new(
        weight: &[u64],
        scales: &Tensor,
        hint: (Option<u64>, Option<u64>),
    ) -> Option<Spread> {
        let product = |sides: &[u64]| {
            sides
                .iter()
                .try_fold(1u64, |all, side| all.checked_mul(*side))
        };
        let (stacked, height, columns) = match *weight {
            [height, columns] => (1, height, columns),
            [stacked, height, columns] => (stacked, height, columns),
            [height, ref kernel @ ..] => (1, height, product(kernel)?),
            [] => (1, 1, 1),
        };
        let rows = stacked.checked_mul(height)?;
        let spread = |scales, block| {
            Some(Spread {
                rows,
                columns,
                height,
                scales,
                block,
            })
        };
        if scales.elements() == 1 {
            return spread((1, 1), (rows, columns));
        }
        let (high, wide) = match (*scales.shape).as_ref() {
            [one] if weight.len() != 3 && *one == height => (*one, 1),
            [one] if *one == stacked => (1, 1),
            [high, wide] if weight.len() == 2 => (*high, *wide),
            // One for each column, written as if for each row of the transpose.
            [depth, wide, 1] if *depth == stacked && *wide == columns && columns != height => {
                (1, *wide)
            }
            [depth, high, wide] if *depth == stacked && weight.len() == 3 => (*high, *wide),
            [high, ones @ ..] if weight.len() > 3 && product(ones) == Some(1) => (*high, 1),
            _ => return None,
        };
        let block = (
            group_size(height, high, hint.0)?,
            group_size(columns, wide, hint.1)?,
        );
        spread((stacked.checked_mul(high)?, wide), block)
    }

    fn rows(&self) -> Map {
        if self.scales == (1, 1) {
            return Map::One;
        }
        Map::Stacked {
            per: self.block.0,
            of: self.height,
        }
    }

    /// A tensor of this spread beside codes.
    pub(super) fn side(&self, tensor: &Tensor, number: u32) -> Side {
        Side::of(
            tensor,
            number,
            self.scales,
            self.rows(),
            Map::Per(self.block.1),
        )
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, wide) = self.block;
        let (all_rows, all_columns) = (high >= self.height, wide >= self.columns);
        match (high, wide) {
            _ if all_rows && all_columns => f.write_str("tensor"),
            (1, _) if all_columns => f.write_str("channel"),
            (1, wide) => write!(f, "g{wide}"),
            // Of experts, whose rows are inputs.
            _ if all_rows && wide == 1 => f.write_str("channel"),
            (high, wide) => write!(f, "block {high}x{wide}"),
        }
    }
}
