//! Integer codes in words of 32 bits with a zero point and a scale for each group of inputs: GPTQ and AWQ.
//!
//! With K inputs, N outputs, b bits and G groups; all words I32, scales F16 or BF16:
//!
//! ```text
//!            qweight         qzeros          scales     g_idx
//! gptq       [K b / 32, N]   [G, N b / 32]   [G, N]     [K] (files of old writers lack it)
//! awq gemm   [K, N b / 32]   [G, N b / 32]   [G, N]
//! awq gemv   [N, K b / 32]   [N, Z]          [N, Z 32 / b]   Z: words of zero points, rounded up
//! gemv fast  I16 [N / 4, K]  F16 [8 Z, N]    [8 Z, N]        zero points times scales, less than 0
//! ```
//!
//! All widths follow from the shapes, so a module that was quantized otherwise than the rest needs no rule of its own.

use super::codes::{Direction, Layout, Order};
use super::recipe::{Place, Recipe, Term};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::{Answer, Found, Seen, matrix};

/// Widths of codes.
const GPTQ_BITS: std::ops::RangeInclusive<u64> = 2..=8;

/// Nibble of a word in which column `j` of eight lies: nibble `i` holds column `[0, 2, 4, 6, 1, 3, 5, 7][i]`.
const AWQ_NIBBLES: Order = Order::Nibbles([0, 4, 1, 5, 2, 6, 3, 7]);

/// The three tensors as matrices, if they have the dtypes of this family.
struct Words {
    codes: (u64, u64),
    zeros: (u64, u64),
    scales: (u64, u64),
    /// The number of the tensor of zero points.
    points: u32,
}

fn words(seen: &Seen) -> Option<Words> {
    let (codes, scales) = (seen.codes(), seen.side(".scales")?);
    let (zeros, points) = seen.numbered(".qzeros")?;
    let dtypes = [codes, zeros].map(|t| t.dtype.name);
    if dtypes != ["I32", "I32"] || !scales.dtype.is_float() {
        return None;
    }
    Some(Words {
        codes: matrix(codes)?,
        zeros: matrix(zeros)?,
        scales: matrix(scales)?,
        points,
    })
}

/// Words that hold so many codes, packed without gaps.
fn words_of(codes: u64, bits: u64) -> Option<u64> {
    Some(codes.checked_mul(bits)?.div_ceil(32))
}

/// GPTQ, all its bit orders and both ways to store zero points.
pub(super) fn gptq(seen: &Seen) -> Answer {
    let Some(Words {
        codes,
        zeros,
        scales,
        points,
    }) = words(seen)
    else {
        return Ok(None);
    };
    let outputs = codes.1;
    let g_idx = seen.number(".g_idx");
    // In AWQ the two differ. Where they agree by chance, rows that agree too would be groups of less than a word.
    if scales.1 != outputs || (scales.0 == codes.0 && g_idx.is_none()) {
        return Ok(None);
    }
    let groups = scales.0;
    let listed = seen.side(".g_idx").map(|t| t.elements());
    let inputs = |bits: u64| match listed {
        Some(inputs) => Some(inputs),
        None => codes.0.checked_mul(32).map(|all| all / bits),
    };
    let fits = |bits: &u64| {
        zeros == (groups, words_of(outputs, *bits).unwrap_or(0))
            && inputs(*bits).and_then(|n| words_of(n, *bits)) == Some(codes.0)
    };
    let hint = seen.settings.bits().filter(|bits| GPTQ_BITS.contains(bits));
    let hint = hint.filter(fits);
    let Some(bits) = hint.or_else(|| GPTQ_BITS.clone().find(fits)) else {
        return Err("qweight, qzeros and scales do not agree on a width");
    };
    let Some(inputs) = inputs(bits) else {
        return Err("its inputs cannot be counted");
    };
    let Some(group) = group_size(inputs, groups, seen.settings.group_size()) else {
        return Err("its groups do not divide its inputs");
    };
    let bits = bits as u32;
    let Written { planes, less_one } = written(seen, bits);
    let order = if planes { Order::Planes } else { Order::Dense };
    let mut layout = Layout {
        order,
        ..Layout::along(bits, zeros.1.saturating_mul(4))
    };
    let mut plus = 0;
    if less_one {
        // The library adds to whole words, with carries, except where codes cross words.
        match 32 % bits {
            0 => layout.add = u32::MAX / super::codes::mask(bits),
            _ => plus = 1,
        }
    }
    let side = Side {
        tensor: points,
        layout,
        shape: (groups, outputs),
        rows: g_idx.map_or(Map::Per(group), Map::Listed),
        columns: Map::Same,
    };
    let scales = scale(seen, (groups, outputs), side.rows, Map::Same);
    let recipe = by_groups(seen, &side, plus, &scales);
    let rule = Rule::grid(Grid {
        rows: inputs,
        columns: outputs,
        codes: Layout::new(bits, Direction::Down { columns: outputs }, order),
        scales,
        zero: Zero::Point { side, plus },
        absent: 0,
        dtype: None,
        recipe: recipe.place(Place::Transposed { rows: inputs }),
    });
    let label = format!("gptq int{bits} {}", grouped(group, inputs));
    let own = ["dynamic", "extra_config"].map(|key| seen.settings.object(key));
    let said = seen.settings.bits().filter(|said| *said != u64::from(bits));
    let note = said
        .filter(|_| own == [None, None])
        .map(|said| format!("settings say {said} bits, its tensors have {bits}"));
    Ok(Found::new([outputs, inputs], label, bits, rule).map(|found| Found { note, ..found }))
}

