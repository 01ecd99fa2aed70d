//! Products of float matrices, for training: one loop, which all three products of a layer are.
//!
//! Every output is a row of sums, `out[i] = sum over k of factor(i, k) * rows[k]`, so the innermost loop runs over neighbours in
//! memory and becomes vectors without changing the order of a sum. **Terms are added in the order of k, whatever the threads.**

use rayon::prelude::*;

/// Rows of the output that share what is read of `rows`.
const TOGETHER: usize = 4;

/// Columns of the output that are summed before the next: with [`TOGETHER`] rows they stay in the nearest cache.
const COLUMNS: usize = 256;

/// `[count, width]` sums over `terms` rows of `width` numbers.
pub(super) fn sums_of_rows(
    count: usize,
    terms: usize,
    width: usize,
    factor: impl Fn(usize, usize) -> f32 + Sync,
    rows: &[f32],
) -> Vec<f32> {
    let mut out = vec![0.0; count * width];
    let strips = out.par_chunks_mut(TOGETHER * width).enumerate();
    strips.for_each(|(strip, out)| {
        for from in (0..width).step_by(COLUMNS) {
            let to = width.min(from + COLUMNS);
            for k in 0..terms {
                let row = &rows[k * width..][from..to];
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let factor = factor(strip * TOGETHER + i, k);
                    for (sum, number) in out[from..to].iter_mut().zip(row) {
                        *sum += factor * number;
                    }
                }
            }
        }
    });
    out
}

/// `[rows, cols]` to `[cols, rows]`.
pub(super) fn transposed(matrix: &[f32], cols: usize) -> Vec<f32> {
    let rows = matrix.len() / cols;
    let mut out = vec![0.0; matrix.len()];
    for (col, out) in out.chunks_exact_mut(rows).enumerate() {
        for (number, row) in out.iter_mut().zip(matrix.chunks_exact(cols)) {
            *number = row[col];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_definition_around_every_strip() {
        for (count, terms, width) in [(1, 1, 1), (3, 5, 7), (4, 2, 256), (9, 3, 257), (6, 0, 2)] {
            // Small integers: every sum is exact.
            let number = |i: usize, j: usize| ((i * 7 + j * 3) % 11) as f32 - 5.0;
            let rows: Vec<f32> = (0..terms * width)
                .map(|at| number(at / width, at % width + 1))
                .collect();
            let out = sums_of_rows(count, terms, width, number, &rows);
            for (at, sum) in out.iter().enumerate() {
                let (i, j) = (at / width, at % width);
                let expected: f32 = (0..terms).map(|k| number(i, k) * number(k, j + 1)).sum();
                assert_eq!(*sum, expected);
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        let matrix = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(transposed(&matrix, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
