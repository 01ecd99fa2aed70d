//! The form of BitLab's C++ kernel: four neighbouring inputs of a row to a byte.
//!
//! ```text
//! [out, ceil(in / 4)] U8        byte (r, b) holds columns 4b + j of row r at bits 2j, 2j + 1
//! ```
//!
//! A code is the weight modulo 3, not weight + 1: 0 is 0, 1 is 1, 2 is -1, and 3 is none. Columns beyond the matrix are 0. The scale, the mean
//! magnitude of the float weights, is kept elsewhere.

use super::super::KernelError;
use super::form;

/// Columns to a byte.
const COLS: usize = 4;

/// A matrix in this form.
#[derive(Clone, Copy, Debug)]
pub struct Form<'b> {
    rows: usize,
    cols: usize,
    bytes: &'b [u8],
}

/// Bytes of a matrix; `None` where no memory holds so many.
pub fn bytes(rows: usize, cols: usize) -> Option<usize> {
    cols.div_ceil(COLS).checked_mul(rows)
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
        let line = self.cols.div_ceil(COLS);
        let line = &self.bytes[row * line..][..line];
        let (whole, rest) = out[..self.cols].as_chunks_mut::<COLS>();
        for (weights, byte) in whole.iter_mut().zip(line) {
            *weights = four(*byte);
        }
        if let Some(byte) = line.get(whole.len()) {
            rest.copy_from_slice(&four(*byte)[..rest.len()]);
        }
    }
}

/// The weights of a byte. Of a code's bits the low one counts 1 and the high one -1.
fn four(byte: u8) -> [i8; COLS] {
    [0, 2, 4, 6].map(|shift| (byte >> shift & 1) as i8 - (byte >> shift >> 1 & 1) as i8)
}

/// Writes a matrix in this form; `fill` gives the weights of a row, each -1, 0 or 1.
pub fn write(
    rows: usize,
    cols: usize,
    fill: impl Fn(usize, &mut [i8]) + Sync,
) -> Result<Vec<u8>, KernelError> {
    let mut bytes = form::empty((rows, cols), self::bytes(rows, cols))?;
    form::write(
        (rows, cols),
        cols.div_ceil(COLS),
        &mut bytes,
        std::iter::once,
        fill,
        |_, weights, line| {
            for (byte, weights) in line.iter_mut().zip(weights.chunks(COLS)) {
                for (place, weight) in weights.iter().enumerate() {
                    *byte |= (weight.rem_euclid(3) as u8) << (2 * place);
                }
            }
        },
    )?;
    Ok(bytes)
}
