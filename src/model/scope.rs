//! Where a name in a formula comes from.
//!
//! Scopes form a chain: the workload at the root, then one scope per module on the way down, one per list item between a
//! list and what it repeats, and one with the sizes that flow into a child, for the arguments of its call. Inside a module's scope a name is, in this order: an argument of the call (in the
//! caller's scope), a `let`, the parameter's own default, what flows in (`H W C S`) and what follows from it
//! (`N T logit_rows`), a name of its `config`; then the enclosing scope is asked. Everything is evaluated when it is
//! first asked for and kept; a name that needs itself is an error.
//!
//! Every value knows which list indices were read to make it ([`Deps`]). That is what lets equal items of a list be
//! expanded once: see `expand.rs`.

use super::quantity::Quantity;
use super::shape::Flow;
use crate::db::{ConfigRule, Db, DbError, Entry, Fault};
use crate::formula::{Budget, EvalErrorKind, Expr, Formula, ModuleCall, Names, did_you_mean, eval};
use crate::value::{Name, Object, Value};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

/// The list levels whose index a value depends on, one bit each. Levels beyond 63 share the last bit.
pub(crate) type Deps = u64;

pub(super) fn bit(level: usize) -> Deps {
    1 << level.min(63)
}

/// One link of the chain that names are looked up in.
#[derive(Debug)]
pub struct Scope<'e> {
    pub(super) parent: Option<Rc<Scope<'e>>>,
    pub(super) kind: ScopeKind<'e>,
    memo: RefCell<Vec<(Name, Value, Deps)>>,
}

#[derive(Debug, Clone)]
pub(super) enum ScopeKind<'e> {
    /// Names of the workload, or arguments given by hand.
    Given(Vec<(Name, Value)>),
    /// What flows into a child, for the arguments of its call.
    Flowing(Flow),
    /// An item of the list at `level`.
    Item {
        level: usize,
        vars: Vec<(Name, Value)>,
    },
    /// A module.
    Module(Box<ModuleScope<'e>>),
}

#[derive(Debug, Clone)]
pub(super) struct ModuleScope<'e> {
    pub entry: &'e Entry,
    /// Arguments, evaluated in the parent scope.
    pub args: Vec<(Name, &'e Expr)>,
    /// Arguments whose values are given by hand.
    pub given: Vec<(Name, Value)>,
    /// What the call's formula is, for errors inside arguments.
    pub call: Option<Place<'e>>,
    pub input: Flow,
    /// The config file that `config` names are read from.
    pub config: Option<Arc<Object>>,
    /// How its names are read.
    pub rules: &'e [(Name, ConfigRule)],
}

/// Where an expression stands, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'e> {
    pub entry: &'e str,
    pub field: &'e str,
    pub text: &'e Arc<str>,
}

impl<'e> Place<'e> {
    /// Where a formula of an entry stands.
    pub(super) fn of(entry: &'e Entry, formula: &'e Formula) -> Place<'e> {
        Place {
            entry: &entry.key,
            field: &formula.field,
            text: &formula.text,
        }
    }
}

impl<'e> Scope<'e> {
    pub(super) fn new(parent: Option<Rc<Scope<'e>>>, kind: ScopeKind<'e>) -> Rc<Scope<'e>> {
        Rc::new(Scope {
            parent,
            kind,
            memo: RefCell::default(),
        })
    }

    /// The nearest module of the chain.
    pub(super) fn module(&self) -> Option<&ModuleScope<'e>> {
        match &self.kind {
            ScopeKind::Module(module) => Some(module),
            _ => self.parent.as_ref().and_then(|p| p.module()),
        }
    }

    /// The same chain with `from` replaced by `to`, nothing remembered below.
    pub(super) fn rebased(self: &Rc<Self>, from: &Rc<Self>, to: &Rc<Self>) -> Rc<Self> {
        if Rc::ptr_eq(self, from) {
            return to.clone();
        }
        match &self.parent {
            None => self.clone(),
            Some(parent) => Scope::new(Some(parent.rebased(from, to)), self.kind.clone()),
        }
    }
}

/// How a module scope defines a name.
enum Source<'s, 'e> {
    Argument(&'e Expr, Option<Place<'e>>),
    Own(&'e Formula, &'static str),
    Value(Value),
    /// `left op right` over names of this scope.
    Derived(Derived),
    Config(&'s Arc<Object>, &'e ConfigRule),
}

