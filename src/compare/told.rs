//! Statistics that were taken elsewhere, seen as a model means a weight: with groups, transposed.
//!
//! What was taken knows rows (dimension 0) and inputs (dimension 1) of a tensor. Lists of what rows read give the rest; where
//! a row reads too many inputs to list them, the answer is `None`, not a guess.

use super::held::Meant;
use crate::channels::Channels;
use crate::checkpoint::scan::{Levels, MOST_CHANNELS, Statistics};
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
    let grouped = meant.form.groups > 1;
    let (per_row, per_input) = match (meant.form.transposed, grouped) {
        // Without them no row counts as null, and every non-zero as one on a live input.
        (transposed, _) if meant.form.stacked => {
            let (first, second) = (of_stack(told), across_stack(told));
            let (rows, inputs) = if transposed {
                (second, first)
            } else {
                (first, second)
            };
            (rows.unwrap_or_default(), inputs.unwrap_or_default())
        }
        (false, false) => (told.per_row.clone(), told.per_input.clone()),
        (true, false) => (told.per_input.clone(), told.per_row.clone()),
        // Without it every non-zero counts as one on a live input: too many, never too few.
        (false, true) => (
            told.per_row.clone(),
            columns(told, meant.form.groups).unwrap_or_default(),
        ),
        (true, true) => (columns(told, meant.form.groups)?, told.per_row.clone()),
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
    if supports.len() != rows.checked_mul(groups)? || all as u64 > MOST_CHANNELS {
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

/// A matrix of several that are one tensor.
enum Matrix<'t> {
    /// It has no zero.
    Full,
    /// The non-zeros of its rows, where they are listed.
    Rows(&'t [Listed]),
}

/// The matrices of a tensor, in their order, with their sides; `None` of one where nothing more than its sum is known.
fn matrices<'t>(told: &'t Told) -> Option<(impl Iterator<Item = Option<Matrix<'t>>>, (u64, u64))> {
    let [count, rows, columns, ..] = *told.shape else {
        return None;
    };
    let supports = told.supports.as_ref()?;
    let longest = rows.max(columns).checked_mul(count)?;
    if supports.len() as u64 != count
        || told.per_row.len() as u64 != count
        || longest > MOST_CHANNELS
    {
        return None;
    }
    let area = rows.checked_mul(columns)?;
    let matrix = move |(reads, nnz): (&'t RowReads, &'t u64)| match reads {
        _ if *nnz == area => Some(Matrix::Full),
        RowReads::Listed(list) => Some(Matrix::Rows(list)),
        RowReads::Many(_) => None,
    };
    Some((
        supports.iter().zip(&told.per_row).map(matrix),
        (rows, columns),
    ))
}

/// Non-zeros of dimension 1 of each matrix of a tensor.
fn of_stack(told: &Told) -> Option<Vec<u64>> {
    let (matrices, (rows, columns)) = matrices(told)?;
    let mut counts = Vec::new();
    for matrix in matrices {
        let first = counts.len();
        match matrix? {
            Matrix::Full => counts.resize(first + rows as usize, columns),
            Matrix::Rows(list) => {
                counts.resize(first + rows as usize, 0);
                for Listed(row, count) in list {
                    *counts.get_mut(first + *row as usize)? = (*count).into();
                }
            }
        }
    }
    Some(counts)
}

/// Non-zeros of dimension 2 of each matrix of a tensor: known of those that have no zero, or nothing else.
fn across_stack(told: &Told) -> Option<Vec<u64>> {
    let (matrices, (rows, columns)) = matrices(told)?;
    let mut counts = Vec::new();
    for matrix in matrices {
        let each = match matrix? {
            Matrix::Full => rows,
            Matrix::Rows([]) => 0,
            Matrix::Rows(_) => return None,
        };
        counts.resize(counts.len() + columns as usize, each);
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
    if meant.form.stacked {
        return reads_live_of_stack(told, meant, output, null_in);
    }
    let (rows, columns) = sides(told, meant.form.groups)?;
    let supports = told.supports.as_ref()?;
    if meant.form.transposed {
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

/// The same of matrices that are one tensor: one without any zero reads all of its inputs.
fn reads_live_of_stack(
    told: &Told,
    meant: &Meant,
    output: usize,
    null_in: &Channels,
) -> Option<bool> {
    let (mut matrices, (rows, columns)) = matrices(told)?;
    let (outputs, inputs) = if meant.form.transposed {
        (columns as usize, rows as usize)
    } else {
        (rows as usize, columns as usize)
    };
    let number = output.checked_div(outputs)?;
    match matrices.nth(number)?? {
        Matrix::Full => {
            let mut own = number * inputs..(number + 1) * inputs;
            Some(own.any(|input| !null_in.contains(input)))
        }
        Matrix::Rows([]) => Some(false),
        Matrix::Rows(_) => None,
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
    use crate::checkpoint::packed::{Settings, Weights, weights};
    use crate::checkpoint::scan::{self, Wanted, row_reads};
    use crate::flow::Form;
    use crate::source::Folder;
    use crate::stats::{Stats, take};
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, TensorView};
    use std::path::PathBuf;

    /// A checkpoint of one tensor in a file of that name, and its statistics.
    fn file(
        name: &str,
        shape: Vec<usize>,
        numbers: impl Iterator<Item = f32>,
    ) -> (PathBuf, Checkpoint, Weights, Stats) {
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        let view = TensorView::new(Dtype::F32, shape, &bytes).expect("a view");
        let file = safetensors::serialize([("w", view)], None).expect("written");
        let name = format!("bitcost-{name}-{}.safetensors", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file).expect("written");
        let files = Folder::of_file(&path).expect("there");
        let checkpoint = Checkpoint::open(&files).expect("valid").expect("weights");
        let weights = weights(&checkpoint, &Settings::default());
        let stats = take(&checkpoint, &weights).expect("taken");
        (path, checkpoint, weights, stats)
    }

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
            let (path, checkpoint, weights, stats) = file("told", shape, numbers);
            let told = stats.weights[0].data.as_ref().expect("plain");
            let form = Form { groups, transposed, stacked: false };
            let meant = Meant { form, shape: weights.weights[0].shape.clone() };
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

        #[test]
        fn of_matrices_that_are_one_tensor_statistics_say_nothing_that_a_scan_does_not(
            kinds in prop::collection::vec(0u8..3, 1..4),
            (rows, columns) in (1usize..5, 1usize..5),
            transposed in any::<bool>(),
            seed in prop::collection::vec(any::<bool>(), 16),
            null in any::<u64>(),
        ) {
            // A matrix is all zero, without a zero, or neither.
            let shape = vec![kinds.len(), rows, columns];
            let numbers = kinds.iter().flat_map(|kind| {
                let number = |at: usize| u8::from(*kind == 1 || *kind == 2 && seed[at]);
                (0..rows * columns).map(number).map(f32::from)
            });
            let (path, checkpoint, weights, stats) = file("stack", shape, numbers);
            let told = stats.weights[0].data.as_ref().expect("plain");
            let form = Form { groups: kinds.len(), transposed, stacked: true };
            let meant = Meant { form, shape: weights.weights[0].shape.clone() };
            let wanted = Wanted {
                shape: meant.shape.clone(),
                transposed,
                stacked: true,
                ..Wanted::default()
            };
            let scanned = scan::statistics(&checkpoint, &weights.weights[0], &wanted);
            let scanned = scanned.expect("read").expect("plain");
            let found = statistics(told, &meant).expect("told");
            prop_assert_eq!((found.nnz, found.elements), (scanned.nnz, scanned.elements));
            let (of_stack, across) = if transposed {
                ((&found.per_input, &scanned.per_input), (&found.per_row, &scanned.per_row))
            } else {
                ((&found.per_row, &scanned.per_row), (&found.per_input, &scanned.per_input))
            };
            prop_assert_eq!(of_stack.0, of_stack.1);
            let is_even = |kind: &u8| *kind < 2;
            if kinds.iter().all(is_even) || !across.0.is_empty() {
                prop_assert_eq!(across.0, across.1);
            }
            let null = Channels::of(scanned.per_input.len(), |channel| null >> channel & 1 == 1);
            for row in 0..scanned.per_row.len() {
                let reads = row_reads(&checkpoint, &weights.weights[0], row as u64, &wanted);
                let reads = reads.expect("read").expect("plain");
                let live = reads.iter().any(|input| !null.contains(input));
                let told = reads_live_input(told, &meant, row, &null);
                let kind = kinds[row / (scanned.per_row.len() / kinds.len())];
                if is_even(&kind) || told.is_some() {
                    prop_assert_eq!(told, Some(live));
                }
            }
            std::fs::remove_file(&path).expect("there");
        }
    }
}
