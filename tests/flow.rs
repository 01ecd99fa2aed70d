//! Null channels through `forward`: which channels of which layers are null when some rows of some weights are zero.

use bitcost::channels::Channels;
use bitcost::db::Db;
use bitcost::flow::{Nulls, Rule, Weights, nulls};
use bitcost::model::{Asked, Model, Tree};
use bitcost::value::{Object, Value};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Weights that are all non-zero, except for whole rows, single connections and given vectors.
#[derive(Default)]
struct Given {
    zero_rows: HashMap<String, Vec<usize>>,
    /// Inputs that a row reads at all, where it does not read every one.
    reads: HashMap<(String, usize), Vec<usize>>,
    vectors: HashMap<String, Vec<f64>>,
    widths: HashMap<String, usize>,
}

impl Weights for Given {
    type Error = Infallible;

    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        groups: usize,
        _: bool,
    ) -> Result<Channels, Infallible> {
        let rows = self.widths[tensor];
        let per_group = null_in.width() / groups;
        let zero = |row: usize| {
            if self
                .zero_rows
                .get(tensor)
                .is_some_and(|zero| zero.contains(&row))
            {
                return true;
            }
            let start = row / rows.div_ceil(groups) * per_group;
            match self.reads.get(&(tensor.to_string(), row)) {
                Some(reads) => reads.iter().all(|input| null_in.contains(start + input)),
                None => (start..start + per_group).all(|input| null_in.contains(input)),
            }
        };
        Ok(Channels::of(rows, zero))
    }

    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Infallible> {
        let ones = || vec![1.0; self.widths[tensor]];
        Ok(Some(self.vectors.get(tensor).cloned().unwrap_or_else(ones)))
    }
}

fn zero(rows: &[(&str, &[usize])]) -> Given {
    let zero_rows = rows
        .iter()
        .map(|(name, rows)| (name.to_string(), rows.to_vec()))
        .collect();
    Given {
        zero_rows,
        ..Given::default()
    }
}

fn object(text: &str) -> Arc<Object> {
    match bitcost::json::read(text).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("{other}"),
    }
}

/// Rows of every weight and the length of every vector, by path.
fn widths(tree: &Tree<'_>) -> HashMap<String, usize> {
    fn add(node: &bitcost::model::Node<'_>, path: &str, widths: &mut HashMap<String, usize>) {
        let join = |name: &str| {
            if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            }
        };
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let rows = tensor.shape.first().copied().unwrap_or(1);
            widths.insert(join(&tensor.name), usize::try_from(rows).expect("small"));
        }
        for (name, child) in &node.children {
            add(child, &join(name), widths);
        }
    }
    let mut all = HashMap::new();
    add(&tree.root, "", &mut all);
    all
}

fn followed(class: Option<&str>, config: &str, rule: Rule, mut weights: Given) -> Nulls {
    let db = Db::embedded().expect("the embedded database");
    let model = Model::load(&db, object(config), class).expect("a model");
    let workload = model.workload(&Asked::default()).expect("a workload");
    let tree = model.expand(&workload).expect("a tree");
    weights.widths = widths(&tree);
    let Ok(found) = nulls(&db, &tree.root, rule, &mut weights);
    found
}

const NONE: [usize; 0] = [];
const CIFAR: &str = r#"{"num_blocks": [3, 3, 3], "num_classes": 10}"#;
const EVERY: [usize; 64] = {
    let mut all = [0; 64];
    let mut i = 0;
    while i < 64 {
        all[i] = i;
        i += 1;
    }
    all
};

fn cifar(weights: Given) -> Nulls {
    followed(Some("cifar_resnet.ResNet"), CIFAR, Rule::Weights, weights)
}

#[track_caller]
fn null_in(found: &Nulls, layer: &str) -> Vec<usize> {
    let layer = found
        .layers
        .get(layer)
        .unwrap_or_else(|| panic!("no layer {layer} among {:?}", found.layers.keys()));
    layer.null_in.iter().collect()
}

#[test]
fn every_layer_of_a_residual_network_is_walked() {
    let found = cifar(Given::default());
    assert_eq!(found.layers.len(), 20);
    assert!(found.unknown.is_empty(), "{:?}", found.unknown);
    assert!(
        found
            .layers
            .values()
            .all(|layer| layer.null_in.is_empty() && layer.null_out.is_empty())
    );
}

#[test]
fn null_rows_are_null_inputs_of_the_next_layer() {
    let found = cifar(zero(&[("layer1.0.conv1.weight", &[2, 3])]));
    assert_eq!(null_in(&found, "layer1.0.conv2.weight"), [2, 3]);
    assert_eq!(null_in(&found, "layer1.1.conv1.weight"), NONE);
}

#[test]
fn an_identity_shortcut_restores_what_the_branch_lost() {
    let found = cifar(zero(&[("layer1.0.conv2.weight", &EVERY[..16])]));
    assert_eq!(found.layers["layer1.0.conv2.weight"].null_out.count(), 16);
    assert_eq!(null_in(&found, "layer1.1.conv1.weight"), NONE);
}

