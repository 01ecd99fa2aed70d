//! What a module costs, and adding it up without wrapping.

use crate::model::{Tensor, Widths};

/// What a module or a model costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Parameters, logical.
    pub params: u128,
    /// Bytes that the parameters take: as stored, where a checkpoint is at hand and no other width is asked for.
    pub weight_bytes: u128,
    /// Bytes of those that a checkpoint holds, side tensors included.
    pub stored_bytes: u128,
    /// How many weights those bytes hold.
    pub stored_params: u128,
    /// Multiply-accumulates of matrix products and convolutions.
    pub macs: u128,
    /// Floating-point operations: 2 per MAC, and elementwise work unless only matrix products are counted.
    pub flops: u128,
    /// Bit operations of the MACs.
    pub bops: u128,
    /// Bytes read.
    pub read: Read,
    /// Bytes written.
    pub write: Written,
    /// Bytes held between operations inside modules.
    pub intermediate_bytes: u128,
}

/// Bytes read, by what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Read {
    /// Parameters.
    pub weights: u128,
    /// Activations.
    pub activations: u128,
    /// Cached keys, values and states.
    pub kv_cache: u128,
}

/// Bytes written, by what is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Activations.
    pub activations: u128,
    /// Cached keys, values and states.
    pub kv_cache: u128,
}

impl Read {
    /// All of it, if it fits.
    pub fn total(&self) -> Option<u128> {
        sum([self.weights, self.activations, self.kv_cache])
    }
}

impl Written {
    /// All of it, if it fits.
    pub fn total(&self) -> Option<u128> {
        sum([self.activations, self.kv_cache])
    }
}

impl Metrics {
    /// Adds `other`, `times` over; what a module owns is added once whatever `times` is.
    pub(super) fn add(&mut self, other: &Metrics, times: u128) -> Option<()> {
        let add = |a: &mut u128, b: u128, times: u128| -> Option<()> {
            *a = a.checked_add(b.checked_mul(times)?)?;
            Some(())
        };
        add(&mut self.params, other.params, 1)?;
        add(&mut self.weight_bytes, other.weight_bytes, 1)?;
        add(&mut self.stored_bytes, other.stored_bytes, 1)?;
        add(&mut self.stored_params, other.stored_params, 1)?;
        add(&mut self.macs, other.macs, times)?;
        add(&mut self.flops, other.flops, times)?;
        add(&mut self.bops, other.bops, times)?;
        add(&mut self.read.weights, other.read.weights, times)?;
        add(&mut self.read.activations, other.read.activations, times)?;
        add(&mut self.read.kv_cache, other.read.kv_cache, times)?;
        add(&mut self.write.activations, other.write.activations, times)?;
        add(&mut self.write.kv_cache, other.write.kv_cache, times)?;
        add(
            &mut self.intermediate_bytes,
            other.intermediate_bytes,
            times,
        )
    }

    /// The metrics of `calls` runs.
    pub(super) fn times(&self, calls: u128) -> Option<Metrics> {
        let mut out = Metrics::default();
        out.add(self, calls)?;
        Some(out)
    }

    /// Adds everything of `other`, `count` times.
    pub fn add_all(&mut self, other: &Metrics, count: u128) -> Option<()> {
        self.add(other, count)?;
        let more = count.checked_sub(1)?;
        for (sum, one) in [
            (&mut self.params, other.params),
            (&mut self.weight_bytes, other.weight_bytes),
            (&mut self.stored_bytes, other.stored_bytes),
            (&mut self.stored_params, other.stored_params),
        ] {
            *sum = sum.checked_add(one.checked_mul(more)?)?;
        }
        Some(())
    }

    /// All bytes read and written.
    pub fn traffic(&self) -> u128 {
        let parts = [
            self.read.weights,
            self.read.activations,
            self.read.kv_cache,
            self.write.activations,
            self.write.kv_cache,
        ];
        parts
            .iter()
            .fold(0u128, |sum, part| sum.saturating_add(*part))
    }
}

/// The sum, if it fits.
pub(super) fn sum(parts: impl IntoIterator<Item = u128>) -> Option<u128> {
    parts.into_iter().try_fold(0u128, u128::checked_add)
}

/// Bytes that `elements` of `bits` each take.
pub(super) fn bytes(elements: u128, bits: u32) -> Option<u128> {
    Some(elements.checked_mul(bits.into())?.div_ceil(8))
}

/// Bytes of a tensor: as the checkpoint stores it, unless the user asks for another width; else by its width.
pub(super) fn tensor_bytes(tensor: &Tensor, fixed: Option<u32>, widths: &Widths) -> Option<u128> {
    match &tensor.stored {
        Some(stored) if widths.weight.is_none() => Some(stored.bytes),
        _ => bytes(
            tensor.elements,
            widths.weight.or(fixed).unwrap_or(widths.dtype),
        ),
    }
}
