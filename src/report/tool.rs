//! Who wrote a report: every JSON object says it.

use serde::Serialize;

/// The program, as its objects name it.
#[derive(Serialize)]
pub(super) struct Tool {
    name: &'static str,
    version: &'static str,
}

/// This program.
pub(super) const TOOL: Tool = Tool {
    name: "bitcost",
    version: env!("CARGO_PKG_VERSION"),
};
