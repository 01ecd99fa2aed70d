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
    /// A scale of 0, say: weights would have no size, or their reciprocals none.
    #[error("scale {at} of the weights is {value}: a scale is a number from 2^-126 to 2^126")]
    Scale {
        /// Which scale.
        at: usize,
        /// Its value.
        value: f32,
    },
    /// A bias that is infinite or no number.
    #[error("the bias of output {row} is {value}: only finite numbers can be added")]
    Bias {
        /// The output.
        row: usize,
        /// Its value.
        value: f32,
    },
    /// A bias that would have to be multiplied by several scales at once.
    #[error(
        "the bias stands within the multiplication, and the {scales} scales are more than one for each of {rows} outputs"
    )]
    ScaledBias {
        /// How many scales there are.
        scales: usize,
        /// Outputs.
        rows: usize,
    },
    /// Groups of columns that are no parts of one layer.
    #[error(
        "group {group} of the columns is no part of the same layer: it has {rows} rows in packing {packing}, the first has \
         {first_rows} in packing {first_packing}"
    )]
    Group {
        /// Which group.
        group: usize,
        /// Its rows.
        rows: usize,
        /// How it is packed.
        packing: &'static str,
        /// Rows of the first.
        first_rows: usize,
        /// How the first is packed.
        first_packing: &'static str,
    },
    /// An input of another number of features.
    #[error("an input of shape {shape:?} does not end in the layer's {features} features")]
    InputShape {
        /// The input's shape.
        shape: Vec<usize>,
        /// The layer's features.
        features: usize,
    },
    /// What the kernels refuse: a layer without inputs or outputs, an activation that is not finite, another kernel's packing.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Refuses what has another length.
pub(super) fn same_length(
    what: &'static str,
    given: usize,
    needed: usize,
) -> Result<(), LayerError> {
    if given == needed {
        return Ok(());
    }
    Err(LayerError::Kernel(KernelError::Length {
        what,
        given,
        needed,
    }))
}

/// The numbers of a matrix, if it has any and they can be counted.
pub(super) fn matrix_size(rows: usize, cols: usize) -> Result<usize, LayerError> {
    if rows == 0 || cols == 0 {
        return Err(LayerError::Kernel(KernelError::Empty { rows, cols }));
    }
    rows.checked_mul(cols)
        .filter(|count| *count <= isize::MAX as usize / size_of::<f32>())
        .ok_or_else(|| {
            LayerError::Kernel(KernelError::Memory {
                bytes: usize::MAX,
                error: std::io::ErrorKind::OutOfMemory.into(),
            })
        })
}
