//! What a checkpoint changes in the numbers: stored bytes, widths, traffic and BOPs per module, and what is said where
//! model and file disagree.

mod common;

use bitcost::analysis::{Analysis, Options, Row, analyze};
use bitcost::db::Db;
use bitcost::join::Headers;
use bitcost::model::{Asked, Model, Status};
use bitcost::value::{Object, Value};
use common::headers::{HeaderOnly, Line};
use std::sync::Arc;

/// Hidden size, MLP size and vocabulary of the model that these tests store in many ways.
const H: u64 = 256;
const I: u64 = 512;
const V: u64 = 1000;

fn config(extra: &str) -> Arc<Object> {
    let text = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {H}, "intermediate_size": {I},
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": {V},
            "max_position_embeddings": 64, "torch_dtype": "float16"{extra}}}"#
    );
    match bitcost::json::read(&text).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("{other}"),
    }
}

const LINEARS: [(&str, u64, u64); 7] = [
    ("self_attn.q_proj", H, H),
    ("self_attn.k_proj", H, H),
    ("self_attn.v_proj", H, H),
    ("self_attn.o_proj", H, H),
    ("mlp.gate_proj", I, H),
    ("mlp.up_proj", I, H),
    ("mlp.down_proj", H, I),
];

fn line(name: &str, dtype: &str, shape: &[u64]) -> Line {
    (name.to_string(), dtype.to_string(), shape.to_vec())
}

/// What the layers do not hold.
fn rest(dtype: &str) -> Vec<Line> {
    vec![
        line("model.embed_tokens.weight", dtype, &[V, H]),
        line("model.norm.weight", dtype, &[H]),
        line("lm_head.weight", dtype, &[V, H]),
    ]
}

fn plain_layer(layer: u64, dtype: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = LINEARS
        .iter()
        .map(|(name, n, k)| {
            line(
                &format!("model.layers.{layer}.{name}.weight"),
                dtype,
                &[*n, *k],
            )
        })
        .collect();
    for norm in ["input_layernorm", "post_attention_layernorm"] {
        lines.push(line(
            &format!("model.layers.{layer}.{norm}.weight"),
            dtype,
            &[H],
        ));
    }
    lines
}

/// GPTQ, 4 bits, groups of 128: codes of eight weights in a word, a zero point and a scale per group, an order.
fn gptq_layer(layer: u64) -> Vec<Line> {
    let mut lines = plain_layer(layer, "F16");
    lines.retain(|(name, ..)| name.contains("norm"));
    for (name, n, k) in LINEARS {
        let stem = format!("model.layers.{layer}.{name}");
        lines.push(line(&format!("{stem}.qweight"), "I32", &[k / 8, n]));
        lines.push(line(&format!("{stem}.qzeros"), "I32", &[k / 128, n / 8]));
        lines.push(line(&format!("{stem}.scales"), "F16", &[k / 128, n]));
        lines.push(line(&format!("{stem}.g_idx"), "I32", &[k]));
    }
    lines
}

fn model(layers: [Vec<Line>; 2]) -> Vec<Line> {
    let [first, second] = layers;
    [rest("F16"), first, second].concat()
}

#[track_caller]
fn inspect(config: &Arc<Object>, lines: &[Line], asked: Asked) -> Analysis {
    let db = Db::embedded().expect("the embedded database");
    let headers = Headers::read(&HeaderOnly::new(lines), Some(config))
        .expect("headers")
        .expect("weights");
    let model = Model::load(&db, config.clone(), None).expect("a model");
    let workload = model.workload(&asked).expect("a workload");
    analyze(&model, Some(&headers), &workload, Options::default()).expect("an analysis")
}

fn inspected(config: &Arc<Object>, lines: &[Line]) -> Analysis {
    inspect(
        config,
        lines,
        Asked {
            seq_len: Some(8),
            ..Asked::default()
        },
    )
}

#[track_caller]
fn row<'a>(analysis: &'a Analysis, path: &str) -> &'a Row {
    let paths = || {
        analysis
            .rows
            .iter()
            .map(|row| row.path.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    };
    analysis
        .rows
        .iter()
        .find(|row| row.path == path)
        .unwrap_or_else(|| panic!("no `{path}` among\n{}", paths()))
}

fn codes(analysis: &Analysis) -> Vec<&str> {
    analysis
        .notes
        .iter()
        .map(|note| note.code.as_str())
        .collect()
}

const GPTQ: &str = r#", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true}"#;

