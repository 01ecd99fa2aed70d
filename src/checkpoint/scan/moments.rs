//! Sums and extremes of a weight, in an order that only its shape gives.
//!
//! A block is summed in 8 lanes: number `i` of a block goes to lane `i mod 8`, the lanes of a block are added from the
//! first to the last, and so are blocks. Numbers that are not finite are left out. Multiplying and adding are two roundings
//! everywhere, so no machine's fused operation changes a bit.

use super::super::packed::value;
use super::wide::{Code, Lane, Sums, widest};
use crate::dtype::StoredType;

/// Running sums beside each other.
pub(super) const LANES: usize = 8;

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

    /// Of the codes of a block.
    pub(super) fn of_codes<C: Code>(codes: &[C], dtype: StoredType, all_finite: bool) -> Moments {
        let long = |code: C| code.lane().long();
        if !all_finite {
            return Moments::of(codes.iter().map(|code| value(long(*code), dtype)));
        }
        if dtype.bits == 8 {
            let table: Vec<f64> = (0..256).map(|code| value(code, dtype)).collect();
            let number = |code: C| table[(long(code) & 255) as usize];
            return widest(Sums { codes, number });
        }
        match dtype.name {
            "F64" => widest(Sums {
                codes,
                number: |code: C| f64::from_bits(long(code)),
            }),
            "F32" => widest(Sums {
                codes,
                number: |code: C| f32::from_bits(long(code) as u32).into(),
            }),
            "BF16" => widest(Sums {
                codes,
                number: |code: C| f32::from_bits((long(code) as u32) << 16).into(),
            }),
            "F16" => widest(Sums {
                codes,
                number: |code: C| half(long(code) as u32).into(),
            }),
            _ => widest(Sums {
                codes,
                number: |code: C| value(long(code), dtype),
            }),
        }
    }

    /// Of the numbers of a block, which need not be finite.
    pub(super) fn of(numbers: impl Iterator<Item = f64>) -> Moments {
        let mut lanes = [Moments::NONE; LANES];
        for (at, number) in numbers.enumerate() {
            if number.is_finite() {
                let lane = &mut lanes[at % LANES];
                lane.count += 1;
                lane.sum += number;
                lane.sum_magnitudes += number.abs();
                lane.sum_squares += number * number;
                lane.min = lane.min.min(number);
                lane.max = lane.max.max(number);
            }
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
