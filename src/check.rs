//! Holds the database against itself: every finding, not the first.
//!
//! [`check`] looks at every entry, or, where overlays are laid over the embedded database, at theirs and at whom they
//! break: names resolve, calls fit, nothing contains itself, `flop_analysis` and `memory_analysis` say what rows and
//! children say, every example holds, and every model of the catalog that an entry is the root of has a cost.

use crate::analysis::{self, ClassCost};
use crate::db::{
    Children, Config, Db, DbError, Entry, Fault, Row, RowKind, Task, class_of, key_of_path,
};
use crate::formula::{Expr, Formula, Kind, ModuleCall, did_you_mean, functions};
use crate::model::{
    Asked, Model, PRIMITIVES, Quantity, RESERVED, WORKLOAD_NAMES, Workload, expand_class,
    find_tensor, template_value,
};
use crate::source::Catalog;
use crate::value::{Name, Value};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

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
    let in_overlay = |key: &Arc<str>| {
        db.overlays().iter().any(|o| {
            db.key_as_written(key)
                .is_some_and(|written| o.keys.iter().any(|k| **k == *written))
        })
    };
    db.written_keys().into_iter().filter(in_overlay).collect()
}

/// What a module call is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Child,
    Template,
}

fn module_calls(entry: &Entry) -> Vec<(String, &ModuleCall, Use)> {
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

fn collect<'x>(
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

/// The key is the path with dots as `__`.
fn key_is_path(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn names(entry: &Entry, findings: &mut Findings) {
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

/// Calls name entries and fit their parameters.
fn calls(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn flows(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn costs_nothing(db: &Db, entry: &Entry, child: &Expr) -> bool {
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
fn rows(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn depends(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn contains_itself(db: &Db, entry: &Entry, findings: &mut Findings) {
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

fn circle(
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
fn defined_by_itself(db: &Db, entry: &Entry, findings: &mut Findings) {
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

/// Tables that are not known, or not as they have to be.
fn tables(db: &Db, findings: &mut Findings) {
    for table in db.tables() {
        let broken = match table {
            "$doc" => continue,
            "$elementwise" => db
                .elementwise("add")
                .err()
                .filter(|e| !e.reason.starts_with("no such kind")),
            "$quantization" => db.quantization().err(),
            _ => Some(DbError::schema(
                table,
                "",
                "there is no such table; there are $elementwise, $quantization and $doc",
            )),
        };
        if let Some(e) = broken {
            findings.add("invalid", &table.into(), e.to_string());
        }
    }
}

/// Names that nothing in the whole database defines: no parameter, `let`, config name, argument or loop variable.
fn unknown_names(db: &Db, entries: &[&Entry], findings: &mut Findings) {
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

/// Every formula of an entry except `forward`, with the field it stands in.
fn formulas(entry: &Entry) -> Vec<(String, &Formula)> {
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

/// Examples hold, and the second derivation agrees with the first on them and on multiples of their sizes.
fn examples(db: &Db, entry: &Entry, findings: &mut Findings) {
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
fn sampled(db: &Db, entry: &Entry, findings: &mut Findings) {
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

const QUANTITIES: [&str; 7] = [
    "params",
    "macs",
    "flops",
    "bops",
    "read_bytes",
    "write_bytes",
    "intermediate_bytes",
];

fn quantity_of(cost: &ClassCost, name: &str) -> Option<Option<u128>> {
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

fn scale(value: &Value, factor: i128) -> Value {
    match value {
        Value::Int(i) => Value::Int(i.saturating_mul(factor)),
        other => other.clone(),
    }
}

/// A count for a message.
fn number(n: Option<u128>) -> String {
    n.map_or_else(|| "no number".into(), |n| n.to_string())
}

fn second_derivation(db: &Db, entry: &Entry, arguments: &[(Name, Value)], findings: &mut Findings) {
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

/// A name that two entries claim.
fn aliases(entries: &[&Entry], findings: &mut Findings) {
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

/// Callers of an entry that an overlay replaces by one with other parameters.
fn broken_callers(db: &Db, entries: &[&Entry], findings: &mut Findings) {
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

/// A composite's own default beats what a config says.
fn hidden_config(db: &Db, entries: &[&Entry], findings: &mut Findings) {
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

fn reach(db: &Db, entry: &Entry, seen: &mut HashSet<Arc<str>>) {
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

/// Every root has a cost on the catalog's configs, with its tied tensors in place; a root without one, on its defaults.
fn roots(db: &Db, entries: &[&Entry], findings: &mut Findings) {
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
            if e.kind != Fault::Evaluation || e.reason.starts_with("unknown name") {
                findings.add("root", &root.key, format!("on its defaults: {e}"));
            }
        }
    }
}