#[test]
fn packed_weights_are_read_as_stored_and_multiplied_by_the_width_of_their_codes() {
    let analysis = inspected(&config(GPTQ), &model([gptq_layer(0), gptq_layer(1)]));
    let q = row(&analysis, "model.layers.0-1.self_attn.q_proj");
    // Codes 256 * 256 / 2, zero points 2 * 32 * 4, scales 2 * 256 * 2, order 256 * 4.
    let bytes = 32_768 + 256 + 1_024 + 1_024;
    assert_eq!((q.all.params, q.all.stored_params), (65_536, 65_536));
    assert_eq!(
        (q.all.weight_bytes, q.all.stored_bytes, q.all.read.weights),
        (bytes, bytes, bytes)
    );
    assert_eq!(q.all.bops, 8 * 65_536 * 4 * 16);
    assert_eq!(
        q.stored.as_ref().map(|s| (&*s.scheme, s.code_bits)),
        Some(("gptq", Some(4)))
    );
    assert!(
        analysis.stored.expect("a checkpoint").matches,
        "{:?}",
        analysis.notes
    );
    assert_eq!(analysis.weight_bits, 4);
}

#[test]
fn the_head_of_a_packed_model_stays_as_wide_as_it_is_stored() {
    let analysis = inspected(&config(GPTQ), &model([gptq_layer(0), gptq_layer(1)]));
    let head = row(&analysis, "lm_head");
    assert_eq!(
        (head.all.stored_bytes, head.all.bops),
        (512_000, 8 * 256_000 * 16 * 16)
    );
}

#[test]
fn equal_layers_that_are_stored_differently_come_apart() {
    let analysis = inspected(
        &config(GPTQ),
        &model([gptq_layer(0), plain_layer(1, "F16")]),
    );
    assert_eq!(
        row(&analysis, "model.layers.0.mlp.up_proj")
            .stored
            .as_ref()
            .map(|s| s.code_bits),
        Some(Some(4))
    );
    assert_eq!(
        row(&analysis, "model.layers.1.mlp.up_proj")
            .stored
            .as_ref()
            .map(|s| s.code_bits),
        Some(Some(16))
    );
    assert!(analysis.stored.expect("a checkpoint").matches);
}

#[test]
fn layers_that_are_stored_alike_stay_one_row() {
    let analysis = inspected(
        &config(""),
        &model([plain_layer(0, "F16"), plain_layer(1, "F16")]),
    );
    assert_eq!(row(&analysis, "model.layers.0-1").count, 2);
    // All parameters, two bytes each.
    let params = analysis.totals.all.params;
    assert_eq!(analysis.totals.all.stored_bytes, 2 * params);
    assert_eq!(analysis.stored.expect("a checkpoint").bytes, 2 * params);
}

#[test]
fn the_width_of_a_file_beats_the_width_of_the_config() {
    let analysis = inspected(
        &config(""),
        &model([plain_layer(0, "F32"), plain_layer(1, "F32")]),
    );
    let up = row(&analysis, "model.layers.0-1.mlp.up_proj");
    assert_eq!(up.all.read.weights, 4 * up.all.params);
    // Stored in 32 bits, multiplied with activations of the config's 16.
    assert_eq!(up.all.bops, up.all.macs * 32 * 16);
}

#[test]
fn a_wish_for_another_width_beats_the_file() {
    let asked = Asked {
        seq_len: Some(8),
        weight_bits: Some(2),
        ..Asked::default()
    };
    let analysis = inspect(&config(GPTQ), &model([gptq_layer(0), gptq_layer(1)]), asked);
    let q = row(&analysis, "model.layers.0-1.self_attn.q_proj");
    assert_eq!(
        (q.all.weight_bytes, q.all.read.weights, q.all.bops),
        (16_384, 16_384, 8 * 65_536 * 2 * 16)
    );
    // What is stored is still said.
    assert_eq!(q.all.stored_bytes, 35_072);
}

