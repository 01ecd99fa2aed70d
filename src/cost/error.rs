//! Why something cannot be counted: a cause, and the scope that it stands in.

use super::{MAX_RANK, Shape};

/// Why something cannot be counted, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostError {
    /// The path of the scope and operation, such as `transformer.mlp.layer`; empty where nothing is open.
    pub scope: String,
    /// The cause.
    pub fault: Fault,
}

impl std::fmt::Display for CostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.scope.is_empty() {
            write!(f, "in `{}`: ", self.scope)?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for CostError {}

impl From<Fault> for CostError {
    fn from(fault: Fault) -> CostError {
        CostError {
            scope: String::new(),
            fault,
        }
    }
}

/// A cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Two shapes that do not go together, such as a product of 128x32 and 33x8.
    #[error("{} and {} do not fit: {need}", shapes.0, shapes.1)]
    Shapes {
        /// The two.
        shapes: Box<(Shape, Shape)>,
        /// What the operation asks for.
        need: String,
    },
    /// A shape with too few sides, such as an image of 128.
    #[error("{shape} does not fit: {need}")]
    Rank {
        /// The shape.
        shape: Box<Shape>,
        /// What the operation asks for.
        need: &'static str,
    },
    /// A size that another does not divide, such as 32 features in 5 heads.
    #[error("{what} {size} cannot be divided by {parts_of} {parts}")]
    Divides {
        /// What is divided.
        what: &'static str,
        /// How large it is.
        size: u64,
        /// What divides it.
        parts_of: &'static str,
        /// How many there are.
        parts: u64,
    },
    /// A size of 0, such as `heads=0`.
    #[error("{0} is 0; sizes are 1 or more")]
    Zero(&'static str),
    /// A shape of no sides, or of seven.
    #[error("a shape has 1 to {MAX_RANK} sides, not {0}")]
    Sides(usize),
    /// A width of 0 or 65.
    #[error("widths are 1 to 64 bits, not {0}")]
    Bits(u32),
    /// A number beyond 128 bits, such as the elements of six sides of 2^40.
    #[error("{0} do not fit in 128 bits")]
    Overflow(&'static str),
    /// Values that cannot be meant, such as a window larger than what it moves over.
    #[error("{0}")]
    Invalid(String),
}

impl Fault {
    /// Two shapes that do not go together.
    pub(super) fn shapes(left: Shape, right: Shape, need: impl Into<String>) -> Fault {
        Fault::Shapes {
            shapes: Box::new((left, right)),
            need: need.into(),
        }
    }

    /// A shape with too few sides.
    pub(super) fn rank(shape: Shape, need: &'static str) -> Fault {
        Fault::Rank {
            shape: Box::new(shape),
            need,
        }
    }
}
