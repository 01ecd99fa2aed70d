//! A kernel over a whole product: groups and blocks in turn, tails, scales.
//!
//! Threads share groups of rows in pieces of about [`CHUNK_BYTES`]. Tokens are taken in pieces that fit into a core's own cache,
//! and each group is used for all of a piece before the next.

use super::packing::{Packed, ROWS};
use super::{Activations, KernelError, Pool, Runnable, TOKENS};
use crate::threads::{Shared, chunks};

/// Packed bytes that a thread takes at once. With pieces half as large, or with smaller ones at the end of a share, two cores
/// that read 80 GB/s lose a hundredth.
const CHUNK_BYTES: usize = 128 << 10;

/// Bytes of activations that are used for all rows before the next: half of a usual second-level cache.
const TOKEN_BYTES: usize = 512 << 10;

/// What the weights of a row are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowScale<'a> {
    /// All rows share it.
    One(f32),
    /// Each row has its own.
    Each(&'a [f32]),
}

/// How integers become numbers: `y = sum / activation scale * row scale + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// Of the weights.
    pub rows: RowScale<'a>,
    /// Added at the end, one number a row.
    pub bias: Option<&'a [f32]>,
}

/// The exact sums of a product, `[tokens][rows]`.
pub fn accumulate(
    kernel: Runnable,
    weights: &Packed,
    x: &Activations,
    pool: &Pool,
    out: &mut [i32],
) -> Result<(), KernelError> {
    check(kernel, weights, x, out.len())?;
    let rows = weights.rows();
    let place = Shared::of(out);
    drive(kernel, weights, x, pool, &|token, row, sums| {
        let sum = x.sums()[token];
        // SAFETY: `drive` gives every token and group of rows once.
        let out = unsafe { place.slice(token * rows + row, sums.len()) };
        for (out, code_sum) in out.iter_mut().zip(sums) {
            *out = code_sum - sum;
        }
    });
    Ok(())
}

/// A product, `[tokens][rows]`, in numbers.
pub fn multiply(
    kernel: Runnable,
    weights: &Packed,
    x: &Activations,
    scaling: &Scaling<'_>,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check(kernel, weights, x, out.len())?;
    let rows = weights.rows();
    let each = |what, given: usize| match given == rows {
        true => Ok(()),
        false => Err(KernelError::Length {
            what,
            given,
            needed: rows,
        }),
    };
    if let RowScale::Each(scales) = scaling.rows {
        each("the scale of the weights", scales.len())?;
    }
    if let Some(bias) = scaling.bias {
        each("the bias", bias.len())?;
    }
    let place = Shared::of(out);
    drive(kernel, weights, x, pool, &|token, row, sums| {
        // SAFETY: `drive` gives every token and group of rows once.
        let out = unsafe { place.slice(token * rows + row, sums.len()) };
        let finish = Finish {
            sum: x.sums()[token],
            token_scale: 1.0 / x.scales()[token],
            scaling,
            row,
        };
        kernel.finish(&finish, sums, out);
    });
    Ok(())
}

fn check(
    kernel: Runnable,
    weights: &Packed,
    x: &Activations,
    outputs: usize,
) -> Result<(), KernelError> {
    if kernel.packing != weights.packing() {
        return Err(KernelError::Packing {
            kernel: kernel.name,
            reads: kernel.packing.name(),
            given: weights.packing().name(),
        });
    }
    if x.cols() != weights.cols() {
        return Err(KernelError::Length {
            what: "a token",
            given: x.cols(),
            needed: weights.cols(),
        });
    }
    let needed = x.tokens().checked_mul(weights.rows());
    if needed != Some(outputs) {
        return Err(KernelError::Length {
            what: "the output",
            given: outputs,
            needed: needed.unwrap_or(usize::MAX),
        });
    }
    Ok(())
}

/// How sums of some neighbouring rows become numbers.
pub(super) struct Finish<'a> {
    /// The sum of the token's codes.
    sum: i32,
    token_scale: f32,
    scaling: &'a Scaling<'a>,
    /// The first row.
    row: usize,
}

impl Finish<'_> {
    /// Written once; a kernel calls it from where wider vectors are known.
    #[inline(always)]
    pub(super) fn run(&self, sums: &[i32], out: &mut [f32]) {
        // Scales first: a token's may be so small that the sum over it is beyond all numbers, and the product is not.
        let number = |sum: i32, scale: f32| (sum - self.sum) as f32 * (self.token_scale * scale);
        match self.scaling.rows {
            RowScale::One(scale) => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = number(*sum, scale);
                }
            }
            RowScale::Each(scales) => {
                for ((out, sum), scale) in out.iter_mut().zip(sums).zip(&scales[self.row..]) {
                    *out = number(*sum, *scale);
                }
            }
        }
        if let Some(bias) = self.scaling.bias {
            for (out, bias) in out.iter_mut().zip(&bias[self.row..]) {
                *out += bias;
            }
        }
    }
}

/// Runs the kernel over all groups and blocks of tokens, and gives each result to `store` as token, first row, sums of codes.
fn drive(
    kernel: Runnable,
    weights: &Packed,
    x: &Activations,
    pool: &Pool,
    store: &(impl Fn(usize, usize, &[i32]) + Sync),
) {
    let rows_of = |group: usize| ROWS.min(weights.rows() - group * ROWS);
    let cols = weights
        .cols()
        .next_multiple_of(weights.packing().block_cols());
    let groups_at_once = (CHUNK_BYTES / weights.packing().group_bytes(weights.cols())).max(1);
    if x.tokens() == 1 {
        let (_, _, x) = x.block(0);
        chunks(pool, weights.groups(), groups_at_once, &|groups| {
            let mut sums = [0; ROWS];
            for group in groups {
                kernel.one(weights.group(group), &x[..cols], &mut sums);
                store(0, group * ROWS, &sums[..rows_of(group)]);
            }
        });
        return;
    }
    let blocks = x.tokens().div_ceil(TOKENS);
    let blocks_at_once = (TOKEN_BYTES / (TOKENS * x.padded())).max(1);
    for first in (0..blocks).step_by(blocks_at_once) {
        let piece = first..blocks.min(first + blocks_at_once);
        chunks(pool, weights.groups(), groups_at_once, &|groups| {
            let mut sums = [0; ROWS * TOKENS];
            for group in groups {
                for block in piece.clone() {
                    let (token, width, x) = x.block(block);
                    let sums = &mut sums[..width * ROWS];
                    kernel.some(weights.group(group), &x[..cols * width], width, sums);
                    for (number, sums) in sums.chunks_exact(ROWS).enumerate() {
                        store(token + number, group * ROWS, &sums[..rows_of(group)]);
                    }
                }
            }
        });
    }
}
