//! The walk over the tree that makes rows: one per module, or one for equal items of a list.

use super::meter::Meter;
use super::metrics::Metrics;
use super::notes::Note;
use super::ties::Ties;
use super::{MAX_ROWS, overflow};
use crate::model::{ExpertUse, ModelError, Node, Status, Stored, path_below};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// One module, or several equal ones.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its path; with ranges where several modules are one row: `model.layers.0-31`.
    pub path: String,
    /// Full path of its class.
    pub class: Arc<str>,
    /// How many modules the row's metrics are of each.
    pub count: u128,
    /// How many modules the row stands for: `count`, except where metrics are sums already.
    pub modules: u128,
    /// Distance from the root.
    pub depth: usize,
    /// Children included, of one module.
    pub all: Metrics,
    /// Without children, of one module.
    pub own: Metrics,
    /// How sure the numbers are.
    pub status: Status,
    /// Whether a person has checked the entry.
    pub validated: bool,
    /// Whether it only holds its children.
    pub container: bool,
    /// Whether its path ends in the span of equal list items.
    pub repeated: bool,
    /// Its experts.
    pub experts: Option<ExpertUse>,
    /// How the checkpoint holds the largest of its own tensors.
    pub stored: Option<Rc<Stored>>,
}

impl Row {
    /// The row of a model of which only totals are known.
    pub fn of_totals(class: &str) -> Row {
        let none = Metrics::default();
        Row {
            path: String::new(),
            class: class.into(),
            count: 1,
            modules: 1,
            depth: 0,
            all: none,
            own: none,
            status: Status::Resolved,
            validated: false,
            container: false,
            repeated: false,
            experts: None,
            stored: None,
        }
    }
}

/// Where the walk over rows stands.
#[derive(Clone, Default)]
pub(super) struct Place {
    path: String,
    /// The path of the first of the modules that the row stands for.
    first: String,
    depth: usize,
    count: Option<u128>,
    calls: Option<u128>,
    repeated: bool,
}

pub(super) struct RowWalk<'m> {
    pub(super) meter: &'m mut Meter,
    pub(super) ties: &'m Ties,
    pub(super) expand: bool,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<Note>,
}

impl RowWalk<'_> {
    pub(super) fn node(&mut self, node: &Rc<Node<'_>>, at: Place) -> Result<(), ModelError> {
        let (count, calls) = (
            at.count.unwrap_or(1),
            at.calls
                .unwrap_or(1)
                .checked_mul(node.calls)
                .ok_or_else(overflow)?,
        );
        let (all, own) = self.meter.unit(node).ok_or_else(overflow)?;
        let mut all = all.times(calls).ok_or_else(overflow)?;
        self.ties.correct(&mut all, &at.first);
        for (code, message) in &node.notes {
            if !self
                .notes
                .iter()
                .any(|n| n.code == **code && n.message == **message)
            {
                self.notes.push(Note {
                    code: code.to_string(),
                    path: at.path.clone(),
                    message: message.to_string(),
                });
            }
        }
        if self.rows.len() >= MAX_ROWS {
            return Err(ModelError::Workload(format!(
                "more than {MAX_ROWS} rows; leave out --expand"
            )));
        }
        self.rows.push(Row {
            path: at.path.clone(),
            class: node.class.clone(),
            count,
            modules: count,
            depth: at.depth,
            all,
            own: own.times(calls).ok_or_else(overflow)?,
            status: node.status,
            validated: node.entry.is_some_and(|e| e.validated),
            container: node.entry.is_some_and(|e| e.container),
            repeated: at.repeated,
            experts: node.experts,
            stored: largest_stored(node),
        });
        for group in groups(&node.children, self.expand) {
            let (first, child) = group[0];
            let place = Place {
                path: path_below(&at.path, &span(&group)),
                first: path_below(&at.first, first),
                depth: at.depth + 1,
                count: Some(
                    count
                        .checked_mul(group.len() as u128)
                        .ok_or_else(overflow)?,
                ),
                calls: Some(calls),
                repeated: group.len() > 1,
            };
            self.node(child, place)?;
        }
        Ok(())
    }
}

/// How the largest of a node's own tensors is stored, the multiplied ones first.
fn largest_stored(node: &Node<'_>) -> Option<Rc<Stored>> {
    let held = node.tensors.iter().filter(|tensor| tensor.stored.is_some());
    let largest = held.max_by_key(|tensor| (tensor.multiplied, tensor.elements));
    largest.and_then(|tensor| tensor.stored.clone())
}

pub(super) type Child<'c, 'e> = (&'c str, &'c Rc<Node<'e>>);

/// Children that are the same node, in the order of their first.
pub(super) fn groups<'c, 'e>(
    children: &'c [(Arc<str>, Rc<Node<'e>>)],
    expand: bool,
) -> Vec<Vec<Child<'c, 'e>>> {
    let mut groups: Vec<Vec<Child<'c, 'e>>> = Vec::new();
    let mut places: HashMap<*const u8, usize> = HashMap::new();
    for (name, node) in children {
        let key = Rc::as_ptr(node).cast::<u8>();
        match places.get(&key).filter(|_| !expand) {
            Some(i) => groups[*i].push((name, node)),
            None => {
                places.insert(key, groups.len());
                groups.push(vec![(name, node)]);
            }
        }
    }
    groups
}

/// `3`, `0-31`, `{0-4,6-10}`.
pub(super) fn span(group: &[Child<'_, '_>]) -> String {
    let numbers: Option<Vec<usize>> = group.iter().map(|(name, _)| name.parse().ok()).collect();
    let (Some(numbers), true) = (numbers, group.len() > 1) else {
        return group[0].0.to_string();
    };
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => runs.push((n, n)),
        }
    }
    let text: Vec<String> = runs
        .iter()
        .map(|(a, b)| {
            if a == b {
                a.to_string()
            } else {
                format!("{a}-{b}")
            }
        })
        .collect();
    if text.len() == 1 {
        text[0].clone()
    } else {
        format!("{{{}}}", text.join(","))
    }
}
