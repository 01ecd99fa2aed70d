//! How the weights of a layer are held and multiplied.
//!
//! | written | weights | what they meet | stored beside them |
//! |---|---|---|---|
//! | `dense`, `dense_W` | 32 or W bits | the input as wide as it comes | the bias |
//! | `quantize`, `quantize_W`, `quantize_W_A` | W bits (8) | the input quantized to A bits (as wide as W) | the bias, two scales |
//! | `ternary`, `ternary_A` | 2 bits | the input quantized to A bits (8) | the bias, a scale; that of the input is found at run time |
//! | `SB_P` | a sign bit and a mask bit | the input as wide as it comes, on the share 1 - P of the MACs | the bias, a scale |
//!
//! A bias and a scale are as wide as the accumulator.

use super::operand::width;
use crate::formula::did_you_mean;
use crate::json::exact_number;
use crate::value::Value;
use std::fmt;

/// How the weights of a layer are held and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Weights of a width, inputs as they come.
    Dense {
        /// Bits of a weight.
        weight: u32,
    },
    /// Weights and inputs quantized.
    Quantize {
        /// Bits of a weight.
        weight: u32,
        /// Bits of an input.
        activation: u32,
    },
    /// Weights of -1, 0 and 1; inputs quantized.
    Ternary {
        /// Bits of an input.
        activation: u32,
    },
    /// Signed binary: a sign for each weight and a mask of those that are left.
    SignedBinary(Pruned),
}

/// A share of pruned weights, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruned {
    parts: u128,
    of: u128,
}

impl Pruned {
    /// So many parts of at least as many, of which there is at least one and at most a billion.
    pub fn new(parts: u128, of: u128) -> Option<Pruned> {
        (of > 0 && parts <= of && of <= MOST_PARTS).then_some(Pruned { parts, of })
    }
}

/// Bits of a ternary weight in storage and in a product.
const TERNARY_BITS: u32 = 2;
/// Bits of what quantized layers take, where nothing else is said.
const QUANTIZED_BITS: u32 = 8;
/// Bits of a dense weight, where nothing else is said.
const DENSE_BITS: u32 = 32;
/// The finest share that is read: a billionth.
const MOST_PARTS: u128 = 1_000_000_000;

/// The forms that can be written, for messages.
const FORMS: &str =
    "dense, dense_W, quantize, quantize_W, quantize_W_A, ternary, ternary_A, SB_P (P from 0 to 1)";

impl Precision {
    /// Reads `quantize_2_8` and the like.
    pub fn parse(text: &str) -> Result<Precision, String> {
        let mut parts = text.split('_');
        let name = parts.next().unwrap_or_default();
        let values: Vec<&str> = parts.collect();
        let wrong = || format!("`{}` is no precision; there are {FORMS}", shown(text));
        let bits = |text: &str| -> Result<u32, String> {
            let bits: u32 = text.parse().map_err(|_| wrong())?;
            width(bits).map_err(|fault| fault.to_string())
        };
        let bits_or = |i: usize, default| values.get(i).map_or(Ok(default), |text| bits(text));
        let most = |n: usize| {
            if values.len() > n {
                Err(wrong())
            } else {
                Ok(())
            }
        };
        match name {
            "dense" => {
                most(1)?;
                Ok(Precision::Dense {
                    weight: bits_or(0, DENSE_BITS)?,
                })
            }
            "quantize" => {
                most(2)?;
                let weight = bits_or(0, QUANTIZED_BITS)?;
                let activation = bits_or(1, weight)?;
                Ok(Precision::Quantize { weight, activation })
            }
            "ternary" => {
                most(1)?;
                Ok(Precision::Ternary {
                    activation: bits_or(0, QUANTIZED_BITS)?,
                })
            }
            "SB" => match values.as_slice() {
                [share] => pruned(share).ok_or_else(|| {
                    format!(
                        "`{}` prunes no share of its weights; write one from 0 to 1, such as SB_0.5",
                        shown(text)
                    )
                }),
                _ => Err(wrong()),
            },
            _ => Err(format!(
                "`{}` is no precision{}; there are {FORMS}",
                shown(text),
                did_you_mean(name, ["dense", "quantize", "ternary", "SB"])
            )),
        }
    }

    /// Bits of a weight in a product.
    pub fn weight_bits(self) -> u32 {
        match self {
            Precision::Dense { weight } | Precision::Quantize { weight, .. } => weight,
            Precision::Ternary { .. } => TERNARY_BITS,
            Precision::SignedBinary(_) => 1,
        }
    }

    /// Bits of a weight in storage: a signed binary one has its bit of the mask.
    pub fn stored_bits(self) -> u32 {
        match self {
            Precision::SignedBinary(_) => 2,
            other => other.weight_bits(),
        }
    }

    /// Bits that the input of a layer is quantized to, if it is.
    pub fn input_bits(self) -> Option<u32> {
        match self {
            Precision::Quantize { activation, .. } | Precision::Ternary { activation } => {
                Some(activation)
            }
            Precision::Dense { .. } | Precision::SignedBinary(_) => None,
        }
    }

    /// Scales that are stored with a layer.
    pub fn scales(self) -> u32 {
        match self {
            Precision::Dense { .. } => 0,
            Precision::Ternary { .. } | Precision::SignedBinary(_) => 1,
            Precision::Quantize { .. } => 2,
        }
    }

    /// The share of the MACs that is left, as numerator and denominator.
    pub fn kept(self) -> (u128, u128) {
        match self {
            Precision::SignedBinary(pruned) => (pruned.of - pruned.parts, pruned.of),
            _ => (1, 1),
        }
    }
}

/// At most so many characters of what was written are repeated.
fn shown(text: &str) -> String {
    crate::units::clipped(text, 40)
}

fn pruned(text: &str) -> Option<Precision> {
    let (pruned, of) = match exact_number(text)? {
        Value::Int(n @ 0..=1) => (n, 1),
        Value::Ratio(ratio) => ratio.parts(),
        _ => return None,
    };
    let pruned = Pruned::new(u128::try_from(pruned).ok()?, u128::try_from(of).ok()?)?;
    Some(Precision::SignedBinary(pruned))
}

impl Default for Precision {
    fn default() -> Precision {
        Precision::Dense { weight: DENSE_BITS }
    }
}

/// As it is written, in full but for what is usual.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Precision::Dense { weight: DENSE_BITS } => f.write_str("dense"),
            Precision::Dense { weight } => write!(f, "dense_{weight}"),
            Precision::Quantize { weight, activation } => {
                write!(f, "quantize_{weight}_{activation}")
            }
            Precision::Ternary {
                activation: QUANTIZED_BITS,
            } => f.write_str("ternary"),
            Precision::Ternary { activation } => write!(f, "ternary_{activation}"),
            Precision::SignedBinary(pruned) => {
                write!(f, "SB_{}", pruned.parts as f64 / pruned.of as f64)
            }
        }
    }
}

impl serde::Serialize for Precision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
