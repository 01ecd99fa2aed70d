//! From the tree of a model to numbers: what each module and the whole cost under a workload.
//!
//! [`analyze`] takes a [`Tree`] and a [`Workload`] and gives an [`Analysis`]: one [`Row`] per module (equal items of a list
//! are one row with a count, or each its own under `expand`), [`Totals`], and notes. Counts are checked `u128`.

use crate::db::{Db, DbError, RowKind};
use crate::formula::Formula;
use crate::model::{
    Model, ModelError, Node, Phase, Quantity, Status, Tree, Widths, Workload, entry_of,
    expand_class, find_tensor, nearest_class, stub, template_value,
};
use crate::value::{Name, Value};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// What a module or a model costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Parameters, logical.
    pub params: u128,
    /// Bytes that the parameters take.
    pub weight_bytes: u128,
    /// Multiply-accumulates of matrix products and convolutions.
    pub macs: u128,
    /// Floating-point operations: 2 per MAC, and elementwise work unless only matrix products are counted.
    pub flops: u128,
    /// Bit operations of the MACs.
    pub bops: u128,
    /// Bytes read.
    pub read: Read,
    /// Bytes written.
    pub write: Written,
    /// Bytes held between operations inside modules.
    pub intermediate_bytes: u128,
}

/// Bytes read, by what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Read {
    /// Parameters.
    pub weights: u128,
    /// Activations.
    pub activations: u128,
    /// Cached keys, values and states.
    pub kv_cache: u128,
}

impl Read {
    /// All of it, if it fits.
    pub fn total(&self) -> Option<u128> {
        sum([self.weights, self.activations, self.kv_cache])
    }
}

impl Written {
    /// All of it, if it fits.
    pub fn total(&self) -> Option<u128> {
        sum([self.activations, self.kv_cache])
    }
}

/// Bytes written, by what is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Activations.
    pub activations: u128,
    /// Cached keys, values and states.
    pub kv_cache: u128,
}

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
    pub experts: Option<crate::model::ExpertUse>,
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
        }
    }
}

/// The whole model.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Sums over all modules.
    pub all: Metrics,
    /// Parameters that one token uses.
    pub params_active: u128,
    /// Bytes that the cache holds after the step.
    pub kv_cache_bytes: u128,
    /// Bytes that one more token of one sequence adds to the cache, before a window is full.
    pub kv_cache_bytes_per_token: u128,
    /// Forward and backward.
    pub train: Option<Train>,
}

/// What one training step costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Train {
    /// MACs of the forward pass.
    pub forward_macs: u128,
    /// MACs of the backward pass: twice the forward ones, less input gradients that nobody needs.
    pub backward_macs: u128,
    /// Both.
    pub total_macs: u128,
    /// Bytes of the weights.
    pub weight_bytes: u128,
    /// Bytes of the gradients, as wide as the dtype.
    pub gradient_bytes: u128,
    /// Bytes of Adam's two f32 states.
    pub optimizer_bytes: u128,
    /// Bytes of the f32 master copy; 0 where the weights are f32 already.
    pub master_bytes: u128,
    /// Bytes of activations kept for the backward pass: the outputs of leaves.
    pub activation_bytes: u128,
    /// Bytes of attention scores and the like that an eager implementation keeps as well.
    pub intermediate_bytes: u128,
    /// All of these bytes together.
    pub total_bytes: u128,
}

/// A finding attached to a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A short stable name.
    pub code: String,
    /// The module it is about.
    pub path: String,
    /// What it says.
    pub message: String,
}

/// A model under a workload.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// What was asked, defaults filled in.
    pub workload: Workload,
    /// Width of most weights.
    pub weight_bits: u32,
    /// Modules in tree order, the root first.
    pub rows: Vec<Row>,
    /// The whole.
    pub totals: Totals,
    /// Findings.
    pub notes: Vec<Note>,
}

/// How an analysis is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A row for each module instead of one for equal ones.
    pub expand: bool,
    /// Count matrix products only: FLOPs are then twice the MACs.
    pub matmul_only: bool,
}

