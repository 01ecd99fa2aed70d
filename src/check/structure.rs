//! Do calls fit, does nothing contain itself, is every part known.

use super::Findings;
use super::parts::{Use, collect, module_calls};
use crate::db::{Children, Db, Entry, Row, RowKind, class_of};
use crate::formula::{Expr, Formula, Kind, ModuleCall, did_you_mean, functions};
use crate::model::PRIMITIVES;
use crate::value::{Name, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Calls name entries and fit their parameters.
pub(super) fn calls(db: &Db, entry: &Entry, findings: &mut Findings) {
    for (field, call, purpose) in module_calls(entry) {
        let key = match db.resolve(&call.class, &entry.file) {
            Ok(key) => key,
            Err(e) => {
                findings.add(
                    "unknown-class",
                    &entry.key,
                    format!("{field}: {}", e.reason),
                );
                continue;
            }
        };
        let Ok(called) = db.entry(&key) else { continue };
        if called.container {
            continue;
        }
        let takes = called.parameters.len();
        let names = called
            .parameters
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>();
        let given = call.positional.len();
        let named = |p: Name| call.named.iter().any(|(n, _)| *n == p);
        let lacking: Vec<&str> = called
            .parameters
            .iter()
            .skip(given)
            .filter(|p| p.default.is_none() && !named(p.name))
            .map(|p| p.name.as_str())
            .collect();
        // A child finds what it is not given in the modules around it; a template has nothing around it.
        if given > takes || (purpose == Use::Template && !lacking.is_empty()) {
            let lacks = if given <= takes {
                format!("; {} missing", lacking.join(", "))
            } else {
                String::new()
            };
            findings.add(
                "arity",
                &entry.key,
                format!(
                    "{field}: `{{{}}}` is defined with {takes} parameters ({}) and called with {}{lacks}",
                    call.class,
                    names.join(", "),
                    given + call.named.len()
                ),
            );
        }
    }
}

/// `forward` names children, primitives and functions.
pub(super) fn flows(db: &Db, entry: &Entry, findings: &mut Findings) {
    let Children::Named(named) = &entry.children else {
        return;
    };
    let children: Vec<&str> = named.iter().map(|(n, _)| n.as_str()).collect();
    let known = |name: &str| {
        children.contains(&name)
            || PRIMITIVES.iter().any(|p| p.name == name)
            || functions::find(name).is_some()
    };
    let mut run: Vec<Name> = Vec::new();
    for statement in entry.forward.iter().flatten() {
        statement.flow.expr.walk(&mut |e| {
            if let Kind::Call(name, _) = &e.kind {
                run.push(*name);
                if !known(name.as_str()) {
                    let hint = did_you_mean(
                        name.as_str(),
                        children
                            .iter()
                            .copied()
                            .chain(PRIMITIVES.iter().map(|p| p.name)),
                    );
                    findings.add(
                        "forward",
                        &entry.key,
                        format!("forward: `{name}` is neither a child nor a primitive{hint}"),
                    );
                }
            }
        });
    }
    if entry.forward.is_none() {
        return;
    }
    for (name, formula) in named {
        let mut calls = Vec::new();
        collect(&formula.expr, "", Use::Child, &mut calls);
        let says_calls = |(_, call, _): &(String, &ModuleCall, Use)| {
            call.named.iter().any(|(name, _)| name.as_str() == "calls")
        };
        let idle = calls.iter().any(says_calls) || costs_nothing(db, entry, &formula.expr);
        if !run.contains(name) && !idle {
            let reason = format!(
                "forward: the child `{name}` is never run; if that is meant, give it `calls=0`"
            );
            findings.add("forward", &entry.key, reason);
        }
    }
}

/// Whether a child is of a class that owns nothing and does nothing, so that running it makes no difference.
pub(super) fn costs_nothing(db: &Db, entry: &Entry, child: &Expr) -> bool {
    let mut calls = Vec::new();
    collect(child, "", Use::Child, &mut calls);
    calls.iter().all(|(_, call, _)| {
        let class = db
            .resolve(&call.class, &entry.file)
            .and_then(|key| db.entry(&key));
        class.is_ok_and(|class| {
            let childless = matches!(&class.children, Children::Named(named) if named.is_empty());
            childless && class.choose.is_none() && class.rows.is_empty() && class.weights.is_empty()
        })
    })
}

/// Rows name kinds that exist and tensors that can exist.
pub(super) fn rows(db: &Db, entry: &Entry, findings: &mut Findings) {
    let child = |name: &str| matches!(&entry.children, Children::Named(named) if named.iter().any(|(n, _)| n.as_str() == name));
    for Row {
        name,
        kind,
        operand,
        ..
    } in &entry.rows
    {
        match (kind, operand) {
            (RowKind::Elements(kind), _) => {
                if let Err(e) = db.elementwise(kind) {
                    findings.add(
                        "row-kind",
                        &entry.key,
                        format!("rows.{name}: `{kind}`: {}", e.reason),
                    );
                }
            }
            (RowKind::WeightMac, Some(operand)) => {
                let first = operand.split('.').next().unwrap_or_default();
                if !entry.weights.iter().any(|(w, _)| **w == **operand) && !child(first) {
                    findings.add(
                        "operand",
                        &entry.key,
                        format!("rows.{name}: the operand `{operand}` is neither a weight of the entry nor in a child"),
                    );
                }
            }
            (RowKind::ActMac, Some(operand)) if **operand != *"kv" => {
                findings.add(
                    "operand",
                    &entry.key,
                    format!("rows.{name}: the operand of an act_mac row is `kv` or absent, not `{operand}`"),
                );
            }
            _ => {}
        }
    }
    if let Some(experts) = &entry.experts {
        for tensor in experts
            .tensors
            .iter()
            .filter(|t| !entry.weights.iter().any(|(w, _)| w == *t))
        {
            findings.add(
                "operand",
                &entry.key,
                format!("experts.tensors: `{tensor}` is no weight of the entry"),
            );
        }
    }
    let macs = entry
        .rows
        .iter()
        .any(|r| matches!(r.kind, RowKind::WeightMac | RowKind::ActMac));
    let own_rows = entry.source.get("like").is_none() && db.key_as_written(&entry.key).is_some();
    if macs
        && own_rows
        && entry.task.is_none()
        && entry.examples.is_empty()
        && entry.overlay.is_none()
    {
        findings.add(
            "no-example",
            &entry.key,
            "it counts MACs and has no worked example",
        );
    }
}

/// `module_depends` lists what the templates call, no more and no less.
pub(super) fn depends(db: &Db, entry: &Entry, findings: &mut Findings) {
    let calls = module_calls(entry);
    let mut compare = |analysis: &str, listed: &[Arc<str>]| {
        if entry
            .source
            .get(analysis)
            .and_then(Value::as_object)
            .is_none_or(|o| o.get("module_depends").is_none())
        {
            return;
        }
        let key = |name: &str| {
            db.resolve(name, &entry.file)
                .unwrap_or_else(|_| name.into())
        };
        let called: Vec<Arc<str>> = calls
            .iter()
            .filter(|(field, _, _)| field.starts_with(analysis))
            .map(|(_, call, _)| key(&call.class))
            .collect();
        for name in listed.iter().filter(|name| !called.contains(&key(name))) {
            findings.add(
                "depends",
                &entry.key,
                format!("{analysis}.module_depends lists `{name}`, which no template of it calls"),
            );
        }
        for name in called
            .iter()
            .filter(|called| !listed.iter().any(|l| key(l) == **called))
        {
            findings.add(
                "depends",
                &entry.key,
                format!("{analysis}.module_depends lacks `{name}`, which a template of it calls"),
            );
        }
    };
    if let Some(analysis) = &entry.flop_analysis {
        compare("flop_analysis", &analysis.depends);
    }
    if let Some(analysis) = &entry.memory_analysis {
        compare("memory_analysis", &analysis.depends);
    }
}

/// A module that contains itself, or a template that calls itself, has no end.
pub(super) fn contains_itself(db: &Db, entry: &Entry, findings: &mut Findings) {
    for purpose in [Use::Child, Use::Template] {
        let mut open = vec![entry.key.clone()];
        let mut done = HashSet::new();
        if let Some(circle) = circle(db, entry, &entry.key, purpose, &mut open, &mut done) {
            let names: Vec<&str> = circle.iter().map(|key| class_of(key)).collect();
            let what = if purpose == Use::Child {
                "contains itself"
            } else {
                "is computed by itself"
            };
            findings.add(
                "cycle",
                &entry.key,
                format!("{what}: {} -> {}", names.join(" -> "), class_of(&entry.key)),
            );
        }
    }
}

pub(super) fn circle(
    db: &Db,
    entry: &Entry,
    target: &Arc<str>,
    purpose: Use,
    open: &mut Vec<Arc<str>>,
    done: &mut HashSet<Arc<str>>,
) -> Option<Vec<Arc<str>>> {
    for (_, call, used) in module_calls(entry) {
        if used != purpose {
            continue;
        }
        let Ok(key) = db.resolve(&call.class, &entry.file) else {
            continue;
        };
        if key == *target {
            return Some(open.clone());
        }
        if open.len() > crate::model::MAX_NESTING || !done.insert(key.clone()) {
            continue;
        }
        let Ok(next) = db.entry(&key) else { continue };
        open.push(key);
        let found = circle(db, next, target, purpose, open, done);
        open.pop();
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A `let` or a default that needs itself.
pub(super) fn defined_by_itself(db: &Db, entry: &Entry, findings: &mut Findings) {
    if let Err(e) = db.config_rules(entry) {
        findings.add("cycle", &entry.key, e.to_string());
    }
    let lets = entry.lets.iter().map(|(name, formula)| (*name, formula));
    let defaults = entry
        .parameters
        .iter()
        .filter_map(|p| Some((p.name, p.default.as_ref()?)));
    let defined: Vec<(Name, &Formula)> = lets.chain(defaults).collect();
    let needs = |name: Name| {
        let mut names = Vec::new();
        if let Some((_, formula)) = defined.iter().find(|(n, _)| *n == name) {
            formula.expr.walk(&mut |e| {
                if let Kind::Name(used) = e.kind {
                    names.push(used);
                }
            });
        }
        names
    };
    for (name, _) in &defined {
        // `n = n` as a default means the name of the module around.
        let (mut open, mut seen) = (needs(*name), HashSet::new());
        while let Some(next) = open.pop() {
            if next == *name {
                let reason = format!("`{name}` is defined by itself");
                findings.add("cycle", &entry.key, reason);
                break;
            }
            if seen.insert(next) {
                open.extend(needs(next));
            }
        }
    }
}

/// Callers of an entry that an overlay replaces by one with other parameters.
pub(super) fn broken_callers(db: &Db, entries: &[&Entry], findings: &mut Findings) {
    if db.overlays().is_empty() {
        return;
    }
    let Ok(embedded) = Db::embedded() else { return };
    for entry in entries {
        let Ok(before) = embedded.entry(&entry.key) else {
            continue;
        };
        let names = |e: &Entry| e.parameters.iter().map(|p| p.name).collect::<Vec<_>>();
        if names(before) == names(entry) {
            continue;
        }
        let mut broken = Vec::new();
        for key in db.keys() {
            let Ok(caller) = db.entry(&key) else { continue };
            let calls = module_calls(caller).into_iter().any(|(_, call, _)| {
                let bound = call.positional.len() + call.named.len();
                bound > 0
                    && db
                        .resolve(&call.class, &caller.file)
                        .is_ok_and(|key| key == entry.key)
            });
            if calls && caller.overlay.is_none() {
                broken.push(caller.path.to_string());
            }
        }
        if let Some(first) = broken.first() {
            let list = |e: &Entry| {
                names(e)
                    .iter()
                    .map(|n| n.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            findings.add(
                "callers",
                &entry.key,
                format!(
                    "it replaces an entry with the parameters ({}) by one with ({}); {} entries call it with the old ones, `{first}` first",
                    list(before),
                    list(entry),
                    broken.len()
                ),
            );
        }
    }
}
