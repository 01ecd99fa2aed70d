//! Where the weights of a model come from: a checkpoint, whose ternary codes are taken as they are and whose floats are rounded
//! as the config says, or a seed.

use super::RunError;
use super::plan::{Plan, Role};
use crate::bitlinear::{AbsMean, Dequantization, Multipliers, NotFinite, StoredCodes, codes};
use crate::checkpoint::packed::{Weight, Weights};
use crate::checkpoint::scan::{Wanted, values};
use crate::checkpoint::{Checkpoint, Tensor as StoredTensor};
use crate::kernels::packing::hf;
use crate::random::Random;
use crate::tensor::Tensor;

/// Numbers that are read at once.
const PIECE: u64 = 1 << 20;

/// Where weights come from.
#[derive(Clone, Copy)]
pub enum Source<'s> {
    /// A checkpoint.
    Checkpoint {
        /// Its tensors.
        checkpoint: &'s Checkpoint,
        /// What they mean.
        weights: &'s Weights,
        /// What the stored scale of ternary codes means.
        rule: Dequantization,
    },
    /// Random weights that a seed gives: the speed of a model whose weights cannot be had.
    Random {
        /// Which.
        seed: u64,
    },
}

/// A ternary matrix, ready to be packed.
pub(super) struct Matrix<'s> {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Its scale, and its bias where it has one.
    pub(super) multipliers: Multipliers,
    from: From<'s>,
}

enum From<'s> {
    Codes(hf::Form<'s>),
    Floats {
        checkpoint: &'s Checkpoint,
        weight: &'s Weight,
        scale: f32,
    },
    Random(u64),
}

impl Matrix<'_> {
    /// Writes the weights of a row.
    pub(super) fn row(&self, row: usize, out: &mut [i8]) {
        match &self.from {
            From::Codes(form) => form.row(row, out),
            From::Floats {
                checkpoint,
                weight,
                scale,
            } => {
                let mut numbers = Vec::new();
                let rows = row as u64..row as u64 + 1;
                let read = values(checkpoint, weight, &Wanted::default(), rows, &mut numbers);
                // All of it was read for its scale. If the file has lost it since, no weight is right, and 2 is refused.
                match read {
                    Ok(true) if numbers.len() == out.len() => codes(&numbers, *scale, out),
                    _ => out.fill(2),
                }
            }
            From::Random(seed) => random_row(*seed, row, out),
        }
    }
}

/// Weights of which half are 0.
fn random_row(seed: u64, row: usize, out: &mut [i8]) {
    let mut random = Random::seeded(seed.wrapping_add(row as u64));
    for weights in out.chunks_mut(16) {
        let bits = random.bits();
        for (at, weight) in weights.iter_mut().enumerate() {
            // Two bits are -1, 0, 0 and 1.
            let bits = bits >> (4 * at);
            *weight = (bits & 1) as i8 - (bits >> 1 & 1) as i8;
        }
    }
}

impl<'s> Source<'s> {
    /// A ternary matrix of a layer.
    pub(super) fn matrix(
        self,
        plan: &Plan,
        role: Role,
        layer: usize,
    ) -> Result<Matrix<'s>, RunError> {
        let (rows, cols) = plan.weight(role);
        let path = plan.module(role, layer).expect("layers have all matrices");
        let name = format!("{path}.weight");
        let Source::Checkpoint {
            checkpoint,
            weights,
            rule,
        } = self
        else {
            let Source::Random { seed } = self else {
                unreachable!("there are two sources")
            };
            let number = (layer as u64) << 8 | role as u64;
            // Outputs are about as large as inputs.
            let scale = (2.0 / cols as f32).sqrt();
            return Ok(Matrix {
                rows,
                cols,
                multipliers: Multipliers {
                    scales: vec![scale],
                    bias: None,
                },
                from: From::Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)),
            });
        };
        let weight = weights
            .get(&name)
            .ok_or_else(|| RunError::Missing(name.clone()))?;
        let bias = match weights.get(&format!("{path}.bias")) {
            Some(bias) => Some(numbers(checkpoint, bias, rows)?),
            None => None,
        };
        let wrong = |reason: String| RunError::Weight {
            name: name.clone(),
            reason,
        };
        let (from, rule, scales) = if StoredCodes::is(weight) {
            let codes = weight.parts.first();
            if let Some(codes) = codes.and_then(|at| checkpoint.tensors.get(*at as usize)) {
                same_shape(codes, &[rows.div_ceil(4), cols])?;
            }
            let stored = StoredCodes::of(checkpoint, weight, rows, cols)?;
            (From::Codes(stored.form), rule, stored.scales)
        } else if plan.rounds(role) {
            same(weight, &[rows, cols])?;
            let scale = absmean(checkpoint, weight, cols)?;
            let from = From::Floats {
                checkpoint,
                weight,
                scale,
            };
            (from, Dequantization::Online, vec![scale])
        } else {
            return Err(wrong(format!(
                "it is {}, and the config does not say that it is rounded to ternary weights when it is used; `bitcost deploy` makes \
                 ternary weights of it",
                weight.label
            )));
        };
        let multipliers = rule.multipliers(&scales, rows, bias);
        Ok(Matrix {
            rows,
            cols,
            multipliers: multipliers.map_err(|e| wrong(e.to_string()))?,
            from,
        })
    }

    /// The gain of a norm.
    pub(super) fn gain(
        self,
        plan: &Plan,
        role: Role,
        layer: usize,
    ) -> Result<Option<Vec<f32>>, RunError> {
        let (_, count) = plan.weight(role);
        let Some(name) = plan.tensor(role, layer, "weight") else {
            return Ok(None);
        };
        match self {
            Source::Random { .. } => Ok(Some(vec![1.0; count])),
            Source::Checkpoint {
                checkpoint,
                weights,
                ..
            } => {
                let weight = weights.get(&name).ok_or(RunError::Missing(name))?;
                numbers(checkpoint, weight, count).map(Some)
            }
        }
    }

    /// The embedding, or the output matrix, where it lies in a file; `None` where weights are random.
    pub(super) fn table(self, plan: &Plan, role: Role) -> Result<Option<Tensor>, RunError> {
        let Source::Checkpoint { checkpoint, .. } = self else {
            return Ok(None);
        };
        let name = plan
            .tensor(role, 0, "weight")
            .expect("every model has both");
        let stored = checkpoint.tensor(&name).ok_or(RunError::Missing(name))?;
        let (rows, cols) = plan.weight(role);
        same_shape(stored, &[rows, cols])?;
        view(checkpoint, stored).map(Some)
    }
}

