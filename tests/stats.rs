//! `bitcost stats` and `bitcost merge`: parts of a checkpoint give what the whole gives, or an error, and never anything else.

mod common;

use common::weights::floats;
use common::{Folder, fixture, program, refused, run, stdout, wait};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Writes the tensors of a checkpoint into so many shards, each in a folder of its own with the config; `shard` says where
/// a tensor goes. Shards without a tensor are left out.
fn shards(
    folder: &Folder,
    source: &Path,
    shard: impl Fn(usize) -> usize,
    count: usize,
) -> Vec<String> {
    let bytes = std::fs::read(source.join("model.safetensors")).expect("a fixture");
    let tensors = SafeTensors::deserialize(&bytes).expect("a fixture");
    let mut names: Vec<&str> = tensors.names().into_iter().collect();
    names.sort_unstable();
    let mut paths = Vec::new();
    for part in 0..count {
        let mine = names
            .iter()
            .enumerate()
            .filter(|(at, _)| shard(*at) == part);
        let views: Vec<_> = mine
            .map(|(_, name)| (*name, tensors.tensor(name).expect("listed")))
            .collect();
        if views.is_empty() {
            continue;
        }
        let place = folder.path().join(format!("part-{part}"));
        std::fs::create_dir_all(&place).expect("a fresh folder");
        let file = safetensors::serialize(views, None).expect("written");
        std::fs::write(place.join("model.safetensors"), file).expect("written");
        if let Ok(config) = std::fs::read(source.join("config.json")) {
            std::fs::write(place.join("config.json"), config).expect("written");
        }
        let path = place.join("model.safetensors");
        paths.push(path.to_str().expect("readable").to_string());
    }
    paths
}

/// Statistics of a file each, as files.
fn taken(folder: &Folder, paths: &[String]) -> Vec<String> {
    let each = paths.iter().enumerate().map(|(number, path)| {
        let out = folder.file(&format!("part-{number}.json"));
        stdout(&["stats", path, "-o", &out]);
        out
    });
    each.collect()
}

fn merged(parts: &[&str]) -> common::Ran {
    run(&[&["merge"], parts].concat())
}

#[test]
fn parts_in_every_order_give_the_bytes_of_the_whole() {
    let folder = Folder::new();
    let source = fixture("compare/resnet20_dense");
    let whole = stdout(&["stats", &format!("{source}/model.safetensors")]);
    let paths = shards(&folder, Path::new(&source), |tensor| tensor % 3, 3);
    let parts = taken(&folder, &paths);
    let [a, b, c] = [&*parts[0], &*parts[1], &*parts[2]];
    for order in [[a, b, c], [c, b, a], [b, a, c]] {
        assert_eq!(merged(&order).out, whole);
    }
    // Grouped otherwise, and a part twice.
    let ab = folder.write("ab.json", merged(&[a, b]).out);
    let bc = folder.write("bc.json", merged(&[b, c]).out);
    assert_eq!(merged(&[&ab, c]).out, whole);
    assert_eq!(merged(&[a, &bc]).out, whole);
    assert_eq!(merged(&[&ab, &bc, b]).out, whole);
    // One call over all shards is the same as over the one file.
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    assert_eq!(stdout(&[&["stats"], &*paths].concat()), whole);
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let model = fixture("compare/resnet20_dense/model.safetensors");
    let with = |threads: &str| {
        let mut command = program(&["stats", &model]);
        command.env("RAYON_NUM_THREADS", threads);
        wait(command, common::TIME_LIMIT).out
    };
    let one = with("1");
    assert!(one.len() > 10_000);
    assert_eq!(one, with("2"));
    assert_eq!(one, with("7"));
}

/// Packed formats, whose weights are several tensors each.
const PACKED: &[&str] = &[
    "awq_gemm",
    "bnb_nf4",
    "codeq",
    "ct_float_block",
    "ct_int_asym",
    "ct_old_pack_actorder_g_idx",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_packed_weight_across_shards_is_an_error_or_what_the_whole_says(
        format in prop::sample::select(PACKED),
        places in prop::collection::vec(0usize..2, 64),
    ) {
        let folder = Folder::new();
        let source = fixture(&format!("packed/{format}"));
        let paths = shards(&folder, Path::new(&source), |tensor| places[tensor % 64], 2);
        let parts = taken(&folder, &paths);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let ran = merged(&parts);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        match ran.code {
            Some(0) => prop_assert_eq!(ran.out, stdout(&[&["stats"], &*paths].concat())),
            _ => refused(&ran, 3, &["no part has it whole", ".json"]),
        }
    }
}

