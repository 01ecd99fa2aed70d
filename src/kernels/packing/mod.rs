//! Ternary weights as the kernels read them.
//!
//! A matrix `[rows, cols]` of weights in {-1, 0, 1} is stored as codes `c = weight + 1`. Rows stand in groups of [`ROWS`] = 32
//! that lie one after the other, so that a thread reads one stream. A group is
//!
//! ```text
//! [blocks][32 rows][4 bytes]        a block is 128 bytes; byte j of row r holds columns 4 p + j of the block, p = 0 .. planes
//! ```
//!
//! so that one 32-bit lane is one row, and the four bytes of a lane meet four neighbouring activations, which a kernel
//! broadcasts. Nothing is summed across lanes, and 32 results land side by side. What a byte holds is the [`Packing`]:
//!
//! - [`Packing::Planes`], 2.0 bits a weight: 4 planes, blocks of 16 columns; the code of plane p stands in bits 2p and 2p + 1.
//!   Kernels multiply a plane where it stands, `byte & (3 << 2p)`, and shift the sum.
//! - [`Packing::Trits`], 1.6 bits: 5 planes, blocks of 20 columns; `byte = 84 c4 + 27 c3 + 9 c2 + 3 c1 + c0`. As 84 = 4 * 21,
//!   `byte >> 2` alone tells c4.
//!
//! Columns are padded to whole blocks and rows to whole groups with weight 0, whose code is 1; padded activations are 0.
//!
//! Files store ternary weights otherwise; each file here beside this one is such a form, read row by row.

pub mod bitlab;
mod form;
pub mod gguf;
pub mod hf;

