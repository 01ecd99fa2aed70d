//! Hostile, broken and unusual checkpoints on this machine: each gives an answer or one clear error that names the file and,
//! where there is one, the tensor. Never a panic, a hang, or memory that the file does not have.
//!
//! Most cases go through the real program; on Linux it gets so little address space that a length which is believed before
//! it is checked ends it. What the crate `safetensors` writes is read alike, and what it refuses is refused.

mod common;

use bitcost::checkpoint::{Checkpoint, HeaderError, read_header, read_index};
use bitcost::dtype::STORED_TYPES;
use bitcost::source::{self, Head};
use bitcost::value::Value;
use common::headers::HeaderOnly;
use common::{Folder, Ran, at, int, json, list, parse, refused, run, stdout};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::{Duration, Instant};

/// Address space of a run that must not believe a length, in KiB: the program itself takes some 30 MiB.
const LITTLE_MEMORY_KIB: &str = "262144";

/// Runs the program with little memory, where the system can be told so.
#[track_caller]
fn run_small(args: &[&str]) -> Ran {
    if !cfg!(target_os = "linux") {
        return run(args);
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v \"$0\" && exec \"$@\"", LITTLE_MEMORY_KIB])
        .arg(env!("CARGO_BIN_EXE_bitcost"))
        .args(args)
        .stdin(std::process::Stdio::null());
    common::wait(command, common::TIME_LIMIT)
}

/// Claims that a path is refused in one error of bearable length that mentions all of this, with little memory.
#[track_caller]
fn path_refused(path: &str, mentions: &[&str]) {
    let ran = run_small(&["inspect", path]);
    refused(&ran, 3, mentions);
    assert!(ran.err.len() < 1500, "{} bytes of error", ran.err.len());
}

/// Claims that a file with these bytes is refused by its name, alone and beside a good config.
#[track_caller]
fn bytes_refused(content: impl AsRef<[u8]>, mentions: &[&str]) {
    let folder = Folder::new();
    let file = folder.write("model.safetensors", content);
    path_refused(&file, mentions);
    path_refused(&file, &[&file]);
    folder.write("config.json", LLAMA);
    let folder = folder.file("");
    path_refused(&folder, mentions);
    path_refused(&folder, &["model.safetensors"]);
}

/// Claims that a header over so many bytes of data is refused.
#[track_caller]
fn header_refused(json: impl AsRef<[u8]>, data: usize, mentions: &[&str]) {
    bytes_refused(framed(json, data), mentions);
}

/// Claims that a header over so many bytes of data is read; what the report says of it.
#[track_caller]
fn header_accepted(json: impl AsRef<[u8]>, data: usize) -> Value {
    let folder = Folder::new();
    let file = folder.write("w.safetensors", framed(json, data));
    let ran = run_small(&["inspect", &file, "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    parse(&ran.out)
}

/// A safetensors file: length, header, so many zero bytes.
fn framed(json: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let json = json.as_ref();
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A tensor of a header: name, dtype, shape.
type Line<'l> = (&'l str, &'l str, &'l [u64]);

/// A good file of these tensors, one after the other, all zero.
fn good(tensors: &[Line<'_>]) -> Vec<u8> {
    let lines: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape)| (name.to_string(), dtype.to_string(), shape.to_vec()))
        .collect();
    let Head { json, file_bytes } = HeaderOnly::new(&lines).head().clone();
    let data = file_bytes as usize - 8 - json.len();
    framed(json, data)
}

/// A header with one tensor `a`, F32 of shape [2, 2], whose fields are written otherwise where `changes` says so.
fn one_tensor(changes: &[(&str, &str)]) -> String {
    let mut fields = [
        ("dtype", r#""F32""#),
        ("shape", "[2, 2]"),
        ("data_offsets", "[0, 16]"),
    ];
    for (key, value) in changes {
        let field = fields.iter_mut().find(|(k, _)| k == key);
        field.expect("a field of a tensor").1 = value;
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(k, v)| format!("\"{k}\": {v}"))
        .collect();
    format!("{{\"a\": {{{}}}}}", fields.join(", "))
}

/// An entry of a header.
fn entry(name: &str, dtype: &str, shape: &[u64], begin: u64, end: u64) -> String {
    format!(
        r#""{name}": {{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [{begin}, {end}]}}"#
    )
}

/// A very small Llama.
const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32,
    "max_position_embeddings": 64, "torch_dtype": "float16"}"#;

/// Its tensors.
fn llama() -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_string(), vec![32, 8]),
        ("model.norm.weight".to_string(), vec![8]),
        ("lm_head.weight".to_string(), vec![32, 8]),
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[u64]| {
            tensors.push((
                format!("model.layers.{layer}.{name}.weight"),
                shape.to_vec(),
            ));
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), &[8, 8]);
        }
        add("mlp.gate_proj", &[16, 8]);
        add("mlp.up_proj", &[16, 8]);
        add("mlp.down_proj", &[8, 16]);
        add("input_layernorm", &[8]);
        add("post_attention_layernorm", &[8]);
    }
    tensors
}

/// A file with tensors of the small Llama.
fn llama_file(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let lines: Vec<Line<'_>> = tensors
        .iter()
        .map(|(name, shape)| (name.as_str(), "F16", shape.as_slice()))
        .collect();
    good(&lines)
}

/// A folder with the small Llama's config and, in `model.safetensors`, these tensors.
fn llama_folder(tensors: &[(String, Vec<u64>)]) -> Folder {
    let folder = Folder::new();
    folder.write("config.json", LLAMA);
    folder.write("model.safetensors", llama_file(tensors));
    folder
}

fn note_codes(report: &Value) -> Vec<String> {
    let code = |note: &Value| at(note, "code").as_str().map(String::from);
    list(report, "notes").iter().filter_map(code).collect()
}

// ---- The frame: eight bytes of length and what follows.

#[test]
fn a_header_of_2_to_the_63_bytes_is_refused_before_anything_is_reserved() {
    for length in [1u64 << 63, u64::MAX, 100_000_001] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        bytes_refused(bytes, &[&length.to_string(), "at most 100000000"]);
    }
}

#[test]
fn ninety_nine_megabytes_in_a_tiny_file_are_a_cut_file() {
    let mut bytes = 99_000_000u64.to_le_bytes().to_vec();
    bytes.extend(b"{\"a\": ");
    bytes_refused(bytes, &["99000000 bytes", "ends after 14", "cut short"]);
}

#[test]
fn a_header_that_ends_early_is_a_cut_file() {
    let whole = framed(one_tensor(&[]), 16);
    for keep in [9, 20, 60] {
        bytes_refused(&whole[..keep], &["header should have", "cut short"]);
    }
    bytes_refused(&whole[..5], &["5 bytes are too few"]);
    bytes_refused(b"", &["0 bytes are too few"]);
}

#[test]
fn a_header_of_no_bytes_is_no_header() {
    header_refused("", 0, &["not what a safetensors header looks like"]);
}

#[test]
fn a_file_that_was_cut_names_the_first_tensor_that_is_not_whole() {
    let whole = good(&[
        ("a", "F32", &[2, 2]),
        ("b", "F32", &[4]),
        ("c", "F32", &[4]),
    ]);
    let cut = &whole[..whole.len() - 20];
    bytes_refused(
        cut,
        &["tensor `b`", "ends at byte 32", "after 28", "cut short"],
    );
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    header_refused(one_tensor(&[]), 17, &["16 bytes", "has 17"]);
    header_refused("{}", 1, &["0 bytes", "has 1"]);
}