#[test]
fn codes_without_their_scales_are_never_taken_for_a_weight_of_another_kind() {
    let folder = Folder::new();
    let source = fixture("packed/ct_float_block");
    // Names are sorted: a scale follows its codes.
    let paths = shards(&folder, Path::new(&source), |tensor| tensor % 2, 2);
    let parts = taken(&folder, &paths);
    let ran = merged(&[&parts[0], &parts[1]]);
    refused(
        &ran,
        3,
        &["is made of", "scale", "part-0.json", "part-1.json"],
    );
}

#[test]
fn different_facts_of_one_name_are_an_error() {
    let folder = Folder::new();
    let a = folder.write("a.safetensors", floats(&[("w", &[2, 2], vec![1.0; 4])]));
    let b = folder.write("b.safetensors", floats(&[("w", &[2, 2], vec![2.0; 4])]));
    let parts = taken(&folder, &[a, b]);
    let ran = merged(&[&parts[0], &parts[1]]);
    refused(&ran, 3, &["`w`", "part-0.json", "part-1.json"]);
}

#[test]
fn values_of_vectors_survive_exactly_even_if_they_are_no_numbers() {
    let folder = Folder::new();
    let numbers = vec![
        0.1,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-45,
        f32::MAX,
    ];
    let file = folder.write("a.safetensors", floats(&[("b", &[7], numbers)]));
    let text = stdout(&["stats", &file]);
    let values = r#""values":[0.10000000149011612,-0.0,"nan","inf","-inf",1.401298464324817e-45,3.4028234663852886e+38]"#;
    assert!(text.contains(values), "{text}");
    let part = folder.write("a.json", &text);
    assert_eq!(merged(&[&part, &part]).out, text);
}

#[test]
fn odd_shapes_are_statistics_too() {
    let folder = Folder::new();
    let tensors = [
        ("empty", &[0usize, 3][..], vec![]),
        ("five", &[2, 1, 1, 2, 1], vec![1.0, 0.0, 0.0, 2.0]),
        ("scalar", &[], vec![3.0]),
        ("vector", &[2], vec![0.0, 1.0]),
    ];
    let file = folder.write("a.safetensors", floats(&tensors));
    let text = stdout(&["stats", &file]);
    let part = folder.write("a.json", &text);
    assert_eq!(merged(&[&part]).out, text);
}

/// Runs the program with lines on standard input.
fn piped(args: &[&str], lines: &str) -> common::Ran {
    let folder = Folder::new();
    let path = folder.write("lines", lines);
    let mut command = program(args);
    command.stdin(Stdio::from(
        std::fs::File::open(path).expect("just written"),
    ));
    wait(command, common::TIME_LIMIT)
}

#[test]
fn lines_in_are_lines_out_and_merge_reads_them() {
    let folder = Folder::new();
    let source = fixture("compare/resnet20_dense");
    let paths = shards(&folder, Path::new(&source), |tensor| tensor % 2, 2);
    let ran = piped(&["stats", "--stdin", "--jsonl"], &(paths.join("\n") + "\n"));
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 2));
    for (line, path) in ran.out.lines().zip(&paths) {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["file"], **path);
    }
    let parts = folder.write("parts.jsonl", &ran.out);
    let whole = stdout(&["stats", &format!("{source}/model.safetensors")]);
    assert_eq!(merged(&[&parts]).out, whole);
    let together = piped(&["stats", "--stdin"], &paths.join("\n"));
    assert_eq!(together.out, whole);
}

