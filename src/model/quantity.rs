//! The value of `{Class}(...)` inside a formula: the FLOPs or the traffic of that module with those arguments.

use super::expand::Expansion;
use super::node::Node;
use super::scope::{Evaluator, ModuleScope, Scope, ScopeKind};
use super::shape::Flow;
use crate::db::Entry;
use crate::formula::{EvalErrorKind, Formula, ModuleCall};
use crate::value::{Name, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// Most templates that are open at once.
const MAX_CALLS: usize = 32;

/// What a template asks of the modules that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// FLOPs.
    Flops,
    /// Bytes read.
    Reads,
    /// Bytes written.
    Writes,
    /// Bytes held in between.
    Intermediates,
}

/// Evaluates a module call for [`Quantity::Flops`].
pub(super) fn of_call<'e>(
    evaluator: &mut Evaluator<'e>,
    scope: &Rc<Scope<'e>>,
    call: &ModuleCall,
) -> Result<Value, EvalErrorKind> {
    let quantity = evaluator.asked;
    let file = scope.module().map_or("", |m| &m.entry.file);
    let key = evaluator
        .db
        .resolve(&call.class, file)
        .map_err(|e| e.inner())?;
    let entry = evaluator.db.entry(&key).map_err(|e| e.inner())?;
    let takes = entry.parameters.len();
    let needed = entry
        .parameters
        .iter()
        .filter(|p| p.default.is_none())
        .count();
    let given = call.positional.len()
        + call
            .named
            .iter()
            .filter(|(n, _)| entry.parameters.iter().any(|p| p.name == *n))
            .count();
    if call.positional.len() > takes || given < needed {
        let names = entry
            .parameters
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let takes = if needed == takes {
            format!("{takes}")
        } else {
            format!("{needed} to {takes}")
        };
        return Err(EvalErrorKind::Arity {
            function: format!("{{{}}}({names})", call.class),
            takes,
            got: given,
        });
    }
    let mut values: Vec<(Name, Value)> = Vec::new();
    let positional = entry
        .parameters
        .iter()
        .map(|p| p.name)
        .zip(&call.positional);
    for (name, expr) in positional.chain(call.named.iter().map(|(n, e)| (*n, e))) {
        let (value, deps) = evaluator.value(scope, expr).map_err(|e| e.kind)?;
        evaluator.depends_on(deps);
        values.push((name, value));
    }
    if evaluator.calling.contains(&key) {
        return Err(EvalErrorKind::Cycle(Name::new(&call.class)));
    }
    if evaluator.calling.len() >= MAX_CALLS {
        return Err(EvalErrorKind::Limit {
            what: "the depth of templates that call templates",
            limit: MAX_CALLS as u64,
        });
    }
    evaluator.calling.push(key);
    let result = with_arguments(evaluator, entry, values, scope, quantity);
    evaluator.calling.pop();
    result
}

/// The quantity of an entry under given arguments: by its template where it has only that, else by its tree.
fn with_arguments<'e>(
    evaluator: &mut Evaluator<'e>,
    entry: &'e Entry,
    values: Vec<(Name, Value)>,
    outer: &Rc<Scope<'e>>,
    quantity: Quantity,
) -> Result<Value, EvalErrorKind> {
    let own = own_arguments(entry, &values);
    let given = Scope::new(Some(workload_of(outer)), ScopeKind::Given(values));
    if let Some((formula, field)) = template(entry, quantity) {
        let module = ModuleScope {
            entry,
            args: Vec::new(),
            given: own,
            call: None,
            input: Flow::default(),
            config: None,
            rules: &[],
        };
        let scope = Scope::new(Some(given), ScopeKind::Module(Box::new(module)));
        let result = evaluator.value(&scope, &formula.expr);
        return result.map(|(v, _)| v).map_err(|e| {
            evaluator
                .failed(&scope, &entry.key, field, &formula.text, &formula.expr, e)
                .inner()
        });
    }
    let mut expansion = Expansion::new(evaluator.db);
    std::mem::swap(&mut expansion.evaluator, evaluator);
    let built = expansion.root(entry, own, given, Flow::default(), None);
    std::mem::swap(&mut expansion.evaluator, evaluator);
    let (node, _) = built.map_err(|e| e.inner())?;
    if let Some((class, _, _)) = expansion.missing.first() {
        return Err(EvalErrorKind::Kind(format!(
            "no entry for the class `{class}`"
        )));
    }
    let total = sum(&node, quantity, dtype_bits(outer), &mut HashMap::new()).ok_or(
        EvalErrorKind::Kind("the count does not fit 128 bits".into()),
    )?;
    i128::try_from(total)
        .map(Value::Int)
        .map_err(|_| EvalErrorKind::Kind("the count does not fit 128 bits".into()))
}

