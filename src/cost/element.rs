//! What one element of an elementwise operation costs: FLOPs, and bit operations by the `accum` convention.
//!
//! Bit operations are built from four costs of schoolbook arithmetic on numbers of `a` and `b` bits, which are those of the
//! estimator that this command follows:
//!
//! - a sum passes over the wider number and its carry: `2 max(a, b)`
//! - a product meets every bit of one with every bit of the other: `a b`; a quotient is counted as a product
//! - `exp` is a power series of five terms: five products `b b`, and six sums of `b` (carries not counted): `5 b b + 6 b`
//! - a comparison and a sign cost nothing, so `relu` is free
//!
//! What the original does not have (gelu, silu, softplus, rope, norms of batches, pooling) is composed of the same parts.
//! A number that stands beside the tensor, such as a scale or a 1, is as wide as the accumulator.
//!
//! FLOPs count one for a pointwise function, whatever is in it; norms and softmax count their passes. They are said here a
//! second time, independently of the database's `$elementwise`; `tests/estimate.rs` holds the two equal.

use crate::bops::{ACCUMULATOR_BITS, Bops};

/// An operation on elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `x + y`.
    Add,
    /// `x - y`.
    Sub,
    /// `x * y`.
    Mul,
    /// A product with a number that all elements share.
    Scale,
    /// A bias added where the sum stands anyway.
    Bias,
    /// `e ** x`.
    Exp,
    /// `x ** n` by squaring, for n of 1 or more.
    Pow(u32),
    /// The n-th root, for n of 1 or more.
    Root(u32),
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0) ** 2`.
    Relu2,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`.
    Tanh,
    /// `x * Phi(x)`, by its form with tanh.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `log(1 + exp(x))`.
    Softplus,
    /// `exp(x) / sum exp(x)`.
    Softmax,
    /// Mean 0 and variance 1, gain and shift.
    LayerNorm,
    /// `x / rms(x)` times a gain.
    RmsNorm,
    /// A gain and a shift per channel, from stored statistics.
    BatchNorm,
    /// `x cos + rotated x sin`.
    Rope,
    /// The largest of a window; per input.
    MaxPool,
    /// The mean of a window; per input.
    AvgPool,
    /// A division by the scale, before an integer product.
    Quantize,
    /// A product with the scale, behind one.
    Rescale,
    /// Nothing but a move: padding, joining, looking up.
    Move,
}

/// Widths that meet in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Of the tensor.
    pub left: u32,
    /// Of the tensor that it meets, if it meets one.
    pub right: u32,
    /// Of the accumulator, and so of scales and other single numbers.
    pub wide: u32,
}

impl Widths {
    /// Of a tensor that meets none, beside an accumulator of the usual width.
    pub fn of(bits: u32) -> Widths {
        Widths {
            left: bits,
            right: bits,
            wide: ACCUMULATOR_BITS,
        }
    }
}

/// The pointwise functions that a block can take by name.
pub const ACTIVATIONS: [(&str, Element); 8] = [
    ("relu", Element::Relu),
    ("relu2", Element::Relu2),
    ("sigmoid", Element::Sigmoid),
    ("tanh", Element::Tanh),
    ("gelu", Element::Gelu),
    ("silu", Element::Silu),
    ("softplus", Element::Softplus),
    ("identity", Element::Identity),
];

/// The pointwise function of a name.
pub fn activation(name: &str) -> Option<Element> {
    let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, element)| *element)
}

fn add(a: u32, b: u32) -> u128 {
    2 * u128::from(a.max(b))
}

fn mul(a: u32, b: u32) -> u128 {
    u128::from(a) * u128::from(b)
}

/// A power series of five terms.
fn series(b: u32) -> u128 {
    5 * mul(b, b) + 6 * u128::from(b)
}

/// Squarings up to the highest bit of the exponent, and a product for each bit set below it.
fn pow(b: u32, exponent: u32) -> u128 {
    let squarings = exponent.max(1).ilog2();
    let products = exponent.count_ones().saturating_sub(1);
    mul(b, b) * u128::from(squarings + products)
}