/// Most rows of one analysis.
pub const MAX_ROWS: usize = 200_000;

/// Analyzes a model under a workload.
pub fn analyze(
    model: &Model<'_>,
    workload: &Workload,
    options: Options,
) -> Result<Analysis, ModelError> {
    let tree = model.expand(workload)?;
    let mut analysis = measure(&tree, workload, options)?;
    analysis.totals.kv_cache_bytes_per_token = cache_growth(model, workload)?;
    analysis.notes.extend(model_notes(model, workload, &tree)?);
    Ok(analysis)
}

/// Totals of one model under many workloads.
pub struct Sweep<'m, 'e> {
    model: &'m Model<'e>,
    options: Options,
    /// What a token adds to the cache depends on its width alone, as long as no length of an encoder plays a part.
    growth: std::cell::RefCell<HashMap<(u32, u64), u128>>,
    notes: std::cell::RefCell<Vec<Note>>,
}

impl<'m, 'e> Sweep<'m, 'e> {
    /// A sweep over one model.
    pub fn new(model: &'m Model<'e>, options: Options) -> Self {
        Sweep {
            model,
            options,
            growth: std::cell::RefCell::default(),
            notes: std::cell::RefCell::default(),
        }
    }

    /// Width of most weights, and totals.
    pub fn totals(&self, workload: &Workload) -> Result<(u32, Totals), ModelError> {
        let tree = self.model.expand(workload)?;
        let mut totals = Meter::new(workload, self.options).totals(&tree, workload)?;
        let encoder = if self.model.task() == crate::db::Task::Seq2seq {
            workload.seq_len
        } else {
            0
        };
        let key = (workload.widths.kv, encoder);
        let known = self.growth.borrow().get(&key).copied();
        totals.kv_cache_bytes_per_token = match known {
            Some(growth) => growth,
            None => {
                let growth = cache_growth(self.model, workload)?;
                self.growth.borrow_mut().insert(key, growth);
                growth
            }
        };
        let mut notes = Vec::new();
        entry_notes(&tree.root, "", &mut Vec::new(), &mut notes);
        notes.extend(model_notes(self.model, workload, &tree)?);
        for note in notes {
            if !self.notes.borrow().contains(&note) {
                self.notes.borrow_mut().push(note);
            }
        }
        Ok((weight_bits(&tree, workload), totals))
    }

    /// What was noticed under any of the workloads.
    pub fn notes(self) -> Vec<Note> {
        self.notes.into_inner()
    }
}

/// Width of most weights.
fn weight_bits(tree: &Tree<'_>, workload: &Workload) -> u32 {
    workload
        .widths
        .weight
        .or(tree.quantized_bits)
        .unwrap_or(workload.widths.dtype)
}

