//! Sums and extremes of a weight, in an order that only its shape gives.
//!
//! A block is summed in 8 lanes: number `i` of a block goes to lane `i mod 8`, the lanes of a block are added from the
//! first to the last, and so are blocks, which of weights that are stored transposed are tiles. Numbers that are not finite are left out. Multiplying and adding are two roundings
//! everywhere, so no machine's fused operation changes a bit. Codes of eight bits have no blocks: of them it is known how
//! often each is there, and their numbers times that are added from code 0 to code 255 (`bytes.rs`).

use super::super::packed::value;
use super::wide::{Code, LANES, Lane, Sums};
use crate::dtype::StoredType;

/// Numbers that are made of codes at a time.
const RUN: usize = 512;

/// Sums and extremes over finite numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// How many numbers are finite.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their magnitudes.
    pub sum_magnitudes: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// The smallest; infinity where there is none.
    pub min: f64,
    /// The largest; minus infinity where there is none.
    pub max: f64,
}

impl Moments {
    /// Of no number.
    pub(super) const NONE: Moments = Moments {
        count: 0,
        sum: 0.0,
        sum_magnitudes: 0.0,
        sum_squares: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    /// Of a number that is so many times there.
    pub(super) fn of_equal(number: f64, count: u64) -> Moments {
        let times = count as f64;
        Moments {
            count,
            sum: times * number,
            sum_magnitudes: times * number.abs(),
            sum_squares: times * (number * number),
            min: number,
            max: number,
        }
    }

    /// Of the codes of a block.
    pub(super) fn of_codes<C: Code>(codes: &[C], dtype: StoredType, all_finite: bool) -> Moments {
        let long = |code: C| code.lane().long();
        if !all_finite {
            return Moments::of(codes.iter().map(|code| value(long(*code), dtype)));
        }
        let short = |code: C| long(code) as u32;
        match dtype.name {
            "F32" => Moments::of_finite(codes, |code: C| f32::from_bits(short(code))),
            "BF16" => Moments::of_finite(codes, |code: C| f32::from_bits(short(code) << 16)),
            "F16" => Moments::of_finite(codes, |code: C| half(short(code))),
            // Floats of 64 bits and wide integers do not fit into 32.
            _ => Moments::of(codes.iter().map(|code| value(long(*code), dtype))),
        }
    }

    /// Of codes whose numbers are all finite and fit into 32 bits: the same sums, faster.
    fn of_finite<C: Code>(codes: &[C], number: impl Fn(C) -> f32) -> Moments {
        let mut sums = Sums::NONE;
        let mut numbers = [0.0; RUN];
        let (runs, rest) = codes.as_chunks::<LANES>();
        for codes in codes[..runs.len() * LANES].chunks(RUN) {
            for (out, code) in numbers.iter_mut().zip(codes) {
                *out = number(*code);
            }
            sums.add(numbers[..codes.len()].as_chunks::<LANES>().0);
        }
        let lanes: [Moments; LANES] = std::array::from_fn(|lane| {
            let own = Moments {
                count: runs.len() as u64,
                sum: sums.sum[lane],
                sum_magnitudes: sums.magnitudes[lane],
                sum_squares: sums.squares[lane],
                min: sums.min[lane].into(),
                max: sums.max[lane].into(),
            };
            match rest.get(lane) {
                Some(code) => own.and_number(number(*code).into()),
                None => own,
            }
        });
        lanes.iter().fold(Moments::NONE, Moments::and)
    }

    fn and_number(self, number: f64) -> Moments {
        Moments {
            count: self.count + 1,
            sum: self.sum + number,
            sum_magnitudes: self.sum_magnitudes + number.abs(),
            sum_squares: self.sum_squares + number * number,
            min: self.min.min(number),
            max: self.max.max(number),
        }
    }

    /// Of the numbers of a block, which need not be finite.
    pub(super) fn of(numbers: impl Iterator<Item = f64>) -> Moments {
        let mut lanes = [Moments::NONE; LANES];
        for (at, number) in numbers.enumerate().filter(|(_, n)| n.is_finite()) {
            lanes[at % LANES] = lanes[at % LANES].and_number(number);
        }
        lanes.iter().fold(Moments::NONE, Moments::and)
    }

    /// Together with what comes after.
    pub(super) fn and(self, next: &Moments) -> Moments {
        Moments {
            count: self.count + next.count,
            sum: self.sum + next.sum,
            sum_magnitudes: self.sum_magnitudes + next.sum_magnitudes,
            sum_squares: self.sum_squares + next.sum_squares,
            // The sum with 0 makes -0 into 0: which of two zeros is the smaller is nobody's to say.
            min: self.min.min(next.min) + 0.0,
            max: self.max.max(next.max) + 0.0,
        }
    }
}

/// A finite half: exponent and fraction moved to their places in 32 bits, and the difference of the two biases, 112, as a
/// factor. That is exact, subnormal numbers too.
fn half(code: u32) -> f32 {
    let factor = f32::from_bits((112 + 127) << 23);
    let magnitude = f32::from_bits((code & 0x7fff) << 13) * factor;
    f32::from_bits(magnitude.to_bits() | (code & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finite_numbers_are_summed_as_all_are(
            numbers in prop::collection::vec(-1e30f32..1e30, 0..200),
        ) {
            let bits = |m: Moments| {
                let sums = [m.sum, m.sum_magnitudes, m.sum_squares, m.min, m.max];
                (m.count, sums.map(f64::to_bits))
            };
            let plain = Moments::of(numbers.iter().map(|n| f64::from(*n)));
            let lanes = Moments::of_finite(&numbers, |n: f32| n);
            prop_assert_eq!(bits(plain), bits(lanes));
        }
    }

    #[test]
    fn a_finite_half_is_what_the_table_of_dtypes_says() {
        let dtype = StoredType::named("F16").expect("a dtype");
        for code in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(
                f64::from(half(code)),
                value(code.into(), dtype),
                "{code:#x}"
            );
        }
    }
}
