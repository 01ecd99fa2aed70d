//! `model.safetensors.index.json`: which file of a sharded checkpoint holds which tensor.
//!
//! ```text
//! {"metadata": {"total_size": 123}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors", ...}}
//! ```
//!
//! JSON text in, names of tensors with their files out. Names of files stay inside the folder.

use super::header::{malformed, stands_twice, twice};
use super::shown;
use crate::source::is_plain;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
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
    let Written(WeightMap { tensors, files }) =
        serde_json::from_slice(json).map_err(|e| IndexError::Malformed(malformed(&e)))?;
    let refused = |file: &Arc<str>| !is_plain(file) || !file.ends_with(".safetensors");
    if let Some(at) = files.iter().position(refused) {
        let tensor = tensors.iter().find(|(_, file)| *file == at);
        return Err(IndexError::Outside {
            tensor: tensor.map_or_else(String::new, |(name, _)| shown(name)),
            file: shown(&files[at]),
        });
    }
    if files.is_empty() {
        return Err(IndexError::Empty);
    }
    if files.len() > MAX_FILES {
        return Err(IndexError::TooManyFiles(files.len()));
    }
    Ok(sorted(tensors, files))
}

/// The index with its files in order; they come in that of the text.
fn sorted(mut tensors: Vec<(String, usize)>, mut files: Vec<Arc<str>>) -> Index {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| files[*a].cmp(&files[*b]));
    let mut place = vec![0; files.len()];
    for (to, from) in order.into_iter().enumerate() {
        place[from] = to;
    }
    for (_, file) in &mut tensors {
        *file = place[*file];
    }
    files.sort();
    Index { files, tensors }
}

/// An index as it is written.
struct Written(WeightMap);

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
                        pairs = Some(map.next_value::<WeightMap>()?);
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

/// The pairs of `weight_map`, each file once, in the order of the text.
struct WeightMap {
    tensors: Vec<(String, usize)>,
    files: Vec<Arc<str>>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeightMap, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut tensors: Vec<(String, usize)> = Vec::new();
                let mut files: Vec<Arc<str>> = Vec::new();
                let mut numbers: HashMap<Arc<str>, usize> = HashMap::new();
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    let last = tensors.last().map(|(_, number)| *number);
                    let number = match last.filter(|last| *files[*last] == *file.as_str()) {
                        // Neighbours mostly lie in the same file.
                        Some(last) => last,
                        None => match numbers.get(file.as_str()) {
                            Some(number) => *number,
                            None => {
                                let file: Arc<str> = file.into();
                                numbers.insert(file.clone(), files.len());
                                files.push(file);
                                files.len() - 1
                            }
                        },
                    };
                    tensors.push((tensor, number));
                }
                let names = tensors.iter().map(|(name, _)| name.as_str());
                match twice(names, tensors.len()) {
                    Some(name) => Err(A::Error::custom(stands_twice(name))),
                    None => Ok(WeightMap { tensors, files }),
                }
            }
        }
        deserializer.deserialize_map(Pairs)
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