/// What one class costs under given arguments, without a model around it.
///
/// ```
/// use bitcost::{analysis, db::Db, model::Workload, value::{Name, Value}};
///
/// let db = Db::embedded()?;
/// let arguments = [("N", 2048), ("in_features", 4096), ("out_features", 4096)];
/// let arguments: Vec<_> = arguments.map(|(name, n)| (Name::new(name), Value::Int(n))).into();
/// let cost = analysis::evaluate(&db, "torch.nn.Linear", &arguments, &Workload::default())?;
/// assert_eq!(cost.macs, Some(2048 * 4096 * 4096));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(
    db: &Db,
    class: &str,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Result<ClassCost, ModelError> {
    let entry = entry_of(db, class)?;
    if entry.only_templates() {
        let number = |formula: Option<&'_ Formula>,
                      field: &str,
                      quantity|
         -> Result<Option<u128>, ModelError> {
            let Some(formula) = formula else {
                return Ok(None);
            };
            let value = template_value(db, entry, formula, field, quantity, arguments, workload)?;
            let count = value.as_int().and_then(|n| u128::try_from(n).ok());
            count.map(Some).ok_or_else(|| {
                DbError::schema(
                    &entry.key,
                    field,
                    format!(
                        "has to give a whole number of 0 or more, not {}",
                        value.describe()
                    ),
                )
                .into()
            })
        };
        let memory = entry.memory_analysis.as_ref();
        return Ok(ClassCost {
            class: entry.path.clone(),
            flops: number(
                entry.flop_analysis.as_ref().map(|a| &a.formula),
                "flop_analysis.formula_template",
                Quantity::Flops,
            )?,
            read_bytes: number(
                memory.and_then(|m| m.reads.as_ref()),
                "memory_analysis.reads_template",
                Quantity::Reads,
            )?,
            write_bytes: number(
                memory.and_then(|m| m.writes.as_ref()),
                "memory_analysis.writes_template",
                Quantity::Writes,
            )?,
            intermediate_bytes: number(
                memory.and_then(|m| m.intermediates.as_ref()),
                "memory_analysis.intermediates_template",
                Quantity::Intermediates,
            )?,
            ..ClassCost::default()
        });
    }
    let tree = expand_class(db, class, arguments, workload)?;
    let metrics = Meter::new(
        &Workload {
            phase: Phase::Prefill,
            ..workload.clone()
        },
        Options::default(),
    )
    .totals(&tree, workload)?
    .all;
    Ok(ClassCost {
        class: entry.path.clone(),
        params: Some(metrics.params),
        macs: Some(metrics.macs),
        flops: Some(metrics.flops),
        bops: Some(metrics.bops),
        read_bytes: Some(metrics.read.total().ok_or_else(overflow)?),
        write_bytes: Some(metrics.write.total().ok_or_else(overflow)?),
        intermediate_bytes: Some(metrics.intermediate_bytes),
        metrics: Some(metrics),
    })
}

/// What one class costs; `None` where its entry does not say.
#[derive(Clone, Debug, Default)]
pub struct ClassCost {
    /// Full path of the class.
    pub class: Arc<str>,
    /// Parameters.
    pub params: Option<u128>,
    /// MACs.
    pub macs: Option<u128>,
    /// FLOPs.
    pub flops: Option<u128>,
    /// Bit operations.
    pub bops: Option<u128>,
    /// All bytes read.
    pub read_bytes: Option<u128>,
    /// All bytes written.
    pub write_bytes: Option<u128>,
    /// Bytes held in between.
    pub intermediate_bytes: Option<u128>,
    /// The same with reads and writes split, where the entry has rows.
    pub metrics: Option<Metrics>,
}

/// Measures an expanded tree.
pub fn measure(
    tree: &Tree<'_>,
    workload: &Workload,
    options: Options,
) -> Result<Analysis, ModelError> {
    let mut meter = Meter::new(workload, options);
    let totals = meter.totals(tree, workload)?;
    let ties = Ties::new(tree, &workload.widths);
    let mut walk = RowWalk {
        meter: &mut meter,
        ties: &ties,
        expand: options.expand,
        rows: Vec::new(),
        notes: Vec::new(),
    };
    walk.node(&tree.root, Place::default())?;
    let (rows, notes) = (walk.rows, walk.notes);
    Ok(Analysis {
        workload: workload.clone(),
        weight_bits: weight_bits(tree, workload),
        rows,
        totals,
        notes,
    })
}

fn overflow() -> ModelError {
    ModelError::Overflow
}

/// The sum, if it fits.
fn sum(parts: impl IntoIterator<Item = u128>) -> Option<u128> {
    parts.into_iter().try_fold(0u128, u128::checked_add)
}

/// Bytes that `elements` of `bits` each take.
fn bytes(elements: u128, bits: u32) -> Option<u128> {
    Some(elements.checked_mul(bits.into())?.div_ceil(8))
}

