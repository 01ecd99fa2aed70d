//! Sums and extremes of a weight, in an order that only its shape gives.
//!
//! A block is summed in 16 lanes: number `i` of a block goes to lane `i mod 16`, the lanes of a block are added from the
//! first to the last, and so are blocks. Numbers that are not finite are left out. Multiplying and adding are two roundings
//! everywhere, so no machine's fused operation changes a bit.

/// Running sums beside each other.
const LANES: usize = 16;

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

    /// Of the numbers of a block.
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
            min: self.min.min(next.min),
            max: self.max.max(next.max),
        }
    }
}
