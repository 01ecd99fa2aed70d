//! compressed-tensors: integers in words along the inputs, and weights of which only the numbers that are not 0 are stored.
//!
//! ```text
//!                    codes                              beside them
//! pack-quantized     weight_packed I32 [N, W]           weight_scale [N, G], weight_shape I64 [2]: N, K;
//!                                                       weight_zero_point I32 [ceil(N b / 32), G]; weight_g_idx I32 [K]
//! sparse-bitmask     compressed [stored]                bitmask U8 [N, ceil(K / 8)], shape, row_offsets
//! sparse-24-bitmask  compressed [N, K / 2]              bitmask U8 [N, ceil(K / 8)], shape
//! marlin-24          weight_packed I32 [K / 32, N b / 2]   scale_packed [G, N], meta I16
//! ```
//!
//! W is ceil(K b / 32), where codes cross words, or ceil(K / floor(32 / b)) in files of old versions, where they do not.

use super::codes::{Direction, Layout, Order, mask};
use super::recipe::{Number, Place, Recipe, Term};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::scaled::activations;
use super::scales::Spread;
use super::{Answer, Found, Padding, Seen, matrix};

/// Widths that integers are packed in.
const BITS: std::ops::RangeInclusive<u32> = 1..=8;

/// Two numbers that a small tensor holds, if its data is here.
pub(super) fn shape(seen: &Seen, end: &str) -> Option<(u64, u64)> {
    let bytes = seen.small(end)?;
    let wide = seen.side(end)?.dtype.bits == 64;
    let numbers: Vec<u64> = if wide {
        let (numbers, _) = bytes.as_chunks::<8>();
        numbers
            .iter()
            .filter_map(|n| i64::from_le_bytes(*n).try_into().ok())
            .collect()
    } else {
        let (numbers, _) = bytes.as_chunks::<4>();
        numbers
            .iter()
            .filter_map(|n| i32::from_le_bytes(*n).try_into().ok())
            .collect()
    };
    match *numbers {
        [rows, columns] => Some((rows, columns)),
        _ => None,
    }
}

/// How many words a row of so many codes takes.
fn words(codes: u64, bits: u32, order: Order) -> Option<u64> {
    match order {
        Order::Whole => Some(codes.div_ceil(u64::from(32 / bits))),
        _ => Some(codes.checked_mul(bits.into())?.div_ceil(32)),
    }
}

/// Most codes that so many words hold.
fn most(words: u64, bits: u32, order: Order) -> Option<u64> {
    match order {
        Order::Whole => words.checked_mul(u64::from(32 / bits)),
        _ => Some(words.checked_mul(32)? / u64::from(bits)),
    }
}

