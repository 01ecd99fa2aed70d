//! How far a weight is from its base, and how its zeros came about.

use super::super::packed::{Padding, Reader, Weight};
use super::super::{Checkpoint, CheckpointError};
use super::view::{View, fits, product};
use super::wide::{LANES, PairSums};
use super::{Wanted, blocks};

/// How far a weight is from its base, over the numbers that are finite in both. No field is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightError {
    /// Length of the difference over the length of the base; infinity where only the base is 0.
    pub relative: f64,
    /// The largest difference of a number.
    pub max: f64,
    /// Signal to noise in decibels; infinity where nothing differs, minus infinity where only the base is 0.
    pub snr_db: f64,
    /// Cosine of the angle between the two; 1 where both are 0, 0 where one is.
    pub cosine: f64,
    /// Numbers that are not finite in one or both, which are left out.
    pub left_out: u64,
}

/// How the zeros of a weight came about, against its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroKinds {
    /// Zeros that are 0 in the base too.
    pub in_base: u64,
    /// New zeros whose base is smaller than every number that the row keeps: pruned by magnitude in a weight of floats,
    /// rounded to 0 in a weight of codes.
    pub below: u64,
    /// New zeros whose base is not smaller than what the row keeps: pruned by another rule.
    pub above: u64,
    /// New zeros whose scale is 0, whatever their code.
    pub dead_scale: u64,
    /// Numbers that are stored beyond the shape and belong to nothing.
    pub padding: u64,
}

/// Compares a weight with its base, piece by piece; `None` where the shapes differ or numbers of one cannot be told.
pub fn weight_error(
    base: (&Checkpoint, &Weight),
    other: (&Checkpoint, &Weight),
) -> Result<Option<WeightError>, CheckpointError> {
    let sums = in_pairs(base, other, false, |base, other, _, _| {
        Sums::of(base, other)
    })?;
    Ok(sums.map(|sums| sums.iter().fold(Sums::default(), Sums::and).error()))
}

/// Says of every zero of a weight how it came about; `None` where the shapes differ or numbers of one cannot be told. The
/// smallest number that a row keeps is asked for in each piece of a row that is longer than a block.
pub fn zero_kinds(
    base: (&Checkpoint, &Weight),
    other: (&Checkpoint, &Weight),
) -> Result<Option<ZeroKinds>, CheckpointError> {
    let kinds = in_pairs(base, other, true, |base, other, dead, columns| {
        let mut kinds = ZeroKinds::default();
        let rows = base.chunks(columns).zip(other.chunks(columns));
        for ((base, other), dead) in rows.zip(dead.chunks(columns)) {
            let kept = other.iter().map(|n| n.abs()).filter(|n| *n > 0.0);
            let least = kept.fold(f32::INFINITY, f32::min);
            let all = base.iter().zip(other).zip(dead);
            for ((base, _), dead) in all.filter(|((_, other), _)| **other == 0.0) {
                let kind = if *base == 0.0 {
                    &mut kinds.in_base
                } else if *dead {
                    &mut kinds.dead_scale
                } else if base.abs() < least {
                    &mut kinds.below
                } else {
                    &mut kinds.above
                };
                *kind += 1;
            }
        }
        kinds
    })?;
    let (_, weight) = other;
    Ok(kinds.map(|all| {
        let mut sum = all
            .iter()
            .fold(ZeroKinds::default(), |sum, kinds| ZeroKinds {
                in_base: sum.in_base + kinds.in_base,
                below: sum.below + kinds.below,
                above: sum.above + kinds.above,
                dead_scale: sum.dead_scale + kinds.dead_scale,
                padding: 0,
            });
        let shape = common_shape(base.1, weight).unwrap_or_default();
        sum.padding = weight.elements - product(&shape);
        sum
    }))
}

