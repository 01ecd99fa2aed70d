//! What a model computes beside its products: sums, norms, gates, exponentials.
//!
//! Operands are rows that lie side by side. Where one is shorter, it is repeated: a gain of `[n]` meets `[tokens, n]`, which is
//! all the broadcasting that these models need.

use crate::wide::{Loop, wide};

/// Sums that run side by side, so that none waits for the one before; four of the widest vectors.
pub(super) const LANES: usize = 64;

/// `out += x`, `x` repeated.
pub fn add(out: &mut [f32], x: &[f32]) {
    struct Add<'x>(&'x mut [f32], &'x [f32]);
    impl Loop for Add<'_> {
        type Out = ();
        #[inline(always)]
        fn run(self) {
            for out in self.0.chunks_mut(self.1.len().max(1)) {
                out.iter_mut().zip(self.1).for_each(|(out, x)| *out += x);
            }
        }
    }
    wide(Add(out, x));
}

/// The sum of the squares of numbers.
pub fn sum_of_squares(x: &[f32]) -> f32 {
    struct Squares<'x>(&'x [f32]);
    impl Loop for Squares<'_> {
        type Out = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            let mut sums = [0.0; LANES];
            let (whole, rest) = self.0.as_chunks::<LANES>();
            for x in whole {
                sums.iter_mut()
                    .zip(x)
                    .for_each(|(sum, x)| *sum = x.mul_add(*x, *sum));
            }
            sums.iter_mut()
                .zip(rest)
                .for_each(|(sum, x)| *sum = x.mul_add(*x, *sum));
            total(&sums)
        }
    }
    wide(Squares(x))
}

/// Each row by the root of the mean of its squares, times a gain: `x / sqrt(mean(x^2) + eps) * gain`.
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    struct Scale<'x>(&'x [f32], &'x [f32], f32, &'x mut [f32]);
    impl Loop for Scale<'_> {
        type Out = ();
        #[inline(always)]
        fn run(self) {
            let Scale(x, gain, by, out) = self;
            for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
                *out = x * by * gain;
            }
        }
    }
    let cols = gain.len();
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)) {
        let mean = sum_of_squares(x) / cols as f32;
        wide(Scale(x, gain, 1.0 / (mean + eps).sqrt(), out));
    }
}

/// What a gate does to its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)^2`
    ReluSquared,
    /// `x / (1 + e^-x)`
    Silu,
}

impl Activation {
    /// All of them, by the names that configs have.
    pub const NAMES: [(&'static str, Activation); 3] = [
        ("relu2", Activation::ReluSquared),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
    ];
}

/// `out = activation(gate) * up`.
pub fn gate(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    struct Gate<'x, F>(&'x [f32], &'x [f32], &'x mut [f32], F);
    impl<F: Fn(f32) -> f32> Loop for Gate<'_, F> {
        type Out = ();
        #[inline(always)]
        fn run(self) {
            let Gate(gate, up, out, activation) = self;
            for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = activation(*gate) * up;
            }
        }
    }
    match activation {
        Activation::ReluSquared => wide(Gate(gate, up, out, |x: f32| {
            let x = if x > 0.0 { x } else { 0.0 };
            x * x
        })),
        Activation::Silu => wide(Gate(gate, up, out, |x: f32| x / (1.0 + exp(-x)))),
    }
}

/// The largest of some numbers; of none, minus infinity.
pub fn largest(x: &[f32]) -> f32 {
    struct Largest<'x>(&'x [f32]);
    impl Loop for Largest<'_> {
        type Out = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            let more = |most: f32, x: f32| if x > most { x } else { most };
            let mut most = [f32::NEG_INFINITY; LANES];
            let (whole, rest) = self.0.as_chunks::<LANES>();
            for x in whole {
                most.iter_mut()
                    .zip(x)
                    .for_each(|(most, x)| *most = more(*most, *x));
            }
            most.iter_mut()
                .zip(rest)
                .for_each(|(most, x)| *most = more(*most, *x));
            most.into_iter().fold(f32::NEG_INFINITY, more)
        }
    }
    wide(Largest(x))
}