/// Integers in words.
pub(super) fn pack_quantized(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side("_scale")) else {
        return Ok(None);
    };
    if codes.dtype.name != "I32" || !scales.dtype.is_float() {
        return Ok(None);
    }
    let Some((rows, wide)) = matrix(codes) else {
        return Err("its codes are no matrix");
    };
    let groups = scales.shape.get(1).copied().unwrap_or(1);
    let point = seen.numbered("_zero_point");
    let packed_points = point.filter(|(tensor, _)| tensor.dtype.name == "I32");
    let exact = shape(seen, "_shape");
    if exact.is_some_and(|(n, _)| n != rows) {
        return Err("its shape names another number of rows than its codes have");
    }
    let listed = seen.side("_g_idx").map(|t| t.elements());
    let group = seen.settings.weight_groups(seen.stem);
    // All that is known of K, and whether the words of zero points agree.
    let fit = |bits: u32, order: Order, size: Option<u64>| -> Option<(u64, Padding)> {
        if let Some((points, _)) = packed_points
            && matrix(points)? != (words(rows, bits, order)?, groups)
        {
            return None;
        }
        let most = most(wide, bits, order)?;
        let known = exact.map(|(_, k)| k).or(listed);
        // Headers alone name groups, and whole groups their inputs.
        let whole = size
            .filter(|_| groups > 1)
            .and_then(|g| g.checked_mul(groups));
        match known.or(whole) {
            Some(k) => (words(k, bits, order)? == wide).then_some((k, Padding::None)),
            None => {
                let least = self::most(wide.checked_sub(1)?, bits, order)? + 1;
                Some((most, Padding::Columns(most.checked_sub(least)?)))
            }
        }
    };
    let orders = if seen.settings.packs_whole_words() {
        [Order::Whole, Order::Dense]
    } else {
        [Order::Dense, Order::Whole]
    };
    let named = group.iter().map(|(bits, size)| (*bits, *size));
    let any = BITS
        .rev()
        .map(|bits| (bits, None))
        .filter(|_| exact.is_some() || listed.is_some() || packed_points.is_some());
    let found = named
        .filter(|(bits, _)| BITS.contains(bits))
        .chain(any)
        .find_map(|(bits, size)| {
            orders.iter().find_map(|order| {
                let (k, padding) = fit(bits, *order, size)?;
                Some((bits, *order, size, k, padding))
            })
        });
    let Some((bits, order, size, columns, padding)) = found else {
        return Err("no width that is known fits its words, shape and zero points");
    };
    let Some(spread) = Spread::new(&[rows, columns], scales, (None, size)) else {
        return Err("its scales do not divide it");
    };
    let by_list = |side: Side| match seen.number("_g_idx") {
        Some(list) => Side {
            columns: Map::Listed(list),
            ..side
        },
        None => side,
    };
    let half = 1 << (bits - 1);
    let zero = match point {
        None => Zero::code(half),
        Some((tensor, number)) => {
            let side = by_list(spread.side(tensor, number));
            if tensor.dtype.name == "I32" {
                let down = Direction::Down { columns: groups };
                let layout = Layout::new(bits, down, order);
                Zero::Point {
                    side: Side {
                        layout,
                        shape: (rows, groups),
                        rows: Map::Same,
                        ..side
                    },
                    plus: 0,
                }
            } else if tensor.shape == scales.shape {
                // Not packed, so not shifted either.
                Zero::Point { side, plus: half }
            } else {
                return Err("zero points and scales differ in shape");
            }
        }
    };
    let scale = seen
        .number("_scale")
        .map(|n| by_list(spread.side(scales, n)));
    let recipe = match (&zero, point) {
        // Packed zero points are shifted as codes are.
        (Zero::Point { side, plus: 0 }, _) => Recipe::less(0).minus(Term::natural(side.clone(), 0)),
        (Zero::Point { side, .. }, Some((tensor, _))) => {
            Recipe::less(half).minus(Term::of(side.clone(), tensor))
        }
        _ => Recipe::less(half),
    };
    let recipe = scale
        .iter()
        .fold(recipe, |recipe, side| recipe.scaled(side.clone(), scales));
    let rule = Rule::grid(Grid {
        rows,
        columns,
        codes: Layout {
            order,
            ..Layout::along(bits, wide.saturating_mul(4))
        },
        zero,
        scales: scale.into_iter().collect(),
        absent: 0,
        dtype: None,
        recipe,
    });
    let label = format!("int{bits} {spread}");
    Ok(
        Found::new([rows, columns], label, bits, rule).map(|found| Found {
            padding,
            activation_bits: activations(seen, &found, false),
            ..found
        }),
    )
}

/// Numbers that are not 0, wherever they stand.
pub(super) fn sparse(seen: &Seen) -> Answer {
    let (codes, Some(bitmask)) = (seen.codes(), seen.side(".bitmask")) else {
        return Ok(None);
    };
    let (Some((rows, bytes)), [stored]) = (matrix(bitmask), &*codes.shape) else {
        return Ok(None);
    };
    let Some(most) = bytes.checked_mul(8) else {
        return Err("its columns cannot be counted");
    };
    let (columns, padding) = match shape(seen, ".shape") {
        Some((n, k)) if n == rows && k.div_ceil(8) == bytes => (k, Padding::None),
        Some(_) => return Err("its shape and its bitmask do not agree"),
        None => (most, Padding::Columns(7)),
    };
    let absent = rows
        .checked_mul(columns)
        .and_then(|all| all.checked_sub(*stored));
    let Some(absent) = absent else {
        return Err("it stores more numbers than it has");
    };
    let mut grid = Grid::plain(1, *stored, codes.dtype);
    grid.absent = absent;
    if let Some(mask) = seen.number(".bitmask") {
        grid.recipe.place = Place::Masked(mask);
    }
    let rule = Rule::grid(grid);
    let label = format!("{} sparse", codes.dtype.name);
    Ok(Found::new([rows, columns], label, codes.dtype.bits, rule)
        .map(|found| Found { padding, ..found }))
}

