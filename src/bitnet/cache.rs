//! Keys and values of the tokens so far.
//!
//! Keys lie in blocks of [`BLOCK`] positions, `[layer][kv head][block][feature][position]`, so that a query meets the same feature
//! of 32 positions at once and nothing is summed across lanes. Values lie `[layer][kv head][position][feature]`: they are added
//! up position by position. Numbers of 8 bits have a scale for each position and head.

use super::RunError;
use super::plan::Shape;
use crate::float16;
use crate::memory::{MemoryPool, Tag};
use crate::tensor::{Dtype, Element, Tensor, TensorError};

/// Positions of a block of keys.
pub(super) const BLOCK: usize = 32;

/// What the cache is in the metrics of a pool.
pub const CACHE: Tag = Tag::of("kv cache");

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheBits {
    /// Floats of 32 bits.
    #[default]
    F32,
    /// Floats of 16 bits.
    F16,
    /// Whole numbers of 8 bits, with a scale for each position and head.
    I8,
}

impl CacheBits {
    /// The width of a number.
    pub fn bits(self) -> u32 {
        match self {
            CacheBits::F32 => 32,
            CacheBits::F16 => 16,
            CacheBits::I8 => 8,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            CacheBits::F32 => Dtype::F32,
            CacheBits::F16 => Dtype::F16,
            CacheBits::I8 => Dtype::I8,
        }
    }
}

/// Keys and values of all layers.
pub(super) struct Cache {
    pub(super) bits: CacheBits,
    shape: Shape,
    context: usize,
    keys: Tensor,
    values: Tensor,
    /// Of keys and of values, `[layer][kv head][position]`; empty where numbers are floats.
    scales: [Tensor; 2],
}

/// What one head of one layer holds: views of the cache.
pub(super) struct HeadCache {
    /// `[blocks][head_dim][BLOCK]`
    pub(super) keys: Tensor,
    /// `[context][head_dim]`
    pub(super) values: Tensor,
    /// Of keys and of values, one a position, where there are any.
    pub(super) scales: Option<[Tensor; 2]>,
}

/// Bytes of a cache for so many positions; `None` where no memory holds so many.
pub(super) fn bytes(shape: &Shape, context: usize, bits: CacheBits) -> Option<u64> {
    let heads = shape.layers.checked_mul(shape.kv_heads)?;
    let rows = context.next_multiple_of(BLOCK).checked_add(context)?;
    let numbers = heads.checked_mul(rows)?.checked_mul(shape.head_dim)?;
    let scales = match bits {
        CacheBits::I8 => heads.checked_mul(context)?.checked_mul(8)?,
        _ => 0,
    };
    let numbers = (numbers as u64).checked_mul(u64::from(bits.bits() / 8))?;
    numbers.checked_add(scales as u64)
}

impl Cache {
    pub(super) fn new(
        pool: &MemoryPool,
        shape: Shape,
        context: usize,
        bits: CacheBits,
    ) -> Result<Cache, TensorError> {
        let blocks = context.div_ceil(BLOCK);
        let (layers, heads, features) = (shape.layers, shape.kv_heads, shape.head_dim);
        let scaled = if bits == CacheBits::I8 { context } else { 0 };
        let scales = || Tensor::zeros(pool, Dtype::F32, &[layers, heads, scaled], CACHE);
        let keys = [layers, heads, blocks, features, BLOCK];
        let values = [layers, heads, context, features];
        Ok(Cache {
            bits,
            shape,
            context,
            keys: Tensor::zeros(pool, bits.dtype(), &keys, CACHE)?,
            values: Tensor::zeros(pool, bits.dtype(), &values, CACHE)?,
            scales: [scales()?, scales()?],
        })
    }

    /// How many positions there is room for.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Puts keys and values of a token, each `[kv heads][head_dim]`, to a position of a layer.
    pub(super) fn put(
        &mut self,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), RunError> {
        match self.bits {
            CacheBits::F32 => self.store(layer, position, keys, values, |x, _| x),
            // What is beyond the largest float of 16 bits becomes that; infinities would make numbers that are none.
            CacheBits::F16 => self.store(layer, position, keys, values, |x, _| {
                float16::to_f16(x.clamp(-65504.0, 65504.0))
            }),
            CacheBits::I8 => self.store(layer, position, keys, values, |x, scale| {
                let code = if scale > 0.0 { x / scale } else { 0.0 };
                code.round_ties_even() as i8
            }),
        }
    }

    /// A scale is what a code of 1 stands for; the largest magnitude of a head gets code 127.
    fn store<T: Element>(
        &mut self,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
        stored: impl Fn(f32, f32) -> T,
    ) -> Result<(), RunError> {
        let (features, context) = (self.shape.head_dim, self.context);
        let blocks = context.div_ceil(BLOCK);
        let heads = keys
            .chunks_exact(features)
            .zip(values.chunks_exact(features));
        for (head, (keys, values)) in heads.enumerate() {
            let number = layer * self.shape.kv_heads + head;
            let mut scales = [1.0; 2];
            if self.bits == CacheBits::I8 {
                scales = [keys, values]
                    .map(|x| x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0);
                for (tensor, scale) in self.scales.iter_mut().zip(scales) {
                    tensor.numbers_mut()?[number * context + position] = scale;
                }
            }
            let block = (number * blocks + position / BLOCK) * features * BLOCK;
            let place = &mut self.keys.numbers_mut()?[block..][..features * BLOCK];
            let places = place.iter_mut().skip(position % BLOCK).step_by(BLOCK);
            places
                .zip(keys)
                .for_each(|(place, x)| *place = stored(*x, scales[0]));
            let row = (number * context + position) * features;
            let place = &mut self.values.numbers_mut()?[row..][..features];
            place
                .iter_mut()
                .zip(values)
                .for_each(|(place, x)| *place = stored(*x, scales[1]));
        }
        Ok(())
    }

    /// What a head of a layer holds.
    pub(super) fn head(&self, layer: usize, head: usize) -> Result<HeadCache, TensorError> {
        let of = |tensor: &Tensor| tensor.index(0, layer)?.index(0, head);
        let [keys, values] = &self.scales;
        Ok(HeadCache {
            keys: of(&self.keys)?,
            values: of(&self.values)?,
            scales: match self.bits {
                CacheBits::I8 => Some([of(keys)?, of(values)?]),
                CacheBits::F32 | CacheBits::F16 => None,
            },
        })
    }
}
