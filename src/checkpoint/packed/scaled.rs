//! A weight with scales beside it, codes of four or eight bits in bytes: what most formats of floats are, and int8.
//!
//! ```text
//!               weight               scales
//! fp8           F8 [.., N, K]        float, any spread
//! fp8-block     F8 [N, K]            float or E8M0 [ceil(N / h), ceil(K / w)], called weight_scale_inv or scale
//! mxfp8         F8 [N, K]            E8M0 (dtype U8 too) [N, K / 32]
//! int-quantized I8 [N, K]            float, any spread; zero points of the same shape
//! nvfp4         U8 [N, K / 2]        F8 [N, K / 16] and one F32
//! mxfp4         U8 [N, K / 2]        E8M0 [N, K / 32]
//! mxfp6         U8 [N, 3 K / 4]      E8M0 [N, K / 32]
//! bitnet        U8 [N / 4, K]        one float
//! ```
//!
//! Two codes of a byte have the first in the low half. A code of a float has its sign on top, so two codes are 0.

use super::codes::{Direction, Layout, Order};
use super::recipe::{Number, Place, Recipe, Term, named, powers};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::scales::Spread;
use super::{Answer, Found, Padding, Seen, matrix};
use crate::checkpoint::Tensor;
use crate::dtype::NumberKind;

/// Numbers that share a scale of powers of two.
const MX_GROUP: u64 = 32;

/// Numbers that share a scale of eight bits.
const NV_GROUP: u64 = 16;

fn is_float8(tensor: &Tensor) -> bool {
    tensor.dtype.is_float() && tensor.dtype.bits == 8
}

/// A float that is wide enough to be a scale of its own.
fn is_wide(tensor: &Tensor) -> bool {
    tensor.dtype.is_float() && matches!(tensor.dtype.bits, 16 | 32)
}

/// A power of two: its own dtype, or the bytes of it.
fn is_exponent(tensor: &Tensor) -> bool {
    tensor.dtype.kind == NumberKind::Exponent || tensor.dtype.name == "U8"
}

/// Width of the activations that meet a weight, as settings say.
pub(super) fn activations(seen: &Seen, found: &Found, is_float: bool) -> Option<u32> {
    let settings = seen.settings;
    settings.activation_bits(seen.stem, found.code_bits?, is_float)
}

/// Numbers as they lie, scales over them.
fn grid(codes: &Tensor, spread: Spread, zero: Zero, scales: Vec<Side>, recipe: Recipe) -> Rule {
    let row_bytes = spread.columns.saturating_mul(codes.dtype.bits.into()) / 8;
    Rule::grid(Grid {
        rows: spread.rows,
        columns: spread.columns,
        codes: Layout::along(codes.dtype.bits, row_bytes),
        zero,
        scales,
        absent: 0,
        dtype: Some(codes.dtype),
        recipe,
    })
}

/// Zero of a dtype of eight bits.
fn float_zero(codes: &Tensor) -> Zero {
    // What would be -0 is not a number there.
    if codes.dtype.name.ends_with("FNUZ") {
        Zero::code(0)
    } else {
        Zero::signed(codes.dtype.bits)
    }
}

/// A scale for every so many columns of each row.
fn groups(seen: &Seen, scales: &Tensor, group: u64) -> Side {
    // It was found by one of the names of the row, so it has a number.
    let ends = seen.format.sides.iter();
    let number = ends
        .filter_map(|end| seen.numbered(end))
        .find(|(t, _)| std::ptr::eq(*t, scales));
    let shape = matrix(scales).unwrap_or_default();
    let number = number.map_or(seen.codes, |(_, number)| number);
    Side::of(scales, number, shape, Map::Same, Map::Per(group))
}

/// Floats of eight bits with float scales.
pub(super) fn fp8(seen: &Seen) -> Answer {
    fp8_with(seen, "_scale")
}

/// The same where the scales are called inverse.
pub(super) fn fp8_inverse(seen: &Seen) -> Answer {
    fp8_with(seen, "_scale_inv")
}

/// The same where the scales are called by nothing but `scale`.
pub(super) fn fp8_bare(seen: &Seen) -> Answer {
    fp8_with(seen, ".scale")
}