impl Metrics {
    /// Adds `other`, `times` over; what a module owns is added once whatever `times` is.
    fn add(&mut self, other: &Metrics, times: u128) -> Option<()> {
        let add = |a: &mut u128, b: u128, times: u128| -> Option<()> {
            *a = a.checked_add(b.checked_mul(times)?)?;
            Some(())
        };
        add(&mut self.params, other.params, 1)?;
        add(&mut self.weight_bytes, other.weight_bytes, 1)?;
        add(&mut self.macs, other.macs, times)?;
        add(&mut self.flops, other.flops, times)?;
        add(&mut self.bops, other.bops, times)?;
        add(&mut self.read.weights, other.read.weights, times)?;
        add(&mut self.read.activations, other.read.activations, times)?;
        add(&mut self.read.kv_cache, other.read.kv_cache, times)?;
        add(&mut self.write.activations, other.write.activations, times)?;
        add(&mut self.write.kv_cache, other.write.kv_cache, times)?;
        add(
            &mut self.intermediate_bytes,
            other.intermediate_bytes,
            times,
        )
    }

    /// The metrics of `calls` runs.
    fn times(&self, calls: u128) -> Option<Metrics> {
        let mut out = Metrics::default();
        out.add(self, calls)?;
        Some(out)
    }

    /// Adds everything of `other`, `count` times.
    pub fn add_all(&mut self, other: &Metrics, count: u128) -> Option<()> {
        self.add(other, count)?;
        self.params = self
            .params
            .checked_add(other.params.checked_mul(count.checked_sub(1)?)?)?;
        self.weight_bytes = self
            .weight_bytes
            .checked_add(other.weight_bytes.checked_mul(count - 1)?)?;
        Some(())
    }

    /// All bytes read and written.
    pub fn traffic(&self) -> u128 {
        let parts = [
            self.read.weights,
            self.read.activations,
            self.read.kv_cache,
            self.write.activations,
            self.write.kv_cache,
        ];
        parts
            .iter()
            .fold(0u128, |sum, part| sum.saturating_add(*part))
    }
}

/// Turns nodes into metrics; each shared node is measured once.
struct Meter {
    widths: Widths,
    matmul_only: bool,
    /// Whether the phase keeps a cache; without one, keys and values are activations.
    keeps_cache: bool,
    measured: HashMap<*const u8, (Metrics, Metrics)>,
}

impl Meter {
    fn new(workload: &Workload, options: Options) -> Meter {
        Meter {
            widths: workload.widths,
            keeps_cache: matches!(workload.phase, Phase::Prefill | Phase::Decode),
            matmul_only: options.matmul_only,
            measured: HashMap::new(),
        }
    }

    /// Metrics of one run of a node: with and without its children.
    fn unit(&mut self, node: &Rc<Node<'_>>) -> Option<(Metrics, Metrics)> {
        let key = Rc::as_ptr(node).cast::<u8>();
        if let Some(known) = self.measured.get(&key) {
            return Some(*known);
        }
        let own = self.own(node)?;
        let mut all = own;
        for (_, child) in &node.children {
            let (unit, _) = self.unit(child)?;
            all.add(&unit, child.calls)?;
        }
        self.measured.insert(key, (all, own));
        Some((all, own))
    }

    fn own(&self, node: &Node<'_>) -> Option<Metrics> {
        let widths = &self.widths;
        let weight_bits = |fixed: Option<u32>| widths.weight.or(fixed).unwrap_or(widths.dtype);
        let activation_bits = widths
            .activation
            .or(node.activation_bits)
            .unwrap_or(widths.dtype);
        let mut own = Metrics::default();
        for tensor in &node.tensors {
            own.params = own.params.checked_add(tensor.elements)?;
            let fixed = node.weight_bits.filter(|_| tensor.multiplied);
            own.weight_bytes = own
                .weight_bytes
                .checked_add(bytes(tensor.elements, weight_bits(fixed))?)?;
        }
        for work in &node.work {
            let other_side = match work.kind {
                RowKind::WeightMac => weight_bits(work.weight_bits),
                RowKind::ActMac if work.operand == Some("kv") => widths.kv,
                RowKind::ActMac => activation_bits,
                _ => continue,
            };
            own.macs = own.macs.checked_add(work.count)?;
            let bops = work
                .count
                .checked_mul(other_side.into())?
                .checked_mul(activation_bits.into())?;
            own.bops = own.bops.checked_add(bops)?;
        }
        own.flops = if self.matmul_only {
            // An estimate is not split into matrix products and the rest.
            own.macs.checked_mul(2)?.checked_add(node.estimated_flops)?
        } else {
            node.own_flops()?
        };
        for (elements, fixed) in &node.weight_reads {
            own.read.weights = own
                .read
                .weights
                .checked_add(bytes(*elements, weight_bits(*fixed))?)?;
        }
        own.read.activations = bytes(node.moved.reads, widths.activation.unwrap_or(widths.dtype))?;
        own.read.kv_cache = bytes(node.moved.kv_reads, widths.kv)?;
        own.write.activations =
            bytes(node.moved.writes, widths.activation.unwrap_or(widths.dtype))?;
        own.write.kv_cache = bytes(node.moved.kv_writes, widths.kv)?;
        own.intermediate_bytes = bytes(
            node.moved.intermediates,
            widths.activation.unwrap_or(widths.dtype),
        )?;
        if !self.keeps_cache {
            let read = bytes(
                node.moved.kv_reads,
                widths.activation.unwrap_or(widths.dtype),
            )?;
            own.read.activations = own.read.activations.checked_add(read)?;
            own.read.kv_cache = 0;
            own.write.kv_cache = 0;
        }
        Some(own)
    }

