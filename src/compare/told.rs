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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::checkpoint::packed::{Settings, weights};
    use crate::checkpoint::scan::{self, Wanted, row_reads};
    use crate::source::Folder;
    use crate::stats::take;
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, TensorView};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn statistics_say_of_groups_and_of_transposed_weights_what_a_scan_does(
            (groups, rows, columns, taps) in (1usize..4, 1usize..5, 1usize..5, 1usize..3),
            transposed in any::<bool>(),
            seed in prop::collection::vec(0u8..3, 64),
            null in any::<u64>(),
        ) {
            let shape = vec![groups * rows, columns, taps];
            let numbers = (0..shape.iter().product()).map(|at| f32::from(seed[at * 7 % 64] / 2));
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            let view = TensorView::new(Dtype::F32, shape.clone(), &bytes).expect("a view");
            let file = safetensors::serialize([("w", view)], None).expect("written");
            let name = format!("bitcost-told-{}.safetensors", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, file).expect("written");
            let files = Folder::of_file(&path).expect("there");
            let checkpoint = Checkpoint::open(&files).expect("valid").expect("weights");
            let weights = weights(&checkpoint, &Settings::default());
            let stats = take(&checkpoint, &weights).expect("taken");
            let told = stats.weights[0].data.as_ref().expect("plain");
            let meant = Meant { groups, transposed, shape: weights.weights[0].shape.clone() };
            let wanted = Wanted {
                shape: meant.shape.clone(),
                groups: groups as u64,
                transposed,
                ..Wanted::default()
            };
            let scanned = scan::statistics(&checkpoint, &weights.weights[0], &wanted);
            let scanned = scanned.expect("read").expect("plain");
            prop_assert_eq!(statistics(told, &meant), Some(scanned.clone()));
            let null = Channels::of(scanned.per_input.len(), |channel| null >> channel & 1 == 1);
            for row in 0..scanned.per_row.len() {
                let reads = row_reads(&checkpoint, &weights.weights[0], row as u64, &wanted);
                let reads = reads.expect("read").expect("plain");
                let live = reads.iter().any(|input| !null.contains(input));
                prop_assert_eq!(reads_live_input(told, &meant, row, &null), Some(live));
            }
            std::fs::remove_file(&path).expect("there");
        }
    }
}
