//! Numbers that a seed decides, the same on every machine.

/// A generator of numbers that a seed decides: SplitMix64 (Steele, Lea, Flood, 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of a seed; seeds that are near give numbers that have nothing to do with each other.
    pub fn seeded(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number of `[0, 1)`: one of 2^53 at equal distances.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of `[-bound, bound)`: one of 2^24 at equal distances, which are all exact for a bound of 1.
    pub fn uniform(&mut self, bound: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        unit * bound
    }

    /// A number of the normal distribution around 0 with variance 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f32 {
        // The radius is that of a number of (0, 1], so that its logarithm is finite.
        let open = 1.0 - self.unit();
        let turn = self.unit();
        ((-2.0 * open.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first numbers of seed 1234567, as the authors' code gives them.
        let mut random = Random::seeded(1234567);
        let first = [(); 3].map(|()| random.bits());
        assert_eq!(
            first,
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423
            ]
        );
    }

    #[test]
    fn uniform_numbers_fill_their_range_evenly() {
        let mut random = Random::seeded(1);
        let numbers: Vec<f32> = (0..100_000).map(|_| random.uniform(3.0)).collect();
        assert!(numbers.iter().all(|number| (-3.0..3.0).contains(number)));
        // Of 100,000 a tenth has a standard deviation of 95; five of them are never seen.
        for tenth in 0..10 {
            let from = -3.0 + 0.6 * tenth as f32;
            let inside = |number: &&f32| (from..from + 0.6).contains(*number);
            let count = numbers.iter().filter(inside).count() as i64;
            assert!((count - 10_000).abs() < 475, "tenth {tenth} has {count}");
        }
    }

    #[test]
    fn normal_numbers_have_the_moments_of_their_distribution() {
        let mut random = Random::seeded(2);
        let numbers: Vec<f64> = (0..100_000).map(|_| f64::from(random.normal())).collect();
        let moment = |power| numbers.iter().map(|n| n.powi(power)).sum::<f64>() / 1e5;
        // Standard deviations of the mean moments: sqrt(1, 2, 96 / 1e5).
        assert!(moment(1).abs() < 5.0 * 0.00317);
        assert!((moment(2) - 1.0).abs() < 5.0 * 0.00448);
        assert!((moment(4) - 3.0).abs() < 5.0 * 0.031);
    }
}