static BATCH: LazyLock<Name> = LazyLock::new(|| Name::new("B"));
static LENGTH: LazyLock<Name> = LazyLock::new(|| Name::new("S"));
static ELEMENTS: LazyLock<Name> = LazyLock::new(|| Name::new("elements"));
static ROWS: LazyLock<Name> = LazyLock::new(|| Name::new("N"));
static PAST: LazyLock<Name> = LazyLock::new(|| Name::new("past"));
static LAST_LOGITS: LazyLock<Name> = LazyLock::new(|| Name::new("last_logits"));

#[derive(Clone, Copy)]
enum Derived {
    Elements,
    Rows,
    Total,
    LogitRows,
}

/// The names that follow from `B`, `S` and `past`.
const DERIVED: [(&str, Derived); 3] = [
    ("N", Derived::Rows),
    ("T", Derived::Total),
    ("logit_rows", Derived::LogitRows),
];

/// Names that cannot be parameters.
pub const RESERVED: [&str; 13] = [
    "B",
    "S",
    "T",
    "past",
    "decode",
    "dec_S",
    "H",
    "W",
    "C",
    "config",
    "calls",
    "x",
    "logit_rows",
];

/// Names of the workload that formulas may read.
pub const WORKLOAD_NAMES: [&str; 17] = [
    "elements",
    "B",
    "S",
    "past",
    "dec_S",
    "decode",
    "causal",
    "last_logits",
    "dtype_bits",
    "dtype_bytes",
    "weight_bits",
    "activation_bits",
    "kv_bits",
    "ternary_bits",
    "N",
    "T",
    "logit_rows",
];

/// Evaluates formulas in scopes and notes what they read.
pub(crate) struct Evaluator<'e> {
    pub db: &'e Db,
    pub budget: Budget,
    deps: Deps,
    open: Vec<(*const Scope<'e>, Name)>,
    /// Computes `{Class}(...)` inside a formula; set by the layer that can.
    pub quantity: Option<QuantityHook<'e>>,
    /// What the hook is asked for.
    pub asked: Quantity,
    /// Entries whose quantity is being computed, outermost first.
    pub calling: Vec<std::sync::Arc<str>>,
}

/// Gives the value of a module call inside a formula.
pub(super) type QuantityHook<'e> =
    fn(&mut Evaluator<'e>, &Rc<Scope<'e>>, &ModuleCall) -> Result<Value, EvalErrorKind>;