fn fp8_with(seen: &Seen, end: &str) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered(end)) else {
        return Ok(None);
    };
    let exponents = scales.dtype.kind == NumberKind::Exponent;
    if !is_float8(codes) || !(is_wide(scales) || exponents) {
        return Ok(None);
    }
    let Some(spread) = Spread::new(&codes.shape, scales, seen.settings.block()) else {
        return Err("its scales do not divide it");
    };
    if exponents && spread.block == (1, MX_GROUP) {
        return mxfp8(seen);
    }
    let dead = if exponents {
        Vec::new()
    } else {
        vec![spread.side(scales, number)]
    };
    let recipe = Recipe::of(Number::Of(codes.dtype)).scaled(spread.side(scales, number), scales);
    let rule = grid(codes, spread, float_zero(codes), dead, recipe);
    let label = format!("fp8 {spread}");
    Ok(
        Found::new(&*codes.shape, label, 8, rule).map(|found| Found {
            activation_bits: activations(seen, &found, true),
            ..found
        }),
    )
}

/// Floats of eight bits with a power of two for every 32.
pub(super) fn mxfp8(seen: &Seen) -> Answer {
    let codes = seen.codes();
    let ends = seen.format.sides.iter().find_map(|end| seen.side(end));
    let (Some(scales), Some((rows, columns))) = (ends, matrix(codes)) else {
        return Ok(None);
    };
    if !is_float8(codes) || !is_exponent(scales) {
        return Ok(None);
    }
    if matrix(scales) != Some((rows, columns.div_ceil(MX_GROUP))) {
        return Err("its scales are not one for every 32 numbers");
    }
    let mut grid = Grid::floats(rows, columns, 8);
    grid.recipe =
        Recipe::of(Number::Of(codes.dtype)).times(powers(self::groups(seen, scales, MX_GROUP)));
    let rule = Rule::grid(grid);
    Ok(
        Found::new([rows, columns], "mxfp8".into(), 8, rule).map(|found| Found {
            activation_bits: activations(seen, &found, true),
            ..found
        }),
    )
}

/// Integers of up to eight bits, a byte each.
pub(super) fn int8(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    if codes.dtype.name != "I8" || !is_wide(scales) {
        return Ok(None);
    }
    let Some(spread) = Spread::new(&codes.shape, scales, seen.settings.block()) else {
        return Err("its scales do not divide it");
    };
    let point = seen.numbered("_zero_point");
    let zero = match point {
        Some((tensor, number)) => {
            if tensor.shape != scales.shape || tensor.dtype.bits != 8 {
                return Err("zero points and scales differ in shape");
            }
            Zero::Point {
                side: spread.side(tensor, number),
                plus: 0,
            }
        }
        None => Zero::code(0),
    };
    let bits = seen
        .settings
        .weight_bits(seen.stem)
        .filter(|bits| (1..8).contains(bits));
    let bits = bits.unwrap_or(8);
    let recipe = match (&zero, point) {
        (Zero::Point { side, .. }, Some((tensor, _))) => {
            Recipe::of(Number::Signed).minus(Term::of(side.clone(), tensor))
        }
        _ => Recipe::of(Number::Signed),
    };
    let side = spread.side(scales, number);
    let recipe = recipe.scaled(side.clone(), scales);
    let rule = grid(codes, spread, zero, vec![side], recipe);
    let label = format!("int{bits} {spread}");
    Ok(
        Found::new(&*codes.shape, label, bits, rule).map(|found| Found {
            activation_bits: activations(seen, &found, false),
            ..found
        }),
    )
}

/// Two codes a byte along the columns, a scale for every `group` of them.
fn fp4(
    seen: &Seen,
    scales: &Tensor,
    group: u64,
    label: &str,
) -> Result<Option<(u64, u64, Found)>, &'static str> {
    let codes = seen.codes();
    let Some((rows, bytes)) = matrix(codes) else {
        return Ok(None);
    };
    let Some(columns) = bytes.checked_mul(2) else {
        return Err("its columns cannot be counted");
    };
    if matrix(scales) != Some((rows, columns.div_ceil(group))) {
        return Err("codes and scales do not agree on a width");
    }
    let mut grid = Grid::floats(rows, columns, 4);
    grid.recipe = grid.recipe.times(powers(self::groups(seen, scales, group)));
    let rule = Rule::grid(grid);
    let found = Found::new([rows, columns], label.into(), 4, rule).map(|found| Found {
        activation_bits: activations(seen, &found, true),
        ..found
    });
    Ok(found.map(|found| (rows, columns, found)))
}

