//! Holds the database against itself: every finding, not the first.
//!
//! [`check()`] looks at every entry, or, where overlays are laid over the embedded database, at theirs and at whom they
//! break. One file per kind of question:
//!
//! - `names.rs`: are names what they seem, and does something define them
//! - `structure.rs`: do calls fit, does nothing contain itself, is every part known
//! - `numbers.rs`: do examples hold, do two derivations agree, does every root have a cost
//! - `parts.rs`: what an entry is made of, for all of them

mod names;
mod numbers;
mod parts;
mod structure;

pub use parts::{Dependency, dependencies, reads_name};

use crate::db::{Db, Entry};
use names::{aliases, hidden_config, key_is_path, names, on_disk, tables, unknown_names};
use numbers::{examples, roots, sampled};
use std::fmt;
use std::sync::Arc;
use structure::{broken_callers, calls, contains_itself, defined_by_itself, depends, flows, rows};

/// Something wrong or doubtful in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A short stable name for the kind of finding.
    pub code: &'static str,
    /// The entry's key.
    pub entry: Arc<str>,
    /// What is wrong, and where.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}: {}", self.code, self.entry, self.message)
    }
}

/// Checks the database.
pub fn check(db: &Db) -> Vec<Finding> {
    let mut findings = Findings::default();
    let subjects = subjects(db);
    let mut entries: Vec<&Entry> = Vec::new();
    for key in &subjects {
        match db.entry(key) {
            Ok(entry) => entries.push(entry),
            Err(e) => findings.add("invalid", key, e.to_string()),
        }
    }
    for entry in &entries {
        key_is_path(db, entry, &mut findings);
        names(entry, &mut findings);
        on_disk(entry, &mut findings);
        calls(db, entry, &mut findings);
        flows(db, entry, &mut findings);
        rows(db, entry, &mut findings);
        depends(db, entry, &mut findings);
        contains_itself(db, entry, &mut findings);
        defined_by_itself(db, entry, &mut findings);
        examples(db, entry, &mut findings);
        sampled(db, entry, &mut findings);
    }
    tables(db, &mut findings);
    unknown_names(db, &entries, &mut findings);
    aliases(&entries, &mut findings);
    broken_callers(db, &entries, &mut findings);
    hidden_config(db, &entries, &mut findings);
    roots(db, &entries, &mut findings);
    findings.found
}

#[derive(Default)]
struct Findings {
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, code: &'static str, entry: &Arc<str>, message: impl Into<String>) {
        let finding = Finding {
            code,
            entry: entry.clone(),
            message: message.into(),
        };
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }
}

/// The keys to check: those of the overlays, or all.
fn subjects(db: &Db) -> Vec<Arc<str>> {
    if db.overlays().is_empty() {
        return db.keys();
    }
    let in_overlay = |key: &Arc<str>| db.overlay_of(key).is_some();
    db.written_keys().into_iter().filter(in_overlay).collect()
}
