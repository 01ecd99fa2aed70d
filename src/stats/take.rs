//! Takes the facts of a checkpoint: one pass over the data of each weight.

use super::Stats;
use super::edge::edge;
use super::facts::{Facts, Held, Padded, Told};
use crate::checkpoint::packed::{Weight, Weights};
use crate::checkpoint::scan::{Wanted, statistics, values};
use crate::checkpoint::{Checkpoint, CheckpointError, batches, made};

/// Most numbers of a vector that are kept: biases, gains and statistics of norms, which decide whether a channel is exactly
/// zero.
pub const MOST_VALUES: u64 = 1 << 16;

/// The facts of a checkpoint's weights.
pub fn take(checkpoint: &Checkpoint, weights: &Weights) -> Result<Stats, CheckpointError> {
    let mut stats = Stats {
        weights: Vec::with_capacity(weights.weights.len()),
        others: others(checkpoint, weights),
    };
    each(checkpoint, weights, Ok::<_, CheckpointError>, |facts, _| {
        stats.weights.push(facts);
        Ok(())
    })?;
    Ok(stats)
}

/// Makes something of the facts of each weight, by several threads, and gives it to `get` by name, with the bytes that were
/// read for it.
pub fn each<T: Send, E: Send + From<CheckpointError>>(
    checkpoint: &Checkpoint,
    weights: &Weights,
    make: impl Fn(Facts) -> Result<T, E> + Send + Sync,
    mut get: impl FnMut(T, u64) -> Result<(), E>,
) -> Result<(), E> {
    for batch in batches(&weights.weights, |weight| weight.bytes) {
        let found = made(batch, |weight| make(facts(checkpoint, weight)?));
        for (found, weight) in found.into_iter().zip(batch) {
            get(found?, weight.bytes)?;
        }
    }
    Ok(())
}

/// The tensors that are no weight, by name.
pub fn others(checkpoint: &Checkpoint, weights: &Weights) -> Vec<Held> {
    let others = weights.others.iter();
    let mut others: Vec<Held> = others.map(|number| held(checkpoint, *number)).collect();
    others.sort();
    others
}

fn facts(checkpoint: &Checkpoint, weight: &Weight) -> Result<Facts, CheckpointError> {
    let parts = weight.parts.iter();
    Ok(Facts {
        name: weight.name.to_string(),
        scheme: weight.scheme.into(),
        label: weight.label.clone(),
        shape: weight.shape.as_ref().map(|shape| shape.to_vec()),
        padding: Padded::of(weight.padding),
        elements: weight.elements,
        bytes: weight.bytes,
        code_bits: weight.code_bits,
        activation_bits: weight.activation_bits,
        tensors: parts.map(|number| held(checkpoint, *number)).collect(),
        data: told(checkpoint, weight)?,
    })
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
    let edge = edge(checkpoint, weight)?;
    Ok(Some(Told::of(statistics, kept.then_some(numbers), edge)))
}
