//! Codes of which a byte holds rows that are far apart: HQQ and quanto.
//!
//! With R rows of groups, g numbers in each, and 8 / b rows a byte:
//!
//! ```text
//!          codes                                  beside them
//! hqq      W_q U8 [R b / 8, g], first rows in     scale, zero float [R, 1]; shape I64 [2]; nbits, group_size, axis;
//!          the high bits; 3 bits: I32 [R / 10, g] other settings, each a tensor of its own
//! quanto   weight._data._data U8 [R b / 8, g],    weight._scale, weight._shift float [R, 1]
//!          first rows in the low bits
//!          weight._data I8 or F8 [N, K]           weight._scale float [N, 1]
//! ```
//!
//! In HQQ's axis 0 the matrix is `[g, R]` and so are the scales, `[1, R]`.

use super::codes::{Direction, Layout, Order};
use super::recipe::{Number, Recipe, Term};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::scales::Spread;
use super::{Answer, Found, Padding, Seen, matrix};

/// A number of a small tensor, if its data is here.
fn scalar(seen: &Seen, end: &str) -> Option<u64> {
    let bytes = seen.small(end)?;
    match seen.side(end)?.dtype.bits {
        64 => u64::try_from(i64::from_le_bytes(*bytes.first_chunk()?)).ok(),
        32 => u64::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok(),
        _ => None,
    }
}

/// HQQ.
pub(super) fn hqq(seen: &Seen) -> Answer {
    let codes = seen.codes();
    let (Some((scale, scale_number)), Some((zero, number))) =
        (seen.numbered(".scale"), seen.numbered(".zero"))
    else {
        return Ok(None);
    };
    let (Some((high, wide)), Some(groups)) = (matrix(codes), matrix(zero)) else {
        return Err("its codes are no matrix");
    };
    let (axis0, count) = match groups {
        (1, count) => (true, count),
        (count, 1) => (false, count),
        _ => return Err("its zero points are no row and no column"),
    };
    let settings = seen.settings.nested_group();
    let bits = match codes.dtype.name {
        "I32" => Some(3),
        "U8" => scalar(seen, ".nbits").or(settings.0),
        _ => return Err("its codes are of no dtype that is known"),
    };
    // One row or column of zero points for each group: of axis 1 the rows are groups, and so many of them share a byte.
    let per_byte = match bits {
        Some(3) => Some(10),
        Some(bits @ (1 | 2 | 4 | 8)) => Some(8 / bits),
        Some(_) => return Err("its codes have a width that is not known"),
        None if axis0 => None,
        None => [8, 4, 2, 1]
            .into_iter()
            .find(|n| high.checked_mul(*n) == Some(count)),
    };
    let Some(per_byte) = per_byte else {
        return Err("how wide its codes are is neither in its settings nor in its shapes");
    };
    let bits = bits.unwrap_or(8 / per_byte) as u32;
    let size = scalar(seen, ".group_size").or(settings.1);
    let rows = if axis0 {
        if wide != count {
            return Err("codes and zero points do not agree on a width");
        }
        size.or_else(|| high.checked_mul(per_byte))
    } else {
        Some(count)
    };
    let Some((rows, elements)) = rows.and_then(|rows| Some((rows, rows.checked_mul(wide)?))) else {
        return Err("its numbers cannot be counted");
    };
    if rows.div_ceil(per_byte) != high {
        return Err("codes and zero points do not agree on a width");
    }
    let shape = super::compressed::shape(seen, ".shape").map(|(n, k)| vec![n, k]);
    if shape
        .as_ref()
        .is_some_and(|s| s[0].checked_mul(s[1]) != Some(elements))
    {
        return Err("its shape and its codes do not agree");
    }
    let layout = match bits {
        3 => Layout::new(
            3,
            Direction::StridedWords {
                rows: high,
                columns: wide,
            },
            Order::Dense,
        ),
        _ => Layout::new(
            bits,
            Direction::StridedHigh {
                rows: high,
                columns: wide,
            },
            Order::Dense,
        ),
    };
    let (to_row, to_column) = if axis0 {
        (Map::One, Map::Same)
    } else {
        (Map::Same, Map::One)
    };
    let side = |tensor, number| Side::of(tensor, number, groups, to_row, to_column);
    let point = if zero.dtype.is_float() && zero.dtype.bits <= 32 && zero.dtype.bits >= 16 {
        Zero::Equal(side(zero, number))
    } else {
        return Err("its zero points are quantized, and how is not known");
    };
    let rule = Rule::grid(Grid {
        rows,
        columns: wide,
        codes: layout,
        zero: point,
        scales: (scale.shape == zero.shape)
            .then(|| side(scale, scale_number))
            .into_iter()
            .collect(),
        absent: 0,
        dtype: None,
        recipe: Recipe::less(0)
            .minus(Term::of(side(zero, number), zero))
            .round(zero.dtype)
            .scaled(side(scale, scale_number), scale),
    });
    let group = if axis0 { rows } else { wide };
    Ok(Some(Found {
        name: None,
        shape,
        elements,
        padding: Padding::None,
        label: format!("hqq int{bits} g{group}"),
        code_bits: Some(bits),
        activation_bits: None,
        rule,
        note: None,
    }))
}