    fn totals(&mut self, tree: &Tree<'_>, workload: &Workload) -> Result<Totals, ModelError> {
        let (mut all, _) = self.unit(&tree.root).ok_or_else(overflow)?;
        let ties = Ties::new(tree, &workload.widths);
        ties.correct(&mut all, "");
        let mut sums = Sums::default();
        sums.add(&tree.root, 1, &mut HashMap::new())
            .ok_or_else(overflow)?;
        let train = if workload.phase == Phase::Train {
            Some(self.train(&all, &sums).ok_or_else(overflow)?)
        } else {
            None
        };
        Ok(Totals {
            params_active: all.params.saturating_sub(sums.idle_expert_params),
            kv_cache_bytes: if self.keeps_cache {
                bytes(sums.cache, self.widths.kv).ok_or_else(overflow)?
            } else {
                0
            },
            kv_cache_bytes_per_token: 0,
            train,
            all,
        })
    }

    fn train(&self, all: &Metrics, sums: &Sums) -> Option<Train> {
        let dtype = self.widths.dtype;
        let mut train = Train {
            forward_macs: all.macs,
            backward_macs: all.macs.checked_mul(2)?.checked_sub(sums.data_macs)?,
            total_macs: 0,
            weight_bytes: all.weight_bytes,
            gradient_bytes: bytes(all.params, dtype)?,
            optimizer_bytes: all.params.checked_mul(8)?,
            master_bytes: if dtype < 32 {
                all.params.checked_mul(4)?
            } else {
                0
            },
            activation_bytes: bytes(sums.leaf_outputs, self.widths.activation.unwrap_or(dtype))?,
            intermediate_bytes: all.intermediate_bytes,
            total_bytes: 0,
        };
        train.total_macs = train.forward_macs.checked_add(train.backward_macs)?;
        let parts = [
            train.weight_bytes,
            train.gradient_bytes,
            train.optimizer_bytes,
            train.master_bytes,
            train.activation_bytes,
            train.intermediate_bytes,
        ];
        train.total_bytes = parts
            .iter()
            .try_fold(0u128, |sum, part| sum.checked_add(*part))?;
        Some(train)
    }
}

/// What only the whole model has.
#[derive(Clone, Copy, Default)]
struct Sums {
    cache: u128,
    idle_expert_params: u128,
    /// Elements that leaves write.
    leaf_outputs: u128,
    /// MACs of weights with the model's input itself.
    data_macs: u128,
}