/// `x = e^(x - most)`, and their sum: a softmax without its division.
pub fn exponentials(x: &mut [f32], most: f32) -> f32 {
    struct Exponentials<'x>(&'x mut [f32], f32);
    impl Loop for Exponentials<'_> {
        type Out = f32;
        #[inline(always)]
        fn run(self) -> f32 {
            let mut sums = [0.0; LANES];
            let (whole, rest) = self.0.as_chunks_mut::<LANES>();
            let each = |(sum, x): (&mut f32, &mut f32)| {
                *x = exp(*x - self.1);
                *sum += *x;
            };
            for x in whole {
                sums.iter_mut().zip(x).for_each(each);
            }
            sums.iter_mut().zip(rest).for_each(each);
            total(&sums)
        }
    }
    wide(Exponentials(x, most))
}

/// The sum of lanes, halves onto halves.
#[inline(always)]
pub(super) fn total(lanes: &[f32; LANES]) -> f32 {
    let mut lanes = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for at in 0..half {
            lanes[at] += lanes[at + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// `e^x` within two units of the last place, from `e^x = 2^n e^r` with `r` at most half a step of `n` from 0. Below -87.3 it is
/// the smallest normal number, above 88.3 the largest power: what is added up then does not change. Written out because the
/// library's is a call for each number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest integer in the low bits.
    const NEAREST: f32 = 12_582_912.0;
    // ln 2 in two parts: of the first the product with n is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, NEAREST);
    let n = shifted - NEAREST;
    let r = n.mul_add(-LN2[1], n.mul_add(-LN2[0], x));
    // Taylor's, with what minimizes the error on the interval.
    let p = [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
        1.0,
        1.0,
    ];
    let power = p
        .iter()
        .fold(1.987_569_1e-4f32, |sum, p| sum.mul_add(r, *p));
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    power * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, around: f32) -> Vec<f32> {
        let mut state = 7u64;
        let number = |_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * around
        };
        (0..count).map(number).collect()
    }

    #[test]
    fn exponentials_are_those_of_64_bits() {
        for x in numbers(if cfg!(miri) { 200 } else { 20_000 }, 87.0) {
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (ours / exact - 1.0).abs() < 2.4e-7,
                "e^{x} is {exact}, not {ours}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1.3e-38 && exp(f32::NEG_INFINITY) < 1.3e-38);
    }

    #[test]
    fn a_softmax_sums_to_one_whatever_is_added() {
        for (count, shift) in [(1, 0.0), (63, 10.0), (64, -50.0), (200, 1e4)] {
            let mut x: Vec<f32> = numbers(count, 5.0).iter().map(|x| x + shift).collect();
            let exact: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let most = exact.iter().fold(f64::MIN, |most, x| most.max(*x));
            assert_eq!(f64::from(largest(&x)), most);
            let most = largest(&x);
            let sum = f64::from(exponentials(&mut x, most));
            let exact_sum: f64 = exact.iter().map(|x| (x - f64::from(most)).exp()).sum();
            assert!((sum / exact_sum - 1.0).abs() < 1e-6);
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn norms_and_gates_are_those_of_64_bits() {
        for cols in [1, 3, 63, 64, 65, 344] {
            let (x, gain) = (numbers(2 * cols, 3.0), numbers(cols, 1.0));
            let mut out = vec![9.0; 2 * cols];
            rms_norm(&x, &gain, 1e-5, &mut out);
            for (x, out) in x.chunks(cols).zip(out.chunks(cols)) {
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / cols as f64;
                for ((x, gain), out) in x.iter().zip(&gain).zip(out) {
                    let exact = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*gain);
                    assert!(
                        (f64::from(*out) - exact).abs() < 1e-6,
                        "{out} is not {exact}"
                    );
                }
            }
            let up = numbers(2 * cols, 2.0);
            gate(Activation::ReluSquared, &x, &up, &mut out);
            for ((x, up), out) in x.iter().zip(&up).zip(&out) {
                assert_eq!(*out, x.max(0.0) * x.max(0.0) * up);
            }
            gate(Activation::Silu, &x, &up, &mut out);
            for ((x, up), out) in x.iter().zip(&up).zip(&out) {
                let exact = f64::from(*x) / (1.0 + (-f64::from(*x)).exp()) * f64::from(*up);
                assert!(
                    (f64::from(*out) - exact).abs() < 2e-6,
                    "{out} is not {exact}"
                );
            }
        }
    }

    #[test]
    fn what_is_shorter_is_repeated() {
        let mut out = vec![1.0, 2.0, 3.0, 4.0];
        add(&mut out, &[10.0, 20.0]);
        assert_eq!(out, [11.0, 22.0, 13.0, 24.0]);
        add(&mut out, &[1.0, 1.0, 1.0, 1.0]);
        assert_eq!(out, [12.0, 23.0, 14.0, 25.0]);
    }
}