#[test]
fn a_tensor_longer_than_the_file_is_refused() {
    header_refused(one_tensor(&[]), 15, &["tensor `a`", "byte 16", "after 15"]);
    let huge = one_tensor(&[
        ("shape", "[144115188075855872]"),
        ("data_offsets", "[0, 576460752303423488]"),
    ]);
    header_refused(huge, 16, &["tensor `a`", "576460752303423488", "cut short"]);
}

#[test]
fn other_formats_are_called_by_their_name_whatever_the_file_is_called() {
    let cases: &[(&[u8], &str, &str)] = &[
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "a pickle",
            "convert",
        ),
        (
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94",
            "a pickle",
            "convert",
        ),
        (
            b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0data.pkl",
            "a zip archive",
            "convert",
        ),
        (
            b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0data.pkl",
            "a zip archive",
            "convert",
        ),
        (
            b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0",
            "a GGUF file",
            "not read",
        ),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "an HDF5 file", "convert"),
        (b"\x93NUMPY\x01\0v\0{'descr'", "a NumPy array", "convert"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "a gzip archive", "unpack"),
        (b"<!DOCTYPE html><html>", "an HTML page", "fetch it again"),
        (b"\r\n<!doctype HTML>", "an HTML page", "fetch it again"),
        (b"<html><head>", "an HTML page", "fetch it again"),
        (
            b"<?xml version='1.0'?><Error>",
            "an HTML page",
            "fetch it again",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (
            b"{\"error\":\"Repository not found\"}",
            "text",
            "fetch it again",
        ),
        (b"Entry not found", "text", "fetch it again"),
        // ONNX has no beginning of its own; its first bytes are no length.
        (
            b"\x08\x07\x12\x07pytorch\x1a\x052.0",
            "no safetensors file",
            "fetch it again",
        ),
    ];
    for (bytes, what, advice) in cases {
        bytes_refused(bytes, &[what, advice]);
    }
}

#[test]
fn other_formats_are_refused_by_their_own_names_too() {
    let folder = Folder::new();
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "model.gguf",
            b"GGUF\x03\0\0\0\x01\0\0\0",
            "GGUF is not read",
        ),
        ("cut.gguf", b"", "GGUF is not read"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "ONNX is not read"),
        (
            "pytorch_model.bin",
            b"\x80\x02\x8a\x0al\xfc\x9cF",
            "a pickle",
        ),
        (
            "pytorch_model-2.bin",
            b"PK\x03\x04\0\0\x08\x08",
            "zip archive",
        ),
        ("raw.bin", b"\0\0\0\0\0\0\0\0\0", "torch.save"),
        ("model.pt", b"PK\x03\x04\0\0\x08\x08", "zip archive"),
        ("model.pth", b"\x80\x02\x8a\x0al\xfc\x9cF", "a pickle"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("flax_model.msgpack", b"\x82\xa5model", "Flax"),
    ];
    for (name, bytes, mention) in cases {
        let file = folder.write(name, bytes);
        path_refused(&file, &[&file, mention]);
    }
}

#[test]
fn a_header_whose_length_begins_as_a_pickle_does_is_read() {
    // 640 is 80 02, 1152 is 80 04: writers pad headers to multiples of eight, so such files are common.
    for length in [640, 896, 1152, 1408] {
        let mut json = one_tensor(&[]);
        json.extend(std::iter::repeat_n(' ', length - json.len()));
        let report = header_accepted(json, 16);
        assert_eq!(int(&report, "totals.params"), 4, "{length}");
    }
}

#[test]
fn a_safetensors_file_without_its_ending_is_read() {
    // A blob of the Hub's cache is called by its hash.
    let folder = Folder::new();
    folder.write("model.safetensors", good(&[("other", "F16", &[5])]));
    let file = folder.write("0a1b2c", good(&[("a.weight", "F16", &[3, 4])]));
    let ran = run(&["inspect", &file, "--format", "json"]);
    assert_eq!(int(&parse(&ran.out), "totals.params"), 12);
}

// ---- The header: what its JSON says.

#[test]
fn tensors_that_overlap_or_leave_a_gap_are_refused() {
    let two = |begin: u64, end: u64| {
        let (a, b) = (
            entry("a", "U8", &[8], 0, 8),
            entry("b", "U8", &[8], begin, end),
        );
        format!("{{{a}, {b}}}")
    };
    header_refused(two(4, 12), 12, &["tensor `b`", "byte 4", "8 was expected"]);
    header_refused(two(9, 17), 17, &["tensor `b`", "byte 9", "8 was expected"]);
    header_refused(two(0, 8), 8, &["tensor `b`", "byte 0", "8 was expected"]);
    let late = one_tensor(&[("data_offsets", "[1, 17]")]);
    header_refused(late, 17, &["tensor `a`", "byte 1", "0 was expected"]);
}

#[test]
fn offsets_that_go_backwards_are_refused() {
    let json = one_tensor(&[("data_offsets", "[16, 0]")]);
    header_refused(json, 16, &["tensor `a` ends before it begins"]);
    let json = one_tensor(&[("data_offsets", "[18446744073709551615, 15]")]);
    header_refused(json, 16, &["tensor `a` ends before it begins"]);
}

#[test]
fn shapes_whose_product_overflows_are_refused() {
    for shape in [
        "[4294967296, 4294967296]",
        "[18446744073709551615, 2]",
        // The product fits, its bits do not.
        "[4611686018427387904]",
        "[4294967296, 134217728]",
        // 2^64 / 32 F32 numbers have 2^64 bits, which wraps to the length 0.
        "[576460752303423488]",
        // An order in which a product overflows before the 0 comes.
        "[18446744073709551615, 18446744073709551615, 0]",
    ] {
        let json = one_tensor(&[("shape", shape)]);
        header_refused(json, 16, &["tensor `a`", "does not fit 64 bits"]);
        let json = one_tensor(&[("shape", shape), ("data_offsets", "[0, 0]")]);
        header_refused(json, 0, &["tensor `a`", "does not fit 64 bits"]);
    }
}

#[test]
fn a_length_that_shape_and_dtype_do_not_give_is_refused() {
    let json = one_tensor(&[("shape", "[2, 3]")]);
    header_refused(
        json,
        16,
        &[
            "tensor `a`",
            "24 bytes by shape and dtype",
            "give it 16 bytes",
        ],
    );
    let json = one_tensor(&[("dtype", "\"F64\"")]);
    header_refused(json, 16, &["tensor `a`", "32 bytes"]);
}

#[test]
fn numbers_of_four_and_six_bits_fill_whole_bytes() {
    for (dtype, shape, bits) in [
        ("F4", "[3]", 12),
        ("F6_E2M3", "[3]", 18),
        ("F6_E3M2", "[5]", 30),
    ] {
        let json =
            format!(r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, 2]}}}}"#);
        header_refused(
            json,
            2,
            &["tensor `a`", &format!("{bits} bits, not whole bytes")],
        );
    }
    let json = format!(
        "{{{}, {}}}",
        entry("a", "F4", &[2, 3], 0, 3),
        entry("b", "F6_E2M3", &[4], 3, 6)
    );
    assert_eq!(int(&header_accepted(json, 6), "totals.params"), 10);
}