/// Floats of four bits with a float of eight bits for every 16; one scale for all of them must stand beside.
pub(super) fn nvfp4(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    if codes.dtype.name != "U8" || scales.dtype.name != "F8_E4M3" {
        return Ok(None);
    }
    let Some((rows, columns, found)) = fp4(seen, scales, NV_GROUP, "nvfp4")? else {
        return Ok(None);
    };
    let side = Side::of(
        scales,
        number,
        (rows, columns.div_ceil(NV_GROUP)),
        Map::Same,
        Map::Per(NV_GROUP),
    );
    let mut grid = Grid::floats(rows, columns, 4);
    let scale = Term::of(side.clone(), scales);
    let one = |end| {
        let (tensor, number) = seen.numbered(end)?;
        let side = Side::of(tensor, number, (1, 1), Map::One, Map::One);
        Some(Term::of(side, tensor))
    };
    // One library divides the scales by the one for all and gives halves, the other multiplies and gives 32 bits.
    grid.recipe = match (one("_global_scale"), one("_scale_2")) {
        (Some(all), _) => grid.recipe.times(scale.over(all)).round(named("BF16")),
        (None, Some(all)) => grid.recipe.times(scale.times(all)),
        (None, None) => grid.recipe.times(scale),
    };
    grid.scales = vec![side];
    let rule = Rule::grid(grid);
    Ok(Some(Found { rule, ..found }))
}

/// Floats of four bits with a power of two for every 32.
pub(super) fn mxfp4(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side("_scale")) else {
        return Ok(None);
    };
    let widths = matrix(codes).zip(matrix(scales));
    // Six bits take three bytes for four numbers.
    if codes.dtype.name != "U8"
        || !is_exponent(scales)
        || widths.is_some_and(|((_, bytes), (_, groups))| {
            bytes.checked_mul(4) == groups.checked_mul(3 * MX_GROUP)
        })
    {
        return Ok(None);
    }
    Ok(fp4(seen, scales, MX_GROUP, "mxfp4")?.map(|(.., found)| found))
}

/// The same in a tensor whose dtype is a signed byte, with scales that are called by nothing but `scale`.
pub(super) fn fp4_bare(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side(".scale")) else {
        return Ok(None);
    };
    if !matches!(codes.dtype.name, "I8" | "U8") || scales.dtype.kind != NumberKind::Exponent {
        return Ok(None);
    }
    Ok(fp4(seen, scales, MX_GROUP, "mxfp4")?.map(|(.., found)| found))
}

/// Floats of six bits with a power of two for every 32.
pub(super) fn mxfp6(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side("_scale")) else {
        return Ok(None);
    };
    let (Some((rows, bytes)), Some((scale_rows, groups))) = (matrix(codes), matrix(scales)) else {
        return Ok(None);
    };
    let columns = groups.saturating_mul(MX_GROUP);
    if codes.dtype.name != "U8" || !is_exponent(scales) || rows != scale_rows {
        return Ok(None);
    }
    if columns.checked_mul(6).map(|bits| bits / 8) != Some(bytes) {
        return Ok(None);
    }
    let mut grid = Grid::floats(rows, columns, 6);
    grid.recipe = grid
        .recipe
        .times(powers(self::groups(seen, scales, MX_GROUP)));
    let rule = Rule::grid(grid);
    Ok(Found::new([rows, columns], "mxfp6".into(), 6, rule))
}

/// Experts of floats of four bits: blocks of 16 bytes, `[E, R, K / 32, 16]`, and a power of two for each, `[E, R, K / 32]`.
pub(super) fn blocks(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side("_scales")) else {
        return Ok(None);
    };
    if codes.dtype.name != "U8" || !is_exponent(scales) {
        return Ok(None);
    }
    let [experts, rows, groups, 16] = *codes.shape else {
        return Err("its blocks are not of 16 bytes");
    };
    if *scales.shape != [experts, rows, groups] {
        return Err("blocks and scales differ in shape");
    }
    let (Some(columns), Some(lines)) = (groups.checked_mul(MX_GROUP), experts.checked_mul(rows))
    else {
        return Err("its numbers cannot be counted");
    };
    let mut grid = Grid::floats(lines, columns, 4);
    if let Some(number) = seen.number("_scales") {
        let shape = (lines, groups);
        let side = Side::of(scales, number, shape, Map::Same, Map::Per(MX_GROUP));
        grid.recipe = grid.recipe.times(powers(side));
    }
    grid.recipe.place = Place::Transposed { rows };
    let rule = Rule::grid(grid);
    // The model multiplies by the transpose, and that is the shape of its parameter.
    Ok(Found::new(
        [experts, columns, rows],
        "mxfp4".into(),
        4,
        rule,
    ))
}

