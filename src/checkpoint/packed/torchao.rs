//! torchao: a tensor class taken apart into `_weight_qdata`, `_weight_scale` and so on; `__metadata__` names the class.
//!
//! ```text
//!                           qdata               scale                zero_point
//! Int8, IntxUnpackedToInt8  I8 [N, K]           float [N, G]         I8 [N, G]
//! Float8                    F8 [N, K]           float, any spread
//! MX                        U8 [N, K / 2] or F8 [N, K]   E8M0 [N, K / 32]
//! NVFP4                     U8 [N, K / 2]       F8 [N, K / 16]       (and per_tensor_scale F32 [])
//! Int4                      I8 [N, K / 2]       float [G, N]         float [G, N]
//! ```

use super::codes::Layout;
use super::recipe::{Number, Place, Recipe, Term, named, powers};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::scales::Spread;
use super::{Answer, Found, Seen, matrix};
use crate::dtype::{NumberKind, StoredType};
use crate::json;
use crate::value::Object;
use crate::value::Value;
use std::sync::Arc;

/// What `__metadata__` says about a weight.
fn described(seen: &Seen, name: &str) -> Option<Arc<Object>> {
    match json::read(seen.described.get(name)?).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Any of its classes, by dtypes and shapes.
pub(super) fn torchao(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    // `model.q_proj._weight` is the weight `model.q_proj.weight`.
    let (module, hidden) = match seen.stem.rsplit_once('.') {
        Some((module, hidden)) => (Some(module), hidden),
        None => (None, seen.stem),
    };
    let Some(own) = hidden.strip_prefix('_') else {
        return Ok(None);
    };
    let name = match module {
        Some(module) => format!("{module}.{own}"),
        None => own.to_string(),
    };
    let Some((rows, wide)) = matrix(codes) else {
        return Err("its codes are no matrix");
    };
    let described = described(seen, &name);
    let class = described.as_deref().and_then(|d| d.get("_type")?.as_str());
    let dtype = described.as_deref().and_then(result_dtype);
    let rounded = |recipe: Recipe| match dtype {
        Some(dtype) => recipe.round(dtype),
        None => recipe,
    };
    let is_swizzled = described.as_deref().is_some_and(|described| {
        let data = described.get("_data").and_then(Value::as_object);
        data.and_then(|data| data.get("is_swizzled_scales")) == Some(&Value::Bool(true))
    });
    let point = seen.numbered("_zero_point");
    let exponents = scales.dtype.kind == NumberKind::Exponent;
    let found = match (codes.dtype.name, point) {
        ("I8", Some((points, _))) if points.dtype.is_float() => {
            let Some(columns) = wide.checked_mul(2) else {
                return Err("its columns cannot be counted");
            };
            let rule =
                Rule::None("its zero points are floats that are added, so no code stands for 0");
            Found::new([rows, columns], "int4".into(), 4, rule)
        }
        ("I8", point) => {
            let Some(spread) = Spread::new(&[rows, wide], scales, (None, None)) else {
                return Err("its scales do not divide it");
            };
            let zero = match point {
                Some((points, number))
                    if points.shape == scales.shape && points.dtype.bits == 8 =>
                {
                    let side = spread.side(points, number);
                    Zero::Point { side, plus: 0 }
                }
                Some(_) => return Err("zero points and scales differ in shape"),
                None => Zero::code(0),
            };
            let recipe = Recipe::of(Number::Signed);
            let recipe = match (&zero, point) {
                (Zero::Point { side, .. }, Some((points, _))) => {
                    recipe.minus(Term::of(side.clone(), points))
                }
                _ => recipe,
            };
            let recipe = recipe.times(Term::of(spread.side(scales, number), scales));
            let rule = Rule::grid(Grid {
                rows,
                columns: wide,
                codes: Layout::along(8, wide),
                zero,
                scales: vec![spread.side(scales, number)],
                absent: 0,
                dtype: None,
                recipe: rounded(recipe),
            });
            let bits = described.as_deref().and_then(int_bits).unwrap_or(8);
            Found::new([rows, wide], format!("int{bits} {spread}"), bits, rule)
        }
        (_, None) if codes.dtype.is_float() && codes.dtype.bits == 8 => {
            let mut grid = Grid::floats(rows, wide, 8);
            let recipe = Recipe::of(Number::Of(codes.dtype));
            let label = if exponents {
                let shape = (rows, wide.div_ceil(32));
                let side = Side::of(scales, number, shape, Map::Same, Map::Per(32));
                let is_plain = matrix(scales) == Some(shape) && !is_swizzled;
                grid.recipe = rounded(recipe.times(powers(side))).place(plain_scales(is_plain));
                "mxfp8".into()
            } else {
                let Some(spread) = Spread::new(&[rows, wide], scales, (None, None)) else {
                    return Err("its scales do not divide it");
                };
                let scale = Term::of(spread.side(scales, number), scales);
                grid.recipe = rounded(recipe.times(scale));
                format!("fp8 {spread}")
            };
            Found::new([rows, wide], label, 8, Rule::grid(grid))
        }
        ("U8", None) => {
            let Some(columns) = wide.checked_mul(2) else {
                return Err("its columns cannot be counted");
            };
            let group = if exponents { 32 } else { 16 };
            let mut grid = Grid::floats(rows, columns, 4);
            let shape = (rows, columns.div_ceil(group));
            // Scales in the order of a kernel are padded; powers of two are never 0.
            let is_plain = matrix(scales) == Some(shape) && !is_swizzled;
            let side = Side::of(scales, number, shape, Map::Same, Map::Per(group));
            let scale = Term::of(side.clone(), scales);
            let all = seen.numbered("_per_tensor_scale").map(|(tensor, number)| {
                Term::of(Side::of(tensor, number, (1, 1), Map::One, Map::One), tensor)
            });
            let scale = match all {
                Some(all) => all.times(scale),
                None => scale,
            };
            grid.recipe = rounded(grid.recipe.times(scale)).place(plain_scales(is_plain));
            if !exponents && is_plain {
                grid.scales = vec![side];
            }
            let label = if exponents { "mxfp4" } else { "nvfp4" };
            Found::new([rows, columns], label.into(), 4, Rule::grid(grid))
        }
        _ => return Err("its dtypes are of no class that is known"),
    };
    let quantized = described.as_deref().is_some_and(quantizes_activations);
    Ok(found.map(|found| Found {
        name: Some(name),
        activation_bits: found.code_bits.filter(|_| quantized),
        label: match class {
            Some(class) => format!("torchao {} ({class})", found.label),
            None => format!("torchao {}", found.label),
        },
        ..found
    }))
}

/// Whether the class quantizes what it multiplies, to its own width: `{"_data": {"act_quant_kwargs": {...}}}`.
fn quantizes_activations(described: &Object) -> bool {
    let data = described.get("_data").and_then(Value::as_object);
    let how = data.and_then(|data| data.get("act_quant_kwargs"));
    matches!(how, Some(Value::Object(_)))
}

/// Whether numbers can be told: scales in the order of a kernel are not read.
fn plain_scales(are_plain: bool) -> Place {
    if are_plain {
        Place::Same
    } else {
        Place::Unknown("its scales stand in the order of a kernel, which is not read")
    }
}

/// The dtype that a class gives: `{"_data": {"dtype": {"_data": "bfloat16"}}}`, `orig_dtype` in some.
fn result_dtype(described: &Object) -> Option<StoredType> {
    let data = described.get("_data")?.as_object()?;
    let dtype = data.get("dtype").or_else(|| data.get("orig_dtype"))?;
    match dtype.as_object()?.get("_data")?.as_str()? {
        "bfloat16" => Some(named("BF16")),
        "float16" => Some(named("F16")),
        _ => None,
    }
}

/// Width of the integers of a class that stores one a byte: `{"_data": {"target_dtype": {"_data": "int4"}}}`.
fn int_bits(described: &Object) -> Option<u32> {
    let data = described.get("_data")?.as_object()?;
    let dtype = data.get("target_dtype")?.as_object()?.get("_data")?;
    let bits = dtype.as_str()?.strip_prefix("int")?.parse().ok()?;
    (1..=8).contains(&bits).then_some(bits)
}
