//! From the tree of a model to numbers: what each module and the whole cost under a workload.
//!
//! [`analyze`] takes a model and a [`Workload`] and gives an [`Analysis`]: one [`Row`] per module (equal items of a list are
//! one row with a count, or each its own under `expand`), [`Totals`], and notes. Counts are checked `u128`.
//!
//! - `metrics.rs`: the numbers, and adding them up
//! - `meter.rs`: a node's numbers, once for each shared node; totals, training, cache
//! - `ties.rs`: tensors that are one
//! - `rows.rs`: the walk over the tree that makes rows
//! - `notes.rs`: what the reader has to know
//! - `class.rs`: one class under arguments, without a model

mod class;
mod meter;
mod metrics;
mod notes;
mod rows;
mod ties;

pub use class::{ClassCost, evaluate};
pub use meter::{Totals, Train};
pub use metrics::{Metrics, Read, Written};
pub use notes::{Note, unresolved_notes};
pub use rows::Row;

use crate::join::{Finding, Headers, join};
use crate::model::{Model, ModelError, Tree, Workload};
use meter::{Meter, cache_growth};
use notes::{entry_notes, model_notes, stored_notes};
use rows::{Place, RowWalk};
use std::collections::HashMap;
use ties::Ties;

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
    /// What the checkpoint holds, where there is one.
    pub stored: Option<StoredTotals>,
}

/// What a checkpoint holds in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StoredTotals {
    /// Its files.
    pub files: usize,
    /// Its tensors, side tensors included.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u128,
    /// Whether model and checkpoint have the same parameters in the same shapes.
    pub matches: bool,
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

/// Analyzes a model under a workload, with the stored form of its weights where their headers are at hand.
pub fn analyze(
    model: &Model<'_>,
    headers: Option<&Headers>,
    workload: &Workload,
    options: Options,
) -> Result<Analysis, ModelError> {
    let (tree, findings) = joined(model, headers, workload)?;
    let mut analysis = measure(&tree, workload, options)?;
    analysis.totals.kv_cache_bytes_per_token = cache_growth(model, workload)?;
    analysis
        .notes
        .extend(model_notes(model, workload, &tree, headers)?);
    analysis.stored = headers.map(|headers| StoredTotals {
        files: headers.checkpoint.files.len(),
        tensors: headers.checkpoint.tensors.len(),
        bytes: headers.checkpoint.data_bytes(),
        matches: !findings.iter().any(|finding| finding.mismatch),
    });
    analysis.notes.extend(stored_notes(headers, findings));
    Ok(analysis)
}

/// The tree of a model under a workload, with what a checkpoint says of it.
fn joined<'e>(
    model: &Model<'e>,
    headers: Option<&Headers>,
    workload: &Workload,
) -> Result<(Tree<'e>, Vec<Finding>), ModelError> {
    let tree = model.expand(workload)?;
    let Some(headers) = headers else {
        return Ok((tree, Vec::new()));
    };
    let tokens = u128::from(workload.batch).checked_mul(workload.seq_len.into());
    let joined = join(model, tree, headers, tokens.ok_or_else(overflow)?)?;
    Ok((joined.tree, joined.findings))
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
        stored: None,
    })
}

/// Totals of one model under many workloads.
pub struct Sweep<'m, 'e> {
    model: &'m Model<'e>,
    headers: Option<&'m Headers>,
    options: Options,
    /// What a token adds to the cache depends on its width alone, as long as no length of an encoder plays a part.
    growth: std::cell::RefCell<HashMap<(u32, u64), u128>>,
    notes: std::cell::RefCell<Vec<Note>>,
}

impl<'m, 'e> Sweep<'m, 'e> {
    /// A sweep over one model.
    pub fn new(model: &'m Model<'e>, headers: Option<&'m Headers>, options: Options) -> Self {
        Sweep {
            model,
            headers,
            options,
            growth: std::cell::RefCell::default(),
            notes: std::cell::RefCell::default(),
        }
    }

    /// Width of most weights, and totals.
    pub fn totals(&self, workload: &Workload) -> Result<(u32, Totals), ModelError> {
        let (tree, findings) = joined(self.model, self.headers, workload)?;
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
        notes.extend(model_notes(self.model, workload, &tree, self.headers)?);
        notes.extend(stored_notes(self.headers, findings));
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

fn overflow() -> ModelError {
    ModelError::Overflow
}
