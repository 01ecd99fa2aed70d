//! The form of transformers' BitNet checkpoints: a tensor of bytes, four rows to one.
//!
//! ```text
//! weight [R, in] U8, R = ceil(out / 4)        byte (r, c) holds rows r, r + R, r + 2R, r + 3R at bits 2i, 2i + 1
//! ```
//!
//! A code is weight + 1; code 3 is none. The rows of a byte are neighbours only where R is 1. Where `out` is no multiple of 4,
//! the last rows of the form are beyond the matrix: they are written as code 0 and not read.
//!
//! Beside it lies `weight_scale`, one number, which the layer's class multiplies or divides by; that is the business of who computes
//! with the weights.

use super::super::KernelError;
use super::{Counts, form};

/// Rows to a byte.
const ROWS: usize = 4;

/// A matrix in this form.
#[derive(Clone, Copy, Debug)]
pub struct Form<'b> {
    rows: usize,
    cols: usize,
    bytes: &'b [u8],
}

/// Bytes of a matrix; `None` where no memory holds so many.
pub fn bytes(rows: usize, cols: usize) -> Option<usize> {
    rows.div_ceil(ROWS).checked_mul(cols)
}

impl<'b> Form<'b> {
    /// The bytes of a matrix, as many as its shape says and without code 3.
    pub fn new(rows: usize, cols: usize, bytes: &'b [u8]) -> Result<Form<'b>, KernelError> {
        form::sized((rows, cols), self::bytes(rows, cols), bytes.len())?;
        form::no_code_3(bytes, 0)?;
        Ok(Form { rows, cols, bytes })
    }

    /// Its rows: features that go out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns: features that come in.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Writes the weights of a row.
    pub fn row(&self, row: usize, out: &mut [i8]) {
        let stride = self.rows.div_ceil(ROWS);
        let line = &self.bytes[row % stride * self.cols..][..self.cols];
        let shift = row / stride * 2;
        for (weight, byte) in out.iter_mut().zip(line) {
            *weight = (byte >> shift & 3) as i8 - 1;
        }
    }

    /// How many weights are -1, 0 and 1: the low bits of codes are the zeros, the high bits those that are 1.
    pub fn counts(&self) -> Counts {
        let stride = self.rows.div_ceil(ROWS);
        let (mut zero, mut plus) = (0, 0);
        for (number, line) in self.bytes.chunks_exact(self.cols).enumerate() {
            let held = (0..ROWS).filter(|place| number + place * stride < self.rows);
            let held = held.fold(0, |held, place| held | 3u8 << (2 * place));
            let ones = |mask: u8| {
                let bits = line.iter().map(|byte| (byte & mask & held).count_ones());
                bits.map(u64::from).sum::<u64>()
            };
            zero += ones(0x55);
            plus += ones(0xaa);
        }
        let all = self.rows as u64 * self.cols as u64;
        Counts {
            minus: all - zero - plus,
            zero,
            plus,
        }
    }
}

/// Writes a matrix in this form; `fill` gives the weights of a row, each -1, 0 or 1.
pub fn write(
    rows: usize,
    cols: usize,
    fill: impl Fn(usize, &mut [i8]) + Sync,
) -> Result<Vec<u8>, KernelError> {
    let mut bytes = form::empty((rows, cols), self::bytes(rows, cols))?;
    let stride = rows.div_ceil(ROWS);
    let rows_of = |line: usize| (0..ROWS).map(move |place| line + place * stride);
    form::write(
        (rows, cols),
        cols,
        &mut bytes,
        rows_of,
        fill,
        |place, weights, line| {
            for (byte, weight) in line.iter_mut().zip(weights) {
                *byte |= ((weight + 1) as u8) << (2 * place);
            }
        },
    )?;
    Ok(bytes)
}
