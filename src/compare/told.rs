//! Statistics that were taken elsewhere, seen as a model means a weight: with groups, transposed.
//!
//! What was taken knows rows (dimension 0) and inputs (dimension 1) of a tensor. Lists of what rows read give the rest; where
//! a row reads too many inputs to list them, the answer is `None`, not a guess.

use super::scanned::Meant;
use crate::channels::Channels;
use crate::checkpoint::scan::{Levels, Statistics};
use crate::stats::{Level, Listed, RowReads, Told};
use std::ops::Range;

/// Statistics of a weight as it is meant; `None` where the shape is another, or what is needed was not listed.
pub(super) fn statistics(told: &Told, meant: &Meant) -> Option<Statistics> {
    if meant
        .shape
        .as_ref()
        .is_some_and(|shape| **shape != *told.shape)
    {
        return None;
    }
    let grouped = meant.groups > 1;
    let (per_row, per_input) = match (meant.transposed, grouped) {
        (false, false) => (told.per_row.clone(), told.per_input.clone()),
        (true, false) => (told.per_input.clone(), told.per_row.clone()),
        // Without it every non-zero counts as one on a live input: too many, never too few.
        (false, true) => (
            told.per_row.clone(),
            columns(told, meant.groups).unwrap_or_default(),
        ),
        (true, true) => (columns(told, meant.groups)?, told.per_row.clone()),
    };
    let elements = told
        .shape
        .iter()
        .try_fold(1u64, |all, side| all.checked_mul(*side))?;
    Some(Statistics {
        shape: told.shape.as_slice().into(),
        elements: elements.max(told.nnz),
        nnz: told.nnz,
        per_row,
        per_input,
        levels: match &told.levels {
            Level::All(levels) => Levels::All(levels.iter().map(|level| level.0).collect()),
            Level::More(_) => Levels::More,
        },
        nan: told.nan,
        infinite: told.infinite,
        moments: None,
        supports: None,
    })
}

/// Rows of a group and columns, as they are stored.
fn sides(told: &Told, groups: usize) -> Option<(usize, usize)> {
    let [rows, columns, ..] = *told.shape else {
        return None;
    };
    let rows = usize::try_from(rows).ok()? / groups.max(1);
    (rows > 0).then_some((rows, usize::try_from(columns).ok()?))
}

/// Non-zeros of each stored column, those of groups one after the other.
fn columns(told: &Told, groups: usize) -> Option<Vec<u64>> {
    let (rows, columns) = sides(told, groups)?;
    let supports = told.supports.as_ref()?;
    let all = columns.checked_mul(groups)?;
    // A header may claim any size; what rows read bounds what is made.
    if supports.len() != rows.checked_mul(groups)?
        || all as u64 > crate::checkpoint::scan::MOST_CHANNELS
    {
        return None;
    }
    let mut counts = vec![0u64; all];
    for (row, reads) in supports.iter().enumerate() {
        let RowReads::Listed(list) = reads else {
            return None;
        };
        for Listed(column, count) in list {
            let at = row / rows * columns + *column as usize;
            let slot = counts.get_mut(at)?;
            *slot = slot.saturating_add((*count).into());
        }
    }
    Some(counts)
}

/// Whether an output reads an input that is not null; `None` where that was not listed.
pub(super) fn reads_live_input(
    told: &Told,
    meant: &Meant,
    output: usize,
    null_in: &Channels,
) -> Option<bool> {
    let (rows, columns) = sides(told, meant.groups)?;
    let supports = told.supports.as_ref()?;
    if meant.transposed {
        let group = output.checked_div(columns)?;
        let inputs = group * rows..(group + 1) * rows;
        return column_reads(supports, inputs, output % columns, null_in);
    }
    let first = output / rows * columns;
    match supports.get(output)? {
        RowReads::Listed(list) => {
            let live = |listed: &Listed| !null_in.contains(first + listed.0 as usize);
            Some(list.iter().any(live))
        }
        // It reads more inputs than are null.
        RowReads::Many(count) => {
            let null = null_in
                .iter()
                .filter(|c| (first..first + columns).contains(c))
                .count();
            (*count > null as u64).then_some(true)
        }
    }
}

/// Whether one of some stored rows that are not null has a non-zero in a column.
fn column_reads(
    supports: &[RowReads],
    inputs: Range<usize>,
    column: usize,
    null_in: &Channels,
) -> Option<bool> {
    let mut all_listed = true;
    for input in inputs.filter(|input| !null_in.contains(*input)) {
        match supports.get(input)? {
            RowReads::Listed(list) if list.iter().any(|listed| listed.0 as usize == column) => {
                return Some(true);
            }
            RowReads::Listed(_) => {}
            RowReads::Many(_) => all_listed = false,
        }
    }
    all_listed.then_some(false)
}
