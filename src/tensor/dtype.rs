//! What the numbers of a tensor are stored as.

use std::fmt;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Floats of 32 bits.
    F32,
    /// The upper halves of floats of 32 bits.
    Bf16,
    /// Floats of 16 bits with 5 of exponent.
    F16,
    /// Whole numbers of 8 bits.
    I8,
    /// Weights in {-1, 0, 1}, packed for kernels: a matrix, cut only between groups of rows.
    Ternary(Packing),
}

impl Dtype {
    /// Bytes of so many rows of so many numbers each; `None` where no memory holds so many.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        match self {
            Dtype::F32 => rows.checked_mul(cols)?.checked_mul(4),
            Dtype::Bf16 | Dtype::F16 => rows.checked_mul(cols)?.checked_mul(2),
            Dtype::I8 => rows.checked_mul(cols),
            Dtype::Ternary(packing) => rows
                .div_ceil(ROWS)
                .checked_mul(cols.div_ceil(packing.block_cols()))?
                .checked_mul(BLOCK_BYTES),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::F32 => f.write_str("f32"),
            Dtype::Bf16 => f.write_str("bf16"),
            Dtype::F16 => f.write_str("f16"),
            Dtype::I8 => f.write_str("i8"),
            Dtype::Ternary(packing) => write!(f, "ternary {}", packing.name()),
        }
    }
}

/// Rows of a group of packed weights.
pub const ROWS: usize = 32;

/// Bytes of a block of a group.
pub const BLOCK_BYTES: usize = ROWS * 4;

/// How weights in {-1, 0, 1} are packed; how they lie is told by [`kernels::packing`](crate::kernels::packing).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// 2.0 bits a weight: four codes of two bits in a byte.
    Planes,
    /// 1.6 bits a weight: five digits to base three in a byte.
    Trits,
}

impl Packing {
    /// All of them.
    pub const ALL: [Packing; 2] = [Packing::Planes, Packing::Trits];

    /// What it is called: its bits per weight.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Planes => "2.0",
            Packing::Trits => "1.6",
        }
    }

    /// Weights in a byte.
    pub const fn planes(self) -> usize {
        match self {
            Packing::Planes => 4,
            Packing::Trits => 5,
        }
    }

    /// Columns of a block.
    pub const fn block_cols(self) -> usize {
        4 * self.planes()
    }

    /// Bytes of a group of so many columns.
    pub fn group_bytes(self, cols: usize) -> usize {
        cols.div_ceil(self.block_cols()) * BLOCK_BYTES
    }
}
