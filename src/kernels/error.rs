//! Why a product cannot be computed.

/// Why a product cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A tensor of weights that cannot be made.
    #[error(transparent)]
    Tensor(#[from] crate::tensor::TensorError),
    /// A matrix of 0 rows, or of 0 columns.
    #[error("a matrix of {rows} rows and {cols} columns has no product")]
    Empty {
        /// Its rows.
        rows: usize,
        /// Its columns.
        cols: usize,
    },
    /// More columns than sums of 32 bits are sure to hold.
    #[error(
        "{cols} columns are more than the {} that sums of 32 bits are sure to hold",
        super::packing::MAX_COLS
    )]
    TooWide {
        /// The columns.
        cols: usize,
    },
    /// A weight of 2, say.
    #[error("the weight in row {row}, column {col} is {value}; ternary weights are -1, 0 and 1")]
    NotTernary {
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
        /// The weight.
        value: i8,
    },
    /// A packed byte with the two bits 11, or a byte of trits above 242.
    #[error("byte {at} of the packed weights is {byte:#04x}, which holds a code that is no weight")]
    Code {
        /// Which byte.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// Packed bytes that are too few or too many for their shape.
    #[error("{rows} rows of {cols} weights in this form are {needed} bytes, not {given}")]
    Size {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Bytes of such a matrix.
        needed: usize,
        /// Bytes that there are.
        given: usize,
    },
    /// Columns of which a form's blocks hold only multiples.
    #[error("this form holds rows of a multiple of {multiple} weights, not of {cols}")]
    Ragged {
        /// Columns.
        cols: usize,
        /// What they have to be a multiple of.
        multiple: usize,
    },
    /// Numbers that are no tokens of so many features.
    #[error("{given} numbers are no tokens of {features} features")]
    Shape {
        /// How many numbers.
        given: usize,
        /// Features of a token.
        features: usize,
    },
    /// An output or a scale of another length.
    #[error("{what} has {given} numbers where {needed} belong")]
    Length {
        /// What it is.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many belong there.
        needed: usize,
    },
    /// An infinite activation, or none: it has no 8-bit code.
    #[error("feature {feature} of token {token} is {value}: only finite numbers can be quantized")]
    NotFinite {
        /// The token.
        token: usize,
        /// The feature.
        feature: usize,
        /// Its value.
        value: f32,
    },
    /// A kernel that reads the other packing.
    #[error("kernel {kernel} reads weights of {reads} bits, these have {given}")]
    Packing {
        /// The kernel.
        kernel: &'static str,
        /// What it reads.
        reads: &'static str,
        /// How the weights are packed.
        given: &'static str,
    },
    /// A name that no kernel has.
    #[error("there is no kernel `{name}`{hint}; this machine runs {runs}")]
    Unknown {
        /// The name.
        name: String,
        /// The nearest name, as a sentence.
        hint: String,
        /// The kernels that run here.
        runs: String,
    },
    /// A kernel of another machine.
    #[error("kernel {name} needs {needs}, which this machine lacks; it runs {runs}")]
    Lacking {
        /// The kernel.
        name: &'static str,
        /// What it needs.
        needs: &'static str,
        /// The kernels that run here.
        runs: String,
    },
    /// Memory that cannot be had.
    #[error("{} for weights or activations cannot be had: {error}; take fewer tokens, or a smaller matrix", size(*.bytes))]
    Memory {
        /// How much.
        bytes: usize,
        /// Why not.
        error: std::io::Error,
    },
}

/// Bytes, or that they are more than can be counted.
fn size(bytes: usize) -> String {
    match bytes {
        usize::MAX => "more memory than can be addressed".into(),
        bytes => crate::units::binary(bytes as u128),
    }
}

impl From<crate::memory::MemoryError> for KernelError {
    fn from(e: crate::memory::MemoryError) -> KernelError {
        KernelError::Tensor(e.into())
    }
}
