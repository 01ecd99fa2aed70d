//! `model.safetensors.index.json`: which file of a sharded checkpoint holds which tensor.
//!
//! ```text
//! {"metadata": {"total_size": 123}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors", ...}}
//! ```
//!
//! JSON text in, names of tensors with their files out. Names of files stay inside the folder.

use super::header::{Pairs, malformed};
use super::shown;
use crate::source::is_plain;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Most files that one checkpoint may have.
pub const MAX_FILES: usize = 10_000;

/// The files of a checkpoint, and which holds what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Names of the files, sorted.
    pub files: Vec<Arc<str>>,
    /// Names of the tensors with the number of their file, in the order of the index.
    pub tensors: Vec<(String, usize)>,
}

/// Why an index cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// `[]`, no `weight_map`, a tensor that stands twice.
    #[error("not an index of a sharded checkpoint: {0}")]
    Malformed(String),
    /// `"../../etc/passwd"`, `"/weights.safetensors"`
    #[error(
        "the index puts `{tensor}` in `{file}`; files of a checkpoint lie in its own folder and end in .safetensors"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// The file that is refused.
        file: String,
    },
    /// An index that would open files without end.
    #[error("the index names {0} files; at most {MAX_FILES} are read")]
    TooManyFiles(usize),
    /// `{"weight_map": {}}`
    #[error("the index names no tensor")]
    Empty,
}

/// Reads the JSON text of an index.
pub fn read(json: &[u8]) -> Result<Index, IndexError> {
    let written: Written =
        serde_json::from_slice(json).map_err(|e| IndexError::Malformed(malformed(&e)))?;
    let mut numbers: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (tensor, file) in &written.0 {
        if !is_plain(file) || !file.ends_with(".safetensors") {
            let (tensor, file) = (shown(tensor), shown(file));
            return Err(IndexError::Outside { tensor, file });
        }
        if !numbers.contains_key(&**file) {
            numbers.insert(file.as_str().into(), 0);
        }
    }
    if numbers.is_empty() {
        return Err(IndexError::Empty);
    }
    if numbers.len() > MAX_FILES {
        return Err(IndexError::TooManyFiles(numbers.len()));
    }
    numbers
        .values_mut()
        .enumerate()
        .for_each(|(number, slot)| *slot = number);
    let tensors = written.0.into_iter().map(|(tensor, file)| {
        let number = numbers[&*file];
        (tensor, number)
    });
    let tensors = tensors.collect();
    Ok(Index {
        files: numbers.into_keys().collect(),
        tensors,
    })
}

/// The pairs of `weight_map`.
struct Written(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a `weight_map`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut pairs = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "weight_map" {
                        map.next_value::<IgnoredAny>()?;
                    } else if pairs.is_none() {
                        pairs = Some(map.next_value::<WeightMap>()?.0);
                    } else {
                        return Err(A::Error::custom("`weight_map` stands twice"));
                    }
                }
                pairs
                    .map(Written)
                    .ok_or_else(|| A::Error::missing_field("weight_map"))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        deserializer.deserialize_map(Pairs).map(WeightMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_tensors_keep_their_order() {
        let index = read(br#"{"metadata": {"total_size": 1}, "weight_map": {"b": "y.safetensors", "a": "x.safetensors", "c": "y.safetensors"}}"#).expect("an index");
        assert_eq!(
            index.files,
            ["x.safetensors".into(), "y.safetensors".into()]
        );
        let tensors: Vec<_> = index
            .tensors
            .iter()
            .map(|(name, file)| (name.as_str(), *file))
            .collect();
        assert_eq!(tensors, [("b", 1), ("a", 0), ("c", 1)]);
    }

    #[test]
    fn files_outside_the_folder_are_refused() {
        for file in [
            "../../etc/passwd",
            "/etc/passwd",
            "a/../../b.safetensors",
            "c:\\\\x.safetensors",
            "pytorch_model.bin",
            "",
        ] {
            let json = format!(r#"{{"weight_map": {{"a": "{file}"}}}}"#);
            assert!(
                matches!(read(json.as_bytes()), Err(IndexError::Outside { .. })),
                "{file}"
            );
        }
    }

    #[test]
    fn a_tensor_that_stands_twice_is_refused() {
        let json = br#"{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}"#;
        let error = read(json).expect_err("a double key").to_string();
        assert!(error.contains("`a` stands twice"), "{error}");
    }

    #[test]
    fn an_index_without_tensors_is_refused() {
        assert_eq!(read(br#"{"weight_map": {}}"#), Err(IndexError::Empty));
        assert!(matches!(read(b"[]"), Err(IndexError::Malformed(_))));
        assert!(matches!(read(b"{}"), Err(IndexError::Malformed(_))));
    }
}