/// The given values that are parameters of the entry, and so beat their defaults.
pub(super) fn own_arguments(entry: &Entry, values: &[(Name, Value)]) -> Vec<(Name, Value)> {
    values
        .iter()
        .filter(|(name, _)| entry.parameters.iter().any(|p| p.name == *name))
        .cloned()
        .collect()
}

/// The width that the workload gives the dtype.
fn dtype_bits(scope: &Rc<Scope<'_>>) -> u128 {
    let given = match &workload_of(scope).kind {
        ScopeKind::Given(names) => names
            .iter()
            .find(|(n, _)| n.as_str() == "dtype_bits")
            .and_then(|(_, v)| v.as_int()),
        _ => None,
    };
    given
        .and_then(|bits| u128::try_from(bits).ok())
        .unwrap_or(16)
}

/// The outermost scope: a called module sees its arguments and the workload, not the names of the caller.
fn workload_of<'e>(scope: &Rc<Scope<'e>>) -> Rc<Scope<'e>> {
    let mut at = scope;
    while let Some(parent) = &at.parent {
        at = parent;
    }
    at.clone()
}

/// The formula that alone says a quantity of an entry that has no rows and no children.
fn template(entry: &Entry, quantity: Quantity) -> Option<(&Formula, &'static str)> {
    if !entry.only_templates() {
        return None;
    }
    let memory = entry.memory_analysis.as_ref();
    match quantity {
        Quantity::Flops => entry
            .flop_analysis
            .as_ref()
            .map(|a| (&a.formula, "flop_analysis.formula_template")),
        Quantity::Reads => memory
            .and_then(|m| m.reads.as_ref())
            .map(|f| (f, "memory_analysis.reads_template")),
        Quantity::Writes => memory
            .and_then(|m| m.writes.as_ref())
            .map(|f| (f, "memory_analysis.writes_template")),
        Quantity::Intermediates => memory
            .and_then(|m| m.intermediates.as_ref())
            .map(|f| (f, "memory_analysis.intermediates_template")),
    }
}

/// A quantity of one run of a whole tree; traffic in bytes, everything as wide as the dtype. Shared nodes are summed once.
pub(super) fn sum<'e>(
    node: &Rc<Node<'e>>,
    quantity: Quantity,
    bits: u128,
    known: &mut HashMap<*const Node<'e>, u128>,
) -> Option<u128> {
    if let Some(total) = known.get(&Rc::as_ptr(node)) {
        return Some(*total);
    }
    let moved = &node.moved;
    let weights = node
        .weight_reads
        .iter()
        .try_fold(0u128, |sum, read| sum.checked_add(read.elements))?;
    let elements = |parts: &[u128]| -> Option<u128> {
        let sum = parts.iter().try_fold(0u128, |sum, n| sum.checked_add(*n))?;
        Some(sum.checked_mul(bits)?.div_ceil(8))
    };
    let mut total = match quantity {
        Quantity::Flops => node.own_flops()?,
        Quantity::Reads => elements(&[moved.reads, moved.kv_reads, weights])?,
        Quantity::Writes => elements(&[moved.writes, moved.kv_writes])?,
        Quantity::Intermediates => elements(&[moved.intermediates])?,
    };
    for (_, child) in &node.children {
        let inside = sum(child, quantity, bits, known)?;
        total = total.checked_add(inside.checked_mul(child.calls)?)?;
    }
    known.insert(Rc::as_ptr(node), total);
    Some(total)
}
