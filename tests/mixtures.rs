//! `bitcost compare` on mixtures of experts, however a file holds them: numbers worked out by hand, and the same ones from one
//! tensor for all experts as from tensors for each.

mod common;

use bitcost::value::Value;
use common::weights::floats;
use common::{Folder, at, int, json, list, stdout};
use std::collections::BTreeMap;

/// A tensor: its shape and numbers.
type Tensor = (Vec<usize>, Vec<f32>);

/// Tensors by name.
type Model = BTreeMap<String, Tensor>;

fn ones(shape: &[usize]) -> Tensor {
    (shape.to_vec(), vec![1.0; shape.iter().product()])
}

/// A matrix of these rows.
fn matrix<const N: usize>(rows: &[[u8; N]]) -> Tensor {
    let numbers = rows.iter().flatten().map(|n| f32::from(*n));
    (vec![rows.len(), N], numbers.collect())
}

/// What surrounds the experts of one layer of 4 channels: one head, 6 words.
fn around() -> Model {
    let mut model = Model::new();
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        model.insert(name.into(), ones(&[6, 4]));
    }
    for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        model.insert(
            format!("model.layers.0.self_attn.{name}.weight"),
            ones(&[4, 4]),
        );
    }
    for name in ["layers.0.input_layernorm", "norm"] {
        model.insert(format!("model.{name}.weight"), ones(&[4]));
    }
    // The norm before the experts closes channel 3.
    let gain = (vec![4], vec![1.0, 1.0, 1.0, 0.0]);
    model.insert(
        "model.layers.0.post_attention_layernorm.weight".into(),
        gain,
    );
    model
}

/// Gate, value and output of two experts with 3 inner channels.
fn experts() -> [[Tensor; 3]; 2] {
    let full = [[1; 4]; 3];
    [
        // Expert 0: its gate closes channel 1.
        [
            matrix(&[[1; 4], [0; 4], [1; 4]]),
            matrix(&full),
            matrix(&[[1; 3]; 4]),
        ],
        // Expert 1: gate 0 reads channel 3 alone, which is null; value 2 is null.
        [
            matrix(&[[0, 0, 0, 1], [1; 4], [1; 4]]),
            matrix(&[[1; 4], [1; 4], [0; 4]]),
            matrix(&[[1; 3]; 4]),
        ],
    ]
}

/// The experts as tensors for each, under these names.
fn split(prefix: &str, names: [&str; 3]) -> Model {
    let mut model = Model::new();
    for (number, expert) in experts().into_iter().enumerate() {
        for (name, tensor) in names.iter().zip(expert) {
            model.insert(format!("{prefix}.{number}.{name}.weight"), tensor);
        }
    }
    model
}

/// The experts as two tensors for all.
fn fused(prefix: &str) -> Model {
    let (mut gate_up, mut down) = (Vec::new(), Vec::new());
    for [gate, up, out] in experts() {
        gate_up.extend(gate.1.into_iter().chain(up.1));
        down.extend(out.1);
    }
    Model::from([
        (format!("{prefix}.gate_up_proj"), (vec![2, 6, 4], gate_up)),
        (format!("{prefix}.down_proj"), (vec![2, 4, 3], down)),
    ])
}

/// A folder with the model and its config.
fn folder(config: &str, model: &Model) -> Folder {
    let folder = Folder::new();
    folder.write("config.json", config);
    let tensors = model
        .iter()
        .map(|(name, (shape, numbers))| (name.as_str(), shape.as_slice(), numbers.clone()));
    folder.write("model.safetensors", floats(&tensors.collect::<Vec<_>>()));
    folder
}

/// A model alone, on two positions: a router that chooses one of two experts gives each of them one.
fn alone(path: &str, args: &[&str]) -> Value {
    let always = [
        "compare",
        "--only",
        path,
        "--seq-len",
        "2",
        "--no-infer-bits",
        "--format",
        "json",
    ];
    json(&[&always[..], args].concat())
}

fn counted(config: &str, model: &Model, args: &[&str]) -> Value {
    alone(folder(config, model).path().to_str().expect("UTF-8"), args)
}

#[track_caller]
fn layer(got: &Value, name: &str) -> Value {
    let layers = list(got, "layers");
    let mut found = layers
        .iter()
        .filter(|layer| at(layer, "name").as_str() == Some(name));
    found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {got}"))
        .clone()
}

fn channels(layer: &Value, path: &str) -> Vec<i128> {
    list(layer, path)
        .iter()
        .map(|n| n.as_int().expect("a channel"))
        .collect()
}

/// Claims what is null, and the MACs: all, of live non-zeros, of non-zeros, of live channels.
#[track_caller]
fn check(layer: &Value, null_in: &[i128], null_out: &[i128], macs: [i128; 4]) {
    assert_eq!(
        channels(layer, "null_in_channels"),
        null_in,
        "null in: {layer}"
    );
    assert_eq!(
        channels(layer, "null_out_channels"),
        null_out,
        "null out: {layer}"
    );
    let keys = [
        "macs.dense",
        "macs.live_nnz",
        "macs.density",
        "macs.structured",
    ];
    assert_eq!(keys.map(|key| int(layer, key)), macs, "{layer}");
}

