//! Packed checkpoints as their formats' own libraries write them: `fixtures/packed/` holds tiny ones, each with what the
//! library says about it (`make.py` there wrote them).

use bitcost::checkpoint::Checkpoint;
use bitcost::checkpoint::packed::{Padding, Settings, Weight, Weights, weights, zeros};
use bitcost::json;
use bitcost::source::{Files, Folder, Head, SourceError};
use bitcost::value::{Object, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    let mut activations = Vec::new();
    for expected in list(&expected, "weights") {
        let expected = expected.as_object().expect("an object");
        activations.extend(texts(expected, "activation_parts"));
        let name = text(expected, "name");
        match found.get(name) {
            Some(weight) => wrong.extend(differences(&checkpoint, weight, expected, here)),
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
