//! Are names what they seem, and does something define them.

use super::Findings;
use super::parts::{formulas, reach};
use crate::db::{Children, Config, Db, DbError, Entry, key_of_path};
use crate::formula::{Kind, did_you_mean};
use crate::model::{PRIMITIVES, RESERVED, WORKLOAD_NAMES};
use crate::value::Name;
use std::collections::HashSet;
use std::sync::Arc;

/// The key is the path with dots as `__`.
pub(super) fn key_is_path(db: &Db, entry: &Entry, findings: &mut Findings) {
    let Some(written) = db.key_as_written(&entry.key) else {
        return;
    };
    let expected = key_of_path(&entry.path);
    if written != expected && written != &*entry.path {
        findings.add(
            "key",
            &entry.key,
            format!(
                "the key `{written}` is not that of its module_path `{}`, which is `{expected}`",
                entry.path
            ),
        );
    }
}

/// Names that would be read as something else.
pub(super) fn names(entry: &Entry, findings: &mut Findings) {
    let children: Vec<Name> = match &entry.children {
        Children::Named(named) => named.iter().map(|(n, _)| *n).collect(),
        Children::Numbered(_) => Vec::new(),
    };
    for parameter in &entry.parameters {
        // The row count is the first parameter of every row-wise leaf.
        if RESERVED.contains(&parameter.name.as_str()) && !entry.only_templates() {
            findings.add(
                "reserved",
                &entry.key,
                format!(
                    "the parameter `{}` has the name of an implicit value",
                    parameter.name
                ),
            );
        }
        if children.contains(&parameter.name) {
            findings.add(
                "clash",
                &entry.key,
                format!("`{}` is a child and a parameter", parameter.name),
            );
        }
    }
    for (name, _) in entry
        .lets
        .iter()
        .filter(|(name, _)| children.contains(name))
    {
        findings.add(
            "clash",
            &entry.key,
            format!("`{name}` is a child and a `let`"),
        );
    }
    // A child hides a primitive of its name in the same `forward`.
    let mut called = HashSet::new();
    for statement in entry.forward.iter().flatten() {
        statement.flow.expr.walk(&mut |e| {
            if let Kind::Call(name, args) = &e.kind {
                called.insert((*name, args.len()));
            }
        });
    }
    for child in &children {
        if PRIMITIVES.iter().any(|p| p.name == child.as_str())
            && called.iter().any(|(name, args)| name == child && *args > 1)
        {
            findings.add(
                "clash",
                &entry.key,
                format!("`{child}` is a child and a primitive that `forward` seems to mean"),
            );
        }
    }
}

/// Names on disk begin with something that the module owns or contains.
pub(super) fn on_disk(entry: &Entry, findings: &mut Findings) {
    let own = |path: &str| {
        let first = path.split('.').next().unwrap_or_default();
        let tensors = entry.weights.iter().chain(&entry.buffers);
        let child = match &entry.children {
            Children::Named(named) => named.iter().any(|(name, _)| name.as_str() == first),
            Children::Numbered(_) => first.bytes().all(|b| b.is_ascii_digit()),
        };
        child || tensors.into_iter().any(|(name, _)| **name == *first)
    };
    let paths = entry
        .on_disk
        .paths
        .iter()
        .map(|(tree, _)| ("stored_paths", tree));
    let assembled = entry
        .on_disk
        .assembled
        .iter()
        .map(|a| ("stored", &a.tensor));
    for (field, path) in paths.chain(assembled).filter(|(_, path)| !own(path)) {
        let reason =
            format!("{field}: `{path}` begins with neither a tensor nor a child of the module");
        findings.add("stored", &entry.key, reason);
    }
}