/// quanto, codes of two or four bits. Rows are groups, so the shape of the weight is not in the file.
pub(super) fn quanto_groups(seen: &Seen) -> Answer {
    let (Some((scale, number)), Some((shift, shift_number))) =
        (seen.numbered("._scale"), seen.numbered("._shift"))
    else {
        return Ok(None);
    };
    let Some((high, wide)) = matrix(seen.codes()) else {
        return Err("its codes are no matrix");
    };
    if seen.codes().dtype.name != "U8" || scale.shape != shift.shape || !scale.dtype.is_float() {
        return Err("codes, scales and shifts do not fit each other");
    }
    let rows = scale.elements();
    let fits = |bits: &u64| rows.div_ceil(8 / bits) == high;
    let Some(bits) = [4, 2].into_iter().find(fits) else {
        return Err("codes and scales do not agree on a width");
    };
    let Some(elements) = rows.checked_mul(wide) else {
        return Err("its numbers cannot be counted");
    };
    let bits = bits as u32;
    let side = |tensor, number| Side::of(tensor, number, (rows, 1), Map::Same, Map::One);
    let rule = Rule::grid(Grid {
        rows,
        columns: wide,
        codes: Layout::new(
            bits,
            Direction::Strided {
                rows: high,
                columns: wide,
            },
            Order::Dense,
        ),
        zero: Zero::Product {
            scale: side(scale, number),
            shift: side(shift, shift_number),
            minus: true,
        },
        scales: Vec::new(),
        absent: 0,
        dtype: None,
        recipe: Recipe::less(0)
            .scaled(side(scale, number), scale)
            .minus(Term::of(side(shift, shift_number), shift))
            .round(shift.dtype),
    });
    Ok(Some(Found {
        name: None,
        shape: None,
        elements,
        padding: Padding::None,
        label: format!("quanto int{bits} g{wide}"),
        code_bits: Some(bits),
        activation_bits: None,
        rule,
        note: None,
    }))
}

/// quanto, eight bits.
pub(super) fn quanto_bytes(seen: &Seen) -> Answer {
    let codes = seen.codes();
    let Some((scale, number)) = seen.numbered("._scale") else {
        return Ok(None);
    };
    let Some(spread) = Spread::new(&codes.shape, scale, (None, None)) else {
        return Err("its scales do not divide it");
    };
    let float = codes.dtype.is_float();
    if codes.dtype.bits != 8 || !scale.dtype.is_float() {
        return Err("its codes are not of eight bits");
    }
    let rule = Rule::grid(Grid {
        scales: vec![spread.side(scale, number)],
        recipe: Recipe::of(Number::Of(codes.dtype)).scaled(spread.side(scale, number), scale),
        ..Grid::plain(spread.rows, spread.columns, codes.dtype)
    });
    let kind = if float { "fp8" } else { "int8" };
    Ok(Found::new(
        &*codes.shape,
        format!("quanto {kind} {spread}"),
        8,
        rule,
    ))
}