#[test]
fn an_unknown_dtype_is_refused_by_its_name() {
    for dtype in ["F12", "f32", "", "torch.float32"] {
        let json = one_tensor(&[("dtype", &format!("\"{dtype}\""))]);
        header_refused(
            json,
            16,
            &["tensor `a`", &format!("`{dtype}` is not known")],
        );
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let a = entry("a", "U8", &[8], 0, 8);
    let again = entry("a", "U8", &[8], 8, 16);
    header_refused(format!("{{{a}, {again}}}"), 16, &["`a` stands twice"]);
    // The same name, spelled otherwise; the same entry once more.
    let spelled = entry("\\u0061", "U8", &[8], 8, 16);
    header_refused(format!("{{{a}, {spelled}}}"), 16, &["`a` stands twice"]);
    header_refused(format!("{{{a}, {a}}}"), 8, &["`a` stands twice"]);
    header_refused(
        r#"{"__metadata__": {"k": "1", "k": "2"}}"#,
        0,
        &["__metadata__", "`k` stands twice"],
    );
    header_refused(
        r#"{"__metadata__": {}, "__metadata__": {}}"#,
        0,
        &["`__metadata__` stands twice"],
    );
    let json = r#"{"a": {"dtype": "U8", "dtype": "I8", "shape": [8], "data_offsets": [0, 8]}}"#;
    header_refused(json, 8, &["tensor `a`", "dtype"]);
}

#[test]
fn a_header_that_is_no_utf8_is_refused() {
    let json = one_tensor(&[]).replace('a', "?");
    let mut bytes = json.into_bytes();
    let at = bytes.iter().position(|b| *b == b'?').expect("a name");
    bytes[at] = 0xff;
    header_refused(&bytes, 16, &["not what a safetensors header looks like"]);
    // Half of a surrogate pair is no character either.
    header_refused(
        r#"{"\ud800": {}}"#,
        0,
        &["not what a safetensors header looks like"],
    );
}

#[test]
fn a_byte_order_mark_or_anything_after_the_json_is_refused_and_spaces_are_padding() {
    let json = one_tensor(&[]);
    header_refused(
        format!("\u{feff}{json}"),
        16,
        &["not what a safetensors header"],
    );
    for rest in ["}", "{}", "x", "\0\0\0\0", ","] {
        header_refused(
            format!("{json}{rest}"),
            16,
            &["not what a safetensors header"],
        );
    }
    let padded = format!("{json}       ");
    assert_eq!(int(&header_accepted(padded, 16), "totals.params"), 4);
}

#[test]
fn a_header_nested_a_hundred_thousand_deep_is_refused_or_skipped() {
    let (open, shut) = ("[".repeat(100_000), "]".repeat(100_000));
    let objects = r#"{"a":"#.repeat(100_000);
    header_refused(&open, 0, &["not what a safetensors header"]);
    header_refused(&objects, 0, &["not what a safetensors header"]);
    header_refused(format!("{{\"a\": {open}{shut}}}"), 0, &["tensor `a`"]);
    header_refused(
        format!("{{\"__metadata__\": {{\"k\": {open}{shut}}}}}"),
        0,
        &["__metadata__"],
    );
    header_refused(
        one_tensor(&[("shape", &format!("{open}{shut}"))]),
        16,
        &["tensor `a`"],
    );
    // A field of an entry that nobody knows is nobody's business.
    let json = one_tensor(&[("dtype", &format!("\"F32\", \"more\": {open}{shut}"))]);
    assert_eq!(int(&header_accepted(json, 16), "totals.params"), 4);
}

#[test]
fn metadata_are_strings_under_strings() {
    for metadata in [
        r#"{"format": 1}"#,
        r#"{"k": {"a": "b"}}"#,
        "[]",
        "null",
        "\"pt\"",
        r#"{"k": null}"#,
    ] {
        let json = format!("{{\"__metadata__\": {metadata}}}");
        header_refused(json, 0, &["__metadata__"]);
    }
}

#[test]
fn sizes_and_offsets_are_natural_numbers() {
    for number in [
        "NaN",
        "Infinity",
        "1e99",
        "-1",
        "1.5",
        "2.0",
        "1e1",
        "\"2\"",
        "null",
        "true",
        "[2]",
        "18446744073709551616",
    ] {
        let json = one_tensor(&[("shape", &format!("[2, {number}]"))]);
        header_refused(json, 16, &["tensor `a`"]);
        let json = one_tensor(&[("data_offsets", &format!("[0, {number}]"))]);
        header_refused(json, 16, &["tensor `a`"]);
    }
    for offsets in ["[]", "[0]", "[0, 16, 16]", "16", "{}"] {
        header_refused(
            one_tensor(&[("data_offsets", offsets)]),
            16,
            &["tensor `a`"],
        );
    }
}

#[test]
fn entries_that_are_no_tensors_are_refused() {
    for value in [
        "1",
        "null",
        "{}",
        "\"F32\"",
        r#"{"dtype": "F32"}"#,
        r#"{"shape": [], "data_offsets": [0, 4]}"#,
    ] {
        header_refused(format!("{{\"a\": {value}}}"), 0, &["tensor `a`"]);
    }
    for json in ["[]", "1", "null", "\"\"", "{", "{\"a\"", "{\"a\": }"] {
        header_refused(json, 0, &["not what a safetensors header"]);
    }
}

#[test]
fn thirty_two_dimensions_are_read_and_thirty_three_are_not() {
    let shape = |n: usize| format!("{:?}", vec![1; n]);
    let json = |n| one_tensor(&[("shape", &shape(n)), ("data_offsets", "[0, 4]")]);
    assert_eq!(int(&header_accepted(json(32), 4), "totals.params"), 1);
    header_refused(json(33), 4, &["tensor `a`", "more than 32 dimensions"]);
    let json = one_tensor(&[("shape", &shape(1_000_000)), ("data_offsets", "[0, 4]")]);
    header_refused(json, 4, &["tensor `a`", "more than 32 dimensions"]);
}

#[test]
fn empty_tensors_and_single_numbers_are_legal() {
    let json = format!(
        "{{{}, {}, {}, {}, {}}}",
        entry("scalar", "F32", &[], 0, 4),
        entry("empty", "F32", &[0], 4, 4),
        entry("matrix", "F16", &[0, 1 << 40], 4, 4),
        // Wide and empty: no product of its other sides may be taken unchecked.
        entry("wide", "F16", &[0, 1 << 62, 1 << 62], 4, 4),
        entry("last", "F16", &[3, 2], 4, 16),
    );
    let report = header_accepted(json, 12 + 4);
    assert_eq!(int(&report, "totals.params"), 7);
    assert_eq!(int(&report, "checkpoint.tensors"), 5);
    assert_eq!(int(&report, "checkpoint.bytes"), 16);
}

#[test]
fn the_order_of_entries_means_nothing() {
    let json = format!(
        "{{{}, {}}}",
        entry("z", "U8", &[8], 8, 16),
        entry("a", "U8", &[8], 0, 8)
    );
    assert_eq!(int(&header_accepted(json, 16), "checkpoint.bytes"), 16);
}

#[test]
fn a_file_without_tensors_is_told_from_one_without_a_file() {
    for json in ["{}", r#"{"__metadata__": {"format": "pt"}}"#, "{}      "] {
        let report = header_accepted(json, 0);
        assert_eq!(int(&report, "checkpoint.tensors"), 0);
        assert_eq!(note_codes(&report), ["unresolved"]);
    }
}

#[test]
fn names_are_shown_on_one_line_and_shortened() {
    let long = "x".repeat(1_000_000);
    let json = one_tensor(&[("dtype", "\"F12\"")]);
    for name in [long.as_str(), "a\\nerror: b", "a\\u001b[31m", "\\u202e"] {
        let json = json.replacen("\"a\"", &format!("\"{name}\""), 1);
        header_refused(json, 16, &["is not known"]);
    }
    // The same in every other place that quotes a file.
    header_refused(
        one_tensor(&[("dtype", &format!("\"{long}\""))]),
        16,
        &["tensor `a`", "xxx..."],
    );
    header_refused(
        one_tensor(&[("shape", &format!("\"{long}\""))]),
        16,
        &["tensor `a`", "xxx"],
    );
    header_refused(
        format!("{{\"{long}\": 1}}"),
        0,
        &["xxx...", "expected struct"],
    );
    header_refused(
        format!("{{\"__metadata__\": {{\"{long}\": \"\", \"{long}\": \"\"}}}}"),
        0,
        &["xxx...", "stands twice"],
    );
    header_refused(
        format!("{{{}}}", entry(&long, "U8", &[1], 1, 2)),
        2,
        &["xxx...", "byte 1"],
    );
}

#[test]
fn long_and_strange_names_do_not_break_the_report() {
    let folder = Folder::new();
    folder.write("config.json", LLAMA);
    let long = "y".repeat(1_000_000);
    let mut tensors = llama();
    tensors.push((long, vec![2, 2]));
    tensors.push(("n\n\u{1b}[31merror: z.weight".into(), vec![2, 2]));
    tensors.push((String::new(), vec![2]));
    tensors.push(("..".into(), vec![2]));
    let file = folder.write("model.safetensors", llama_file(&tensors));
    for args in [
        vec!["inspect", &file],
        vec!["inspect", &file, "--format", "csv"],
        vec!["inspect", &file, "--strict"],
    ] {
        let ran = run_small(&args);
        assert!(
            ran.out.len() + ran.err.len() < 20_000,
            "{} bytes",
            ran.out.len()
        );
        assert!(
            !ran.out.contains("\nerror: z") && !ran.out.contains('\u{1b}'),
            "{}",
            ran.out
        );
        assert!(
            !ran.err.contains("\nerror: z") && !ran.err.contains('\u{1b}'),
            "{}",
            ran.err
        );
    }
    // A note is about the first of its tensors; here that is the long one.
    tensors.truncate(tensors.len() - 3);
    let folder = llama_folder(&tensors);
    let ran = run_small(&["inspect", &folder.file("")]);
    assert!(ran.out.contains("not_in_model"), "{}", ran.out);
    assert!(ran.out.len() < 20_000, "{} bytes", ran.out.len());
    let bare = Folder::new();
    let file = bare.write("w.safetensors", llama_file(&tensors));
    let ran = run_small(&["inspect", &file]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.len() < 20_000 && !ran.out.contains('\u{1b}'),
        "{} bytes",
        ran.out.len()
    );
}

#[test]
fn names_of_a_hundred_thousand_parts_are_a_tree_of_bounded_depth() {
    let deep = vec!["a"; 100_000].join(".");
    let name = |end: &str| (format!("{deep}.{end}"), vec![2u64, 2]);
    let file = llama_file(&[name("b"), name("c"), ("...".into(), vec![2, 2])]);
    let folder = Folder::new();
    let path = folder.write("w.safetensors", file);
    let ran = run_small(&["inspect", &path]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = run_small(&["inspect", &path, "--depth", "3", "--format", "json"]);
    assert_eq!(int(&parse(&ran.out), "totals.params"), 12);
}

// ---- The index and its files.

/// A folder with the small Llama in two shards, and an index.
fn sharded() -> Folder {
    let folder = Folder::new();
    folder.write("config.json", LLAMA);
    let tensors = llama();
    let (first, second) = tensors.split_at(8);
    let mut pairs = Vec::new();
    for (name, tensors) in [(FIRST, first), (SECOND, second)] {
        folder.write(name, llama_file(tensors));
        pairs.extend(tensors.iter().map(|(tensor, _)| (tensor.as_str(), name)));
    }
    folder.write(INDEX, index(&pairs));
    folder
}

const INDEX: &str = "model.safetensors.index.json";
const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

fn index(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(tensor, file)| format!("{}: {}", serde_json::json!(tensor), serde_json::json!(file)))
        .collect();
    format!(
        "{{\"metadata\": {{\"total_size\": 1}}, \"weight_map\": {{{}}}}}",
        pairs.join(", ")
    )
}

/// Claims that a folder whose index is this is refused by the index's name.
#[track_caller]
fn index_refused(content: impl AsRef<[u8]>, mentions: &[&str]) {
    let folder = sharded();
    folder.write(INDEX, content);
    path_refused(&folder.file(""), mentions);
    path_refused(&folder.file(""), &[INDEX]);
    path_refused(&folder.file(INDEX), mentions);
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = sharded();
    let whole = llama_folder(&llama());
    let (a, b) = (folder.file(""), whole.file(""));
    let totals = |path: &str| {
        at(
            &json(&["inspect", path, "--format", "json", "--strict"]),
            "totals",
        )
    };
    assert_eq!(totals(&a), totals(&b));
    // Without an index the shards number themselves.
    std::fs::remove_file(folder.file(INDEX)).expect("removed");
    assert_eq!(totals(&a), totals(&b));
}

#[test]
fn an_index_leads_nowhere_else() {
    for file in [
        "../../etc/passwd",
        "../x.safetensors",
        "sub/../../x.safetensors",
        "/etc/passwd",
        "/x.safetensors",
        "//host/x.safetensors",
        "C:\\x.safetensors",
        "c:x.safetensors",
        "sub\\x.safetensors",
        "x\0.safetensors",
        "x.safetensors\0",
        "x\n.safetensors",
        "",
        ".",
        "..",
        "pytorch_model.bin",
        "config.json",
        "x.safetensors.bin",
    ] {
        index_refused(
            index(&[("a\nb", file)]),
            &["the index puts `a\\u{a}b` in `", "own folder"],
        );
    }
    let long = format!("{}.safetensors/../x", "z".repeat(1_000_000));
    index_refused(index(&[("a", &long)]), &["the index puts `a`", "zzz..."]);
}

#[test]
fn an_index_of_ten_thousand_and_one_files_is_refused() {
    let files: Vec<String> = (0..10_001).map(|i| format!("{i}.safetensors")).collect();
    let pairs: Vec<(&str, &str)> = files.iter().map(|f| (f.as_str(), f.as_str())).collect();
    index_refused(index(&pairs), &["names 10001 files", "at most 10000"]);
    let start = Instant::now();
    assert!(read_index(index(&pairs[1..]).as_bytes()).is_ok());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_index_that_is_none_is_refused() {
    for content in [
        "",
        "[]",
        "{}",
        "null",
        "<!DOCTYPE html><html>",
        "{\"weight_map\": []}",
        "{\"weight_map\": {\"a\": 1}}",
        "{\"weight_map\": null}",
    ] {
        index_refused(content, &["not an index"]);
    }
    index_refused("{\"weight_map\": {}}", &["names no tensor"]);
    index_refused(b"\xff\xfe{}", &["not an index"]);
    index_refused("[".repeat(100_000), &["not an index"]);
    index_refused(
        format!("{{\"metadata\": {}", "[".repeat(100_000)),
        &["not an index"],
    );
    index_refused(
        r#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#,
        &["`a` stands twice"],
    );
    index_refused(
        r#"{"weight_map": {"a": "x.safetensors"}, "weight_map": {"a": "x.safetensors"}}"#,
        &["`weight_map` stands twice"],
    );
}

#[test]
fn an_index_larger_than_any_is_refused() {
    let folder = sharded();
    let file = std::fs::File::create(folder.file(INDEX)).expect("a file");
    file.set_len(1 << 40).expect("holes cost nothing");
    path_refused(&folder.file(""), &[INDEX, "at most"]);
}

#[test]
fn a_tensor_that_its_shard_does_not_hold_is_named() {
    let folder = sharded();
    let mut pairs: Vec<(String, &str)> =
        llama().into_iter().map(|(name, _)| (name, FIRST)).collect();
    for pair in &mut pairs[8..] {
        pair.1 = SECOND;
    }
    let written = |pairs: &[(String, &str)]| {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), *b)).collect();
        index(&pairs)
    };
    // In the other shard.
    let mut other = pairs.clone();
    other[0].1 = SECOND;
    folder.write(INDEX, written(&other));
    let name = "model.embed_tokens.weight";
    path_refused(&folder.file(""), &[INDEX, name, SECOND, "does not hold it"]);
    // In none.
    let mut more = pairs.clone();
    more.push(("model.more".into(), FIRST));
    folder.write(INDEX, written(&more));
    path_refused(&folder.file(""), &[INDEX, "`model.more`", FIRST]);
    // A tensor that the index does not know is no reason not to answer.
    folder.write(INDEX, written(&pairs[1..]));
    let report = json(&["inspect", &folder.file(""), "--format", "json"]);
    let notes = format!("{}", at(&report, "notes"));
    assert!(notes.contains("does not list 1 of the tensors"), "{notes}");
}