use super::KernelError;
use crate::memory::{HUGE_PAGE, MemoryPool, PoolConfig, Tag};
pub use crate::tensor::{BLOCK_BYTES, Packing, ROWS};
use crate::tensor::{Dtype, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The most columns that a matrix may have. Plane 3 of a code stands 64 times too high in its byte, so a lane takes at most
/// 4 * 2 * 64 * 128 = 65,536 from a block: 2^31 / 65,536 = 32,768 blocks fit, which are 524,288 columns. Half of that is more
/// than any model has and leaves every kernel room.
pub const MAX_COLS: usize = 1 << 18;

impl Packing {
    /// The code of a plane of a byte.
    pub fn code(self, byte: u8, plane: usize) -> u8 {
        match self {
            Packing::Planes => byte >> (2 * plane) & 3,
            Packing::Trits => DIGITS[usize::from(byte)][plane],
        }
    }

    /// A lane of a block from the codes of its planes, four columns to a word. Each byte of the sum is at most
    /// 2 * 85 = 170 or 2 * 124 = 248, so none reaches into the next.
    #[inline(always)]
    fn lane(self, planes: impl Fn(usize) -> u32) -> u32 {
        match self {
            Packing::Planes => planes(0) + (planes(1) << 2) + (planes(2) << 4) + (planes(3) << 6),
            Packing::Trits => {
                planes(0) + 3 * planes(1) + 9 * planes(2) + 27 * planes(3) + 84 * planes(4)
            }
        }
    }
}

/// The digits of each byte of [`Packing::Trits`], lowest first.
static DIGITS: [[u8; 5]; 256] = {
    let mut table = [[0; 5]; 256];
    let mut byte = 0;
    while byte < 256 {
        let rest = byte % 84;
        let digits = [
            rest % 3,
            rest / 3 % 3,
            rest / 9 % 3,
            rest / 27 % 3,
            byte / 84,
        ];
        let mut plane = 0;
        while plane < 5 {
            table[byte][plane] = digits[plane] as u8;
            plane += 1;
        }
        byte += 1;
    }
    table
};

/// What packed weights are in the metrics of a pool.
pub const WEIGHTS: Tag = Tag::of("packed weights");

/// A matrix of ternary weights as kernels read it.
#[derive(Clone, Debug)]
pub struct Packed {
    packing: Packing,
    /// `[rows, cols]`
    weights: Tensor,
}

impl Packed {
    /// Packs a matrix into memory of its own; `fill` writes the weights of a row, each -1, 0 or 1.
    pub fn pack(
        packing: Packing,
        rows: usize,
        cols: usize,
        fill: impl Fn(usize, &mut [i8]) + Sync,
    ) -> Result<Packed, KernelError> {
        let pool = MemoryPool::new(PoolConfig::small());
        let fill = |_: usize, row: usize, out: &mut [i8]| fill(row, out);
        let mut one = Packed::pack_all(&pool, packing, &[(rows, cols)], fill)?;
        Ok(one.remove(0))
    }

    /// Packs several matrices one after the other into one block of a pool, so that who multiplies by them in this order reads
    /// one stream; `fill` writes the weights of a row of a matrix.
    pub fn pack_all(
        pool: &MemoryPool,
        packing: Packing,
        shapes: &[(usize, usize)],
        fill: impl Fn(usize, usize, &mut [i8]) + Sync,
    ) -> Result<Vec<Packed>, KernelError> {
        let mut ends = Vec::with_capacity(shapes.len());
        let mut bytes: usize = 0;
        for (rows, cols) in shapes {
            let all = bytes.checked_add(size(packing, *rows, *cols)?);
            bytes = all.ok_or_else(too_large)?;
            ends.push(bytes);
        }
        let mut block = pool.zeroed(bytes, HUGE_PAGE, WEIGHTS)?;
        let mut at = 0;
        for (number, ((rows, cols), end)) in shapes.iter().zip(&ends).enumerate() {
            let place = &mut block.bytes_mut()?[at..*end];
            let fill = |row: usize, out: &mut [i8]| fill(number, row, out);
            write(packing, *rows, *cols, &fill, place)?;
            at = *end;
        }
        let memory = Arc::new(block);
        let starts = std::iter::once(&0).chain(&ends);
        let matrices = shapes.iter().zip(starts);
        let matrix = |((rows, cols), start): (&(usize, usize), &usize)| {
            let dtype = Dtype::Ternary(packing);
            let weights = Tensor::of_block(memory.clone(), *start, dtype, &[*rows, *cols])?;
            Ok(Packed { packing, weights })
        };
        matrices.map(matrix).collect()
    }

    /// So many copies of it in one block, one after the other: more weights than a cache holds.
    pub fn repeat(&self, copies: usize) -> Result<Vec<Packed>, KernelError> {
        let each = self.bytes().len();
        let bytes = each.checked_mul(copies).ok_or_else(too_large)?;
        let pool = MemoryPool::new(PoolConfig::small());
        let mut block = pool.allocate(bytes, HUGE_PAGE, WEIGHTS)?;
        for place in block.bytes_mut()?.chunks_exact_mut(each) {
            place.copy_from_slice(self.bytes());
        }
        let memory = Arc::new(block);
        let copy = |number: usize| {
            let (dtype, shape) = (self.weights.dtype(), self.weights.shape());
            let weights = Tensor::of_block(memory.clone(), number * each, dtype, shape)?;
            Ok(Packed {
                packing: self.packing,
                weights,
            })
        };
        (0..copies).map(copy).collect()
    }

    /// The rows of some groups alone, where they lie.
    pub(super) fn part(&self, groups: Range<usize>) -> Packed {
        let rows = groups.start * ROWS..self.rows().min(groups.end * ROWS);
        let weights = self.weights.slice(0, rows);
        Packed {
            packing: self.packing,
            weights: weights.expect("whole groups of this matrix"),
        }
    }

    /// All bytes of the block that it lies in, its neighbours' too.
    pub fn region(&self) -> &[u8] {
        self.weights.memory().bytes()
    }

    /// How it is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Rows: features that go out.
    pub fn rows(&self) -> usize {
        self.weights.shape()[0]
    }

    /// Columns: features that come in.
    pub fn cols(&self) -> usize {
        self.weights.shape()[1]
    }

    /// All bytes, padding included.
    pub fn bytes(&self) -> &[u8] {
        let bytes = self.weights.numbers();
        bytes.expect("packed weights lie side by side")
    }

    /// The size of the pages that it lies on, where the system tells.
    pub fn page_kib(&self) -> Option<u64> {
        self.weights.memory().page_kib()
    }

    /// How many groups of rows it has.
    pub fn groups(&self) -> usize {
        self.rows().div_ceil(ROWS)
    }

    /// The bytes of one group.
    pub fn group(&self, number: usize) -> &[u8] {
        let bytes = self.packing.group_bytes(self.cols());
        &self.bytes()[number * bytes..][..bytes]
    }

    /// Writes the weights of a row.
    pub fn row(&self, row: usize, out: &mut [i8]) {
        let group = self.group(row / ROWS);
        for (col, weight) in out.iter_mut().enumerate().take(self.cols()) {
            let (block, place) = (
                col / self.packing.block_cols(),
                col % self.packing.block_cols(),
            );
            let byte = group[block * BLOCK_BYTES + row % ROWS * 4 + place % 4];
            *weight = self.packing.code(byte, place / 4) as i8 - 1;
        }
    }

    /// How many weights are -1, 0 and 1.
    pub fn counts(&self) -> Counts {
        let rows = (0..self.rows()).into_par_iter().map_init(
            || vec![0; self.cols()],
            |weights, row| {
                self.row(row, weights);
                Counts::of(weights)
            },
        );
        rows.reduce(Counts::default, Counts::plus)
    }
}

/// How many weights are -1, 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are -1.
    pub minus: u64,
    /// Those that are 0.
    pub zero: u64,
    /// Those that are 1.
    pub plus: u64,
}

