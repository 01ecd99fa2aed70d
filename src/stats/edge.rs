//! The edge of a packed matrix: rows or columns at its end that may be padding, which only a model tells.
//!
//! Codes share bytes and words, so the last of them may belong to nothing, and their values need not be 0. Statistics of a
//! matrix that may be padded keep where the non-zeros of those lines are, so that they can be taken off again.

use super::facts::{Facts, RowReads, Told};
use crate::checkpoint::packed::{Padding, Weight};
use crate::checkpoint::scan::{Wanted, values};
use crate::checkpoint::{Checkpoint, CheckpointError};
use serde::{Deserialize, Serialize};

/// Most lines that are kept; a word of 32 bits holds no more codes.
const MOST_LINES: u64 = 32;

/// Numbers that are read at a time.
const PIECE: u64 = 1 << 16;

/// A row or column that may be padding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Runs of non-zeros, ascending: the first of each, and how many.
    pub runs: Vec<Run>,
    /// Those that are no numbers.
    pub nan: u64,
    /// Those that are infinite.
    pub infinite: u64,
}

/// Neighbours that are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run(pub u64, pub u64);

impl Line {
    fn add(&mut self, at: u64, number: f32) {
        if number == 0.0 {
            return;
        }
        self.nan += u64::from(number.is_nan());
        self.infinite += u64::from(number.is_infinite());
        match self.runs.last_mut() {
            Some(run) if run.0 + run.1 == at => run.1 += 1,
            _ => self.runs.push(Run(at, 1)),
        }
    }

    fn nnz(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, run| sum.saturating_add(run.1))
    }

    /// Whether its runs ascend within so many numbers.
    pub(super) fn is_sound(&self, length: u64) -> bool {
        let mut end = 0;
        let ascend = self.runs.iter().all(|run| {
            let begins = run.0 >= end && run.1 > 0;
            let next = run.0.checked_add(run.1);
            end = next.unwrap_or(u64::MAX);
            begins && next.is_some_and(|next| next <= length)
        });
        let odd = self.nan.checked_add(self.infinite);
        ascend && odd.is_some_and(|odd| odd <= self.nnz())
    }
}

/// Where padding may lie: rows or columns, and how many at most.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Rows(u64),
    Columns(u64),
}

fn side(padding: Padding, [rows, columns]: [u64; 2]) -> Option<Side> {
    match padding {
        Padding::None => None,
        Padding::Rows(most) => Some(Side::Rows(most.min(rows).min(MOST_LINES))),
        Padding::Columns(most) => Some(Side::Columns(most.min(columns).min(MOST_LINES))),
    }
}

/// The lines of a weight that may be padding, the last first; `None` where it has none, is no matrix, or its numbers cannot
/// be told.
pub(super) fn edge(
    checkpoint: &Checkpoint,
    weight: &Weight,
) -> Result<Option<Vec<Line>>, CheckpointError> {
    let Some(&[rows, columns]) = weight.shape.as_deref() else {
        return Ok(None);
    };
    let Some(side) = side(weight.padding, [rows, columns]) else {
        return Ok(None);
    };
    let (first, count) = match side {
        Side::Rows(count) => (rows - count, count),
        Side::Columns(count) => (0, count),
    };
    let mut lines = vec![Line::default(); count as usize];
    let step = (PIECE / columns.max(1)).max(1);
    let mut numbers = Vec::new();
    for begin in (first..rows).step_by(step as usize) {
        let piece = begin..begin.saturating_add(step).min(rows);
        if !values(
            checkpoint,
            weight,
            &Wanted::default(),
            piece.clone(),
            &mut numbers,
        )? {
            return Ok(None);
        }
        for (row, numbers) in piece.zip(numbers.chunks(columns.max(1) as usize)) {
            match side {
                Side::Rows(_) => {
                    let line = &mut lines[(rows - 1 - row) as usize];
                    (0..).zip(numbers).for_each(|(at, n)| line.add(at, *n));
                }
                Side::Columns(_) => {
                    let last_first = lines.iter_mut().zip(numbers.iter().rev());
                    last_first.for_each(|(line, n)| line.add(row, *n));
                }
            }
        }
    }
    Ok(Some(lines))
}

