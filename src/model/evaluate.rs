//! One class under given arguments, without a model around it: `bitcost db eval`, examples, library calls.

use super::expand::Expansion;
use super::load::Tree;
use super::quantity::{self, Quantity};
use super::scope::{Evaluator, ModuleScope, Scope, ScopeKind};
use super::shape::Flow;
use super::workload::Workload;
use crate::db::{Db, DbError, Entry, Fault};
use crate::formula::Formula;
use crate::value::{Name, Object, Value};
use std::rc::Rc;
use std::sync::Arc;

/// Names that have a value even if nobody gives one. How many rows there are (`N`, `B`, `S`) is never guessed.
fn defaults(widths: &Workload) -> Vec<(Name, Value)> {
    widths
        .names()
        .into_iter()
        .filter(|(name, _)| !matches!(name.as_str(), "B" | "S" | "dec_S"))
        .collect()
}

/// The tree of one class under arguments. Its config, if it reads one, is made of the arguments too.
pub fn expand_class<'e>(
    db: &'e Db,
    class: &str,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Result<Tree<'e>, DbError> {
    let entry = entry_of(db, class)?;
    let mut expansion = Expansion::new(db);
    expansion.evaluator.quantity = Some(quantity::of_call);
    let (given, config, input) = surroundings(arguments, workload);
    let (root, _) = expansion
        .root(
            entry,
            quantity::own_arguments(entry, arguments),
            given,
            input,
            Some(config),
        )
        .map_err(|e| needs_argument(entry, e))?;
    let tied = expansion.ties(entry, &root)?;
    Ok(Tree {
        root,
        tied,
        unresolved: expansion.missing,
        quantized_bits: None,
    })
}

/// The value of one of an entry's own templates under arguments.
pub(crate) fn template_value<'e>(
    db: &'e Db,
    entry: &'e Entry,
    formula: &'e Formula,
    field: &str,
    quantity: Quantity,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Result<Value, DbError> {
    let mut evaluator = Evaluator::new(db);
    evaluator.quantity = Some(quantity::of_call);
    evaluator.asked = quantity;
    let scope = class_scope(entry, arguments, workload);
    let result = evaluator.value(&scope, &formula.expr);
    result.map(|(value, _)| value).map_err(|e| {
        needs_argument(
            entry,
            evaluator.failed(&scope, &entry.key, field, &formula.text, &formula.expr, e),
        )
    })
}

/// A scope of an entry whose names are given by hand.
pub(super) fn class_scope<'e>(
    entry: &'e Entry,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Rc<Scope<'e>> {
    let (given, config, input) = surroundings(arguments, workload);
    Scope::new(
        Some(given),
        ScopeKind::Module(Box::new(ModuleScope {
            entry,
            args: Vec::new(),
            given: quantity::own_arguments(entry, arguments),
            call: None,
            input,
            config: Some(config),
            rules: &[],
        })),
    )
}

fn surroundings<'e>(
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> (Rc<Scope<'e>>, Arc<Object>, Flow) {
    let mut names = arguments.to_vec();
    names.extend(
        defaults(workload)
            .into_iter()
            .filter(|(name, _)| !arguments.iter().any(|(given, _)| given == name)),
    );
    let size = |name: &str| {
        arguments
            .iter()
            .find(|(n, _)| n.as_str() == name)
            .and_then(|(_, v)| v.as_int())
    };
    let input = Flow {
        s: size("S"),
        h: size("H"),
        w: size("W"),
        c: size("C"),
        data: false,
    };
    let config = Object(
        arguments
            .iter()
            .map(|(n, v)| (n.as_str().into(), v.clone()))
            .collect(),
    );
    (
        Scope::new(None, ScopeKind::Given(names)),
        Arc::new(config),
        input,
    )
}

/// The entry of a class named by path, key or class name.
pub fn entry_of<'e>(db: &'e Db, class: &str) -> Result<&'e Entry, DbError> {
    db.entry(&db.resolve(class, "")?)
}

/// Says which arguments a class takes when one was missing.
fn needs_argument(entry: &Entry, mut error: DbError) -> DbError {
    if error.kind == Fault::UnknownName {
        let takes: Vec<String> = entry
            .parameters
            .iter()
            .map(|p| {
                if p.default.is_some() {
                    format!("[{}=..]", p.name)
                } else {
                    format!("{}=..", p.name)
                }
            })
            .collect();
        let takes = if takes.is_empty() {
            String::new()
        } else {
            format!("; {} takes {}", entry.path, takes.join(" "))
        };
        error.reason = format!("{}; give it as NAME=VALUE{takes}", error.reason);
    }
    error
}
