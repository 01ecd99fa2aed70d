//! What the analyzer says of the steps of a model: products and bytes by kind.

use crate::analysis::{self, Metrics, Options};
use crate::bitnet::{Generated, Plan, Role, Step};
use crate::join::Headers;
use crate::model::{Asked, Model, ModelError, Phase};
use crate::report::generate::Predicted;
use std::collections::HashMap;

/// Widths that were asked for.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    pub(super) kv_bits: u32,
}

/// Of the prompt, all tokens at once.
pub(super) fn prompt(
    model: &Model<'_>,
    headers: Option<&Headers>,
    plan: &Plan,
    widths: Widths,
    made: &Generated,
) -> Result<Predicted, ModelError> {
    let asked = Asked {
        phase: Some(Phase::Prefill),
        seq_len: Some(made.prompt.tokens as u64),
        causal: true,
        last_logits: true,
        kv_bits: Some(widths.kv_bits),
        ..Asked::default()
    };
    by_step(model, headers, plan, &asked, 1)
}

/// Of the tokens after it, each alone with as many before it as they have on average.
pub(super) fn decode(
    model: &Model<'_>,
    headers: Option<&Headers>,
    plan: &Plan,
    widths: Widths,
    made: &Generated,
) -> Result<Predicted, ModelError> {
    let tokens = made.decode.tokens;
    if tokens == 0 {
        return Ok(Predicted::default());
    }
    let past = made.prompt.tokens + (tokens - 1) / 2;
    let asked = Asked {
        phase: Some(Phase::Decode),
        past_len: Some(past as u64),
        kv_bits: Some(widths.kv_bits),
        ..Asked::default()
    };
    by_step(model, headers, plan, &asked, tokens as u128)
}

fn by_step(
    model: &Model<'_>,
    headers: Option<&Headers>,
    plan: &Plan,
    asked: &Asked,
    times: u128,
) -> Result<Predicted, ModelError> {
    let workload = model.workload(asked)?;
    let options = Options {
        expand: true,
        ..Options::default()
    };
    let analysis = analysis::analyze(model, headers, &workload, options)?;
    let steps = steps(plan);
    let mut predicted = Predicted::default();
    for row in &analysis.rows {
        if let Some(step) = steps.get(&row.path) {
            let Metrics { macs, .. } = row.own;
            let (products, bytes) = &mut predicted.steps[*step as usize];
            *products = products.saturating_add(macs.saturating_mul(times));
            *bytes = bytes.saturating_add(row.own.traffic().saturating_mul(times));
        }
    }
    Ok(predicted)
}

/// Which module is part of which step. What the attention and the MLP do themselves is theirs, what a layer does is to add.
fn steps(plan: &Plan) -> HashMap<String, Step> {
    let kinds = [
        (Role::Embedding, Step::Embedding),
        (Role::AttentionNorm, Step::Norm),
        (Role::Query, Step::Qkv),
        (Role::Key, Step::Qkv),
        (Role::Value, Step::Qkv),
        (Role::AttentionSubNorm, Step::Norm),
        (Role::Output, Step::Output),
        (Role::MlpNorm, Step::Norm),
        (Role::Gate, Step::GateUp),
        (Role::Up, Step::GateUp),
        (Role::MlpSubNorm, Step::Norm),
        (Role::Down, Step::Down),
        (Role::Norm, Step::Norm),
        (Role::Head, Step::Head),
    ];
    let mut steps = HashMap::new();
    for layer in 0..plan.shape.layers {
        for (role, step) in kinds {
            if let Some(path) = plan.module(role, layer) {
                steps.insert(path, step);
            }
        }
        let parent = |role: Role| {
            let path = plan.module(role, layer)?;
            Some(path.rsplit_once('.')?.0.to_string())
        };
        for (role, step) in [(Role::Query, Step::Attention), (Role::Gate, Step::Gate)] {
            steps.extend(parent(role).map(|path| (path, step)));
        }
        steps.insert(plan.layer(layer), Step::Residual);
    }
    steps
}
