//! The command line: arguments in, a report on standard output, errors on standard error, an exit code.
//!
//! This is the only layer that prints. `args.rs` says what can be typed; each subcommand has its own file.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod baseline;
mod bench_kernel;
mod catalog;
mod compare;
mod db;
mod deploy;
mod device;
mod estimate;
#[cfg(feature = "hub")]
mod fetch;
mod inspect;
mod merge;
mod misc;
mod output;
mod progress;
mod run;
mod stats;
mod tokens;

use crate::db::DbError;
use crate::model::ModelError;
use crate::source::SourceError;
use args::{Cli, Command};
use clap::Parser;
use output::{to_json, write_out};
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// A gate failed, or `db check` found something.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// An input could not be read or is invalid.
    Input = 3,
    /// Modules without an entry under `--strict`.
    Unresolved = 4,
    /// Ctrl-C.
    Interrupted = 130,
}

/// An error with its exit code.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

type Outcome = Result<Exit, Failure>;

impl From<SourceError> for Failure {
    fn from(e: SourceError) -> Failure {
        Failure {
            exit: Exit::Input,
            error: e.into(),
        }
    }
}

#[cfg(feature = "hub")]
impl From<crate::source::HubError> for Failure {
    fn from(e: crate::source::HubError) -> Failure {
        SourceError::from(e).into()
    }
}

impl From<DbError> for Failure {
    fn from(e: DbError) -> Failure {
        Failure {
            exit: Exit::Input,
            error: e.into(),
        }
    }
}

/// A model error, with the file that it is about: the overlay where the entry stands in one, else the model's.
fn model_failure(db: &crate::db::Db, file: &str, error: ModelError) -> Failure {
    let exit = match error {
        ModelError::Workload(_) => Exit::Usage,
        _ => Exit::Input,
    };
    let overlay = match &error {
        ModelError::Db(e) => db.overlay_of(&e.entry),
        _ => None,
    };
    let file = overlay.map_or_else(
        || file.to_string(),
        |overlay| format!("{overlay} (for {file})"),
    );
    Failure {
        exit,
        error: anyhow::Error::new(error).context(file),
    }
}

fn input(reason: impl Into<String>) -> Failure {
    Failure {
        exit: Exit::Input,
        error: anyhow::anyhow!(reason.into()),
    }
}

fn usage(reason: impl Into<String>) -> Failure {
    Failure {
        exit: Exit::Usage,
        error: anyhow::anyhow!(reason.into()),
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Compare(args) => compare::run(&args),
        Command::Estimate(args) => estimate::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Run(args) => run::run(&args),
        Command::BenchKernel(args) => bench_kernel::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Device(args) => device::run(&args),
        Command::Db(args) => db::run(args),
        Command::Catalog(args) => catalog::run(&args),
        #[cfg(feature = "hub")]
        Command::Fetch(args) => fetch::run(&args),
        Command::Schema(args) => misc::schema(&args),
        Command::Completions(args) => misc::completions(&args),
        Command::Man(args) => misc::man(&args),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        report_error(&failure.error);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn report_error(error: &anyhow::Error) {
    let red = anstyle::Style::new()
        .bold()
        .fg_color(Some(anstyle::AnsiColor::Red.into()));
    let text = format!("{error:#}");
    // Line breaks are ours (the marked formula); other control characters come from files.
    anstream::eprintln!("{red}error:{red:#} {}", crate::units::visible_lines(&text));
}

/// The embedded database with the overlays of the command line.
fn database(overlays: &[std::path::PathBuf]) -> Result<crate::db::Db, Failure> {
    let mut db = crate::db::Db::embedded()?;
    for path in overlays {
        let text = read_text(path)?;
        let name = path.display().to_string();
        db.overlay(&name, &text)?;
    }
    Ok(db)
}

/// The text of a file, or of standard input where the path is `-`; one larger than any that is meant is refused, pipes and
/// devices included.
fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    use std::io::Read;
    const MAX_BYTES: u64 = 16 << 20;
    let fail = |reason: String| input(format!("{}: {reason}", path.display()));
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|e| fail(e.to_string()))?)
    };
    let mut content = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(|e| fail(e.to_string()))?;
    if content.len() as u64 > MAX_BYTES {
        return Err(fail(format!(
            "more than {MAX_BYTES} bytes, the most that is read"
        )));
    }
    String::from_utf8(content).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        fail(format!("not UTF-8 text: byte {at} begins no character"))
    })
}

/// SHA-256 over the embedded database and the overlays, in order.
fn database_hash(db: &crate::db::Db) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    hash.update(crate::db::EMBEDDED.as_bytes());
    for overlay in db.overlays() {
        hash.update(overlay.text.as_bytes());
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