#[test]
fn a_tensor_in_two_shards_is_refused_with_both() {
    let folder = sharded();
    let tensors = llama();
    folder.write(SECOND, llama_file(&tensors[7..]));
    path_refused(&folder.file(""), &[&tensors[7].0, FIRST, SECOND]);
    std::fs::remove_file(folder.file(INDEX)).expect("removed");
    path_refused(&folder.file(""), &[&tensors[7].0, FIRST, SECOND]);
}

#[test]
fn a_missing_shard_is_named_with_what_to_do() {
    let folder = sharded();
    std::fs::remove_file(folder.file(SECOND)).expect("removed");
    path_refused(&folder.file(""), &[SECOND, "missing", "bitcost fetch"]);
}

#[test]
fn a_broken_shard_is_named() {
    let folder = sharded();
    folder.write(SECOND, "version https://git-lfs.github.com/spec/v1\n");
    path_refused(&folder.file(""), &[SECOND, "Git LFS pointer"]);
}

#[test]
fn a_shard_that_is_a_folder_is_refused() {
    let folder = sharded();
    std::fs::remove_file(folder.file(SECOND)).expect("removed");
    std::fs::create_dir(folder.file(SECOND)).expect("a folder");
    path_refused(&folder.file(""), &[SECOND, "not a regular file"]);
    path_refused(&folder.file(INDEX), &[SECOND, "not a regular file"]);
}

