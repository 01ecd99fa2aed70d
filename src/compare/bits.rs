//! How many bits a weight of a layer takes, and where that is known from.
//!
//! A file of the user wins, then what the checkpoint says itself (a trained quantizer, a packed format), then the number of
//! levels of a float tensor that is quantized and not packed, then its dtype.

use super::scanned::Counted;
use crate::checkpoint::packed::Weight;
use std::collections::BTreeMap;

/// Where a width is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitsSource {
    /// The file given with `--bits`.
    File,
    /// A quantizer whose parameters stand in the checkpoint.
    Quantizer,
    /// The codes of a packed format.
    Packed,
    /// The distinct values of a float tensor.
    Levels,
    /// The dtype.
    Stored,
    /// What plain floats are to count as.
    FloatBits,
}

impl BitsSource {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            BitsSource::File => "file",
            BitsSource::Quantizer => "quantizer",
            BitsSource::Packed => "packed",
            BitsSource::Levels => "levels",
            BitsSource::Stored => "stored",
            BitsSource::FloatBits => "float-bits",
        }
    }
}

/// What decides how widths are found.
#[derive(Clone, Debug, Default)]
pub struct BitsRules {
    /// Widths by layer, from a file.
    pub given: BTreeMap<String, u32>,
    /// What plain floats count as.
    pub float_bits: Option<u32>,
    /// Whether few distinct values mean a narrower width.
    pub infer: bool,
}

/// Fewest numbers per level that tell a quantized tensor from a small one.
const NUMBERS_PER_LEVEL: u64 = 4;

/// The width of a layer's weight.
pub(super) fn bits(
    layer: &str,
    weight: &Weight,
    counted: Option<&Counted>,
    rules: &BitsRules,
) -> (u32, BitsSource) {
    if let Some(bits) = rules.given.get(layer) {
        return (*bits, BitsSource::File);
    }
    let plain = weight.is_plain();
    if let Some(bits) = weight.code_bits.filter(|_| !plain) {
        let source = if weight.has_quantizer() {
            BitsSource::Quantizer
        } else {
            BitsSource::Packed
        };
        return (bits, source);
    }
    let stored = weight.code_bits.unwrap_or(32);
    if let Some(levels) = counted
        .filter(|_| plain && rules.infer && stored > 8)
        .and_then(few_levels)
    {
        return (levels, BitsSource::Levels);
    }
    match rules.float_bits.filter(|_| stored >= 16) {
        Some(bits) => (bits, BitsSource::FloatBits),
        None => (stored, BitsSource::Stored),
    }
}

/// Bits that number the levels of a tensor that has few: 15 levels take 4.
fn few_levels(counted: &Counted) -> Option<u32> {
    let count = counted.levels? as u64;
    // One level is a constant, such as a layer that was pruned whole; it says nothing of a quantizer.
    let quantized = count > 1 && counted.elements >= count * NUMBERS_PER_LEVEL;
    quantized.then(|| count.next_power_of_two().trailing_zeros())
}