/// A tensor where it lies in its file.
fn view(checkpoint: &Checkpoint, stored: &StoredTensor) -> Result<Tensor, RunError> {
    checkpoint.view(stored)?.ok_or_else(|| RunError::Weight {
        name: stored.name.to_string(),
        reason: format!(
            "numbers of {} at byte {} cannot be used where they lie; BF16, F16 and F32 at multiples of their size can",
            stored.dtype, stored.begin
        ),
    })
}

fn same_shape(stored: &StoredTensor, needed: &[usize]) -> Result<(), RunError> {
    match stored
        .shape
        .iter()
        .map(|n| *n as usize)
        .eq(needed.iter().copied())
    {
        true => Ok(()),
        false => Err(RunError::Shape {
            name: stored.name.to_string(),
            given: stored.shape.to_vec(),
            needed: needed.to_vec(),
        }),
    }
}

fn same(weight: &Weight, needed: &[usize]) -> Result<(), RunError> {
    let given = weight.shape.as_deref().unwrap_or_default();
    match given.iter().map(|n| *n as usize).eq(needed.iter().copied()) {
        true => Ok(()),
        false => Err(RunError::Shape {
            name: weight.name.to_string(),
            given: given.to_vec(),
            needed: needed.to_vec(),
        }),
    }
}

/// All numbers of a small weight.
fn numbers(checkpoint: &Checkpoint, weight: &Weight, count: usize) -> Result<Vec<f32>, RunError> {
    same(weight, &[count])?;
    let mut out = Vec::new();
    read(checkpoint, weight, 0..u64::MAX, &mut out)?;
    match out.iter().find(|x| !x.is_finite()) {
        None => Ok(out),
        Some(x) => Err(RunError::Weight {
            name: weight.name.to_string(),
            reason: format!("it holds {x}"),
        }),
    }
}

fn read(
    checkpoint: &Checkpoint,
    weight: &Weight,
    rows: std::ops::Range<u64>,
    out: &mut Vec<f32>,
) -> Result<(), RunError> {
    match values(checkpoint, weight, &Wanted::default(), rows, out)? {
        true => Ok(()),
        false => Err(RunError::Weight {
            name: weight.name.to_string(),
            reason: "its numbers cannot be told".into(),
        }),
    }
}

/// The scale by which a matrix is rounded.
fn absmean(checkpoint: &Checkpoint, weight: &Weight, cols: usize) -> Result<f32, RunError> {
    let rows = weight.shape.as_deref().map_or(0, |shape| shape[0]);
    let step = (PIECE / cols as u64).max(1);
    let (mut mean, mut numbers) = (AbsMean::default(), Vec::new());
    for from in (0..rows).step_by(step as usize) {
        read(
            checkpoint,
            weight,
            from..rows.min(from + step),
            &mut numbers,
        )?;
        mean.push(&numbers)
            .map_err(|NotFinite { at, value }| RunError::Weight {
                name: weight.name.to_string(),
                reason: format!(
                    "the weight in row {}, column {} is {value}",
                    at / cols,
                    at % cols
                ),
            })?;
    }
    Ok(mean.scale())
}
