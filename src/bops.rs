//! Bit operations: the definitions in use, by name, and what multiply-accumulates cost by each of them.
//!
//! Counts and widths in, a number out; whole wherever the definition is one of whole numbers. **Definitions are never mixed
//! in one column.**

use std::fmt;

/// A definition of bit operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BopsKey {
    /// MACs of non-zero weights on live inputs x weight bits x activation bits.
    LiveNnz,
    /// MACs of non-zero weights x weight bits x activation bits.
    Density,
    /// MACs of live outputs with live inputs x weight bits x activation bits.
    Structured,
    /// Dense MACs x weight bits x activation bits.
    Product,
    /// Dense MACs x (product + both widths + log2 of the sum's terms).
    Uniq,
    /// The same, with the product on non-zero weights only.
    Psqs,
    /// Dense MACs x (product + two accumulators of 32 bits).
    Accum,
}

impl BopsKey {
    /// Every key with its name.
    pub const ALL: [(&'static str, BopsKey); 7] = [
        ("live-nnz", BopsKey::LiveNnz),
        ("density", BopsKey::Density),
        ("structured", BopsKey::Structured),
        ("product", BopsKey::Product),
        ("uniq", BopsKey::Uniq),
        ("psqs", BopsKey::Psqs),
        ("accum", BopsKey::Accum),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        BopsKey::ALL
            .iter()
            .find(|(_, key)| *key == self)
            .map_or("", |(name, _)| name)
    }
}

/// Bits of an accumulator where nothing else is said.
pub const ACCUMULATOR_BITS: u32 = 32;

/// Multiply-accumulates, as the definitions see them.
#[derive(Clone, Copy, Debug)]
pub struct Multiplied {
    /// MACs whose product counts.
    pub products: u128,
    /// MACs whose sum counts.
    pub sums: u128,
    /// Terms of one sum: inputs of a group x taps.
    pub terms: f64,
    /// Width of one side.
    pub weight_bits: u32,
    /// Width of the other.
    pub activation_bits: u32,
    /// Width of the accumulator.
    pub accumulator_bits: u32,
}

impl Multiplied {
    /// Their bit operations by a definition; `None` where the number does not fit.
    pub fn bops(&self, key: BopsKey) -> Option<Bops> {
        let product = u128::from(self.weight_bits) * u128::from(self.activation_bits);
        let widths = f64::from(self.weight_bits) + f64::from(self.activation_bits);
        let carry = if self.terms > 0.0 {
            self.terms.log2()
        } else {
            0.0
        };
        let sums = self.sums as f64;
        let bops = match key {
            BopsKey::LiveNnz | BopsKey::Density | BopsKey::Structured | BopsKey::Product => {
                Bops::Whole(self.products.checked_mul(product)?)
            }
            BopsKey::Accum => {
                let each = product + 2 * u128::from(self.accumulator_bits);
                Bops::Whole(self.sums.checked_mul(each)?)
            }
            BopsKey::Uniq => Bops::Real(sums * (product as f64 + widths + carry)),
            BopsKey::Psqs => {
                Bops::Real(self.products as f64 * product as f64 + sums * (widths + carry))
            }
        };
        Some(bops)
    }
}

/// Bit operations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bops {
    /// A whole number.
    Whole(u128),
    /// A numerator over a denominator that does not divide it, reduced: where a share of MACs counts.
    Ratio(u128, u128),
    /// By a definition with a logarithm.
    Real(f64),
}

impl Bops {
    /// As a float, for ratios.
    pub fn to_f64(self) -> f64 {
        match self {
            Bops::Whole(n) => n as f64,
            Bops::Ratio(n, d) => n as f64 / d as f64,
            Bops::Real(x) => x,
        }
    }

    /// The nearest whole number, for people.
    pub fn rounded(self) -> u128 {
        match self {
            Bops::Whole(n) => n,
            Bops::Ratio(n, d) => n / d + u128::from(n % d >= d.div_ceil(2)),
            Bops::Real(x) => x.round().max(0.0) as u128,
        }
    }

    /// The sum, held at the largest number there is.
    #[must_use]
    pub fn plus(self, other: Bops) -> Bops {
        self.checked_plus(other).unwrap_or(Bops::Whole(u128::MAX))
    }

    /// The sum, if it fits.
    pub fn checked_plus(self, other: Bops) -> Option<Bops> {
        if let (Bops::Whole(a), Bops::Whole(b)) = (self, other) {
            return a.checked_add(b).map(Bops::Whole);
        }
        let (Some((a, over_a)), Some((b, over_b))) = (self.parts(), other.parts()) else {
            return Some(Bops::Real(self.to_f64() + other.to_f64()));
        };
        let common = over_a
            .checked_div(gcd(over_a, over_b))?
            .checked_mul(over_b)?;
        let a = a.checked_mul(common / over_a)?;
        let b = b.checked_mul(common / over_b)?;
        Some(Bops::Whole(a.checked_add(b)?).over(common))
    }

    /// So many times as much, if it fits.
    pub fn times(self, n: u128) -> Option<Bops> {
        match self {
            Bops::Whole(one) => one.checked_mul(n).map(Bops::Whole),
            Bops::Ratio(one, over) => Some(Bops::Whole(one.checked_mul(n)?).over(over)),
            Bops::Real(one) => Some(Bops::Real(one * n as f64)),
        }
    }

    /// Divided by a number that is not 0.
    #[must_use]
    pub fn over(self, n: u128) -> Bops {
        match self {
            Bops::Whole(parts) => {
                let common = gcd(parts, n);
                match n / common {
                    1 => Bops::Whole(parts / common),
                    over => Bops::Ratio(parts / common, over),
                }
            }
            Bops::Ratio(parts, over) => match over.checked_mul(n) {
                Some(over) => Bops::Whole(parts).over(over),
                None => Bops::Real(self.to_f64() / n as f64),
            },
            Bops::Real(x) => Bops::Real(x / n as f64),
        }
    }

    /// Numerator and denominator.
    fn parts(self) -> Option<(u128, u128)> {
        match self {
            Bops::Whole(n) => Some((n, 1)),
            Bops::Ratio(n, over) => Some((n, over)),
            Bops::Real(_) => None,
        }
    }
}

/// The greatest common divisor; at least one of the two is not 0.
fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// Raw digits, the shortest that read back as the same number.
impl fmt::Display for Bops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bops::Whole(n) => n.fmt(f),
            Bops::Ratio(..) | Bops::Real(_) => self.to_f64().fmt(f),
        }
    }
}

impl serde::Serialize for Bops {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Bops::Whole(n) => serializer.serialize_u128(*n),
            Bops::Ratio(..) | Bops::Real(_) => serializer.serialize_f64(self.to_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_macs_add_up_exactly() {
        let third = Bops::Whole(1).over(3);
        assert_eq!(third, Bops::Ratio(1, 3));
        assert_eq!(third.times(3), Some(Bops::Whole(1)));
        let half = Bops::Whole(10).over(20);
        assert_eq!(third.checked_plus(half), Some(Bops::Ratio(5, 6)));
        assert_eq!(half.plus(half), Bops::Whole(1));
        assert_eq!(Bops::Ratio(5, 6).rounded(), 1);
        assert_eq!(Bops::Whole(0).over(7), Bops::Whole(0));
    }

    #[test]
    fn what_does_not_fit_is_told_or_held() {
        let most = Bops::Whole(u128::MAX);
        assert_eq!(most.checked_plus(Bops::Whole(1)), None);
        assert_eq!(most.times(2), None);
        assert_eq!(most.plus(Bops::Whole(1)), most);
    }
}
