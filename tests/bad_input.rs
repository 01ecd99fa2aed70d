//! Hostile and mistaken input: each gives one clear error and the right exit code.
//!
//! Never a panic, a hang, a wrapped number, a guess or half a table. Exit codes: 2 the command line is wrong, 3 an input
//! is, 4 a class has no entry and `--strict` was given.

mod common;

use bitcost::analysis::{self, Metrics, Options};
use bitcost::db::Db;
use bitcost::model::{Asked, Model, PRIMITIVES, Phase};
use bitcost::source::Catalog;
use bitcost::value::{Name, Object, Value};
use common::{Folder, Ran, at, int, json, list, parse, refused, run, stdout};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const LLAMA: &str = "meta-llama/Llama-2-7b-hf";

/// A small Llama that is right in every key.
const CONFIG: [(&str, &str); 16] = [
    ("architectures", r#"["LlamaForCausalLM"]"#),
    ("model_type", r#""llama""#),
    ("hidden_size", "64"),
    ("intermediate_size", "176"),
    ("num_hidden_layers", "2"),
    ("num_attention_heads", "4"),
    ("num_key_value_heads", "2"),
    ("vocab_size", "1000"),
    ("max_position_embeddings", "512"),
    ("hidden_act", r#""silu""#),
    ("rms_norm_eps", "1e-06"),
    ("rope_theta", "10000.0"),
    ("tie_word_embeddings", "false"),
    ("attention_bias", "false"),
    ("mlp_bias", "false"),
    ("torch_dtype", r#""bfloat16""#),
];

/// The small Llama with some keys written differently, added, or (`""`) left out.
fn config(changes: &[(&str, &str)]) -> String {
    let mut keys: Vec<(&str, &str)> = CONFIG.to_vec();
    for (key, value) in changes {
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some(known) => known.1 = value,
            None => keys.push((key, value)),
        }
    }
    let fields: Vec<String> = keys
        .iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| format!("\"{k}\": {v}"))
        .collect();
    format!("{{{}}}", fields.join(",\n"))
}

/// Claims that a command line is refused with exit code 2.
#[track_caller]
fn usage(args: &[&str], mentions: &[&str]) {
    refused(&run(args), 2, mentions);
}

/// Claims that a file with this content is refused as a config, by its name.
#[track_caller]
fn file_refused(content: impl AsRef<[u8]>, mentions: &[&str]) {
    let folder = Folder::new();
    let file = folder.write("config.json", content);
    let ran = run(&["inspect", &file]);
    refused(&ran, 3, mentions);
    refused(&ran, 3, &[&file]);
}

/// Claims that the small Llama with these changes is refused, by file, and the message mentions all of this.
#[track_caller]
fn config_refused(changes: &[(&str, &str)], mentions: &[&str]) {
    file_refused(config(changes), mentions);
}

/// What the small Llama with these changes costs.
#[track_caller]
fn config_accepted(changes: &[(&str, &str)]) -> Value {
    let folder = Folder::new();
    let ran = run(&[
        "inspect",
        &folder.write("config.json", config(changes)),
        "--format",
        "json",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    parse(&ran.out)
}

/// Runs `inspect` on Llama-2-7b with an overlay database of this content.
fn inspect_with(overlay: impl AsRef<[u8]>) -> Ran {
    let folder = Folder::new();
    run(&[
        "inspect",
        LLAMA,
        "--module-db",
        &folder.write("extra.json", overlay),
    ])
}

/// Claims that an overlay is refused by its name.
#[track_caller]
fn overlay_refused(overlay: impl AsRef<[u8]>, mentions: &[&str]) {
    let ran = inspect_with(overlay);
    refused(&ran, 3, mentions);
    refused(&ran, 3, &["extra.json"]);
}

/// Runs `db eval my.A` with an overlay, and with `n=3` where its entry has a parameter `n`.
fn eval_with(overlay: &str) -> Ran {
    let folder = Folder::new();
    let file = folder.write("extra.json", overlay);
    let arguments: &[&str] = if overlay.contains("[\"n\"") {
        &["n=3"]
    } else {
        &[]
    };
    let args = [&["db", "eval", "my.A", "--module-db", &file], arguments].concat();
    run(&args)
}

/// Claims that `db check` of an overlay ends with exit code 1 and a finding that mentions all of this.
#[track_caller]
fn found(overlay: &str, mentions: &[&str]) {
    let folder = Folder::new();
    let ran = run(&["db", "check", &folder.write("extra.json", overlay)]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    for mention in mentions {
        assert!(
            ran.out.contains(mention),
            "no finding mentions `{mention}`:\n{}",
            ran.out
        );
    }
}

#[test]
fn the_config_that_all_others_are_made_of_is_right() {
    // embed and head 2 * 1000 * 64; per layer q 64 * 64, k and v 2 * 32 * 64, o 64 * 64, mlp 3 * 64 * 176, norms 2 * 64;
    // last norm 64: 128,000 + 2 * (4096 + 4096 + 4096 + 33,792 + 128) + 64 = 220,480.
    assert_eq!(int(&config_accepted(&[]), "totals.params"), 220_480);
}

// ---- the file -------------------------------------------------------------------------------------------------------

#[test]
fn a_truncated_config_is_refused_at_its_last_line() {
    let whole = config(&[]);
    file_refused(
        &whole[..whole.len() - 20],
        &["line 16", "the text ends here"],
    );
}

#[test]
fn every_truncation_of_a_config_is_refused() {
    let whole = config(&[]);
    for end in 0..whole.len() {
        assert!(
            bitcost::json::read(&whole[..end]).is_err(),
            "{}",
            &whole[..end]
        );
    }
}

#[test]
fn a_file_that_is_not_json_is_refused_where_it_stops_being_json() {
    file_refused("hello", &["line 1, column 1", "`h`"]);
    file_refused("", &["line 1, column 1", "the text ends here"]);
    file_refused("{'a': 1}", &["line 1, column 2"]);
    file_refused("{\"a\": 1,}", &["line 1, column 9"]);
    file_refused("{\"a\": 1} {}", &["line 1, column 10", "nothing more"]);
    file_refused("{\"a\": nul}", &["line 1, column 7"]);
    file_refused("{\"a\": 0x10}", &["line 1, column 8"]);
}

#[test]
fn a_config_that_is_not_an_object_is_refused_for_what_it_is() {
    file_refused("[1, 2]", &["a JSON object", "the list [1, 2]"]);
    file_refused("3", &["a JSON object", "3"]);
    file_refused(
        "\"LlamaForCausalLM\"",
        &["a JSON object", "the string 'LlamaForCausalLM'"],
    );
    file_refused("null", &["a JSON object", "None"]);
}

#[test]
fn a_config_of_200_mb_is_refused_without_reading_it() {
    let folder = Folder::new();
    let file = folder.file("config.json");
    // Sparse: the file says 200 MB and holds nothing.
    std::fs::File::create(&file)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    let start = Instant::now();
    refused(
        &run(&["inspect", &file]),
        3,
        &[&file, "209715200 bytes", "at most 8388608"],
    );
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[cfg(unix)]
#[test]
fn an_endless_file_is_refused_at_the_size_limit() {
    refused(
        &run(&["inspect", "/dev/zero"]),
        3,
        &["/dev/zero", "8388608"],
    );
}

#[test]
fn nesting_10000_deep_is_refused_at_the_limit() {
    file_refused(
        "[".repeat(10_000),
        &["column 129", "nested deeper than 128 levels"],
    );
    file_refused("{\"a\":".repeat(10_000), &["nested deeper than 128 levels"]);
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    config_refused(
        &[("rope_scaling", &deep)],
        &["nested deeper than 128 levels"],
    );
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    file_refused(
        "{\"hidden_size\": 1,\n \"hidden_size\": 2}",
        &["line 2", "\"hidden_size\" stands twice"],
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    file_refused(b"{\"a\": \"\xff\xfe\"}", &["not UTF-8"]);
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    let folder = Folder::new();
    let file = folder.write("config.json", format!("\u{feff}{}", config(&[])));
    assert_eq!(
        int(
            &json(&["inspect", &file, "--format", "json"]),
            "totals.params"
        ),
        220_480
    );
}

#[test]
fn a_missing_file_is_refused_by_its_name() {
    let folder = Folder::new();
    let file = folder.file("config.json");
    refused(&run(&["inspect", &file]), 3, &[&file]);
    refused(
        &run(&["inspect", "./no/such/folder"]),
        3,
        &["./no/such/folder"],
    );
}

#[test]
fn a_name_that_is_neither_a_file_nor_in_the_catalog_is_refused_with_the_way_out() {
    refused(
        &run(&["inspect", "nobody/nothing"]),
        3,
        &["`nobody/nothing`", "bitcost catalog"],
    );
    refused(
        &run(&["inspect", "meta-llama/Llama-2-7b-hff"]),
        3,
        &["did you mean `meta-llama/Llama-2-7b-hf`?"],
    );
    refused(
        &run(&["inspect", "Llama-2-7b-hf"]),
        3,
        &["did you mean `meta-llama/Llama-2-7b-hf`?"],
    );
    refused(&run(&["inspect", ""]), 3, &[]);
}

#[test]
fn a_folder_without_config_json_is_refused_by_its_name() {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap().to_string();
    refused(&run(&["inspect", &path]), 3, &[&path, "config.json"]);
    std::fs::create_dir(folder.path().join("config.json")).unwrap();
    refused(&run(&["inspect", &path]), 3, &["config.json"]);
}

#[test]
fn one_bad_model_among_several_prints_no_table() {
    refused(
        &run(&["inspect", LLAMA, "nobody/nothing"]),
        3,
        &["nobody/nothing"],
    );
}

// ---- numbers --------------------------------------------------------------------------------------------------------

/// Claims that a size is refused by key and value.
#[track_caller]
fn size_refused(key: &str, value: &str, shown: &str) {
    config_refused(&[(key, value)], &[&format!("{key} = {shown}")]);
}

#[test]
fn a_negative_size_is_refused_by_key_and_value() {
    size_refused("hidden_size", "-64", "-64");
    size_refused("vocab_size", "-1", "-1");
    size_refused("num_hidden_layers", "-1", "-1");
    size_refused("num_attention_heads", "-4", "-4");
    size_refused("num_key_value_heads", "-2", "-2");
    size_refused("intermediate_size", "-176", "-176");
}

#[test]
fn a_size_of_zero_is_refused_by_key_and_value() {
    size_refused("hidden_size", "0", "0");
    size_refused("vocab_size", "0", "0");
    size_refused("num_attention_heads", "0", "0");
    size_refused("num_key_value_heads", "0", "0");
    size_refused("intermediate_size", "0", "0");
}

#[test]
fn a_refused_size_is_told_what_is_allowed() {
    config_refused(&[("hidden_size", "-64")], &["whole number of 1 or more"]);
    config_refused(&[("num_hidden_layers", "-1")], &["a number of items"]);
}

#[test]
fn a_size_of_10_to_the_30_is_refused_and_does_not_wrap() {
    let huge = "1000000000000000000000000000000";
    size_refused("hidden_size", huge, huge);
    size_refused("hidden_size", "1e30", huge);
    size_refused("num_hidden_layers", huge, huge);
    config_refused(&[("vocab_size", huge), ("hidden_size", huge)], &[huge]);
}

#[test]
fn a_number_of_10_to_the_30_is_refused_even_where_its_products_would_fit() {
    // A vocabulary of 10 ** 30 times 64 fits 128 bits; no model means it all the same.
    size_refused(
        "vocab_size",
        "1000000000000000000000000000000",
        "1000000000000000000000000000000",
    );
}

#[test]
fn large_numbers_that_could_be_meant_are_counted_exactly() {
    // embed and head 2 * 10 ** 12 * 64; the rest of the small Llama is 220,480 - 128,000 = 92,480.
    let analysis = config_accepted(&[("vocab_size", "1000000000000")]);
    assert_eq!(
        int(&analysis, "totals.params"),
        128 * 10i128.pow(12) + 92_480
    );
}

#[test]
fn a_number_that_does_not_fit_128_bits_is_refused_where_it_is_used() {
    size_refused(
        "hidden_size",
        "10000000000000000000000000000000000000000",
        "10000000000000000000000000000000000000000",
    );
    size_refused("vocab_size", "1e40", "1e40");
    size_refused("num_hidden_layers", "1e400", "1e400");
    size_refused("hidden_size", "-1e40", "-1e40");
}

#[test]
fn a_number_that_does_not_fit_is_no_fault_where_nothing_uses_it() {
    assert_eq!(
        int(
            &config_accepted(&[("eos_token_id", "1e400")]),
            "totals.params"
        ),
        220_480
    );
    assert_eq!(
        int(
            &config_accepted(&[("rope_theta", "Infinity")]),
            "totals.params"
        ),
        220_480
    );
}

#[test]
fn infinity_and_nan_are_refused_where_they_are_used() {
    size_refused("hidden_size", "Infinity", "Infinity");
    size_refused("vocab_size", "NaN", "NaN");
    size_refused("num_hidden_layers", "-Infinity", "-Infinity");
}

#[test]
fn a_fraction_is_no_size() {
    size_refused("hidden_size", "64.5", "129/2");
    size_refused("num_hidden_layers", "1.5", "3/2");
}

#[test]
fn a_whole_number_written_as_a_decimal_is_one() {
    assert_eq!(
        int(
            &config_accepted(&[("hidden_size", "64.0"), ("num_hidden_layers", "2e0")]),
            "totals.params"
        ),
        220_480
    );
}

#[test]
fn a_string_is_no_number() {
    size_refused("hidden_size", "\"64\"", "the string '64'");
    size_refused("num_hidden_layers", "\"2\"", "the string '2'");
    size_refused("num_attention_heads", "\"four\"", "the string 'four'");
    size_refused("vocab_size", "\"\"", "the string ''");
}

#[test]
fn a_list_an_object_and_null_are_no_numbers() {
    size_refused("hidden_size", "[64]", "the list [64]");
    size_refused("vocab_size", "[]", "the list []");
    size_refused("intermediate_size", "{}", "an object");
    size_refused("hidden_size", "null", "None");
    size_refused("vocab_size", "{\"a\": 1}", "an object");
}

#[test]
fn a_list_is_no_number_of_layers() {
    // A `for` of the database runs over lists too, but a number of layers is a number.
    config_refused(&[("num_hidden_layers", "[1, 2]")], &["num_hidden_layers"]);
}

#[test]
fn a_boolean_is_no_number() {
    size_refused("vocab_size", "true", "True");
    size_refused("num_hidden_layers", "true", "True");
    size_refused("intermediate_size", "true", "True");
    size_refused("num_hidden_layers", "false", "False");
}

#[test]
fn an_unknown_activation_is_refused_with_those_that_there_are() {
    config_refused(
        &[("hidden_act", "\"sili\"")],
        &["hidden_act", "sili", "silu", "gelu"],
    );
    config_refused(&[("hidden_act", "3")], &["hidden_act = 3"]);
    config_refused(&[("hidden_act", "[]")], &["hidden_act"]);
}

#[test]
fn a_wrong_position_limit_is_refused_by_its_key() {
    size_refused("max_position_embeddings", "-1", "-1");
    size_refused("max_position_embeddings", "0", "0");
    size_refused("max_position_embeddings", "\"512\"", "the string '512'");
    size_refused("max_position_embeddings", "[512]", "the list [512]");
}

#[test]
fn more_layers_than_any_model_has_end_at_a_named_limit() {
    size_refused("num_hidden_layers", "100001", "100001");
    config_refused(&[("num_hidden_layers", "100001")], &["limit of 100000"]);
}

#[test]
fn a_hundred_thousand_equal_layers_are_one_row() {
    let analysis = config_accepted(&[("num_hidden_layers", "100000")]);
    // 128,064 outside the layers and 46,208 in each, as above.
    assert_eq!(int(&analysis, "totals.params"), 128_064 + 100_000 * 46_208);
    assert!(list(&analysis, "modules").len() < 40);
}

#[test]
fn a_width_of_a_quantization_config_is_refused_by_its_key() {
    for bits in ["-4", "0", "\"x\"", "65", "1e30", "2.5", "[4]"] {
        let quantization = format!("{{\"quant_method\": \"gptq\", \"bits\": {bits}}}");
        config_refused(
            &[("quantization_config", &quantization)],
            &["quantization_config", "bits"],
        );
    }
}

#[test]
fn an_unknown_quantization_method_is_said_and_not_taken_for_none() {
    for quantization in [
        "{\"quant_method\": \"nobodys\", \"bits\": 4}",
        "3",
        "\"int4\"",
        "{\"quant_method\": 3}",
    ] {
        let folder = Folder::new();
        let file = folder.write(
            "config.json",
            config(&[("quantization_config", quantization)]),
        );
        let ran = run(&["inspect", &file, "--format", "json"]);
        let said = ran.code == Some(3) && ran.err.contains("quantization_config")
            || ran.code == Some(0) && !list(&parse(&ran.out), "notes").is_empty();
        assert!(
            said,
            "{quantization}: exit {:?}, no note\n{}",
            ran.code, ran.err
        );
    }
}

#[test]
fn an_unknown_dtype_is_said_and_not_taken_for_16_bits() {
    for dtype in ["\"float17\"", "3", "[]"] {
        let folder = Folder::new();
        let file = folder.write("config.json", config(&[("torch_dtype", dtype)]));
        let ran = run(&["inspect", &file, "--format", "json"]);
        let said = ran.code == Some(3) && ran.err.contains("torch_dtype")
            || ran.code == Some(0) && !list(&parse(&ran.out), "notes").is_empty();
        assert!(said, "{dtype}: exit {:?}, no note\n{}", ran.code, ran.err);
    }
}

#[test]
fn json_numbers_have_one_sign_in_their_exponent() {
    assert!(bitcost::json::read("[1e++5]").is_err());
    assert!(bitcost::json::read("[1e+-5]").is_err());
    assert!(bitcost::json::read("[1e--5]").is_err());
    assert!(bitcost::json::read("[1e-+5]").is_err());
}

#[test]
fn a_number_of_any_exponent_is_json() {
    // 1e300 is carried along, so 1e99999999999 is too.
    assert_eq!(
        bitcost::json::read("[1e99999999999, 0]").map(|v| v.to_string()),
        Ok("[1e99999999999, 0]".into())
    );
}

// ---- classes --------------------------------------------------------------------------------------------------------

const UNKNOWN: [(&str, &str); 2] = [
    ("architectures", "[\"LlamaForCausalLMs\"]"),
    ("model_type", "\"nobodys\""),
];

fn unknown_class() -> (Folder, String) {
    let folder = Folder::new();
    let file = folder.write("config.json", config(&UNKNOWN));
    (folder, file)
}

#[test]
fn a_class_without_entry_is_a_visible_row_and_a_note() {
    let (_folder, file) = unknown_class();
    let table = stdout(&["inspect", &file]);
    assert!(
        table.contains("unresolved") && table.contains("LlamaForCausalLMs"),
        "{table}"
    );
    assert!(
        table.contains("note [unresolved]") && table.contains("did you mean `LlamaForCausalLM`?"),
        "{table}"
    );
    assert!(table.contains("--module-db"), "{table}");
    assert!(
        table.contains("at least 0"),
        "a total that misses a part says so\n{table}"
    );
}

#[test]
fn a_class_without_entry_is_said_in_json_too() {
    let (_folder, file) = unknown_class();
    let ran = run(&["inspect", &file, "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let analysis = parse(&ran.out);
    assert_eq!(at(&analysis, "modules.0.status"), Value::str("unresolved"));
    assert_eq!(at(&analysis, "notes.0.code"), Value::str("unresolved"));
}

#[test]
fn the_stub_of_the_note_is_an_overlay_that_helps() {
    let (folder, file) = unknown_class();
    let ran = run(&["inspect", &file, "--format", "json"]);
    let message = at(&parse(&ran.out), "notes.0.message");
    let message = message.as_str().unwrap();
    let stub = &message[message.find('{').unwrap()..=message.rfind('}').unwrap()];
    let overlay = folder.write("extra.json", stub);
    let ran = run(&["inspect", &file, "--module-db", &overlay, "--strict"]);
    // The stub asks for names that the user has to bind, so it may lack a value, but the class is known now.
    assert_ne!(ran.code, Some(4), "{}{}", ran.out, ran.err);
    assert!(
        ran.err.is_empty()
            || ran.err.contains("extra.json")
            || ran.err.contains("LlamaForCausalLMs"),
        "{}",
        ran.err
    );
}

#[test]
fn a_class_without_entry_ends_with_4_under_strict() {
    let (_folder, file) = unknown_class();
    for args in [
        &["inspect", &file, "--strict"][..],
        &["inspect", &file, "--strict", "--quiet"],
        &["inspect", &file, "--strict", "--format", "csv"],
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(4), "{args:?}");
        assert!(ran.err.contains("LlamaForCausalLMs"), "{}", ran.err);
    }
}

#[test]
fn strict_wins_over_a_failed_gate() {
    let folder = Folder::new();
    let overlay = folder.write("extra.json", r#"{"transformers.models.llama.modeling_llama.LlamaMLP": {"children": {"inner": "{Nobodys}()"}}}"#);
    let ran = run(&[
        "inspect",
        LLAMA,
        "--module-db",
        &overlay,
        "--strict",
        "--max-params",
        "1",
    ]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(
        ran.err.contains("--max-params") && ran.err.contains("Nobodys"),
        "{}",
        ran.err
    );
}

#[test]
fn a_sweep_of_a_class_without_entry_says_so() {
    let (_folder, file) = unknown_class();
    assert_eq!(
        run(&["inspect", &file, "-s", "1,2", "--strict"]).code,
        Some(4)
    );
    let ran = run(&["inspect", &file, "-s", "1,2"]);
    assert!(
        format!("{}{}", ran.out, ran.err).contains("LlamaForCausalLMs"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn one_class_without_entry_among_several_models_is_said() {
    let (_folder, file) = unknown_class();
    let ran = run(&["inspect", &file, LLAMA]);
    assert!(
        format!("{}{}", ran.out, ran.err).contains("unresolved"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert_eq!(run(&["inspect", &file, LLAMA, "--strict"]).code, Some(4));
}

#[test]
fn explaining_a_class_without_entry_does_not_say_0() {
    let (_folder, file) = unknown_class();
    let ran = run(&["inspect", &file, "--explain", ""]);
    assert!(
        format!("{}{}", ran.out, ran.err).contains("no entry"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert_eq!(
        run(&["inspect", &file, "--explain", "", "--strict"]).code,
        Some(4)
    );
}

#[test]
fn a_config_that_names_no_class_is_refused_with_the_way_out() {
    config_refused(
        &[("architectures", ""), ("model_type", "")],
        &["architectures", "--class"],
    );
    config_refused(
        &[("architectures", ""), ("model_type", "\"nobodys\"")],
        &["architectures", "model_type", "--class"],
    );
    config_refused(
        &[("architectures", "[]"), ("model_type", "3")],
        &["architectures", "--class"],
    );
    file_refused("{}", &["architectures", "--class"]);
}

#[test]
fn a_class_that_is_the_empty_string_is_none() {
    config_refused(
        &[("architectures", "[\"\"]"), ("model_type", "")],
        &["architectures"],
    );
}

#[test]
fn a_table_of_the_database_is_no_class() {
    let folder = Folder::new();
    let file = folder.write(
        "config.json",
        config(&[("architectures", "[\"$elementwise\"]"), ("model_type", "")]),
    );
    let ran = run(&["inspect", &file, "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        at(&parse(&ran.out), "modules.0.status"),
        Value::str("unresolved")
    );
}

// ---- overlays -------------------------------------------------------------------------------------------------------

#[test]
fn an_overlay_that_is_missing_is_refused_by_its_name() {
    refused(
        &run(&["inspect", LLAMA, "--module-db", "no-such-file.json"]),
        3,
        &["no-such-file.json"],
    );
    refused(
        &run(&["db", "check", "no-such-file.json"]),
        3,
        &["no-such-file.json"],
    );
    refused(&run(&["inspect", LLAMA, "--module-db", "."]), 3, &["."]);
}

#[test]
fn an_overlay_that_is_not_json_is_refused_by_name_and_place() {
    overlay_refused("hello", &["line 1, column 1"]);
    overlay_refused("", &["the text ends here"]);
    overlay_refused("[1]", &["line 1, column 1"]);
    overlay_refused("{\"my.A\": {\"rows\": {}}", &["the text ends here"]);
    overlay_refused("{\"my.A\": {\"rows\": }}", &["my.A", "found `}`"]);
    overlay_refused("{\"my.A\": {}, \"my.A\": {}}", &["\"my.A\" stands twice"]);
    overlay_refused(b"{\"my.A\": \"\xff\"}", &["UTF-8"]);
    overlay_refused("[".repeat(10_000), &[]);
    overlay_refused(
        format!("{{\"my.A\": {}", "[".repeat(10_000)),
        &["nested deeper"],
    );
}

#[test]
fn an_overlay_is_named_once() {
    let ran = inspect_with("hello");
    assert_eq!(ran.err.matches("extra.json").count(), 1, "{}", ran.err);
}

#[test]
fn an_overlay_of_200_mb_is_refused_without_reading_it() {
    let folder = Folder::new();
    let file = folder.file("extra.json");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    refused(
        &run(&["inspect", LLAMA, "--module-db", &file]),
        3,
        &[&file, "more than 16777216 bytes"],
    );
}

#[test]
fn an_overlay_whose_module_contains_itself_is_refused_for_that() {
    let overlay = r#"{"transformers.models.llama.modeling_llama.LlamaMLP": {"children": {"again": "{LlamaMLP}()"}}}"#;
    overlay_refused(overlay, &["LlamaMLP", "contains itself"]);
    found(overlay, &["LlamaMLP", "contains itself"]);
}

#[test]
fn two_modules_that_contain_each_other_are_refused() {
    let overlay = r#"{"transformers.models.llama.modeling_llama.LlamaMLP": {"children": {"a": "{my.A}()"}}, "my.A": {"children": {"b": "{LlamaMLP}()"}}}"#;
    overlay_refused(overlay, &["contains itself"]);
    found(overlay, &["contains itself"]);
}

#[test]
fn names_that_define_each_other_are_refused() {
    let overlay = r#"{"transformers.models.llama.modeling_llama.LlamaMLP": {"let": {"one": "two", "two": "one"}, "rows": {"work": ["elementwise", "one"]}}}"#;
    overlay_refused(
        overlay,
        &["LlamaMLP", "`one` is defined by itself", "let.two"],
    );
    found(overlay, &["LlamaMLP", "defined by itself"]);
}

#[test]
fn defaults_that_define_each_other_are_refused() {
    let overlay =
        r#"{"my.A": {"parameters": ["p = q", "q = p"], "rows": {"work": ["elementwise", "p"]}}}"#;
    refused(&eval_with(overlay), 3, &["my__A", "defined by itself"]);
    found(overlay, &["my__A", "defined by itself"]);
}

#[test]
fn a_template_that_calls_itself_is_refused() {
    let overlay = r#"{"my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "{my.A}(n - 1) + 1"}}}"#;
    refused(
        &eval_with(overlay),
        3,
        &["my__A", "formula_template", "defined by itself"],
    );
    found(overlay, &["computed by itself"]);
}

#[test]
fn templates_that_call_each_other_are_refused() {
    let overlay = r#"{"my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "{my.B}(n)"}}, "my.B": {"parameters": ["n"], "flop_analysis": {"formula_template": "2 * {my.A}(n)"}}}"#;
    refused(
        &eval_with(overlay),
        3,
        &["formula_template", "defined by itself"],
    );
    found(overlay, &["A -> B -> A"]);
}

#[test]
fn entries_that_are_like_each_other_are_refused() {
    let overlay = r#"{"my.A": {"like": "my.B"}, "my.B": {"like": "my.A"}}"#;
    refused(&eval_with(overlay), 3, &["like", "cycle"]);
    found(overlay, &["like", "cycle"]);
}

#[test]
fn an_entry_with_aliases_that_is_like_nobody_is_refused() {
    // Looking for the class reads the aliases of entries, and reading those of this entry looks for the class.
    let overlay = r#"{"my.A": {"like": "Nobody", "aliases": ["other.B"]}}"#;
    refused(&eval_with(overlay), 3, &["my__A", "like", "Nobody"]);
    found(overlay, &["my__A", "Nobody"]);
}

#[test]
fn configs_that_name_each_other_are_refused() {
    let overlay = r#"{"my.A": {"config": "{my.B}"}, "my.B": {"config": "{my.A}"}}"#;
    refused(&eval_with(overlay), 3, &["config"]);
    found(overlay, &["my__A", "config"]);
}

#[test]
fn a_syntax_error_in_an_overlay_is_shown_at_its_column() {
    let overlay = r#"{"my.A": {"parameters": ["n"], "rows": {"work": ["elementwise", "2 * (n"]}}}"#;
    refused(
        &eval_with(overlay),
        3,
        &["my__A", "rows.work", "column 7", "expected `)`", "2 * (n"],
    );
    found(overlay, &["rows.work", "column 7", "expected `)`"]);
}

#[test]
fn an_unknown_name_in_an_overlay_is_shown_at_its_column_with_the_nearest_right_one() {
    let overlay = r#"{"my.A": {"parameters": ["n", "hidden_size = 4"], "rows": {"work": ["elementwise", "n * hiden_size"]}}}"#;
    refused(
        &eval_with(overlay),
        3,
        &[
            "my__A",
            "rows.work",
            "column 5",
            "did you mean `hidden_size`?",
        ],
    );
    found(overlay, &["rows.work", "hiden_size"]);
}

#[test]
fn an_error_in_an_overlay_names_the_overlay_and_not_the_config() {
    let overlay = r#"{"transformers.models.llama.modeling_llama.LlamaMLP": {"rows": {"work": ["elementwise", "1 // 0"]}}}"#;
    overlay_refused(overlay, &["LlamaMLP", "rows.work", "division by zero"]);
}

#[test]
fn an_unknown_key_of_an_entry_is_named_with_the_nearest_right_one() {
    refused(
        &eval_with(r#"{"my.A": {"parameter": ["n"]}}"#),
        3,
        &["my__A", "`parameter`", "did you mean `parameters`?"],
    );
}

#[test]
fn an_entry_that_is_not_an_object_is_refused() {
    refused(
        &eval_with(r#"{"my.A": 3}"#),
        3,
        &["my__A", "an object, not 3"],
    );
    for entry in [
        r#"{"parameters": 3}"#,
        r#"{"rows": []}"#,
        r#"{"rows": {"a": 1}}"#,
        r#"{"rows": {"a": ["elementwise"]}}"#,
        r#"{"weights": {"w": 3}}"#,
        r#"{"children": 3}"#,
        r#"{"forward": 3}"#,
        r#"{"flop_analysis": 3}"#,
        r#"{"module_path": 3}"#,
        r#"{"like": 3}"#,
        r#"{"config": 3}"#,
        r#"{"task": "nothing"}"#,
        r#"{"cache": [1]}"#,
    ] {
        refused(&eval_with(&format!("{{\"my.A\": {entry}}}")), 3, &["my__A"]);
    }
}

#[test]
fn tables_of_the_database_are_checked_too() {
    found(r#"{"$elementwise": 3}"#, &["$elementwise"]);
    found(r#"{"$quantization": 3}"#, &["$quantization"]);
    found(r#"{"$nobodys": {}}"#, &["$nobodys"]);
    overlay_refused(r#"{"$elementwise": 3}"#, &["$elementwise"]);
}

#[test]
fn two_keys_for_one_entry_are_refused() {
    // `my.A` and `my__A` are the same path; the later must not win in silence.
    overlay_refused(r#"{"my.A": {}, "my__A": {}}"#, &["my__A"]);
}

#[test]
fn an_overlay_with_an_unknown_class_is_found_with_the_nearest_right_one() {
    found(
        r#"{"my.A": {"children": {"a": "{Liner}(1, 2, 3)"}}}"#,
        &["Liner", "Linear"],
    );
}

#[test]
fn a_long_chain_of_templates_ends_at_a_named_limit() {
    let mut entries: Vec<String> = (0..2000).map(|i| format!(r#""my.A{i}": {{"parameters": ["n"], "flop_analysis": {{"formula_template": "{{my.A{}}}(n)"}}}}"#, i + 1)).collect();
    entries.push(
        r#""my.A2000": {"parameters": ["n"], "flop_analysis": {"formula_template": "n"}}"#.into(),
    );
    entries.push(
        r#""my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "{my.A0}(n)"}}"#
            .into(),
    );
    refused(
        &eval_with(&format!("{{{}}}", entries.join(","))),
        3,
        &["limit of"],
    );
}

#[test]
fn a_long_chain_of_names_ends_at_a_named_limit() {
    let names: Vec<String> = (0..5000)
        .map(|i| format!(r#""v{i}": "v{} + 1""#, i + 1))
        .collect();
    let overlay = format!(
        r#"{{"my.A": {{"let": {{{}, "v5000": "0"}}, "rows": {{"work": ["elementwise", "v0"]}}}}}}"#,
        names.join(",")
    );
    refused(&eval_with(&overlay), 3, &["limit of"]);
}

#[test]
fn lists_of_lists_of_modules_do_not_exhaust_the_stack() {
    let mut entries: Vec<String> = (0..46)
        .map(|i| {
            format!(
                r#""my.A{i}": {{"children": {{"a": "{}{{my.A{}}}(){}"}}}}"#,
                "[".repeat(50),
                i + 1,
                "]".repeat(50)
            )
        })
        .collect();
    entries.push(r#""my.A46": {"rows": {"work": ["elementwise", "1"]}}"#.into());
    entries.push(r#""my.A": {"children": {"a": "{my.A0}()"}}"#.into());
    let ran = eval_with(&format!("{{{}}}", entries.join(",")));
    assert!(!ran.err.contains("overflowed its stack"), "{}", ran.err);
    assert!(ran.code == Some(0) || ran.code == Some(3), "{}", ran.err);
}

#[test]
fn names_of_long_formulas_defined_by_names_do_not_exhaust_the_stack() {
    // 98 names, each deep in parentheses, signs and sums of its formula: the deepest that the limits allow.
    let deep = |i: usize| {
        format!(
            "{}{}v{}{}",
            "1 + (".repeat(5),
            "-".repeat(4),
            i + 1,
            ")".repeat(5)
        )
    };
    let names: Vec<String> = (0..98)
        .map(|i| format!(r#""v{i}": "{}""#, deep(i)))
        .collect();
    let overlay = format!(
        r#"{{"my.A": {{"let": {{{}, "v98": "1"}}, "rows": {{"work": ["elementwise", "abs(v0)"]}}}}}}"#,
        names.join(",")
    );
    let ran = eval_with(&overlay);
    assert!(ran.code == Some(0) || ran.code == Some(3), "{}", ran.err);
}

#[test]
fn templates_that_double_at_each_level_end_in_time() {
    // 2 ** 40 calls if each were made.
    let mut entries: Vec<String> = (0..40).map(|i| format!(r#""my.A{i}": {{"parameters": ["n"], "flop_analysis": {{"formula_template": "{{my.A{0}}}(n) + {{my.A{0}}}(n)"}}}}"#, i + 1)).collect();
    entries.push(
        r#""my.A40": {"parameters": ["n"], "flop_analysis": {"formula_template": "n"}}"#.into(),
    );
    entries.push(
        r#""my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "{my.A0}(n)"}}"#
            .into(),
    );
    let ran = eval_with(&format!("{{{}}}", entries.join(",")));
    // A limit with a name, or the exact number 3 * 2 ** 40 for one that remembers.
    assert!(
        ran.code == Some(3) && ran.err.contains("limit of")
            || ran.out.contains("3,298,534,883,328"),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn modules_that_double_at_each_level_end_in_time() {
    let mut entries: Vec<String> = (0..40)
        .map(|i| {
            format!(
                r#""my.A{i}": {{"children": {{"a": "{{my.A{0}}}()", "b": "{{my.A{0}}}()"}}}}"#,
                i + 1
            )
        })
        .collect();
    entries.push(r#""my.A40": {"rows": {"work": ["elementwise", "1"]}}"#.into());
    entries.push(r#""my.A": {"children": {"a": "{my.A0}()"}}"#.into());
    refused(
        &eval_with(&format!("{{{}}}", entries.join(","))),
        3,
        &["limit of"],
    );
}

#[test]
fn a_list_of_different_modules_may_be_as_long_as_the_limit_says() {
    // Each of 20,000 items differs from all others: 20,000 * 19,999 / 2 elements.
    let overlay = r#"{"my.A": {"children": {"a": "[{my.B}(i) for i in 20000]"}}, "my.B": {"parameters": ["k"], "rows": {"work": ["elementwise", "k"]}}}"#;
    let ran = eval_with(overlay);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("199,990,000"), "{}", ran.out);
}

#[test]
fn lists_that_double_at_each_name_end_before_the_memory_does() {
    let names: Vec<String> = (0..20)
        .map(|i| format!(r#""v{}": "v{i} + v{i}""#, i + 1))
        .collect();
    let overlay = format!(
        r#"{{"my.A": {{"let": {{"v0": "[i for i in 100]", {}}}, "rows": {{"work": ["elementwise", "len(v20)"]}}}}}}"#,
        names.join(",")
    );
    refused(&eval_with(&overlay), 3, &["my__A", "100000"]);
}

#[test]
fn a_cache_that_does_not_fit_128_bits_is_refused_and_does_not_wrap() {
    let most = "2 ** 126 - 1 + 2 ** 126";
    let overlay = format!(
        r#"{{"my.A": {{"cache": {{"a": "{most}", "b": "{most}", "c": "{most}"}}, "rows": {{"work": ["elementwise", "1"]}}}}}}"#
    );
    refused(&eval_with(&overlay), 3, &["128 bits"]);
}

#[test]
fn rows_and_traffic_that_do_not_fit_128_bits_are_refused_and_do_not_wrap() {
    let most = "2 ** 126 - 1 + 2 ** 126";
    for entry in [
        format!(r#"{{"rows": {{"a": ["act_mac", "{most}"]}}}}"#),
        format!(
            r#"{{"rows": {{"a": ["elementwise", "{most}"], "b": ["elementwise", "{most}"], "c": ["elementwise", "{most}"]}}}}"#
        ),
        format!(r#"{{"rows": {{"a": ["softmax", "{most}"]}}}}"#),
        format!(r#"{{"traffic": {{"reads": "{most}", "writes": "{most}"}}}}"#),
        format!(r#"{{"weights": {{"a": "[{most}]", "b": "[{most}]", "c": "[{most}]"}}}}"#),
        format!(
            r#"{{"weights": {{"a": "[{most}]"}}, "rows": {{"a": ["weight_mac", "{most}", "a"]}}}}"#
        ),
        format!(r#"{{"children": {{"a": "{{ReLU}}(1, calls={most})"}}}}"#),
        format!(
            r#"{{"rows": {{"a": ["elementwise", "1"]}}, "children": {{"a": "[{{Linear}}({most}, {most}, {most}) for i in 3]"}}}}"#
        ),
        format!(r#"{{"flop_analysis": {{"formula_template": "{most} + 1"}}}}"#),
        format!(
            r#"{{"flop_analysis": {{"formula_template": "{{Linear}}({most}, 1, 1) + {{Linear}}({most}, 1, 1)"}}}}"#
        ),
    ] {
        let ran = eval_with(&format!("{{\"my.A\": {entry}}}"));
        assert!(!ran.err.contains("panicked"), "{entry}\n{}", ran.err);
        assert!(
            ran.code == Some(3) && ran.err.contains("128 bits") || ran.code == Some(0),
            "{entry}\n{}{}",
            ran.out,
            ran.err
        );
    }
}

#[test]
fn sizes_that_flow_through_a_forward_do_not_overflow() {
    let most = i128::MAX.to_string();
    let least = i128::MIN.to_string();
    for flow in [
        "pad2d(x, n, n)",
        "pad_channels(x, n, n)",
        "prepend(x, n)",
        "concat(x, x, x)",
        "subsample(x, n)",
        "conv2d(x, w, n, n, n, 1, 1)",
        "conv1d(x, w, n, n, n, 1)",
        "pool2d(x, n, n, n, True)",
        "tokens(x)",
        "flatten(x)",
        "repeat(x, n)",
        "sum_runs(repeat(repeat(x, 2 ** 60), 2 ** 60), 2 ** 60)",
        "linear_stacked(x, v)",
        "linear_stacked_transposed(x, v)",
    ] {
        for size in [&most, &least] {
            let folder = Folder::new();
            let file = folder.write("extra.json", format!(r#"{{"my.A": {{"parameters": ["n = 3"], "weights": {{"w": "[n, n]", "v": "[n, n, n]"}}, "forward": "{flow}"}}}}"#));
            let sizes = ["S", "H", "W", "C"].map(|name| format!("{name}={size}"));
            let args: Vec<&str> = ["db", "eval", "my.A", "B=1", "--module-db", &file]
                .into_iter()
                .chain(sizes.iter().map(String::as_str))
                .collect();
            let ran = run(&args);
            assert!(
                ran.code == Some(0) || ran.code == Some(2) || ran.code == Some(3),
                "{flow} of {size}\n{}",
                ran.err
            );
        }
    }
}

#[test]
fn runs_that_channels_do_not_make_are_refused() {
    for (flow, reason) in [
        ("sum_runs(x, 2)", "7 channels are not 2 equal runs"),
        ("sum_runs(x, 0)", "7 channels are not 0 equal runs"),
        ("linear_stacked(x, w)", "the tensor has no dimension 2"),
        ("repeat(x, 2 ** 60)", "a size does not fit"),
    ] {
        let folder = Folder::new();
        let overlay =
            format!(r#"{{"my.A": {{"weights": {{"w": "[2, 7]"}}, "forward": "{flow}"}}}}"#);
        let file = folder.write("extra.json", overlay);
        let ran = run(&["db", "eval", "my.A", "C=7", "--module-db", &file]);
        let flow = flow.split('(').next().expect("a name");
        refused(&ran, 3, &[reason, flow]);
    }
}

#[test]
fn a_negative_cost_is_refused() {
    refused(
        &eval_with(
            r#"{"my.A": {"parameters": ["n"], "rows": {"work": ["elementwise", "n - 10"]}}}"#,
        ),
        3,
        &["my__A", "rows.work", "-7"],
    );
    refused(
        &eval_with(
            r#"{"my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "n - 10"}}}"#,
        ),
        3,
        &["my__A", "formula_template", "-7"],
    );
    refused(
        &eval_with(
            r#"{"my.A": {"parameters": ["n"], "flop_analysis": {"formula_template": "n / 2"}}}"#,
        ),
        3,
        &["my__A", "formula_template", "3/2"],
    );
    refused(
        &eval_with(
            r#"{"my.A": {"parameters": ["n"], "children": {"a": "{ReLU}(n, calls=0 - 1)"}}}"#,
        ),
        3,
        &["my__A", "calls", "-1"],
    );
}

// ---- the command line -----------------------------------------------------------------------------------------------

#[test]
fn no_tokens_and_no_sequences_are_refused() {
    usage(&["inspect", LLAMA, "-s", "0"], &["--seq-len", "0", "1.."]);
    usage(
        &["inspect", LLAMA, "-b", "0"],
        &["--batch-size", "0", "1.."],
    );
    usage(&["inspect", LLAMA, "-s", "128,0"], &["--seq-len", "0"]);
    usage(&["inspect", LLAMA, "-s=-1"], &["--seq-len", "-1"]);
    usage(&["inspect", LLAMA, "-s", "many"], &["--seq-len", "many"]);
    usage(&["inspect", LLAMA, "-s", "1.5"], &["--seq-len", "1.5"]);
    usage(
        &["inspect", LLAMA, "-s", "99999999999999999999"],
        &["--seq-len"],
    );
}

#[test]
fn a_workload_whose_products_overflow_is_refused_by_its_own_numbers() {
    // 2 ** 40 sequences of 2 ** 40 tokens: 32 heads * 2 ** 40 * 2 ** 80 scores * 128 is 2 ** 132.
    let huge = "1099511627776";
    let ran = run(&["inspect", LLAMA, "-s", huge, "-b", huge]);
    refused(&ran, ran.code.unwrap_or(0), &["128 bits"]);
    assert!(ran.code == Some(2) || ran.code == Some(3), "{}", ran.err);
    // What is absurd are the two lengths, so the message names them.
    assert!(
        ran.err.contains(huge) || ran.err.contains("seq-len"),
        "{}",
        ran.err
    );
}

#[test]
fn a_sweep_whose_last_point_overflows_prints_no_table() {
    let huge = "1099511627776";
    let ran = run(&["inspect", LLAMA, "-s", &format!("1,{huge}"), "-b", huge]);
    refused(&ran, ran.code.unwrap_or(0), &["128 bits"]);
}

#[test]
fn long_but_possible_lengths_are_counted_exactly() {
    // Llama-2-7b at S tokens: MACs = S * (6,476,005,376 + 131,072,000) + 2 * 32 * 32 * 128 * S ** 2, where 6,476,005,376 are
    // the weights of all layers' products (32 * (4 * 4096 ** 2 + 3 * 4096 * 11008)) and 131,072,000 those of the head.
    let s = 1i128 << 40;
    let analysis = parse(&run(&["inspect", LLAMA, "-s", &s.to_string(), "--format", "json"]).out);
    assert_eq!(
        int(&analysis, "totals.macs"),
        s * (6_476_005_376 + 131_072_000) + 2 * 32 * 32 * 128 * s * s
    );
}

#[test]
fn an_unknown_column_is_refused_with_those_that_there_are() {
    usage(
        &["inspect", LLAMA, "--columns", "paramz"],
        &["`paramz`", "did you mean `params`?", "macs"],
    );
    usage(&["inspect", LLAMA, "--columns", "params,"], &["column"]);
    usage(
        &["inspect", LLAMA, "--sort", "flopz"],
        &["`flopz`", "flops"],
    );
}

#[test]
fn a_phase_that_the_model_does_not_have_is_refused() {
    usage(
        &[
            "inspect",
            "google-bert/bert-base-uncased",
            "--phase",
            "decode",
        ],
        &["decode", "forward"],
    );
    usage(
        &["inspect", LLAMA, "--phase", "sleep"],
        &["sleep", "prefill"],
    );
}

#[test]
fn a_past_without_a_cache_is_refused() {
    usage(
        &["inspect", LLAMA, "--phase", "forward", "--past-len", "3"],
        &["--past-len", "decode"],
    );
    usage(
        &["inspect", LLAMA, "--phase", "train", "--past-len", "3"],
        &["--past-len"],
    );
}

#[test]
fn widths_have_bounds() {
    usage(
        &["inspect", LLAMA, "--weight-bits", "0"],
        &["--weight-bits", "1..=64"],
    );
    usage(
        &["inspect", LLAMA, "--kv-bits", "65"],
        &["--kv-bits", "1..=64"],
    );
    usage(&["inspect", LLAMA, "--dtype", "bf61"], &["--dtype", "bf16"]);
}

#[test]
fn a_limit_that_is_no_number_is_refused() {
    for limit in ["many", "-3", "1.0000000001", "", "4XiB", "1e999"] {
        usage(
            &["inspect", LLAMA, &format!("--max-params={limit}")],
            &["--max-params"],
        );
    }
}

#[test]
fn a_module_that_does_not_exist_cannot_be_explained() {
    usage(
        &["inspect", LLAMA, "--explain", "model.layer"],
        &["model.layer", "layers"],
    );
    usage(&["inspect", LLAMA, "--explain", "model.layers.32"], &["32"]);
    usage(&["inspect", LLAMA, "--explain", "model..x"], &[]);
}

#[test]
fn a_report_that_cannot_be_written_is_refused_by_its_name() {
    let folder = Folder::new();
    let file = folder.file("no/such/folder/report.json");
    refused(&run(&["inspect", LLAMA, "-o", &file]), 3, &[&file]);
    let here = folder.path().to_str().unwrap().to_string();
    refused(&run(&["inspect", LLAMA, "-o", &here]), 3, &[&here]);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing half-written is left behind"
    );
}

#[test]
fn a_model_is_needed_and_a_sweep_takes_one() {
    usage(&["inspect"], &["no model", "bitcost catalog"]);
    usage(
        &["inspect", LLAMA, "google/gemma-2b", "-s", "1,2"],
        &["a sweep takes one model"],
    );
}

#[test]
fn arguments_of_db_eval_are_names_and_values() {
    usage(
        &["db", "eval", "torch.nn.Linear", "N"],
        &["`N`", "NAME=VALUE"],
    );
    usage(
        &["db", "eval", "torch.nn.Linear", "N=1", "N=2"],
        &["`N`", "twice"],
    );
    refused(
        &run(&["db", "eval", "torch.nn.Linear", "N=1"]),
        3,
        &["in_features", "out_features"],
    );
    refused(
        &run(&[
            "db",
            "eval",
            "torch.nn.Linear",
            "N=-1",
            "in_features=1",
            "out_features=1",
        ]),
        3,
        &["-1"],
    );
    refused(
        &run(&[
            "db",
            "eval",
            "torch.nn.Linear",
            "N=x",
            "in_features=1",
            "out_features=1",
        ]),
        3,
        &["'x'"],
    );
    refused(
        &run(&[
            "db",
            "eval",
            "torch.nn.Linear",
            "N=1e30",
            "in_features=1e30",
            "out_features=1",
        ]),
        3,
        &["128 bits"],
    );
    refused(
        &run(&["db", "eval", "torch.nn.Liner", "N=1"]),
        3,
        &["Liner", "Linear"],
    );
}

#[test]
fn an_argument_that_nothing_reads_is_not_taken_in_silence() {
    // `bais=False` would give a Linear with a bias, and a wrong number with it.
    let ran = run(&[
        "db",
        "eval",
        "torch.nn.Linear",
        "N=1",
        "in_features=1",
        "out_features=1",
        "bais=False",
    ]);
    assert!(ran.code == Some(2) || ran.code == Some(3), "{}", ran.out);
    assert!(
        ran.err.contains("bais") && ran.err.contains("did you mean `bias`?"),
        "{}",
        ran.err
    );
}

#[test]
fn names_that_nobody_has_are_refused() {
    refused(&run(&["db", "show", "Liner"]), 3, &["Liner", "Linear"]);
    refused(&run(&["db", "deps", "Liner"]), 3, &["Liner"]);
    refused(&run(&["db", "explain", "Liner"]), 3, &["Liner"]);
    refused(&run(&["db", "list", "nobodys"]), 3, &["nobodys"]);
    refused(&run(&["catalog", "nobodys"]), 3, &["nobodys"]);
    usage(
        &["schema", "inspekt"],
        &["inspekt", "did you mean `inspect`?"],
    );
    usage(&["man", "inspekt"], &["inspekt"]);
    usage(&["completions", "tcsh"], &["tcsh", "bash"]);
    usage(&["inspekt"], &["inspekt", "inspect"]);
}

// ---- what is printed of files ---------------------------------------------------------------------------------------

/// Claims that nothing printed can steer a terminal: no control characters but line breaks.
#[track_caller]
fn harmless(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{text:?}");
    }
}

#[test]
fn control_characters_of_a_config_are_escaped() {
    let evil = r#"\u001b[31mred\u0007\r\u009b"#;
    for (key, value) in [
        ("architectures", format!("[\"{evil}\"]")),
        ("hidden_size", format!("\"{evil}\"")),
        ("hidden_act", format!("\"{evil}\"")),
        ("model_type", format!("\"{evil}\"")),
        ("torch_dtype", format!("\"{evil}\"")),
        (evil, "1".to_string()),
    ] {
        let folder = Folder::new();
        let file = folder.write("config.json", config(&[(key, &value)]));
        for extra in [
            &[][..],
            &["--format", "markdown"],
            &["--format", "csv"],
            &["-s", "1,2"],
            &["--by", "class"],
            &["--explain", ""],
            &["--strict"],
        ] {
            harmless(&run(&[&["inspect", &file], extra].concat()));
        }
        // JSON has its own escapes.
        let ran = run(&["inspect", &file, "--format", "json"]);
        harmless(&ran);
        if ran.code == Some(0) {
            parse(&ran.out);
        }
    }
}

#[cfg(unix)]
#[test]
fn control_characters_of_a_file_name_are_escaped() {
    let folder = Folder::new();
    let evil = folder.write("\u{1b}[31m\u{7}.json", config(&[]));
    harmless(&run(&["inspect", &evil]));
    harmless(&run(&["inspect", &evil, LLAMA]));
    harmless(&run(&["inspect", &evil, "--max-params", "1"]));
    harmless(&run(&["inspect", &format!("{evil}.gone.json")]));
    harmless(&run(&["inspect", "\u{1b}[31mnobody"]));
    harmless(&run(&["inspect", LLAMA, "--module-db", &evil]));
    harmless(&run(&["db", "check", &evil]));
    harmless(&run(&[
        "db",
        "list",
        "Llama",
        "--module-db",
        &folder.write("\u{1b}[32m.json", "{\"my.LlamaThing\": {}}"),
    ]));
    harmless(&run(&["inspect", LLAMA, "--explain", "\u{1b}[31m"]));
    harmless(&run(&["inspect", LLAMA, "--columns", "\u{1b}[31m"]));
    harmless(&run(&["db", "eval", "\u{1b}[31m"]));
    harmless(&run(&["db", "eval", "torch.nn.Linear", "\u{1b}[31m=1"]));
    harmless(&run(&["catalog", "\u{1b}[31m"]));
    harmless(&run(&["schema", "\u{1b}[31m"]));
}

#[test]
fn control_characters_of_an_overlay_are_escaped() {
    let evil = r#"\u001b[31m"#;
    for overlay in [
        format!(r#"{{"my.A{evil}": {{}}}}"#),
        format!(r#"{{"my.A": {{"doc": "{evil}", "{evil}": 1}}}}"#),
        format!(r#"{{"my.A": {{"doc": "{evil}"}}}}"#),
        format!(r#"{{"my.A": {{"rows": {{"{evil}": ["{evil}", "1"]}}}}}}"#),
        format!(r#"{{"my.A": {{"rows": {{"{evil}": ["elementwise", "1 + {evil}"]}}}}}}"#),
        format!(
            r#"{{"my.A": {{"rows": {{"{evil}": ["elementwise", "1"]}}, "notes": {{"{evil}": ["True", "{evil}"]}}}}}}"#
        ),
        format!(r#"{{"my.A": {{"children": {{"a{evil}": "{{Nobodys}}()"}}}}}}"#),
        format!(
            r#"{{"my.A": {{"weights": {{"{evil}": "[1]"}}, "rows": {{"a": ["weight_mac", "1", "{evil}"]}}}}}}"#
        ),
        format!(r#"{{"my.A": {{"module_path": "my.{evil}", "thinking_process": "{evil}"}}}}"#),
    ] {
        let folder = Folder::new();
        let file = folder.write("extra.json", &overlay);
        for args in [
            &["db", "check", &file][..],
            &["db", "list", "my", "--module-db", &file],
            &["db", "show", "my.A", "--module-db", &file],
            &["db", "eval", "my.A", "--module-db", &file],
            &["db", "explain", "my.A", "--module-db", &file],
            &["db", "deps", "my.A", "--module-db", &file],
        ] {
            harmless(&run(args));
        }
    }
}

#[test]
fn escaping_leaves_quotes_alone() {
    let ran = run(&["inspect", "\u{1b}[31mnobody"]);
    assert!(ran.err.contains("model's config.json"), "{}", ran.err);
}

#[test]
fn messages_do_not_repeat_a_megabyte_of_a_config() {
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    for key in [
        "hidden_size",
        "hidden_act",
        "num_hidden_layers",
        "max_position_embeddings",
    ] {
        let folder = Folder::new();
        let ran = run(&[
            "inspect",
            &folder.write("config.json", config(&[(key, &long)])),
        ]);
        assert_eq!(ran.code, Some(3), "{key}");
        assert!(
            ran.err.len() < 5_000,
            "{key}: {} bytes of error",
            ran.err.len()
        );
    }
}

#[test]
fn a_table_does_not_repeat_a_megabyte_of_a_class_name() {
    let folder = Folder::new();
    let long = format!("[\"{}\"]", "x".repeat(1 << 20));
    let ran = run(&[
        "inspect",
        &folder.write("config.json", config(&[("architectures", &long)])),
    ]);
    assert!(
        ran.out.len() + ran.err.len() < 20_000,
        "{} bytes",
        ran.out.len() + ran.err.len()
    );
}

// ---- properties -----------------------------------------------------------------------------------------------------

/// JSON values that no key expects.
const NASTY: [&str; 46] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "12",
    "100",
    "1000",
    "99999",
    "100001",
    "4294967296",
    "18446744073709551616",
    "1000000000000000000000000000000",
    "-1000000000000000000000000000000",
    "10000000000000000000000000000000000000000",
    "170141183460469231731687303715884105727",
    "-170141183460469231731687303715884105728",
    "0.5",
    "-0.5",
    "1.5",
    "1e-30",
    "1e400",
    "-1e400",
    "Infinity",
    "-Infinity",
    "NaN",
    "\"\"",
    "\"x\"",
    "\"64\"",
    "\"\\u001b[31m\"",
    "[]",
    "[1]",
    "[0, -1]",
    "[[]]",
    "[null, null]",
    "[\"full_attention\", \"sliding_attention\"]",
    "[[1, 2, 3], [4, 5, 6]]",
    "{}",
    "{\"a\": 1}",
    "{\"hidden_size\": -1}",
    "{\"quant_method\": \"bitnet\"}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
];

/// Keys that the small Llama does not have and a config may.
const MORE_KEYS: [&str; 14] = [
    "head_dim",
    "layer_types",
    "rope_scaling",
    "quantization_config",
    "text_config",
    "vision_config",
    "sliding_window",
    "dtype",
    "use_cache",
    "id2label",
    "num_labels",
    "n_positions",
    "num_local_experts",
    "config",
];

static DB: LazyLock<Db> = LazyLock::new(|| Db::embedded().expect("the embedded database is valid"));
static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::embedded);

/// A workload with anything in it.
fn workloads() -> impl Strategy<Value = Asked> {
    let length = || {
        prop::option::of(prop::sample::select(vec![
            1u64,
            2,
            3,
            16,
            2048,
            131_072,
            1 << 40,
        ]))
    };
    let phase = prop::option::of(prop::sample::select(vec![
        Phase::Prefill,
        Phase::Decode,
        Phase::Forward,
        Phase::Train,
    ]));
    let bits = || prop::option::of(prop::sample::select(vec![1u32, 2, 4, 8, 16, 64]));
    (
        phase,
        length(),
        length(),
        length(),
        length(),
        any::<(bool, bool)>(),
        (bits(), bits()),
    )
        .prop_map(
            |(
                phase,
                batch,
                seq_len,
                past_len,
                dec_seq_len,
                (causal, last_logits),
                (weight_bits, kv_bits),
            )| Asked {
                phase,
                batch,
                seq_len,
                past_len,
                dec_seq_len,
                causal,
                last_logits,
                weight_bits,
                kv_bits,
                ..Asked::default()
            },
        )
}

/// Loads and analyzes; an error is an answer too. Only a panic, a hang or a sum that is none is not.
fn answers(config: &Arc<Object>, class: Option<&str>, asked: &Asked) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let analyzed = Model::load(&DB, config.clone(), class).and_then(|model| {
        let workload = model.workload(asked)?;
        analysis::analyze(&model, None, &workload, Options::default())
    });
    prop_assert!(
        start.elapsed() < Duration::from_secs(30),
        "took {:?}",
        start.elapsed()
    );
    let Ok(analysis) = analyzed else {
        return Ok(());
    };
    let own = |of: fn(&Metrics) -> u128| {
        let rows = analysis
            .rows
            .iter()
            .map(|row| row.count.checked_mul(of(&row.own)));
        rows.into_iter()
            .try_fold(0u128, |sum, row| sum.checked_add(row?))
    };
    let totals = &analysis.totals.all;
    prop_assert_eq!(own(|m| m.macs), Some(totals.macs), "MACs");
    prop_assert_eq!(own(|m| m.flops), Some(totals.flops), "FLOPs");
    prop_assert_eq!(own(|m| m.bops), Some(totals.bops), "BOPs");
    prop_assert_eq!(&analysis.rows[0].all, totals, "the root is the total");
    Ok(())
}

fn changed(config: &Object, changes: &[(String, &str)]) -> Arc<Object> {
    let mut fields = config.0.clone();
    for (key, value) in changes {
        let value = bitcost::json::read(value).expect("the list of nasty values is JSON");
        match fields.iter_mut().find(|(known, _)| **known == **key) {
            Some(field) => field.1 = value,
            None => fields.push((key.as_str().into(), value)),
        }
    }
    Arc::new(Object(fields))
}

fn runs(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(runs(400))]

    #[test]
    fn a_llama_with_nasty_values_gets_an_answer(
        keys in prop::collection::vec((prop::sample::select(CONFIG.map(|(key, _)| key).into_iter().chain(MORE_KEYS).collect::<Vec<_>>()), prop::sample::select(&NASTY[..])), 1..4),
        asked in workloads(),
    ) {
        let Ok(Value::Object(valid)) = bitcost::json::read(&config(&[])) else { unreachable!("the small Llama is an object") };
        let changes: Vec<(String, &str)> = keys.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        answers(&changed(&valid, &changes), None, &asked)?;
    }
}

proptest! {
    #![proptest_config(runs(250))]

    #[test]
    fn any_published_model_with_nasty_values_gets_an_answer(
        id in any::<prop::sample::Index>(),
        keys in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&NASTY[..])), 0..4),
        asked in workloads(),
    ) {
        let ids: Vec<&str> = CATALOG.ids().collect();
        let model = CATALOG.get(ids[id.index(ids.len())]).expect("an id of the catalog is in the catalog");
        let names: Vec<&str> = model.config.0.iter().map(|(key, _)| &**key).collect();
        let changes: Vec<(String, &str)> = if names.is_empty() { Vec::new() } else { keys.iter().map(|(key, value)| (names[key.index(names.len())].to_string(), *value)).collect() };
        answers(&changed(&model.config, &changes), model.root.as_deref(), &asked)?;
    }
}

proptest! {
    #![proptest_config(runs(400))]

    #[test]
    fn any_overlay_of_nasty_fields_gets_an_answer(
        fields in prop::collection::vec((prop::sample::select(bitcost::db::KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>()), prop::sample::select(&NASTY[..])), 1..4),
    ) {
        let mut seen = Vec::new();
        let fields: Vec<String> = fields.into_iter().filter(|(key, _)| { let new = !seen.contains(key); seen.push(*key); new }).map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let mut db = Db::embedded().map_err(|e| TestCaseError::fail(e.to_string()))?;
        if db.overlay("extra.json", &format!("{{\"my.A\": {{{}}}}}", fields.join(", "))).is_ok() {
            let _ = analysis::evaluate(&db, "my.A", &[], &Default::default());
        }
    }
}

/// Formulas and arguments that an entry may hold, sane ones and others.
const PIECES: [&str; 34] = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "n",
    "n * n",
    "n - 3",
    "n // 2",
    "n / 2",
    "2 ** 126",
    "2 ** 126 - 1 + 2 ** 126",
    "-2 ** 126",
    "True",
    "None",
    "'full'",
    "[]",
    "[n]",
    "[n, n]",
    "[n, 2 ** 126]",
    "[[n, n]]",
    "B",
    "S",
    "N",
    "T",
    "H",
    "W",
    "C",
    "past",
    "pairs(S, past)",
    "nobody",
    "config",
    "dtype_bytes",
    "n if n else 0",
];

/// Mostly formulas that have a sane value, now and then any.
fn pieces() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        5 => prop::sample::select(vec!["n", "1", "3", "2 * n", "n * n", "n + 1"]),
        1 => prop::sample::select(&PIECES[..]),
    ]
}

/// A flow through children and primitives: mostly with the arguments that a primitive's own description names, now and
/// then with any.
fn flows() -> impl Strategy<Value = String> {
    let names: Vec<&str> = PRIMITIVES
        .iter()
        .map(|p| p.name)
        .chain(["a", "b", "len", "max"])
        .collect();
    let described: Vec<Vec<&str>> = PRIMITIVES
        .iter()
        .map(|p| description(p.doc))
        .chain([vec!["a", "x"], vec!["b", "x"]])
        .collect();
    let leaf = prop_oneof![6 => Just("x".to_string()), 1 => pieces().prop_map(String::from)];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        let sane = (prop::sample::select(described.clone()), inner.clone(), prop::collection::vec(pieces(), 8));
        let sane = sane.prop_map(|(call, flow, pieces)| {
            let argument = |(name, piece): (&&str, &'static str)| match *name {
                "x" | "a" | "b" | "q" | "k" | "v" => flow.clone(),
                "weight" => "w".to_string(),
                _ => piece.to_string(),
            };
            let arguments: Vec<String> = call[1..].iter().zip(pieces).map(argument).collect();
            format!("{}({})", call[0], arguments.join(", "))
        });
        let wild = (prop::sample::select(names.clone()), prop::collection::vec(inner.clone(), 0..7));
        let wild = wild.prop_map(|(name, args)| format!("{name}({})", args.join(", ")));
        prop_oneof![6 => sane, 1 => wild, 1 => (inner.clone(), inner).prop_map(|(a, b)| format!("{a} + {b}"))]
    })
}

/// `pad2d(x, rows, columns): zero rows ..` taken apart: the name, then the arguments.
fn description(doc: &'static str) -> Vec<&'static str> {
    let call = doc.split(')').next().unwrap_or(doc);
    call.split(['(', ',', '[', ' ', ']'])
        .filter(|word| !word.is_empty() && *word != "...")
        .collect()
}

/// A child: a module of this overlay or of the database, alone, in lists, or repeated.
fn children() -> impl Strategy<Value = String> {
    const CALLS: [&str; 14] = [
        "{my.B}(?)",
        "{my.B}(calls=?)",
        "{Linear}(?, ?, ?)",
        "{Linear}(?, ?, ?, calls=?)",
        "{Conv2d}(C, ?, ?)",
        "{Conv2d}(C, ?, ?, ?, ?)",
        "{Conv2d}(C, ?, ?, calls=?)",
        "{Embedding}(?, ?)",
        "{LayerNorm}(?, ?)",
        "{MaxPool2d}(?)",
        "{ReLU}(?)",
        "{Flatten}()",
        "{Nobodys}(?)",
        "{ACT2FN}(?)",
    ];
    let module = (
        prop::sample::select(&CALLS[..]),
        prop::collection::vec(pieces(), 5),
    );
    let module = module.prop_map(|(call, pieces)| {
        pieces
            .iter()
            .fold(call.to_string(), |call, piece| call.replacen('?', piece, 1))
    });
    (module, 0..5, pieces()).prop_map(|(module, form, piece)| match form {
        0 => format!("[{module} for i in {piece}]"),
        1 => format!("{module} if {piece} else None"),
        2 => format!("{{Sequential}}({module}, [{module}, {module}])"),
        _ => module,
    })
}

/// An overlay of two entries with wild formulas in every field.
fn overlays() -> impl Strategy<Value = String> {
    let row = (
        prop::sample::select(vec![
            "weight_mac",
            "act_mac",
            "elementwise",
            "softmax",
            "mul",
        ]),
        pieces(),
    );
    let formulas = (pieces(), pieces(), pieces(), pieces());
    ((children(), children()), flows(), row, formulas).prop_map(|((a, b), flow, (kind, row), (shape, cache, traffic, own))| {
        let operand = if kind == "weight_mac" { ", \"w\"" } else { "" };
        format!(
            r#"{{"my.A": {{"parameters": ["n = 3"], "children": {{"a": "{a}", "b": "{b}"}}, "weights": {{"w": "[{shape}, n]"}},
                 "cache": {{"k": "{cache}"}}, "traffic": {{"reads": "{traffic}", "kv_writes": "{traffic}"}}, "let": {{"own": "{own}"}},
                 "rows": {{"r": ["{kind}", "{row}"{operand}], "s": ["elementwise", "own"]}}, "forward": "{flow}"}},
               "my.B": {{"parameters": ["k = 1"], "rows": {{"work": ["elementwise", "k"]}}, "forward": "keep(x)"}}}}"#
        )
    })
}

fn with_overlay(overlay: &str) -> Result<Db, TestCaseError> {
    let failed = |e: bitcost::db::DbError| TestCaseError::fail(format!("{e}\n{overlay}"));
    let mut db = Db::embedded().map_err(failed)?;
    db.overlay("extra.json", overlay).map_err(failed)?;
    Ok(db)
}

/// Sizes of which most are usual.
fn sizes() -> impl Strategy<Value = Vec<(Name, Value)>> {
    let name = prop::sample::select(vec!["n", "B", "S", "H", "W", "C", "past"]);
    let size = prop::sample::select(vec![0i128, 1, 2, 7, 224, 1 << 40, i128::MAX, i128::MIN, -1]);
    prop::collection::vec((name, size), 0..3).prop_map(|odd| {
        let mut sizes: Vec<(Name, Value)> = Vec::new();
        for (name, size) in
            odd.into_iter()
                .chain([("B", 2), ("S", 16), ("H", 8), ("W", 8), ("C", 3)])
        {
            if sizes.iter().all(|(known, _)| known.as_str() != name) {
                sizes.push((Name::new(name), Value::Int(size)));
            }
        }
        sizes
    })
}

proptest! {
    #![proptest_config(runs(800))]

    #[test]
    fn any_overlay_of_wild_formulas_gets_an_answer(overlay in overlays(), sizes in sizes()) {
        let db = with_overlay(&overlay)?;
        let start = Instant::now();
        let _ = analysis::evaluate(&db, "my.A", &sizes, &Default::default());
        let _ = bitcost::model::explain_class(&db, "my.A", &sizes, &Default::default());
        prop_assert!(start.elapsed() < Duration::from_secs(30), "took {:?}\n{}", start.elapsed(), overlay);
    }
}

proptest! {
    #![proptest_config(runs(20))]

    #[test]
    fn checking_any_overlay_of_wild_formulas_gets_an_answer(overlay in overlays()) {
        let db = with_overlay(&overlay)?;
        let start = Instant::now();
        let _ = bitcost::check::check(&db);
        prop_assert!(start.elapsed() < Duration::from_secs(30), "took {:?}\n{}", start.elapsed(), overlay);
    }
}
