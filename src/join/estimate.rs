//! Modules from names and shapes alone, where the database has no entry.
//!
//! The weights below a module's path go in, a tree by the dots of their names comes out: every two-dimensional weight is
//! taken for a linear layer that works on every token, everything else costs nothing that could be known. The nodes are
//! marked as estimates, and a finding says so.

use super::Finding;
use super::find::Finder;
use crate::db::RowKind;
use crate::model::{ModelError, Node, Status, Tensor, WeightRead, Work};
use crate::units;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Deepest nesting that names may spell.
const MAX_DEPTH: usize = 48;

/// What estimated modules are called: the question mark says that nobody knows.
const LINEAR_CLASS: &str = "Linear?";
const ANY_CLASS: &str = "?";

static LINEAR: RowKind = RowKind::WeightMac;

/// Equal estimates: name where it is no number, stored tensors, children.
type Key = (
    Arc<str>,
    Vec<(Arc<str>, usize, Vec<u128>)>,
    Vec<(Arc<str>, usize)>,
);

/// The module `unknown` at `path` as the names below it draw it.
pub(super) fn module<'e>(
    unknown: &Rc<Node<'e>>,
    path: &str,
    below: &[(usize, String)],
    finder: &mut Finder<'_>,
    tokens: u128,
) -> Result<(Rc<Node<'e>>, Finding), ModelError> {
    let mut estimate = Estimate {
        unknown,
        finder,
        tokens,
        known: HashMap::new(),
        linear: 0,
        other: 0,
    };
    let mut sorted: Vec<(Vec<&str>, usize)> = below
        .iter()
        .map(|(number, name)| (name.splitn(MAX_DEPTH, '.').collect(), *number))
        .collect();
    sorted.sort_by(|a, b| natural(&a.0, &b.0));
    let mut root = (*estimate.node("", &sorted, 0)?).clone();
    root.class = unknown.class.clone();
    root.calls = unknown.calls;
    root.notes = unknown.notes.clone();
    let message = format!(
        "the {} is not described; from names and shapes alone: {} as linear layers on every token, a table that is looked up included; the work of {} of other shapes is not known",
        unknown.class,
        units::counted(estimate.linear, "two-dimensional weight"),
        units::counted(estimate.other, "tensor"),
    );
    let finding = Finding {
        code: "estimated",
        path: path.to_string(),
        message,
        mismatch: false,
    };
    Ok((Rc::new(root), finding))
}

struct Estimate<'s, 'w, 'e> {
    unknown: &'s Rc<Node<'e>>,
    finder: &'s mut Finder<'w>,
    tokens: u128,
    known: HashMap<Key, Rc<Node<'e>>>,
    linear: u128,
    other: u128,
}

impl<'e> Estimate<'_, '_, 'e> {
    /// The module of names that agree in their first `depth` parts.
    fn node(
        &mut self,
        name: &str,
        names: &[(Vec<&str>, usize)],
        depth: usize,
    ) -> Result<Rc<Node<'e>>, ModelError> {
        let mut tensors = Vec::new();
        let mut children: Vec<(Arc<str>, Rc<Node<'e>>)> = Vec::new();
        let mut rest = names;
        while let Some((first, number)) = rest.first() {
            let part = first[depth];
            if first.len() == depth + 1 {
                tensors.extend(self.tensor(part, *number));
                rest = &rest[1..];
                continue;
            }
            let same = rest
                .iter()
                .take_while(|(name, _)| name.len() > depth + 1 && name[depth] == part)
                .count();
            children.push((part.into(), self.node(part, &rest[..same], depth + 1)?));
            rest = &rest[same..];
        }
        // Items of a list are one node; modules with names of their own are not, however alike they are.
        let name = if name.bytes().all(|b| b.is_ascii_digit()) {
            ""
        } else {
            name
        };
        let address = |t: &Tensor| {
            t.stored
                .as_ref()
                .map_or(0, |stored| Rc::as_ptr(stored).addr())
        };
        let key = (
            name.into(),
            tensors
                .iter()
                .map(|t| (t.name.clone(), address(t), t.shape.clone()))
                .collect(),
            children
                .iter()
                .map(|(name, child)| (name.clone(), Rc::as_ptr(child).addr()))
                .collect(),
        );
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let node = Rc::new(self.built(tensors, children)?);
        self.known.insert(key, node.clone());
        Ok(node)
    }

    fn tensor(&mut self, name: &str, number: usize) -> Option<Tensor> {
        let found = self.finder.take(number)?;
        let elements = found.stored.elements;
        let shape = found.shape.unwrap_or_else(|| vec![elements]);
        let multiplied = shape.len() == 2;
        match shape.len() {
            2 => self.linear += 1,
            0 | 1 => {}
            _ => self.other += 1,
        }
        Some(Tensor {
            name: name.into(),
            shape,
            elements,
            multiplied,
            stored: Some(found.stored),
        })
    }

    fn built(
        &self,
        tensors: Vec<Tensor>,
        children: Vec<(Arc<str>, Rc<Node<'e>>)>,
    ) -> Result<Node<'e>, ModelError> {
        let mut node = (**self.unknown).clone();
        let linear = tensors.iter().any(|t| t.multiplied);
        node.class = if linear { LINEAR_CLASS } else { ANY_CLASS }.into();
        node.status = Status::Estimated;
        node.calls = 1;
        node.notes = Vec::new();
        for tensor in tensors.iter().filter(|t| t.multiplied) {
            let [n, k] = tensor.shape[..] else { continue };
            let times = |a: u128, b: u128| a.checked_mul(b).ok_or(ModelError::Overflow);
            let sum = |a: u128, b: u128| a.checked_add(b).ok_or(ModelError::Overflow);
            let stored = tensor.stored.as_ref();
            node.work.push(Work {
                name: "linear",
                kind: &LINEAR,
                operand: Some("weight"),
                count: times(tensor.elements, self.tokens)?,
                flops: 0,
                weight_bits: stored.and_then(|stored| stored.code_bits),
            });
            node.moved.reads = sum(node.moved.reads, times(k, self.tokens)?)?;
            node.moved.writes = sum(node.moved.writes, times(n, self.tokens)?)?;
            node.activation_bits = stored
                .and_then(|stored| stored.activation_bits)
                .or(node.activation_bits);
        }
        node.weight_reads = tensors
            .iter()
            .map(|tensor| WeightRead {
                elements: tensor.elements,
                tensor: Some((&*tensor.name).into()),
                bits: None,
                stored_bytes: tensor.stored.as_ref().map(|stored| stored.bytes),
            })
            .collect();
        node.tensors = tensors;
        node.children = children;
        Ok(node)
    }
}

/// Names in the order people expect: tensors of a module before its children, numbers by value.
fn natural(a: &[&str], b: &[&str]) -> std::cmp::Ordering {
    fn key<'n>(name: &[&'n str], at: usize) -> (bool, bool, Option<u64>, &'n str) {
        let part = name[at];
        let number = part.parse::<u64>().ok().filter(|_| part.len() < 19);
        (name.len() > at + 1, number.is_none(), number, part)
    }
    let common = a.len().min(b.len());
    (0..common)
        .map(|at| key(a, at).cmp(&key(b, at)))
        .find(|order| order.is_ne())
        .unwrap_or(a.len().cmp(&b.len()))
}
