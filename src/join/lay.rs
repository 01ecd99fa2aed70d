//! The tree anew, with how the file holds each tensor.
//!
//! A tree and what was found for its tensors, in the order of the walk, go in. Nodes that were one stay one where the file
//! holds them alike: a node is rebuilt once for each way in which it and what is below it are stored.

use super::estimate;
use super::find::Finder;
use super::{Extra, Finding};
use crate::model::{
    ModelError, Node, Status, Stored, Tree, find_tensor, operand_tensor, path_below,
};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// How a file holds a tensor; `None` where it does not.
type Held = Option<Rc<Stored>>;

/// What makes rebuilt nodes equal: the node they come from, how its tensors are stored, what its children became.
type Key = (usize, Vec<usize>, Vec<usize>);

/// Rebuilds a tree. Modules that nobody described become estimates from what the file has below their path.
pub(super) fn tree<'e>(
    tree: Tree<'e>,
    found: Vec<Held>,
    finder: &mut Finder<'_>,
    extras: &[Extra],
    tokens: u128,
) -> Result<(Tree<'e>, Vec<Finding>), ModelError> {
    let mut laying = Laying {
        found: found.into_iter(),
        finder,
        extras,
        tokens,
        known: HashMap::new(),
        findings: Vec::new(),
        estimated: Vec::new(),
    };
    let root = laying.node(&tree.root, "")?;
    let Laying {
        findings,
        estimated,
        ..
    } = laying;
    let unresolved = tree
        .unresolved
        .into_iter()
        .filter(|(_, path, _)| !estimated.contains(path));
    let quantized_bits = most_weights(&root).or(tree.quantized_bits);
    Ok((
        Tree {
            root,
            tied: tree.tied,
            unresolved: unresolved.collect(),
            quantized_bits,
        },
        findings,
    ))
}

struct Laying<'l, 'w, 'e> {
    found: std::vec::IntoIter<Held>,
    finder: &'l mut Finder<'w>,
    extras: &'l [Extra],
    tokens: u128,
    known: HashMap<Key, Rc<Node<'e>>>,
    findings: Vec<Finding>,
    estimated: Vec<String>,
}

impl<'e> Laying<'_, '_, 'e> {
    fn node(&mut self, node: &Rc<Node<'e>>, path: &str) -> Result<Rc<Node<'e>>, ModelError> {
        if node.status == Status::Unresolved {
            return self.unknown(node, path);
        }
        let held: Vec<Held> = node
            .tensors
            .iter()
            .map(|_| self.found.next().flatten())
            .collect();
        let mut children: Vec<(Arc<str>, Rc<Node<'e>>)> = Vec::with_capacity(node.children.len());
        for (name, child) in &node.children {
            let below = path_below(path, name);
            children.push((name.clone(), self.node(child, &below)?));
        }
        let address = |stored: &Held| {
            stored
                .as_ref()
                .map_or(0, |stored| Rc::as_ptr(stored).addr())
        };
        let key = (
            Rc::as_ptr(node).addr(),
            held.iter().map(address).collect(),
            children
                .iter()
                .map(|(_, child)| Rc::as_ptr(child).addr())
                .collect(),
        );
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let rebuilt = Rc::new(rebuilt(node, held, children));
        self.known.insert(key, rebuilt.clone());
        Ok(rebuilt)
    }

    fn unknown(&mut self, node: &Rc<Node<'e>>, path: &str) -> Result<Rc<Node<'e>>, ModelError> {
        let below: Vec<(usize, String)> = if path.is_empty() {
            self.finder
                .left()
                .map(|(number, weight)| (number, weight.name.to_string()))
                .collect()
        } else {
            self.finder.left_below(path)
        };
        // What is no parameter of any model is none of this one either.
        let mut below = below;
        below.retain(|(_, name)| {
            !self
                .extras
                .iter()
                .any(|(pattern, _)| self.finder.fits(pattern, name))
        });
        if below.is_empty() {
            return Ok(node.clone());
        }
        let (estimate, finding) = estimate::module(node, path, &below, self.finder, self.tokens)?;
        self.findings.push(finding);
        self.estimated.push(path.to_string());
        Ok(estimate)
    }
}

/// A node with stored tensors, and the widths and bytes that follow.
fn rebuilt<'e>(
    node: &Node<'e>,
    held: Vec<Held>,
    children: Vec<(Arc<str>, Rc<Node<'e>>)>,
) -> Node<'e> {
    let mut new = Node {
        children,
        ..node.clone()
    };
    for (tensor, stored) in new.tensors.iter_mut().zip(held) {
        tensor.stored = stored;
    }
    let fixed_by_class = new
        .entry
        .is_some_and(|entry| entry.precision.weight.is_some());
    let widths: Vec<Option<u32>> = new
        .work
        .iter()
        .map(|work| {
            work.operand
                .and_then(|operand| operand_tensor(&new, operand)?.stored?.code_bits)
        })
        .collect();
    for (work, stored) in new.work.iter_mut().zip(widths) {
        // A class that quantizes on the fly multiplies narrower codes than it stores.
        work.weight_bits = match (stored, work.weight_bits) {
            (Some(stored), Some(fixed)) if fixed_by_class => Some(stored.min(fixed)),
            (Some(stored), _) => Some(stored),
            (None, fixed) => fixed,
        };
    }
    let activations = new
        .tensors
        .iter()
        .filter(|t| t.multiplied)
        .filter_map(|t| t.stored.as_ref()?.activation_bits)
        .max();
    new.activation_bits = activations.or(new.activation_bits);
    let bytes: Vec<Option<u128>> = new
        .weight_reads
        .iter()
        .map(|read| {
            find_tensor(&new, read.tensor.as_deref()?)?
                .0
                .stored?
                .bytes_of(read.elements)
        })
        .collect();
    for (read, bytes) in new.weight_reads.iter_mut().zip(bytes) {
        read.stored_bytes = bytes;
    }
    new
}

/// The width in which most of the multiplied weights are stored.
fn most_weights(root: &Rc<Node<'_>>) -> Option<u32> {
    let mut by_width: HashMap<u32, u128> = HashMap::new();
    add_widths(root, &mut by_width);
    // Of equally many the narrower, so that the answer does not hang on the order of a map.
    let mut widths: Vec<(u32, u128)> = by_width.into_iter().collect();
    widths.sort_by_key(|(bits, elements)| (std::cmp::Reverse(*elements), *bits));
    widths.first().map(|(bits, _)| *bits)
}

fn add_widths(node: &Node<'_>, by_width: &mut HashMap<u32, u128>) {
    for tensor in node.tensors.iter().filter(|t| t.multiplied) {
        if let Some((bits, stored)) = tensor.stored.as_ref().and_then(|s| Some((s.code_bits?, s))) {
            let sum = by_width.entry(bits).or_default();
            *sum = sum.saturating_add(stored.elements);
        }
    }
    node.children
        .iter()
        .for_each(|(_, child)| add_widths(child, by_width));
}
