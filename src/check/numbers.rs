//! Do examples hold, do two derivations agree, does every root have a cost.

use super::Findings;
use crate::analysis::{self, ClassCost};
use crate::db::{Db, DbError, Entry, Fault, Task};
use crate::model::{Asked, Model, Quantity, Workload, expand_class, find_tensor, template_value};
use crate::source::Catalog;
use crate::value::{Name, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// Examples hold, and the second derivation agrees with the first on them and on multiples of their sizes.
pub(super) fn examples(db: &Db, entry: &Entry, findings: &mut Findings) {
    for (i, example) in entry.examples.iter().enumerate() {
        let cost =
            match analysis::evaluate(db, &entry.key, &example.arguments, &Workload::default()) {
                Ok(cost) => cost,
                Err(e) => {
                    findings.add("example", &entry.key, format!("example {}: {e}", i + 1));
                    continue;
                }
            };
        for (quantity, expected) in &example.expected {
            match quantity_of(&cost, quantity) {
                Some(found) if expected.as_int() == found.and_then(|n| i128::try_from(n).ok()) => {}
                Some(found) => {
                    let found = found.map_or("unknown".into(), |n| n.to_string());
                    findings.add(
                        "example",
                        &entry.key,
                        format!(
                            "example {}: {quantity} is {found}, the example says {expected}",
                            i + 1
                        ),
                    );
                }
                None => findings.add(
                    "example",
                    &entry.key,
                    format!(
                        "example {}: `{quantity}` is no quantity; there are {}",
                        i + 1,
                        QUANTITIES.join(", ")
                    ),
                ),
            }
        }
        for factors in [[1, 1, 1], [2, 1, 3], [3, 2, 2]] {
            let scaled: Vec<(Name, Value)> = example
                .arguments
                .iter()
                .enumerate()
                .map(|(j, (n, v))| (*n, scale(v, factors[j % 3])))
                .collect();
            second_derivation(db, entry, &scaled, findings);
        }
    }
}

/// Without an example the second derivation is held against the first on sizes made up for every name that is read.
pub(super) fn sampled(db: &Db, entry: &Entry, findings: &mut Findings) {
    let analyses = entry.flop_analysis.is_some() || entry.memory_analysis.is_some();
    // What is inherited was checked where it is written.
    let own = entry.source.get("like").is_none() && db.key_as_written(&entry.key).is_some();
    if !analyses || !own || !entry.examples.is_empty() || entry.only_templates() {
        return;
    }
    const SIZES: [i128; 6] = [12, 24, 36, 48, 60, 72];
    let mut names: Vec<Name> = entry
        .parameters
        .iter()
        .filter(|p| p.default.is_none())
        .map(|p| p.name)
        .collect();
    names.extend(
        ["B", "S", "N"]
            .map(Name::new)
            .iter()
            .filter(|n| !names.contains(n))
            .copied()
            .collect::<Vec<_>>(),
    );
    for round in 0..3 {
        let size = |i: usize| Value::Int(SIZES[(i + round) % SIZES.len()]);
        let mut arguments: Vec<(Name, Value)> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (*n, size(i)))
            .collect();
        // `N` follows from `B` and `S` where it is no parameter.
        if !entry.parameters.iter().any(|p| p.name.as_str() == "N") {
            arguments.retain(|(n, _)| n.as_str() != "N");
        }
        match analysis::evaluate(db, &entry.key, &arguments, &Workload::default()) {
            Ok(_) => second_derivation(db, entry, &arguments, findings),
            Err(e) => {
                let reason = format!(
                    "its two derivations could not be compared on made-up sizes; give it an example ({e})"
                );
                findings.add("no-example", &entry.key, reason);
                return;
            }
        }
    }
}

pub(super) const QUANTITIES: [&str; 7] = [
    "params",
    "macs",
    "flops",
    "bops",
    "read_bytes",
    "write_bytes",
    "intermediate_bytes",
];

pub(super) fn quantity_of(cost: &ClassCost, name: &str) -> Option<Option<u128>> {
    Some(match name {
        "params" => cost.params,
        "macs" => cost.macs,
        "flops" => cost.flops,
        "bops" => cost.bops,
        "read_bytes" => cost.read_bytes,
        "write_bytes" => cost.write_bytes,
        "intermediate_bytes" => cost.intermediate_bytes,
        _ => return None,
    })
}

pub(super) fn scale(value: &Value, factor: i128) -> Value {
    match value {
        Value::Int(i) => Value::Int(i.saturating_mul(factor)),
        other => other.clone(),
    }
}

/// A count for a message.
pub(super) fn number(n: Option<u128>) -> String {
    n.map_or_else(|| "no number".into(), |n| n.to_string())
}