impl<'e> Evaluator<'e> {
    pub(crate) fn new(db: &'e Db) -> Evaluator<'e> {
        Evaluator {
            db,
            budget: Budget::default(),
            deps: 0,
            open: Vec::new(),
            quantity: None,
            asked: Quantity::Flops,
            calling: Vec::new(),
        }
    }

    /// Notes that what is being evaluated depends on these lists' indices too.
    pub(super) fn depends_on(&mut self, deps: Deps) {
        self.deps |= deps;
    }

    /// The value of an expression in a scope, and the list indices it depends on.
    pub(crate) fn value(
        &mut self,
        scope: &Rc<Scope<'e>>,
        expr: &Expr,
    ) -> Result<(Value, Deps), crate::formula::EvalError> {
        let outer = std::mem::take(&mut self.deps);
        let mut budget = std::mem::take(&mut self.budget);
        let result = eval(
            expr,
            &mut At {
                evaluator: self,
                scope,
            },
            &mut budget,
        );
        self.budget = budget;
        let deps = std::mem::replace(&mut self.deps, outer);
        result.map(|value| (value, deps))
    }

    fn source<'s>(&self, module: &'s ModuleScope<'e>, name: Name) -> Option<Source<'s, 'e>> {
        if let Some((_, expr)) = module.args.iter().find(|(n, _)| *n == name) {
            return Some(Source::Argument(expr, module.call));
        }
        if let Some((_, value)) = module.given.iter().find(|(n, _)| *n == name) {
            return Some(Source::Value(value.clone()));
        }
        if let Some((_, formula)) = module.entry.lets.iter().find(|(n, _)| *n == name) {
            return Some(Source::Own(formula, "let"));
        }
        if let Some(default) = module
            .entry
            .parameters
            .iter()
            .find(|p| p.name == name)
            .and_then(|p| p.default.as_ref())
        {
            return Some(Source::Own(default, "parameters"));
        }
        if let Some(size) = module.input.get(name.as_str()) {
            return Some(Source::Value(Value::Int(size)));
        }
        if name == *ELEMENTS && module.entry.choose.is_none() {
            let asked = module.entry.parameters.iter().any(|p| p.name == name);
            return (module.input.c.is_some() || asked)
                .then_some(Source::Derived(Derived::Elements));
        }
        if let Some((_, derived)) = DERIVED.iter().find(|(n, _)| *n == name.as_str()) {
            let binds = |name: &LazyLock<Name>| module.args.iter().any(|(a, _)| *a == **name);
            if module.input.s.is_some() || binds(&LENGTH) || binds(&BATCH) || binds(&PAST) {
                return Some(Source::Derived(*derived));
            }
        }
        let config = module.config.as_ref()?;
        if name.as_str() == "config" {
            return Some(Source::Value(Value::Object(config.clone())));
        }
        module
            .rules
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, rule)| Source::Config(config, rule))
    }

    /// The value of a name.
    pub(super) fn lookup(
        &mut self,
        scope: &Rc<Scope<'e>>,
        name: Name,
        budget: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        budget.step()?;
        let mut next = Some(scope);
        while let Some(at) = next {
            if let Some((_, value, deps)) = at.memo.borrow().iter().find(|(n, _, _)| *n == name) {
                self.deps |= deps;
                return Ok(value.clone());
            }
            match &at.kind {
                ScopeKind::Given(values) => {
                    if let Some((_, value)) = values.iter().find(|(n, _)| *n == name) {
                        return Ok(value.clone());
                    }
                    if let Some((_, derived)) = DERIVED.iter().find(|(n, _)| *n == name.as_str()) {
                        return self.derived(at, *derived, budget);
                    }
                }
                ScopeKind::Flowing(flow) => {
                    if let Some(size) = flow.get(name.as_str()) {
                        return Ok(Value::Int(size));
                    }
                    let derived = DERIVED.iter().find(|(n, _)| *n == name.as_str());
                    if let Some((_, derived)) = derived.filter(|_| flow.s.is_some()) {
                        return self.derived(at, *derived, budget);
                    }
                }
                ScopeKind::Item { level, vars } => {
                    if let Some((_, value)) = vars.iter().find(|(n, _)| *n == name) {
                        self.deps |= bit(*level);
                        return Ok(value.clone());
                    }
                }
                ScopeKind::Module(module) => {
                    if let Some(source) = self.source(module, name) {
                        return self.remember(at, name, source, budget);
                    }
                }
            }
            next = at.parent.as_ref();
        }
        let known = known_names(scope);
        let hint = did_you_mean(name.as_str(), known.iter().map(|n| n.as_str()));
        Err(EvalErrorKind::UnknownName {
            name: name.to_string(),
            hint,
        })
    }

    fn remember(
        &mut self,
        at: &Rc<Scope<'e>>,
        name: Name,
        source: Source<'_, 'e>,
        budget: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        let place = (Rc::as_ptr(at), name);
        if self.open.contains(&place) {
            return Err(EvalErrorKind::Cycle(name));
        }
        self.open.push(place);
        let outer = std::mem::take(&mut self.deps);
        let result = budget.lookup(|budget| self.evaluate(at, name, source, budget));
        self.open.pop();
        let deps = std::mem::replace(&mut self.deps, outer);
        self.deps |= deps;
        let value = result?;
        at.memo.borrow_mut().push((name, value.clone(), deps));
        Ok(value)
    }

    fn evaluate(
        &mut self,
        at: &Rc<Scope<'e>>,
        name: Name,
        source: Source<'_, 'e>,
        budget: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        match source {
            Source::Value(value) => Ok(value),
            Source::Derived(derived) => self.derived(at, derived, budget),
            Source::Argument(expr, call) => {
                let parent = at.parent.as_ref().unwrap_or(at);
                let result = eval(
                    expr,
                    &mut At {
                        evaluator: self,
                        scope: parent,
                    },
                    budget,
                );
                result.map_err(|e| match call {
                    Some(place) => self
                        .failed(parent, place.entry, place.field, place.text, expr, e)
                        .inner(),
                    None => e.kind,
                })
            }
            Source::Own(formula, field) => {
                self.own(at, formula, &format!("{field}.{name}"), budget)
            }
            Source::Config(config, rule) => {
                let written = rule.keys.iter().find_map(|key| config.get(key));
                let fallback = match written {
                    None => &rule.missing,
                    Some(Value::None) => &rule.null,
                    Some(value) => return expected_kind(rule, value).map(|()| value.clone()),
                };
                match fallback {
                    Some(formula) => self.own(at, formula, &format!("config.{name}"), budget),
                    None if written.is_some() => Ok(Value::None),
                    None => Err(EvalErrorKind::Kind(format!(
                        "config.json lacks `{}`",
                        rule.keys.join("` or `")
                    ))),
                }
            }
        }
    }

    fn own(
        &mut self,
        at: &Rc<Scope<'e>>,
        formula: &Formula,
        field: &str,
        budget: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        let result = eval(
            &formula.expr,
            &mut At {
                evaluator: self,
                scope: at,
            },
            budget,
        );
        result.map_err(|e| {
            let entry = at.module().map_or("", |m| &m.entry.key);
            self.failed(at, entry, field, &formula.text, &formula.expr, e)
                .inner()
        })
    }

    fn derived(
        &mut self,
        at: &Rc<Scope<'e>>,
        derived: Derived,
        budget: &mut Budget,
    ) -> Result<Value, EvalErrorKind> {
        if let (Derived::Elements, ScopeKind::Module(module)) = (derived, &at.kind) {
            let Flow { s, h, w, c, .. } = module.input;
            let Some(c) = c else {
                return Err(EvalErrorKind::Kind(
                    "how many elements flow in is not known here; give them as the argument `elements`".into(),
                ));
            };
            // An image has B * S * H * W positions, with S = 1; a sequence has N.
            let mut elements = Value::Int(c);
            if h.is_none() && w.is_none() {
                elements = Value::mul(&elements, &self.lookup(at, *ROWS, budget)?)?;
            } else {
                elements = Value::mul(&elements, &self.lookup(at, *BATCH, budget)?)?;
                for size in [s, h, w].into_iter().flatten() {
                    elements = Value::mul(&elements, &Value::Int(size))?;
                }
            }
            return Ok(elements);
        }
        let mut get = |name: &LazyLock<Name>| self.lookup(at, **name, budget);
        Ok(match derived {
            Derived::Rows => Value::mul(&get(&BATCH)?, &get(&LENGTH)?)?,
            Derived::Total => Value::add(&get(&PAST)?, &get(&LENGTH)?)?,
            Derived::Elements => {
                return Err(EvalErrorKind::Kind("`elements` is not known here".into()));
            }
            Derived::LogitRows => {
                let rows = if get(&LAST_LOGITS)?.truth() {
                    Value::Int(1)
                } else {
                    get(&LENGTH)?
                };
                Value::mul(&get(&BATCH)?, &rows)?
            }
        })
    }

    /// An evaluation error with its place and with the config values that the formula read.
    pub(super) fn failed(
        &mut self,
        scope: &Rc<Scope<'e>>,
        entry: &str,
        field: &str,
        text: &Arc<str>,
        expr: &Expr,
        error: crate::formula::EvalError,
    ) -> DbError {
        // Which values were read tells something only where a value is wrong.
        let by_value = !matches!(
            error.kind,
            EvalErrorKind::Inner(_)
                | EvalErrorKind::UnknownName { .. }
                | EvalErrorKind::UnknownFunction { .. }
                | EvalErrorKind::Arity { .. }
                | EvalErrorKind::Cycle(_)
        );
        let mut failed = DbError::eval(entry, field, text, error);
        if by_value {
            failed.config = self.config_read(scope, expr);
            if failed.kind == Fault::Overflow {
                failed.config.extend(self.sizes_asked(scope));
            }
        }
        failed
    }

    /// The workload's sizes, where they are large enough to be why a number does not fit.
    fn sizes_asked(&self, scope: &Rc<Scope<'e>>) -> Vec<String> {
        let mut at = scope;
        while let Some(parent) = &at.parent {
            at = parent;
        }
        let ScopeKind::Given(values) = &at.kind else {
            return Vec::new();
        };
        let flags = [
            ("B", "batch size"),
            ("S", "sequence length"),
            ("past", "past length"),
            ("dec_S", "decoder length"),
        ];
        let asked = flags.iter().filter_map(|(name, flag)| {
            let (_, value) = values.iter().find(|(n, _)| n.as_str() == *name)?;
            value
                .as_int()
                .filter(|n| *n > 1_000_000)
                .map(|n| format!("{flag} = {n}"))
        });
        asked.collect()
    }

    /// The config values that the names of an expression come from, as `key = value`, followed through arguments.
    pub(super) fn config_read(&self, scope: &Rc<Scope<'e>>, expr: &Expr) -> Vec<String> {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        self.trace(scope, expr, &mut found, &mut seen, 0);
        found
    }

    fn trace(
        &self,
        scope: &Rc<Scope<'e>>,
        expr: &Expr,
        found: &mut Vec<String>,
        seen: &mut Vec<(*const Scope<'e>, Name)>,
        depth: usize,
    ) {
        let mut names = Vec::new();
        expr.walk(&mut |e| {
            if let crate::formula::Kind::Name(name) = e.kind {
                names.push(name);
            }
        });
        for name in names {
            let mut next = Some(scope);
            while let Some(at) = next {
                if let ScopeKind::Module(module) = &at.kind
                    && let Some(source) = self.source(module, name)
                {
                    if seen.contains(&(Rc::as_ptr(at), name)) || depth > 8 || found.len() >= 6 {
                        break;
                    }
                    seen.push((Rc::as_ptr(at), name));
                    match source {
                        Source::Argument(expr, _) => self.trace(
                            at.parent.as_ref().unwrap_or(at),
                            expr,
                            found,
                            seen,
                            depth + 1,
                        ),
                        Source::Own(formula, _) => {
                            self.trace(at, &formula.expr, found, seen, depth + 1)
                        }
                        Source::Config(config, rule) => {
                            match rule.keys.iter().find_map(|k| config.get(k).map(|v| (k, v))) {
                                Some((key, value)) => {
                                    found.push(format!("{key} = {}", value.describe()))
                                }
                                None => {
                                    if let Some(formula) = &rule.missing {
                                        self.trace(at, &formula.expr, found, seen, depth + 1);
                                    }
                                }
                            }
                        }
                        Source::Value(_) | Source::Derived(_) => {}
                    }
                    break;
                }
                next = at.parent.as_ref();
            }
        }
    }
}

