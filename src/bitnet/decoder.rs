//! The model, loaded: what does not change while it runs.

use super::cache::{self, CacheBits};
use super::head::{self, Head, HeadBits};
use super::plan::{Plan, Role, Shape};
use super::session::scratch_bytes;
use super::spent::Step;
use super::weights::{Matrix, Source};
use super::{Needed, RunError};
use crate::bitlinear::{Multipliers, PackedBitLinear};
use crate::float16;
use crate::kernels::{Granularity, Packed, Packing};
use crate::memory::{MemoryPool, Tag};
use crate::random::Random;
use crate::tensor::{Dtype, Tensor};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What norms are in the metrics of a pool.
pub const NORMS: Tag = Tag::of("norms");

/// How a model is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How ternary weights are packed.
    pub packing: Packing,
    /// How the output matrix is kept.
    pub head: HeadBits,
    /// How keys and values are kept.
    pub cache: CacheBits,
    /// Tokens that there is room for.
    pub context: usize,
}

/// A model that can run.
pub struct Decoder {
    /// What it is.
    pub plan: Plan,
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Tensor,
    pub(super) head: Head,
}

/// One layer. Matrices that meet the same features are one.
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    /// Queries, keys, values under each other.
    pub(super) qkv: PackedBitLinear,
    pub(super) attention_sub_norm: Option<Tensor>,
    pub(super) output: PackedBitLinear,
    pub(super) mlp_norm: Tensor,
    /// Gate and up under each other.
    pub(super) gate_up: PackedBitLinear,
    pub(super) mlp_sub_norm: Option<Tensor>,
    pub(super) down: PackedBitLinear,
}

/// The matrices of a layer, in the order in which they run; those of a group are one below the other.
const MATRICES: [&[Role]; 4] = [
    &[Role::Query, Role::Key, Role::Value],
    &[Role::Output],
    &[Role::Gate, Role::Up],
    &[Role::Down],
];

/// Spread of random embeddings.
const SPREAD: f32 = 0.02;

impl Needed {
    /// What a model takes.
    pub fn of(plan: &Plan, source: Source<'_>, settings: &Settings) -> Result<Needed, RunError> {
        let too_large =
            || RunError::Model("the sizes of the config are larger than any memory".into());
        let Shape {
            vocabulary,
            hidden,
            layers,
            ..
        } = plan.shape;
        let mut weights = 0usize;
        for group in MATRICES {
            let rows: usize = group.iter().map(|role| plan.weight(*role).0).sum();
            let (_, cols) = plan.weight(group[0]);
            let bytes = Dtype::Ternary(settings.packing).bytes(rows, cols);
            let all = bytes.and_then(|bytes| bytes.checked_mul(layers)?.checked_add(weights));
            weights = all.ok_or_else(too_large)?;
        }
        let stored = source.table(plan, plan.output_matrix())?;
        let dtype = stored.as_ref().map_or(Dtype::Bf16, Tensor::dtype);
        let mut head =
            head::bytes(vocabulary, hidden, dtype, settings.head).ok_or_else(too_large)?;
        // Random tokens are looked up in memory, where those of a checkpoint are in its file.
        let is_shared = plan.tied && settings.head == HeadBits::Stored;
        if stored.is_none() && !is_shared {
            let table = head::bytes(vocabulary, hidden, dtype, HeadBits::Stored);
            head = table
                .and_then(|table| table.checked_add(head))
                .ok_or_else(too_large)?;
        }
        let cache = cache::bytes(&plan.shape, settings.context, settings.cache);
        Ok(Needed {
            weights: weights as u64,
            head,
            cache: cache.ok_or_else(too_large)?,
            scratch: scratch_bytes(plan, settings.context).ok_or_else(too_large)?,
        })
    }
}

