//! The layers of a checkpoint: which weights are multiplied, on how many positions, with which null channels.
//!
//! By a graph: the model's tree with null channels from its `forward` statements; a plain sequence of layers in the order of
//! the file; or none, where every matrix stands for itself.

use super::held::{Meant, Piece};
use super::scanned::Scanned;
use crate::channels::Channels;
use crate::checkpoint::{CheckpointError, batches};
use crate::db::{Db, RowKind};
use crate::flow::{self, Form, Layer as Flowed, Rule};
use crate::model::{Node, Tree, path_below};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// A layer of one checkpoint, before anything is counted.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub name: String,
    /// The number of its weight.
    pub number: usize,
    pub meant: Meant,
    /// Its shape, outputs first whatever the file has: [out, in of a group, taps ...].
    pub shape: Vec<u64>,
    /// Height and width of its output, where it is an image.
    pub spatial: Option<(u64, u64)>,
    /// MACs without any zero.
    pub dense: u128,
    pub null_in: Channels,
    pub null_out: Channels,
}

/// Takes the plans of a checkpoint one by one: what was found out about the weight of one is needed until then.
pub(super) type Take<'t> = dyn FnMut(Plan, &mut Scanned<'_>) -> Result<(), CheckpointError> + 't;

/// What a tree tells of its layers as a whole.
#[derive(Default)]
pub(super) struct OfTree {
    /// What could not be told.
    pub notes: Vec<(String, String)>,
    /// Layers whose null inputs the other rule sees differently.
    pub differing: Vec<(String, usize)>,
}

/// The layers of a tree, in its order.
pub(super) fn of_tree<'e>(
    db: &'e Db,
    tree: &Tree<'e>,
    rule: Rule,
    scanned: &mut Scanned<'_>,
    take: &mut Take<'_>,
) -> Result<OfTree, CheckpointError> {
    let found = flow::nulls(db, &tree.root, rule, scanned)?;
    let other_rule = match rule {
        Rule::Weights => Rule::Exact,
        Rule::Exact => Rule::Weights,
    };
    // Everything was scanned for the first rule; this asks vectors only.
    let other = flow::nulls(db, &tree.root, other_rule, scanned)?;
    let mut walk = TreeWalk {
        flowed: &found.layers,
        other: &other.layers,
        scanned,
        planned: HashSet::new(),
        begun: BTreeMap::new(),
        differing: Vec::new(),
        take,
    };
    walk.node(&tree.root, "", 1)?;
    let differing = walk.finish()?;
    let mut notes = Vec::new();
    if let Some(first) = found.unknown.first() {
        let message = format!(
            "no null channel passes through {} modules whose dataflow is not described",
            found.unknown.len()
        );
        notes.push((first.clone(), message));
    }
    Ok(OfTree { notes, differing })
}

struct TreeWalk<'w, 'h, 't> {
    flowed: &'w HashMap<String, Flowed>,
    /// The same by the other rule.
    other: &'w HashMap<String, Flowed>,
    scanned: &'w mut Scanned<'h>,
    /// Numbers of the weights whose layers were taken: one that is tied counts where it stands first.
    planned: HashSet<usize>,
    /// Plans of weights that hold several tensors, by their numbers, and how many of those are still to come.
    begun: BTreeMap<usize, (Plan, u64)>,
    differing: Vec<(String, usize)>,
    take: &'w mut Take<'t>,
}

