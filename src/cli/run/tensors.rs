//! Inputs from a file, outputs into one: single tensors of floats.

use super::super::args::RunArgs;
use super::super::{Failure, input, usage};
use super::load::Opened;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::packed::{Settings as Packed, weights};
use crate::checkpoint::scan::{Wanted, values};
use crate::checkpoint::write::save;
use crate::memory::{MemoryPool, PoolConfig, Tag};
use crate::source::{self, Settings};
use crate::tensor::{self, Dtype};
use std::path::Path;

/// Refuses to write the output over what is read.
pub(super) fn apart(args: &RunArgs, opened: &Opened) -> Result<(), Failure> {
    let Some(Ok(out)) = args.layer.out.as_ref().map(std::fs::canonicalize) else {
        return Ok(());
    };
    let files = opened.headers.checkpoint.files.iter();
    let mut read = files
        .filter_map(|file| file.path.clone())
        .chain(args.layer.input.iter().map(|text| split(text).0.into()));
    match read.any(|path| std::fs::canonicalize(path).is_ok_and(|path| path == out)) {
        true => Err(usage(format!(
            "--out {} is what is read; name another file",
            out.display()
        ))),
        false => Ok(()),
    }
}

/// `FILE` or `FILE:NAME`, taken apart.
fn split(text: &str) -> (String, Option<&str>) {
    match text.rsplit_once(".safetensors:") {
        Some((file, name)) => (format!("{file}.safetensors"), Some(name)),
        None => (text.to_string(), None),
    }
}

/// What goes into a layer: `[.., features]`.
pub(super) struct Input {
    pub(super) shape: Vec<usize>,
    pub(super) numbers: Vec<f32>,
}

/// Reads the only tensor of a file, or `FILE:NAME`.
pub(super) fn read(text: &str, features: usize) -> Result<Input, Failure> {
    let (file, name) = split(text);
    let fail = |reason: String| input(format!("--input {file}: {reason}"));
    let wanted = source::Wanted {
        offline: true,
        ..source::Wanted::default()
    };
    let files = source::open(&file, &wanted, &Settings::from_env())?;
    let place = files
        .files
        .as_deref()
        .ok_or_else(|| fail("there are no tensors here".into()))?;
    let checkpoint = Checkpoint::open(place).map_err(|e| fail(e.to_string()))?;
    let checkpoint = checkpoint.ok_or_else(|| fail("there are no tensors here".into()))?;
    let all = weights(&checkpoint, &Packed::default());
    let weight = match (name, &all.weights[..]) {
        (Some(name), _) => all.get(name).ok_or_else(|| {
            let names = all.weights.iter().map(|weight| &*weight.name);
            fail(format!(
                "there is no tensor `{name}`{}",
                crate::formula::did_you_mean(name, names)
            ))
        })?,
        (None, [one]) => one,
        (None, several) => {
            return Err(usage(format!(
                "--input {file}: it has {} tensors; name one as {file}:NAME",
                several.len()
            )));
        }
    };
    let shape = weight.shape.as_deref().unwrap_or_default();
    if shape.last() != Some(&(features as u64)) {
        return Err(input(format!(
            "--input {file}: tensor `{}` has the shape {shape:?}, and the layer takes {features} features",
            weight.name
        )));
    }
    let mut numbers = Vec::new();
    let told = values(
        &checkpoint,
        weight,
        &Wanted::default(),
        0..u64::MAX,
        &mut numbers,
    );
    if !told.map_err(|e| fail(e.to_string()))? || numbers.is_empty() {
        return Err(fail(format!("tensor `{}` has no numbers", weight.name)));
    }
    Ok(Input {
        shape: shape.iter().map(|side| *side as usize).collect(),
        numbers,
    })
}

/// What numbers on their way to a file are in the metrics of a pool.
const OUTPUT: Tag = Tag::of("output");

/// Writes numbers as the one tensor of a new file, which appears whole or not at all. `option` is what messages call it by.
pub(super) fn write(
    option: &str,
    path: &Path,
    name: &str,
    shape: &[usize],
    numbers: &[f32],
) -> Result<(), Failure> {
    let pool = MemoryPool::new(PoolConfig::small());
    let tensor = tensor::Tensor::of(&pool, Dtype::F32, numbers, shape, OUTPUT);
    let tensor = tensor.map_err(|e| input(e.to_string()))?;
    save(path, &[(name, &tensor)]).map_err(|e| input(format!("{option} {}: {e}", path.display())))
}
