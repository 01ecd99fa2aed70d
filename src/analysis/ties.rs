//! Tied tensors: counted at every owner, once in what holds several owners.

use super::metrics::{Metrics, bytes};
use crate::model::{Tree, Widths, find_tensor};
use std::sync::Arc;

/// Tied tensors: each group of owners is one tensor.
pub(super) struct Ties {
    groups: Vec<TieGroup>,
}

pub(super) struct TieGroup {
    /// Paths of the owners with the bytes that each counts; the original first.
    owners: Vec<(Arc<str>, u128)>,
    elements: u128,
}

impl Ties {
    pub(super) fn new(tree: &Tree<'_>, widths: &Widths) -> Ties {
        let mut groups: Vec<TieGroup> = Vec::new();
        let owner = |path: &Arc<str>| {
            let (elements, fixed) = find_tensor(&tree.root, path)?;
            let bits = widths.weight.or(fixed).unwrap_or(widths.dtype);
            Some((path.clone(), elements, bytes(elements, bits)?))
        };
        for (tensor, original) in &tree.tied {
            let (Some(tensor), Some(original)) = (owner(tensor), owner(original)) else {
                continue;
            };
            let has = |g: &TieGroup, path: &Arc<str>| g.owners.iter().any(|(p, _)| p == path);
            match groups
                .iter_mut()
                .find(|g| has(g, &original.0) || has(g, &tensor.0))
            {
                Some(group) => {
                    for (path, _, bytes) in [original, tensor] {
                        if !has(group, &path) {
                            group.owners.push((path, bytes));
                        }
                    }
                }
                None => groups.push(TieGroup {
                    elements: original.1,
                    owners: vec![(original.0, original.2), (tensor.0, tensor.2)],
                }),
            }
        }
        Ties { groups }
    }

    /// Counts a tensor once that several modules under `path` own.
    pub(super) fn correct(&self, all: &mut Metrics, path: &str) {
        for group in &self.groups {
            let inside = |owner: &&(Arc<str>, u128)| {
                path.is_empty()
                    || owner
                        .0
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.starts_with('.'))
            };
            // The first owner keeps the tensor; every further one counted it again.
            for (_, bytes) in group.owners.iter().filter(inside).skip(1) {
                all.params = all.params.saturating_sub(group.elements);
                all.weight_bytes = all.weight_bytes.saturating_sub(*bytes);
            }
        }
    }
}
