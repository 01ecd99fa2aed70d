//! MACs and bit operations of a layer by each of the definitions in use.
//!
//! All start from dense MACs = elements of the weight x positions. **Definitions are never mixed in one column.**

use super::layers::Plan;
use super::scanned::Counted;
use crate::bops::{ACCUMULATOR_BITS, Bops, BopsKey, Multiplied};
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

impl Macs {
    /// Those that a definition of bit operations multiplies.
    pub fn by(&self, key: BopsKey) -> u128 {
        match key {
            BopsKey::LiveNnz => self.live_nnz,
            BopsKey::Density | BopsKey::Psqs => self.density,
            BopsKey::Structured => self.structured,
            BopsKey::Product | BopsKey::Uniq | BopsKey::Accum => self.dense,
        }
    }
}

/// MACs of a layer; where nothing was counted, every weight counts.
pub(super) fn macs(plan: &Plan, counted: Option<&Counted>) -> Macs {
    let elements: u128 = plan.shape.iter().map(|side| u128::from(*side)).product();
    let of = |weights: u128| scaled(plan.dense, weights, elements);
    let (density, live_nnz) = match counted {
        None => (elements, elements),
        Some(c) => {
            let on_null = c.per_input.sum(&plan.null_in);
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
    let groups = plan.meant.form.groups.max(1);
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

/// Bit operations of a layer by a definition; more than fits is held at the largest number.
pub(super) fn bops(
    key: BopsKey,
    shape: &[u64],
    macs: &Macs,
    weight_bits: u32,
    activation_bits: u32,
) -> Bops {
    let multiplied = Multiplied {
        products: macs.by(key),
        sums: macs.dense,
        terms: shape.iter().skip(1).map(|side| *side as f64).product(),
        weight_bits,
        activation_bits,
        accumulator_bits: ACCUMULATOR_BITS,
    };
    multiplied.bops(key).unwrap_or(Bops::Whole(u128::MAX))
}
