//! Takes the facts of a checkpoint: one pass over the data of each weight.

use super::Stats;
use super::facts::{Facts, Held, Padded, Told};
use crate::checkpoint::packed::{Weight, Weights};
use crate::checkpoint::scan::{Wanted, statistics, values};
use crate::checkpoint::{Checkpoint, CheckpointError};

/// Most numbers of a vector that are kept: biases, gains and statistics of norms, which decide whether a channel is exactly
/// zero.
pub const MOST_VALUES: u64 = 1 << 16;

/// The facts of a checkpoint's weights.
pub fn take(checkpoint: &Checkpoint, weights: &Weights) -> Result<Stats, CheckpointError> {
    let held = |number: &u32| held(checkpoint, *number);
    let mut stats = Stats {
        weights: Vec::with_capacity(weights.weights.len()),
        others: weights.others.iter().map(held).collect(),
    };
    for weight in &weights.weights {
        stats.weights.push(Facts {
            name: weight.name.to_string(),
            scheme: weight.scheme.into(),
            label: weight.label.clone(),
            shape: weight.shape.as_ref().map(|shape| shape.to_vec()),
            padding: Padded::of(weight.padding),
            elements: weight.elements,
            bytes: weight.bytes,
            code_bits: weight.code_bits,
            activation_bits: weight.activation_bits,
            tensors: weight.parts.iter().map(held).collect(),
            data: told(checkpoint, weight)?,
        });
    }
    stats.weights.sort_by(|a, b| a.name.cmp(&b.name));
    stats.others.sort();
    Ok(stats)
}

fn held(checkpoint: &Checkpoint, number: u32) -> Held {
    let tensor = &checkpoint.tensors[number as usize];
    Held {
        name: tensor.name.to_string(),
        dtype: tensor.dtype.name.into(),
        shape: tensor.shape.to_vec(),
        bytes: tensor.bytes,
    }
}

fn told(checkpoint: &Checkpoint, weight: &Weight) -> Result<Option<Told>, CheckpointError> {
    let wanted = Wanted {
        moments: true,
        supports: true,
        ..Wanted::default()
    };
    let Some(statistics) = statistics(checkpoint, weight, &wanted)? else {
        return Ok(None);
    };
    let is_short = statistics.shape.len() < 2 && statistics.elements <= MOST_VALUES;
    let mut numbers = Vec::new();
    let kept = is_short && values(checkpoint, weight, &wanted, 0..u64::MAX, &mut numbers)?;
    Ok(Some(Told::of(statistics, kept.then_some(numbers))))
}
