//! `bitcost stats`: what the data of checkpoints says, for `compare` and `merge`.

use super::args::StatsArgs;
use super::output::{Broken, write_with};
use super::progress::WorkBar;
use super::{Exit, Failure, Outcome, input, usage};
use crate::checkpoint::packed::{Settings as Packing, Weights, weights};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::source::{self, Settings, SourceKind};
use crate::stats::{Stats, Writer, each, is_stats, merge, others, read, to_bytes};
use serde::Serialize;
use std::io::{BufRead, Read, Write};

impl From<CheckpointError> for Broken {
    fn from(e: CheckpointError) -> Broken {
        Broken::Made(input(e.to_string()))
    }
}

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
        return each_alone(args, &settings, inputs);
    }
    let inputs: Vec<String> = inputs.collect::<Result<_, Failure>>()?;
    if inputs.is_empty() {
        return Err(input("standard input names no file"));
    }
    let opened = Opened::new(args, &settings, &inputs)?;
    if let Some(path) = &args.output {
        write_with(Some(path), |out| opened.write(args, None, out))?;
        return Ok(Exit::Ok);
    }
    write_whole(&opened.text(args, None)?)?;
    Ok(Exit::Ok)
}

/// Each input for itself, a line as soon as it is known.
fn each_alone(
    args: &StatsArgs,
    settings: &Settings,
    inputs: impl Iterator<Item = Result<String, Failure>>,
) -> Outcome {
    let mut exit = Exit::Ok;
    for id in inputs {
        let id = id?;
        let opened = Opened::new(args, settings, std::slice::from_ref(&id));
        let line = match opened.and_then(|opened| opened.text(args, Some(&id))) {
            Ok(line) => line,
            Err(failure) => {
                exit = Exit::Input;
                let error = format!("{:#}", failure.error);
                let line = to_bytes(&Failed { file: &id, error });
                let mut line = line.map_err(|e| input(e.to_string()))?;
                line.push(b'\n');
                line
            }
        };
        write_whole(&line)?;
    }
    Ok(exit)
}

/// To standard output, which must not see the half of it if the rest cannot be read.
fn write_whole(text: &[u8]) -> Result<(), Failure> {
    write_with(None, |out| Ok(out.write_all(text)?))
}

/// Some inputs, which are one checkpoint.
struct Opened {
    checkpoint: Checkpoint,
    weights: Weights,
}

impl Opened {
    fn new(args: &StatsArgs, settings: &Settings, ids: &[String]) -> Result<Opened, Failure> {
        let fail = |e: CheckpointError| input(e.to_string());
        let wanted = super::inspect::wanted(&args.source, true);
        let mut parts = Vec::new();
        let mut packing: Option<Packing> = None;
        for id in ids {
            let files = source::open(id, &wanted, settings)?;
            let is_of_hub = files.source != SourceKind::Local && cfg!(feature = "hub");
            let missing = || {
                let advice = format!("; `bitcost fetch {id} --weights` fetches them");
                let advice = if is_of_hub { &advice } else { "" };
                input(format!("{}: there are no weights here{advice}", files.file))
            };
            let place = files.files.as_deref().ok_or_else(missing)?;
            let part = Checkpoint::open(place).map_err(fail)?.ok_or_else(missing)?;
            if packing.is_none() {
                packing = Some(Packing::find(files.config.as_deref(), Some(place)).map_err(fail)?);
            }
            parts.push(part);
        }
        let checkpoint = Checkpoint::join(parts).map_err(fail)?;
        let weights = weights(&checkpoint, &packing.unwrap_or_default());
        Ok(Opened {
            checkpoint,
            weights,
        })
    }

    /// Takes its statistics and writes them.
    fn write(
        &self,
        args: &StatsArgs,
        file: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), Broken> {
        let bytes = self.weights.weights.iter().map(|weight| weight.bytes);
        let bar = WorkBar::new("scanning", bytes.fold(0, u64::saturating_add), args.quiet);
        let mut writer = Writer::begin(out, file)?;
        let line = |facts| -> Result<Vec<u8>, Broken> { Ok(to_bytes(&facts)?) };
        each(&self.checkpoint, &self.weights, line, |line, bytes| {
            bar.iter().for_each(|bar| bar.done(bytes));
            Ok(writer.weight(&line)?)
        })?;
        Ok(writer.finish(&others(&self.checkpoint, &self.weights))?)
    }

    fn text(&self, args: &StatsArgs, file: Option<&str>) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        match self.write(args, file, &mut text) {
            Ok(()) => Ok(text),
            Err(Broken::Made(failure)) => Err(failure),
            Err(Broken::Write(e)) => Err(input(e.to_string())),
        }
    }
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
    let start = Read::by_ref(&mut file)
        .take(START_BYTES)
        .read_to_end(&mut text);
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
