//! `bitcost fetch`: files of a model into the Hub's cache.

use super::args::{DbFormat, FetchArgs};
use super::progress::bars::Bars;
use super::{Exit, Failure, Outcome, input, to_json, usage, write_out};
use crate::glob::matches;
use crate::source::{
    FetchError, Fetched, Hub, MAIN, Progress, RepoId, Settings, is_revision, short,
};
use crate::units;
use serde::Serialize;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a transfer may take to notice that it shall stop.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    tool: Tool,
    model: Model<'a>,
    snapshot: String,
    files: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    revision: &'a str,
    asked: &'a str,
    moved_to: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    bytes: u64,
    action: &'static str,
}

pub(super) fn run(args: &FetchArgs) -> Outcome {
    let settings = Settings::from_env();
    let revision = args.revision.as_deref().unwrap_or(MAIN);
    let id = id(&args.model)?;
    let fetcher = Fetcher::new(false)?;
    fetcher.fetch(&id, revision, &settings, |hub| {
        let names = chosen(hub, args)?;
        let fetched = hub.fetch(&names, &settings)?;
        say(args, hub, revision, &fetched)
    })?;
    Ok(Exit::Ok)
}

/// What transfers have in common: bars, and Ctrl-C, which a program can catch only once.
pub(super) struct Fetcher {
    bars: Arc<Bars>,
}

impl Fetcher {
    pub(super) fn new(quiet: bool) -> Result<Fetcher, Failure> {
        let bars = Arc::new(if quiet { Bars::hidden() } else { Bars::new() });
        stop_on_interrupt(&bars)?;
        Ok(Fetcher { bars })
    }

    /// A model's config and weights; gives the folder that they are in.
    pub(super) fn weights(
        &self,
        id: &RepoId,
        revision: &str,
        settings: &Settings,
    ) -> Result<PathBuf, Failure> {
        self.fetch(id, revision, settings, |hub| {
            let fetched = hub.fetch(&hub.usual_files(true)?, settings)?;
            Ok(fetched.snapshot)
        })
    }

    fn fetch<T>(
        &self,
        id: &RepoId,
        revision: &str,
        settings: &Settings,
        work: impl FnOnce(&Hub) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if !is_revision(revision) {
            return Err(crate::source::SourceError::BadRevision(revision.into()).into());
        }
        if settings.offline {
            return Err(input(format!(
                "{id} is to be fetched, but HF_HUB_OFFLINE forbids to ask the network; unset it"
            )));
        }
        let hub = Hub::open(id, revision, settings, self.bars.clone()).map_err(Failure::from);
        hub.and_then(|hub| work(&hub)).map_err(|failure| {
            // A request that failed because of it says something else.
            if self.bars.stopped() {
                FetchError::Interrupted.into()
            } else {
                failure
            }
        })
    }
}

fn id(model: &str) -> Result<RepoId, Failure> {
    RepoId::parse(model).ok_or_else(|| {
        usage(format!(
            "`{model}` cannot be a model of the Hub; ids are `name` or `organization/name`"
        ))
    })
}

/// Ctrl-C sets the flag that transfers look at; one that hangs in the network is not waited for long. On disk there is
/// nothing at any time but whole files and resumable parts.
fn stop_on_interrupt(bars: &Bars) -> Result<(), Failure> {
    let stop = bars.stop();
    let handler = move || {
        stop.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        #[allow(clippy::exit)] // The main thread hangs in a read that nothing else ends.
        std::process::exit(Exit::Interrupted as i32);
    };
    ctrlc::set_handler(handler).map_err(|e| input(format!("Ctrl-C cannot be caught: {e}")))
}

/// The files to fetch: those that patterns name, else those that belong to every model; weights if they are wanted.
fn chosen(hub: &Hub, args: &FetchArgs) -> Result<Vec<String>, Failure> {
    if args.files.is_empty() {
        return Ok(hub.usual_files(args.weights)?);
    }
    let names = hub.all_names();
    let mut chosen: Vec<String> = Vec::new();
    for glob in &args.files {
        let found: Vec<&String> = names.iter().filter(|name| matches(glob, name)).collect();
        if found.is_empty() {
            return Err(input(format!(
                "no file of {} matches `{glob}`; {}/tree/main lists them",
                args.model,
                hub.page()
            )));
        }
        chosen.extend(found.into_iter().cloned());
    }
    if args.weights {
        chosen.extend(hub.usual_files(true)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    chosen.retain(|name| seen.insert(name.clone()));
    Ok(chosen)
}

fn say(args: &FetchArgs, hub: &Hub, revision: &str, fetched: &Fetched) -> Result<(), Failure> {
    let snapshot = fetched.snapshot.display().to_string();
    if args.format == DbFormat::Json {
        let lines = fetched.files.iter().map(|file| Line {
            name: &file.name,
            bytes: file.bytes,
            action: file.action.name(),
        });
        let answer = Answer {
            schema: "bitcost.fetch/1",
            tool: Tool {
                name: "bitcost",
                version: env!("CARGO_PKG_VERSION"),
            },
            model: Model {
                id: &args.model,
                revision: hub.commit(),
                asked: revision,
                moved_to: hub.moved_to(),
            },
            snapshot,
            files: lines.collect(),
        };
        return write_out(&to_json(&answer)?, None);
    }
    if let Some(now) = hub.moved_to() {
        eprintln!("note: {} is called {} now", args.model, units::visible(now));
    }
    // The path alone, so that `cd $(bitcost fetch MODEL)` works; people get the rest beside it.
    if std::io::stderr().is_terminal() {
        let bytes = fetched.files.iter().map(|f| u128::from(f.bytes)).sum();
        eprintln!(
            "{} at {}: {} files, {}",
            args.model,
            short(hub.commit()),
            fetched.files.len(),
            units::binary(bytes)
        );
    }
    write_out(&snapshot, None)
}

impl From<FetchError> for Failure {
    fn from(e: FetchError) -> Failure {
        let exit = match e {
            FetchError::Interrupted => Exit::Interrupted,
            _ => Exit::Input,
        };
        Failure {
            exit,
            error: e.into(),
        }
    }
}