impl Sums {
    fn add(
        &mut self,
        node: &Rc<Node<'_>>,
        calls: u128,
        known: &mut HashMap<*const u8, Sums>,
    ) -> Option<()> {
        let key = Rc::as_ptr(node).cast::<u8>();
        let unit = match known.get(&key) {
            Some(unit) => *unit,
            None => {
                let mut unit = Sums {
                    cache: sum(node.cache.iter().map(|(_, n)| *n))?,
                    ..Sums::default()
                };
                if let Some(experts) = node.experts.filter(|e| e.total > 0) {
                    unit.idle_expert_params = experts.elements / experts.total
                        * experts.total.saturating_sub(experts.per_token);
                }
                if node.children.is_empty() {
                    unit.leaf_outputs = node.moved.writes;
                }
                unit.data_macs = node.data_macs;
                for (_, child) in &node.children {
                    unit.add(child, child.calls, known)?;
                }
                known.insert(key, unit);
                unit
            }
        };
        let add = |a: &mut u128, b: u128, times: u128| -> Option<()> {
            *a = a.checked_add(b.checked_mul(times)?)?;
            Some(())
        };
        add(&mut self.cache, unit.cache, calls)?;
        add(&mut self.idle_expert_params, unit.idle_expert_params, 1)?;
        add(&mut self.leaf_outputs, unit.leaf_outputs, calls)?;
        add(&mut self.data_macs, unit.data_macs, calls)
    }
}

/// Tied tensors: each group of owners is one tensor.
struct Ties {
    groups: Vec<TieGroup>,
}

struct TieGroup {
    /// Paths of the owners with the bytes that each counts; the original first.
    owners: Vec<(Arc<str>, u128)>,
    elements: u128,
}

