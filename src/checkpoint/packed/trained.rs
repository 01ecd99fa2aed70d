//! Weights that are quantized whenever they are used, by a quantizer with a dead zone whose parameters stand beside them.
//!
//! ```text
//! <layer>.parametrizations.weight.original                any shape, float
//! <layer>.parametrizations.weight.0.quantizer.logit_dz    F32 [], and so logit_bit, fixed_bit, learnable_bit, min_bits, max_bits
//! ```
//!
//! All in 32 bits, as the training code has it (CoDeQ, arXiv 2512.12981, `quantizer.py`):
//!
//! 1. A is the 0.99 quantile of |w|, between two order statistics where it falls between them.
//! 2. b = round((max - min) |tanh(logit_bit)| + min), or `fixed_bit` where the width is not learned.
//! 3. d = 2 A (1 - |tanh(logit_dz)|), Q = 2^(b-1) - 1, s = (A - d / 2) / (Q - 1/2) + 1e-8, delta = d / 2 - s / 2.
//! 4. The code is round(max(|w| - delta, 0) / s), at most Q, with the sign of w; ties go to even.

use super::super::{Checkpoint, CheckpointError, PIECE_BYTES, Tensor};
use super::floats::number;
use super::rules::Rule;
use super::values::whole;
use super::{Answer, Found, Seen};
use std::sync::OnceLock;

const PREFIX: &str = ".parametrizations.weight.0.quantizer";

/// What the codes of a weight depend on besides the weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantizer {
    bits: u32,
    logit_dz: f32,
    /// The quantile of the magnitudes, once it was looked for.
    top: OnceLock<f32>,
}

/// A weight with a quantizer beside it.
pub(super) fn trained(seen: &Seen) -> Answer {
    let codes = seen.codes();
    if !codes.dtype.is_float() || !matches!(codes.dtype.bits, 16 | 32) {
        return Ok(None);
    }
    // Without the data the quantizer is not known.
    let scalar = |name: &str| -> Option<f32> {
        let end = [PREFIX, ".", name].concat();
        let (tensor, bytes) = (seen.side(&end)?, seen.small(&end)?);
        match tensor.dtype.name {
            "F32" => Some(f32::from_le_bytes(*bytes.first_chunk()?)),
            "I64" => Some(i64::from_le_bytes(*bytes.first_chunk()?) as f32),
            "BOOL" | "U8" => Some(f32::from(*bytes.first()?)),
            _ => None,
        }
    };
    let quantizer = scalar("logit_dz").zip(scalar("logit_bit"));
    let quantizer = quantizer.and_then(|(logit_dz, logit_bit)| {
        let learned = scalar("learnable_bit").is_none_or(|flag| flag != 0.0);
        let fixed = scalar("fixed_bit").filter(|_| !learned);
        let (least, most) = (
            scalar("min_bits").unwrap_or(2.0),
            scalar("max_bits").unwrap_or(8.0),
        );
        let bits = fixed.unwrap_or((most - least) * tanh(logit_bit).abs() + least);
        let bits = bits.round_ties_even();
        (1.0..=24.0).contains(&bits).then_some(Quantizer {
            bits: bits as u32,
            logit_dz,
            top: OnceLock::new(),
        })
    });
    let bits = quantizer.as_ref().map(|q| q.bits);
    let label = match bits {
        Some(bits) => format!("codeq int{bits}"),
        None => "codeq".into(),
    };
    let rule = match quantizer {
        Some(quantizer) => Rule::Trained(Box::new(quantizer)),
        None => Rule::None("the parameters of its quantizer are not here"),
    };
    let found = Found::new(&*codes.shape, label, bits.unwrap_or(codes.dtype.bits), rule);
    Ok(found.map(|found| Found {
        code_bits: bits,
        ..found
    }))
}

/// Rounded once from a wider one, which is what 32 bits can best hold.
fn tanh(x: f32) -> f32 {
    f64::from(x).tanh() as f32
}

/// Weights whose code is 0.
pub(super) fn zeros(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    quantizer: &Quantizer,
) -> Result<u64, CheckpointError> {
    let values = quantizer.values(checkpoint, tensor)?;
    let codes = values.numbers.magnitudes().map(|w| values.code(w));
    Ok(codes.filter(|code| *code == 0.0).count() as u64)
}

/// The numbers, and what their quantizer makes of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'c> {
    numbers: Numbers<'c>,
    step: f32,
    delta: f32,
    levels: f32,
}

