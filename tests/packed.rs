//! Packed checkpoints as their formats' own libraries write them: `fixtures/packed/` holds tiny ones, each with what the
//! library says about it (`make.py` there wrote them).

mod common;

use bitcost::checkpoint::Checkpoint;
use bitcost::checkpoint::packed::{Padding, Settings, Weight, Weights, weights, zeros};
use bitcost::checkpoint::scan::{Wanted, row_reads, statistics, values, weight_error, zero_kinds};
use bitcost::dtype::StoredType;
use bitcost::json;
use bitcost::source::{Files, Folder, Head, SourceError};
use bitcost::value::{Object, Value};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The files of a model whose data is elsewhere, as on the Hub: headers and small files only.
#[derive(Debug)]
struct Remote<F>(F);

impl<F: Files> Files for Remote<F> {
    fn names(&self) -> Result<Vec<String>, SourceError> {
        self.0.names()
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.0.read(name)
    }
    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        self.0.heads(names)
    }
    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }
    fn label(&self, name: &str) -> String {
        self.0.label(name)
    }
}

/// Name, dtype, width in bits and shape of a tensor.
type Stored = (String, &'static str, u64, Vec<u64>);

/// A header without a file.
#[derive(Debug)]
struct Written {
    header: String,
    data_bytes: u64,
}

impl Written {
    /// Tensors of a name, dtype, width in bits and shape, one after the other.
    fn new(tensors: &[(String, &str, u64, Vec<u64>)]) -> Written {
        let mut begin = 0;
        let entries: Vec<String> = tensors
            .iter()
            .map(|(name, dtype, bits, shape)| {
                let end = begin + shape.iter().product::<u64>() * bits / 8;
                let entry =
                    format!(r#""{name}": {{"dtype": "{dtype}", "shape": {shape:?}, "data_offsets": [{begin}, {end}]}}"#);
                begin = end;
                entry
            })
            .collect();
        Written {
            header: format!("{{{}}}", entries.join(", ")),
            data_bytes: begin,
        }
    }

    fn open(self) -> Checkpoint {
        Checkpoint::open(&self)
            .expect("a header that was written here can be read")
            .expect("it is there")
    }
}

impl Files for Written {
    fn names(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec!["model.safetensors".into()])
    }
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }
    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        let head = Head {
            json: self.header.clone().into_bytes(),
            file_bytes: 8 + self.header.len() as u64 + self.data_bytes,
        };
        Ok(names.iter().map(|_| head.clone()).collect())
    }
    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }
    fn label(&self, name: &str) -> String {
        name.into()
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/packed")
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .filter(|path| path.join("expected.json").is_file())
        .collect();
    folders.sort();
    folders
}

fn object(path: &Path) -> Arc<Object> {
    let text = std::fs::read_to_string(path).expect("a text file");
    match json::read(&text).expect("JSON") {
        Value::Object(object) => object,
        _ => panic!("{} is no object", path.display()),
    }
}

fn list<'o>(object: &'o Object, key: &str) -> &'o [Value] {
    match object.get(key) {
        Some(Value::List(list)) => list,
        _ => &[],
    }
}

fn text<'o>(object: &'o Object, key: &str) -> &'o str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Object, key: &str) -> Option<u64> {
    object.get(key)?.as_int()?.try_into().ok()
}

fn names<'c>(checkpoint: &'c Checkpoint, numbers: &[u32]) -> Vec<&'c str> {
    let mut names: Vec<&str> = numbers
        .iter()
        .map(|n| &*checkpoint.tensors[*n as usize].name)
        .collect();
    names.sort();
    names
}

fn texts<'o>(object: &'o Object, key: &str) -> Vec<&'o str> {
    let mut texts: Vec<&str> = list(object, key).iter().filter_map(Value::as_str).collect();
    texts.sort();
    texts
}

