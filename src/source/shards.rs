//! What an index says about files, as far as sources need it: which tensor stands where. `checkpoint` reads it in earnest
//! and says what is wrong with it; here a text that is no index says nothing.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The file of each tensor; nothing where the text is no index.
pub(super) fn weight_map(json: &[u8]) -> BTreeMap<String, String> {
    #[derive(Default, Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(json).unwrap_or_default();
    index.weight_map
}

/// The files that an index names, each once.
pub(super) fn files(json: &[u8]) -> Vec<String> {
    let mut files: Vec<String> = weight_map(json).into_values().collect();
    files.sort();
    files.dedup();
    files
}
