//! MACs and bit operations of a layer by each of the definitions in use.
//!
//! All start from dense MACs = elements of the weight x positions. **Definitions are never mixed in one column.**

use super::layers::Plan;
use super::scanned::Counted;
use crate::channels::Channels;

/// MACs of a layer by what is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Macs {
    /// All of them.
    pub dense: u128,
    /// Of non-zero weights that read a live input.
    pub live_nnz: u128,
    /// Of non-zero weights.
    pub density: u128,
    /// Of live outputs with live inputs.
    pub structured: u128,
}

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

    /// The MACs that go with it.
    pub fn macs(self, macs: &Macs) -> u128 {
        match self {
            BopsKey::LiveNnz => macs.live_nnz,
            BopsKey::Density | BopsKey::Psqs => macs.density,
            BopsKey::Structured => macs.structured,
            BopsKey::Product | BopsKey::Uniq | BopsKey::Accum => macs.dense,
        }
    }
}

/// Bits of an accumulator in the `accum` definition.
const ACCUMULATOR_BITS: u128 = 32;

/// MACs of a layer; where nothing was counted, every weight counts.
pub(super) fn macs(plan: &Plan, counted: Option<&Counted>) -> Macs {
    let elements: u128 = plan.shape.iter().map(|side| u128::from(*side)).product();
    let of = |weights: u128| scaled(plan.dense, weights, elements);
    let (density, live_nnz) = match counted {
        None => (elements, elements),
        Some(c) => {
            let on_null: u64 = plan
                .null_in
                .iter()
                .filter_map(|channel| c.per_input.get(channel))
                .sum();
            (u128::from(c.nnz), u128::from(c.nnz.saturating_sub(on_null)))
        }
    };
    Macs {
        dense: plan.dense,
        live_nnz: of(live_nnz),
        density: of(density),
        structured: of(structured_weights(plan)),
    }
}

/// `whole` times `part` of `of`, rounded to the nearest; exact wherever positions are whole.
fn scaled(whole: u128, part: u128, of: u128) -> u128 {
    if of == 0 {
        return 0;
    }
    if whole.is_multiple_of(of) {
        return (whole / of).saturating_mul(part);
    }
    (whole.saturating_mul(part).saturating_add(of / 2)) / of
}

/// Weights between live inputs and live outputs, group by group.
fn structured_weights(plan: &Plan) -> u128 {
    let groups = plan.meant.groups.max(1);
    let (rows, inputs) = (plan.shape[0], plan.shape[1]);
    let taps: u128 = plan.shape[2..]
        .iter()
        .map(|side| u128::from(*side))
        .product();
    let per_group = usize::try_from(rows).unwrap_or(usize::MAX).div_ceil(groups);
    let width = usize::try_from(inputs).unwrap_or(usize::MAX);
    let live = |null: &Channels, from: usize, count: usize| {
        let dead = (from..from.saturating_add(count))
            .filter(|channel| null.contains(*channel))
            .count();
        (count - dead) as u128
    };
    (0..groups)
        .map(|group| {
            let outputs = live(&plan.null_out, group * per_group, per_group);
            outputs * live(&plan.null_in, group * width, width) * taps
        })
        .sum()
}

/// Bit operations: whole where the definition is one of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bops {
    /// A whole number.
    Whole(u128),
    /// By a definition with a logarithm.
    Real(f64),
}

impl Bops {
    /// As a float, for ratios.
    pub fn to_f64(self) -> f64 {
        match self {
            Bops::Whole(n) => n as f64,
            Bops::Real(x) => x,
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Bops) -> Bops {
        match (self, other) {
            (Bops::Whole(a), Bops::Whole(b)) => Bops::Whole(a.saturating_add(b)),
            (a, b) => Bops::Real(a.to_f64() + b.to_f64()),
        }
    }
}

impl serde::Serialize for Bops {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Bops::Whole(n) => serializer.serialize_u128(*n),
            Bops::Real(x) => serializer.serialize_f64(*x),
        }
    }
}

/// Bit operations of a layer by a definition.
pub(super) fn bops(
    key: BopsKey,
    shape: &[u64],
    macs: &Macs,
    weight_bits: u32,
    activation_bits: u32,
) -> Bops {
    let product = u128::from(weight_bits) * u128::from(activation_bits);
    let widths = f64::from(weight_bits) + f64::from(activation_bits);
    // Terms of one sum: inputs of a group x taps.
    let terms: f64 = shape.iter().skip(1).map(|side| *side as f64).product();
    let carry = if terms > 0.0 { terms.log2() } else { 0.0 };
    let dense = macs.dense as f64;
    match key {
        BopsKey::LiveNnz | BopsKey::Density | BopsKey::Structured | BopsKey::Product => {
            Bops::Whole(key.macs(macs).saturating_mul(product))
        }
        BopsKey::Accum => Bops::Whole(macs.dense.saturating_mul(product + 2 * ACCUMULATOR_BITS)),
        BopsKey::Uniq => Bops::Real(dense * (product as f64 + widths + carry)),
        BopsKey::Psqs => {
            Bops::Real(macs.density as f64 * product as f64 + dense * (widths + carry))
        }
    }
}
