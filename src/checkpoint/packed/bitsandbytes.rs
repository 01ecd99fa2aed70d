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
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::zeros::misfit;
use super::{Answer, Found, Seen, matrix};
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
    let rule = Rule::grid(Grid {
        rows,
        columns,
        codes: Layout::along(8, columns),
        zero: Zero::code(0),
        scales: vec![Side::of(scales, number, (rows, 1), Map::Same, Map::One)],
        absent: 0,
        dtype: None,
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
    let tensor = |number: u32| &checkpoint.tensors[number as usize];
    let floats = |number: u32| -> Result<&[[u8; 4]], CheckpointError> {
        let tensor = tensor(number);
        if tensor.dtype.name != "F32" {
            return Err(misfit(
                checkpoint,
                tensor,
                "it does not hold floats of 32 bits",
            ));
        }
        Ok(checkpoint.data(tensor)?.bytes.as_chunks::<4>().0)
    };
    let is_zero_code: Vec<bool> = floats(lookup.map)?
        .iter()
        .map(|value| f32::from_le_bytes(*value) == 0.0)
        .collect();
    let is_zero_code: [bool; 16] = is_zero_code
        .try_into()
        .map_err(|_| misfit(checkpoint, tensor(lookup.map), "it has not 16 values"))?;
    let few = || misfit(checkpoint, tensor(lookup.absmax), "it has too few scales");
    let data = checkpoint.data(codes)?;
    // A scale is 0 in almost no block, so it is asked for once a block.
    let scale: Box<dyn Fn(usize) -> Option<f32>> = match &lookup.nested {
        None => {
            let scales = floats(lookup.absmax)?;
            Box::new(move |block| Some(f32::from_le_bytes(*scales.get(block)?)))
        }
        Some(nested) => {
            let codes = checkpoint.data(tensor(lookup.absmax))?.bytes;
            let (outer, map) = (floats(nested.absmax)?, floats(nested.map)?);
            let (size, offset) = (nested.block as usize, nested.offset);
            Box::new(move |block| {
                let value = f32::from_le_bytes(*map.get(usize::from(*codes.get(block)?))?);
                Some(value * f32::from_le_bytes(*outer.get(block / size)?) + offset)
            })
        }
    };
    let mut found = 0;
    let (mut at, mut block, mut is_dead) = (0u64, u64::MAX, false);
    for piece in data.bytes.chunks(PIECE_BYTES) {
        for byte in piece {
            for code in [byte >> 4, byte & 15] {
                // The last half of a byte may belong to no number.
                if at == lookup.elements {
                    break;
                }
                if at / lookup.block != block {
                    block = at / lookup.block;
                    is_dead = scale(block as usize).ok_or_else(few)? == 0.0;
                }
                found += u64::from(is_dead || is_zero_code[usize::from(code)]);
                at += 1;
            }
        }
    }
    Ok(found)
}
