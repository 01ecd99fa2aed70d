//! The table of formats: one row each, with the names of its tensors and the function that reads their shapes.
//!
//! A tensor whose name ends in a row's `mark` is shown to that row together with its siblings, rows in the order of the
//! table; the first that says yes has them. A row is recognized by names and dtypes and by nothing else.

use super::super::Tensor;
use super::seen::{Answer, MAX_SIDES, Seen};
use super::{bitsandbytes, compressed, halves, mlx, opaque, scaled, torchao, trained, words};
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
    "awq-gemv-fast": "words of 16 bits with four outputs each, zero points times scales",
        ".qweight" => ".qweight" [2: ".scales" ".qzeros"] as ".weight", words::awq_gemv_fast;

    "bitsandbytes-int8": "int8 with a scale for each output",
        ".SCB" => ".weight" [1: ".SCB" ".weight_format"] as ".weight", bitsandbytes::int8;
    "bitsandbytes-nf4": "4-bit codes of a table of normal quantiles, blocks of 64",
        ".quant_state.bitsandbytes__nf4" => "" [3: ".absmax" ".quant_map" ".quant_state.bitsandbytes__nf4"
        ".nested_absmax" ".nested_quant_map"] as "", bitsandbytes::nf4;
    "bitsandbytes-fp4": "4-bit floats, blocks of 64",
        ".quant_state.bitsandbytes__fp4" => "" [3: ".absmax" ".quant_map" ".quant_state.bitsandbytes__fp4"
        ".nested_absmax" ".nested_quant_map"] as "", bitsandbytes::fp4;

    "pack-quantized": "compressed-tensors: words of 32 bits along the inputs",
        "_packed" => "_packed" [1: "_scale" "_shape" "_zero_point" "_g_idx"] as "", compressed::pack_quantized;
    "nvfp4-pack-quantized": "compressed-tensors: 4-bit floats, an 8-bit scale for 16 and one for all",
        "_packed" => "_packed" [2: "_scale" "_global_scale"] as "", scaled::nvfp4;
    "mxfp6-pack-quantized": "compressed-tensors: 6-bit floats, a power of two for 32",
        "_packed" => "_packed" [1: "_scale"] as "", scaled::mxfp6;
    "mxfp4-pack-quantized": "compressed-tensors: 4-bit floats, a power of two for 32",
        "_packed" => "_packed" [1: "_scale"] as "", scaled::mxfp4;
    "marlin-24": "compressed-tensors: integers of two of four numbers in a kernel's order",
        ".scale_packed" => ".weight_packed" [2: ".scale_packed" ".meta"] as ".weight", compressed::marlin;
    "sparse-24-bitmask": "compressed-tensors: two of four numbers and a bit mask",
        ".bitmask" => ".compressed" [1: ".bitmask" ".shape" ".weight_scale"] as ".weight", compressed::two_of_four;
    "sparse-bitmask": "compressed-tensors: the numbers that are not 0 and a bit mask",
        ".bitmask" => ".compressed" [1: ".bitmask" ".shape" ".row_offsets"] as ".weight", compressed::sparse;

    "modelopt-nvfp4": "4-bit floats, an 8-bit scale for 16 and one for all",
        "_scale_2" => "" [2: "_scale" "_scale_2"] as "", scaled::nvfp4;
    "fp8": "8-bit floats with scales",
        "_scale" => "" [1: "_scale"] as "", scaled::fp8;
    "mxfp8": "8-bit floats, a power of two for 32",
        "_scale" => "" [1: "_scale"] as "", scaled::mxfp8;
    "int-quantized": "integers of up to 8 bits, a byte each",
        "_scale" => "" [1: "_scale" "_zero_point"] as "", scaled::int8;
    "bitnet": "ternary codes, four rows a byte",
        "_scale" => "" [1: "_scale"] as "", scaled::ternary;
    "modelopt-int4": "4-bit integers, two rows a byte",
        "_scale" => "" [1: "_scale"] as "", scaled::row_pairs;
    "mxfp4-bytes": "4-bit floats, a power of two for 32",
        "_scale" => "" [1: "_scale"] as "", scaled::mxfp4;
    "int-bytes": "2- or 4-bit integers along the inputs, a scale for each output",
        "_scale" => "" [1: "_scale"] as "", scaled::offset_bytes;
    "fp8-block": "8-bit floats with a scale for each block",
        "_scale_inv" => "" [1: "_scale_inv"] as "", scaled::fp8_inverse;
    "fp8-block": "8-bit floats with a scale for each block, called by that name alone",
        ".scale" => ".weight" [1: ".scale"] as ".weight", scaled::fp8_bare;
    "fp4-expert": "4-bit floats in signed bytes, a power of two for 32",
        ".scale" => ".weight" [1: ".scale"] as ".weight", scaled::fp4_bare;
    "mxfp4": "experts of 4-bit floats in blocks of 16 bytes, a power of two for each",
        "_scales" => "_blocks" [1: "_scales"] as "", scaled::blocks;
    "eetq": "int8, stored transposed",
        "_scales" => "" [1: "_scales"] as "", scaled::transposed;

    "mlx-affine": "MLX: integers in words, groups with a scale and a bias",
        ".scales" => ".weight" [1: ".scales" ".biases" ".qbiases"] as ".weight", mlx::affine;
    "mlx-mxfp4": "MLX: 4-bit floats in words, a power of two for 32",
        ".scales" => ".weight" [1: ".scales"] as ".weight", mlx::mxfp4;
    "mlx-nvfp4": "MLX: 4-bit floats in words, an 8-bit scale for 16",
        ".scales" => ".weight" [1: ".scales"] as ".weight", mlx::nvfp4;
    "mlx-mxfp8": "MLX: 8-bit floats in words, a power of two for 32",
        ".scales" => ".weight" [1: ".scales"] as ".weight", mlx::mxfp8;

    "codeq": "floats that a trained quantizer with a dead zone rounds when they are used",
        ".parametrizations.weight.0.quantizer.logit_dz" => ".parametrizations.weight.original" [2:
        ".parametrizations.weight.0.quantizer.logit_dz" ".parametrizations.weight.0.quantizer.logit_bit"
        ".parametrizations.weight.0.quantizer.fixed_bit" ".parametrizations.weight.0.quantizer.learnable_bit"
        ".parametrizations.weight.0.quantizer.min_bits" ".parametrizations.weight.0.quantizer.max_bits"
        ".parametrizations.weight.0.quantizer.learnable_deadzone"] as ".weight", trained::trained;

    "torchao": "a tensor class of torchao, taken apart",
        "_qdata" => "_qdata" [1: "_scale" "_zero_point" "_per_tensor_scale"] as "", torchao::torchao;
    "hqq": "codes of rows far apart in a byte, float zero points",
        ".W_q" => ".W_q" [2: ".scale" ".zero" ".shape" ".nbits" ".group_size" ".axis" ".packing" ".unpack_view_dtype"
        ".view_as_float" ".quant_scale" ".quant_zero" ".compute_dtype" ".offload_meta" ".encoded_state_dict"
        ".stores_quant_config" ".channel_wise" ".optimize" ".round_zero"] as ".weight", halves::hqq;
    "quanto-int": "2- or 4-bit codes of rows far apart in a byte, float shifts",
        "._data._data" => "._data._data" [2: "._scale" "._shift"] as "", halves::quanto_groups;
    "quanto-bytes": "8-bit integers or floats with scales",
        "._data" => "._data" [1: "._scale"] as "", halves::quanto_bytes;
    "aqlm": "sums of vectors from codebooks",
        ".codebooks" => ".codes" [1: ".codebooks" ".scales"] as ".weight", opaque::aqlm;
    "higgs": "vectors of a table, rotated",
        ".tables2" => ".weight" [3: ".scales" ".tables" ".tables2"] as ".weight", opaque::higgs;
    "exl2": "words with groups of several widths",
        ".q_weight" => ".q_weight" [3: ".q_invperm" ".q_scale" ".q_scale_max" ".q_groups" ".q_group_map" ".q_perm"]
        as ".weight", opaque::exl2;
    "exl3": "paths through a trellis",
        ".trellis" => ".trellis" [0: ".suh" ".svh" ".su" ".sv" ".mcg" ".mul1"] as ".weight", opaque::exl3;
}

/// Every scheme that a weight may have: plain, then the rows of the table. Rows that differ only in the names of tensors share
/// their name.
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
    "input_activation_scale",
    "output_activation_scale",
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

/// Whether a plain tensor is called as only codes are called.
pub(super) fn is_named_as_codes(tensor: &Tensor) -> bool {
    let is = |format: &Format| {
        !matches!(format.codes, "" | ".weight") && tensor.name.ends_with(format.codes)
    };
    !tensor.dtype.is_float() && FORMATS.iter().any(is)
}

/// Why a tensor that no packed weight took is no weight, if it is none.
pub(super) fn left_over(tensor: &Tensor) -> Option<Leftover> {
    let last = tensor.name.rsplit('.').next().unwrap_or_default();
    if ACTIVATIONS.contains(&last) {
        return Some(Leftover::Activations);
    }
    // `gate_up_proj_weight_scale` of experts that are one tensor is one too.
    let is = |side: &str| {
        last.strip_suffix(side)
            .is_some_and(|before| before.is_empty() || before.ends_with('_'))
    };
    let side = SIDES.iter().any(|side| is(side))
        || tensor.dtype.kind == NumberKind::Exponent
        || last.starts_with("bitsandbytes__");
    side.then_some(Leftover::Side)
}
