//! What the analyzer says of the steps of a model: products and bytes by kind.

use crate::analysis::{self, Options};
use crate::bitnet::{Decoder, Generated, Plan, Role, Step};
use crate::join::Headers;
use crate::model::{Asked, Model, ModelError, Phase};
use crate::report::generate::Predicted;
use std::collections::HashMap;

/// Of the prompt, all tokens at once.
pub(super) fn prompt(
    model: &Model<'_>,
    headers: Option<&Headers>,
    decoder: &Decoder,
    kv_bits: u32,
    made: &Generated,
) -> Result<Predicted, ModelError> {
    let asked = Asked {
        phase: Some(Phase::Prefill),
        seq_len: Some(made.prompt.tokens as u64),
        causal: true,
        last_logits: true,
        kv_bits: Some(kv_bits),
        ..Asked::default()
    };
    by_step(model, headers, decoder, &asked, 1)
}

/// Of the tokens after it, each alone with as many before it as they have on average.
pub(super) fn decode(
    model: &Model<'_>,
    headers: Option<&Headers>,
    decoder: &Decoder,
    kv_bits: u32,
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
        kv_bits: Some(kv_bits),
        ..Asked::default()
    };
    by_step(model, headers, decoder, &asked, tokens as u128)
}

fn by_step(
    model: &Model<'_>,
    headers: Option<&Headers>,
    decoder: &Decoder,
    asked: &Asked,
    times: u128,
) -> Result<Predicted, ModelError> {
    let workload = model.workload(asked)?;
    let options = Options {
        expand: true,
        ..Options::default()
    };
    let analysis = analysis::analyze(model, headers, &workload, options)?;
    let steps = steps(&decoder.plan);
    let mut predicted = Predicted::default();
    for row in &analysis.rows {
        let Some(step) = steps.get(&row.path) else {
            continue;
        };
        let (products, bytes) = &mut predicted.steps[*step as usize];
        *products = products.saturating_add(row.own.macs.saturating_mul(times));
        // What is packed is counted as it lies here.
        let elsewhere = match decoder.step_bytes(*step) {
            Some(_) => row.own.read.weights,
            None => 0,
        };
        let moved = row.own.traffic() - elsewhere;
        *bytes = bytes.saturating_add(moved.saturating_mul(times));
    }
    for step in Step::ALL {
        let packed = u128::from(decoder.step_bytes(step).unwrap_or(0));
        let bytes = &mut predicted.steps[step as usize].1;
        *bytes = bytes.saturating_add(packed.saturating_mul(times));
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