/// What only settings tell of a GPTQ file.
struct Written {
    planes: bool,
    /// Whether the file holds zero points less one.
    less_one: bool,
}

fn written(seen: &Seen, bits: u32) -> Written {
    // auto-round names the library that reads its files; all but the oldest store zero points as they are.
    if let Some(packing) = seen.settings.text("packing_format") {
        return Written {
            planes: false,
            less_one: packing.ends_with("auto_gptq"),
        };
    }
    let format = seen.settings.text("checkpoint_format");
    let format = format.or_else(|| seen.settings.text("format"));
    let planes = matches!(bits, 5..=7) || format == Some("gptq_p");
    Written {
        planes,
        less_one: !planes && format != Some("gptq_v2"),
    }
}

/// AWQ as `version: gemm` writes it.
pub(super) fn awq_gemm(seen: &Seen) -> Answer {
    let Some(Words {
        codes,
        zeros,
        scales,
        points,
    }) = words(seen)
    else {
        return Ok(None);
    };
    let ((inputs, words), (groups, outputs)) = (codes, scales);
    if zeros != (groups, words) || words_of(outputs, 4) != Some(words) || !outputs.is_multiple_of(8)
    {
        return Ok(None);
    }
    let Some(group) = group_size(inputs, groups, seen.settings.group_size()) else {
        return Err("its groups do not divide its inputs");
    };
    let along = Layout {
        order: AWQ_NIBBLES,
        ..Layout::along(4, words.saturating_mul(4))
    };
    let side = Side {
        tensor: points,
        layout: along,
        shape: (groups, outputs),
        rows: Map::Per(group),
        columns: Map::Same,
    };
    let scales = scale(seen, (groups, outputs), Map::Per(group), Map::Same);
    let recipe = by_groups(seen, &side, 0, &scales);
    let rule = Rule::grid(Grid {
        rows: inputs,
        columns: outputs,
        codes: along,
        scales,
        zero: Zero::Point { side, plus: 0 },
        absent: 0,
        dtype: None,
        recipe: recipe.place(Place::Transposed { rows: inputs }),
    });
    let label = format!("awq int4 {}", grouped(group, inputs));
    Ok(Found::new([outputs, inputs], label, 4, rule))
}

/// AWQ as `version: gemv` writes it.
pub(super) fn awq_gemv(seen: &Seen) -> Answer {
    let Some(Words {
        codes,
        zeros,
        scales,
        points,
    }) = words(seen)
    else {
        return Ok(None);
    };
    let (outputs, words) = codes;
    let padded = zeros.1.checked_mul(8);
    if zeros.0 != outputs || scales.0 != outputs || Some(scales.1) != padded {
        return Err("qweight, qzeros and scales do not agree on a layout");
    }
    let Some(inputs) = words.checked_mul(8) else {
        return Err("its inputs cannot be counted");
    };
    let Some(group) = padded_group(inputs, zeros.1, seen) else {
        return Err("its groups do not divide its inputs");
    };
    let groups = scales.1;
    let side = Side {
        tensor: points,
        layout: Layout::along(4, zeros.1.saturating_mul(4)),
        shape: (outputs, groups),
        rows: Map::Same,
        columns: Map::Per(group),
    };
    let scales = scale(seen, (outputs, groups), Map::Same, Map::Per(group));
    // The kernel computes in 32 bits.
    let mut recipe = by_groups(seen, &side, 0, &scales);
    recipe.steps.truncate(2);
    let rule = Rule::grid(Grid {
        rows: outputs,
        columns: inputs,
        codes: Layout::along(4, words.saturating_mul(4)),
        scales,
        zero: Zero::Point { side, plus: 0 },
        absent: 0,
        dtype: None,
        recipe,
    });
    let label = format!("awq int4 {}", grouped(group, inputs));
    Ok(Found::new([outputs, inputs], label, 4, rule))
}