const MIXTRAL: &str = r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4,
    "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 6,
    "num_local_experts": 2, "num_experts_per_tok": 1, "tie_word_embeddings": false}"#;

fn mixtral(experts: Model) -> Model {
    let mut model = around();
    model.insert(
        "model.layers.0.block_sparse_moe.gate.weight".into(),
        ones(&[2, 4]),
    );
    model.extend(experts);
    model
}

fn mixtral_split() -> Model {
    mixtral(split(
        "model.layers.0.block_sparse_moe.experts",
        ["w1", "w3", "w2"],
    ))
}

fn mixtral_fused() -> Model {
    mixtral(fused("model.layers.0.mlp.experts"))
}

/// Claims that the totals of both are the same.
#[track_caller]
fn same_totals(a: &Value, b: &Value) {
    for path in ["totals.compressed", "totals.base"] {
        assert_eq!(at(a, path), at(b, path), "{path}");
    }
}

#[test]
fn experts_in_tensors_of_their_own_have_null_channels_of_their_own() {
    let got = counted(MIXTRAL, &mixtral_split(), &[]);
    let expert = |name: &str| {
        layer(
            &got,
            &format!("model.layers.0.block_sparse_moe.experts.{name}"),
        )
    };
    // Each expert gets one position. Of 12 weights those of a null row are 0, those of channel 3 read what is null.
    check(&expert("0.w1"), &[3], &[1], [12, 6, 8, 6]);
    check(&expert("0.w3"), &[3], &[], [12, 9, 12, 9]);
    check(&expert("1.w1"), &[3], &[0], [12, 6, 9, 6]);
    check(&expert("1.w3"), &[3], &[2], [12, 6, 8, 6]);
    // Two of three channels arrive at expert 0, one at expert 1.
    check(&expert("0.w2"), &[1], &[], [12, 8, 12, 8]);
    check(&expert("1.w2"), &[0, 2], &[], [12, 4, 12, 4]);
    // The router reads channel 3, too, at both positions.
    let router = layer(&got, "model.layers.0.mlp.gate");
    check(&router, &[3], &[], [16, 12, 16, 12]);
}

#[test]
fn experts_in_one_tensor_count_as_the_same_experts() {
    let got = counted(MIXTRAL, &mixtral_fused(), &[]);
    let tensor = |name: &str| layer(&got, &format!("model.layers.0.mlp.experts.{name}"));
    // Inputs and rows of expert 1 follow those of expert 0: channel 3 is 3 and 7; gate 1 of expert 0 is row 1, gate 0 and
    // value 2 of expert 1 are rows 6 and 11. MACs are sums of those of the four matrices, of the two.
    let gate_up = tensor("gate_up_proj");
    check(&gate_up, &[3, 7], &[1, 6, 11], [48, 27, 37, 27]);
    check(&tensor("down_proj"), &[1, 3, 5], &[], [24, 12, 24, 12]);
    assert_eq!(list(&gate_up, "shape"), [12, 4].map(Value::Int));
    assert_eq!(
        (int(&gate_up, "groups"), at(&gate_up, "kind").as_str()),
        (2, Some("linear"))
    );
    for args in [
        &[][..],
        &["--bops", "structured"],
        &["--bops", "density"],
        &["--bops", "accum"],
        &["--null-rule", "exact"],
    ] {
        same_totals(
            &counted(MIXTRAL, &mixtral_fused(), args),
            &counted(MIXTRAL, &mixtral_split(), args),
        );
    }
}

const QWEN: &str = r#"{"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_size": 4,
    "intermediate_size": 8, "moe_intermediate_size": 3, "shared_expert_intermediate_size": 2, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 6, "num_experts": 2, "num_experts_per_tok": 1,
    "decoder_sparse_step": 1, "tie_word_embeddings": false}"#;

fn qwen(experts: Model) -> Model {
    let mut model = around();
    for name in ["q_proj", "k_proj", "v_proj"] {
        model.insert(format!("model.layers.0.self_attn.{name}.bias"), ones(&[4]));
    }
    for (name, tensor) in [
        ("gate", ones(&[2, 4])),
        ("shared_expert_gate", ones(&[1, 4])),
        ("shared_expert.gate_proj", matrix(&[[1; 4], [0; 4]])),
        ("shared_expert.up_proj", ones(&[2, 4])),
        ("shared_expert.down_proj", ones(&[4, 2])),
    ] {
        model.insert(format!("model.layers.0.mlp.{name}.weight"), tensor);
    }
    model.extend(experts);
    model
}

