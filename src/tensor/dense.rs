//! Products of rows of numbers with matrices of plain numbers, however those are stored.
//!
//! A row of the matrix is read once for up to four tokens; a thread takes rows that lie side by side, so that memory sees one
//! stream. Numbers are widened to 32 bits where they are used, never before.

#![allow(unsafe_code)]

use super::ops::{LANES, total};
use super::{Dtype, Tensor, TensorError};
use crate::threads::{Pool, Shared, chunks};
use crate::wide::{Loop, wide};

/// How numbers are stored, and what they are as floats.
pub(crate) trait Stored: Sync {
    /// What stands in memory.
    type Bits: super::Element + Sync;
    /// As a float.
    fn float(bits: Self::Bits) -> f32;
}

/// Floats of 32 bits.
pub(crate) struct F32;
/// The upper halves of such.
pub(crate) struct Bf16;
/// Floats of 16 bits with 5 of exponent.
pub(crate) struct F16;
/// Whole numbers of 8 bits.
pub(crate) struct I8;

impl Stored for F32 {
    type Bits = f32;
    #[inline(always)]
    fn float(bits: f32) -> f32 {
        bits
    }
}

impl Stored for Bf16 {
    type Bits = u16;
    #[inline(always)]
    fn float(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }
}

impl Stored for F16 {
    type Bits = u16;
    /// Without a branch, so that it is done for many: shifted into place a magnitude is 2^112 times too small, subnormal or not.
    #[inline(always)]
    fn float(bits: u16) -> f32 {
        let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
        let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
        let other = 0x7f80_0000 | magnitude << 13;
        let number = if magnitude < 0x7c00 {
            finite.to_bits()
        } else {
            other
        };
        f32::from_bits(number | sign)
    }
}

impl Stored for I8 {
    type Bits = i8;
    #[inline(always)]
    fn float(bits: i8) -> f32 {
        f32::from(bits)
    }
}

/// Tokens that a row is multiplied by at once.
const TOKENS: usize = 4;

/// Bytes of the matrix that a thread takes at once.
const PIECE: usize = 64 << 10;

/// `out[token][row] = sum over k of x[token][k] * matrix[row][k] * scales[row]`; without scales they are 1.
pub fn multiply(
    matrix: &Tensor,
    scales: Option<&[f32]>,
    x: &[f32],
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), TensorError> {
    match matrix.dtype() {
        Dtype::F32 => product::<F32>(matrix, scales, x, pool, out),
        Dtype::Bf16 => product::<Bf16>(matrix, scales, x, pool, out),
        Dtype::F16 => product::<F16>(matrix, scales, x, pool, out),
        Dtype::I8 => product::<I8>(matrix, scales, x, pool, out),
        dtype @ Dtype::Ternary(_) => Err(TensorError::Dtype {
            dtype,
            asked: "plain numbers",
        }),
    }
}

fn product<S: Stored>(
    matrix: &Tensor,
    scales: Option<&[f32]>,
    x: &[f32],
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let numbers = matrix.numbers::<S::Bits>()?;
    let shape = |asked: &[usize]| TensorError::Shape {
        shape: matrix.shape().to_vec(),
        asked: asked.to_vec(),
    };
    let [rows, cols] = *matrix.shape() else {
        return Err(shape(&[x.len()]));
    };
    let tokens = x.len() / cols.max(1);
    let fits = x.len() == tokens * cols && out.len() == tokens * rows;
    if !fits || scales.is_some_and(|scales| scales.len() != rows) {
        return Err(shape(&[x.len(), out.len()]));
    }
    let place = Shared::of(out);
    let at_once = (PIECE / (cols * size_of::<S::Bits>()).max(1)).max(1);
    chunks(pool, rows, at_once, &|range| {
        for (number, x) in x.chunks(TOKENS * cols).enumerate() {
            wide(Rows::<S> {
                numbers: &numbers[range.start * cols..range.end * cols],
                x,
                cols,
                done: &|row, token, sum| {
                    let row = range.start + row;
                    let sum = sum * scales.map_or(1.0, |scales| scales[row]);
                    let at = (number * TOKENS + token) * rows + row;
                    // SAFETY: every row is given to one thread once, and each of its tokens comes once.
                    unsafe { place.slice(at, 1)[0] = sum };
                },
            });
        }
    });
    Ok(())
}

/// Some rows of a matrix times up to four tokens.
struct Rows<'r, S: Stored> {
    numbers: &'r [S::Bits],
    x: &'r [f32],
    cols: usize,
    done: &'r dyn Fn(usize, usize, f32),
}

impl<S: Stored> Loop for Rows<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        match self.x.len() / self.cols {
            1 => self.tokens::<1>(),
            2 => self.tokens::<2>(),
            3 => self.tokens::<3>(),
            _ => self.tokens::<4>(),
        }
    }
}

impl<S: Stored> Rows<'_, S> {
    #[inline(always)]
    fn tokens<const T: usize>(&self) {
        let x: [&[f32]; T] = std::array::from_fn(|token| &self.x[token * self.cols..][..self.cols]);
        for (row, numbers) in self.numbers.chunks_exact(self.cols).enumerate() {
            for (token, sum) in dots::<S, T>(numbers, x).into_iter().enumerate() {
                (self.done)(row, token, sum);
            }
        }
    }
}

/// The products of a row with some tokens.
#[inline(always)]
fn dots<S: Stored, const T: usize>(row: &[S::Bits], x: [&[f32]; T]) -> [f32; T] {
    let (whole, rest) = row.as_chunks::<LANES>();
    let parts: [(&[[f32; LANES]], &[f32]); T] = x.map(|x| x.as_chunks());
    let mut sums = [[0.0f32; LANES]; T];
    for (at, row) in whole.iter().enumerate() {
        let row: [f32; LANES] = std::array::from_fn(|lane| S::float(row[lane]));
        for (sums, x) in sums.iter_mut().zip(&parts) {
            for lane in 0..LANES {
                sums[lane] = row[lane].mul_add(x.0[at][lane], sums[lane]);
            }
        }
    }
    for (sums, x) in sums.iter_mut().zip(&parts) {
        for ((sum, number), x) in sums.iter_mut().zip(rest).zip(x.1) {
            *sum = S::float(*number).mul_add(*x, *sum);
        }
    }
    sums.map(|sums| total(&sums))
}
