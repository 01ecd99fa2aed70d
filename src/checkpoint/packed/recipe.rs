//! How the number of a code is computed: what a code is by itself, and what is then done to it with scales, zero points and
//! shifts, in the order and with the roundings of the format's library.
//!
//! A row of the table of formats leaves a [`Recipe`] beside what it says about zeros; `values.rs` follows it. All steps are
//! operations on floats of 32 bits; where a library works in halves, its rounding is a step of its own.

use super::super::Tensor;
use super::rules::Side;
use crate::dtype::StoredType;

/// How the numbers of a matrix of codes are computed, and where they stand in the weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    /// What a code is by itself.
    pub(super) number: Number,
    /// What is done to it, first to last.
    pub(super) steps: Vec<Step>,
    pub(super) place: Place,
}

/// What a code, or an entry of a side tensor, is by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// A natural number: the code plus something in the width of codes, then less something.
    Natural { plus: u32, minus: u32 },
    /// In two's complement of the width of codes.
    Signed,
    /// A number of a dtype.
    Of(StoredType),
}

/// An operation on what is there so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Plus(Term),
    Minus(Term),
    Times(Term),
    Over(Term),
    /// Rounded to a dtype.
    Round(StoredType),
}

/// What an operation takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// The same everywhere.
    Constant(f32),
    /// An entry of a side tensor.
    Entry(Side, Number),
    /// The quotient of two entries, rounded.
    Quotient(Box<[Term; 2]>),
    /// Their product, rounded.
    Product(Box<[Term; 2]>),
    /// The whole number nearest to minus the second over the first: a zero point that is stored times its scale.
    Nearest(Box<[Term; 2]>),
}

/// Where the matrix of codes stands in the weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Number after number as in the weight.
    Same,
    /// Matrices of so many rows on top of each other, each the transpose of the weight's.
    Transposed { rows: u64 },
    /// Only where a bit mask of a tensor has a 1, row after row: of rows of bytes, low bits first.
    Masked(u32),
    /// In an order that is not read.
    Unknown(&'static str),
}

impl Recipe {
    pub(super) fn of(number: Number) -> Recipe {
        Recipe {
            number,
            steps: Vec::new(),
            place: Place::Same,
        }
    }

    /// Natural numbers, less something.
    pub(super) fn less(minus: u32) -> Recipe {
        Recipe::of(Number::Natural { plus: 0, minus })
    }

    pub(super) fn plus(self, term: Term) -> Recipe {
        self.then(Step::Plus(term))
    }

    pub(super) fn minus(self, term: Term) -> Recipe {
        self.then(Step::Minus(term))
    }

    pub(super) fn times(self, term: Term) -> Recipe {
        self.then(Step::Times(term))
    }

    pub(super) fn over(self, term: Term) -> Recipe {
        self.then(Step::Over(term))
    }

    /// Rounded to a dtype; nothing where that has 32 bits or is no float that is rounded to.
    pub(super) fn round(self, dtype: StoredType) -> Recipe {
        match dtype.name {
            "F16" | "BF16" => self.then(Step::Round(dtype)),
            _ => self,
        }
    }

    /// Times scales in their own dtype.
    pub(super) fn scaled(self, side: Side, scales: &Tensor) -> Recipe {
        self.times(Term::of(side, scales)).round(scales.dtype)
    }

    pub(super) fn place(self, place: Place) -> Recipe {
        Recipe { place, ..self }
    }

    fn then(mut self, step: Step) -> Recipe {
        self.steps.push(step);
        self
    }
}

impl Term {
    /// An entry of a tensor, as its dtype says.
    pub(super) fn of(side: Side, tensor: &Tensor) -> Term {
        Term::Entry(side, Number::Of(tensor.dtype))
    }

    /// An entry whose bits are those of another dtype.
    pub(super) fn seen_as(side: Side, dtype: &str) -> Term {
        Term::Entry(side, Number::Of(named(dtype)))
    }

    /// A packed natural number.
    pub(super) fn natural(side: Side, plus: u32) -> Term {
        Term::Entry(side, Number::Natural { plus, minus: 0 })
    }

    pub(super) fn over(self, other: Term) -> Term {
        Term::Quotient(Box::new([self, other]))
    }

    pub(super) fn times(self, other: Term) -> Term {
        Term::Product(Box::new([self, other]))
    }
}

/// The dtype of a name in the table.
pub(super) fn named(dtype: &str) -> StoredType {
    StoredType::named(dtype).expect("formats name dtypes of the table")
}

/// Scales that are powers of two, whether their dtype says so or is bytes.
pub(super) fn powers(side: Side) -> Term {
    Term::seen_as(side, "F8_E8M0")
}
