//! From features to logits: the output matrix, which outweighs all ternary weights together.
//!
//! It is copied from its file, because a stream of it runs a quarter slower on the pages of a file than on large ones. Its
//! numbers stay as they are stored, or become 8 bits with a scale for each row; activations are floats either way.

use super::RunError;
use crate::memory::{HUGE_PAGE, MemoryPool, Tag};
use crate::tensor::{Dtype, Tensor, dense};
use crate::threads::Pool;
use rayon::prelude::*;
use std::sync::Arc;

/// What the output matrix is in the metrics of a pool.
pub const HEAD: Tag = Tag::of("output matrix");

/// How the output matrix is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadBits {
    /// As it is stored, BF16 mostly.
    #[default]
    Stored,
    /// 8 bits, with a scale for each row.
    Eight,
}

/// The output matrix.
pub(super) struct Head {
    pub(super) matrix: Tensor,
    /// One a row, where numbers have 8 bits.
    scales: Option<Tensor>,
}

/// Bytes of it.
pub(super) fn bytes(rows: usize, cols: usize, dtype: Dtype, bits: HeadBits) -> Option<u64> {
    let bytes = match bits {
        HeadBits::Stored => dtype.bytes(rows, cols)?,
        HeadBits::Eight => rows.checked_mul(cols)?.checked_add(rows.checked_mul(4)?)?,
    };
    Some(bytes as u64)
}

impl Head {
    /// A matrix as it is.
    pub(super) fn of(matrix: Tensor) -> Head {
        Head {
            matrix,
            scales: None,
        }
    }

    /// Of a matrix `[vocabulary, hidden]`, wherever it lies.
    pub(super) fn new(
        pool: &MemoryPool,
        stored: &Tensor,
        bits: HeadBits,
    ) -> Result<Head, RunError> {
        let [rows, cols] = *stored.shape() else {
            unreachable!("its shape was checked")
        };
        if bits == HeadBits::Stored {
            let bytes = stored.bytes()?;
            let mut block = pool
                .allocate(bytes.len(), HUGE_PAGE, HEAD)
                .map_err(tensor)?;
            let place = block.bytes_mut().map_err(tensor)?;
            let pieces = place.par_chunks_mut(1 << 20).zip(bytes.par_chunks(1 << 20));
            pieces.for_each(|(place, bytes)| place.copy_from_slice(bytes));
            let matrix = Tensor::of_block(Arc::new(block), 0, stored.dtype(), &[rows, cols])?;
            return Ok(Head::of(matrix));
        }
        let block = pool
            .allocate(rows * cols, HUGE_PAGE, HEAD)
            .map_err(tensor)?;
        let mut matrix = Tensor::of_block(Arc::new(block), 0, Dtype::I8, &[rows, cols])?;
        let mut scales = Tensor::zeros(pool, Dtype::F32, &[rows], HEAD)?;
        let places = matrix
            .numbers_mut::<i8>()?
            .par_chunks_mut(cols)
            .zip(scales.numbers_mut::<f32>()?);
        places.enumerate().try_for_each_init(
            || vec![0.0; cols],
            |numbers, (row, (codes, scale))| {
                stored.index(0, row)?.read(numbers)?;
                let most = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
                *scale = most / 127.0;
                let by = if most > 0.0 { 127.0 / most } else { 0.0 };
                for (code, x) in codes.iter_mut().zip(&*numbers) {
                    *code = (x * by).round_ties_even() as i8;
                }
                Ok::<(), RunError>(())
            },
        )?;
        Ok(Head {
            matrix,
            scales: Some(scales),
        })
    }

    /// Logits `[vocabulary]` of features `[hidden]`; `whole` is memory for these in 16 bits.
    pub(super) fn logits(
        &self,
        x: &[f32],
        whole: &mut Vec<i16>,
        pool: &Pool,
        out: &mut [f32],
    ) -> Result<(), RunError> {
        let scales = self
            .scales
            .as_ref()
            .map(|scales| scales.numbers())
            .transpose()?;
        Ok(dense::multiply(&self.matrix, scales, x, whole, pool, out)?)
    }
}

fn tensor(e: crate::memory::MemoryError) -> RunError {
    RunError::Tensor(e.into())
}