impl Decoder {
    /// Loads a model. `progress` is told how many rows of its ternary matrices are packed, of all.
    pub fn load(
        pool: &MemoryPool,
        plan: Plan,
        source: Source<'_>,
        settings: &Settings,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Decoder, RunError> {
        let mut matrices: Vec<Vec<Matrix<'_>>> = Vec::new();
        for layer in 0..plan.shape.layers {
            for group in MATRICES {
                let group = group.iter().map(|role| source.matrix(&plan, *role, layer));
                matrices.push(group.collect::<Result<_, _>>()?);
            }
        }
        let shapes: Vec<(usize, usize)> = matrices
            .iter()
            .map(|group| (group.iter().map(|m| m.rows).sum(), group[0].cols))
            .collect();
        let all: usize = shapes.iter().map(|(rows, _)| rows).sum();
        let packed_rows = AtomicUsize::new(0);
        let fill = |group: usize, row: usize, out: &mut [i8]| {
            let mut row = row;
            for matrix in &matrices[group] {
                if row < matrix.rows {
                    matrix.row(row, out);
                    break;
                }
                row -= matrix.rows;
            }
            let done = packed_rows.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(1024) || done == all {
                progress(done, all);
            }
        };
        let packed = Packed::pack_all(pool, settings.packing, &shapes, fill)?;
        let multipliers = matrices.into_iter().map(|group| joined(&group));
        let mut linears = packed
            .into_iter()
            .zip(multipliers)
            .map(|(packed, multipliers)| {
                let linear = PackedBitLinear::from_multipliers(
                    vec![packed],
                    multipliers,
                    Granularity::Token,
                );
                linear.map_err(RunError::from)
            });
        let mut next = || linears.next().expect("every layer has its matrices");
        let gain = |role, layer| -> Result<Option<Tensor>, RunError> {
            let gain = source.gain(&plan, role, layer)?;
            let tensor = |gain: Vec<f32>| Tensor::of(pool, Dtype::F32, &gain, &[gain.len()], NORMS);
            Ok(gain.map(tensor).transpose()?)
        };
        let needed =
            |role, layer| Ok::<_, RunError>(gain(role, layer)?.expect("every layer has it"));
        let mut layers = Vec::with_capacity(plan.shape.layers);
        for layer in 0..plan.shape.layers {
            layers.push(Layer {
                attention_norm: needed(Role::AttentionNorm, layer)?,
                qkv: next()?,
                attention_sub_norm: gain(Role::AttentionSubNorm, layer)?,
                output: next()?,
                mlp_norm: needed(Role::MlpNorm, layer)?,
                gate_up: next()?,
                mlp_sub_norm: gain(Role::MlpSubNorm, layer)?,
                down: next()?,
            });
        }
        let norm = needed(Role::Norm, 0)?;
        let (embedding, head) = tables(pool, &plan, source, settings)?;
        Ok(Decoder {
            embedding,
            layers,
            norm,
            head,
            plan,
        })
    }

    /// Bytes of weights that a step reads, if it is a product with weights.
    pub fn step_bytes(&self, step: Step) -> Option<u64> {
        let linear = |of: fn(&Layer) -> &PackedBitLinear| {
            Some(self.layers.iter().map(|layer| of(layer).bytes()).sum())
        };
        match step {
            Step::Qkv => linear(|layer| &layer.qkv),
            Step::Output => linear(|layer| &layer.output),
            Step::GateUp => linear(|layer| &layer.gate_up),
            Step::Down => linear(|layer| &layer.down),
            Step::Head => self
                .head
                .matrix
                .bytes()
                .ok()
                .map(|bytes| bytes.len() as u64),
            _ => None,
        }
    }

    /// Bytes that a step for one token reads of ternary weights.
    pub fn ternary_bytes(&self) -> u64 {
        Step::LINEAR
            .iter()
            .filter_map(|step| self.step_bytes(*step))
            .sum()
    }

    /// Bytes that it reads of the output matrix.
    pub fn head_bytes(&self) -> u64 {
        self.step_bytes(Step::Head).unwrap_or(0)
    }

    /// The memory that all packed weights lie in: what a probe of reading should read.
    pub fn region(&self) -> &[u8] {
        self.layers[0].qkv.groups()[0].region()
    }
}

/// Scales and biases of matrices that become one. A scale of all becomes one of each row where there are several.
fn joined(group: &[Matrix<'_>]) -> Multipliers {
    if let [one] = group {
        return one.multipliers.clone();
    }
    let scales = group
        .iter()
        .flat_map(|matrix| match &matrix.multipliers.scales[..] {
            [scale] => vec![*scale; matrix.rows],
            scales => scales.to_vec(),
        });
    let biases = group.iter().any(|matrix| matrix.multipliers.bias.is_some());
    let bias = |matrix: &Matrix<'_>| {
        let bias = matrix.multipliers.bias.clone();
        bias.unwrap_or_else(|| vec![0.0; matrix.rows])
    };
    Multipliers {
        scales: scales.collect(),
        bias: biases.then(|| group.iter().flat_map(bias).collect()),
    }
}

/// Embedding and output matrix. They are one memory where they are one tensor and neither is rounded; else tokens are looked up
/// in the file.
fn tables(
    pool: &MemoryPool,
    plan: &Plan,
    source: Source<'_>,
    settings: &Settings,
) -> Result<(Tensor, Head), RunError> {
    let table = |role: Role| -> Result<(Tensor, Head), RunError> {
        let Some(stored) = source.table(plan, role)? else {
            let table = random_table(pool, plan, source)?;
            let head = match settings.head {
                HeadBits::Stored => Head::of(table.clone()),
                HeadBits::Eight => Head::new(pool, &table, settings.head)?,
            };
            return Ok((table, head));
        };
        let head = Head::new(pool, &stored, settings.head)?;
        Ok((stored, head))
    };
    let (stored, head) = table(if plan.tied {
        Role::Embedding
    } else {
        Role::Head
    })?;
    let embedding = match (plan.tied, settings.head) {
        (true, HeadBits::Stored) => head.matrix.clone(),
        (true, HeadBits::Eight) => stored,
        (false, _) => match source.table(plan, Role::Embedding)? {
            Some(table) => table,
            None => random_table(pool, plan, source)?,
        },
    };
    Ok((embedding, head))
}

/// A random table of BF16.
fn random_table(pool: &MemoryPool, plan: &Plan, source: Source<'_>) -> Result<Tensor, RunError> {
    use rayon::prelude::*;
    let Source::Random { seed } = source else {
        unreachable!("a checkpoint has its tables")
    };
    let (rows, cols) = plan.weight(Role::Embedding);
    let mut table = Tensor::zeros(pool, Dtype::Bf16, &[rows, cols], head::HEAD)?;
    let numbers = table.numbers_mut::<u16>()?;
    numbers
        .par_chunks_mut(cols)
        .enumerate()
        .for_each(|(row, numbers)| {
            let mut random = Random::seeded(seed.wrapping_add((row as u64) << 32));
            for number in numbers {
                *number = float16::to_bf16(random.uniform(SPREAD));
            }
        });
    Ok(table)
}
