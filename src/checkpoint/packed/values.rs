//! The numbers of a weight, as the library of its format computes them.
//!
//! A weight in, its numbers out in any order of pieces: [`Reader`] holds what codes need, and is cheap to clone for a thread
//! of its own.

use super::super::{Checkpoint, CheckpointError, Tensor};
use super::Weight;
use super::floats::value;
use super::rules::Rule;
use super::zeros::misfit;

/// Reads the numbers of one weight.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Reader<'c> {
    kind: Kind<'c>,
}

#[derive(Clone, Debug)]
enum Kind<'c> {
    /// Codes that are numbers, one after the other.
    Plain { tensor: &'c Tensor, bytes: &'c [u8] },
}

/// Why a weight has no numbers that can be told, if it has none.
pub(super) fn unknown(checkpoint: &Checkpoint, weight: &Weight) -> Option<&'static str> {
    match &weight.rule {
        Rule::Numbers => {
            let tensor = &checkpoint.tensors[weight.parts[0] as usize];
            (tensor.dtype.name == "C64").then_some("its numbers are complex")
        }
        Rule::None(why) => Some(why),
        _ => Some("the values of its format are not read"),
    }
}

impl Weight {
    /// Why its numbers cannot be told, if they cannot.
    pub fn without_values(&self, checkpoint: &Checkpoint) -> Option<&'static str> {
        unknown(checkpoint, self)
    }
}

impl<'c> Reader<'c> {
    /// `None` where [`Weight::without_values`] says why.
    pub(in crate::checkpoint) fn new(
        checkpoint: &'c Checkpoint,
        weight: &'c Weight,
        _shape: &[u64],
    ) -> Result<Option<Reader<'c>>, CheckpointError> {
        if unknown(checkpoint, weight).is_some() {
            return Ok(None);
        }
        let tensor = &checkpoint.tensors[weight.parts[0] as usize];
        let bytes = checkpoint.data(tensor)?.bytes;
        let bits = u128::from(tensor.elements()) * u128::from(tensor.dtype.bits);
        if bits.div_ceil(8) > bytes.len() as u128 {
            return Err(misfit(
                checkpoint,
                tensor,
                "it is shorter than its shape says",
            ));
        }
        Ok(Some(Reader {
            kind: Kind::Plain { tensor, bytes },
        }))
    }

    /// The tensor and its bytes, where every number is a code of whole bytes with a code for 0.
    pub(in crate::checkpoint) fn whole_codes(&self) -> Option<(&'c Tensor, &'c [u8])> {
        let Kind::Plain { tensor, bytes } = &self.kind;
        let has_zero = super::floats::zero_bits(tensor.dtype).is_some();
        (tensor.dtype.bits >= 8 && has_zero).then_some((*tensor, *bytes))
    }

    /// Writes the numbers from one on, in the order of the weight's shape. The caller has asked how many there are.
    pub(in crate::checkpoint) fn read(
        &mut self,
        begin: u64,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        match &self.kind {
            Kind::Plain { tensor, bytes } => plain(tensor, bytes, begin, out),
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// Says which numbers from one on have a scale of 0.
    pub(in crate::checkpoint) fn dead_scales(
        &mut self,
        _begin: u64,
        out: &mut [bool],
    ) -> Result<(), CheckpointError> {
        out.fill(false);
        Ok(())
    }
}

/// Numbers of a dtype.
fn plain(tensor: &Tensor, bytes: &[u8], begin: u64, out: &mut [f32]) {
    let (dtype, bits) = (tensor.dtype, u64::from(tensor.dtype.bits));
    if bits < 8 {
        let table: Vec<f32> = (0..1 << bits)
            .map(|code| value(code, dtype) as f32)
            .collect();
        for (out, at) in out.iter_mut().zip(begin..) {
            // Codes of 4 and of 6 bits are a stream, low bits first; one may lie in two bytes.
            let bit = at * bits;
            let byte = |at: u64| bytes.get(at as usize).copied().unwrap_or_default();
            let pair = u16::from_le_bytes([byte(bit / 8), byte(bit / 8 + 1)]);
            let code = pair >> (bit % 8) & ((1 << bits) - 1);
            *out = table[usize::from(code)];
        }
        return;
    }
    let size = (bits / 8) as usize;
    let here = bytes.get(begin as usize * size..).unwrap_or_default();
    match dtype.name {
        "BF16" => {
            for (out, code) in out.iter_mut().zip(here.as_chunks::<2>().0) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*code)) << 16);
            }
        }
        "F32" => {
            for (out, code) in out.iter_mut().zip(here.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*code);
            }
        }
        _ if size == 1 => {
            let table: Vec<f32> = (0..256).map(|code| value(code, dtype) as f32).collect();
            for (out, code) in out.iter_mut().zip(here) {
                *out = table[usize::from(*code)];
            }
        }
        _ => {
            for (out, code) in out.iter_mut().zip(here.chunks_exact(size)) {
                let code = code.iter().rev().fold(0, |all, b| all << 8 | u64::from(*b));
                *out = value(code, dtype) as f32;
            }
        }
    }
}
