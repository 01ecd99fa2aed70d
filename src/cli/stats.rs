//! `bitcost stats`: what the data of checkpoints says, for `compare` and `merge`.

use super::args::StatsArgs;
use super::{Exit, Failure, Outcome, escaped, input, usage, write_out};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::packed::{Settings as Packing, weights};
use crate::source::{self, Settings};
use crate::stats::{Stats, is_stats, merge, read, take, to_line, to_text};
use serde::Serialize;
use std::io::{BufRead, Read};

/// A line about an input that cannot be read.
#[derive(Serialize)]
struct Failed<'l> {
    file: &'l str,
    error: String,
}

pub(super) fn run(args: &StatsArgs) -> Outcome {
    let settings = Settings::from_env();
    let named = args.inputs.iter().map(|id| Ok(id.clone()));
    let piped = args.stdin.then(|| std::io::stdin().lock().lines());
    let piped = piped.into_iter().flatten().filter_map(|line| match line {
        Ok(line) if line.trim().is_empty() => None,
        Ok(line) => Some(Ok(line.trim_end_matches('\r').to_string())),
        Err(e) => Some(Err(input(format!("standard input: {e}")))),
    });
    let inputs = named.chain(piped);
    if !args.stdin && args.inputs.is_empty() {
        return Err(usage(
            "stats takes safetensors files or folders, or --stdin; `bitcost stats --help` shows examples",
        ));
    }
    if args.jsonl {
        return each(args, &settings, inputs);
    }
    let inputs: Vec<String> = inputs.collect::<Result<_, Failure>>()?;
    if inputs.is_empty() {
        return Err(input("standard input names no file"));
    }
    let stats = stats(args, &settings, &inputs)?;
    let text = to_text(&stats).map_err(|e| input(e.to_string()))?;
    write_out(&escaped(text), args.output.as_deref())?;
    Ok(Exit::Ok)
}

/// Each input for itself, a line as soon as it is known.
fn each(
    args: &StatsArgs,
    settings: &Settings,
    inputs: impl Iterator<Item = Result<String, Failure>>,
) -> Outcome {
    let mut exit = Exit::Ok;
    for id in inputs {
        let id = id?;
        let line = match stats(args, settings, std::slice::from_ref(&id)) {
            Ok(stats) => to_line(&id, &stats),
            Err(failure) => {
                exit = Exit::Input;
                let error = format!("{:#}", failure.error);
                serde_json::to_string(&Failed { file: &id, error })
            }
        };
        let line = line.map_err(|e| input(e.to_string()))?;
        write_out(&escaped(line), None)?;
    }
    Ok(exit)
}

/// The statistics of some inputs, which are one checkpoint.
fn stats(args: &StatsArgs, settings: &Settings, ids: &[String]) -> Result<Stats, Failure> {
    let fail = |e: crate::checkpoint::CheckpointError| input(e.to_string());
    let wanted = super::inspect::wanted(&args.source, true);
    let mut parts = Vec::new();
    let mut packing: Option<Packing> = None;
    for id in ids {
        let files = source::open(id, &wanted, settings)?;
        let missing = || input(format!("{}: there are no weights here", files.file));
        let place = files.files.as_deref().ok_or_else(missing)?;
        let part = Checkpoint::open(place).map_err(fail)?.ok_or_else(missing)?;
        if packing.is_none() {
            packing = Some(Packing::find(files.config.as_deref(), Some(place)).map_err(fail)?);
        }
        parts.push(part);
    }
    let checkpoint = Checkpoint::join(parts).map_err(fail)?;
    let weights = weights(&checkpoint, &packing.unwrap_or_default());
    take(&checkpoint, &weights).map_err(fail)
}

/// How a file of statistics begins, at the latest after the name of its input.
const START_BYTES: u64 = 8192;

/// The statistics in a file, if it holds any: in place of a checkpoint.
pub(super) fn written(id: &str) -> Result<Option<Stats>, Failure> {
    let is_file = std::fs::metadata(id).is_ok_and(|meta| meta.is_file());
    if !is_file || !(id.ends_with(".json") || id.ends_with(".jsonl")) {
        return Ok(None);
    }
    let fail = |reason: String| input(format!("{id}: {reason}"));
    let mut file = std::fs::File::open(id).map_err(|e| fail(e.to_string()))?;
    let mut text = Vec::new();
    let start = file.by_ref().take(START_BYTES).read_to_end(&mut text);
    start.map_err(|e| fail(e.to_string()))?;
    if !is_stats(&text) {
        return Ok(None);
    }
    file.read_to_end(&mut text)
        .map_err(|e| fail(e.to_string()))?;
    let parts = read(&text).map_err(|e| fail(e.to_string()))?;
    let parts = parts
        .into_iter()
        .map(|part| (id.to_string(), part))
        .collect();
    merge(parts).map(Some).map_err(|e| input(e.to_string()))
}
