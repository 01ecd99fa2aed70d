//! Float weights to ternary ones: the mean magnitude is the scale, what is nearer to it than to 0 keeps its sign.
//!
//! `s = 1 / max(mean|W|, 1e-5)`, `code = clamp(round(W * s), -1, 1)`, ties to even, in floats of 32 bits: what the published
//! BitNet models compute. Here **a scale is what a code of 1 stands for**, `max(mean|W|, 1e-5)`; files that store its reciprocal
//! are read so (`dequantize.rs`). Weights that are all 0 have the floor for a scale and 0 for codes.

use super::{LayerError, WeightGranularity};
use rayon::prelude::*;

/// Below this a mean magnitude counts as this much, so that weights of zeros have a scale.
pub const ABSMEAN_FLOOR: f32 = 1e-5;

/// Weights that are summed before their sum is added to that of the blocks before.
const BLOCK: usize = 4096;

/// Sums that run side by side within a block.
const LANES: usize = 8;

/// The mean magnitude of weights that come in pieces.
///
/// Sums have 64 bits, and weight `i` always goes into the same sum: lane `i mod 8` of block `i div 4096`. So **pieces may be
/// cut anywhere and any number of threads gives the same bits.** Every sum has at most 512 terms within a block, so with the
/// up to 2^18 blocks of a billion weights a mean is off by less than 2^-34 of itself before it is rounded to 24 bits.
#[derive(Clone, Debug, Default)]
pub struct AbsMean {
    count: usize,
    /// The sum of the blocks that are full.
    full: f64,
    /// The lanes of the block that is not.
    open: [f64; LANES],
}

/// A weight that is infinite or no number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotFinite {
    /// How many weights came before it.
    pub at: usize,
    /// Its value.
    pub value: f32,
}

impl AbsMean {
    /// Takes the next weights.
    pub fn push(&mut self, weights: &[f32]) -> Result<(), NotFinite> {
        let before = self.count;
        let open = before % BLOCK;
        let head = (BLOCK - open) % BLOCK;
        let (head, rest) = weights.split_at(head.min(weights.len()));
        self.fill(head);
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        let sums = blocks.par_iter().with_min_len(16).map(block_sum);
        let sums: Vec<f64> = sums.collect();
        self.full = sums.iter().fold(self.full, |full, sum| full + sum);
        self.count += blocks.len() * BLOCK;
        self.fill(tail);
        // Finite floats of 32 bits are too small and too few for a sum of 64 bits that is not finite.
        if self.sum().is_finite() {
            return Ok(());
        }
        let at = weights.iter().position(|weight| !weight.is_finite());
        let at = at.expect("only a weight that is not finite makes such a sum");
        Err(NotFinite {
            at: before + at,
            value: weights[at],
        })
    }

    /// The scale of all weights so far.
    pub fn scale(&self) -> f32 {
        let mean = self.sum() / self.count.max(1) as f64;
        (mean as f32).max(ABSMEAN_FLOOR)
    }

    /// Takes weights that end within the open block or with it.
    fn fill(&mut self, weights: &[f32]) {
        add(&mut self.open, self.count % BLOCK, weights);
        self.count += weights.len();
        if self.count.is_multiple_of(BLOCK) {
            self.full += self.open.iter().sum::<f64>();
            self.open = [0.0; LANES];
        }
    }

    fn sum(&self) -> f64 {
        self.full + self.open.iter().sum::<f64>()
    }
}

fn block_sum(weights: &[f32; BLOCK]) -> f64 {
    let mut lanes = [0.0; LANES];
    add(&mut lanes, 0, weights);
    lanes.iter().sum()
}

/// Adds magnitudes to lanes; the first weight is number `at` of its block.
fn add(lanes: &mut [f64; LANES], at: usize, weights: &[f32]) {
    let head = at.next_multiple_of(LANES) - at;
    let (head, rest) = weights.split_at(head.min(weights.len()));
    for (lane, weight) in lanes.iter_mut().skip(at % LANES).zip(head) {
        *lane += f64::from(weight.abs());
    }
    let (whole, tail) = rest.as_chunks::<LANES>();
    for weights in whole {
        for (lane, weight) in lanes.iter_mut().zip(weights) {
            *lane += f64::from(weight.abs());
        }
    }
    for (lane, weight) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(weight.abs());
    }
}

