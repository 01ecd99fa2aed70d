//! `bitcost compare` on small files of whole families: channels are zeroed by hand, the null inputs that follow are derived
//! by hand, and the report has to list them.

mod common;

use bitcost::db::Db;
use bitcost::model::{Asked, Model, Node, path_below};
use bitcost::value::{Object, Value};
use common::weights::{Floats, floats};
use common::{Folder, at, json, list};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Rows of a matrix or convolution, or of a vector, that are zero.
type Zero<'z> = (&'z str, &'z [usize]);

/// Null inputs and null outputs of every layer of a report, by name.
type Nulls = BTreeMap<String, (Vec<i128>, Vec<i128>)>;

/// Shapes of all tensors of a model.
fn shapes(overlay: Option<&str>, config: Arc<Object>) -> BTreeMap<String, Vec<usize>> {
    fn below(node: &Rc<Node<'_>>, path: &str, out: &mut BTreeMap<String, Vec<usize>>) {
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let sides = tensor.shape.iter();
            let sides = sides.map(|side| usize::try_from(*side).expect("small"));
            out.insert(path_below(path, &tensor.name), sides.collect());
        }
        for (name, child) in &node.children {
            below(child, &path_below(path, name), out);
        }
    }
    let mut db = Db::embedded().expect("the embedded database");
    if let Some(text) = overlay {
        db.overlay("own.json", text).expect("an overlay");
    }
    let model = Model::load(&db, config, None).expect("a model");
    let workload = model.workload(&Asked::default()).expect("a workload");
    let mut out = BTreeMap::new();
    let tree = model.expand(&workload).expect("a tree");
    below(&tree.root, "", &mut out);
    out
}

