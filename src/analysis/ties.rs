//! Tied tensors: counted at every owner, once in what holds several owners.

use super::metrics::{Metrics, tensor_bytes};
use crate::model::{Tree, Widths, find_tensor};
use std::sync::Arc;

/// Tied tensors: each group of owners is one tensor.
pub(super) struct Ties {
    groups: Vec<TieGroup>,
}

pub(super) struct TieGroup {
    /// The original first.
    owners: Vec<Owner>,
}

/// A module's share of a tied tensor.
struct Owner {
    path: Arc<str>,
    elements: u128,
    bytes: u128,
    /// Bytes and weights in the checkpoint.
    stored: (u128, u128),
}

impl Ties {
    pub(super) fn new(tree: &Tree<'_>, widths: &Widths) -> Ties {
        let mut groups: Vec<TieGroup> = Vec::new();
        let owner = |path: &Arc<str>| {
            let (tensor, fixed) = find_tensor(&tree.root, path)?;
            let bytes = tensor_bytes(&tensor, fixed, widths)?;
            let stored = tensor
                .stored
                .map_or((0, 0), |stored| (stored.bytes, stored.elements));
            Some(Owner {
                path: path.clone(),
                elements: tensor.elements,
                bytes,
                stored,
            })
        };
        for (tensor, original) in &tree.tied {
            let (Some(tensor), Some(original)) = (owner(tensor), owner(original)) else {
                continue;
            };
            let has = |g: &TieGroup, owner: &Owner| g.owners.iter().any(|o| o.path == owner.path);
            match groups
                .iter_mut()
                .find(|g| has(g, &original) || has(g, &tensor))
            {
                Some(group) => {
                    for owner in [original, tensor] {
                        if !has(group, &owner) {
                            group.owners.push(owner);
                        }
                    }
                }
                None => groups.push(TieGroup {
                    owners: vec![original, tensor],
                }),
            }
        }
        Ties { groups }
    }

    /// Counts a tensor once that several modules under `path` own.
    pub(super) fn correct(&self, all: &mut Metrics, path: &str) {
        for group in &self.groups {
            let inside = |owner: &&Owner| {
                path.is_empty()
                    || owner
                        .path
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.starts_with('.'))
            };
            // The first owner keeps the tensor; every further one counted it again.
            for owner in group.owners.iter().filter(inside).skip(1) {
                all.params = all.params.saturating_sub(owner.elements);
                all.weight_bytes = all.weight_bytes.saturating_sub(owner.bytes);
                all.stored_bytes = all.stored_bytes.saturating_sub(owner.stored.0);
                all.stored_params = all.stored_params.saturating_sub(owner.stored.1);
            }
        }
    }
}