/// Writes the codes of weights that share a scale.
pub fn codes(weights: &[f32], scale: f32, out: &mut [i8]) {
    let s = 1.0 / scale;
    for (code, weight) in out.iter_mut().zip(weights) {
        // The nearest integer is 0 up to a half, which is a tie and goes to the even 0; all beyond is clamped to 1.
        let scaled = weight * s;
        *code = i8::from(scaled > 0.5) - i8::from(scaled < -0.5);
    }
}

/// Float weights `[rows, cols]` as ternary ones. Having it is the proof that all are finite.
#[derive(Clone, Debug)]
pub struct Ternary<'w> {
    weights: &'w [f32],
    cols: usize,
    granularity: WeightGranularity,
    scales: Vec<f32>,
}

impl<'w> Ternary<'w> {
    /// Finds the scales of weights; these are whole rows of `cols`.
    pub fn of(
        weights: &'w [f32],
        cols: usize,
        granularity: WeightGranularity,
    ) -> Result<Ternary<'w>, LayerError> {
        let scale = |row: usize, col: usize, weights: &[f32]| {
            let mut mean = AbsMean::default();
            let pushed = mean.push(weights);
            pushed.map_err(|NotFinite { at, value }| LayerError::Weight {
                row: row + (col + at) / cols,
                col: (col + at) % cols,
                value,
            })?;
            Ok(mean.scale())
        };
        let scales = match granularity {
            WeightGranularity::Tensor => vec![scale(0, 0, weights)?],
            WeightGranularity::Row | WeightGranularity::Group(_) => {
                let group = granularity.group_cols(cols);
                let rows = weights.par_chunks_exact(cols).enumerate();
                let scales: Result<Vec<Vec<f32>>, LayerError> = rows
                    .map(|(row, weights)| {
                        let groups = weights.chunks(group).enumerate();
                        groups
                            .map(|(number, weights)| scale(row, number * group, weights))
                            .collect()
                    })
                    .collect();
                scales?.concat()
            }
        };
        Ok(Ternary {
            weights,
            cols,
            granularity,
            scales,
        })
    }

    /// The scales: one, or `[rows, groups]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Writes the codes of a row.
    pub fn codes(&self, row: usize, out: &mut [i8]) {
        let group = self.granularity.group_cols(self.cols);
        let weights = self.weights[row * self.cols..][..self.cols].chunks(group);
        for ((weights, out), scale) in weights.zip(out.chunks_mut(group)).zip(self.row_scales(row))
        {
            codes(weights, *scale, out);
        }
    }

    /// The scales of the groups of a row.
    pub fn row_scales(&self, row: usize) -> &[f32] {
        match self.granularity {
            WeightGranularity::Tensor => &self.scales,
            WeightGranularity::Row | WeightGranularity::Group(_) => {
                let groups = self.granularity.groups(self.cols);
                &self.scales[row * groups..][..groups]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    fn codes_of(weights: &[f32], scale: f32) -> Vec<i8> {
        let mut out = vec![9; weights.len()];
        codes(weights, scale, &mut out);
        out
    }

    /// Magnitudes from 2^-20 to 2^12, so that the order of a sum shows in its bits.
    fn weights(count: usize) -> Vec<f32> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let fraction = 1.0 + (state >> 41) as f32 / (1 << 23) as f32;
            let power = ((state >> 33) % 32) as i32 - 20;
            fraction * 2f32.powi(power) * if state >> 63 == 0 { 1.0 } else { -1.0 }
        };
        (0..count).map(next).collect()
    }

    fn scale_of_pieces<'w>(pieces: impl Iterator<Item = &'w [f32]>) -> f32 {
        let mut mean = AbsMean::default();
        for piece in pieces {
            mean.push(piece).unwrap();
        }
        mean.scale()
    }

    #[test]
    fn codes_are_what_rounding_and_clamping_give() {
        let mut near: Vec<f32> = weights(5000);
        for edge in [0.0, 0.5, 1.0, 1.5, f32::MAX] {
            near.extend([edge, edge.next_up().min(f32::MAX), edge.next_down()]);
        }
        for scale in [1.0, 0.3, 7.0, ABSMEAN_FLOOR] {
            let round = |weight: &f32| {
                let s = 1.0 / scale;
                (weight * s).round_ties_even().clamp(-1.0, 1.0) as i8
            };
            assert_eq!(
                codes_of(&near, scale),
                near.iter().map(round).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_tie_goes_to_the_even_code() {
        // Exactly half the mean is 0, exactly one and a half of it is 2 and clamped.
        let ties = [0.5, -0.5, 1.5, -1.5, 1.0];
        assert_eq!(codes_of(&ties, 1.0), [0, 0, 1, -1, 1]);
        assert_eq!(codes_of(&[0.5f32.next_up()], 1.0), [1]);
    }

    #[test]
    fn a_mean_of_tens_of_millions_is_exact_where_a_sum_of_32_bits_is_not() {
        let weights = vec![-0.1f32; 20_000_000];
        let naive: f32 = weights.iter().map(|weight| weight.abs()).sum();
        assert!(
            (naive / 2e7 - 0.1).abs() > 0.004,
            "the case shows nothing: {naive}"
        );
        assert_eq!(scale_of_pieces([&weights[..]].into_iter()), 0.1);
    }

    #[test]
    fn pieces_and_threads_change_no_bit_of_a_mean() {
        let weights = weights(3 * BLOCK * 16 + 1234);
        let mean = |weights: &[f32]| {
            let mut mean = AbsMean::default();
            mean.push(weights).unwrap();
            mean.sum().to_bits()
        };
        let whole = mean(&weights);
        for size in [1, 7, 8, 100, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3] {
            let mut pieces = AbsMean::default();
            for piece in weights.chunks(size) {
                pieces.push(piece).unwrap();
            }
            assert_eq!(pieces.sum().to_bits(), whole, "pieces of {size}");
        }
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            assert_eq!(pool.install(|| mean(&weights)), whole, "{threads} threads");
        }
    }

    #[test]
    fn weights_of_zeros_have_the_floor_for_a_scale() {
        for granularity in ["per_tensor", "per_row", "per_group_2"] {
            let ternary = Ternary::of(&[0.0; 12], 3, granularity.parse().unwrap()).unwrap();
            assert!(ternary.scales().iter().all(|scale| *scale == ABSMEAN_FLOOR));
            let mut codes = [9; 3];
            ternary.codes(3, &mut codes);
            assert_eq!(codes, [0; 3]);
        }
        assert_eq!(AbsMean::default().scale(), ABSMEAN_FLOOR);
    }

    #[test]
    fn weights_far_below_the_floor_are_zeros() {
        // 1e-34 is a number in 32 bits and in bfloat16; against the floor it is nothing.
        let weights = [1e-34, -1e-34];
        let ternary = Ternary::of(&weights, 2, WeightGranularity::Tensor).unwrap();
        assert_eq!(
            codes_of(&weights, ternary.scales()[0]),
            [0, 0],
            "{ternary:?}"
        );
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named() {
        for granularity in ["per_tensor", "per_row", "per_group_2", "per_group_3"] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut weights = [0.25; 20];
                weights[13] = value;
                let error = Ternary::of(&weights, 5, granularity.parse().unwrap()).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!(
                        "the weight in row 2, column 3 is {value}: only finite weights can be quantized"
                    )
                );
            }
        }
        let mut mean = AbsMean::default();
        mean.push(&[1.0; 5000]).unwrap();
        let found = mean.push(&[1.0, f32::INFINITY]).unwrap_err();
        assert_eq!(found.at, 5001);
        // The largest of all weights are finite, and so is their mean.
        assert_eq!(
            scale_of_pieces([&[f32::MAX; 100][..]].into_iter()),
            f32::MAX
        );
    }

    #[test]
    fn a_row_and_a_group_have_scales_of_their_own() {
        // [1 3 | 8] and [0 2 | 0]: means 4 and 2/3 by row; 2, 8, 1 and the floor by group.
        let weights = [1.0, -3.0, 8.0, 0.0, 2.0, 0.0];
        let rows = Ternary::of(&weights, 3, WeightGranularity::Row).unwrap();
        assert_eq!(rows.scales(), [4.0, 2.0 / 3.0]);
        let mut codes = [9; 3];
        rows.codes(0, &mut codes);
        assert_eq!(codes, [0, -1, 1]);
        let two = WeightGranularity::Group(NonZeroUsize::new(2).unwrap());
        let groups = Ternary::of(&weights, 3, two).unwrap();
        assert_eq!(groups.scales(), [2.0, 8.0, 1.0, ABSMEAN_FLOOR]);
        groups.codes(0, &mut codes);
        assert_eq!(codes, [0, -1, 1]);
        groups.codes(1, &mut codes);
        assert_eq!(codes, [0, 1, 0]);
    }
}