/// A file of a model whose numbers are all 1 but in the given rows.
fn file(overlay: Option<&str>, config: &str, zero: &[Zero<'_>]) -> Vec<u8> {
    let Value::Object(object) = bitcost::json::read(config).expect("JSON") else {
        panic!("a config is an object")
    };
    let shapes = shapes(overlay, object);
    for (name, _) in zero {
        assert!(shapes.contains_key(*name), "no {name} in {shapes:?}");
    }
    let tensors: Vec<Floats<'_>> = shapes
        .iter()
        .map(|(name, shape)| {
            let mut numbers = vec![1.0; shape.iter().product()];
            let row = numbers.len() / shape.first().map_or(1, |rows| *rows);
            for (_, rows) in zero.iter().filter(|(zeroed, _)| zeroed == name) {
                for at in rows.iter() {
                    numbers[at * row..(at + 1) * row].fill(0.0);
                }
            }
            (&**name, &**shape, numbers)
        })
        .collect();
    floats(&tensors)
}

/// What `compare --only` says of such a file with its config beside it.
fn report(overlay: Option<&str>, config: &str, zero: &[Zero<'_>], args: &[&str]) -> Value {
    let folder = Folder::new();
    folder.write("config.json", config);
    let file = folder.write("model.safetensors", file(overlay, config, zero));
    let own = overlay.map(|text| folder.write("own.json", text));
    let mut call = vec!["compare", "--only", &file, "--format", "json"];
    call.extend(own.iter().flat_map(|own| ["--module-db", own.as_str()]));
    call.extend(args);
    json(&call)
}

fn reported(overlay: Option<&str>, config: &str, zero: &[Zero<'_>], args: &[&str]) -> Nulls {
    nulls(&report(overlay, config, zero, args))
}

/// The null channels that a file without a config is reported to have, by the graph of this name.
fn recognised(graph: &str, config: &str, zero: &[Zero<'_>]) -> Nulls {
    let folder = Folder::new();
    let file = folder.write("model.safetensors", file(None, config, zero));
    let report = json(&["compare", "--only", &file, "--format", "json"]);
    assert_eq!(at(&report, "conventions.graph").as_str(), Some(graph));
    nulls(&report)
}

fn nulls(report: &Value) -> Nulls {
    let channels = |layer: &Value, side: &str| {
        let channels = list(layer, &format!("null_{side}_channels"));
        channels.iter().filter_map(Value::as_int).collect()
    };
    let layers = list(report, "layers");
    let layers = layers.iter().map(|layer| {
        let name = at(layer, "name").as_str().expect("a name").to_string();
        (name, (channels(layer, "in"), channels(layer, "out")))
    });
    layers.collect()
}

/// Claims the null inputs of some layers, and that no other layer has any.
#[track_caller]
fn null_inputs(nulls: &Nulls, expected: &[(&str, &[i128])]) {
    let found: BTreeMap<&str, &[i128]> = nulls
        .iter()
        .filter(|(_, (inputs, _))| !inputs.is_empty())
        .map(|(name, (inputs, _))| (&**name, &**inputs))
        .collect();
    assert_eq!(found, expected.iter().copied().collect());
}

#[test]
fn llama_with_fewer_key_value_heads_than_query_heads() {
    let config = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 32}"#;
    let nulls = reported(
        None,
        config,
        &[
            ("model.layers.0.self_attn.v_proj.weight", &[1, 6]),
            ("model.layers.0.self_attn.k_proj.weight", &[0]),
            ("model.layers.1.mlp.gate_proj.weight", &[0, 5]),
            ("model.layers.1.mlp.up_proj.weight", &[5, 23]),
            ("model.layers.0.mlp.down_proj.weight", &[2]),
            ("model.norm.weight", &[7]),
        ],
        &[],
    );
    // Four query heads of 4 to each key-value head: channel 1 of value head 0 is 1, 5, 9, 13; channel 2 of value head 1
    // (6 = 4 + 2) is 16 + 2 and every 4th after it. A row of the stream that one branch leaves out is live in the stream.
    null_inputs(
        &nulls,
        &[
            (
                "model.layers.0.self_attn.o_proj",
                &[1, 5, 9, 13, 18, 22, 26, 30],
            ),
            ("model.layers.1.mlp.down_proj", &[0, 5, 23]),
            ("lm_head", &[7]),
        ],
    );
    assert_eq!(nulls["model.layers.0.self_attn.k_proj"].1, [0]);
    assert_eq!(nulls["model.layers.0.mlp.down_proj"].1, [2]);
}

const BERT: &str = r#"{"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 8,
    "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 6,
    "type_vocab_size": 2, "num_labels": 3}"#;

const BERT_ZEROS: [Zero<'_>; 5] = [
    ("bert.encoder.layer.0.attention.self.value.weight", &[3]),
    ("bert.encoder.layer.0.intermediate.dense.weight", &[0, 11]),
    // A row of the stream ends in a LayerNorm, which moves it by the mean.
    ("bert.encoder.layer.0.output.dense.weight", &[2]),
    ("bert.encoder.layer.0.attention.output.dense.weight", &[2]),
    ("bert.pooler.dense.weight", &[4]),
];

#[test]
fn bert_and_its_head() {
    let nulls = reported(None, BERT, &BERT_ZEROS, &[]);
    let layer = "bert.encoder.layer.0";
    null_inputs(
        &nulls,
        &[
            (&format!("{layer}.attention.output.dense"), &[3]),
            (&format!("{layer}.output.dense"), &[0, 11]),
            ("classifier", &[4]),
        ],
    );
}

#[test]
fn by_the_exact_rule_biases_keep_channels_of_bert_alive() {
    // All biases are 1 but two: value channel 3 is 0 everywhere, and one of the two rows of the MLP.
    let mut zeros = BERT_ZEROS.to_vec();
    zeros.push(("bert.encoder.layer.0.attention.self.value.bias", &[3]));
    zeros.push(("bert.encoder.layer.0.intermediate.dense.bias", &[11]));
    let nulls = reported(None, BERT, &zeros, &["--null-rule", "exact"]);
    let layer = "bert.encoder.layer.0";
    null_inputs(
        &nulls,
        &[
            (&format!("{layer}.attention.output.dense"), &[3]),
            (&format!("{layer}.output.dense"), &[11]),
        ],
    );
    // What its own weights make null is said by either rule.
    assert_eq!(nulls["bert.pooler.dense"].1, [4]);
}

#[test]
fn a_vision_transformer_and_its_head() {
    let config = r#"{"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
        "id2label": {"0": "a", "1": "b"}}"#;
    let nulls = reported(
        None,
        config,
        &[
            ("vit.layers.0.attention.v_proj.weight", &[0, 7]),
            ("vit.layers.1.mlp.fc1.weight", &[6]),
            // The last norm's channel 5 has neither gain nor shift.
            ("vit.layernorm.weight", &[5]),
            ("vit.layernorm.bias", &[5]),
            // A gain alone leaves the shift.
            ("vit.layers.1.layernorm_before.weight", &[1]),
        ],
        &[],
    );
    null_inputs(
        &nulls,
        &[
            ("vit.layers.0.attention.o_proj", &[0, 7]),
            ("vit.layers.1.mlp.fc2", &[6]),
            ("classifier", &[5]),
        ],
    );
}

#[test]
fn bert_without_its_config() {
    let nulls = recognised("bert", BERT, &BERT_ZEROS);
    let layer = "bert.encoder.layer.0";
    null_inputs(
        &nulls,
        &[
            (&format!("{layer}.attention.output.dense"), &[3]),
            (&format!("{layer}.output.dense"), &[0, 11]),
            ("classifier", &[4]),
        ],
    );
}

#[test]
fn decoders_without_their_config_pass_what_shapes_alone_decide() {
    let decoder = |class: &str, kv_heads: usize| {
        format!(
            r#"{{"architectures": ["{class}"], "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 4, "num_key_value_heads": {kv_heads}, "head_dim": 4, "vocab_size": 32,
            "tie_word_embeddings": false}}"#
        )
    };
    let zeros: [Zero<'_>; 3] = [
        ("model.layers.0.self_attn.v_proj.weight", &[6]),
        ("model.layers.0.mlp.up_proj.weight", &[5]),
        // Some families store gains less 1, so this may be a gain of 1.
        ("model.norm.weight", &[7]),
    ];
    let (output, down) = (
        "model.layers.0.self_attn.o_proj",
        "model.layers.0.mlp.down_proj",
    );
    // As many key-value heads as query heads: value 6 is channel 6, whatever the width of a head.
    let all = recognised("llama-like", &decoder("LlamaForCausalLM", 4), &zeros);
    null_inputs(&all, &[(output, &[6]), (down, &[5])]);
    // Half as many: two heads of 4 or four of 2 would be other channels.
    let half = recognised("llama-like", &decoder("LlamaForCausalLM", 2), &zeros);
    null_inputs(&half, &[(down, &[5])]);
    // Qwen3 norms each head, so the heads are known: value 2 of head 1 serves query heads 2 and 3. Its gains are gains.
    let known = recognised("qwen3", &decoder("Qwen3ForCausalLM", 2), &zeros);
    null_inputs(
        &known,
        &[(output, &[10, 14]), (down, &[5]), ("lm_head", &[7])],
    );
}

