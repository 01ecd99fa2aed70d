//! Weights of which only sizes are read: sums of vectors from codebooks, paths through a trellis, groups of many widths.
//!
//! ```text
//! aqlm   codes I8 or I16 [N / og, K / ig, M]   codebooks float [M, 2^B, og, ig], scales float [N / og, 1, 1, 1]
//! higgs  weight I16 [N b / 16, K]              scales float [N, K / g], tables float [2^b], tables2 float [2^b, 2^b, 2]
//! exl2   q_weight I32 [rows, N]                q_invperm [K], q_scale I32 [G, N / 8], q_scale_max F16 [G], q_groups I16 [2 G]
//! exl3   trellis I16 [K / 16, N / 16, 16 b]    suh F16 [K], svh F16 [N], flags
//! ```
//!
//! The last three are the shapes of the classes that read them; no file of their libraries was at hand.

use super::rules::Rule;
use super::{Answer, Found, Seen, matrix};

/// Sides of the squares that a trellis runs through.
const TILE: u64 = 16;

/// AQLM. No number has a code of its own, so none can be counted as 0.
pub(super) fn aqlm(seen: &Seen) -> Answer {
    let (codes, Some(books)) = (seen.codes(), seen.side(".codebooks")) else {
        return Ok(None);
    };
    let ([high, wide, count], [books, size, out_group, in_group]) = (&*codes.shape, &*books.shape)
    else {
        return Err("its codes or codebooks have other dimensions");
    };
    if books != count || !matches!(codes.dtype.name, "I8" | "I16" | "U8" | "U16" | "I32") {
        return Err("codes and codebooks do not fit each other");
    }
    let (Some(rows), Some(columns)) = (high.checked_mul(*out_group), wide.checked_mul(*in_group))
    else {
        return Err("its numbers cannot be counted");
    };
    let bits = (*size).max(1).ilog2();
    let group = out_group.saturating_mul(*in_group);
    let label = format!("aqlm {count}x{bits} g{group}");
    Ok(found(
        [rows, columns],
        label,
        None,
        "its numbers are sums of vectors from codebooks; no code stands for 0",
    ))
}

/// HIGGS.
pub(super) fn higgs(seen: &Seen) -> Answer {
    let (codes, Some(scales), Some(table)) =
        (seen.codes(), seen.side(".scales"), seen.side(".tables"))
    else {
        return Ok(None);
    };
    let (Some((high, columns)), Some((rows, _))) = (matrix(codes), matrix(scales)) else {
        return Err("its tensors are no matrices");
    };
    let bits = table.elements().max(1).ilog2();
    if codes.dtype.name != "I16" || high.checked_mul(16) != rows.checked_mul(bits.into()) {
        return Err("codes, scales and tables do not agree on a width");
    }
    Ok(found(
        [rows, columns],
        format!("higgs {bits} bits"),
        Some(bits),
        "its numbers are vectors of a table, rotated; no code stands for 0",
    ))
}

/// EXL2. Widths differ from group to group, and only data tells them; the mean is in the bytes.
pub(super) fn exl2(seen: &Seen) -> Answer {
    let (codes, Some(order)) = (seen.codes(), seen.side(".q_invperm")) else {
        return Ok(None);
    };
    let (Some((_, outputs)), "I32") = (matrix(codes), codes.dtype.name) else {
        return Err("its codes are no words");
    };
    Ok(found(
        [outputs, order.elements()],
        "exl2".into(),
        None,
        "its groups have several widths, which are not read",
    ))
}

/// EXL3.
pub(super) fn exl3(seen: &Seen) -> Answer {
    let ([high, wide, words], "I16") = (&*seen.codes().shape, seen.codes().dtype.name) else {
        return Err("its trellis has other dimensions");
    };
    let sides = high.checked_mul(TILE).zip(wide.checked_mul(TILE));
    let (Some((inputs, outputs)), 0) = (sides, words % TILE) else {
        return Err("its trellis has other dimensions");
    };
    let Ok(bits @ 1..=16) = u32::try_from(words / TILE) else {
        return Err("its trellis has other dimensions");
    };
    Ok(found(
        [outputs, inputs],
        format!("exl3 {bits} bits"),
        Some(bits),
        "its numbers are paths through a trellis; no code stands for 0",
    ))
}

fn found(shape: [u64; 2], label: String, bits: Option<u32>, why: &'static str) -> Option<Found> {
    Found::new(shape, label, bits.unwrap_or_default(), Rule::None(why)).map(|found| Found {
        code_bits: bits,
        ..found
    })
}
