//! The frozen tree: what each module is, owns and does under one workload.
//!
//! Equal items of a list are one shared node; only the list knows their numbers. All counts of a node are for one run of
//! its parent, all its calls in that run together; `calls` multiplies on the way down.

use super::scope::Scope;
use crate::db::{Entry, RowKind};
use std::rc::Rc;
use std::sync::Arc;

/// A module of the tree with everything below it.
#[derive(Debug, Clone)]
pub struct Node<'e> {
    /// Its entry; `None` where the database has none.
    pub entry: Option<&'e Entry>,
    /// Full path of its class.
    pub class: Arc<str>,
    /// How sure its numbers are.
    pub status: Status,
    /// How often one run of the parent runs it, by `calls=` or 0 where the parent's `forward` leaves it out.
    pub calls: u128,
    /// Its own parameters.
    pub tensors: Vec<Tensor>,
    /// Tensors of its checkpoint that are not parameters.
    pub buffers: Vec<Tensor>,
    /// Its own work.
    pub work: Vec<Work<'e>>,
    /// FLOPs where only a total is known.
    pub estimated_flops: u128,
    /// Its own traffic in elements.
    pub moved: Moved,
    /// Parameters read by own work.
    pub weight_reads: Vec<WeightRead>,
    /// Elements it leaves in the cache.
    pub cache: Vec<(Arc<str>, u128)>,
    /// Its experts, if it holds some.
    pub experts: Option<ExpertUse>,
    /// Width of the weights it multiplies, where class or quantization fix it.
    pub weight_bits: Option<u32>,
    /// Width of the activations it multiplies, where class or quantization fix it.
    pub activation_bits: Option<u32>,
    /// MACs of weights with the model's input itself, for which training needs no gradient.
    pub data_macs: u128,
    /// What it contains, in order.
    pub children: Vec<(Arc<str>, Rc<Node<'e>>)>,
    /// What the reader has to know.
    pub notes: Vec<(Arc<str>, Arc<str>)>,
    /// Where its formulas are evaluated.
    pub scope: Rc<Scope<'e>>,
}

/// The path of what is called `name` in the module at `path`; the root has none.
pub fn path_below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

/// Paths of two tensors that are one: the one that repeats, the original.
pub type Tied = (Arc<str>, Arc<str>);

/// How sure a module's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Computed from its entry.
    Resolved,
    /// Its entry gives FLOPs only.
    Estimated,
    /// The database has no entry.
    Unresolved,
}

impl Status {
    /// The name of the status.
    pub fn name(self) -> &'static str {
        match self {
            Status::Resolved => "resolved",
            Status::Estimated => "estimated",
            Status::Unresolved => "unresolved",
        }
    }
}

/// A tensor of a module.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name inside the module.
    pub name: Arc<str>,
    /// Its logical shape.
    pub shape: Vec<u128>,
    /// How many elements it has.
    pub elements: u128,
    /// Whether own work multiplies it, so that the module's `weight_bits` apply.
    pub multiplied: bool,
    /// How the checkpoint holds it; `None` where no checkpoint does.
    pub stored: Option<Rc<Stored>>,
}

/// How a checkpoint holds a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The format: `plain`, `gptq`; `mixed` where its parts differ.
    pub scheme: Rc<str>,
    /// The format for people: `BF16`, `gptq int4 g128`.
    pub label: Rc<str>,
    /// How many weights the bytes hold.
    pub elements: u128,
    /// Bytes of codes and side tensors.
    pub bytes: u128,
    /// Width of the codes that are multiplied, where the format has codes per weight.
    pub code_bits: Option<u32>,
    /// Width of the activations that meet them, where the format fixes it.
    pub activation_bits: Option<u32>,
}

impl Stored {
    /// Bytes that reading so many of its weights takes.
    pub fn bytes_of(&self, elements: u128) -> Option<u128> {
        match self.elements {
            0 => Some(0),
            all if all == elements => Some(self.bytes),
            all => Some(self.bytes.checked_mul(elements)?.div_ceil(all)),
        }
    }
}

/// Parameters that own work reads.
#[derive(Debug, Clone)]
pub struct WeightRead {
    /// How many.
    pub elements: u128,
    /// The tensor that they are of, as a path below the module; `None` where a formula gives their number.
    pub tensor: Option<Rc<str>>,
    /// Their width, where class or quantization fix it.
    pub bits: Option<u32>,
    /// Their bytes in the checkpoint; `None` where no checkpoint has them.
    pub stored_bytes: Option<u128>,
}