impl Element {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        if let Some((name, _)) = ACTIVATIONS.iter().find(|(_, element)| *element == self) {
            return name;
        }
        match self {
            Element::Add => "add",
            Element::Sub => "sub",
            Element::Mul => "mul",
            Element::Scale => "scale",
            Element::Bias => "bias",
            Element::Exp => "exp",
            Element::Pow(_) => "pow",
            Element::Root(_) => "root",
            Element::Softmax => "softmax",
            Element::LayerNorm => "layer_norm",
            Element::RmsNorm => "rms_norm",
            Element::BatchNorm => "batch_norm",
            Element::Rope => "rope",
            Element::MaxPool => "max_pool",
            Element::AvgPool => "avg_pool",
            Element::Quantize => "quantize",
            Element::Rescale => "rescale",
            Element::Move => "move",
            _ => "activation",
        }
    }

    /// FLOPs of an element.
    pub fn flops(self) -> u128 {
        match self {
            // Mean, variance, subtract, divide, gain and shift.
            Element::LayerNorm => 5,
            // Exponentiate, sum, divide; square and sum, scale, gain; two products and a sum.
            Element::Softmax | Element::RmsNorm | Element::Rope => 3,
            // A gain and a shift.
            Element::BatchNorm => 2,
            Element::Move | Element::Identity => 0,
            _ => 1,
        }
    }

    /// Bit operations of an element, by `accum`.
    pub fn bops(self, widths: Widths) -> Bops {
        let Widths {
            left: b,
            right,
            wide,
        } = widths;
        let sigmoid = series(b) + add(b, wide) + mul(b, wide);
        let tanh = 2 * series(b) + 2 * add(b, wide) + mul(b, wide);
        Bops::Whole(match self {
            Element::Add | Element::Sub => add(b, right),
            Element::Mul => mul(b, right),
            Element::Scale | Element::Quantize | Element::Rescale => mul(b, wide),
            Element::Bias => add(b, wide),
            Element::Exp => series(b),
            Element::Pow(exponent) => pow(b, exponent),
            // A root takes `b b` for each halving of the exponent, which need not be whole.
            Element::Root(exponent) => match exponent.max(1) {
                n if n.is_power_of_two() => mul(b, b) * u128::from(n.ilog2()),
                n => return Bops::Real(mul(b, b) as f64 * f64::from(n).log2()),
            },
            Element::Identity | Element::Relu | Element::MaxPool | Element::Move => 0,
            Element::Relu2 => pow(b, 2),
            Element::Sigmoid => sigmoid,
            Element::Tanh => tanh,
            // x / 2 * (1 + tanh(c * (x + d * x ** 3))): a cube, products with d, c, x and 1/2, two sums.
            Element::Gelu => {
                pow(b, 3) + 3 * mul(b, wide) + mul(b, b) + add(b, b) + add(b, wide) + tanh
            }
            Element::Silu => sigmoid + mul(b, b),
            // The logarithm is a series as exp is.
            Element::Softplus => 2 * series(b) + add(b, wide),
            Element::Softmax => series(b) + add(b, b) + mul(b, b),
            // Sums: of the mean, less the mean, of the variance, its epsilon, shift. Products: by the count twice, the
            // square, by the deviation, gain.
            Element::LayerNorm => 5 * add(b, b) + 4 * mul(b, b) + pow(b, 2),
            // The square and its sum, by the root, gain.
            Element::RmsNorm => pow(b, 2) + add(b, b) + 2 * mul(b, b),
            Element::BatchNorm => mul(b, wide) + add(b, wide),
            Element::Rope => 2 * mul(b, wide) + add(b, b),
            Element::AvgPool => add(b, b),
        })
    }

    /// Bit operations of each feature of a norm, once a call: the original takes the root once per feature, and RMSNorm
    /// divides by the count once more.
    pub fn bops_of_feature(self, widths: Widths) -> u128 {
        let root = mul(widths.left, widths.left);
        match self {
            Element::LayerNorm => root,
            Element::RmsNorm => root + mul(widths.left, widths.wide),
            _ => 0,
        }
    }
}