#[test]
fn gpt2_whose_weights_are_transposed() {
    // Weights are [in, out]: a zero row is an input that nothing reads, no null output.
    let config = r#"{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1,
        "n_positions": 6, "vocab_size": 20}"#;
    let nulls = reported(
        None,
        config,
        &[("transformer.h.0.mlp.c_fc.weight", &[3])],
        &[],
    );
    null_inputs(&nulls, &[]);
    assert!(nulls["transformer.h.0.mlp.c_fc"].1.is_empty());
}

/// A network that no library has, described by its `forward` alone: a block whose convolutions see all that came before.
const DENSE: &str = r#"{
    "own__Layer": {
        "parameters": ["width", "inplanes = C"],
        "children": {"norm": "{BatchNorm2d}(inplanes)", "relu": "{ReLU}()", "conv": "{Conv2d}(inplanes, width, 3, padding=1, bias=False)"},
        "forward": "concat(x, conv(relu(norm(x))))"
    },
    "own__Dense": {
        "task": "vision",
        "config": {"image_size": 4, "growth": 3},
        "children": {
            "stem": "{Conv2d}(3, 4, 3, padding=1, bias=False)",
            "layers": "{Sequential}([{Layer}(growth) for i in 2])",
            "pool": "{MaxPool2d}(2, 2)",
            "head": "{Linear}(B, (4 + 2 * growth) * (image_size // 2) ** 2, 5)"
        },
        "forward": "head(flatten(pool(layers(stem(input(image_size, image_size, 3))))))"
    }
}"#;

#[test]
fn an_entry_with_a_forward_is_all_that_a_new_network_needs() {
    let zeros: [Zero<'_>; 3] = [
        ("stem.weight", &[1]),
        ("layers.0.conv.weight", &[2]),
        ("layers.1.conv.weight", &[0]),
    ];
    let config = r#"{"architectures": ["own.Dense"]}"#;
    let nulls = reported(Some(DENSE), config, &zeros, &[]);
    // Channels are side by side: stem 0 to 3, layer 0's 4 to 6, layer 1's 7 to 9; each is 4 features of the 2 x 2 image.
    let features = [4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31];
    null_inputs(
        &nulls,
        &[
            ("layers.0.conv", &[1]),
            ("layers.1.conv", &[1, 6]),
            ("head", &features),
        ],
    );
    // Norms whose numbers are all 1 make 1 - 1 / sqrt(1 + eps) of a zero, which is no zero: by the exact rule only what
    // goes around the norms arrives, by concatenation.
    let nulls = reported(Some(DENSE), config, &zeros, &["--null-rule", "exact"]);
    null_inputs(&nulls, &[("head", &features)]);
}

#[test]
fn what_does_not_say_how_channels_flow_passes_none_and_is_noted() {
    let silent = r#"{
        "own__Silent": {"children": {
            "first": "{Conv2d}(3, 4, 3, padding=1)",
            "second": "{Conv2d}(4, 5, 3, padding=1)"
        }},
        "own__Net": {"task": "vision", "config": {"image_size": 4}, "children": {"block": "{Silent}()"},
            "forward": "block(input(image_size, image_size, 3))"}
    }"#;
    let config = r#"{"architectures": ["own.Net"]}"#;
    let report = report(Some(silent), config, &[("block.first.weight", &[1])], &[]);
    let layers = list(&report, "layers");
    assert_eq!(layers.len(), 2);
    assert_eq!(list(&layers[0], "null_out_channels"), [Value::Int(1)]);
    assert!(list(&layers[1], "null_in_channels").is_empty());
    let notes = list(&report, "notes");
    let of_flow = |note: &&Value| at(note, "code").as_str() == Some("dataflow");
    let note = notes.iter().find(of_flow).expect("a note");
    assert_eq!(at(note, "path").as_str(), Some("block"));
}