impl Ties {
    fn new(tree: &Tree<'_>, widths: &Widths) -> Ties {
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
    fn correct(&self, all: &mut Metrics, path: &str) {
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

/// Where the walk over rows stands.
#[derive(Clone, Default)]
struct Place {
    path: String,
    /// The path of the first of the modules that the row stands for.
    first: String,
    depth: usize,
    count: Option<u128>,
    calls: Option<u128>,
    repeated: bool,
}

struct RowWalk<'m> {
    meter: &'m mut Meter,
    ties: &'m Ties,
    expand: bool,
    rows: Vec<Row>,
    notes: Vec<Note>,
}

impl RowWalk<'_> {
    fn node(&mut self, node: &Rc<Node<'_>>, at: Place) -> Result<(), ModelError> {
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
        });
        for group in groups(&node.children, self.expand) {
            let join = |head: &str, tail: &str| {
                if head.is_empty() {
                    tail.to_string()
                } else {
                    format!("{head}.{tail}")
                }
            };
            let (first, child) = group[0];
            let place = Place {
                path: join(&at.path, &span(&group)),
                first: join(&at.first, first),
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

type Child<'c, 'e> = (&'c str, &'c Rc<Node<'e>>);

/// Children that are the same node, in the order of their first.
fn groups<'c, 'e>(
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
fn span(group: &[Child<'_, '_>]) -> String {
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

/// Bytes that one more token of one sequence adds to the cache: the difference of two short prefills.
fn cache_growth(model: &Model<'_>, workload: &Workload) -> Result<u128, ModelError> {
    let keeps_cache = matches!(workload.phase, Phase::Prefill | Phase::Decode);
    if !model.task().generates() || !keeps_cache {
        return Ok(0);
    }
    let held = |tokens: u64| -> Result<u128, ModelError> {
        let seq2seq = model.task() == crate::db::Task::Seq2seq;
        let (seq_len, dec_seq_len) = if seq2seq {
            (workload.seq_len, tokens)
        } else {
            (tokens, 1)
        };
        let short = Workload {
            phase: Phase::Prefill,
            batch: 1,
            seq_len,
            dec_seq_len,
            past_len: 0,
            ..workload.clone()
        };
        let tree = model.expand(&short)?;
        let mut sums = Sums::default();
        sums.add(&tree.root, 1, &mut HashMap::new())
            .ok_or_else(overflow)?;
        bytes(sums.cache, workload.widths.kv).ok_or_else(overflow)
    };
    Ok(held(2)?.saturating_sub(held(1)?))
}

/// What the whole model gives reason to note.
fn model_notes(
    model: &Model<'_>,
    workload: &Workload,
    tree: &Tree<'_>,
) -> Result<Vec<Note>, ModelError> {
    let mut notes = unresolved_notes(model, tree);
    notes.extend(position_notes(model, workload)?);
    notes.extend(dtype_note(model, workload));
    notes.extend(width_notes(model, workload));
    Ok(notes)
}

/// The notes of the entries of a tree; each shared node is asked once.
fn entry_notes(node: &Rc<Node<'_>>, path: &str, seen: &mut Vec<*const u8>, notes: &mut Vec<Note>) {
    let pointer = Rc::as_ptr(node).cast::<u8>();
    if seen.contains(&pointer) {
        return;
    }
    seen.push(pointer);
    for (code, message) in &node.notes {
        if !notes
            .iter()
            .any(|n| n.code == **code && n.message == **message)
        {
            notes.push(Note {
                code: code.to_string(),
                path: path.into(),
                message: message.to_string(),
            });
        }
    }
    for (name, child) in &node.children {
        let path = if path.is_empty() {
            name.to_string()
        } else {
            format!("{path}.{name}")
        };
        entry_notes(child, &path, seen, notes);
    }
}

/// A note for each class without an entry: what is missing, and the stub of an entry.
pub fn unresolved_notes(model: &Model<'_>, tree: &Tree<'_>) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    for (class, path, error) in &tree.unresolved {
        let hint = if error.reason.contains("did you mean") {
            String::new()
        } else {
            nearest_class(model.db, class)
        };
        let message = format!(
            "{}{hint}; its cost is not in the totals. Describe it in a file and pass it with --module-db: {}",
            error.reason,
            stub(class)
        );
        if !notes.iter().any(|n| n.message == message) {
            notes.push(Note {
                code: "unresolved".into(),
                path: path.clone(),
                message,
            });
        }
    }
    notes
}

/// What the config says of widths and the program does not know.
fn width_notes(model: &Model<'_>, workload: &Workload) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |code: &str, message: String| {
        notes.push(Note {
            code: code.into(),
            path: String::new(),
            message,
        });
    };
    if model.class_assumed {
        let class = model.root.map_or(&*model.architecture, |root| &*root.path);
        add(
            "class",
            format!("the config names no class; {class} by its model_type (--class changes it)"),
        );
    }
    if let Some(written) = model.unknown_dtype() {
        let written = written.describe();
        add(
            "dtype",
            format!(
                "the config's dtype is {written}, which is not known; {} bits assumed",
                workload.widths.dtype
            ),
        );
    }
    if let Some(written) = model.unknown_quantization() {
        let written = written.describe();
        add(
            "quantization",
            format!(
                "the config's quantization method is {written}, which the database does not know; weights are taken to be as wide as the dtype (--weight-bits changes it)"
            ),
        );
    }
    notes
}

/// Says which width was assumed where a config file names none.
fn dtype_note(model: &Model<'_>, workload: &Workload) -> Option<Note> {
    let assumed = model.model_type.is_some()
        && !model.names_dtype()
        && model.unknown_dtype().is_none()
        && workload.widths.dtype == 32;
    let message = "the config names no dtype; 32 bits as torch builds it then (--dtype changes it)";
    assumed.then(|| Note {
        code: "dtype".into(),
        path: String::new(),
        message: message.into(),
    })
}

fn position_notes(model: &Model<'_>, workload: &Workload) -> Result<Vec<Note>, ModelError> {
    let Some(limit) = model.positions()? else {
        return Ok(Vec::new());
    };
    let decoder = workload.past_len.saturating_add(workload.dec_seq_len);
    let asked = match model.task() {
        crate::db::Task::Causal => workload.seq_len.saturating_add(workload.past_len),
        crate::db::Task::Seq2seq => workload.seq_len.max(decoder),
        _ => workload.seq_len,
    };
    if asked <= limit {
        return Ok(Vec::new());
    }
    let message = format!(
        "{asked} positions are asked for, the model is made for {limit}; the numbers are what the code would execute"
    );
    Ok(vec![Note {
        code: "positions".into(),
        path: String::new(),
        message,
    }])
}
