//! `bitcost deploy`: float weights into packed ternary ones that transformers loads.
//!
//! - `config.rs`: the config of the packed model
//! - `plan.rs`: which layers become ternary
//! - `pack.rs`: the files with weights, tensor by tensor
//! - `place.rs`: a place beside the output, until all of it is there

mod config;
mod pack;
mod place;
mod plan;

use super::args::{DbFormat, DeployArgs};
use super::progress::WorkBar;
use super::{Exit, Failure, Outcome, database, input, to_json, write_out};
use crate::checkpoint::Checkpoint;
use crate::join::Headers;
use crate::report::deploy::{DeployMeta, Report, json, table};
use crate::source::{
    self, Files, MAX_SMALL_FILE_BYTES, ModelFiles, Settings, Wanted, is_other_format,
};
use pack::{Packer, Watch};
use place::{Draft, Kind};
use plan::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that describes a model.
const CONFIG: &str = "config.json";

/// How names of indices end.
const INDEX_ENDING: &str = ".index.json";

/// The index of a model that has none.
const INDEX: &str = "model.safetensors.index.json";

pub(super) fn run(args: &DeployArgs) -> Outcome {
    let source = Input::open(&args.input)?;
    let target = place::check(args, &source)?;
    let db = database(&args.module_db)?;
    let plan = plan::plan(args, &db, &source)?;
    let stop = interrupts()?;
    let bar = WorkBar::new("packing", source.bytes(), args.quiet);
    let done = |bytes: u64| bar.iter().for_each(|bar| bar.done(bytes));
    let watch = Watch {
        done: &done,
        stop: &stop,
    };
    let packer = Packer::new(&source, &plan, watch);
    let draft = Draft::new(&target, source.kind)?;
    let (report, copied) = match source.kind {
        Kind::File => (file(&packer, &draft)?, Copied::default()),
        Kind::Folder => folder(&source, &plan, &packer, &draft)?,
    };
    draft.keep(args.force)?;
    drop(bar);
    say(args, &plan, report, copied)
}

/// A checkpoint of floats, opened as far as its headers.
struct Input {
    files: ModelFiles,
    /// Everything beside the weights.
    place: Arc<dyn Files>,
    headers: Headers,
    /// Whether a file was named, or all of a folder.
    kind: Kind,
    /// The folder that the weights lie in.
    folder: PathBuf,
}

impl Input {
    fn open(id: &str) -> Result<Input, Failure> {
        let wanted = Wanted {
            offline: true,
            ..Wanted::default()
        };
        let files = source::open(id, &wanted, &Settings::from_env())?;
        let missing = || {
            input(format!(
                "{}: there are no weights here; `bitcost fetch {id} --weights` downloads those of a model of the Hub",
                files.file
            ))
        };
        let place = files.files.clone().ok_or_else(missing)?;
        let headers = Headers::read(&*place, files.config.as_deref());
        let headers = headers
            .map_err(|e| input(e.to_string()))?
            .ok_or_else(missing)?;
        let path = headers
            .checkpoint
            .files
            .first()
            .and_then(|f| f.path.clone());
        let folder = path.ok_or_else(missing)?;
        let folder = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        Ok(Input {
            kind: if place.named().is_some() {
                Kind::File
            } else {
                Kind::Folder
            },
            folder: folder.unwrap_or(Path::new(".")).into(),
            files,
            place,
            headers,
        })
    }

    fn checkpoint(&self) -> &Checkpoint {
        &self.headers.checkpoint
    }

    /// Bytes of all tensors.
    fn bytes(&self) -> u64 {
        self.checkpoint().tensors.iter().map(|t| t.bytes).sum()
    }
}

/// Ctrl-C sets the flag that the work looks at between pieces; what it has written is then removed.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|e| input(format!("Ctrl-C cannot be caught: {e}")))?;
    Ok(stop)
}

/// One file into one file.
fn file(packer: &Packer<'_>, draft: &Draft) -> Result<Report, Failure> {
    let mut report = Report::default();
    packer.write(0, draft.path(), &mut report)?;
    Ok(report)
}