#[test]
fn a_tied_head_is_stored_once_whichever_of_its_names_the_file_has() {
    let tied = config(r#", "tie_word_embeddings": true"#);
    let all = model([plain_layer(0, "F16"), plain_layer(1, "F16")]);
    for left_out in ["lm_head.weight", "model.embed_tokens.weight"] {
        let lines: Vec<Line> = all
            .iter()
            .filter(|(name, ..)| name != left_out)
            .cloned()
            .collect();
        let analysis = inspected(&tied, &lines);
        assert!(
            analysis.stored.expect("a checkpoint").matches,
            "{left_out}: {:?}",
            analysis.notes
        );
        assert_eq!(
            analysis.totals.all.stored_bytes,
            2 * analysis.totals.all.params,
            "{left_out}"
        );
        assert_eq!(
            row(&analysis, "lm_head").all.stored_bytes,
            512_000,
            "{left_out}"
        );
    }
}

#[test]
fn a_head_that_is_not_tied_and_not_there_is_missing() {
    let mut lines = model([plain_layer(0, "F16"), plain_layer(1, "F16")]);
    lines.retain(|(name, ..)| name != "lm_head.weight");
    let analysis = inspected(&config(""), &lines);
    assert!(!analysis.stored.expect("a checkpoint").matches);
    let note = analysis
        .notes
        .iter()
        .find(|note| note.code == "missing_in_file")
        .expect("a note");
    assert_eq!(note.path, "lm_head.weight");
    assert!(
        note.message.starts_with("1 parameter that the model has"),
        "{}",
        note.message
    );
    // What the file does not hold is as wide as the config says.
    assert_eq!(row(&analysis, "lm_head").all.weight_bytes, 512_000);
}

#[test]
fn another_shape_and_an_unknown_tensor_are_named() {
    let mut lines = model([plain_layer(0, "F16"), plain_layer(1, "F16")]);
    for (name, _, shape) in &mut lines {
        if name.ends_with("1.mlp.up_proj.weight") {
            shape[0] += 8;
        }
    }
    lines.push(line("model.layers.1.mlp.extra_proj.weight", "F16", &[4, 4]));
    let analysis = inspected(&config(""), &lines);
    let note = |code: &str| {
        analysis
            .notes
            .iter()
            .find(|note| note.code == code)
            .unwrap_or_else(|| panic!("{:?}", analysis.notes))
    };
    assert!(
        note("shape")
            .message
            .contains("has [512, 256] in the model and [520, 256]"),
        "{}",
        note("shape").message
    );
    assert_eq!(
        note("not_in_model").path,
        "model.layers.1.mlp.extra_proj.weight"
    );
}

#[test]
fn stored_rotary_tables_are_no_contradiction() {
    let mut lines = model([plain_layer(0, "F16"), plain_layer(1, "F16")]);
    for layer in 0..2 {
        lines.push(line(
            &format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq"),
            "F32",
            &[32],
        ));
    }
    let analysis = inspected(&config(""), &lines);
    assert!(
        analysis.stored.expect("a checkpoint").matches,
        "{:?}",
        analysis.notes
    );
    assert!(codes(&analysis).contains(&"extra"), "{:?}", analysis.notes);
}

#[test]
fn a_file_of_the_bare_model_lacks_the_prefix_and_matches() {
    let strip = |(name, dtype, shape): Line| {
        (
            name.strip_prefix("model.")
                .map_or(name.clone(), String::from),
            dtype,
            shape,
        )
    };
    let lines = model([plain_layer(0, "F16"), plain_layer(1, "F16")])
        .into_iter()
        .map(strip)
        .collect::<Vec<_>>();
    let analysis = inspected(&config(""), &lines);
    assert!(
        analysis.stored.expect("a checkpoint").matches,
        "{:?}",
        analysis.notes
    );
}

#[test]
fn a_class_that_nobody_described_is_estimated_from_its_tensors() {
    let config = config("");
    let text = r#"{"architectures": ["NobodysModelForCausalLM"], "model_type": "nobodys", "torch_dtype": "float16"}"#;
    let Ok(Value::Object(unknown)) = bitcost::json::read(text) else {
        panic!("JSON")
    };
    let lines = model([plain_layer(0, "F16"), plain_layer(1, "F16")]);
    let known = inspected(&config, &lines);
    let estimate = inspected(&unknown, &lines);
    assert_eq!(estimate.totals.all.params, known.totals.all.params);
    assert_eq!(row(&estimate, "").status, Status::Estimated);
    let up = row(&estimate, "model.layers.0-1.mlp.up_proj");
    assert_eq!(
        up.all.macs,
        row(&known, "model.layers.0-1.mlp.up_proj").all.macs
    );
    assert_eq!(
        up.all.bops,
        row(&known, "model.layers.0-1.mlp.up_proj").all.bops
    );
    assert!(
        codes(&estimate).contains(&"estimated") && !codes(&estimate).contains(&"unresolved"),
        "{:?}",
        estimate.notes
    );
}
