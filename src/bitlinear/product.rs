//! Products of float matrices, for training: one loop, which all three products of a layer are.
//!
//! Every output is a row of sums, `out[i] = sum over k of factor(i, k) * rows[k]`, so the innermost loop runs over neighbours in
//! memory and becomes vectors without changing the order of a sum. **Terms are added in the order of k, whatever the threads.**

use rayon::prelude::*;

/// Rows of the output that share what is read of `rows`.
const TOGETHER: usize = 8;

/// Columns of the output that are summed before the next: with [`TOGETHER`] rows they stay in the nearest cache.
const COLUMNS: usize = 512;

/// Terms that a sum takes while it is in a register.
const TERMS: usize = 8;

/// Columns of a matrix that are turned at once: each is a stream that is written.
const TURNED: usize = 16;

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
        let factor = |i: usize, k: usize| factor(strip * TOGETHER + i, k);
        for from in (0..width).step_by(COLUMNS) {
            let columns = from..width.min(from + COLUMNS);
            let row = |k: usize| &rows[k * width..][columns.clone()];
            let whole = terms - terms % TERMS;
            for k in (0..whole).step_by(TERMS) {
                let terms: [usize; TERMS] = std::array::from_fn(|step| k + step);
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let factors = terms.map(|k| factor(i, k));
                    add_rows(&mut out[columns.clone()], terms.map(row), factors);
                }
            }
            for k in whole..terms {
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    add_rows(&mut out[columns.clone()], [row(k)], [factor(i, k)]);
                }
            }
        }
    });
    out
}

/// Adds rows times their factors to sums, one after the other.
#[inline(always)]
fn add_rows<const N: usize>(sums: &mut [f32], rows: [&[f32]; N], factors: [f32; N]) {
    let rows = rows.map(|row| &row[..sums.len()]);
    for (at, sum) in sums.iter_mut().enumerate() {
        let terms = rows.iter().zip(factors);
        *sum = terms.fold(*sum, |sum, (row, factor)| sum + factor * row[at]);
    }
}

/// `[rows, cols]` to `[cols, rows]`.
pub(super) fn transposed(matrix: &[f32], cols: usize) -> Vec<f32> {
    let rows = matrix.len() / cols;
    let mut out = vec![0.0; matrix.len()];
    let strips = out.par_chunks_mut(TURNED * rows).enumerate();
    strips.for_each(|(strip, out)| {
        for (row, numbers) in matrix.chunks_exact(cols).enumerate() {
            let numbers = &numbers[strip * TURNED..];
            for (out, number) in out.chunks_exact_mut(rows).zip(numbers) {
                out[row] = *number;
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_definition_around_every_strip() {
        let sizes = [
            (1, 1, 1),
            (3, 7, 7),
            (8, 8, 512),
            (17, 9, 513),
            (6, 0, 2),
            (2, 27, 40),
        ];
        for (count, terms, width) in sizes {
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
        let long: Vec<f32> = (0..3 * 37).map(|at| at as f32).collect();
        let turned = transposed(&long, 37);
        assert!((0..3 * 37).all(|at| turned[at % 37 * 3 + at / 37] == long[at]));
    }
}