/// What a database gives a number or a truth value for, a config has to give one for, or null; no size is beyond 2 ** 53.
fn expected_kind(rule: &ConfigRule, value: &Value) -> Result<(), EvalErrorKind> {
    const MOST: i128 = 1 << 53;
    let wrong = |needs: &str| {
        let keys = rule.keys.join("` or `");
        let found = value.describe();
        Err(EvalErrorKind::Kind(format!(
            "the config's `{keys}` has to be {needs}, not {found}"
        )))
    };
    if value.as_int().is_some_and(|n| !(-MOST..=MOST).contains(&n)) {
        return wrong("a number that is meant");
    }
    let default = match rule.missing.as_ref().map(|f| &f.expr.kind) {
        Some(crate::formula::Kind::Value(default)) => default,
        _ => return Ok(()),
    };
    match (default, value) {
        (_, Value::None | Value::Opaque(_)) => Ok(()),
        (Value::Int(_), Value::Int(_) | Value::Ratio(_)) => Ok(()),
        (Value::Int(_), _) => wrong(&format!("a number like its default {default}")),
        (Value::Bool(_), Value::Bool(_) | Value::Int(0 | 1)) => Ok(()),
        (Value::Bool(_), _) => wrong("true or false"),
        _ => Ok(()),
    }
}

