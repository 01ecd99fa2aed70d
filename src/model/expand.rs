//! Config and database in, tree out: reads `children` and `forward` from the root down.
//!
//! Lists of modules, and how equal items of them are found, are a matter of their own: `lists.rs`.

use super::forward::Walk;
use super::lists::List;
use super::node::{Node, Status, Tensor, Tied};
use super::scope::{Deps, Evaluator, ModuleScope, Place, Scope, ScopeKind, bit};
use super::shape::Flow;
use super::work::find_tensor;
use crate::db::{Children, Db, DbError, Entry, Fault, RowKind, Rule};
use crate::formula::{EvalError, EvalErrorKind, Expr, Formula, Kind, ModuleCall};
use crate::value::{Name, Object, Value};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

/// Deepest nesting of modules.
pub const MAX_NESTING: usize = 48;
/// Most modules that are expanded (equal items count once).
pub const MAX_MODULES: usize = 200_000;

static CALLS: LazyLock<Name> = LazyLock::new(|| Name::new("calls"));
static CONFIG: LazyLock<Name> = LazyLock::new(|| Name::new("config"));
static INPUT: LazyLock<Name> = LazyLock::new(|| Name::new("x"));

/// One expansion in progress.
pub(super) struct Expansion<'e> {
    pub evaluator: Evaluator<'e>,
    pub rule: Option<Rule>,
    /// Entry key -> key of the entry that quantization puts in its place.
    pub replaced: HashMap<Arc<str>, Arc<str>>,
    pub image_size: Option<i128>,
    /// For each list being expanded, the formulas that read its index.
    pub logs: Vec<Vec<Logged<'e>>>,
    modules: usize,
    /// Entries being expanded, outermost first.
    open: Vec<&'e Entry>,
    /// Lists being expanded inside lists.
    pub lists: usize,
    /// Names of the modules above, for messages and for what quantization spares.
    pub path: Vec<Arc<str>>,
    /// Classes without an entry: class, path, the error.
    pub missing: Vec<(Arc<str>, String, DbError)>,
}

/// A formula whose value depended on a list index.
pub(super) struct Logged<'e> {
    pub scope: Rc<Scope<'e>>,
    pub expr: &'e Expr,
    pub value: Value,
}

/// How a module is called.
struct Arguments<'e> {
    args: Vec<(Name, &'e Expr)>,
    given: Vec<(Name, Value)>,
    call: Option<Place<'e>>,
    config: Option<Arc<Object>>,
}

pub(super) type Built<'e> = Result<(Rc<Node<'e>>, Flow), DbError>;

