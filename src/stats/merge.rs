//! Joins parts of a checkpoint: associative, commutative, and the same part twice is that part.
//!
//! A weight in two parts must have the same facts in both. That no weight lies across parts is told by headers alone: those
//! of the whole, grouped into weights, must give the weights that those of the parts give.

use super::{Facts, Held, Stats};
use crate::checkpoint::packed::{Settings, weights};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::units;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Why parts cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Facts of one weight that contradict each other.
    #[error(
        "`{tensor}` is one thing in {first} and another in {second}; they are parts of different checkpoints"
    )]
    Differ {
        /// The weight or tensor.
        tensor: String,
        /// One part.
        first: String,
        /// The other.
        second: String,
    },
    /// Codes in one part, scales in another.
    #[error(
        "`{weight}` is made of {tensors}; no part has it whole, so give these shards to one call of `bitcost stats`"
    )]
    Apart {
        /// The weight.
        weight: String,
        /// Its tensors, each with its part.
        tensors: String,
    },
    /// Headers that cannot be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The whole of parts, each with the name that errors call it.
pub fn merge(parts: Vec<(String, Stats)>) -> Result<Stats, MergeError> {
    let mut groups = BTreeMap::new();
    let mut at: BTreeMap<String, String> = BTreeMap::new();
    for (label, part) in &parts {
        groups.extend(grouped(&part.headers(label)?));
        let held = part.weights.iter().flat_map(|facts| &facts.tensors);
        for held in held.chain(&part.others) {
            at.entry(held.name.clone()).or_insert_with(|| label.clone());
        }
    }
    let mut found: BTreeMap<String, (Facts, String)> = BTreeMap::new();
    let mut others: BTreeMap<String, (Held, String)> = BTreeMap::new();
    for (label, part) in parts {
        for facts in part.weights {
            keep(&mut found, facts.name.clone(), facts, &label)?;
        }
        for held in part.others {
            keep(&mut others, held.name.clone(), held, &label)?;
        }
    }
    let weights: Vec<Facts> = found.into_values().map(|(facts, _)| facts).collect();
    let used: BTreeSet<&str> = weights
        .iter()
        .flat_map(|facts| facts.tensors.iter().map(|held| held.name.as_str()))
        .collect();
    others.retain(|name, _| !used.contains(name.as_str()));
    let others = others.into_values().map(|(held, _)| held).collect();
    let whole = Stats { weights, others };
    for (weight, tensors) in grouped(&whole.headers("the whole")?) {
        if groups.get(&weight) == Some(&tensors) {
            continue;
        }
        let place = |name: &String| {
            let part = at.get(name).map_or("", String::as_str);
            format!("`{}` in {part}", units::clipped(name, 160))
        };
        let tensors: Vec<String> = tensors.iter().map(place).collect();
        return Err(MergeError::Apart {
            weight: units::clipped(&weight, 160),
            tensors: tensors.join(", "),
        });
    }
    Ok(whole)
}

/// Keeps what is new; what is known must be the same.
fn keep<T: PartialEq>(
    known: &mut BTreeMap<String, (T, String)>,
    name: String,
    new: T,
    label: &str,
) -> Result<(), MergeError> {
    match known.entry(name) {
        Entry::Vacant(place) => {
            place.insert((new, label.into()));
        }
        Entry::Occupied(place) if place.get().0 == new => {}
        Entry::Occupied(place) => {
            return Err(MergeError::Differ {
                tensor: units::clipped(place.key(), 160),
                first: place.get().1.clone(),
                second: label.into(),
            });
        }
    }
    Ok(())
}

/// The weights that headers make, each with the names of its tensors.
fn grouped(headers: &Checkpoint) -> BTreeMap<String, BTreeSet<String>> {
    let names = |parts: &[u32]| {
        let names = parts
            .iter()
            .map(|part| headers.tensors[*part as usize].name.to_string());
        names.collect()
    };
    weights(headers, &Settings::default())
        .weights
        .iter()
        .map(|weight| (weight.name.to_string(), names(&weight.parts)))
        .collect()
}
