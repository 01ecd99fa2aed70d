//! bitsandbytes: int8 by row, and four bits by a table of sixteen values.
//!
//! ```text
//! int8   weight I8 [N, K], SCB F32 [N], weight_format U8 []
//! 4 bit  weight [bytes, 1] of any dtype, the high half of a byte first, over all numbers row by row; beside it
//!        absmax F32 or U8 [blocks], quant_map F32 [16], quant_state.bitsandbytes__nf4 U8: JSON with shape and block size;
//!        where absmax is U8 it is quantized itself: nested_absmax F32, nested_quant_map F32 [256], an offset in the JSON
//! ```

use super::super::{Checkpoint, CheckpointError, PIECE_BYTES, Tensor};
use super::codes::Layout;
use super::floats::rounded;
use super::recipe::{Number, Recipe, Term};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::zeros::misfit;
use super::{Answer, Found, Seen, matrix};
use crate::dtype::StoredType;
use crate::json;
use crate::value::Object;
use crate::value::Value;

/// Numbers of a block, where the description is not here.
const BLOCK: u64 = 64;

/// Integers of eight bits; the activations that meet them are quantized to as many.
pub(super) fn int8(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered(".SCB")) else {
        return Ok(None);
    };
    let Some((rows, columns)) = matrix(codes) else {
        return Ok(None);
    };
    if codes.dtype.name != "I8" {
        return Ok(None);
    }
    if scales.elements() != rows || scales.dtype.name != "F32" {
        return Err("its scales are not one for every row");
    }
    let side = Side::of(scales, number, (rows, 1), Map::Same, Map::One);
    let rule = Rule::grid(Grid {
        rows,
        columns,
        codes: Layout::along(8, columns),
        zero: Zero::code(0),
        scales: vec![side.clone()],
        absent: 0,
        dtype: None,
        // The library multiplies by 1/127 as a constant of its own.
        recipe: Recipe::of(Number::Signed)
            .times(Term::of(side, scales))
            .times(Term::Constant(7.874_016e-3)),
    });
    Ok(
        Found::new([rows, columns], "int8 channel".into(), 8, rule).map(|found| Found {
            activation_bits: Some(8),
            ..found
        }),
    )
}

/// Normal floats of four bits.
pub(super) fn nf4(seen: &Seen) -> Answer {
    four_bits(seen, "nf4", ".quant_state.bitsandbytes__nf4")
}

/// Floats of four bits.
pub(super) fn fp4(seen: &Seen) -> Answer {
    four_bits(seen, "fp4", ".quant_state.bitsandbytes__fp4")
}

/// What the zeros of a weight of four bits depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lookup {
    elements: u64,
    block: u64,
    absmax: u32,
    map: u32,
    nested: Option<Nested>,
    /// The dtype that its numbers are rounded to.
    dtype: Option<StoredType>,
}

/// How the scales are quantized themselves.
#[derive(Clone, Debug, PartialEq)]
struct Nested {
    absmax: u32,
    map: u32,
    block: u64,
    offset: f32,
}

fn four_bits(seen: &Seen, name: &str, state: &str) -> Answer {
    let codes = seen.codes();
    let (Some(absmax), Some(map)) = (seen.number(".absmax"), seen.number(".quant_map")) else {
        return Ok(None);
    };
    let nested = seen
        .number(".nested_absmax")
        .zip(seen.number(".nested_quant_map"));
    let double = seen.tensor(absmax).dtype.name == "U8";
    if double != nested.is_some() {
        return Err("its scales are quantized, but how is not there");
    }
    let most = codes.bytes.saturating_mul(2);
    let written = match seen.small(state) {
        Some(bytes) => Some(describe(bytes).ok_or("its description cannot be read")?),
        None => None,
    };
    let shape = written
        .as_deref()
        .map(|object| shape(object).ok_or("its description has no shape"));
    let shape = shape.transpose()?;
    let number =
        |key: &str| -> Option<u64> { written.as_ref()?.get(key)?.as_int()?.try_into().ok() };
    let offset = written
        .as_ref()
        .and_then(|object| object.get("nested_offset")?.to_f64());
    let elements = match &shape {
        None => most,
        Some(shape) => shape
            .iter()
            .try_fold(1u64, |product, side| product.checked_mul(*side))
            .ok_or("its numbers cannot be counted")?,
    };
    if elements.div_ceil(2) != codes.bytes {
        return Err("its description and its codes do not agree on how many numbers it has");
    }
    let block = number("blocksize").unwrap_or(BLOCK).max(1);
    let rule = Rule::Lookup(Box::new(Lookup {
        elements,
        block,
        absmax,
        map,
        nested: nested.map(|(absmax, map)| Nested {
            absmax,
            map,
            block: number("nested_blocksize").unwrap_or(256).max(1),
            offset: offset.unwrap_or(0.0) as f32,
        }),
        dtype: written
            .as_deref()
            .and_then(|object| match object.get("dtype")?.as_str()? {
                "bfloat16" => StoredType::named("BF16"),
                "float16" => StoredType::named("F16"),
                _ => None,
            }),
    }));
    Ok(Some(Found {
        name: None,
        shape,
        elements,
        padding: super::Padding::None,
        label: format!("{name}{}", if double { " double" } else { "" }),
        code_bits: Some(4),
        activation_bits: None,
        rule,
        note: None,
    }))
}

