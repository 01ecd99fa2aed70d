//! The table of formats: one row each, with the names of its tensors and the function that reads their shapes.
//!
//! A tensor whose name ends in a row's `mark` is shown to that row together with its siblings, rows in the order of the
//! table; the first that says yes has them. A row is recognized by names and dtypes and by nothing else.

use super::super::Tensor;
use super::words;
use super::{Answer, MAX_SIDES, Seen};
use crate::dtype::NumberKind;

/// What is not packed.
pub(super) const PLAIN: &str = "plain";

/// How a packed format names its tensors.
pub(super) struct Format {
    /// What reports call it.
    pub(super) name: &'static str,
    /// What it is, in a line.
    about: &'static str,
    /// The end of the name by which it is noticed; before it stands the stem.
    pub(super) mark: &'static str,
    /// What follows the stem in the name of the codes.
    pub(super) codes: &'static str,
    /// What follows the stem in the name of the weight.
    pub(super) weight: &'static str,
    /// What follows the stem in the names of the other tensors.
    pub(super) sides: &'static [&'static str],
    /// How many of them, from the first, every weight has.
    pub(super) needs: usize,
    /// Reads the shapes.
    pub(super) read: fn(&Seen) -> Answer,
}

/// A row of the table, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Its name, as [`super::Weight::scheme`] has it.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

macro_rules! formats {
    ($($name:literal: $about:literal, $mark:literal => $codes:literal [$needs:literal: $($side:literal)*] as $weight:literal, $read:path;)*) => {
        /// Every packed format.
        pub(super) const FORMATS: &[Format] = &[$(Format {
            name: $name, about: $about, mark: $mark, codes: $codes, weight: $weight,
            sides: &[$($side),*], needs: $needs, read: $read,
        },)*];
    };
}

// name: what it is,
//     mark => codes [how many of the sides are needed: sides] as weight, reader;
formats! {
    "gptq": "words of 32 bits down the inputs, zero points and scales by group",
        ".qweight" => ".qweight" [2: ".scales" ".qzeros" ".g_idx"] as ".weight", words::gptq;
    "awq-gemm": "words of 32 bits along the outputs, nibbles 0 2 4 6 1 3 5 7",
        ".qweight" => ".qweight" [2: ".scales" ".qzeros"] as ".weight", words::awq_gemm;
    "awq-gemv": "words of 32 bits along the inputs, scales padded to whole words",
        ".qweight" => ".qweight" [2: ".scales" ".qzeros"] as ".weight", words::awq_gemv;
}

/// Every scheme that a weight may have: plain, then the table.
pub const SCHEMES: &[Scheme] = &schemes();

const fn schemes() -> [Scheme; FORMATS.len() + 1] {
    let plain = Scheme {
        name: PLAIN,
        about: "numbers of the tensor's own dtype",
    };
    let mut all = [plain; FORMATS.len() + 1];
    let mut at = 0;
    while at < FORMATS.len() {
        assert!(FORMATS[at].sides.len() <= MAX_SIDES);
        assert!(FORMATS[at].needs <= FORMATS[at].sides.len());
        all[at + 1] = Scheme {
            name: FORMATS[at].name,
            about: FORMATS[at].about,
        };
        at += 1;
    }
    all
}

/// Why a tensor that no packed weight took is no weight either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// It says how activations or a cache are quantized.
    Activations,
    /// It belongs to codes that are missing.
    Side,
}

/// Last parts of names that only quantized activations and caches have.
const ACTIVATIONS: &[&str] = &[
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "input_amax",
    "output_scale",
    "output_zero_point",
    "k_scale",
    "v_scale",
    "q_scale",
    "kv_scale",
    "prob_scale",
    "k_zero_point",
    "v_zero_point",
    "pre_quant_scale",
];

/// Last parts of names that stand beside codes and never for themselves.
const SIDES: &[&str] = &[
    "qzeros",
    "g_idx",
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    "SCB",
    "weight_format",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "weight_global_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
];

/// Why a tensor that no packed weight took is no weight, if it is none.
pub(super) fn left_over(tensor: &Tensor) -> Option<Leftover> {
    let last = tensor.name.rsplit('.').next().unwrap_or_default();
    if ACTIVATIONS.contains(&last) {
        return Some(Leftover::Activations);
    }
    let side = SIDES.contains(&last)
        || tensor.dtype.kind == NumberKind::Exponent
        || last.starts_with("bitsandbytes__");
    side.then_some(Leftover::Side)
}