impl Counts {
    fn of(weights: &[i8]) -> Counts {
        let count = |which| weights.iter().filter(|weight| **weight == which).count() as u64;
        Counts {
            minus: count(-1),
            zero: count(0),
            plus: count(1),
        }
    }

    fn plus(self, other: Counts) -> Counts {
        Counts {
            minus: self.minus + other.minus,
            zero: self.zero + other.zero,
            plus: self.plus + other.plus,
        }
    }
}

/// The bytes of a matrix that can be packed.
fn size(packing: Packing, rows: usize, cols: usize) -> Result<usize, KernelError> {
    if rows == 0 || cols == 0 {
        return Err(KernelError::Empty { rows, cols });
    }
    if cols > MAX_COLS {
        return Err(KernelError::TooWide { cols });
    }
    let bytes = Dtype::Ternary(packing).bytes(rows, cols);
    bytes.ok_or_else(too_large)
}

fn too_large() -> KernelError {
    KernelError::Memory {
        bytes: usize::MAX,
        error: std::io::ErrorKind::OutOfMemory.into(),
    }
}

/// Packs the rows of a matrix, group after group.
fn write(
    packing: Packing,
    rows: usize,
    cols: usize,
    fill: &(impl Fn(usize, &mut [i8]) + Sync),
    out: &mut [u8],
) -> Result<(), KernelError> {
    let padded = cols.next_multiple_of(packing.block_cols());
    let groups = out.par_chunks_mut(packing.group_bytes(cols)).enumerate();
    groups.try_for_each_init(
        || vec![0i8; padded],
        |weights, (number, group)| {
            for place in 0..ROWS {
                let row = number * ROWS + place;
                if row < rows {
                    fill(row, &mut weights[..cols]);
                    check(row, &weights[..cols])?;
                } else {
                    weights.fill(0);
                }
                encode(packing, weights, place, group);
            }
            Ok(())
        },
    )
}

/// Refuses what is no ternary weight.
fn check(row: usize, weights: &[i8]) -> Result<(), KernelError> {
    // All weights are looked at before any is named, so that the loop has no way out and becomes vectors.
    let wrong = weights.iter().fold(0, |wrong, weight| {
        wrong | u8::from(weight.wrapping_add(1) as u8 > 2)
    });
    if wrong == 0 {
        return Ok(());
    }
    let col = weights.iter().position(|weight| !(-1..=1).contains(weight));
    let col = col.expect("one of them was found to be wrong");
    Err(KernelError::NotTernary {
        row,
        col,
        value: weights[col],
    })
}

/// Writes the codes of one row of a group; `weights` are whole blocks.
fn encode(packing: Packing, weights: &[i8], place: usize, group: &mut [u8]) {
    let blocks = weights.chunks_exact(packing.block_cols());
    for (block, weights) in group.chunks_exact_mut(BLOCK_BYTES).zip(blocks) {
        let codes = |plane: usize| {
            let four = &weights[4 * plane..][..4];
            u32::from_le_bytes([0, 1, 2, 3].map(|j| (four[j] + 1) as u8))
        };
        block[4 * place..][..4].copy_from_slice(&packing.lane(codes).to_le_bytes());
    }
}
