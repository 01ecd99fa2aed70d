//! Lists of tensors as weights. No list panics; every tensor is part of exactly one weight or stands among the others.
//!
//! A line of the input is a tensor: name, dtype, shape, with spaces between (`a.qweight I32 8 64`); a line that begins with
//! `{` is the settings. Names and shapes decide what weights are, so lines find more than bytes of a header would.

#![no_main]

use bitcost::checkpoint::Checkpoint;
use bitcost::checkpoint::packed::{Settings, weights, zeros};
use bitcost::dtype::{STORED_TYPES, StoredType};
use bitcost::json;
use bitcost::source::{Files, Head, SourceError};
use bitcost::value::{Object, Value};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

fuzz_target!(|text: &str| {
    let (mut entries, mut names, mut at) = (Vec::new(), BTreeSet::new(), 0u64);
    let mut config: Option<Arc<Object>> = None;
    for line in text.lines().take(64) {
        if line.starts_with('{') {
            if let Ok(Value::Object(object)) = json::read(line) {
                config = Some(object);
            }
            continue;
        }
        let Some((name, dtype, shape)) = tensor(line) else {
            continue;
        };
        let elements = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side));
        let bits = elements.and_then(|n| n.checked_mul(dtype.bits.into()));
        let Some(bytes) = bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8) else {
            continue;
        };
        let Some(end) = at.checked_add(bytes).filter(|end| *end < 1 << 62) else {
            continue;
        };
        if name != "__metadata__" && names.insert(name) {
            entries.push(format!(
                "{}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{at},{end}]}}",
                json_text(name)
            ));
            at = end;
        }
    }
    let json = format!("{{{}}}", entries.join(",")).into_bytes();
    let file_bytes = 8 + json.len() as u64 + at;
    let files = HeaderOnly(Head { json, file_bytes });
    let checkpoint = Checkpoint::open(&files)
        .expect("the header is right")
        .expect("there is a file");
    assert_eq!(checkpoint.tensors.len(), names.len());
    let settings = Settings::find(config.as_deref(), None).expect("no file is read");
    let weights = weights(&checkpoint, &settings);
    let mut seen = vec![0; checkpoint.tensors.len()];
    let all = weights.weights.iter().flat_map(|weight| &weight.parts);
    for part in all.chain(&weights.others) {
        seen[*part as usize] += 1;
    }
    assert!(seen.iter().all(|n| *n == 1), "{seen:?}");
    for weight in &weights.weights {
        // There is no data; what matters is that asking does not panic.
        let _ = zeros(&checkpoint, weight);
        let _ = weight.bits_per_weight();
        if let Some(shape) = &weight.shape {
            let product = shape.iter().try_fold(1u64, |n, side| n.checked_mul(*side));
            assert_eq!(product, Some(weight.elements), "{}", weight.name);
        }
        assert_eq!(
            weights.get(&weight.name).map(|w| &w.name),
            Some(&weight.name)
        );
    }
});

fn tensor(line: &str) -> Option<(&str, StoredType, Vec<u64>)> {
    let mut parts = line.split(' ');
    let name = parts.next()?;
    let dtype = parts.next()?;
    // A number of the list is a dtype too, so that few bytes reach all of them.
    let dtype = StoredType::named(dtype).or_else(|| {
        let number: usize = dtype.parse().ok()?;
        STORED_TYPES.get(number).copied()
    })?;
    let shape = parts
        .take(5)
        .map(|side| side.parse().ok())
        .collect::<Option<Vec<u64>>>()?;
    Some((name, dtype, shape))
}

/// A name as JSON writes it.
fn json_text(name: &str) -> String {
    let mut out = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[derive(Debug)]
struct HeaderOnly(Head);

impl Files for HeaderOnly {
    fn names(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec!["model.safetensors".into()])
    }

    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }

    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        Ok(names.iter().map(|_| self.0.clone()).collect())
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn label(&self, name: &str) -> String {
        name.into()
    }
}
