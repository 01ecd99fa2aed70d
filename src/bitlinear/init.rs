//! The weights that training begins with, from a seed.

/// How a layer's weights and bias begin. `fan_in` are its inputs, `fan_out` its outputs; numbers are uniform in
/// `[-bound, bound)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// Glorot and Bengio, 2010: weights have `bound = sqrt(6 / (fan_in + fan_out))`, a bias is 0. torch's
    /// `xavier_uniform_` with a gain of 1.
    #[default]
    XavierUniform,
    /// He et al., 2015, as torch's `nn.Linear` takes it, with a slope of `sqrt(5)`: `sqrt(3) * sqrt(2 / (1 + 5)) /
    /// sqrt(fan_in)`, so weights have `bound = 1 / sqrt(fan_in)`, and a bias has the same.
    KaimingUniform,
}

impl Init {
    /// The bounds of the weights and of the bias.
    pub fn bounds(self, in_features: usize, out_features: usize) -> (f32, f32) {
        let (fan_in, fan_out) = (in_features as f64, out_features as f64);
        match self {
            Init::XavierUniform => ((6.0 / (fan_in + fan_out)).sqrt() as f32, 0.0),
            Init::KaimingUniform => {
                let bound = (1.0 / fan_in.sqrt()) as f32;
                (bound, bound)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_papers() {
        // sqrt(6 / (10 + 14)) and 1 / sqrt(16).
        assert_eq!(Init::XavierUniform.bounds(10, 14), (0.5, 0.0));
        assert_eq!(Init::KaimingUniform.bounds(16, 3), (0.25, 0.25));
    }
}
