//! What makes a number of a weight 0: the description that a row of the table leaves and that counting follows.
//!
//! A matrix of codes, which codes stand for 0, and which scales may be 0; zero points and scales are matrices of their own,
//! with a map from the rows and columns of the codes to theirs.

use super::super::Tensor;
use super::codes::{Layout, mask};
use super::floats::zero_bits;
use super::recipe::{Number, Recipe, named};
use super::{bitsandbytes, trained};
use crate::dtype::StoredType;

/// How the zeros of a weight are found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    /// The codes are numbers of their dtype.
    Numbers,
    /// Codes against zero points and scales.
    Grid(Box<Grid>),
    /// Codes of a table of values.
    Lookup(Box<bitsandbytes::Lookup>),
    /// Floats that are rounded when they are used.
    Trained(Box<trained::Quantizer>),
    /// No code stands for 0, and why.
    None(&'static str),
}

/// A matrix of codes, and what says which of them are 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) codes: Layout,
    pub(super) zero: Zero,
    /// Scales that may be 0.
    pub(super) scales: Vec<Side>,
    /// Numbers of the weight that are 0 and not stored.
    pub(super) absent: u64,
    /// The dtype of codes that are numbers themselves: one that is not finite stays so under a scale of 0.
    pub(super) dtype: Option<StoredType>,
    /// How its numbers are computed.
    pub(super) recipe: Recipe,
}

impl Grid {
    /// Numbers of a dtype, row by row.
    pub(super) fn plain(rows: u64, columns: u64, dtype: StoredType) -> Grid {
        let row_bits = columns.saturating_mul(dtype.bits.into());
        Grid {
            rows,
            columns,
            codes: Layout::along(dtype.bits, row_bits.div_ceil(8)),
            zero: match zero_bits(dtype) {
                Some(mask) => Zero::Masked {
                    mask: mask as u32,
                    value: 0,
                },
                // A value that no bits under the mask are.
                None => Zero::Masked { mask: 0, value: 1 },
            },
            scales: Vec::new(),
            absent: 0,
            dtype: Some(dtype),
            recipe: Recipe::of(Number::Of(dtype)),
        }
    }

    /// Floats with the sign on top, row by row; how many bits the exponent has follows from the width.
    pub(super) fn floats(rows: u64, columns: u64, bits: u32) -> Grid {
        let row_bits = columns.saturating_mul(bits.into());
        Grid {
            rows,
            columns,
            codes: Layout::along(bits, row_bits.div_ceil(8)),
            zero: Zero::signed(bits),
            scales: Vec::new(),
            absent: 0,
            dtype: None,
            recipe: Recipe::of(Number::Of(named(match bits {
                4 => "F4",
                6 => "F6_E2M3",
                _ => "F8_E4M3",
            }))),
        }
    }
}

/// Which codes stand for 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Zero {
    /// Those of which these bits are this value: one code, or two that differ in the sign.
    Masked { mask: u32, value: u32 },
    /// The zero point of the group, and so many more, in the width of the codes.
    Point { side: Side, plus: u32 },
    /// Those whose product with the scale, rounded to its dtype, plus or minus the shift is 0.
    Product {
        scale: Side,
        shift: Side,
        minus: bool,
    },
    /// The one that is nearest to minus the shift over the scale.
    Nearest { scale: Side, shift: Side },
    /// The one that equals a float.
    Equal(Side),
}

/// A tensor beside the codes: its matrix, and which of its rows and columns belong to a code.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Side {
    pub(super) tensor: u32,
    pub(super) layout: Layout,
    /// Sides of its matrix.
    pub(super) shape: (u64, u64),
    pub(super) rows: Map,
    pub(super) columns: Map,
}

/// Which row (or column) of a side tensor belongs to a row (or column) of codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Map {
    /// The only one.
    One,
    /// The same.
    Same,
    /// One for each so many.
    Per(u64),
    /// One for each `per` of `of`, and then from the beginning for the next `of`: matrices on top of each other.
    Stacked { per: u64, of: u64 },
    /// As a tensor of 32-bit integers lists them.
    Listed(u32),
}

impl Rule {
    pub(super) fn grid(grid: Grid) -> Rule {
        Rule::Grid(Box::new(grid))
    }
}

impl Zero {
    /// The one code.
    pub(super) fn code(value: u32) -> Zero {
        Zero::Masked {
            mask: u32::MAX,
            value,
        }
    }

    /// Zero of a float with a sign, the highest of so many bits.
    pub(super) fn signed(bits: u32) -> Zero {
        Zero::Masked {
            mask: mask(bits) >> 1,
            value: 0,
        }
    }
}

impl Side {
    /// A matrix of numbers, as stored.
    pub(super) fn of(
        tensor: &Tensor,
        number: u32,
        shape: (u64, u64),
        rows: Map,
        columns: Map,
    ) -> Side {
        let bits = tensor.dtype.bits;
        Side {
            tensor: number,
            layout: Layout::along(bits, shape.1.saturating_mul(bits.into()).div_ceil(8)),
            shape,
            rows,
            columns,
        }
    }
}
