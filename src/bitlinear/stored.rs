//! Ternary weights as transformers stores them: codes of two bits, four rows to a byte, and a scale beside them.

use crate::checkpoint::packed::Weight;
use crate::checkpoint::{Checkpoint, CheckpointError, Tensor};
use crate::float16;
use crate::kernels::KernelError;
use crate::kernels::packing::hf;

/// The scheme of such weights.
const SCHEME: &str = "bitnet";

/// Codes and scale of a weight, where they lie.
#[derive(Clone, Debug)]
pub struct StoredCodes<'c> {
    /// The codes.
    pub form: hf::Form<'c>,
    /// The scale as it is stored; what it means is the rule of the layer's class.
    pub scales: Vec<f32>,
}

/// Why stored codes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Codes without their scale, or a scale without its codes.
    #[error("there is no tensor `{0}`")]
    Missing(String),
    /// Bytes that are no codes of such a matrix.
    #[error("tensor `{tensor}`: {error}")]
    Codes {
        /// The tensor.
        tensor: String,
        /// Why.
        error: KernelError,
    },
    /// A scale that is no float.
    #[error("tensor `{tensor}`: a scale is a float, not {dtype}")]
    Scale {
        /// The tensor.
        tensor: String,
        /// What it is.
        dtype: String,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl<'c> StoredCodes<'c> {
    /// Whether a weight is stored so.
    pub fn is(weight: &Weight) -> bool {
        weight.scheme == SCHEME
    }

    /// The codes of a matrix of so many rows and columns, and its scale.
    pub fn of(
        checkpoint: &'c Checkpoint,
        weight: &Weight,
        rows: usize,
        cols: usize,
    ) -> Result<StoredCodes<'c>, StoredError> {
        let missing = |name: &str| StoredError::Missing(name.into());
        let codes = weight.parts.first();
        let codes = codes.and_then(|at| checkpoint.tensors.get(*at as usize));
        let codes = codes.ok_or_else(|| missing(&weight.name))?;
        let form = hf::Form::new(rows, cols, checkpoint.data(codes)?.bytes);
        let name = format!("{}_scale", weight.name);
        let scale = checkpoint.tensor(&name).ok_or_else(|| missing(&name))?;
        let scales = floats(scale, checkpoint.data(scale)?.bytes);
        Ok(StoredCodes {
            form: form.map_err(|error| StoredError::Codes {
                tensor: codes.name.to_string(),
                error,
            })?,
            scales: scales.ok_or_else(|| StoredError::Scale {
                tensor: name,
                dtype: scale.dtype.to_string(),
            })?,
        })
    }
}

/// The numbers of a plain tensor of floats, wherever it lies.
fn floats(tensor: &Tensor, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = |number: fn(u16) -> f32| {
        let (words, _) = bytes.as_chunks();
        words
            .iter()
            .map(|word| number(u16::from_le_bytes(*word)))
            .collect()
    };
    match tensor.dtype.name {
        "F32" => {
            let (words, _) = bytes.as_chunks();
            Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
        }
        "BF16" => Some(halves(float16::from_bf16)),
        "F16" => Some(halves(float16::from_f16)),
        _ => None,
    }
}
