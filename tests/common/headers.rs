//! Checkpoints of headers without data: names, dtypes and shapes in, [`Files`] out.

use bitcost::dtype::StoredType;
use bitcost::source::{Files, Head, SourceError};
use std::path::PathBuf;

/// A tensor of a header: name, dtype, shape.
pub(crate) type Line = (String, String, Vec<u64>);

/// One safetensors file that is only its header.
#[derive(Debug)]
pub(crate) struct HeaderOnly {
    head: Head,
}

impl HeaderOnly {
    pub(crate) fn new(tensors: &[Line]) -> HeaderOnly {
        let mut at = 0u64;
        let mut object = serde_json::Map::new();
        for (name, dtype, shape) in tensors {
            let bits = StoredType::named(dtype)
                .unwrap_or_else(|| panic!("{name}: dtype {dtype}"))
                .bits;
            let bytes = shape.iter().product::<u64>() * u64::from(bits) / 8;
            let value = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes]});
            assert!(
                object.insert(name.clone(), value).is_none(),
                "{name} stands twice"
            );
            at += bytes;
        }
        let json = serde_json::to_vec(&object).expect("JSON");
        let file_bytes = 8 + json.len() as u64 + at;
        HeaderOnly {
            head: Head { json, file_bytes },
        }
    }
}

impl HeaderOnly {
    /// The header and the size that its file would have.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

impl Files for HeaderOnly {
    fn names(&self) -> Result<Vec<String>, SourceError> {
        Ok(vec!["config.json".into(), "model.safetensors".into()])
    }

    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }

    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        Ok(names.iter().map(|_| self.head.clone()).collect())
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn label(&self, name: &str) -> String {
        name.into()
    }
}

/// `a.{0-2,5}.b` -> `a.0.b`, `a.1.b`, `a.2.b`, `a.5.b`; several ranges multiply.
pub(crate) fn spelled_out(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_string()];
    };
    let (ranges, tail) = rest.split_once('}').expect("a range ends");
    let tails = spelled_out(tail);
    let mut names = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (
            first.parse().expect("a number"),
            last.parse().expect("a number"),
        );
        for number in first..=last {
            names.extend(tails.iter().map(|tail| format!("{head}{number}{tail}")));
        }
    }
    names
}