/// What a folder has beside its weights.
#[derive(Default)]
struct Copied {
    /// Copied as they are.
    files: Vec<String>,
    /// Left where they are, and why.
    left: Vec<(String, &'static str)>,
}

/// A folder into a folder: the files with weights, their index, the config, and what else is small.
fn folder(
    source: &Input,
    plan: &Plan,
    packer: &Packer<'_>,
    draft: &Draft,
) -> Result<(Report, Copied), Failure> {
    let mut report = Report::default();
    let files = &source.checkpoint().files;
    for (number, file) in files.iter().enumerate() {
        packer.write(number, &draft.path().join(&*file.name), &mut report)?;
    }
    let names = source.place.names()?;
    let mut copied = Copied::default();
    for name in &names {
        let is_weights = files.iter().any(|file| *file.name == **name);
        if name == CONFIG || is_weights || name.ends_with(INDEX_ENDING) {
            continue;
        }
        if name.ends_with(".safetensors") || is_other_format(name) {
            copied
                .left
                .push((name.clone(), "weights that the model does not load"));
            continue;
        }
        let path = source.place.path(name);
        let bytes = path
            .as_deref()
            .and_then(|path| std::fs::metadata(path).ok());
        if bytes.is_some_and(|meta| meta.len() > MAX_SMALL_FILE_BYTES) {
            copied
                .left
                .push((name.clone(), "too large to belong to a config or tokenizer"));
            continue;
        }
        if let Some(content) = source.place.read(name)? {
            draft.write(name, &content)?;
            copied.files.push(name.clone());
        }
    }
    if let Some(name) = index_name(&names, files.len()) {
        let before = source.place.read(name)?;
        let text = index(before.as_deref(), &report, name)?;
        draft.write(name, text.as_bytes())?;
    }
    if let Some(config) = &plan.config {
        draft.write(CONFIG, config.as_bytes())?;
    }
    Ok((report, copied))
}

/// The index that the files of weights need: the one there is, or a new one where they are several.
fn index_name(names: &[String], files: usize) -> Option<&str> {
    let is_index = |name: &&String| name.ends_with(&format!(".safetensors{INDEX_ENDING}"));
    let found = names.iter().find(|name| *name == INDEX);
    let found = found.or_else(|| names.iter().find(is_index));
    // Beside the single file an index is what is left of something else.
    let single = names.iter().any(|name| name == "model.safetensors");
    match found.filter(|_| !single) {
        Some(name) => Some(name),
        None => (files > 1).then_some(INDEX),
    }
}

/// The index of what was written, with the metadata of the one before.
fn index(before: Option<&[u8]>, report: &Report, name: &str) -> Result<String, Failure> {
    let wrong = |reason: String| input(format!("{name}: {reason}"));
    let mut metadata = BTreeMap::new();
    if let Some(before) = before {
        let text = std::str::from_utf8(before).map_err(|e| wrong(e.to_string()))?;
        let keys = crate::json::read_index(text).map_err(|e| wrong(e.to_string()))?;
        if let Some((_, old)) = keys.iter().find(|(key, _)| **key == *"metadata") {
            let old = crate::json::read_index(old).map_err(|e| wrong(e.to_string()))?;
            metadata.extend(
                old.iter()
                    .map(|(key, value)| (key.to_string(), value.trim().to_string())),
            );
        }
    }
    metadata.insert("total_size".into(), report.data_bytes.to_string());
    let tensors = report.tensors.iter().map(|(name, file)| (&**name, &**file));
    Ok(crate::checkpoint::write::index(
        &metadata,
        &tensors.collect(),
    ))
}

fn say(args: &DeployArgs, plan: &Plan, report: Report, copied: Copied) -> Outcome {
    let meta = DeployMeta {
        input: args.input.clone(),
        output: args.output.display().to_string(),
        linear_class: plan.class.name(),
        quantization_config: plan.config.is_some(),
        kept: plan.kept.clone(),
        copied: copied.files,
        left: copied.left,
    };
    let text = match args.format {
        DbFormat::Json => to_json(&json(&meta, &report))?,
        DbFormat::Table => table(&meta, &report),
    };
    if !args.quiet {
        write_out(&text, None)?;
    }
    Ok(Exit::Ok)
}