#[test]
fn an_expert_that_all_tokens_pass_is_followed_beside_the_others() {
    let split = qwen(split(
        "model.layers.0.mlp.experts",
        ["gate_proj", "up_proj", "down_proj"],
    ));
    let got = counted(QWEN, &split, &[]);
    let of = |name: &str| layer(&got, &format!("model.layers.0.mlp.{name}"));
    check(&of("experts.1.down_proj"), &[0, 2], &[], [12, 4, 12, 4]);
    // The shared expert works on both positions: 4 of its 8 gate weights are left, 3 of them read a live channel.
    check(&of("shared_expert.gate_proj"), &[3], &[1], [16, 6, 8, 6]);
    check(&of("shared_expert.down_proj"), &[1], &[], [16, 8, 16, 8]);
    check(&of("shared_expert_gate"), &[3], &[], [8, 6, 8, 6]);
    same_totals(
        &got,
        &counted(QWEN, &qwen(fused("model.layers.0.mlp.experts")), &[]),
    );
}

const GPT_OSS: &str = r#"{"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 4,
    "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4,
    "vocab_size": 6, "num_local_experts": 2, "num_experts_per_tok": 1, "tie_word_embeddings": false}"#;

#[test]
fn experts_whose_inputs_come_first_are_followed_by_both_rules() {
    let mut model = around();
    for (name, tensor) in [
        ("self_attn.sinks", ones(&[1])),
        ("self_attn.q_proj.bias", ones(&[4])),
        ("self_attn.k_proj.bias", ones(&[4])),
        ("self_attn.v_proj.bias", ones(&[4])),
        ("self_attn.o_proj.bias", ones(&[4])),
        ("mlp.router.weight", ones(&[2, 4])),
        ("mlp.router.bias", ones(&[2])),
        ("mlp.experts.down_proj", ones(&[2, 2, 4])),
        ("mlp.experts.down_proj_bias", ones(&[2, 4])),
    ] {
        model.insert(format!("model.layers.0.{name}"), tensor);
    }
    // Of each expert 4 inputs by gate 0, value 0, gate 1, value 1: expert 0 has no gate 1, expert 1 no gate 0 but for the
    // weight on channel 3, and no value 1.
    let first = [[1, 1, 0, 1]; 4];
    let second = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0]];
    let numbers = first.iter().chain(&second).flatten().map(|n| *n as f32);
    let gate_up = (vec![2, 4, 4], numbers.collect());
    model.insert("model.layers.0.mlp.experts.gate_up_proj".into(), gate_up);
    // Gate 0 of expert 1 has no bias.
    let biases = (vec![2, 4], vec![1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    model.insert(
        "model.layers.0.mlp.experts.gate_up_proj_bias".into(),
        biases,
    );
    let by = |rule: &str| {
        let got = counted(GPT_OSS, &model, &["--null-rule", rule]);
        ["gate_up_proj", "down_proj"]
            .map(|name| layer(&got, &format!("model.layers.0.mlp.experts.{name}")))
    };
    // Rows 2, 4 and 7 of 8 have no weight on a live input. Non-zeros: 12 of expert 0, 9 of expert 1, of which 3 and 3 are on
    // channel 3. A value of 0 gets 1 added, so it closes nothing: channel 1 of expert 0 and channel 0 of expert 1 do.
    let [gate_up, down] = by("weights");
    check(&gate_up, &[3, 7], &[2, 4, 7], [32, 15, 21, 15]);
    check(&down, &[1, 2], &[], [16, 8, 16, 8]);
    // Gate 1 of expert 0 is its bias; gate 0 of expert 1 is exactly 0.
    let [gate_up, down] = by("exact");
    check(&gate_up, &[3, 7], &[2, 4, 7], [32, 15, 21, 15]);
    check(&down, &[2], &[], [16, 12, 16, 12]);
}

/// Statistics of a model in the place of its data.
fn told(model: &Model, args: &[&str]) -> Value {
    let folder = folder(MIXTRAL, model);
    let stats = stdout(&["stats", &folder.file("model.safetensors")]);
    alone(&folder.write("stats.json", stats), args)
}

/// Paths of the notes of a kind.
fn notes(got: &Value, code: &str) -> Vec<String> {
    let notes = list(got, "notes");
    let of = notes
        .iter()
        .filter(|note| at(note, "code").as_str() == Some(code));
    of.map(|note| at(note, "path").as_str().expect("a path").to_string())
        .collect()
}

#[test]
fn statistics_of_experts_in_tensors_of_their_own_say_all() {
    let got = told(&mixtral_split(), &[]);
    same_totals(&got, &counted(MIXTRAL, &mixtral_split(), &[]));
    assert_eq!(notes(&got, "dataflow"), [""; 0]);
}

#[test]
fn statistics_of_experts_in_one_tensor_say_what_they_can_and_note_the_rest() {
    let got = told(&mixtral_fused(), &[]);
    let tensor = |name: &str| layer(&got, &format!("model.layers.0.mlp.experts.{name}"));
    // Of each row they know how many non-zeros it has, not which inputs those read: row 6 counts as live, and so does every
    // non-zero of an expert that has zeros.
    check(&tensor("gate_up_proj"), &[3, 7], &[1, 11], [48, 37, 37, 30]);
    // An expert without any zero reads every input: 4 outputs of 2 inputs each.
    check(&tensor("down_proj"), &[1, 5], &[], [24, 16, 24, 16]);
    assert_eq!(
        notes(&got, "dataflow"),
        ["model.layers.0.mlp.experts.gate_up_proj"]
    );
}
