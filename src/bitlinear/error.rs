//! Why a layer cannot be made or run.

use crate::kernels::KernelError;

/// Why a layer cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A name in a config that means nothing.
    #[error("there is no {what} `{name}`; there is {known}")]
    Name {
        /// What the name should be one of.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: &'static str,
    },
    /// A weight that is infinite or no number.
    #[error(
        "the weight in row {row}, column {col} is {value}: only finite weights can be quantized"
    )]
    Weight {
        /// Its row: the output.
        row: usize,
        /// Its column: the input.
        col: usize,
        /// Its value.
        value: f32,
    },
    /// What the kernels refuse: a layer without inputs or outputs, an activation that is not finite, another kernel's packing.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}