/// AWQ as `version: gemv_fast` writes it: words of 16 bits, and zero points that are multiplied by their scale already.
pub(super) fn awq_gemv_fast(seen: &Seen) -> Answer {
    let codes = seen.codes();
    let (Some((scales, scale)), Some((points, point))) =
        (seen.numbered(".scales"), seen.numbered(".qzeros"))
    else {
        return Ok(None);
    };
    if codes.dtype.name != "I16" || !scales.dtype.is_float() || points.dtype != scales.dtype {
        return Ok(None);
    }
    let (Some((high, inputs)), Some((groups, outputs))) = (matrix(codes), matrix(scales)) else {
        return Err("its tensors are no matrices");
    };
    if high.checked_mul(4) != Some(outputs) || points.shape != scales.shape || inputs % 64 != 0 {
        return Err("qweight, qzeros and scales do not agree on a layout");
    }
    let Some(group) = padded_group(inputs, groups / 8, seen) else {
        return Err("its groups do not divide its inputs");
    };
    let side = |number| Side {
        tensor: number,
        layout: Layout::new(
            scales.dtype.bits,
            Direction::Transposed { rows: outputs },
            Order::Dense,
        ),
        shape: (outputs, groups),
        rows: Map::Same,
        columns: Map::Per(group),
    };
    let rule = Rule::grid(Grid {
        rows: outputs,
        columns: inputs,
        codes: Layout::new(4, Direction::Interleaved { columns: inputs }, Order::Dense),
        zero: Zero::Nearest {
            scale: side(scale),
            shift: side(point),
        },
        scales: Vec::new(),
        absent: 0,
        dtype: None,
        recipe: Recipe::less(0)
            .minus(Term::Nearest(Box::new([
                Term::of(side(scale), scales),
                Term::of(side(point), points),
            ])))
            .times(Term::of(side(scale), scales)),
    });
    let label = format!("awq int4 {}", grouped(group, inputs));
    Ok(Found::new([outputs, inputs], label, 4, rule))
}

/// Size of the groups whose zero points take so many words of eight, padded: for small groups to two or four words.
fn padded_group(inputs: u64, words: u64, seen: &Seen) -> Option<u64> {
    let fits = |group: &u64| {
        let unit = (128 / *group).clamp(1, 4);
        inputs
            .div_ceil(*group)
            .div_ceil(8)
            .checked_next_multiple_of(unit)
            == Some(words)
    };
    let hint = seen.settings.group_size().filter(|group| *group > 0);
    hint.filter(fits)
        .or_else(|| [128, 64, 32].into_iter().find(fits))
}

/// The code less the zero point of its group, times the scale in its dtype.
fn by_groups(seen: &Seen, point: &Side, plus: u32, scales: &[Side]) -> Recipe {
    let recipe = Recipe::less(0).minus(Term::natural(point.clone(), plus));
    match (scales.first(), seen.side(".scales")) {
        (Some(side), Some(tensor)) => recipe.scaled(side.clone(), tensor),
        _ => recipe,
    }
}

fn scale(seen: &Seen, shape: (u64, u64), rows: Map, columns: Map) -> Vec<Side> {
    let scale = seen.numbered(".scales");
    scale
        .map(|(tensor, number)| Side::of(tensor, number, shape, rows, columns))
        .into_iter()
        .collect()
}

/// How many numbers share a scale, where `count` of them have `groups`: as the settings say if that fits, else evenly if that
/// is a size that groups have, else the power of two of which only the last group is cut.
pub(super) fn group_size(count: u64, groups: u64, hint: Option<u64>) -> Option<u64> {
    let fits = |group: &u64| *group > 0 && count.div_ceil(*group) == groups;
    if groups == 0 || groups > count {
        return None;
    }
    let even = Some(count / groups).filter(|_| count.is_multiple_of(groups));
    let usual = even.filter(|group| group.is_multiple_of(8) || groups == 1 || *group == 1);
    hint.filter(fits)
        .or(usual)
        .or_else(|| (0..u64::BITS).map(|power| 1 << power).find(fits))
        .or(even)
}

/// `g128`, or `channel` where the whole row is one group.
pub(super) fn grouped(group: u64, count: u64) -> String {
    if group >= count {
        "channel".into()
    } else {
        format!("g{group}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_what_the_settings_say_only_if_it_fits() {
        assert_eq!(group_size(4096, 32, Some(128)), Some(128));
        assert_eq!(group_size(4096, 32, Some(64)), Some(128));
        assert_eq!(group_size(4096, 1, None), Some(4096));
    }

    #[test]
    fn the_last_group_may_be_cut() {
        assert_eq!(group_size(80, 3, None), Some(32));
        assert_eq!(group_size(132, 2, None), Some(128));
        assert_eq!(group_size(80, 0, None), None);
        assert_eq!(group_size(3, 4, None), None);
    }
}