impl<'e> Expansion<'e> {
    pub(super) fn new(db: &'e Db) -> Expansion<'e> {
        Expansion {
            evaluator: Evaluator::new(db),
            rule: None,
            replaced: HashMap::new(),
            image_size: None,
            logs: Vec::new(),
            modules: 0,
            open: Vec::new(),
            lists: 0,
            path: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The value of a formula of an entry, logged for the lists whose index it read.
    pub(super) fn value(
        &mut self,
        scope: &Rc<Scope<'e>>,
        expr: &'e Expr,
        place: Place<'e>,
    ) -> Result<Value, DbError> {
        match self.evaluator.value(scope, expr) {
            Ok((value, deps)) => {
                self.log(scope, expr, &value, deps);
                Ok(value)
            }
            Err(e) => {
                let error = failure(&mut self.evaluator, scope, expr, place, e);
                Err(self.located(error))
            }
        }
    }

    pub(super) fn log(&mut self, scope: &Rc<Scope<'e>>, expr: &'e Expr, value: &Value, deps: Deps) {
        if deps == 0 {
            return;
        }
        for (level, log) in self.logs.iter_mut().enumerate() {
            if deps & bit(level) != 0 {
                log.push(Logged {
                    scope: scope.clone(),
                    expr,
                    value: value.clone(),
                });
            }
        }
    }

    /// Names the module at work in an error that has no entry of its own.
    pub(super) fn located(&self, mut error: DbError) -> DbError {
        if error.entry.is_empty() && !self.path.is_empty() {
            error.reason = format!("{} (module {})", error.reason, self.path.join("."));
        }
        error
    }

    pub(super) fn int(
        &mut self,
        scope: &Rc<Scope<'e>>,
        formula: &'e Formula,
        entry: &'e Entry,
    ) -> Result<u128, DbError> {
        let value = self.value(scope, &formula.expr, Place::of(entry, formula))?;
        value
            .as_int()
            .and_then(|i| u128::try_from(i).ok())
            .ok_or_else(|| {
                let reason = format!(
                    "`{}` has to be a whole number of 0 or more, not {}",
                    formula.text,
                    value.describe()
                );
                self.wrong(scope, formula, entry, reason)
            })
    }

    /// A value that the formula has but must not have.
    pub(super) fn wrong(
        &mut self,
        scope: &Rc<Scope<'e>>,
        formula: &'e Formula,
        entry: &'e Entry,
        reason: String,
    ) -> DbError {
        let config = self.evaluator.config_read(scope, &formula.expr);
        let path = if self.path.is_empty() {
            String::new()
        } else {
            format!("module {}: ", self.path.join("."))
        };
        DbError {
            config,
            kind: Fault::Evaluation,
            ..DbError::schema(&entry.key, &*formula.field, format!("{path}{reason}"))
        }
    }

    /// The module that `call` names, called in `scope`.
    pub(super) fn call(
        &mut self,
        call: &'e ModuleCall,
        scope: &Rc<Scope<'e>>,
        place: Place<'e>,
        input: Flow,
    ) -> Built<'e> {
        let file = scope.module().map_or("", |m| &m.entry.file);
        let key = match self.evaluator.db.resolve(&call.class, file) {
            Ok(key) => self
                .replaced
                .get(&key)
                .filter(|_| !self.spared())
                .cloned()
                .unwrap_or(key),
            Err(e) if e.kind == Fault::UnknownClass => {
                return Ok((
                    Rc::new(self.unresolved(&call.class, scope, e)),
                    Flow { c: None, ..input },
                ));
            }
            Err(e) => return Err(DbError::schema(place.entry, place.field, e.reason)),
        };
        let entry = self.evaluator.db.entry(&key)?;
        if let Some(cases) = &entry.choose {
            return self.choose(entry, cases, call, scope, place, input);
        }
        if entry.container {
            let mut node = self.empty(entry, scope.clone());
            let mut list = List::new(input);
            for item in &call.positional {
                self.items(item, scope, place, &mut list)?;
            }
            node.children = list.children;
            return Ok((Rc::new(node), list.flow));
        }
        let args = self.arguments(entry, call, place)?;
        self.module(entry, args, place, scope.clone(), input)
    }

    pub(super) fn spared(&self) -> bool {
        self.rule
            .as_ref()
            .is_some_and(|rule| rule.spares(&self.path))
    }

    /// A visible node for a class that nobody described.
    pub(super) fn unresolved(
        &mut self,
        class: &Arc<str>,
        scope: &Rc<Scope<'e>>,
        error: DbError,
    ) -> Node<'e> {
        self.missing
            .push((class.clone(), self.path.join("."), error));
        let class = class.replace("__", ".").into();
        Node::blank(None, class, Status::Unresolved, scope.clone())
    }

    /// The tied tensors of a root that are tied under this config.
    pub(super) fn ties(&mut self, root: &'e Entry, node: &Node<'e>) -> Result<Vec<Tied>, DbError> {
        let mut tied = Vec::new();
        for tie in &root.tied {
            let holds = match &tie.when {
                None => true,
                Some(when) => self
                    .value(&node.scope, &when.expr, Place::of(root, when))?
                    .truth(),
            };
            if holds
                && find_tensor(node, &tie.tensor).is_some()
                && find_tensor(node, &tie.original).is_some()
            {
                tied.push((tie.tensor.clone(), tie.original.clone()));
            }
        }
        Ok(tied)
    }

    pub(super) fn empty(&self, entry: &'e Entry, scope: Rc<Scope<'e>>) -> Node<'e> {
        Node::blank(Some(entry), entry.path.clone(), Status::Resolved, scope)
    }