/// Every name that a formula in this scope could mean.
pub(super) fn known_names(scope: &Scope<'_>) -> Vec<Name> {
    let mut known = Vec::new();
    let mut next = Some(scope);
    while let Some(at) = next {
        match &at.kind {
            ScopeKind::Given(values) | ScopeKind::Item { vars: values, .. } => {
                known.extend(values.iter().map(|(n, _)| *n))
            }
            ScopeKind::Flowing(_) => {}
            ScopeKind::Module(module) => {
                known.extend(module.args.iter().map(|(n, _)| *n));
                known.extend(module.entry.lets.iter().map(|(n, _)| *n));
                known.extend(module.entry.parameters.iter().map(|p| p.name));
                known.extend(module.rules.iter().map(|(n, _)| *n));
            }
        }
        next = at.parent.as_deref();
    }
    known.extend(DERIVED.iter().map(|(n, _)| Name::new(n)));
    known
}

/// A scope as the surroundings of a formula.
struct At<'a, 'e> {
    evaluator: &'a mut Evaluator<'e>,
    scope: &'a Rc<Scope<'e>>,
}

impl Names for At<'_, '_> {
    fn name(&mut self, name: Name, budget: &mut Budget) -> Result<Value, EvalErrorKind> {
        self.evaluator.lookup(self.scope, name, budget)
    }

    fn module(&mut self, call: &ModuleCall, budget: &mut Budget) -> Result<Value, EvalErrorKind> {
        let Some(hook) = self.evaluator.quantity else {
            return Err(EvalErrorKind::Kind(format!(
                "`{{{}}}(...)` is a child and has no value here",
                call.class
            )));
        };
        // The hook evaluates with the evaluator's own budget.
        std::mem::swap(budget, &mut self.evaluator.budget);
        let result = hook(self.evaluator, self.scope, call);
        std::mem::swap(budget, &mut self.evaluator.budget);
        result
    }

    fn known(&self) -> Vec<Name> {
        known_names(self.scope)
    }
}