impl WeightRead {
    pub(super) fn new(elements: u128, tensor: Option<Rc<str>>, bits: Option<u32>) -> WeightRead {
        WeightRead {
            elements,
            tensor,
            bits,
            stored_bytes: None,
        }
    }
}

/// One row of own work, evaluated.
#[derive(Debug, Clone)]
pub struct Work<'e> {
    /// The row's name.
    pub name: &'e str,
    /// What the count means.
    pub kind: &'e RowKind,
    /// The operand as written.
    pub operand: Option<&'e str>,
    /// MACs, FLOPs or elements.
    pub count: u128,
    /// FLOPs, for elementwise rows.
    pub flops: u128,
    /// Width of the weight that the row multiplies, where fixed by the module that owns it.
    pub weight_bits: Option<u32>,
}

/// Traffic of own work in elements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Activations read.
    pub reads: u128,
    /// Activations written.
    pub writes: u128,
    /// Cached elements read.
    pub kv_reads: u128,
    /// Cached elements written.
    pub kv_writes: u128,
    /// Elements held between own operations.
    pub intermediates: u128,
}

/// How a module uses its experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertUse {
    /// How many there are.
    pub total: u128,
    /// How many a token uses.
    pub per_token: u128,
    /// How many are expected to be touched in one run, routing at random.
    pub expected_distinct: f64,
    /// Parameters of all of them.
    pub elements: u128,
}

impl<'e> Node<'e> {
    /// A node that owns and does nothing yet.
    pub(super) fn blank(
        entry: Option<&'e Entry>,
        class: Arc<str>,
        status: Status,
        scope: Rc<Scope<'e>>,
    ) -> Node<'e> {
        Node {
            entry,
            class,
            status,
            scope,
            calls: 1,
            tensors: Vec::new(),
            buffers: Vec::new(),
            work: Vec::new(),
            estimated_flops: 0,
            moved: Moved::default(),
            weight_reads: Vec::new(),
            cache: Vec::new(),
            experts: None,
            weight_bits: None,
            activation_bits: None,
            data_macs: 0,
            children: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// FLOPs of own work: 2 per MAC, and the elementwise work.
    pub fn own_flops(&self) -> Option<u128> {
        let mut total = self.estimated_flops;
        for work in &self.work {
            let flops = match work.kind {
                RowKind::WeightMac | RowKind::ActMac => work.count.checked_mul(2)?,
                RowKind::Flops | RowKind::Elements(_) => work.flops,
            };
            total = total.checked_add(flops)?;
        }
        Some(total)
    }

    /// Adds a second call of the same module to this node.
    pub(super) fn join(&mut self, other: &Node<'e>) -> Result<(), &'static str> {
        if self.class != other.class
            || self.children.len() != other.children.len()
            || self.work.len() != other.work.len()
        {
            return Err("the module is called twice in ways that build it differently");
        }
        let add = |a: &mut u128, b: u128| -> Result<(), &'static str> {
            *a = a.checked_add(b).ok_or("a count does not fit 128 bits")?;
            Ok(())
        };
        for (work, more) in self.work.iter_mut().zip(&other.work) {
            add(&mut work.count, more.count)?;
            add(&mut work.flops, more.flops)?;
        }
        for ((_, held), (_, more)) in self.cache.iter_mut().zip(&other.cache) {
            add(held, *more)?;
        }
        add(&mut self.data_macs, other.data_macs)?;
        add(&mut self.estimated_flops, other.estimated_flops)?;
        add(&mut self.moved.reads, other.moved.reads)?;
        add(&mut self.moved.writes, other.moved.writes)?;
        add(&mut self.moved.kv_reads, other.moved.kv_reads)?;
        add(&mut self.moved.kv_writes, other.moved.kv_writes)?;
        add(&mut self.moved.intermediates, other.moved.intermediates)?;
        self.weight_reads.extend(other.weight_reads.iter().cloned());
        for ((_, child), (_, more)) in self.children.iter_mut().zip(&other.children) {
            let mut joined = (**child).clone();
            joined.join(more)?;
            *child = Rc::new(joined);
        }
        Ok(())
    }
}