impl Quantizer {
    /// The numbers of a tensor with what quantizes them, for which all are looked at.
    pub(super) fn values<'c>(
        &self,
        checkpoint: &'c Checkpoint,
        tensor: &'c Tensor,
    ) -> Result<Values<'c>, CheckpointError> {
        let numbers = Numbers {
            bytes: whole(checkpoint, tensor)?,
            tensor,
            size: (tensor.dtype.bits / 8) as usize,
        };
        let levels = ((1u32 << (self.bits - 1)) - 1) as f32;
        let top = *self.top.get_or_init(|| numbers.quantile());
        let dead = 2.0 * top * (1.0 - tanh(self.logit_dz).abs());
        let step = (top - dead / 2.0) / (levels - 0.5) + 1e-8;
        Ok(Values {
            numbers,
            step,
            delta: dead / 2.0 - step / 2.0,
            levels,
        })
    }
}

impl Values<'_> {
    /// The code of a magnitude.
    fn code(&self, w: f32) -> f32 {
        let code = ((w - self.delta).max(0.0) / self.step).round_ties_even();
        code.min(self.levels)
    }

    /// Writes the numbers from one on: with the sign of the weight, steps beyond the dead zone.
    pub(super) fn read(&self, begin: u64, out: &mut [f32]) {
        let Numbers {
            bytes,
            tensor,
            size,
        } = self.numbers;
        let begin = usize::try_from(begin)
            .ok()
            .and_then(|at| at.checked_mul(size));
        let here = begin.and_then(|at| bytes.get(at..)).unwrap_or_default();
        for (out, bytes) in out.iter_mut().zip(here.chunks_exact(size)) {
            let w = number(raw(bytes), tensor.dtype);
            let code = self.code(w.abs());
            *out = if code == 0.0 {
                0.0
            } else {
                self.step * code.copysign(w) + self.delta * 1f32.copysign(w)
            };
        }
    }
}

/// A point between two numbers, from the nearer end and with one rounding at the end, as torch interpolates.
fn between(low: f32, high: f32, at: f32) -> f32 {
    if at < 0.5 {
        at.mul_add(high - low, low)
    } else {
        (at - 1.0).mul_add(high - low, high)
    }
}

#[derive(Clone, Copy, Debug)]
struct Numbers<'c> {
    bytes: &'c [u8],
    tensor: &'c Tensor,
    size: usize,
}

impl Numbers<'_> {
    /// The 0.99 quantile of the magnitudes; 0 where there are none.
    fn quantile(&self) -> f32 {
        let last = self.tensor.elements().saturating_sub(1);
        // The fraction has 32 bits, its product with the count is exact in 64.
        let rank = f64::from(0.99f32) * last as f64;
        let (below, above) = (rank.floor() as u64, rank.ceil() as u64);
        let pair = self.statistic(below).zip(self.statistic(above.min(last)));
        pair.map_or(0.0, |(low, high)| {
            between(low, high, (rank - rank.floor()) as f32)
        })
    }

    fn magnitudes(&self) -> impl Iterator<Item = f32> {
        let (dtype, size) = (self.tensor.dtype, self.size);
        self.bytes.chunks(PIECE_BYTES).flat_map(move |piece| {
            let codes = piece.chunks_exact(size);
            codes.map(move |bytes| number(raw(bytes), dtype).abs())
        })
    }

    /// The magnitude of a rank, from 0. Magnitudes are ordered as their bits are, so two counts of 65,536 find it: first by
    /// the upper half of the bits, then by the lower half of those that share the upper.
    fn statistic(&self, rank: u64) -> Option<f32> {
        let (upper, rank) = nth(self.magnitudes().map(|m| m.to_bits() >> 16), rank)?;
        let same = self
            .magnitudes()
            .map(f32::to_bits)
            .filter(|b| b >> 16 == upper);
        let (lower, _) = nth(same.map(|b| b & 0xffff), rank)?;
        Some(f32::from_bits(upper << 16 | lower))
    }
}

/// The code of two or four bytes.
fn raw(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |raw, b| raw << 8 | u32::from(*b))
}

/// The number of a rank among numbers below 65,536, and its rank among those that equal it.
fn nth(numbers: impl Iterator<Item = u32>, mut rank: u64) -> Option<(u32, u64)> {
    let mut counts = vec![0u64; 1 << 16];
    for number in numbers {
        counts[number as usize] += 1;
    }
    for (number, count) in (0..).zip(counts) {
        if rank < count {
            return Some((number, rank));
        }
        rank -= count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_rank_is_found_by_counting() {
        let numbers = [5u32, 1, 5, 0, 9];
        let ranks: Vec<_> = (0..6).map(|r| nth(numbers.into_iter(), r)).collect();
        let found = [(0, 0), (1, 0), (5, 0), (5, 1), (9, 0)].map(Some);
        assert_eq!(ranks[..5], found);
        assert_eq!(ranks[5], None);
    }

    #[test]
    fn interpolation_is_torchs() {
        assert_eq!(between(1.0, 2.0, 0.25), 1.25);
        assert_eq!(between(1.0, 2.0, 0.75), 1.75);
    }
}
