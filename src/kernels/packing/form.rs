//! What the forms of files share: sizes that are checked once, codes of two bits, and writing by as many threads as there are.

use super::super::KernelError;
use super::check;
use rayon::prelude::*;

/// Refuses a matrix without weights, and bytes that are not as many as its form has; `needed` is `None` where no memory
/// holds so many.
pub(super) fn sized(
    (rows, cols): (usize, usize),
    needed: Option<usize>,
    given: usize,
) -> Result<(), KernelError> {
    if rows == 0 || cols == 0 {
        return Err(KernelError::Empty { rows, cols });
    }
    if needed == Some(given) {
        return Ok(());
    }
    Err(KernelError::Size {
        rows,
        cols,
        needed: needed.unwrap_or(usize::MAX),
        given,
    })
}

/// Refuses rows that are no whole blocks.
pub(super) fn whole_blocks(cols: usize, multiple: usize) -> Result<(), KernelError> {
    match cols % multiple {
        0 => Ok(()),
        _ => Err(KernelError::Ragged { cols, multiple }),
    }
}

/// Refuses bytes with the two bits 11 at an even place: codes of two bits are 0, 1 and 2. `begin` is where the bytes stand.
pub(super) fn no_code_3(bytes: &[u8], begin: usize) -> Result<(), KernelError> {
    let is_wrong = |byte: u8| byte & byte >> 1 & 0x55;
    // All bytes are looked at before any is named, so that the loop has no way out and becomes vectors.
    if bytes.iter().fold(0, |wrong, byte| wrong | is_wrong(*byte)) == 0 {
        return Ok(());
    }
    let at = bytes.iter().position(|byte| is_wrong(*byte) != 0);
    let at = at.expect("one of them was found to be wrong");
    Err(KernelError::Code {
        at: begin + at,
        byte: bytes[at],
    })
}

/// Writes a form whose bytes are `chunks` of so many bytes, each made of the rows that `rows_of` names; a row that the matrix
/// lacks stays 0. `encode` adds the weights of a row, which are ternary, at its place among the rows of its chunk.
pub(super) fn write<R: Iterator<Item = usize>>(
    (rows, cols): (usize, usize),
    chunk: usize,
    bytes: &mut [u8],
    rows_of: impl Fn(usize) -> R + Sync,
    fill: impl Fn(usize, &mut [i8]) + Sync,
    encode: impl Fn(usize, &[i8], &mut [u8]) + Sync,
) -> Result<(), KernelError> {
    let chunks = bytes.par_chunks_mut(chunk).enumerate();
    chunks.try_for_each_init(
        || vec![0; cols],
        |weights, (number, chunk)| {
            for (place, row) in rows_of(number).enumerate().filter(|(_, row)| *row < rows) {
                fill(row, weights);
                check(row, weights)?;
                encode(place, weights, chunk);
            }
            Ok(())
        },
    )
}

/// The bytes of a form that is to be written, all 0.
pub(super) fn empty(
    (rows, cols): (usize, usize),
    needed: Option<usize>,
) -> Result<Vec<u8>, KernelError> {
    if rows == 0 || cols == 0 {
        return Err(KernelError::Empty { rows, cols });
    }
    let mut bytes = Vec::new();
    let needed = needed.unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(needed)
        .map_err(|_| KernelError::Memory {
            bytes: needed,
            error: std::io::ErrorKind::OutOfMemory.into(),
        })?;
    bytes.resize(needed, 0);
    Ok(bytes)
}
