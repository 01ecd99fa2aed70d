//! MLX: codes dense in words along the inputs, groups with a scale and a bias, or microscaling floats in the same words.
//!
//! ```text
//!          weight                scales                     biases
//! affine   U32 [.., N, K b / 32] float [.., N, K / g]       float, the same shape (`qbiases` in some files)
//! mxfp4    U32 [.., N, K / 8]    U8 [.., N, K / 32]
//! mxfp8    U32 [.., N, K / 4]    U8 [.., N, K / 32]
//! nvfp4    U32 [.., N, K / 8]    U8 [.., N, K / 16]
//! ```
//!
//! Without biases the two widths say which it is. With them they give b g, and settings which of the pairs.

use super::codes::Layout;
use super::recipe::{Recipe, Term, powers};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::{Answer, Found, Seen};

/// Widths and group sizes of the affine mode, the usual ones first.
const BITS: [u64; 6] = [4, 8, 6, 5, 3, 2];
const GROUPS: [u64; 3] = [64, 32, 128];

/// Words and scales with the same sides except the last.
struct Widths {
    /// All sides but the last.
    outer: Vec<u64>,
    rows: u64,
    words: u64,
    groups: u64,
}

fn widths(seen: &Seen) -> Option<Widths> {
    let (codes, scales) = (seen.codes(), seen.side(".scales")?);
    if codes.dtype.name != "U32" {
        return None;
    }
    let (words, outer) = codes.shape.split_last()?;
    let (groups, same) = scales.shape.split_last()?;
    if outer != same || outer.is_empty() || *groups == 0 {
        return None;
    }
    Some(Widths {
        outer: outer.to_vec(),
        rows: outer
            .iter()
            .try_fold(1u64, |rows, side| rows.checked_mul(*side))?,
        words: *words,
        groups: *groups,
    })
}

/// Integers with a scale and a bias for each group.
pub(super) fn affine(seen: &Seen) -> Answer {
    let biases = [".biases", ".qbiases"].map(|end| seen.numbered(end));
    let (Some(widths), Some((biases, bias))) = (widths(seen), biases.into_iter().flatten().next())
    else {
        return Ok(None);
    };
    let Some((scales, scale)) = seen.numbered(".scales") else {
        return Ok(None);
    };
    if !scales.dtype.is_float() {
        return Ok(None);
    }
    if biases.shape != scales.shape || biases.dtype != scales.dtype || scales.dtype.bits == 64 {
        return Err("scales and biases differ");
    }
    let Widths {
        mut outer,
        rows,
        words,
        groups,
    } = widths;
    let fits = |(bits, group): &(u64, u64)| {
        let columns = group.checked_mul(groups);
        *bits > 0
            && *group > 0
            && columns.and_then(|k| k.checked_mul(*bits)) == words.checked_mul(32)
    };
    let pairs = GROUPS
        .iter()
        .flat_map(|group| BITS.iter().map(|bits| (*bits, *group)));
    let named = seen.settings.module_group(seen.stem);
    let sure = named.filter(fits);
    let all: Vec<(u64, u64)> = pairs.filter(fits).collect();
    let Some((bits, group)) = sure.or_else(|| all.first().copied()) else {
        return Err("words and scales do not agree on a width");
    };
    if !(1..=8).contains(&bits) {
        return Err("its codes are too wide");
    }
    let note = (sure.is_none() && all.len() > 1).then(|| {
        let pairs: Vec<String> = all
            .iter()
            .map(|(b, g)| format!("{b} bits by {g}"))
            .collect();
        format!("the shapes fit {}; the first is taken", pairs.join(", "))
    });
    let bits = bits as u32;
    let columns = group * groups;
    let side =
        |tensor, number| Side::of(tensor, number, (rows, groups), Map::Same, Map::Per(group));
    let rule = Rule::grid(Grid {
        rows,
        columns,
        codes: Layout::along(bits, words.saturating_mul(4)),
        // The product is rounded to the dtype of the scales before the bias is added.
        zero: Zero::Product {
            scale: side(scales, scale),
            shift: side(biases, bias),
            minus: false,
        },
        scales: Vec::new(),
        absent: 0,
        dtype: None,
        recipe: Recipe::less(0)
            .scaled(side(scales, scale), scales)
            .plus(Term::of(side(biases, bias), biases))
            .round(biases.dtype),
    });
    outer.push(columns);
    let label = format!("mlx int{bits} g{group}");
    Ok(Found::new(outer, label, bits, rule).map(|found| Found { note, ..found }))
}

/// Microscaling floats: which, the widths say.
fn floats(seen: &Seen, label: &str, bits: u32, group: u64) -> Answer {
    let (Some(widths), Some((scales, number))) = (widths(seen), seen.numbered(".scales")) else {
        return Ok(None);
    };
    let Widths {
        mut outer,
        rows,
        words,
        groups,
    } = widths;
    let columns = words.checked_mul(32).map(|all| all / u64::from(bits));
    if scales.dtype.name != "U8" || columns.is_none() || columns != groups.checked_mul(group) {
        return Ok(None);
    }
    let columns = columns.unwrap_or_default();
    let side = Side::of(scales, number, (rows, groups), Map::Same, Map::Per(group));
    let mut grid = Grid::floats(rows, columns, bits);
    // The bytes are powers of two, which are never 0, or floats of eight bits.
    grid.recipe = if group == 16 {
        grid.scales = vec![side.clone()];
        grid.recipe.times(Term::seen_as(side, "F8_E4M3"))
    } else {
        grid.recipe.times(powers(side))
    };
    let rule = Rule::grid(grid);
    outer.push(columns);
    Ok(Found::new(outer, label.into(), bits, rule))
}

/// Four bits with a power of two for every 32.
pub(super) fn mxfp4(seen: &Seen) -> Answer {
    floats(seen, "mlx mxfp4", 4, 32)
}

/// Eight bits with a power of two for every 32.
pub(super) fn mxfp8(seen: &Seen) -> Answer {
    floats(seen, "mlx mxfp8", 8, 32)
}

/// Four bits with a float of eight bits for every 16.
pub(super) fn nvfp4(seen: &Seen) -> Answer {
    floats(seen, "mlx nvfp4", 4, 16)
}
