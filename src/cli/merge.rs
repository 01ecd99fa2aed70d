//! `bitcost merge`: statistics of parts of a checkpoint into those of the whole.

use super::args::MergeArgs;
use super::output::write_with;
use super::{Exit, Outcome, input};
use crate::stats::{merge, read, write};

pub(super) fn run(args: &MergeArgs) -> Outcome {
    let mut parts = Vec::new();
    for path in &args.parts {
        let label = path.display().to_string();
        let fail = |reason: String| input(format!("{label}: {reason}"));
        let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let found = read(&text).map_err(|e| fail(e.to_string()))?;
        parts.extend(found.into_iter().map(|stats| (label.clone(), stats)));
    }
    let whole = merge(parts).map_err(|e| input(e.to_string()))?;
    write_with(args.output.as_deref(), |out| Ok(write(&whole, out)?))?;
    Ok(Exit::Ok)
}