/// Reads two weights side by side and asks `each` about the same numbers of both, which scales are 0, and how many numbers
/// make a row.
fn in_pairs<T: Send>(
    base: (&Checkpoint, &Weight),
    other: (&Checkpoint, &Weight),
    wants_scales: bool,
    each: impl Fn(&mut [f32], &mut [f32], &[bool], usize) -> T + Sync,
) -> Result<Option<Vec<T>>, CheckpointError> {
    let Some(shape) = common_shape(base.1, other.1) else {
        return Ok(None);
    };
    let reader = |(checkpoint, weight)| Reader::new(checkpoint, weight, &shape);
    let (Some(base), Some(other)) = (reader(base)?, reader(other)?) else {
        return Ok(None);
    };
    let view = View::of(shape.clone(), &Wanted::default()).expect("one group divides all rows");
    let blocks = view.blocks(4);
    let state = || {
        (
            base.clone(),
            other.clone(),
            [Vec::new(), Vec::new()],
            Vec::new(),
        )
    };
    let done = blocks::each(blocks.count, state, |state, number| {
        let (base, other, [left, right], dead) = state;
        let block = blocks.get(number);
        let first = block.row * view.columns() + block.column;
        let count = (block.rows * block.columns) as usize;
        left.resize(count, 0.0);
        right.resize(count, 0.0);
        base.read(first, left)?;
        other.read(first, right)?;
        if wants_scales {
            dead.resize(count, false);
            other.dead_scales(first, dead)?;
        }
        Ok(each(left, right, dead, block.columns as usize))
    })?;
    Ok(Some(done.answers))
}

/// The shape that two weights have in common: the exact one of the two, if the other's padding allows it.
fn common_shape(a: &Weight, b: &Weight) -> Option<Box<[u64]>> {
    let exact = |weight: &Weight| {
        let shape = weight.shape.clone();
        shape.filter(|_| weight.padding == Padding::None)
    };
    let flat = || (a.elements == b.elements).then(|| [a.elements].into());
    let shape = exact(a)
        .or_else(|| exact(b))
        .or_else(|| a.shape.clone())
        .or_else(|| b.shape.clone())
        .or_else(flat)?;
    (fits(a, &shape) && fits(b, &shape)).then_some(shape)
}

/// Sums over pairs of numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    base: f64,
    other: f64,
    product: f64,
    difference: f64,
    max: f64,
    left_out: u64,
}

impl Sums {
    /// In lanes, as moments are summed.
    fn of(base: &mut [f32], other: &mut [f32]) -> Sums {
        let mut left_out = 0;
        let are_finite = |numbers: &[f32]| {
            let top = numbers.iter().map(|n| n.to_bits() & 0x7fff_ffff).max();
            top.is_none_or(|top| top < f32::INFINITY.to_bits())
        };
        if !are_finite(base) || !are_finite(other) {
            for (base, other) in base.iter_mut().zip(other.iter_mut()) {
                if !base.is_finite() || !other.is_finite() {
                    left_out += 1;
                    (*base, *other) = (0.0, 0.0);
                }
            }
        }
        let (left, left_rest) = base.as_chunks::<LANES>();
        let (right, right_rest) = other.as_chunks::<LANES>();
        let mut sums = PairSums::default();
        sums.add(left, right);
        // Zeros in the other lanes of the rest add nothing.
        let filled = |rest: &[f32]| std::array::from_fn(|at| rest.get(at).copied().unwrap_or(0.0));
        sums.add(&[filled(left_rest)], &[filled(right_rest)]);
        let sum = |lanes: [f64; LANES]| lanes.iter().fold(0.0, |sum, lane| sum + lane);
        Sums {
            base: sum(sums.base),
            other: sum(sums.other),
            product: sum(sums.product),
            difference: sum(sums.difference),
            max: sums.max.iter().fold(0.0, |most, lane| lane.max(most)),
            left_out,
        }
    }

    fn and(self, next: &Sums) -> Sums {
        Sums {
            base: self.base + next.base,
            other: self.other + next.other,
            product: self.product + next.product,
            difference: self.difference + next.difference,
            max: self.max.max(next.max),
            left_out: self.left_out + next.left_out,
        }
    }

    fn error(&self) -> WeightError {
        let (same, no_base) = (self.difference == 0.0, self.base == 0.0);
        let (relative, snr_db) = match (same, no_base) {
            (true, _) => (0.0, f64::INFINITY),
            (false, true) => (f64::INFINITY, f64::NEG_INFINITY),
            (false, false) => {
                let ratio = self.difference / self.base;
                (ratio.sqrt(), -10.0 * ratio.log10())
            }
        };
        let cosine = match (no_base, self.other == 0.0) {
            (true, true) => 1.0,
            (false, false) => self.product / (self.base.sqrt() * self.other.sqrt()),
            _ => 0.0,
        };
        WeightError {
            relative,
            max: self.max,
            snr_db,
            cosine: cosine.clamp(-1.0, 1.0),
            left_out: self.left_out,
        }
    }
}