pub(super) fn second_derivation(
    db: &Db,
    entry: &Entry,
    arguments: &[(Name, Value)],
    findings: &mut Findings,
) {
    if entry.only_templates() {
        return;
    }
    let workload = Workload::default();
    // Scaled sizes need not make sense (a kernel larger than its input); then there is nothing to compare.
    let Ok(cost) = analysis::evaluate(db, &entry.key, arguments, &workload) else {
        return;
    };
    let memory = entry.memory_analysis.as_ref();
    let pairs = [
        (
            entry.flop_analysis.as_ref().map(|a| &a.formula),
            "flop_analysis.formula_template",
            Quantity::Flops,
            cost.flops,
            "FLOPs",
        ),
        (
            memory.and_then(|m| m.reads.as_ref()),
            "memory_analysis.reads_template",
            Quantity::Reads,
            cost.read_bytes,
            "bytes read",
        ),
        (
            memory.and_then(|m| m.writes.as_ref()),
            "memory_analysis.writes_template",
            Quantity::Writes,
            cost.write_bytes,
            "bytes written",
        ),
        (
            memory.and_then(|m| m.intermediates.as_ref()),
            "memory_analysis.intermediates_template",
            Quantity::Intermediates,
            cost.intermediate_bytes,
            "bytes held",
        ),
    ];
    let given = || {
        arguments
            .iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (formula, field, quantity, own, unit) in pairs {
        let Some(formula) = formula else { continue };
        match template_value(db, entry, formula, field, quantity, arguments, &workload) {
            Ok(value) if value.as_int().and_then(|n| u128::try_from(n).ok()) == own => {}
            Ok(value) => {
                let own = own.map_or("unknown".into(), |n| n.to_string());
                findings.add(
                    "disagree",
                    &entry.key,
                    format!(
                        "{field} gives {value}, rows and children give {own} {unit} ({})",
                        given()
                    ),
                );
            }
            Err(e) => findings.add("disagree", &entry.key, e.to_string()),
        }
    }
    let breakdown = entry
        .flop_analysis
        .as_ref()
        .map(|a| &a.breakdown[..])
        .unwrap_or_default();
    if !breakdown.is_empty() {
        let parts: Result<Vec<Value>, DbError> = breakdown
            .iter()
            .map(|(name, f)| {
                template_value(
                    db,
                    entry,
                    f,
                    &format!("flop_analysis.breakdown.{name}"),
                    Quantity::Flops,
                    arguments,
                    &workload,
                )
            })
            .collect();
        match parts {
            Ok(parts) => {
                let sum = parts
                    .iter()
                    .try_fold(Value::Int(0), |sum, part| Value::add(&sum, part));
                let sum = sum
                    .ok()
                    .and_then(|s| s.as_int())
                    .and_then(|n| u128::try_from(n).ok());
                if sum != cost.flops {
                    findings.add(
                        "disagree",
                        &entry.key,
                        format!(
                            "the parts of flop_analysis.breakdown add up to {}, rows and children give {} ({})",
                            number(sum),
                            number(cost.flops),
                            given()
                        ),
                    );
                }
            }
            Err(e) => findings.add("disagree", &entry.key, e.to_string()),
        }
    }
}

/// Every root has a cost on the catalog's configs, with its tied tensors in place; a root without one, on its defaults.
pub(super) fn roots(db: &Db, entries: &[&Entry], findings: &mut Findings) {
    let catalog = Catalog::embedded();
    let mut met: HashSet<Arc<str>> = HashSet::new();
    for model in catalog.ids().filter_map(|id| catalog.get(id)) {
        let Ok(loaded) = Model::load(db, model.config.clone(), model.root.as_deref()) else {
            continue;
        };
        let Some(root) = loaded
            .root
            .filter(|root| db.overlays().is_empty() || entries.iter().any(|e| e.key == root.key))
        else {
            continue;
        };
        met.insert(root.key.clone());
        let analyzed = loaded
            .workload(&Asked::default())
            .and_then(|workload| loaded.expand(&workload));
        match analyzed {
            Err(e) => findings.add(
                "root",
                &root.key,
                format!("on the config of {}: {e}", model.id),
            ),
            Ok(tree) => {
                for (class, path, _) in &tree.unresolved {
                    findings.add(
                        "root",
                        &root.key,
                        format!(
                            "on the config of {}: {path} is a `{class}`, which has no entry",
                            model.id
                        ),
                    );
                }
                for tie in &root.tied {
                    for path in [&tie.tensor, &tie.original]
                        .into_iter()
                        .filter(|_| tie.when.is_none())
                    {
                        if find_tensor(&tree.root, path).is_none() {
                            findings.add(
                                "tied",
                                &root.key,
                                format!(
                                    "on the config of {}: there is no tensor `{path}`",
                                    model.id
                                ),
                            );
                        }
                    }
                }
            }
        }
    }
    for root in entries
        .iter()
        .filter(|e| e.task.is_some() && !met.contains(&e.key))
    {
        let length = if root.task == Some(Task::Audio) {
            16_000
        } else {
            4
        };
        let sizes =
            [("B", 1), ("S", length), ("dec_S", 2)].map(|(n, v)| (Name::new(n), Value::Int(v)));
        if let Err(e) = expand_class(db, &root.key, &sizes, &Workload::default()) {
            // Defaults need not make a model (no number of experts, say); a name that nobody supplies is a fault.
            if !matches!(e.kind, Fault::Evaluation | Fault::Overflow) {
                findings.add("root", &root.key, format!("on its defaults: {e}"));
            }
        }
    }
}