/// What the data says of a weight in a shape: its own, or one that lacks some of its edge. Levels and moments stay those of
/// the whole; nobody asks a packed weight about them.
pub(super) fn cut(facts: &Facts, shape: &[u64]) -> Option<Told> {
    let told = facts.data.as_ref()?;
    let (&[rows, columns], &[kept_rows, kept_columns]) = (&*told.shape, shape) else {
        return None;
    };
    let side = side(super::Padded::padding(facts.padding), [rows, columns])?;
    let missing = match side {
        Side::Rows(most) if kept_columns == columns => rows
            .checked_sub(kept_rows)
            .filter(|missing| *missing <= most)?,
        Side::Columns(most) if kept_rows == rows => columns
            .checked_sub(kept_columns)
            .filter(|missing| *missing <= most)?,
        _ => return None,
    };
    let lines = told.edge.as_ref()?.get(..usize::try_from(missing).ok()?)?;
    let mut cut = Told {
        shape: shape.to_vec(),
        ..told.clone()
    };
    for line in lines {
        cut.nnz = cut.nnz.checked_sub(line.nnz())?;
        cut.nan = cut.nan.checked_sub(line.nan)?;
        cut.infinite = cut.infinite.checked_sub(line.infinite)?;
        let crossed = match side {
            Side::Rows(_) => &mut cut.per_input,
            Side::Columns(_) => &mut cut.per_row,
        };
        for run in &line.runs {
            // Where channels are too many to be told apart there are no counts to take it off.
            let end = crossed.len();
            let at = |position: u64| usize::try_from(position).map_or(end, |at| at.min(end));
            for count in &mut crossed[at(run.0)..at(run.0.saturating_add(run.1))] {
                *count = count.checked_sub(1)?;
            }
        }
    }
    let supports = cut.supports.as_mut();
    match side {
        Side::Rows(_) => {
            let kept = usize::try_from(kept_rows).ok()?;
            cut.per_row.truncate(kept);
            supports.into_iter().for_each(|rows| rows.truncate(kept));
        }
        Side::Columns(_) => {
            cut.per_input.truncate(usize::try_from(kept_columns).ok()?);
            for (row, reads) in supports.into_iter().flatten().enumerate() {
                match reads {
                    RowReads::Listed(list) => list.retain(|read| u64::from(read.0) < kept_columns),
                    // A matrix reads as many inputs as it has non-zeros.
                    RowReads::Many(count) => *count = *cut.per_row.get(row)?,
                }
            }
        }
    }
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::packed::{Settings, weights};
    use crate::source::Folder;
    use crate::stats::take;
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, TensorView};

    /// The facts of a matrix that may be padded so.
    fn facts(numbers: &[f32], shape: [usize; 2], padding: Padding) -> Facts {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).expect("a view");
        let file = safetensors::serialize([("w", view)], None).expect("written");
        let name = format!("bitcost-edge-{}.safetensors", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file).expect("written");
        let files = Folder::of_file(&path).expect("there");
        let checkpoint = Checkpoint::open(&files).expect("valid").expect("weights");
        let mut weights = weights(&checkpoint, &Settings::default());
        weights.weights[0].padding = padding;
        let stats = take(&checkpoint, &weights).expect("taken");
        std::fs::remove_file(&path).expect("there");
        stats.weights.into_iter().next().expect("one")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_matrix_without_its_edge_is_the_smaller_matrix(
            (rows, columns) in (1usize..9, prop_oneof![1usize..9, 60usize..80]),
            (lost, more) in (0usize..4, 0u64..3),
            of_rows in any::<bool>(),
            seed in prop::collection::vec(0usize..9, 97),
        ) {
            const NUMBERS: [f32; 9] = [0.0, 0.0, -0.0, 1.0, -2.5, 1e-40, f32::NAN, f32::INFINITY, 3.0];
            let number = |row: usize, column: usize| NUMBERS[seed[(row * 31 + column * 7) % 97]];
            let matrix = |rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|at| number(at / columns, at % columns)).collect()
            };
            let lost = lost.min(if of_rows { rows } else { columns } - 1);
            let most = lost as u64 + more;
            let (padding, kept) = if of_rows {
                (Padding::Rows(most), [rows - lost, columns])
            } else {
                (Padding::Columns(most), [rows, columns - lost])
            };
            let whole = facts(&matrix(rows, columns), [rows, columns], padding);
            prop_assert!(whole.is_sound());
            let want = facts(&matrix(kept[0], kept[1]), kept, Padding::None).data.expect("plain");
            let got = whole.data_in(&want.shape).expect("its edge is known").into_owned();
            prop_assert_eq!(
                (got.nnz, got.nan, got.infinite, got.per_row, got.per_input),
                (want.nnz, want.nan, want.infinite, want.per_row, want.per_input)
            );
            // A row that was not listed because of its edge stays a number.
            let sizes = |told: &Option<Vec<RowReads>>| -> Vec<u64> {
                let size = |reads: &RowReads| match reads {
                    RowReads::Listed(list) => list.len() as u64,
                    RowReads::Many(size) => *size,
                };
                told.iter().flatten().map(size).collect()
            };
            prop_assert_eq!(sizes(&got.supports), sizes(&want.supports));
            let listed = got.supports.iter().flatten().zip(want.supports.iter().flatten());
            for (got, want) in listed.filter(|(got, _)| matches!(got, RowReads::Listed(_))) {
                prop_assert_eq!(got, want);
            }
            let beyond = [want.shape[0] + more + 9, want.shape[1]];
            prop_assert!(whole.data_in(&beyond).is_none());
        }
    }
}
