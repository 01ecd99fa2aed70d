//! Turns nodes into metrics, and adds up what only the whole model has: training, active parameters, cache.

use super::metrics::{Metrics, bytes, sum, tensor_bytes};
use super::ties::Ties;
use super::{Options, overflow};
use crate::db::RowKind;
use crate::model::{Model, ModelError, Node, Phase, Tree, Widths, Workload};
use std::collections::HashMap;
use std::rc::Rc;

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

/// Turns nodes into metrics; each shared node is measured once.
pub(super) struct Meter {
    widths: Widths,
    matmul_only: bool,
    /// Whether the phase keeps a cache; without one, keys and values are activations.
    keeps_cache: bool,
    measured: HashMap<*const u8, (Metrics, Metrics)>,
}

impl Meter {
    pub(super) fn new(workload: &Workload, options: Options) -> Meter {
        Meter {
            widths: workload.widths,
            keeps_cache: matches!(workload.phase, Phase::Prefill | Phase::Decode),
            matmul_only: options.matmul_only,
            measured: HashMap::new(),
        }
    }

    /// Metrics of one run of a node: with and without its children.
    pub(super) fn unit(&mut self, node: &Rc<Node<'_>>) -> Option<(Metrics, Metrics)> {
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

    pub(super) fn own(&self, node: &Node<'_>) -> Option<Metrics> {
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
                .checked_add(tensor_bytes(tensor, fixed, widths)?)?;
            if let Some(stored) = &tensor.stored {
                own.stored_bytes = own.stored_bytes.checked_add(stored.bytes)?;
                own.stored_params = own.stored_params.checked_add(stored.elements)?;
            }
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
        for read in &node.weight_reads {
            let read_bytes = match read.stored_bytes.filter(|_| widths.weight.is_none()) {
                Some(stored) => stored,
                None => bytes(read.elements, weight_bits(read.bits))?,
            };
            own.read.weights = own.read.weights.checked_add(read_bytes)?;
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

    pub(super) fn totals(
        &mut self,
        tree: &Tree<'_>,
        workload: &Workload,
    ) -> Result<Totals, ModelError> {
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

    pub(super) fn train(&self, all: &Metrics, sums: &Sums) -> Option<Train> {
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
pub(super) struct Sums {
    cache: u128,
    idle_expert_params: u128,
    /// Elements that leaves write.
    leaf_outputs: u128,
    /// MACs of weights with the model's input itself.
    data_macs: u128,
}

impl Sums {
    pub(super) fn add(
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

/// Bytes that one more token of one sequence adds to the cache: the difference of two short prefills.
pub(super) fn cache_growth(model: &Model<'_>, workload: &Workload) -> Result<u128, ModelError> {
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