impl TreeWalk<'_, '_, '_> {
    fn node(
        &mut self,
        node: &Rc<Node<'_>>,
        path: &str,
        calls: u128,
    ) -> Result<(), CheckpointError> {
        let calls = calls.saturating_mul(node.calls);
        // Parts of a module may multiply the same tensor, as queries and keys of a fused projection.
        let mut multiplied: Vec<(&str, u128)> = Vec::new();
        for work in &node.work {
            let Some(operand) = work.operand.filter(|_| *work.kind == RowKind::WeightMac) else {
                continue;
            };
            match multiplied.iter_mut().find(|(known, _)| *known == operand) {
                Some((_, count)) => *count = count.saturating_add(work.count),
                None => multiplied.push((operand, work.count)),
            }
        }
        for (operand, count) in multiplied {
            self.tensor(&path_below(path, operand), count.saturating_mul(calls))?;
        }
        for (name, child) in &node.children {
            self.node(child, &path_below(path, name), calls)?;
        }
        Ok(())
    }

    /// The layers of one multiplied tensor: one, or one for each weight that the file keeps of it.
    fn tensor(&mut self, tensor: &str, dense: u128) -> Result<(), CheckpointError> {
        let Some(held) = self.scanned.held.get(tensor) else {
            return Ok(());
        };
        let numbers: Vec<usize> = held.parts.iter().map(|part| part.number).collect();
        if numbers.iter().any(|number| self.planned.contains(number)) {
            return Ok(());
        }
        let weights = &self.scanned.headers.weights.weights;
        let flowed = self.flowed.get(tensor);
        let pieces = flowed.and_then(|flowed| Some((flowed, held.pieces(flowed.form, weights)?)));
        // Where nothing flows it still has the model's shape.
        let whole = held.whole().map(|_| held.shape.clone());
        let chunks = held.single().and_then(|(_, chunk)| Some(chunk?.1));
        let sizes: Vec<u64> = numbers.iter().map(|n| weights[*n].elements).collect();
        for (at, (number, dense)) in numbers.iter().zip(shares(dense, &sizes)).enumerate() {
            let weight = &weights[*number];
            let is_one = numbers.len() == 1 && chunks.is_none();
            let layer = Weighed {
                name: layer_name(if is_one { tensor } else { &weight.name }),
                number: *number,
                dense,
            };
            let plan = match &pieces {
                Some((flowed, pieces)) => layer.in_flow(flowed, &pieces[at]),
                None => {
                    layer.alone(whole.clone().or_else(|| weight.shape.clone()), self.scanned)?
                }
            };
            let Some(plan) = plan else {
                continue;
            };
            if let (Some((_, pieces)), Some(other)) = (&pieces, self.other.get(tensor)) {
                let apart = plan
                    .null_in
                    .count_apart(&pieces[at].inputs.of(&other.null_in));
                if apart > 0 && !self.begun.contains_key(number) {
                    self.differing.push((plan.name.clone(), apart));
                }
            }
            self.settle(plan, chunks.unwrap_or(1))?;
        }
        Ok(())
    }

    /// Takes a plan as soon as all tensors are there that its weight holds.
    fn settle(&mut self, plan: Plan, tensors: u64) -> Result<(), CheckpointError> {
        let number = plan.number;
        let (plan, missing) = match self.begun.remove(&number) {
            Some((begun, missing)) => (begun.and(plan), missing),
            None => (plan, tensors),
        };
        if missing > 1 {
            self.begun.insert(number, (plan, missing - 1));
            return Ok(());
        }
        self.planned.insert(number);
        (self.take)(plan, self.scanned)
    }

    /// Takes the plans whose weights hold more than is multiplied.
    fn finish(mut self) -> Result<Vec<(String, usize)>, CheckpointError> {
        for (plan, _) in std::mem::take(&mut self.begun).into_values() {
            (self.take)(plan, self.scanned)?;
        }
        Ok(self.differing)
    }
}

impl Plan {
    /// Together with another tensor that the same weight holds.
    fn and(self, other: Plan) -> Plan {
        Plan {
            dense: self.dense.saturating_add(other.dense),
            null_in: self.null_in.and(&other.null_in),
            null_out: self.null_out.or(&other.null_out),
            ..self
        }
    }
}

/// A number in proportion to some sizes; the shares add up to it.
fn shares(whole: u128, sizes: &[u64]) -> Vec<u128> {
    let all: u128 = sizes.iter().map(|size| u128::from(*size)).sum();
    let up_to = |part: u128| whole.saturating_mul(part).checked_div(all).unwrap_or(0);
    let mut before = 0;
    let share = |size: &u64| {
        let from = up_to(before);
        before += u128::from(*size);
        up_to(before) - from
    };
    sizes.iter().map(share).collect()
}

/// A weight that is multiplied.
struct Weighed {
    name: String,
    number: usize,
    /// MACs without any zero.
    dense: u128,
}

impl Weighed {
    /// As the piece that it is of what the flow tells of.
    fn in_flow(self, flowed: &Flowed, piece: &Piece) -> Option<Plan> {
        Some(Plan {
            shape: piece.meant.outward()?,
            meant: piece.meant.clone(),
            spatial: flowed.spatial,
            null_in: piece.inputs.of(&flowed.null_in),
            null_out: piece.own.spread(&piece.rows.of(&flowed.null_out)),
            name: self.name,
            number: self.number,
            dense: self.dense,
        })
    }