/// Tables that are not known, or not as they have to be.
pub(super) fn tables(db: &Db, findings: &mut Findings) {
    for table in db.tables() {
        let broken = match table {
            "$doc" => continue,
            "$elementwise" => db.elementwise_kinds().err(),
            "$quantization" => db.quantization().err(),
            "$stored" => db.stored_conventions().err(),
            "$graphs" => db.graphs().err(),
            _ => Some(DbError::schema(
                table,
                "",
                "there is no such table; there are $elementwise, $quantization, $stored, $graphs and $doc",
            )),
        };
        if let Some(e) = broken {
            findings.add("invalid", &table.into(), e.to_string());
        }
    }
}

/// Names that nothing in the whole database defines: no parameter, `let`, config name, argument or loop variable.
pub(super) fn unknown_names(db: &Db, entries: &[&Entry], findings: &mut Findings) {
    let mut known: HashSet<Name> = WORKLOAD_NAMES
        .iter()
        .chain(&RESERVED)
        .map(|n| Name::new(n))
        .collect();
    for key in db.keys() {
        let Ok(entry) = db.entry(&key) else { continue };
        known.extend(entry.parameters.iter().map(|p| p.name));
        known.extend(entry.lets.iter().map(|(n, _)| *n));
        known.extend(
            db.config_rules(entry)
                .unwrap_or_default()
                .iter()
                .map(|(n, _)| *n),
        );
        for (_, formula) in formulas(entry) {
            formula.expr.walk(&mut |e| match &e.kind {
                Kind::Module(call) => known.extend(call.named.iter().map(|(n, _)| *n)),
                Kind::For(f) => known.extend(f.vars.iter().copied()),
                _ => {}
            });
        }
    }
    for entry in entries {
        // An example may give what nothing else does.
        let given: HashSet<Name> = entry
            .examples
            .iter()
            .flat_map(|e| e.arguments.iter().map(|(n, _)| *n))
            .collect();
        for (field, formula) in formulas(entry) {
            formula.expr.walk(&mut |e| {
                if let Kind::Name(name) = e.kind
                    && !known.contains(&name)
                    && !given.contains(&name)
                {
                    let hint = did_you_mean(name.as_str(), known.iter().map(|n| n.as_str()));
                    findings.add(
                        "unknown-name",
                        &entry.key,
                        format!("{field}: nothing defines `{name}`{hint}"),
                    );
                }
            });
        }
    }
}

/// A name that two entries claim.
pub(super) fn aliases(entries: &[&Entry], findings: &mut Findings) {
    for entry in entries {
        for alias in &entry.aliases {
            let others = entries.iter().filter(|other| {
                other.key != entry.key && (other.aliases.contains(alias) || *other.path == **alias)
            });
            for other in others {
                findings.add(
                    "alias",
                    &entry.key,
                    format!("the alias `{alias}` is also a name of `{}`", other.key),
                );
            }
        }
    }
}

/// A composite's own default beats what a config says.
pub(super) fn hidden_config(db: &Db, entries: &[&Entry], findings: &mut Findings) {
    for root in entries
        .iter()
        .filter(|e| matches!(e.config, Some(Config::Rules(_))) && e.task.is_some())
    {
        let Ok(rules) = db.config_rules(root) else {
            continue;
        };
        let mut below = HashSet::new();
        reach(db, root, &mut below);
        let mut below: Vec<&Arc<str>> = below.iter().collect();
        below.sort();
        for key in below {
            let Ok(entry) = db.entry(key) else { continue };
            let composite = !matches!(&entry.children, Children::Named(named) if named.is_empty());
            for parameter in entry
                .parameters
                .iter()
                .filter(|p| composite && p.default.is_some())
            {
                // A rule that reads the file is what a user can set; the default here would win over it.
                if rules
                    .iter()
                    .any(|(n, rule)| *n == parameter.name && !rule.keys.is_empty())
                {
                    findings.add(
                        "hidden-config",
                        &entry.key,
                        format!(
                            "the default of `{}` hides the config name of `{}`; drop the default or rename it",
                            parameter.name, root.path
                        ),
                    );
                }
            }
        }
    }
}