#[test]
fn a_line_comes_out_before_the_next_goes_in() {
    use std::io::{BufRead, BufReader};
    let model = fixture("compare/toy_linear/model.safetensors");
    let mut command = program(&["stats", "--stdin", "--jsonl"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut stdin = child.stdin.take().expect("piped");
    for _ in 0..2 {
        writeln!(stdin, "{model}").expect("it reads");
        let line = lines.next().expect("a line").expect("text");
        assert!(line.starts_with("{\"file\":"), "{line}");
    }
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_bad_file_is_a_line_and_the_rest_is_done() {
    let good = fixture("compare/toy_linear/model.safetensors");
    let ran = piped(
        &["stats", "--stdin", "--jsonl"],
        &format!("./not-there.safetensors\n\n{good}\n"),
    );
    assert_eq!(ran.code, Some(3));
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["file"], "./not-there.safetensors");
    assert!(
        lines[0]["error"]
            .as_str()
            .expect("a text")
            .contains("not-there")
    );
    assert_eq!(lines[1]["weights"][0]["name"], "fc.weight");
    // A part that failed is not merged away.
    let folder = Folder::new();
    let parts = folder.write("parts.jsonl", &ran.out);
    refused(&merged(&[&parts]), 3, &["not-there.safetensors"]);
}

#[test]
fn what_is_not_statistics_is_refused() {
    let folder = Folder::new();
    for (name, text, why) in [
        ("empty", "", "empty"),
        (
            "other",
            "{\"schema\":\"bitcost.inspect/1\"}",
            "bitcost.inspect/1",
        ),
        ("text", "hello", "not what"),
        ("list", "[[]]", "not what"),
        (
            "cut",
            "{\"schema\":\"bitcost.stats/1\",\"weights\":[",
            "not what",
        ),
    ] {
        let path = folder.write(name, text);
        refused(&merged(&[&path]), 3, &[name, why]);
    }
    let huge = r#"{"schema":"bitcost.stats/1","weights":[],"others":[{"name":"x","dtype":"F32","shape":[18446744073709551615,9,0],"bytes":0}]}"#;
    let path = folder.write("huge", huge);
    refused(&merged(&[&path]), 3, &["`x`"]);
    refused(&merged(&["./not-there.json"]), 3, &["not-there"]);
    refused(&run(&["stats"]), 2, &["--stdin"]);
}

/// The JSON of a comparison, without what only data tells: names of inputs, errors, notes.
fn counts(args: &[&str]) -> serde_json::Value {
    let text = stdout(&[&["compare", "--format", "json"], args].concat());
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for key in ["base", "compressed", "notes"] {
        value[key] = serde_json::Value::Null;
    }
    let layers = value["layers"].as_array_mut().expect("layers");
    for layer in layers {
        layer["error"] = serde_json::Value::Null;
    }
    value
}

#[test]
fn statistics_stand_in_for_a_checkpoint() {
    let folder = Folder::new();
    let model = |case: &str| fixture(&format!("compare/{case}/model.safetensors"));
    let stats = |case: &str| {
        let out = folder.file(&format!("{case}.json"));
        stdout(&["stats", &model(case), "-o", &out]);
        out
    };
    for (base, case, graph) in [
        (
            "resnet20_dense",
            "resnet20_zero_layer2.0.conv2",
            "cifar-resnet",
        ),
        ("small_dense", "small_lambda_padding_null", "auto"),
        ("toy_special_values_f32", "toy_special_values_f32", "none"),
    ] {
        for rule in ["weights", "exact"] {
            let graph = ["--graph", graph, "--input", "3x32x32", "--null-rule", rule];
            let with = |base: &str, other: &str| counts(&[&graph, &[base, other][..]].concat());
            let (a, b) = (model(base), model(case));
            let (a_stats, b_stats) = (stats(base), stats(case));
            let want = with(&a, &b);
            assert_eq!(with(&a_stats, &b_stats), want, "{case} {rule}");
            assert_eq!(with(&a, &b_stats), want, "{case} {rule}");
        }
    }
}

#[test]
fn padded_weights_count_from_statistics_as_from_the_checkpoint() {
    // The second file's config, of a model with an odd side, is ours; the file has layers that it would contradict.
    let narrow = |config: String| config.replace("\"hidden_size\": 126", "\"hidden_size\": 125");
    let same = |config: String| config;
    for (case, edit, stored, meant) in [
        (
            "bitnet_ragged",
            &same as &dyn Fn(String) -> String,
            [32, 128],
            [30, 128],
        ),
        ("gemma_qat", &narrow, [64, 126], [64, 125]),
    ] {
        let folder = Folder::new();
        let of_fixture = |name: &str| std::fs::read(fixture(&format!("packed/{case}/{name}")));
        let config = String::from_utf8(of_fixture("config.json").expect("there")).expect("text");
        folder.write("config.json", edit(config));
        let file = of_fixture("model.safetensors").expect("there");
        let all = safetensors::SafeTensors::deserialize(&file).expect("valid");
        let kept = all.iter().filter(|(name, _)| name.contains("q_proj"));
        let kept = safetensors::serialize(kept, None).expect("written");
        folder.write("model.safetensors", kept);
        let model = folder.path().to_str().expect("text").to_string();
        let stats = folder.file("stats.json");
        stdout(&["stats", &model, "-o", &stats]);
        let text = std::fs::read_to_string(&stats).expect("statistics");
        let held = format!("\"shape\":[{},{}],\"padding\":{{", stored[0], stored[1]);
        assert!(text.contains(&held), "{case}: {text}");
        let want = counts(&[&model, &model]);
        let name = "model.layers.0.self_attn.q_proj";
        let layers = want["layers"].as_array().expect("layers");
        let layer = layers.iter().find(|layer| layer["name"] == name);
        let layer = layer.expect("the layer");
        assert_eq!(layer["shape"], serde_json::json!(meant), "{case}");
        assert!(layer["nnz"].is_u64() && layer["zeros"].is_u64(), "{layer}");
        assert_eq!(counts(&[&stats, &stats]), want, "{case}");
        assert_eq!(counts(&[&model, &stats]), want, "{case}");
        let again = folder.file("again.json");
        stdout(&["merge", &stats, &stats, "-o", &again]);
        let again = std::fs::read_to_string(&again).expect("merged");
        assert_eq!(again, text, "{case}");
    }
}

#[test]
fn what_statistics_do_not_tell_is_said() {
    let folder = Folder::new();
    let model = fixture("compare/toy_two_conv_dense/model.safetensors");
    let stats = folder.file("stats.json");
    stdout(&["stats", &model, "-o", &stats]);
    let text = stdout(&["compare", &model, &stats, "--format", "json"]);
    assert!(text.contains("no_errors"), "{text}");
    refused(
        &run(&["compare", &stats, &stats, "--graph", "sequential"]),
        2,
        &["order"],
    );
}

#[test]
fn statistics_that_contradict_themselves_are_refused() {
    let folder = Folder::new();
    let model = fixture("compare/toy_linear/model.safetensors");
    let good = stdout(&["stats", &model]);
    for (from, to) in [
        ("\"nnz\":32", "\"nnz\":33"),
        ("\"nnz\":32", "\"nnz\":18446744073709551615"),
        ("\"nan\":0", "\"nan\":18446744073709551615"),
        ("\"per_row\":[4", "\"per_row\":[18446744073709551615"),
        (
            "\"shape\":[8,4],\"padding\"",
            "\"shape\":[9999999999999,9999999999],\"padding\"",
        ),
        ("\"scheme\":\"plain\"", "\"scheme\":\"nothing\""),
        (
            "\"bytes\":128,\"code",
            "\"bytes\":18446744073709551615,\"code",
        ),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let bad = folder.write("bad.json", good.replace(from, to));
        refused(&run(&["compare", &model, &bad]), 3, &["`fc.weight`"]);
    }
    // Lists that are too short for the shape are no panic either.
    for (from, to) in [
        ("\"per_row\":[4,4,4,4,4,4,4,4]", "\"per_row\":[32]"),
        ("[[0,1],[1,1],[2,1],[3,1]],", ""),
    ] {
        let odd = folder.write("odd.json", good.replace(from, to));
        let ran = run(&["compare", &model, &odd]);
        assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.err);
    }
}

#[test]
fn a_long_scan_draws_a_bar_on_a_terminal_and_nowhere_else() {
    // Holes are zeros that take no room; the unoptimized program needs seconds for them.
    let (count, numbers) = (16, 1 << 18);
    let folder = Folder::new();
    let entries = (0..count).map(|i| {
        let (begin, end) = (i * numbers * 4, (i + 1) * numbers * 4);
        format!(
            r#""{i}":{{"dtype":"F32","shape":[8,{}],"data_offsets":[{begin},{end}]}}"#,
            numbers / 8
        )
    });
    let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = folder.write("holes.safetensors", &start);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("there");
    file.set_len(start.len() as u64 + count * numbers * 4)
        .expect("holes");
    let out = folder.file("stats.json");
    let begun = Instant::now();
    let elsewhere = run(&["stats", &path, "-o", &out]);
    assert_eq!((elsewhere.code, elsewhere.err.as_str()), (Some(0), ""));
    if begun.elapsed() < Duration::from_millis(800) {
        common::skipped("the scan is too short for a bar");
        return;
    }
    for (args, has_bar) in [
        (&["stats", &path, "-o", &out][..], true),
        (&["stats", &path, "-o", &out, "-q"], false),
    ] {
        let Some(seen) = common::on_a_terminal(&program(args)) else {
            return;
        };
        assert_eq!(seen.contains("scanning"), has_bar, "{seen}");
    }
}