/// Ternary codes, four rows a byte.
pub(super) fn ternary(seen: &Seen) -> Answer {
    let (codes, Some((scale, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    if codes.dtype.name != "U8" || !is_wide(scale) || scale.elements() != 1 {
        return Ok(None);
    }
    let Some((rows, columns)) = matrix(codes) else {
        return Ok(None);
    };
    let Some(all) = rows.checked_mul(4) else {
        return Err("its rows cannot be counted");
    };
    let one = Side::of(scale, number, (1, 1), Map::One, Map::One);
    let one = Term::of(one, scale);
    // Of the two classes that read it, one multiplies by the scale and one divides by it.
    let recipe = match seen.settings.text("linear_class") {
        Some("autobitlinear") => Recipe::less(1).times(one),
        _ => Recipe::less(1).over(one),
    };
    let rule = Rule::grid(Grid {
        rows: all,
        columns,
        codes: Layout::new(2, Direction::Strided { rows, columns }, Order::Dense),
        // Codes 0, 1, 2 are -1, 0, 1. Rows beyond the model's are code 0, so they are never counted.
        zero: Zero::code(1),
        scales: Vec::new(),
        absent: 0,
        dtype: None,
        recipe,
    });
    Ok(
        Found::new([all, columns], "ternary".into(), 2, rule).map(|found| Found {
            padding: Padding::Rows(3),
            activation_bits: Some(8),
            ..found
        }),
    )
}

/// Integers of four bits, two rows a byte, in two's complement.
pub(super) fn row_pairs(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    let (Some((rows, columns)), Some((scale_rows, _))) = (matrix(codes), matrix(scales)) else {
        return Ok(None);
    };
    if codes.dtype.name != "U8" || !is_wide(scales) || rows.checked_mul(2) != Some(scale_rows) {
        return Ok(None);
    }
    let Some(spread) = Spread::new(&[scale_rows, columns], scales, seen.settings.block()) else {
        return Err("its scales do not divide it");
    };
    let rule = Rule::grid(Grid {
        rows: scale_rows,
        columns,
        codes: Layout::new(4, Direction::RowsOfByte { columns }, Order::Dense),
        zero: Zero::code(0),
        scales: vec![spread.side(scales, number)],
        absent: 0,
        dtype: None,
        recipe: Recipe::of(Number::Signed).times(Term::of(spread.side(scales, number), scales)),
    });
    let label = format!("int4 {spread}");
    Ok(Found::new([scale_rows, columns], label, 4, rule))
}

/// Integers of two or four bits along the rows, less than 0 by half their range, one scale a row. Only settings tell how
/// many share a byte.
pub(super) fn offset_bytes(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scale")) else {
        return Ok(None);
    };
    let Some((rows, bytes)) = matrix(codes) else {
        return Ok(None);
    };
    if codes.dtype.name != "U8" || !is_wide(scales) || matrix(scales) != Some((rows, 1)) {
        return Ok(None);
    }
    let bits = match seen.settings.module_bits(seen.stem) {
        Some(bits @ (2 | 4 | 8)) => bits as u32,
        _ => return Err("the settings do not say how wide its codes are"),
    };
    let per_byte = u64::from(8 / bits);
    let Some(columns) = bytes.checked_mul(per_byte) else {
        return Err("its columns cannot be counted");
    };
    let side = Side::of(scales, number, (rows, 1), Map::Same, Map::One);
    let rule = Rule::grid(Grid {
        rows,
        columns,
        codes: Layout::along(bits, bytes),
        zero: Zero::code(1 << (bits - 1)),
        scales: vec![side.clone()],
        absent: 0,
        dtype: None,
        recipe: Recipe::less(1 << (bits - 1)).times(Term::of(side, scales)),
    });
    let label = format!("int{bits} channel");
    Ok(
        Found::new([rows, columns], label, bits, rule).map(|found| Found {
            padding: match per_byte {
                1 => Padding::None,
                _ => Padding::Columns(per_byte - 1),
            },
            ..found
        }),
    )
}

/// Integers of eight bits, stored `[in, out]`, one scale an output.
pub(super) fn transposed(seen: &Seen) -> Answer {
    let (codes, Some((scales, number))) = (seen.codes(), seen.numbered("_scales")) else {
        return Ok(None);
    };
    let Some((inputs, outputs)) = matrix(codes) else {
        return Ok(None);
    };
    if codes.dtype.name != "I8" || !is_wide(scales) || scales.elements() != outputs {
        return Ok(None);
    }
    let side = Side::of(scales, number, (1, outputs), Map::One, Map::Same);
    let rule = Rule::grid(Grid {
        rows: inputs,
        columns: outputs,
        codes: Layout::along(8, outputs),
        zero: Zero::code(0),
        scales: vec![side.clone()],
        absent: 0,
        dtype: None,
        recipe: Recipe::of(Number::Signed)
            .scaled(side, scales)
            .place(Place::Transposed { rows: inputs }),
    });
    Ok(Found::new(
        [outputs, inputs],
        "int8 channel".into(),
        8,
        rule,
    ))
}