    /// As a matrix or convolution of its own, which no null channel reaches.
    fn alone(
        self,
        shape: Option<Box<[u64]>>,
        scanned: &mut Scanned<'_>,
    ) -> Result<Option<Plan>, CheckpointError> {
        let meant = Meant {
            form: Form::MATRIX,
            shape,
        };
        let Some(shape) = meant.outward() else {
            return Ok(None);
        };
        let null_in = Channels::none(usize::try_from(shape[1]).unwrap_or(usize::MAX));
        let null_out = scanned.rows_without_live_inputs(self.number, &meant, &null_in)?;
        Ok(Some(Plan {
            meant,
            shape,
            spatial: None,
            null_in,
            null_out: null_out.unwrap_or_else(|| Channels::none(0)),
            name: self.name,
            number: self.number,
            dense: self.dense,
        }))
    }
}

/// Every matrix and convolution of the file for itself, at one position, by name.
pub(super) fn alone(scanned: &mut Scanned<'_>, take: &mut Take<'_>) -> Result<(), CheckpointError> {
    let numbers = matrices(scanned, 0..scanned.headers.weights.weights.len());
    let all = &scanned.headers.weights.weights;
    for batch in batches(&numbers, |number| all[*number].bytes) {
        scanned.look_ahead(batch)?;
        for number in batch {
            let weight = scanned.weight(*number);
            let layer = Weighed {
                name: layer_name(&weight.name),
                number: *number,
                dense: weight.elements.into(),
            };
            if let Some(plan) = layer.alone(weight.shape.clone(), scanned)? {
                take(plan, scanned)?;
            }
        }
    }
    Ok(())
}

/// The weights that are layers where no model says so.
fn matrices(scanned: &Scanned<'_>, numbers: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let sides = |number: &usize| {
        scanned
            .weight(*number)
            .shape
            .as_ref()
            .map(|shape| shape.len())
    };
    let is_layer = |number: &usize| matches!(sides(number), Some(2 | 4));
    numbers.into_iter().filter(is_layer).collect()
}

/// What a layer is called by the name of its weight.
fn layer_name(weight: &str) -> String {
    weight.strip_suffix(".weight").unwrap_or(weight).to_string()
}

/// The layers of a file one after the other, in the order of their data: convolutions keep height and width, what one gives
/// null arrives null at the next; between an image and a linear layer lies its flattening, or its mean.
pub(super) fn in_sequence(
    scanned: &mut Scanned<'_>,
    input: (u64, u64, u64),
    take: &mut Take<'_>,
) -> Result<(), CheckpointError> {
    let checkpoint = &scanned.headers.checkpoint;
    let place = |number: usize| {
        let codes = scanned
            .weight(number)
            .parts
            .first()
            .and_then(|part| checkpoint.tensors.get(*part as usize));
        codes.map(|tensor| (tensor.file, tensor.begin))
    };
    let mut order: Vec<usize> = (0..scanned.headers.weights.weights.len()).collect();
    order.sort_by_key(|number| place(*number));
    let order = matrices(scanned, order);
    let (channels, height, width) = input;
    let mut arriving = Channels::none(usize::try_from(channels).unwrap_or(0));
    let mut image = true;
    let all = &scanned.headers.weights.weights;
    for batch in batches(&order, |number| all[*number].bytes) {
        scanned.look_ahead(batch)?;
        for number in batch {
            let weight = scanned.weight(*number);
            let Some(shape) = &weight.shape else {
                continue;
            };
            let inputs = usize::try_from(shape[1]).unwrap_or(usize::MAX);
            let spatial = (shape.len() == 4).then_some((height, width));
            if spatial.is_none() && image {
                let positions = usize::try_from(height.saturating_mul(width)).unwrap_or(usize::MAX);
                if arriving.width().checked_mul(positions) == Some(inputs) {
                    arriving = arriving.each(positions);
                }
            }
            image = spatial.is_some();
            let null_in = if arriving.width() == inputs {
                arriving
            } else {
                Channels::none(inputs)
            };
            let meant = Meant::as_stored(weight);
            let null_out = scanned.rows_without_live_inputs(*number, &meant, &null_in)?;
            let null_out = null_out.unwrap_or_else(|| Channels::none(0));
            let spots = spatial.map_or(1, |(h, w)| u128::from(h) * u128::from(w));
            arriving = null_out.clone();
            let plan = Plan {
                name: layer_name(&weight.name),
                number: *number,
                meant,
                shape: shape.to_vec(),
                spatial,
                dense: spots.saturating_mul(weight.elements.into()),
                null_in,
                null_out,
            };
            take(plan, scanned)?;
        }
    }
    Ok(())
}