#[test]
fn a_padded_shortcut_leaves_the_padding_null() {
    let found = cifar(zero(&[("layer2.0.conv2.weight", &EVERY[..32])]));
    let padding: Vec<usize> = (0..8).chain(24..32).collect();
    assert_eq!(null_in(&found, "layer2.1.conv1.weight"), padding);
    // The next block adds to them.
    assert_eq!(null_in(&found, "layer2.2.conv1.weight"), NONE);
    let found = cifar(zero(&[("layer3.0.conv2.weight", &EVERY)]));
    let padding: Vec<usize> = (0..16).chain(48..64).collect();
    assert_eq!(null_in(&found, "layer3.1.conv1.weight"), padding);
}

#[test]
fn a_channel_is_null_through_a_whole_stage_only_where_every_block_agrees() {
    let rows: [(&str, &[usize]); 4] = [
        ("conv1.weight", &[5]),
        ("layer1.0.conv2.weight", &[5]),
        ("layer1.1.conv2.weight", &[5]),
        ("layer1.2.conv2.weight", &[5]),
    ];
    let found = cifar(zero(&rows));
    assert_eq!(null_in(&found, "layer1.2.conv1.weight"), [5]);
    // Option A: channel 5 of 16 is channel 13 of 32, and the residual branch of layer2.0 fills it again.
    assert_eq!(null_in(&found, "layer2.0.conv1.weight"), [5]);
    assert_eq!(null_in(&found, "layer2.1.conv1.weight"), NONE);
}

#[test]
fn a_row_that_reads_null_inputs_only_is_null() {
    let mut weights = zero(&[("layer1.0.conv1.weight", &[2, 3])]);
    weights
        .reads
        .insert(("layer1.0.conv2.weight".into(), 7), vec![2, 3]);
    weights
        .reads
        .insert(("layer1.0.conv2.weight".into(), 8), vec![2, 4]);
    let found = cifar(weights);
    assert_eq!(
        found.layers["layer1.0.conv2.weight"]
            .null_out
            .iter()
            .collect::<Vec<_>>(),
        [7]
    );
}

const SHIFTS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The same zero row, with a norm behind it whose shift of that channel is `beta - gamma * mean / sqrt(var + eps)`.
fn behind_a_norm(rule: Rule, values: [f64; 4]) -> Vec<usize> {
    let mut weights = zero(&[("layer1.0.conv1.weight", &[2])]);
    for (name, value) in SHIFTS.iter().zip(values) {
        let mut vector = vec![1.0; 16];
        vector[2] = value;
        weights
            .vectors
            .insert(format!("layer1.0.bn1.{name}"), vector);
    }
    let found = followed(Some("cifar_resnet.ResNet"), CIFAR, rule, weights);
    null_in(&found, "layer1.0.conv2.weight")
}

#[test]
fn the_exact_rule_wants_a_norm_that_shifts_by_nothing() {
    assert_eq!(behind_a_norm(Rule::Weights, [1.0, 0.5, 0.0, 1.0]), [2]);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.5, 0.0, 1.0]), NONE);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, 0.5, 1.0]), NONE);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, 0.0, 1.0]), [2]);
    assert_eq!(behind_a_norm(Rule::Exact, [0.0, 0.0, 0.5, 1.0]), [2]);
}

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 32, "torch_dtype": "float16"}"#;

fn llama(weights: Given) -> Nulls {
    followed(None, LLAMA, Rule::Weights, weights)
}

#[test]
fn a_gated_product_is_null_where_either_side_is() {
    let found = llama(zero(&[
        ("model.layers.0.mlp.gate_proj.weight", &[1]),
        ("model.layers.0.mlp.up_proj.weight", &[4, 5]),
    ]));
    assert_eq!(
        null_in(&found, "model.layers.0.mlp.down_proj.weight"),
        [1, 4, 5]
    );
}

#[test]
fn values_carry_their_nulls_through_attention_to_every_query_head_that_they_serve() {
    // Value head 1 serves query heads 2 and 3; its channel 4 + 2 is theirs.
    let found = llama(zero(&[
        ("model.layers.0.self_attn.v_proj.weight", &[6]),
        ("model.layers.0.self_attn.q_proj.weight", &[0, 1]),
    ]));
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.o_proj.weight"),
        [10, 14]
    );
}

#[test]
fn the_residual_stream_is_not_null_where_a_branch_is() {
    let found = llama(zero(&[(
        "model.layers.0.self_attn.o_proj.weight",
        &EVERY[..16],
    )]));
    assert_eq!(null_in(&found, "model.layers.0.mlp.up_proj.weight"), NONE);
}

#[test]
fn a_gain_of_zero_nulls_a_channel_behind_the_norm() {
    let mut weights = Given::default();
    let mut gains = vec![1.0; 16];
    gains[3] = 0.0;
    weights
        .vectors
        .insert("model.layers.0.input_layernorm.weight".into(), gains);
    let found = llama(weights);
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.q_proj.weight"),
        [3]
    );
}