fn describe(bytes: &[u8]) -> Option<std::sync::Arc<Object>> {
    match json::read(std::str::from_utf8(bytes).ok()?).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn shape(object: &Object) -> Option<Vec<u64>> {
    let Value::List(sides) = object.get("shape")? else {
        return None;
    };
    sides
        .iter()
        .map(|side| side.as_int()?.try_into().ok())
        .collect()
}

/// Codes that stand for 0 in the table, and all of a block whose scale is 0.
pub(super) fn zeros(
    checkpoint: &Checkpoint,
    codes: &Tensor,
    lookup: &Lookup,
) -> Result<u64, CheckpointError> {
    let values = lookup.values(checkpoint, codes)?;
    let is_zero_code = values.map.map(|value| value == 0.0);
    let mut found = 0;
    let (mut at, mut block, mut is_dead) = (0u64, u64::MAX, false);
    for piece in values.codes.chunks(PIECE_BYTES) {
        for byte in piece {
            for code in [byte >> 4, byte & 15] {
                // The last half of a byte may belong to no number.
                if at == lookup.elements {
                    break;
                }
                // A scale is 0 in almost no block, so it is asked for once a block.
                if at / lookup.block != block {
                    block = at / lookup.block;
                    is_dead = values.scale(block)? == 0.0;
                }
                found += u64::from(is_dead || is_zero_code[usize::from(code)]);
                at += 1;
            }
        }
    }
    Ok(found)
}

/// The codes with their table and scales at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'c> {
    lookup: &'c Lookup,
    codes: &'c [u8],
    map: [f32; 16],
    scales: Scales<'c>,
    /// For errors.
    checkpoint: &'c Checkpoint,
}

/// The scales of blocks.
#[derive(Clone, Copy, Debug)]
enum Scales<'c> {
    Plain(&'c [[u8; 4]]),
    Nested {
        codes: &'c [u8],
        scales: &'c [[u8; 4]],
        map: &'c [[u8; 4]],
        block: u64,
        offset: f32,
    },
}

impl Lookup {
    /// The codes of a tensor with what belongs to them.
    pub(super) fn values<'c>(
        &'c self,
        checkpoint: &'c Checkpoint,
        codes: &'c Tensor,
    ) -> Result<Values<'c>, CheckpointError> {
        let tensor = |number: u32| &checkpoint.tensors[number as usize];
        let floats = |number: u32| -> Result<&'c [[u8; 4]], CheckpointError> {
            let tensor = tensor(number);
            if tensor.dtype.name != "F32" {
                let reason = "it does not hold floats of 32 bits";
                return Err(misfit(checkpoint, tensor, reason));
            }
            Ok(checkpoint.data(tensor)?.bytes.as_chunks::<4>().0)
        };
        let map: Vec<f32> = floats(self.map)?
            .iter()
            .map(|value| f32::from_le_bytes(*value))
            .collect();
        let scales = match &self.nested {
            None => Scales::Plain(floats(self.absmax)?),
            Some(nested) => Scales::Nested {
                codes: checkpoint.data(tensor(self.absmax))?.bytes,
                scales: floats(nested.absmax)?,
                map: floats(nested.map)?,
                block: nested.block,
                offset: nested.offset,
            },
        };
        Ok(Values {
            lookup: self,
            codes: checkpoint.data(codes)?.bytes,
            map: map
                .try_into()
                .map_err(|_| misfit(checkpoint, tensor(self.map), "it has not 16 values"))?,
            scales,
            checkpoint,
        })
    }
}

impl Values<'_> {
    /// The scale of a block.
    fn scale(&self, block: u64) -> Result<f32, CheckpointError> {
        let float = |bytes: &[[u8; 4]], at: u64| {
            let bytes = bytes.get(usize::try_from(at).ok()?)?;
            Some(f32::from_le_bytes(*bytes))
        };
        let scale = match self.scales {
            Scales::Plain(scales) => float(scales, block),
            Scales::Nested {
                codes,
                scales,
                map,
                block: size,
                offset,
            } => usize::try_from(block).ok().and_then(|at| {
                let value = float(map, (*codes.get(at)?).into())?;
                Some(value * float(scales, block / size)? + offset)
            }),
        };
        scale.ok_or_else(|| {
            let tensor = &self.checkpoint.tensors[self.lookup.absmax as usize];
            misfit(self.checkpoint, tensor, "it has too few scales")
        })
    }

    /// Calls with the scale of each block and the numbers of it that are asked for.
    fn blocks<T>(
        &self,
        begin: u64,
        out: &mut [T],
        mut each: impl FnMut(f32, u64, &mut [T]),
    ) -> Result<(), CheckpointError> {
        let size = self.lookup.block;
        let (mut at, mut rest) = (begin, out);
        while !rest.is_empty() {
            let here = (size - at % size).min(rest.len() as u64);
            let (run, others) = rest.split_at_mut(here as usize);
            each(self.scale(at / size)?, at, run);
            at += here;
            rest = others;
        }
        Ok(())
    }

    /// Writes the numbers from one on.
    pub(super) fn read(&self, begin: u64, out: &mut [f32]) -> Result<(), CheckpointError> {
        let round = self.lookup.dtype;
        self.blocks(begin, out, |scale, first, run| {
            // A block has sixteen values, however many numbers.
            let map = self.map.map(|value| match round {
                Some(dtype) => rounded(value * scale, dtype),
                None => value * scale,
            });
            for (out, at) in run.iter_mut().zip(first..) {
                let byte = self
                    .codes
                    .get((at / 2) as usize)
                    .copied()
                    .unwrap_or_default();
                let code = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
                *out = map[usize::from(code)];
            }
        })
    }

    /// Says which numbers from one on have a scale of 0.
    pub(super) fn dead_scales(&self, begin: u64, out: &mut [bool]) -> Result<(), CheckpointError> {
        self.blocks(begin, out, |scale, _, run| run.fill(scale == 0.0))
    }
}
