//! The index of a sharded checkpoint. No input panics; an index that is accepted leads nowhere outside.

#![no_main]

use bitcost::checkpoint::{MAX_FILES, read_index};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use std::path::{Component, Path};

fuzz_target!(|json: &[u8]| {
    let index = match read_index(json) {
        Ok(index) => index,
        Err(error) => {
            let text = error.to_string();
            assert!(text.chars().count() < 4000 && !text.contains(['\n', '\x1b']));
            return;
        }
    };
    assert!(!index.files.is_empty() && index.files.len() <= MAX_FILES);
    assert!(index.files.is_sorted());
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    for file in &index.files {
        assert!(file.ends_with(".safetensors"));
        assert!(Path::new(&**file).components().all(inside));
    }
    let mut names = HashSet::new();
    let mut used = HashSet::new();
    for (tensor, file) in &index.tensors {
        assert!(names.insert(tensor));
        used.insert(file);
        assert!(*file < index.files.len());
    }
    assert_eq!(used.len(), index.files.len());
});
