//! How a number came about: formula first, then with numbers in it, then what comes out.

use super::evaluate::{class_scope, entry_of, expand_class};
use super::load::{Model, ModelError};
use super::node::{Node, Work};
use super::quantity::{self, Quantity};
use super::scope::{Evaluator, Scope};
use super::workload::Workload;
use crate::db::{Db, DbError, Entry, RowKind};
use crate::formula::{Binary, Expr, Formula, Kind, nearest};
use crate::value::{Name, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// One step of an explanation.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Step {
    /// What is explained: a module, a row, a term.
    pub label: String,
    /// The formula as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formula: Option<String>,
    /// The formula with numbers in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers: Option<String>,
    /// The result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u128>,
    /// What the result counts.
    pub unit: String,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// Explains one module of a model; its children are named with their sums.
pub fn explain_module(
    model: &Model<'_>,
    workload: &Workload,
    path: &str,
) -> Result<Step, ModelError> {
    let tree = model.expand(workload)?;
    let (node, runs) = find(&tree.root, path, 1).map_err(ModelError::Workload)?;
    let mut explainer = Explainer::new(model.db);
    let mut step = explainer.module(
        &node,
        if path.is_empty() { "(model)" } else { path },
        runs,
        1,
    )?;
    if let Some(entry) = node.entry {
        step.label = format!("{}, entry `{}`", step.label, entry.key);
    }
    Ok(step)
}

/// Explains one class under arguments, all the way down.
pub fn explain_class(
    db: &Db,
    class: &str,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Result<Step, DbError> {
    let entry = entry_of(db, class)?;
    let mut explainer = Explainer::new(db);
    if entry.only_templates() {
        let scope = class_scope(entry, arguments, workload);
        let given = entry
            .parameters
            .iter()
            .map(|p| explainer.number(&scope, p.name))
            .collect::<Vec<_>>()
            .join(", ");
        return explainer.template(
            entry,
            &scope,
            format!("{}({given})", crate::db::class_of(&entry.key)),
        );
    }
    let tree = expand_class(db, class, arguments, workload)?;
    let label = arguments
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect::<Vec<_>>()
        .join(", ");
    explainer.module(
        &tree.root,
        &format!("{}({label})", crate::db::class_of(&entry.key)),
        1,
        usize::MAX,
    )
}

/// The module at a path, and how often one pass of the model runs it. `0-31` means the first of them.
fn find<'e>(root: &Rc<Node<'e>>, path: &str, runs: u128) -> Result<(Rc<Node<'e>>, u128), String> {
    let mut node = root.clone();
    let mut runs = runs * node.calls;
    let mut rest = path.to_string();
    while !rest.is_empty() {
        // A range in braces holds no dots, so the first dot ends the name.
        let (first, tail) = rest
            .split_once('.')
            .map_or((rest.clone(), String::new()), |(a, b)| (a.into(), b.into()));
        // `0-31` and `{0-4,6-10}` name equal items, as rows do; the first of them stands for all.
        let number = first_of_span(&first, node.children.len());
        let named = |wanted: &str| node.children.iter().find(|(name, _)| **name == *wanted);
        let child = named(&first).or_else(|| number.as_deref().and_then(named));
        let Some((_, child)) = child else {
            let known: Vec<&str> = node.children.iter().map(|(n, _)| &**n).collect();
            let numbered = first.starts_with(|c: char| c.is_ascii_digit());
            let near = nearest(&first, known.iter().copied()).filter(|_| !numbered);
            let hint = near.map_or_else(
                || {
                    if known.is_empty() {
                        "; it has no children".into()
                    } else {
                        format!(
                            "; it has {}",
                            known
                                .iter()
                                .take(12)
                                .copied()
                                .collect::<Vec<_>>()
                                .join(", ")
                        )
                    }
                },
                |near| format!(", did you mean `{near}`?"),
            );
            return Err(format!(
                "no module `{path}`: {} has no child `{first}`{hint}",
                node.class
            ));
        };
        runs = runs.saturating_mul(child.calls);
        node = child.clone();
        rest = tail;
    }
    Ok((node, runs))
}

/// The first number of a span that lies within a list of `length` items.
fn first_of_span(text: &str, length: usize) -> Option<String> {
    let inside = text
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .unwrap_or(text);
    let ends = inside
        .split([',', '-'])
        .map(|end| end.parse::<usize>().ok());
    let ends: Option<Vec<usize>> = ends.collect();
    ends.filter(|ends| ends.len() > 1 && ends.iter().all(|end| *end < length))
        .map(|ends| ends[0].to_string())
}

struct Explainer<'e> {
    evaluator: Evaluator<'e>,
    /// FLOPs of the trees that were asked for.
    known: HashMap<*const Node<'e>, u128>,
}