/// Two numbers of every four. They are stored where they are 0, too.
pub(super) fn two_of_four(seen: &Seen) -> Answer {
    let (codes, Some(bitmask)) = (seen.codes(), seen.side(".bitmask")) else {
        return Ok(None);
    };
    let Some((rows, half)) = matrix(codes) else {
        return Ok(None);
    };
    let Some(columns) = half.checked_mul(2) else {
        return Err("its columns cannot be counted");
    };
    if matrix(bitmask) != Some((rows, columns.div_ceil(8))) {
        return Err("its numbers are not half of what its bitmask has room for");
    }
    let mut label = format!("{} 2:4", codes.dtype.name);
    let mut scales = Vec::new();
    let mut recipe = Recipe::of(Number::Of(codes.dtype));
    if let Some((tensor, number)) = seen.numbered(".weight_scale") {
        let Some(spread) = Spread::new(&[rows, half], tensor, (None, None)) else {
            return Err("its scales do not divide it");
        };
        label = format!("fp8 {spread} 2:4");
        scales.push(spread.side(tensor, number));
        recipe = recipe.scaled(spread.side(tensor, number), tensor);
    }
    if let Some(mask) = seen.number(".bitmask") {
        recipe = recipe.place(Place::Masked(mask));
    }
    let Some(absent) = rows.checked_mul(half) else {
        return Err("its numbers cannot be counted");
    };
    let rule = Rule::grid(Grid {
        scales,
        absent,
        recipe,
        ..Grid::plain(rows, half, codes.dtype)
    });
    Ok(
        Found::new([rows, columns], label, codes.dtype.bits, rule).map(|found| Found {
            activation_bits: activations(seen, &found, true),
            ..found
        }),
    )
}

/// Two numbers of every four, integers in the order of a kernel. Which number is where does not matter for counting.
pub(super) fn marlin(seen: &Seen) -> Answer {
    let (codes, Some(scales)) = (seen.codes(), seen.side(".scale_packed")) else {
        return Ok(None);
    };
    let (Some((high, wide)), Some((groups, outputs))) = (matrix(codes), matrix(scales)) else {
        return Ok(None);
    };
    if codes.dtype.name != "I32" {
        return Ok(None);
    }
    let (Some(inputs), Some(twice)) = (high.checked_mul(32), wide.checked_mul(2)) else {
        return Err("its numbers cannot be counted");
    };
    let bits = [4, 8]
        .into_iter()
        .find(|bits| outputs.checked_mul(*bits) == Some(twice));
    let Some(bits) = bits else {
        return Err("words and scales do not agree on a width");
    };
    let bits = bits as u32;
    let Some(group) = super::words::group_size(inputs, groups, seen.settings.group_size()) else {
        return Err("its groups do not divide its inputs");
    };
    let Some(stored) = high
        .checked_mul(16)
        .and_then(|half| half.checked_mul(outputs))
    else {
        return Err("its numbers cannot be counted");
    };
    let rule = Rule::grid(Grid {
        rows: 1,
        columns: stored,
        codes: Layout::along(bits, codes.bytes),
        zero: Zero::Masked {
            mask: mask(bits),
            value: 1 << (bits - 1),
        },
        scales: Vec::new(),
        absent: stored,
        dtype: None,
        recipe: Recipe::less(0).place(Place::Unknown(
            "its numbers stand in the order of a kernel, which is not read",
        )),
    });
    let label = format!("int{bits} {} 2:4", super::words::grouped(group, inputs));
    Ok(Found::new([outputs, inputs], label, bits, rule))
}