#[test]
fn headers_that_are_too_much_together_are_refused() {
    // Five files of holes, each with the longest header there may be; reading them all would take 500 MB.
    let folder = Folder::new();
    let names: Vec<String> = (0..5).map(|i| format!("{i}.safetensors")).collect();
    for name in &names {
        let path = folder.write(name, 100_000_000u64.to_le_bytes());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("a file");
        file.set_len(200_000_000).expect("holes cost nothing");
    }
    let ran = run(&["inspect", &folder.file("")]);
    refused(&ran, 3, &["4.safetensors", "400000000 bytes"]);
}

// ---- Links, pipes, permissions.

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_pipe_in_a_folder_is_not_waited_for() {
        for name in ["model.safetensors", SECOND, INDEX, "config.json"] {
            let folder = sharded();
            if name == "model.safetensors" {
                std::fs::remove_file(folder.file(INDEX)).expect("removed");
            }
            let _ = std::fs::remove_file(folder.file(name));
            let made = Command::new("mkfifo").arg(folder.file(name)).status();
            if !made.is_ok_and(|status| status.success()) {
                common::skipped("mkfifo does not work here");
                return;
            }
            path_refused(&folder.file(""), &[name, "not a regular file"]);
            if name.ends_with(".safetensors") {
                path_refused(&folder.file(name), &[name, "not a regular file"]);
            }
        }
    }

    #[test]
    fn a_link_to_nothing_is_refused() {
        let folder = sharded();
        std::fs::remove_file(folder.file(SECOND)).expect("removed");
        symlink("nowhere", folder.file(SECOND)).expect("a link");
        path_refused(
            &folder.file(""),
            &[SECOND, "a link to a file that is not there"],
        );
        let folder = llama_folder(&llama());
        std::fs::remove_file(folder.file("config.json")).expect("removed");
        symlink("nowhere", folder.file("config.json")).expect("a link");
        path_refused(&folder.file(""), &["config.json"]);
        path_refused(&folder.file("model.safetensors"), &["config.json"]);
    }

    #[test]
    fn a_link_in_a_circle_is_refused() {
        let folder = sharded();
        std::fs::remove_file(folder.file(SECOND)).expect("removed");
        symlink(SECOND, folder.file(SECOND)).expect("a link");
        path_refused(&folder.file(""), &[SECOND]);
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused_where_an_index_or_the_folder_names_it() {
        let elsewhere = Folder::new();
        for name in [SECOND, "model.safetensors"] {
            let folder = sharded();
            let target = elsewhere.write(name, llama_file(&llama()));
            let _ = std::fs::remove_file(folder.file(name));
            symlink(&target, folder.file(name)).expect("a link");
            path_refused(
                &folder.file(""),
                &[name, "leads out of the folder", &target],
            );
        }
        // A folder on the way is a link, too.
        let folder = Folder::new();
        folder.write("config.json", LLAMA);
        symlink(elsewhere.path(), folder.file("sub")).expect("a link");
        folder.write(INDEX, index(&[("lm_head.weight", "sub/model.safetensors")]));
        path_refused(
            &folder.file(""),
            &["sub/model.safetensors", "leads out of the folder"],
        );
    }

    #[test]
    fn a_link_within_the_folder_is_followed() {
        let folder = llama_folder(&llama());
        std::fs::create_dir(folder.file("real")).expect("a folder");
        std::fs::rename(folder.file("model.safetensors"), folder.file("real/w")).expect("moved");
        symlink("real/w", folder.file("model.safetensors")).expect("a link");
        stdout(&["inspect", &folder.file(""), "--strict"]);
    }

    #[test]
    fn a_link_that_the_user_names_may_lead_anywhere() {
        let elsewhere = Folder::new();
        let target = elsewhere.write("blob", llama_file(&llama()));
        let folder = Folder::new();
        folder.write("config.json", LLAMA);
        // What lies beside the link is the folder's own and read as ever.
        folder.write("quantize_config.json", r#"{"bits": 4, "group_size": 128}"#);
        let link = folder.file("model.safetensors");
        symlink(&target, &link).expect("a link");
        stdout(&["inspect", &link, "--strict"]);
        path_refused(
            &folder.file(""),
            &["leads out of the folder", "name it itself"],
        );
        // A folder that the user names may be a link as well.
        let whole = llama_folder(&llama());
        let alias = folder.file("alias");
        symlink(whole.path(), &alias).expect("a link");
        stdout(&["inspect", &alias, "--strict"]);
    }

    #[test]
    fn links_of_a_snapshot_lead_to_the_blobs_of_its_repository_and_no_further() {
        let cache = Folder::new();
        let repository = cache.path().join("models--org--name");
        let snapshot = repository.join("snapshots/0123abcd");
        let blobs = repository.join("blobs");
        std::fs::create_dir_all(&snapshot).expect("folders");
        std::fs::create_dir_all(&blobs).expect("folders");
        let link = |name: &str, target: &str| symlink(target, snapshot.join(name)).expect("a link");
        std::fs::write(blobs.join("c0"), LLAMA).expect("written");
        std::fs::write(blobs.join("w0"), llama_file(&llama())).expect("written");
        link("config.json", "../../blobs/c0");
        link("model.safetensors", "../../blobs/w0");
        let path = snapshot.to_str().expect("a path").to_string();
        stdout(&["inspect", &path, "--strict"]);
        stdout(&["inspect", &format!("{path}/model.safetensors"), "--strict"]);
        // The blob itself, called by its hash.
        let blob = blobs.join("w0").to_str().expect("a path").to_string();
        assert_eq!(run(&["inspect", &blob]).code, Some(0));
        // Another repository of the same cache is not this one's.
        std::fs::create_dir_all(cache.path().join("models--org--other/blobs")).expect("folders");
        cache.write("models--org--other/blobs/w1", llama_file(&llama()));
        std::fs::remove_file(snapshot.join("model.safetensors")).expect("removed");
        link("model.safetensors", "../../../models--org--other/blobs/w1");
        path_refused(&path, &["model.safetensors", "leads out of the folder"]);
    }

    #[test]
    fn files_that_may_not_be_read_are_named() {
        let folder = sharded();
        let forbid = |name: &str| {
            let none = std::fs::Permissions::from_mode(0o000);
            std::fs::set_permissions(folder.file(name), none).expect("permissions");
        };
        forbid(SECOND);
        if std::fs::read(folder.file(SECOND)).is_ok() {
            common::skipped("this user may read every file (root?)");
            return;
        }
        path_refused(&folder.file(""), &[SECOND, "ermission denied"]);
        forbid(INDEX);
        path_refused(&folder.file(""), &[INDEX, "ermission denied"]);
        forbid("config.json");
        path_refused(&folder.file(""), &["config.json", "ermission denied"]);
    }

    #[test]
    fn names_of_files_with_line_breaks_do_not_break_messages() {
        let folder = Folder::new();
        let name = "a\nerror: b.safetensors";
        folder.write(name, good(&[("a", "F16", &[2])]));
        path_refused(
            &folder.file(""),
            &["\\u{a}error: b.safetensors", "control characters"],
        );
    }
}

// ---- Which files are weights.

#[test]
fn weights_of_other_formats_alone_are_a_note_beside_a_config_and_an_error_without() {
    for name in [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "model.gguf",
        "model.onnx",
        "tf_model.h5",
        "flax_model.msgpack",
    ] {
        let folder = Folder::new();
        folder.write(name, b"\x80\x02");
        path_refused(
            &folder.file(""),
            &[name, "bitcost reads safetensors", "convert"],
        );
        folder.write("config.json", LLAMA);
        let report = json(&["inspect", &folder.file(""), "--format", "json"]);
        // Two layers of 4 * 64 + 3 * 128 + 16, two tables of 256, a norm of 8.
        assert_eq!(int(&report, "totals.params"), 2 * 656 + 512 + 8);
        let notes = at(&report, "notes").to_string();
        assert!(
            notes.contains(name) && notes.contains("the config alone was read"),
            "{notes}"
        );
    }
    let folder = Folder::new();
    folder.write("training_args.bin", "");
    path_refused(
        &folder.file(""),
        &["no config.json and no safetensors file"],
    );
}

#[test]
fn a_folder_of_nothing_is_refused() {
    let folder = Folder::new();
    path_refused(
        &folder.file(""),
        &["no config.json and no safetensors file"],
    );
    path_refused(
        &folder.file("nothing.safetensors"),
        &["nothing.safetensors"],
    );
    path_refused(&folder.file("nothing.gguf"), &["nothing.gguf"]);
}

#[test]
fn only_the_file_that_was_named_counts() {
    let folder = llama_folder(&llama());
    folder.write(INDEX, "broken");
    folder.write("other.safetensors", "broken");
    stdout(&["inspect", &folder.file("model.safetensors"), "--strict"]);
    path_refused(&folder.file("other.safetensors"), &["other.safetensors"]);
}

#[test]
fn config_only_looks_at_no_checkpoint() {
    for content in ["broken", "", "GGUF"] {
        let folder = Folder::new();
        folder.write("config.json", LLAMA);
        folder.write("model.safetensors", content);
        path_refused(&folder.file(""), &["model.safetensors"]);
        let report = json(&[
            "inspect",
            &folder.file(""),
            "--config-only",
            "--format",
            "json",
        ]);
        assert_eq!(int(&report, "totals.params"), 2 * 656 + 512 + 8);
        stdout(&[
            "inspect",
            &folder.file("model.safetensors"),
            "--config-only",
            "--strict",
        ]);
    }
}

// ---- Between the header and the data.

#[test]
fn a_file_that_changed_after_its_header_was_read_gives_no_data() {
    let folder = Folder::new();
    let tensors: &[Line<'_>] = &[("a", "F16", &[64]), ("b", "F16", &[64])];
    let file = folder.write("model.safetensors", good(tensors));
    let open = || {
        let files = source::Folder::open(folder.path()).expect("a folder");
        Checkpoint::open(&files).expect("headers").expect("weights")
    };
    let data = |checkpoint: &Checkpoint| {
        let tensor = checkpoint.tensor("b").expect("a tensor");
        let data = checkpoint.data(tensor);
        data.map(|data| data.bytes.len()).map_err(|e| e.to_string())
    };
    assert_eq!(data(&open()), Ok(128));
    let checkpoint = open();
    let handle = std::fs::OpenOptions::new()
        .write(true)
        .open(&file)
        .expect("a file");
    let bytes = handle.metadata().expect("a size").len();
    handle.set_len(bytes - 1).expect("cut");
    let error = data(&checkpoint).expect_err("the file was cut");
    for mention in [
        file.as_str(),
        "tensor `b`",
        &format!("{} bytes now", bytes - 1),
        "written to",
    ] {
        assert!(error.contains(mention), "{error}");
    }
    handle.set_len(bytes).expect("whole again");
    let checkpoint = open();
    std::fs::remove_file(&file).expect("removed");
    let error = data(&checkpoint).expect_err("the file is gone");
    assert!(
        error.contains(&file) && error.contains("tensor `b`"),
        "{error}"
    );
}

// ---- Weights without a config, and without an entry.

/// Three layers of an unknown model: [8, 4] and its bias, a convolution, and a table of [10, 4].
fn unknown_model() -> Vec<u8> {
    let mut lines: Vec<(String, Vec<u64>)> = vec![("embed.weight".into(), vec![10, 4])];
    for layer in 0..3 {
        lines.push((format!("layers.{layer}.fc.weight"), vec![8, 4]));
        lines.push((format!("layers.{layer}.fc.bias"), vec![8]));
        lines.push((format!("layers.{layer}.conv.weight"), vec![2, 3, 5]));
    }
    llama_file(&lines)
}

/// MACs of one token: the table as a layer, three layers of 8 x 4.
const MACS_PER_TOKEN: i128 = 10 * 4 + 3 * 8 * 4;

#[test]
fn a_bare_file_is_estimated_from_names_and_shapes() {
    let folder = Folder::new();
    let file = folder.write("w.safetensors", unknown_model());
    let ran = run(&["inspect", &file, "--format", "json", "-b", "2", "-s", "7"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = parse(&ran.out);
    assert_eq!(int(&report, "totals.params"), 10 * 4 + 3 * (8 * 4 + 8 + 30));
    assert_eq!(int(&report, "totals.macs"), 14 * MACS_PER_TOKEN);
    assert_eq!(int(&report, "totals.weight_bytes"), 2 * (40 + 3 * 70));
    let statuses: Vec<Value> = list(&report, "modules")
        .iter()
        .map(|m| at(m, "status"))
        .collect();
    assert!(
        statuses.iter().all(|s| s.as_str() == Some("estimated")),
        "{statuses:?}"
    );
    assert_eq!(note_codes(&report), ["estimated"]);
}

#[test]
fn a_sweep_over_a_bare_file_grows_with_the_tokens_and_says_once_that_it_is_an_estimate() {
    let folder = Folder::new();
    let file = folder.write("w.safetensors", unknown_model());
    let ran = run(&["inspect", &file, "-s", "1,2,3", "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = parse(&ran.out);
    let points = list(&report, "points");
    let macs: Vec<i128> = points.iter().map(|p| int(p, "totals.macs")).collect();
    assert_eq!(
        macs,
        [MACS_PER_TOKEN, 2 * MACS_PER_TOKEN, 3 * MACS_PER_TOKEN]
    );
    assert_eq!(note_codes(&report), ["estimated"]);
    assert_eq!(
        run(&["inspect", &file, "-s", "1,2,3", "--strict"]).code,
        Some(4)
    );
}

#[test]
fn what_an_estimate_cannot_tell_is_said() {
    let folder = Folder::new();
    let file = folder.write("w.safetensors", unknown_model());
    // A forward pass over one token is what decoding would be; nobody knows of a cache.
    refused(
        &run(&["inspect", &file, "--phase", "decode"]),
        2,
        &["no decode phase", "--phase forward"],
    );
    refused(
        &run(&["inspect", &file, "--explain", "layers.0.fc"]),
        3,
        &[&file, "nothing to explain"],
    );
    assert_eq!(run(&["inspect", &file, "--strict"]).code, Some(4));
    assert_eq!(run(&["inspect", &file]).code, Some(0));
    // A gate over an estimate is held against it all the same.
    assert_eq!(run(&["inspect", &file, "--max-params", "1"]).code, Some(1));
}

#[test]
fn a_config_beside_a_named_file_is_used() {
    let folder = llama_folder(&llama());
    let report = json(&[
        "inspect",
        &folder.file("model.safetensors"),
        "--format",
        "json",
        "--strict",
    ]);
    assert_eq!(
        at(&report, "model.architecture").as_str(),
        Some("LlamaForCausalLM")
    );
    assert_eq!(at(&report, "checkpoint.matches"), Value::Bool(true));
}

#[test]
fn a_class_without_an_entry_is_estimated_from_its_weights() {
    let folder = Folder::new();
    folder.write(
        "config.json",
        r#"{"architectures": ["NobodyKnowsThisOne"], "model_type": "nobody"}"#,
    );
    folder.write("model.safetensors", unknown_model());
    let ran = run(&["inspect", &folder.file(""), "--format", "json", "-s", "5"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = parse(&ran.out);
    assert_eq!(int(&report, "totals.macs"), 5 * MACS_PER_TOKEN);
    assert_eq!(at(&report, "modules.0.status").as_str(), Some("estimated"));
    assert!(note_codes(&report).contains(&"estimated".into()));
    assert_eq!(
        run(&["inspect", &folder.file(""), "--strict"]).code,
        Some(4)
    );
    refused(
        &run(&["inspect", &folder.file(""), "--explain", "layers"]),
        3,
        &["NobodyKnowsThisOne"],
    );
}

// ---- Model and file disagree.

/// Claims that the small Llama with these tensors gives a note of this code that mentions all of this, and fails only
/// under `--strict`.
#[track_caller]
fn disagrees(tensors: &[(String, Vec<u64>)], code: &str, mentions: &[&str]) {
    let folder = llama_folder(tensors);
    let path = folder.file("");
    let ran = run(&["inspect", &path, "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = parse(&ran.out);
    assert_eq!(at(&report, "checkpoint.matches"), Value::Bool(false));
    let notes = list(&report, "notes");
    let note = notes.iter().find(|n| at(n, "code").as_str() == Some(code));
    let note = note.unwrap_or_else(|| panic!("no note `{code}`: {:?}", note_codes(&report)));
    let message = at(note, "message").to_string();
    for mention in mentions {
        assert!(message.contains(mention), "{message}");
    }
    for args in [
        vec!["--strict"],
        vec!["--strict", "-s", "1,2"],
        vec!["--strict", "-q"],
    ] {
        let args: Vec<&str> = ["inspect", &path].into_iter().chain(args).collect();
        let ran = run(&args);
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.err);
        assert!(ran.err.contains("strict"), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_parameter_that_the_file_lacks_is_a_finding() {
    let mut tensors = llama();
    tensors.retain(|(name, _)| !name.ends_with("mlp.up_proj.weight"));
    disagrees(
        &tensors,
        "missing_in_file",
        &["2 parameters", "model.layers.*.mlp.up_proj.weight (2)"],
    );
}

#[test]
fn a_tensor_that_the_model_lacks_is_a_finding() {
    let mut tensors = llama();
    tensors.push(("model.layers.2.mlp.up_proj.weight".into(), vec![16, 8]));
    disagrees(
        &tensors,
        "not_in_model",
        &["1 tensor", "model.layers.2.mlp.up_proj.weight"],
    );
}

#[test]
fn another_shape_is_a_finding() {
    let mut tensors = llama();
    for (_, shape) in tensors
        .iter_mut()
        .filter(|(name, _)| name.ends_with("down_proj.weight"))
    {
        *shape = vec![16, 8];
    }
    disagrees(
        &tensors,
        "shape",
        &[
            "2 parameters",
            "down_proj.weight",
            "[8, 16] in the model",
            "[16, 8] in",
        ],
    );
}

#[test]
fn an_empty_checkpoint_lacks_everything() {
    disagrees(&[], "missing_in_file", &["21 parameters"]);
}

#[test]
fn many_findings_are_a_short_note() {
    let mut tensors = llama();
    for i in 0..3000 {
        tensors.push((format!("odd{i}.weight"), vec![1]));
    }
    let folder = llama_folder(&tensors);
    let ran = run(&["inspect", &folder.file("")]);
    assert!(ran.out.len() < 10_000, "{}", ran.out);
    assert!(ran.out.contains("and 2996 more"), "{}", ran.out);
}

// ---- The reference implementation.

const DTYPES: &[(Dtype, &str)] = &[
    (Dtype::BOOL, "BOOL"),
    (Dtype::F4, "F4"),
    (Dtype::F6_E2M3, "F6_E2M3"),
    (Dtype::F6_E3M2, "F6_E3M2"),
    (Dtype::U8, "U8"),
    (Dtype::I8, "I8"),
    (Dtype::F8_E5M2, "F8_E5M2"),
    (Dtype::F8_E4M3, "F8_E4M3"),
    (Dtype::F8_E8M0, "F8_E8M0"),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ"),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ"),
    (Dtype::I16, "I16"),
    (Dtype::U16, "U16"),
    (Dtype::F16, "F16"),
    (Dtype::BF16, "BF16"),
    (Dtype::I32, "I32"),
    (Dtype::U32, "U32"),
    (Dtype::F32, "F32"),
    (Dtype::C64, "C64"),
    (Dtype::F64, "F64"),
    (Dtype::I64, "I64"),
    (Dtype::U64, "U64"),
];

#[test]
fn the_reference_knows_the_same_dtypes_with_the_same_widths() {
    assert_eq!(DTYPES.len(), STORED_TYPES.len());
    for (theirs, name) in DTYPES {
        let ours = STORED_TYPES.iter().find(|t| t.name == *name);
        assert_eq!(
            ours.map(|t| t.bits as usize),
            Some(theirs.bitsize()),
            "{name}"
        );
    }
}

/// A tensor to write: its dtype by number, shape, and seed of its bytes.
fn tensors() -> impl Strategy<Value = Vec<(String, usize, Vec<usize>)>> {
    let name = prop_oneof![
        "[a-z.0-9]{0,12}",
        "\\PC{0,8}",
        any::<String>().prop_map(|s| s.chars().take(6).collect())
    ];
    let shape = prop::collection::vec(0usize..6, 0..5);
    prop::collection::vec((name, 0..DTYPES.len(), shape), 0..8)
}

/// Any number that an entry may be damaged with.
fn odd_number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u64..40).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        Just("-1".to_string()),
        Just("1.0".to_string()),
        Just("18446744073709551616".to_string()),
    ]
}

/// An entry of a header, right or nearly so.
fn odd_entry() -> impl Strategy<Value = String> {
    let dtype = prop_oneof![4 => (0..DTYPES.len()).prop_map(|d| DTYPES[d].1.to_string()), 1 => "[A-Z0-9]{1,3}"];
    (
        "[a-c]",
        dtype,
        prop::collection::vec(0u64..5, 0..4),
        0u64..24,
        prop::option::weighted(0.2, odd_number()),
        prop::option::weighted(0.2, odd_number()),
        any::<bool>(),
    )
        .prop_map(|(name, dtype, shape, begin, side, offset, exact)| {
            let bits = STORED_TYPES.iter().find(|t| t.name == dtype).map_or(8, |t| t.bits);
            let bytes = shape.iter().product::<u64>() * u64::from(bits) / 8;
            let end = if exact { begin + bytes } else { begin + 8 };
            let mut shape: Vec<String> = shape.iter().map(u64::to_string).collect();
            shape.extend(side);
            let begin = offset.unwrap_or_else(|| begin.to_string());
            format!(
                r#""{name}": {{"dtype": "{dtype}", "shape": [{}], "data_offsets": [{begin}, {end}]}}"#,
                shape.join(", ")
            )
        })
}

/// What both say of the same bytes. Ours refuses some files that the reference reads, each on purpose:
///
/// - a name that stands twice: the reference takes the last and says nothing;
/// - more than 32 dimensions;
/// - `"__metadata__": null`, which no writer writes.
///
/// The other way round there is nothing: what the reference refuses is refused.
fn compared(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = SafeTensors::read_metadata(bytes);
    let ours = source::header_bytes(bytes, bytes.len() as u64)
        .map_err(|e| e.to_string())
        .and_then(|header| {
            let (json, data) = bytes[8..].split_at(header as usize);
            read_header(json, data.len() as u64).map_err(|e| match e {
                HeaderError::TooManyDimensions(_) => "on purpose".into(),
                HeaderError::Malformed(text) if text.contains("stands twice") => {
                    "on purpose".into()
                }
                HeaderError::Malformed(text) if text.contains("__metadata__") => {
                    "on purpose".into()
                }
                e => e.to_string(),
            })
        });
    match (theirs, ours) {
        (Err(_), Err(_)) => {}
        (Ok(_), Err(why)) => prop_assert_eq!(why, "on purpose", "the reference reads it"),
        (Err(why), Ok(_)) => prop_assert!(false, "the reference refuses it: {why}"),
        (Ok((_, theirs)), Ok(ours)) => {
            let theirs = theirs.tensors();
            prop_assert_eq!(theirs.len(), ours.tensors.len());
            for tensor in &ours.tensors {
                let info = theirs[&*tensor.name];
                let dtype = DTYPES
                    .iter()
                    .find(|(d, _)| *d == info.dtype)
                    .map(|(_, n)| *n);
                prop_assert_eq!(dtype, Some(tensor.dtype.name));
                let shape: Vec<u64> = info.shape.iter().map(|s| *s as u64).collect();
                prop_assert_eq!(&shape[..], &tensor.shape[..]);
                prop_assert_eq!(
                    info.data_offsets,
                    (tensor.begin as usize, tensor.end as usize)
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_reference_writes_is_read_alike(tensors in tensors(), metadata in prop::option::of(prop::collection::hash_map("\\PC{0,6}", "\\PC{0,6}", 1..3))) {
        let mut written: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for (seed, (name, dtype, mut shape)) in tensors.into_iter().enumerate() {
            let (dtype, _) = DTYPES[dtype];
            let bits = |shape: &[usize]| shape.iter().product::<usize>() * dtype.bitsize();
            if bits(&shape) % 8 != 0 {
                shape.push(8);
            }
            let bytes = (0..bits(&shape) / 8).map(|i| (i * 7 + seed) as u8).collect();
            // The reference cannot read a file that it wrote with this name, nor one with metadata that are none.
            if name != "__metadata__" {
                written.insert(name, (dtype, shape, bytes));
            }
        }
        let views = written.iter().map(|(name, (dtype, shape, bytes))| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
        });
        let file = safetensors::serialize(views.collect::<Vec<_>>(), metadata.clone()).expect("written");
        compared(&file)?;
        let folder = Folder::new();
        folder.write("model.safetensors", &file);
        let files = source::Folder::open(folder.path()).expect("a folder");
        let checkpoint = Checkpoint::open(&files).expect("it is read").expect("there are weights");
        prop_assert_eq!(checkpoint.tensors.len(), written.len());
        for (name, (_, _, bytes)) in &written {
            let tensor = checkpoint.tensor(name).expect("it has the name");
            prop_assert_eq!(checkpoint.data(tensor).expect("it is here").bytes, &bytes[..]);
        }
        let ours: HashMap<String, String> = checkpoint.files[0].metadata.iter().cloned().collect();
        prop_assert_eq!(ours, metadata.unwrap_or_default());
    }

    #[test]
    fn whatever_the_reference_refuses_is_refused(entries in prop::collection::vec(odd_entry(), 0..4), data in 0usize..64, pad in "[ \n\t]{0,3}", rest in prop_oneof![8 => Just(""), 1 => Just("}"), 1 => Just("\0")]) {
        compared(&framed(format!("{{{}}}{pad}{rest}", entries.join(", ")), data))?;
    }

    #[test]
    fn a_byte_that_changed_is_judged_alike(tensors in 1usize..4, place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in prop::option::weighted(0.3, any::<prop::sample::Index>())) {
        let names = ["a", "b", "c"];
        let lines: Vec<Line<'_>> = names[..tensors].iter().map(|n| (*n, "F16", &[2u64, 3][..])).collect();
        let mut bytes = good(&lines);
        let at = place.index(bytes.len());
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        compared(&bytes)?;
    }
}

#[test]
fn the_differences_from_the_reference_are_these() {
    let dims = one_tensor(&[
        ("shape", &format!("{:?}", vec![1; 33])),
        ("data_offsets", "[0, 4]"),
    ]);
    let a = entry("a", "U8", &[8], 0, 8);
    let cases = [
        (framed(format!("{{{a}, {a}}}"), 8), "stands twice"),
        (framed(dims, 4), "more than 32 dimensions"),
        (framed(r#"{"__metadata__": null}"#, 0), "__metadata__"),
    ];
    for (bytes, why) in cases {
        assert!(SafeTensors::read_metadata(&bytes).is_ok(), "{why}");
        let header = source::header_bytes(&bytes, bytes.len() as u64).expect("a frame");
        let (json, data) = bytes[8..].split_at(header as usize);
        let error = read_header(json, data.len() as u64)
            .expect_err(why)
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}