impl<'e> Explainer<'e> {
    fn new(db: &'e Db) -> Explainer<'e> {
        let mut evaluator = Evaluator::new(db);
        evaluator.quantity = Some(quantity::of_call);
        Explainer {
            evaluator,
            known: HashMap::new(),
        }
    }

    /// FLOPs of one run of a tree.
    fn flops(&mut self, node: &Rc<Node<'e>>) -> Option<u128> {
        quantity::sum(node, Quantity::Flops, 8, &mut self.known)
    }

    fn module(
        &mut self,
        node: &Rc<Node<'e>>,
        label: &str,
        runs: u128,
        depth: usize,
    ) -> Result<Step, DbError> {
        let times = if runs == 1 {
            String::new()
        } else {
            format!(", run {runs} times")
        };
        let mut step = Step {
            label: format!("{label} = {}{times}", node.class),
            value: self.flops(node).map(|f| f.saturating_mul(runs)),
            unit: "FLOPs".into(),
            ..Step::default()
        };
        for tensor in &node.tensors {
            let shape = tensor
                .shape
                .iter()
                .map(u128::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            step.steps.push(Step {
                label: format!("tensor {} [{shape}]", tensor.name),
                value: Some(tensor.elements),
                unit: "parameters".into(),
                ..Step::default()
            });
        }
        if let Some(entry) = node.entry {
            let mut used = Vec::new();
            for (row, work) in entry.rows.iter().zip(&node.work) {
                names_of(&row.formula.expr, &mut used);
                step.steps.push(self.row(&node.scope, &row.formula, work)?);
            }
            for (name, formula) in entry.lets.iter().filter(|(name, _)| used.contains(name)) {
                let numbers = self.numbers(&node.scope, &formula.expr);
                let value = self.number(&node.scope, *name);
                step.steps.push(Step {
                    label: format!("where {name} = {value}"),
                    formula: Some(formula.text.to_string()),
                    numbers: Some(numbers),
                    ..Step::default()
                });
            }
            if node.status == super::node::Status::Estimated
                && let Some(analysis) = &entry.flop_analysis
            {
                step.steps
                    .extend(self.terms(entry, &node.scope, &analysis.formula)?);
            }
        }
        let mut at = 0;
        while at < node.children.len() {
            // Equal neighbours of a list are one step.
            let (name, child) = &node.children[at];
            let equal = node.children[at..]
                .iter()
                .take_while(|(_, other)| Rc::ptr_eq(other, child))
                .count();
            let label = if equal > 1 {
                format!("{name}-{} (x{equal})", node.children[at + equal - 1].0)
            } else {
                name.to_string()
            };
            let runs = child.calls.saturating_mul(equal as u128);
            let inner = if depth > 1 {
                self.module(child, &label, runs, depth - 1)?
            } else {
                Step {
                    label: format!("child {label} = {}", child.class),
                    value: self.flops(child).map(|f| f.saturating_mul(runs)),
                    unit: "FLOPs".into(),
                    ..Step::default()
                }
            };
            step.steps.push(inner);
            at += equal;
        }
        Ok(step)
    }

    fn row(
        &mut self,
        scope: &Rc<Scope<'e>>,
        formula: &Formula,
        work: &Work<'e>,
    ) -> Result<Step, DbError> {
        let numbers = self.numbers(scope, &formula.expr);
        let (label, unit) = match work.kind {
            RowKind::WeightMac => (
                format!(
                    "{}: activations x {}",
                    work.name,
                    work.operand.unwrap_or("weight")
                ),
                "MACs, 2 FLOPs each".to_string(),
            ),
            RowKind::ActMac => (
                format!("{}: activations x activations", work.name),
                "MACs, 2 FLOPs each".to_string(),
            ),
            RowKind::Flops => (work.name.to_string(), "FLOPs".to_string()),
            RowKind::Elements(kind) => {
                let each = self.evaluator.db.elementwise(kind)?.flops;
                let unit = match each {
                    0 => "elements, no FLOPs".to_string(),
                    1 => "elements, 1 FLOP each".to_string(),
                    n => format!("elements, {n} FLOPs each"),
                };
                (format!("{}: {kind}", work.name), unit)
            }
        };
        Ok(Step {
            label,
            formula: Some(formula.text.to_string()),
            numbers: Some(numbers),
            value: Some(work.count),
            unit,
            ..Step::default()
        })
    }

    /// An entry that has only a template: its terms, and what they call.
    fn template(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        label: String,
    ) -> Result<Step, DbError> {
        let Some(analysis) = &entry.flop_analysis else {
            return Err(DbError::schema(
                &entry.key,
                "flop_analysis",
                "there is none to explain",
            ));
        };
        let value = self.evaluator.value(scope, &analysis.formula.expr);
        let value = value.map_err(|e| {
            self.evaluator.failed(
                scope,
                &entry.key,
                "flop_analysis.formula_template",
                &analysis.formula.text,
                &analysis.formula.expr,
                e,
            )
        })?;
        let steps = self.terms(entry, scope, &analysis.formula)?;
        Ok(Step {
            label,
            value: value.0.as_int().and_then(|v| u128::try_from(v).ok()),
            unit: "FLOPs".into(),
            steps,
            ..Step::default()
        })
    }

    /// The terms of a template's outermost sum, each with the modules that it calls.
    fn terms(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        formula: &'e Formula,
    ) -> Result<Vec<Step>, DbError> {
        let mut terms = Vec::new();
        split_sum(&formula.expr, &mut terms);
        let mut steps = Vec::new();
        for term in terms {
            let (value, _) = self.evaluator.value(scope, term).map_err(|e| {
                DbError::eval(
                    &entry.key,
                    "flop_analysis.formula_template",
                    &formula.text,
                    e,
                )
            })?;
            let mut step = Step {
                label: term.to_string(),
                formula: None,
                numbers: Some(self.numbers(scope, term)),
                value: value.as_int().and_then(|v| u128::try_from(v).ok()),
                unit: "FLOPs".into(),
                steps: Vec::new(),
            };
            let mut calls = Vec::new();
            calls_of(term, &mut calls);
            for call in calls {
                step.steps.push(self.called(entry, scope, call)?);
            }
            steps.push(step);
        }
        Ok(steps)
    }

    fn called(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        call: &'e crate::formula::ModuleCall,
    ) -> Result<Step, DbError> {
        let key = self.evaluator.db.resolve(&call.class, &entry.file)?;
        let called = self.evaluator.db.entry(&key)?;
        let mut arguments: Vec<(Name, Value)> = Vec::new();
        let positional = called
            .parameters
            .iter()
            .map(|p| p.name)
            .zip(&call.positional);
        for (name, expr) in positional.chain(call.named.iter().map(|(n, e)| (*n, e))) {
            let (value, _) = self.evaluator.value(scope, expr).map_err(|e| {
                DbError::schema(&entry.key, "flop_analysis.formula_template", e.to_string())
            })?;
            arguments.push((name, value));
        }
        explain_class(self.evaluator.db, &key, &arguments, &Workload::default())
    }

    fn number(&mut self, scope: &Rc<Scope<'e>>, name: Name) -> String {
        let expr = Expr::new(0, Kind::Name(name));
        self.evaluator
            .value(scope, &expr)
            .map_or_else(|_| name.to_string(), |(v, _)| v.to_string())
    }

    /// The formula with every name replaced by its value; long lists stay names.
    fn numbers(&mut self, scope: &Rc<Scope<'e>>, expr: &Expr) -> String {
        let mut names = Vec::new();
        names_of(expr, &mut names);
        let values: Vec<(Name, String)> = names
            .into_iter()
            .map(|n| (n, self.number(scope, n)))
            .collect();
        expr.print(&|name| {
            values
                .iter()
                .find(|(n, v)| *n == name && v.len() <= 40)
                .map(|(_, v)| v.clone())
        })
    }
}

fn names_of(expr: &Expr, names: &mut Vec<Name>) {
    expr.walk(&mut |e| {
        if let Kind::Name(name) = e.kind
            && !names.contains(&name)
        {
            names.push(name);
        }
    });
}

fn split_sum<'x>(expr: &'x Expr, terms: &mut Vec<&'x Expr>) {
    match &expr.kind {
        Kind::Binary(Binary::Add, sides) => {
            split_sum(&sides.0, terms);
            split_sum(&sides.1, terms);
        }
        _ => terms.push(expr),
    }
}

fn calls_of<'x>(expr: &'x Expr, calls: &mut Vec<&'x crate::formula::ModuleCall>) {
    match &expr.kind {
        Kind::Module(call) => calls.push(call),
        Kind::Binary(_, sides) => {
            calls_of(&sides.0, calls);
            calls_of(&sides.1, calls);
        }
        Kind::If(i) => {
            calls_of(&i.then, calls);
            calls_of(&i.other, calls);
        }
        _ => {}
    }
}
