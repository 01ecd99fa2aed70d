//! What an entry is made of: the classes that it calls, its formulas, the entries below it.

use crate::db::{Children, Config, Db, DbError, Entry};
use crate::formula::{Expr, Formula, Kind, ModuleCall};
use crate::value::Name;
use std::collections::HashSet;
use std::sync::Arc;

/// Another entry that an entry names.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The name as written.
    pub name: String,
    /// The key it means; `None` if it means nothing.
    pub key: Option<Arc<str>>,
    /// The path it means.
    pub path: Option<String>,
    /// The fields that name it.
    pub fields: Vec<String>,
}

/// Every entry that an entry names in its children, cases and templates.
pub fn dependencies(db: &Db, entry: &Entry) -> Result<Vec<Dependency>, DbError> {
    let mut deps: Vec<Dependency> = Vec::new();
    for (field, call, _) in module_calls(entry) {
        let key = db.resolve(&call.class, &entry.file).ok();
        match deps.iter_mut().find(|d| d.name == *call.class) {
            Some(known) => {
                if !known.fields.contains(&field) {
                    known.fields.push(field);
                }
            }
            None => {
                let path = key
                    .as_ref()
                    .map(|key| db.entry(key).map(|e| e.path.to_string()))
                    .transpose()?;
                deps.push(Dependency {
                    name: call.class.to_string(),
                    key,
                    path,
                    fields: vec![field],
                });
            }
        }
    }
    Ok(deps)
}

/// Whether anything that `entry` is built from reads the name: what `bitcost db eval` may be given.
pub fn reads_name(db: &Db, entry: &Entry, name: Name) -> bool {
    let mut keys = HashSet::new();
    reach(db, entry, &mut keys);
    let below = keys.iter().filter_map(|key| db.entry(key).ok());
    std::iter::once(entry).chain(below).any(|e| {
        let mut found = e.parameters.iter().any(|p| p.name == name);
        let statements = e.forward.iter().flatten().map(|s| &s.flow);
        for formula in formulas(e).into_iter().map(|(_, f)| f).chain(statements) {
            formula
                .expr
                .walk(&mut |node| found |= matches!(node.kind, Kind::Name(n) if n == name));
        }
        found
            || db
                .config_rules(e)
                .unwrap_or_default()
                .iter()
                .any(|(n, rule)| *n == name || rule.keys.iter().any(|k| **k == *name.as_str()))
    })
}

/// What a module call is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Child,
    Template,
}

pub(super) fn module_calls(entry: &Entry) -> Vec<(String, &ModuleCall, Use)> {
    let mut calls = Vec::new();
    match &entry.children {
        Children::Named(named) => named.iter().for_each(|(name, f)| {
            collect(&f.expr, &format!("children.{name}"), Use::Child, &mut calls)
        }),
        Children::Numbered(f) => collect(&f.expr, "children", Use::Child, &mut calls),
    }
    for (case, f) in entry.choose.iter().flatten() {
        collect(&f.expr, &format!("choose.{case}"), Use::Child, &mut calls);
    }
    if let Some(analysis) = &entry.flop_analysis {
        collect(
            &analysis.formula.expr,
            "flop_analysis.formula_template",
            Use::Template,
            &mut calls,
        );
        for (part, f) in &analysis.breakdown {
            collect(
                &f.expr,
                &format!("flop_analysis.breakdown.{part}"),
                Use::Template,
                &mut calls,
            );
        }
    }
    if let Some(analysis) = &entry.memory_analysis {
        for (field, f) in [
            ("reads_template", &analysis.reads),
            ("writes_template", &analysis.writes),
            ("intermediates_template", &analysis.intermediates),
        ] {
            if let Some(f) = f {
                collect(
                    &f.expr,
                    &format!("memory_analysis.{field}"),
                    Use::Template,
                    &mut calls,
                );
            }
        }
    }
    calls
}

pub(super) fn collect<'x>(
    expr: &'x Expr,
    field: &str,
    purpose: Use,
    calls: &mut Vec<(String, &'x ModuleCall, Use)>,
) {
    if let Kind::Module(call) = &expr.kind {
        calls.push((field.to_string(), call, purpose));
    }
    expr.children(&mut |child| collect(child, field, purpose, calls));
}

/// Every formula of an entry except `forward`, with the field it stands in.
pub(super) fn formulas(entry: &Entry) -> Vec<(String, &Formula)> {
    let mut out: Vec<&Formula> = Vec::new();
    out.extend(entry.parameters.iter().filter_map(|p| p.default.as_ref()));
    out.extend(entry.lets.iter().map(|(_, f)| f));
    out.extend(
        entry
            .weights
            .iter()
            .chain(&entry.buffers)
            .chain(&entry.cache)
            .map(|(_, f)| f),
    );
    out.extend(entry.rows.iter().map(|row| &row.formula));
    match &entry.children {
        Children::Named(named) => out.extend(named.iter().map(|(_, f)| f)),
        Children::Numbered(formula) => out.push(formula),
    }
    if let Some(t) = &entry.traffic {
        let parts = [
            &t.reads,
            &t.writes,
            &t.kv_reads,
            &t.kv_writes,
            &t.weight_reads,
            &t.intermediates,
        ];
        out.extend(parts.into_iter().flatten());
    }
    if let Some(Config::Rules(rules)) = &entry.config {
        out.extend(
            rules
                .iter()
                .flat_map(|(_, rule)| rule.missing.iter().chain(&rule.null)),
        );
    }
    out.extend(entry.flop_analysis.iter().map(|a| &a.formula));
    out.extend(
        entry
            .memory_analysis
            .iter()
            .flat_map(|m| m.reads.iter().chain(&m.writes).chain(&m.intermediates)),
    );
    out.extend(entry.positions.iter());
    out.extend(entry.decoder.iter().map(|(_, f)| f));
    out.extend(entry.notes.iter().map(|note| &note.when));
    out.extend(entry.requires.iter().map(|(condition, _)| condition));
    out.extend(
        entry
            .precision
            .weight
            .iter()
            .chain(&entry.precision.activation),
    );
    out.extend(entry.experts.iter().flat_map(|e| [&e.total, &e.per_token]));
    out.extend(entry.tied.iter().filter_map(|tie| tie.when.as_ref()));
    out.extend(entry.choose.iter().flatten().map(|(_, f)| f));
    out.extend(
        entry
            .flop_analysis
            .iter()
            .flat_map(|a| a.breakdown.iter().map(|(_, f)| f)),
    );
    out.into_iter().map(|f| (f.field.to_string(), f)).collect()
}

pub(super) fn reach(db: &Db, entry: &Entry, seen: &mut HashSet<Arc<str>>) {
    for (_, call, purpose) in module_calls(entry) {
        // A call that gives arguments decides for itself.
        if let (Use::Child, Ok(key)) = (purpose, db.resolve(&call.class, &entry.file))
            && seen.insert(key.clone())
            && let Ok(next) = db.entry(&key)
        {
            reach(db, next, seen);
        }
    }
}