    /// An entry that stands for one of several classes, by the value of its first argument.
    fn choose(
        &mut self,
        entry: &'e Entry,
        cases: &'e [(Arc<str>, Formula)],
        call: &'e ModuleCall,
        scope: &Rc<Scope<'e>>,
        call_place: Place<'e>,
        input: Flow,
    ) -> Built<'e> {
        let Some(selector) = call.positional.first() else {
            return Err(DbError::schema(
                call_place.entry,
                call_place.field,
                format!(
                    "`{{{}}}(...)` chooses by its first argument, which is missing",
                    call.class
                ),
            ));
        };
        let value = self.value(scope, selector, call_place)?;
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), String::from);
        let Some((name, chosen)) = cases.iter().find(|(case, _)| **case == *text) else {
            let known = cases
                .iter()
                .map(|(case, _)| &**case)
                .collect::<Vec<_>>()
                .join(", ");
            let config = self.evaluator.config_read(scope, selector);
            let reason = format!("`{}` is not one of {known}", crate::value::shortened(&text));
            return Err(DbError {
                config,
                kind: Fault::Evaluation,
                ..DbError::schema(&entry.key, "choose", reason)
            });
        };
        let Kind::Module(module) = &chosen.expr.kind else {
            return Err(DbError::schema(
                &entry.key,
                format!("choose.{name}"),
                "needs a module call",
            ));
        };
        let args = self.arguments(entry, call, call_place)?;
        let place = Place::of(entry, chosen);
        let key = self
            .evaluator
            .db
            .resolve(&module.class, &entry.file)
            .map_err(|e| DbError::schema(&entry.key, format!("choose.{name}"), e.reason))?;
        let class = self.evaluator.db.entry(&key)?;
        // What the call leaves out is not passed on: `elements` is then what flows in.
        let left_out = |expr: &Expr| matches!(expr.kind, Kind::Name(n) if entry.parameters.iter().any(|p| p.name == n && p.default.is_none()) && !args.iter().any(|(a, _)| *a == n));
        let mut passed = self.arguments(class, module, place)?;
        passed.retain(|(_, expr)| !left_out(expr));
        let inner = Scope::new(
            Some(scope.clone()),
            ScopeKind::Module(Box::new(ModuleScope {
                entry,
                args,
                given: Vec::new(),
                call: Some(call_place),
                input: Flow::default(),
                config: None,
                rules: &[],
            })),
        );
        self.module(class, passed, place, inner, input)
    }

    /// Arguments by name.
    fn arguments(
        &self,
        entry: &'e Entry,
        call: &'e ModuleCall,
        place: Place<'e>,
    ) -> Result<Vec<(Name, &'e Expr)>, DbError> {
        let wrong = |reason: String| Err(DbError::schema(place.entry, place.field, reason));
        if call.positional.len() > entry.parameters.len() {
            let takes = entry
                .parameters
                .iter()
                .map(|p| p.name.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return wrong(format!(
                "`{{{}}}` takes {} arguments ({takes}), got {}",
                call.class,
                entry.parameters.len(),
                call.positional.len()
            ));
        }
        let mut args: Vec<(Name, &'e Expr)> = entry
            .parameters
            .iter()
            .zip(&call.positional)
            .map(|(p, e)| (p.name, e))
            .collect();
        for (name, expr) in &call.named {
            if args.iter().any(|(n, _)| n == name) {
                return wrong(format!(
                    "`{{{}}}` gets the argument `{name}` twice",
                    call.class
                ));
            }
            args.push((*name, expr));
        }
        Ok(args)
    }

    /// Expands the module at the root, with argument values where there is no call that gives them.
    pub(super) fn root(
        &mut self,
        entry: &'e Entry,
        given: Vec<(Name, Value)>,
        parent: Rc<Scope<'e>>,
        input: Flow,
        config: Option<Arc<Object>>,
    ) -> Built<'e> {
        self.build(
            entry,
            Arguments {
                args: Vec::new(),
                given,
                call: None,
                config,
            },
            parent,
            input,
        )
    }

    pub(super) fn module(
        &mut self,
        entry: &'e Entry,
        args: Vec<(Name, &'e Expr)>,
        call: Place<'e>,
        parent: Rc<Scope<'e>>,
        input: Flow,
    ) -> Built<'e> {
        self.build(
            entry,
            Arguments {
                args,
                given: Vec::new(),
                call: Some(call),
                config: None,
            },
            parent,
            input,
        )
    }

    fn build(
        &mut self,
        entry: &'e Entry,
        arguments: Arguments<'e>,
        parent: Rc<Scope<'e>>,
        input: Flow,
    ) -> Built<'e> {
        self.modules += 1;
        self.enter(entry)?;
        let built = self.build_open(entry, arguments, parent, input);
        self.open.pop();
        built
    }

    /// Notes that an entry is being expanded, unless it is inside itself or too deep.
    fn enter(&mut self, entry: &'e Entry) -> Result<(), DbError> {
        // Nothing real holds its own class three times over; a circle does so at once.
        if self
            .open
            .iter()
            .filter(|open| std::ptr::eq(**open, entry))
            .count()
            >= 3
        {
            let reason = format!(
                "contains itself (module {})",
                crate::value::shortened(&self.path.join("."))
            );
            return Err(DbError::schema(&entry.key, "children", reason));
        }
        if self.modules > MAX_MODULES || self.open.len() >= MAX_NESTING {
            let (what, limit) = if self.modules > MAX_MODULES {
                ("the number of modules", MAX_MODULES)
            } else {
                ("the nesting of modules", MAX_NESTING)
            };
            return Err(DbError::schema(
                &entry.key,
                "",
                format!(
                    "{what} exceeds the limit of {limit} (module {})",
                    self.path.join(".")
                ),
            ));
        }
        self.open.push(entry);
        Ok(())
    }

    fn build_open(
        &mut self,
        entry: &'e Entry,
        arguments: Arguments<'e>,
        parent: Rc<Scope<'e>>,
        input: Flow,
    ) -> Built<'e> {
        let Arguments {
            args,
            given,
            call,
            mut config,
        } = arguments;
        let place = call.unwrap_or(Place {
            entry: &entry.key,
            field: "",
            text: &entry.key,
        });
        let mut calls = 1;
        for (name, expr) in &args {
            if *name == *CALLS {
                let value = self.value(&parent, expr, place)?;
                calls = value
                    .as_int()
                    .and_then(|c| u128::try_from(c).ok())
                    .ok_or_else(|| {
                        DbError::schema(
                            place.entry,
                            place.field,
                            format!(
                                "`calls` has to be a whole number of 0 or more, not {}",
                                value.describe()
                            ),
                        )
                    })?;
            } else if *name == *CONFIG {
                config = match self.value(&parent, expr, place)? {
                    Value::Object(object) => Some(object),
                    Value::None => Some(Arc::default()),
                    other => {
                        return Err(DbError::schema(
                            place.entry,
                            place.field,
                            format!("`config` has to be an object, not {}", other.describe()),
                        ));
                    }
                };
            }
        }
        let input = self.sizes_given(&args, &parent, place, input)?;
        let rules = if config.is_some() {
            self.evaluator.db.config_rules(entry)?
        } else {
            &[]
        };
        let scope = Scope::new(
            Some(parent),
            ScopeKind::Module(Box::new(ModuleScope {
                entry,
                args,
                given,
                call,
                input,
                config,
                rules,
            })),
        );
        let mut node = self.empty(entry, scope.clone());
        node.calls = calls;
        node.tensors = self.tensors(&entry.weights, entry, &scope)?;
        node.buffers = self.tensors(&entry.buffers, entry, &scope)?;
        for tensor in &mut node.tensors {
            tensor.multiplied = entry.rows.iter().any(|row| {
                row.operand.as_deref() == Some(&*tensor.name) && row.kind == RowKind::WeightMac
            });
        }
        let output = self.inside(entry, &scope, input, &mut node)?;
        self.own_work(entry, &scope, &mut node)?;
        if input.data {
            let on_weights = |w: &&super::node::Work<'_>| *w.kind == RowKind::WeightMac;
            let macs = node.work.iter().filter(on_weights).map(|w| w.count);
            node.data_macs = macs.fold(0, u128::saturating_add);
        }
        let output = Flow {
            data: output.data && node.tensors.is_empty(),
            ..output
        };
        Ok((Rc::new(node), output))
    }

    /// What flows in, with the sizes that the call gives by name.
    fn sizes_given(
        &mut self,
        args: &[(Name, &'e Expr)],
        parent: &Rc<Scope<'e>>,
        place: Place<'e>,
        mut input: Flow,
    ) -> Result<Flow, DbError> {
        for (name, expr) in args {
            let slot = match name.as_str() {
                "S" => &mut input.s,
                "H" => &mut input.h,
                "W" => &mut input.w,
                "C" => &mut input.c,
                _ => continue,
            };
            let size = self.value(parent, expr, place)?.as_int();
            if size.is_some_and(|n| !(0..=super::shape::MAX_SIZE).contains(&n)) {
                let reason = format!("`{name}` has to be a size from 0 to 2 ** 60");
                return Err(DbError::schema(place.entry, place.field, reason));
            }
            *slot = size;
        }
        Ok(input)
    }

    fn tensors(
        &mut self,
        written: &'e [(Arc<str>, Formula)],
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
    ) -> Result<Vec<Tensor>, DbError> {
        let mut tensors = Vec::with_capacity(written.len());
        for (name, formula) in written {
            let shape = self.value(scope, &formula.expr, Place::of(entry, formula))?;
            let dims: Option<Vec<u128>> = match &shape {
                Value::None => continue,
                Value::List(dims) => dims
                    .iter()
                    .map(|d| d.as_int().filter(|d| *d >= 1).map(|d| d as u128))
                    .collect(),
                _ => None,
            };
            let Some(dims) = dims else {
                let reason = format!(
                    "the tensor `{name}` of {} would have the shape {shape}; every size has to be a whole number of 1 or more",
                    entry.path
                );
                return Err(self.wrong(scope, formula, entry, reason));
            };
            let Some(elements) = dims.iter().try_fold(1u128, |n, d| n.checked_mul(*d)) else {
                let reason = format!(
                    "the tensor `{name}` of {} has more elements than fit 128 bits",
                    entry.path
                );
                return Err(self.wrong(scope, formula, entry, reason));
            };
            tensors.push(Tensor {
                name: name.clone(),
                shape: dims,
                elements,
                multiplied: false,
                stored: None,
            });
        }
        Ok(tensors)
    }

    /// Children and `forward`.
    fn inside(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        input: Flow,
        node: &mut Node<'e>,
    ) -> Result<Flow, DbError> {
        let named = match &entry.children {
            Children::Numbered(formula) => {
                let mut list = List::new(input);
                self.items(&formula.expr, scope, Place::of(entry, formula), &mut list)?;
                node.children = list.children;
                return Ok(list.flow);
            }
            Children::Named(named) => named,
        };
        let mut slots = Vec::with_capacity(named.len());
        for (name, formula) in named {
            let place = Place::of(entry, formula);
            if let Some(spec) = self.chosen(&formula.expr, scope, place)? {
                slots.push(Slot {
                    name: *name,
                    spec,
                    place,
                    node: None,
                });
            }
        }
        let output = match &entry.forward {
            Some(statements) => {
                let mut walk = Walk {
                    scope,
                    entry,
                    slots,
                    locals: vec![(*INPUT, input)],
                    tensors: node.tensors.iter().chain(&node.buffers).cloned().collect(),
                };
                let output = self.statements(statements, &mut walk)?;
                slots = walk.slots;
                output
            }
            None => {
                for slot in &mut slots {
                    self.run(slot, scope, input)?;
                }
                let passes = slots.is_empty() && node.tensors.is_empty();
                Flow {
                    c: input.c.filter(|_| passes),
                    ..input
                }
            }
        };
        for mut slot in slots {
            let child = match slot.node.take() {
                Some(child) => child,
                None => {
                    // Owned, never run: its parameters count, its work does not.
                    self.run(&mut slot, scope, input)?;
                    let mut idle = slot
                        .node
                        .take()
                        .map_or_else(|| unreachable!("run fills the slot"), |n| (*n).clone());
                    idle.calls = 0;
                    Rc::new(idle)
                }
            };
            node.children.push((slot.name.as_str().into(), child));
        }
        Ok(output)
    }

    /// The side of `if .. else ..` that a child's formula chooses; `None` if the child does not exist.
    pub(super) fn chosen(
        &mut self,
        expr: &'e Expr,
        scope: &Rc<Scope<'e>>,
        place: Place<'e>,
    ) -> Result<Option<&'e Expr>, DbError> {
        let mut expr = expr;
        loop {
            match &expr.kind {
                Kind::If(i) => {
                    let holds = self.value(scope, &i.condition, place)?.truth();
                    expr = if holds { &i.then } else { &i.other };
                }
                Kind::Value(Value::None) => return Ok(None),
                _ => return Ok(Some(expr)),
            }
        }
    }

    /// Runs a child once more with what flows in.
    pub(super) fn run(
        &mut self,
        slot: &mut Slot<'e>,
        scope: &Rc<Scope<'e>>,
        input: Flow,
    ) -> Result<Flow, DbError> {
        self.path.push(slot.name.as_str().into());
        let built = match &slot.spec.kind {
            Kind::Module(call) => self.call(call, &flowing(scope, input), slot.place, input),
            _ => self.module_list(slot.spec, scope, slot.place, input),
        };
        let (node, output) = built?;
        slot.node = Some(match slot.node.take() {
            None => node,
            Some(before) => {
                let mut joined = (*before).clone();
                joined.join(&node).map_err(|reason| {
                    DbError::schema(
                        slot.place.entry,
                        "forward",
                        format!("child `{}`: {reason}", slot.name),
                    )
                })?;
                Rc::new(joined)
            }
        });
        self.path.pop();
        Ok(output)
    }
}

/// A child of a module on its way into the tree.
pub(super) struct Slot<'e> {
    pub name: Name,
    spec: &'e Expr,
    place: Place<'e>,
    node: Option<Rc<Node<'e>>>,
}

/// The scope of a call's arguments: what flows into the child, then the module around it.
pub(super) fn flowing<'e>(scope: &Rc<Scope<'e>>, input: Flow) -> Rc<Scope<'e>> {
    Scope::new(Some(scope.clone()), ScopeKind::Flowing(input))
}

pub(super) fn failure<'e>(
    evaluator: &mut Evaluator<'e>,
    scope: &Rc<Scope<'e>>,
    expr: &Expr,
    place: Place<'e>,
    error: EvalError,
) -> DbError {
    if let EvalErrorKind::Inner(_) = &error.kind {
        return DbError::eval(place.entry, place.field, place.text, error);
    }
    evaluator.failed(scope, place.entry, place.field, place.text, expr, error)
}
