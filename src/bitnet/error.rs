//! Why a model cannot run.

use crate::bitlinear::{LayerError, StoredError};
use crate::checkpoint::CheckpointError;
use crate::kernels::KernelError;
use crate::tensor::TensorError;
use crate::units::binary;

/// Why a model cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A class whose entry does not say how it runs.
    #[error(
        "{architecture} does not run as a whole: its entry in the module database has no `decoder`{}",
        by_themselves(matrices)
    )]
    NotADecoder {
        /// The class.
        architecture: String,
        /// Modules that run by themselves, if their weights are there.
        matrices: Vec<String>,
    },
    /// What the database or the config say does not go together.
    #[error("{0}")]
    Model(String),
    /// Positions that are turned otherwise.
    #[error("rotary positions of type `{kind}` are not supported; `default` is")]
    Rope {
        /// The type.
        kind: String,
    },
    /// A gate that is not known.
    #[error("the activation `{name}` is not supported; known are {}", known.join(", "))]
    Activation {
        /// Its name.
        name: String,
        /// Those that are.
        known: Vec<&'static str>,
    },
    /// A tensor that is not in the checkpoint.
    #[error("the checkpoint has no tensor `{0}`, which the model needs")]
    Missing(String),
    /// A tensor of another shape than the config says.
    #[error("tensor `{name}` has shape {given:?}, the config makes it {needed:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        given: Vec<u64>,
        /// The shape that the model needs.
        needed: Vec<usize>,
    },
    /// A weight that cannot be used.
    #[error("tensor `{name}`: {reason}")]
    Weight {
        /// The tensor.
        name: String,
        /// Why.
        reason: String,
    },
    /// More tokens than there is room for.
    #[error(
        "{tokens} tokens are more than the context of {context}; {}", more_context(*context, *positions)
    )]
    Context {
        /// Tokens that are there.
        tokens: usize,
        /// Room that there is.
        context: usize,
        /// The most that the model is made for.
        positions: usize,
    },
    /// No token at all.
    #[error("there are no tokens to begin with")]
    Empty,
    /// A token that the model does not know.
    #[error("token {id} is beyond the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        id: u32,
        /// Tokens that there are.
        vocabulary: usize,
    },
    /// Memory that cannot be had.
    #[error(
        "{} are needed ({}) and {} can be had{}", binary(needed.total() as u128), needed.parts(), binary(*there as u128), smaller(fits)
    )]
    Memory {
        /// What is needed.
        needed: super::Needed,
        /// What there is.
        there: u64,
        /// Options that would fit.
        fits: Vec<String>,
    },
    /// Codes that cannot be used.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// A layer that cannot be made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A product that cannot be computed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A tensor that cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A file that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

fn by_themselves(matrices: &[String]) -> String {
    const MOST: usize = 8;
    let Some(first) = matrices.first() else {
        return String::new();
    };
    let more = match matrices.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named: Vec<&str> = matrices.iter().take(MOST).map(String::as_str).collect();
    format!(
        ". Its matrices run one by one, such as `--layer {first}`: {}{more}",
        named.join(", ")
    )
}

fn more_context(context: usize, positions: usize) -> String {
    match context < positions {
        true => format!("give --context up to {positions}"),
        false => "the model is made for no more".into(),
    }
}

fn smaller(fits: &[String]) -> String {
    match fits {
        [] => "; no setting makes it fit".into(),
        fits => format!("; it fits with {}", fits.join(", or with ")),
    }
}