/// Every tensor is in one weight or in none, and the bytes of a weight are those of its tensors.
fn misplaced(checkpoint: &Checkpoint, weights: &Weights) -> Vec<String> {
    let mut seen: HashMap<u32, u32> = HashMap::new();
    for weight in &weights.weights {
        for part in &weight.parts {
            *seen.entry(*part).or_default() += 1;
        }
    }
    for other in &weights.others {
        *seen.entry(*other).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for (tensor, n) in checkpoint.tensors.iter().zip(0u32..) {
        let times = seen.get(&n).copied().unwrap_or(0);
        if times != 1 {
            wrong.push(format!("{} stands in {times} weights", tensor.name));
        }
    }
    let of = |numbers: &[u32]| -> u128 {
        numbers
            .iter()
            .map(|n| u128::from(checkpoint.tensors[*n as usize].bytes))
            .sum()
    };
    let mut sum = of(&weights.others);
    for weight in &weights.weights {
        sum += u128::from(weight.bytes);
        if of(&weight.parts) != u128::from(weight.bytes) {
            wrong.push(format!("{}: bytes", weight.name));
        }
    }
    if sum != checkpoint.data_bytes() {
        wrong.push(format!(
            "{sum} bytes in all, the file has {}",
            checkpoint.data_bytes()
        ));
    }
    if !weights.weights.is_sorted_by(|a, b| a.name < b.name) {
        wrong.push("weights are not sorted, or two have one name".into());
    }
    wrong
}

/// Rows of the table whose layout several libraries write; the fixtures name the library.
const SHARED: &[(&str, &[&str])] = &[
    ("auto-round", &["gptq", "awq-gemm"]),
    ("naive-quantized", &["int-quantized"]),
    ("float-quantized", &["fp8"]),
    ("fbgemm-fp8", &["fp8"]),
    ("modelopt-fp8", &["fp8"]),
    ("modelopt-mxfp8", &["mxfp8"]),
    ("mxfp8-quantized", &["mxfp8"]),
    ("modelopt-w4a16-awq", &["modelopt-int4"]),
    ("gemma", &["int-bytes", "int-quantized"]),
    ("quanto-int2", &["quanto-int"]),
    ("quanto-int4", &["quanto-int"]),
    ("quanto-int8", &["quanto-bytes"]),
    ("quanto-float8", &["quanto-bytes"]),
];

/// Whether the row of the table is the one that the fixture means.
fn is_scheme(found: &str, expected: &str) -> bool {
    let shared = SHARED.iter().find(|(name, _)| *name == expected);
    match shared {
        Some((_, rows)) => rows.contains(&found),
        None => found == expected || (found == "torchao" && expected.starts_with("torchao-")),
    }
}

/// What differs between a weight and what the library says. Of what only data tells, headers may say less.
fn differences(
    checkpoint: &Checkpoint,
    weight: &Weight,
    expected: &Object,
    here: bool,
    sums: Option<&Sums>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, found: String, expected: String| {
        if found != expected {
            wrong.push(format!("{what} {found}, expected {expected}"));
        }
    };
    if !is_scheme(weight.scheme, text(expected, "scheme")) {
        check(
            "scheme",
            weight.scheme.into(),
            text(expected, "scheme").into(),
        );
    }
    let mut shape: Vec<u64> = list(expected, "shape")
        .iter()
        .filter_map(|v| v.as_int()?.try_into().ok())
        .collect();
    // The fixture gives the shape as stored; the model's parameter is the transpose.
    if weight.scheme == "mxfp4" {
        shape.swap(1, 2);
    }
    let elements = number(expected, "elements").unwrap_or_default();
    let exact = match (&weight.shape, weight.padding) {
        // Without its description a 4-bit weight may have half a byte too many.
        (None, _) => {
            check(
                "elements",
                weight.elements.to_string(),
                (elements + elements % 2).to_string(),
            );
            here
        }
        (Some(found), Padding::None) => {
            check("shape", format!("{found:?}"), format!("{shape:?}"));
            true
        }
        (Some(found), Padding::Rows(most)) => {
            check(
                "columns",
                format!("{:?}", &found[1..]),
                format!("{:?}", &shape[1..]),
            );
            check(
                "rows in range",
                (found[0] - most..=found[0]).contains(&shape[0]).to_string(),
                "true".into(),
            );
            false
        }
        (Some(found), Padding::Columns(most)) => {
            let last = found.len() - 1;
            check(
                "rows",
                format!("{:?}", &found[..last]),
                format!("{:?}", &shape[..last]),
            );
            check(
                "columns in range",
                (found[last] - most..=found[last])
                    .contains(&shape[last])
                    .to_string(),
                "true".into(),
            );
            // Of this one not even data tells.
            here && weight.scheme != "int-bytes"
        }
    };
    let per_weight = |bits: Option<f64>| bits.map(|b| format!("{b:.6}")).unwrap_or_default();
    if exact {
        check(
            "elements",
            weight.elements.to_string(),
            elements.to_string(),
        );
        let bits = expected.get("bits_per_weight").and_then(Value::to_f64);
        check(
            "bits per weight",
            per_weight(weight.bits_per_weight()),
            per_weight(bits),
        );
    }
    check(
        "bytes",
        weight.bytes.to_string(),
        number(expected, "bytes").unwrap_or_default().to_string(),
    );
    let parts = names(checkpoint, &weight.parts);
    check(
        "parts",
        format!("{parts:?}"),
        format!("{:?}", texts(expected, "parts")),
    );
    // What a sum of codebook vectors has per number is no width of a code, and a trained width is data.
    let told = weight.scheme != "aqlm" && (here || weight.scheme != "codeq");
    let code_bits = number(expected, "code_bits").filter(|_| told);
    check(
        "code bits",
        format!("{:?}", weight.code_bits.map(u64::from)),
        format!("{code_bits:?}"),
    );
    if here {
        let found = match zeros(checkpoint, weight) {
            Ok(Some(zeros)) => zeros.to_string(),
            Ok(None) => "none".into(),
            Err(error) => error.to_string(),
        };
        let none = expected.get("zeros").is_none_or(|z| *z == Value::None);
        let zeros = number(expected, "zeros").map_or("?".into(), |z| z.to_string());
        check("zeros", found, if none { "none".into() } else { zeros });
        wrong.extend(other_values(checkpoint, weight, expected, &shape, sums));
    }
    wrong
}

/// What a library's numbers add up to, in 64 bits: the sum, that of the magnitudes, one in which number `i` counts
/// `i mod 251 + 1` times, and the first numbers.
#[derive(serde::Deserialize)]
struct Sums {
    sum: f64,
    sum_abs: f64,
    weighted: f64,
    first: Vec<f32>,
}

/// The sums of the weights of a fixture, by name.
fn sums(folder: &Path) -> HashMap<String, Sums> {
    let text = std::fs::read(folder.join("expected.json")).expect("a file");
    let mut all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let weights = all["weights"].as_array_mut().expect("a list");
    let with_values = weights.iter_mut().filter(|w| w.get("values").is_some());
    with_values
        .map(|w| {
            let name = w["name"].as_str().expect("a name").to_string();
            let sums = serde_json::from_value(w["values"].take()).expect("sums");
            (name, sums)
        })
        .collect()
}

/// Formats whose numbers are not read, though their libraries compute them.
const WITHOUT_VALUES: &[&str] = &["marlin-24"];

/// How the numbers differ from the library's: the first must be the same, sums of all agree as far as the order of summing
/// allows, and what is not 0 is what is counted.
fn other_values(
    checkpoint: &Checkpoint,
    weight: &Weight,
    expected: &Object,
    shape: &[u64],
    sums: Option<&Sums>,
) -> Vec<String> {
    let wanted = Wanted {
        shape: Some(shape.into()),
        ..Wanted::default()
    };
    let mut numbers = Vec::new();
    let known = values(checkpoint, weight, &wanted, 0..u64::MAX, &mut numbers).expect("readable");
    let Some(sums) = sums else {
        return Vec::new();
    };
    if WITHOUT_VALUES.contains(&weight.scheme) {
        assert!(weight.without_values(checkpoint).is_some());
        return Vec::new();
    }
    let mut wrong = Vec::new();
    if !known {
        return vec![format!(
            "no values: {:?}",
            weight.without_values(checkpoint)
        )];
    }
    let found: Vec<f32> = numbers.iter().copied().take(8).collect();
    if found != sums.first {
        wrong.push(format!("first values {found:?}, expected {:?}", sums.first));
    }
    let sum = |each: &dyn Fn(usize, f64) -> f64| -> f64 {
        // A quantizer that divides by the scale of a row of zeros leaves what is no number.
        let all = numbers.iter().enumerate().filter(|(_, n)| n.is_finite());
        all.map(|(at, n)| each(at, f64::from(*n))).sum()
    };
    let scale = sums.sum_abs;
    for (key, found, expected, most) in [
        ("sum", sum(&|_, n| n), sums.sum, scale),
        ("sum of magnitudes", sum(&|_, n| n.abs()), scale, scale),
        (
            "weighted sum",
            sum(&|at, n| n * (at % 251 + 1) as f64),
            sums.weighted,
            251.0 * scale,
        ),
    ] {
        if (found - expected).abs() > 1e-9 * most {
            wrong.push(format!("{key} {found}, expected {expected}"));
        }
    }
    let zeros = numbers.iter().filter(|n| **n == 0.0).count() as u64;
    if number(expected, "zeros") != Some(zeros) {
        wrong.push(format!("{zeros} values are 0"));
    }
    let scan = statistics(checkpoint, weight, &wanted)
        .expect("readable")
        .expect("known");
    if scan.elements - scan.nnz != zeros || scan.shape.as_ref() != shape {
        wrong.push(format!(
            "a scan finds {} non-zeros of {:?}",
            scan.nnz, scan.shape
        ));
    }
    wrong
}

/// Reads a fixture and says all that differs.
fn read(folder: &Path, here: bool) -> Vec<String> {
    let files = Folder::open(folder).expect("a folder");
    let remote = Remote(files.clone());
    let files: &dyn Files = if here { &files } else { &remote };
    let checkpoint = Checkpoint::open(files).expect("readable").expect("weights");
    let config = object(&folder.join("config.json"));
    let expected = object(&folder.join("expected.json"));
    let settings = Settings::find(Some(&config), Some(files)).expect("settings");
    let found = weights(&checkpoint, &settings);
    let mut wrong = misplaced(&checkpoint, &found);
    let (mut activations, sums) = (Vec::new(), sums(folder));
    for expected in list(&expected, "weights") {
        let expected = expected.as_object().expect("an object");
        activations.extend(texts(expected, "activation_parts"));
        let name = text(expected, "name");
        match found.get(name) {
            Some(weight) => {
                let sums = sums.get(name);
                wrong.extend(differences(&checkpoint, weight, expected, here, sums))
            }
            None => wrong.push(format!("{name} is missing")),
        }
    }
    let plain: Vec<&str> = found
        .weights
        .iter()
        .filter(|w| w.scheme == "plain")
        .map(|w| &*w.name)
        .collect();
    let others = names(&checkpoint, &found.others);
    activations.sort();
    let mut left: Vec<&str> = plain.into_iter().chain(others.iter().copied()).collect();
    left.retain(|name| !activations.contains(name));
    left.sort();
    if left != texts(&expected, "plain") {
        wrong.push(format!(
            "plain {left:?}, expected {:?}",
            texts(&expected, "plain")
        ));
    }
    for name in activations {
        if !others.contains(&name) {
            wrong.push(format!("{name} is taken for a weight"));
        }
    }
    if !wrong.is_empty() {
        wrong.extend(found.notes.iter().map(|n| format!("note: {n:?}")));
    }
    wrong
}

#[track_caller]
fn check_all(here: bool) {
    let mut failed = Vec::new();
    let folders = folders();
    assert!(
        !folders.is_empty(),
        "no fixtures in {}",
        fixtures().display()
    );
    for folder in &folders {
        let wrong = read(folder, here);
        if !wrong.is_empty() {
            let name = folder.file_name().unwrap_or_default().display();
            failed.push(format!("{name}:\n    {}", wrong.join("\n    ")));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} differ:\n{}",
        failed.len(),
        folders.len(),
        failed.join("\n")
    );
}

#[test]
fn every_format_is_read_as_its_library_wrote_it() {
    check_all(true);
}

#[test]
fn headers_alone_say_the_same() {
    check_all(false);
}

/// Every case of `shapes.json`: headers of real sizes, by the shape rules that the written fixtures confirm.
#[test]
fn headers_of_real_sizes_have_the_published_widths() {
    let text = std::fs::read_to_string(fixtures().join("shapes.json")).expect("a text file");
    let Value::List(cases) = json::read(&text).expect("JSON") else {
        panic!("a list of cases");
    };
    let mut failed = Vec::new();
    for case in cases.iter() {
        let case = case.as_object().expect("an object");
        let tensors: Vec<(String, &str, u64, Vec<u64>)> = case
            .get("tensors")
            .and_then(Value::as_object)
            .expect("tensors")
            .0
            .iter()
            .map(|(name, value)| {
                let Value::List(pair) = value else {
                    panic!("a dtype and a shape");
                };
                let dtype = pair[0].as_str().expect("a dtype");
                let Value::List(shape) = &pair[1] else {
                    panic!("a shape");
                };
                let shape = shape
                    .iter()
                    .map(|n| n.as_int().expect("a side") as u64)
                    .collect();
                let bits = StoredType::named(dtype).expect("a dtype").bits;
                (name.to_string(), dtype, bits.into(), shape)
            })
            .collect();
        let checkpoint = Written::new(&tensors).open();
        let settings = case.get("config").expect("settings").clone();
        let config = Object(vec![("quantization_config".into(), settings)]);
        let settings = Settings::find(Some(&config), None).expect("settings");
        let found = weights(&checkpoint, &settings);
        let mut wrong = misplaced(&checkpoint, &found);
        let [weight] = found.weights.as_slice() else {
            let names: Vec<&str> = found.weights.iter().map(|w| &*w.name).collect();
            failed.push(format!("{}: {names:?}, {:?}", text_of(case), found.notes));
            continue;
        };
        let expected = Object(
            case.0
                .iter()
                .map(|(key, value)| match &**key {
                    "format" => ("scheme".into(), value.clone()),
                    "logical" => ("shape".into(), value.clone()),
                    _ => (key.clone(), value.clone()),
                })
                .chain([(
                    "parts".into(),
                    Value::List(
                        names(&checkpoint, &weight.parts)
                            .into_iter()
                            .map(Value::str)
                            .collect(),
                    ),
                )])
                .chain(
                    weight
                        .code_bits
                        .map(|b| ("code_bits".into(), Value::Int(b.into()))),
                )
                .collect(),
        );
        wrong.extend(differences(&checkpoint, weight, &expected, false, None));
        let others = names(&checkpoint, &found.others);
        if others != texts(case, "activation_parts") {
            wrong.push(format!("others {others:?}"));
        }
        if !wrong.is_empty() {
            failed.push(format!(
                "{}: {}, {:?}",
                text_of(case),
                wrong.join("; "),
                found.notes
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} differ:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

fn text_of(case: &Object) -> &str {
    text(case, "name")
}

/// What people read, and the width of activations where the format or the settings fix it.
const LABELS: &[(&str, &str, Option<u32>)] = &[
    ("gptq_4bit_asym_desc_act", "gptq int4 g32", None),
    ("gptq_4bit_per_channel", "gptq int4 channel", None),
    ("awq_gemm", "awq int4 g32", None),
    ("bnb_int8", "int8 channel", Some(8)),
    ("bnb_nf4_double_quant", "nf4 double", None),
    ("ct_pack_actorder_weight", "int4 g32", None),
    ("ct_float_block", "fp8 block 128x128", Some(8)),
    ("ct_float_tensor", "fp8 tensor", Some(8)),
    ("ct_nvfp4", "nvfp4", Some(4)),
    ("ct_nvfp4a16", "nvfp4", None),
    ("ct_old_sparse_24_bf16", "BF16 2:4", None),
    ("fp8_block_128", "fp8 block 128x128", Some(8)),
    ("fbgemm_fp8", "fp8 channel", Some(8)),
    ("bitnet_bitlinear", "ternary", Some(8)),
    ("modelopt_nvfp4", "nvfp4", Some(4)),
    ("modelopt_w4a16_awq", "int4 channel", None),
    ("mlx_5bit", "mlx int5 g32", None),
    ("hqq_3bit", "hqq int3 g64", None),
];

#[test]
fn labels_say_format_width_and_group() {
    let mut wrong = Vec::new();
    for (fixture, label, activation_bits) in LABELS {
        let folder = fixtures().join(fixture);
        let files = Folder::open(&folder).expect("a folder");
        let checkpoint = Checkpoint::open(&files)
            .expect("readable")
            .expect("weights");
        let found = weights(&checkpoint, &settings_of(&folder));
        let packed = found.weights.iter().find(|w| w.scheme != "plain");
        let is = packed.map(|w| (w.label.as_str(), w.activation_bits));
        if is != Some((*label, *activation_bits)) {
            wrong.push(format!("{fixture}: {is:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn groups_of_settings_with_other_codes_say_nothing_of_a_weight() {
    let folder = fixtures().join("ct_mixed");
    let files = Folder::open(&folder).expect("a folder");
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    let found = weights(&checkpoint, &settings_of(&folder));
    let widths: Vec<(&str, Option<u32>)> = found
        .weights
        .iter()
        .filter(|w| w.scheme != "plain")
        .map(|w| (w.scheme, w.activation_bits))
        .collect();
    assert_eq!(widths, [("fp8", Some(8)), ("pack-quantized", None)]);
}

#[test]
fn settings_stand_in_a_file_of_their_own_where_the_config_has_none() {
    let folder = fixtures().join("modelopt_nvfp4");
    let files = Folder::open(&folder).expect("a folder");
    let settings = Settings::find(Some(&Object::default()), Some(&files)).expect("settings");
    assert_eq!(settings.place, Some("hf_quant_config.json"));
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    let found = weights(&checkpoint, &settings);
    let packed = found.weights.iter().find(|w| w.scheme == "modelopt-nvfp4");
    assert_eq!(packed.and_then(|w| w.activation_bits), Some(4));
}

#[test]
fn gptq_of_4096_squared_has_the_published_size() {
    let name = |end: &str| format!("model.layers.0.mlp.up_proj.{end}");
    let checkpoint = Written::new(&[
        (name("qweight"), "I32", 32, vec![512, 4096]),
        (name("qzeros"), "I32", 32, vec![32, 512]),
        (name("scales"), "F16", 16, vec![32, 4096]),
        (name("g_idx"), "I32", 32, vec![4096]),
    ])
    .open();
    let found = weights(&checkpoint, &Settings::default());
    let weight = found.get(&name("weight")).expect("one weight");
    assert_eq!(weight.elements, 16_777_216);
    assert_eq!(weight.bytes, 8_732_672);
    assert_eq!(weight.label, "gptq int4 g128");
    let bits = weight.bits_per_weight().unwrap_or_default();
    assert_eq!(format!("{bits:.3}"), "4.164");
}

/// A checkpoint of tensors by name, dtype and shape.
fn checkpoint(tensors: &[(&str, &str, &[u64])]) -> Checkpoint {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape)| {
            let bits = StoredType::named(dtype).expect("a dtype").bits;
            (name.to_string(), *dtype, bits.into(), shape.to_vec())
        })
        .collect();
    Written::new(&tensors).open()
}

#[track_caller]
fn check_schemes(tensors: &[(&str, &str, &[u64])], expected: &[(&str, &str)], notes: usize) {
    let checkpoint = checkpoint(tensors);
    let found = weights(&checkpoint, &Settings::default());
    let schemes: Vec<(&str, &str)> = found.weights.iter().map(|w| (&*w.name, w.scheme)).collect();
    assert_eq!(schemes, expected, "{:?}", found.notes);
    assert_eq!(found.notes.len(), notes, "{:?}", found.notes);
    assert_eq!(misplaced(&checkpoint, &found), Vec::<String>::new());
}

#[test]
fn a_bare_scale_is_a_weight_of_its_own() {
    check_schemes(
        &[
            ("attention.scale", "F32", &[1]),
            ("layer_scale", "F32", &[8]),
            ("norm.scale", "BF16", &[8]),
            ("norm.weight", "BF16", &[8]),
            ("router.scales", "F32", &[8]),
        ],
        &[
            ("attention.scale", "plain"),
            ("layer_scale", "plain"),
            ("norm.scale", "plain"),
            ("norm.weight", "plain"),
            ("router.scales", "plain"),
        ],
        0,
    );
}

#[test]
fn weight_norm_stays_as_it_is_stored() {
    check_schemes(
        &[
            ("conv.parametrizations.weight.original0", "F32", &[8, 1]),
            ("conv.parametrizations.weight.original1", "F32", &[8, 4]),
            ("old.weight_g", "F32", &[8, 1]),
            ("old.weight_v", "F32", &[8, 4]),
        ],
        &[
            ("conv.parametrizations.weight.original0", "plain"),
            ("conv.parametrizations.weight.original1", "plain"),
            ("old.weight_g", "plain"),
            ("old.weight_v", "plain"),
        ],
        0,
    );
}

#[test]
fn shapes_that_do_not_fit_leave_plain_tensors_and_a_note() {
    let tensors: &[(&str, &str, &[u64])] = &[
        ("m.g_idx", "I32", &[100]),
        ("m.qweight", "I32", &[16, 64]),
        ("m.qzeros", "I32", &[4, 8]),
        ("m.scales", "F16", &[4, 64]),
    ];
    let checkpoint = checkpoint(tensors);
    let found = weights(&checkpoint, &Settings::default());
    assert!(found.weights.iter().all(|w| w.scheme == "plain"));
    let note = found.notes.first().expect("a note");
    assert_eq!(note.tensor.as_deref(), Some("m.qweight"));
    assert!(note.text.contains("gptq"), "{}", note.text);
    assert_eq!(misplaced(&checkpoint, &found), Vec::<String>::new());
}

#[test]
fn a_weight_that_is_stored_twice_is_taken_apart() {
    check_schemes(
        &[
            ("m.qweight", "I32", &[16, 64]),
            ("m.qzeros", "I32", &[4, 8]),
            ("m.scales", "F16", &[4, 64]),
            ("m.weight", "BF16", &[64, 128]),
        ],
        &[
            ("m.qweight", "plain"),
            ("m.scales", "plain"),
            ("m.weight", "plain"),
        ],
        2,
    );
}

#[test]
fn kernels_of_convolutions_may_have_scales() {
    check_schemes(
        &[
            ("conv.weight", "I8", &[8, 4, 3, 3]),
            ("conv.weight_scale", "F32", &[8, 1, 1, 1]),
            ("conv1d.weight", "F8_E4M3", &[8, 4, 3]),
            ("conv1d.weight_scale", "F32", &[8, 1, 1]),
        ],
        &[("conv.weight", "int-quantized"), ("conv1d.weight", "fp8")],
        0,
    );
}

#[test]
fn codes_without_their_scales_are_a_note() {
    check_schemes(
        &[
            ("m.qweight", "I32", &[16, 64]),
            ("n.weight", "BF16", &[8, 8]),
        ],
        &[("m.qweight", "plain"), ("n.weight", "plain")],
        1,
    );
}

#[test]
fn scales_of_activations_and_caches_are_no_weights() {
    let checkpoint = checkpoint(&[
        ("m.input_scale", "F32", &[]),
        ("m.k_scale", "F32", &[1]),
        ("m.weight", "F8_E4M3", &[8, 8]),
        ("m.weight_scale", "F32", &[]),
    ]);
    let found = weights(&checkpoint, &Settings::default());
    assert_eq!(
        names(&checkpoint, &found.others),
        ["m.input_scale", "m.k_scale"]
    );
    assert_eq!(found.weights.len(), 1);
    assert_eq!(found.weights[0].bytes, 68);
    assert_eq!(found.notes, []);
}

#[test]
fn a_method_without_packed_tensors_is_a_note() {
    let checkpoint = checkpoint(&[("m.weight", "BF16", &[8, 8])]);
    let settings = settings(r#"{"quant_method": "gptq", "bits": 4}"#);
    assert_eq!(settings.place, Some("quantization_config"));
    let found = weights(&checkpoint, &settings);
    assert_eq!(found.notes.len(), 1);
    assert_eq!(found.notes[0].tensor, None);
}

#[test]
fn a_hundred_thousand_tensors_are_grouped_at_once() {
    let mut tensors = Vec::new();
    for layer in 0..25_000 {
        for (end, dtype, bits, shape) in [
            ("weight", "U8", 8, vec![16, 32]),
            ("weight_scale", "F8_E4M3", 8, vec![16, 4]),
            ("weight_scale_2", "F32", 32, vec![]),
            ("input_scale", "F32", 32, vec![]),
        ] {
            let name = format!("model.layers.0.mlp.experts.{layer}.up_proj.{end}");
            tensors.push((name, dtype, bits, shape));
        }
    }
    let checkpoint = Written::new(&tensors).open();
    let start = Instant::now();
    let found = weights(&checkpoint, &Settings::default());
    let took = start.elapsed();
    assert_eq!(found.weights.len(), 25_000);
    assert_eq!(found.others.len(), 25_000);
    // Far below a second even unoptimized; what is quadratic would take minutes.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// The tensors of a fixture, and where its data begins.
fn tensors_of(folder: &Path) -> (Vec<Stored>, Vec<u8>) {
    let files = Folder::open(folder).expect("a folder");
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    let mut tensors: Vec<_> = checkpoint.tensors.iter().collect();
    tensors.sort_by_key(|t| (t.begin, t.bytes));
    let begin = checkpoint.files[0].data_begin as usize;
    let data = std::fs::read(folder.join("model.safetensors")).expect("readable");
    let tensors = tensors
        .into_iter()
        .map(|t| {
            (
                t.name.to_string(),
                t.dtype.name,
                t.dtype.bits.into(),
                t.shape.to_vec(),
            )
        })
        .collect();
    (tensors, data[begin..].to_vec())
}

fn settings_of(folder: &Path) -> Settings {
    let config = object(&folder.join("config.json"));
    Settings::find(Some(&config), None).expect("settings")
}

/// Settings by their JSON.
fn settings(json: &str) -> Settings {
    let config = json::read(&format!(r#"{{"quantization_config": {json}}}"#));
    let Ok(Value::Object(config)) = config else {
        panic!("an object");
    };
    Settings::find(Some(&config), None).expect("settings")
}

/// Settings that would divide by zero.
const HOSTILE: &str = r#"{"quant_method": "x", "bits": 0, "group_size": 0, "num_bits": 0, "weight_block_size": [0, 0],
    "config_groups": {"a": {"weights": {"num_bits": 0, "group_size": 0, "type": "int"}}},
    "quant_config": {"weight_quant_params": {"nbits": 0, "group_size": 0}}}"#;

#[test]
fn no_side_of_any_tensor_may_be_trusted() {
    for folder in folders() {
        let (tensors, _) = tensors_of(&folder);
        let (own, hostile) = (settings_of(&folder), settings(HOSTILE));
        for at in 0..tensors.len().min(20) {
            for side in 0..tensors[at].3.len() {
                let is = tensors[at].3[side];
                for other in [0, 1, is - 1.min(is), is + 1, is * 2, is * 32, 1 << 30] {
                    let mut changed = tensors.clone();
                    changed[at].3[side] = other;
                    let checkpoint = Written::new(&changed).open();
                    for settings in [&own, &hostile] {
                        let found = weights(&checkpoint, settings);
                        let wrong = misplaced(&checkpoint, &found);
                        assert_eq!(wrong, Vec::<String>::new(), "{changed:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn no_byte_of_the_data_may_be_trusted() {
    let folder = common::Folder::new();
    let path = folder.path().join("model.safetensors");
    let noise = |at: usize| {
        (at as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_le_bytes()[7]
    };
    for fixture in folders() {
        let (tensors, data) = tensors_of(&fixture);
        let settings = settings_of(&fixture);
        let fills: [Vec<u8>; 4] = [
            vec![0; data.len()],
            vec![0xff; data.len()],
            vec![0x80; data.len()],
            (0..data.len()).map(noise).collect(),
        ];
        // The same bytes in another shape, and other bytes in the same shape.
        let mut turned = tensors.clone();
        turned.iter_mut().for_each(|t| t.3.reverse());
        let mut flat = tensors.clone();
        flat.iter_mut()
            .for_each(|t| t.3 = vec![t.3.iter().product(), 1]);
        let mut tries = vec![(turned, data.clone()), (flat, data)];
        tries.extend(fills.map(|fill| (tensors.clone(), fill)));
        for (tensors, data) in tries {
            let header = Written::new(&tensors).header;
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.into_bytes());
            file.extend(data);
            // A new file, since the old one may be mapped.
            std::fs::remove_file(&path).ok();
            std::fs::write(&path, file).expect("can be written");
            let files = Folder::open(folder.path()).expect("a folder");
            let checkpoint = Checkpoint::open(&files)
                .expect("readable")
                .expect("weights");
            let found = weights(&checkpoint, &settings);
            assert_eq!(misplaced(&checkpoint, &found), Vec::<String>::new());
            for weight in &found.weights {
                if let Ok(Some(zeros)) = zeros(&checkpoint, weight) {
                    assert!(zeros <= weight.elements, "{weight:?}: {zeros}");
                }
                let wanted = Wanted {
                    moments: true,
                    supports: true,
                    ..Wanted::default()
                };
                if let Ok(Some(scan)) = statistics(&checkpoint, weight, &wanted) {
                    assert!(scan.nnz <= scan.elements, "{weight:?}: {scan:?}");
                    let reads = row_reads(&checkpoint, weight, 0, &wanted).expect("as before");
                    let width = reads.expect("as before").width() as u64;
                    assert_eq!(width, scan.per_input.len() as u64, "{weight:?}");
                }
                let side = (&checkpoint, weight);
                if let Ok(Some(error)) = weight_error(side, side) {
                    assert_eq!((error.relative, error.max), (0.0, 0.0), "{weight:?}");
                }
                let _ = zero_kinds(side, side);
            }
        }
    }
}

/// Writes tensors with noise for data into a folder and opens them.
fn noise(folder: &common::Folder, tensors: &[Stored]) -> (Checkpoint, Vec<u8>) {
    let written = Written::new(tensors);
    let data: Vec<u8> = (0..written.data_bytes)
        .map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7])
        .collect();
    let mut file = (written.header.len() as u64).to_le_bytes().to_vec();
    file.extend(written.header.into_bytes());
    file.extend(&data);
    folder.write("model.safetensors", file);
    let files = Folder::open(folder.path()).expect("a folder");
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    (checkpoint, data)
}

/// Bits of little-endian bytes, one at a time: what the bit orders are compared with.
fn bits(bytes: &[u8], first: usize, count: usize) -> u32 {
    (0..count).fold(0, |code, i| {
        let at = first + i;
        code | u32::from(bytes[at / 8] >> (at % 8) & 1) << i
    })
}

#[test]
fn rows_longer_than_what_is_read_at_once_are_counted_to_their_ends() {
    // Three bits, 40,000 columns in groups of 320: neither words nor groups end where a chunk does.
    let (rows, columns, group) = (5, 40_000, 320);
    let (words, groups) = (columns * 3 / 32, columns / group);
    let folder = common::Folder::new();
    let (checkpoint, data) = noise(
        &folder,
        &[
            (
                "m.weight_packed".into(),
                "I32",
                32,
                vec![rows as u64, words as u64],
            ),
            (
                "m.weight_scale".into(),
                "BF16",
                16,
                vec![rows as u64, groups as u64],
            ),
            (
                "m.weight_zero_point".into(),
                "I32",
                32,
                vec![1, groups as u64],
            ),
        ],
    );
    let json = format!(
        r#"{{"config_groups": {{"a": {{"weights": {{"num_bits": 3, "group_size": {group}}}}}}}}}"#
    );
    let found = weights(&checkpoint, &settings(&json));
    let weight = found.get("m.weight").expect("a weight");
    assert_eq!(
        weight.shape.as_deref(),
        Some(&[rows as u64, columns as u64][..])
    );
    let scales = rows * words * 4;
    let points = scales + rows * groups * 2;
    let mut expected = 0;
    for row in 0..rows {
        for column in 0..columns {
            let code = bits(&data[row * words * 4..], column * 3, 3);
            let at = column / group;
            let point = bits(&data[points + at * 4..], row * 3, 3);
            let scale = bits(&data[scales + (row * groups + at) * 2..], 0, 15);
            expected += u64::from(code == point || scale == 0);
        }
    }
    assert_eq!(zeros(&checkpoint, weight).expect("data"), Some(expected));
}

#[test]
fn more_outputs_than_are_read_at_once_are_counted_to_the_last() {
    // Three bits down 32 inputs, 20,000 outputs, two groups; the file holds zero points less one.
    let (inputs, outputs, groups) = (32, 20_000, 2);
    let words = outputs * 3 / 32;
    let folder = common::Folder::new();
    let (checkpoint, data) = noise(
        &folder,
        &[
            ("m.qweight".into(), "I32", 32, vec![3, outputs as u64]),
            (
                "m.qzeros".into(),
                "I32",
                32,
                vec![groups as u64, words as u64],
            ),
            (
                "m.scales".into(),
                "F16",
                16,
                vec![groups as u64, outputs as u64],
            ),
        ],
    );
    let found = weights(&checkpoint, &Settings::default());
    let weight = found.get("m.weight").expect("a weight");
    assert_eq!(
        weight.shape.as_deref(),
        Some(&[outputs as u64, inputs as u64][..])
    );
    let points = outputs * 3 * 4;
    let scales = points + groups * words * 4;
    let mut expected = 0;
    for output in 0..outputs {
        let column: Vec<u8> = (0..3)
            .flat_map(|word| data[(word * outputs + output) * 4..][..4].to_vec())
            .collect();
        for input in 0..inputs {
            let at = input / 16;
            let point = bits(&data[points + at * words * 4..], output * 3, 3);
            let scale = bits(&data[scales + (at * outputs + output) * 2..], 0, 15);
            let code = bits(&column, input * 3, 3);
            expected += u64::from(code == (point + 1) % 8 || scale == 0);
        }
    }
    assert_eq!(zeros(&checkpoint, weight).expect("data"), Some(expected));
}

/// Parts of names that formats use, so that random tensors come close to real ones.
const ENDS: &[&str] = &[
    ".weight",
    ".qweight",
    ".qzeros",
    ".scales",
    ".g_idx",
    ".biases",
    ".SCB",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight_packed",
    ".weight_scale",
    ".weight_shape",
    ".weight_zero_point",
    ".weight_g_idx",
    ".weight_global_scale",
    ".weight_scale_2",
    ".weight_scale_inv",
    ".scale",
    ".zero",
    ".W_q",
    ".shape",
    ".nbits",
    ".compressed",
    ".bitmask",
    ".row_offsets",
    ".scale_packed",
    ".meta",
    ".up_blocks",
    ".up_scales",
    ".weight._data",
    ".weight._data._data",
    ".weight._scale",
    ".weight._shift",
    "._weight_qdata",
    "._weight_scale",
    "._weight_zero_point",
    ".codes",
    ".codebooks",
    ".tables",
    ".tables2",
    ".q_weight",
    ".q_invperm",
    ".trellis",
    ".parametrizations.weight.original",
    ".parametrizations.weight.0.quantizer.logit_dz",
    ".parametrizations.weight.0.quantizer.logit_bit",
    ".input_scale",
    ".bias",
    ".q_scale",
    ".q_scale_max",
    ".q_groups",
];

const DTYPES: &[&str] = &[
    "I32", "U8", "I8", "F16", "BF16", "F32", "U32", "I16", "I64", "F8_E4M3", "F8_E8M0",
];

/// A dtype and a shape of small sides, sides of powers of two, or sides that do not belong to anything.
fn arbitrary_tensor() -> impl Strategy<Value = Stored> {
    let side = prop_oneof![
        0u64..4,
        prop::sample::select(vec![8u64, 16, 32, 64, 96, 128, 4096]),
        Just(1u64 << 20),
        Just(1u64 << 40),
    ];
    let shape =
        prop::collection::vec(side, 0..4).prop_filter("a header that can be read", |shape| {
            let all = shape
                .iter()
                .try_fold(1u64, |all, side| all.checked_mul(*side));
            all.is_some_and(|all| all < 1 << 50)
        });
    let name = (0..3u8, prop::sample::select(ENDS)).prop_map(|(m, end)| format!("m.{m}{end}"));
    (name, prop::sample::select(DTYPES), shape).prop_map(|(name, dtype, shape)| {
        let bits = StoredType::named(dtype).expect("a dtype").bits;
        (name, dtype, bits.into(), shape)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn whatever_tensors_there_are_each_has_its_place(
        mut tensors in prop::collection::vec(arbitrary_tensor(), 0..40),
        json in prop::sample::select(vec![
            "{}",
            HOSTILE,
            r#"{"quant_method": "gptq", "bits": 4, "group_size": 0}"#,
            r#"{"quant_method": "gemma", "num_bits": 4, "bits": 99, "group_size": 32}"#,
            r#"{"version": "0.1", "config_groups": {"a": {"targets": ["x"], "weights": {"num_bits": 0}}}}"#,
            r#"{"bits": 3, "group_size": 64, "weight_block_size": [0, 128]}"#,
        ]),
    ) {
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors.dedup_by(|a, b| a.0 == b.0);
        let checkpoint = Written::new(&tensors).open();
        let found = weights(&checkpoint, &settings(json));
        prop_assert_eq!(misplaced(&checkpoint, &found), Vec::<String>::new());
    }
}
