//! The exact evaluator.

use super::ast::{Binary, Compare, Expr, For, Kind, Module};
use super::functions;
use super::{MAX_ITEMS, MAX_ITEMS_TOTAL, MAX_LOOKUPS, MAX_STEPS};
use crate::value::{Name, Value, ValueError};
use std::sync::Arc;

/// What a formula may ask of its surroundings.
pub trait Names {
    /// The value of a name.
    fn name(&mut self, name: Name, budget: &mut Budget) -> Result<Value, EvalErrorKind>;

    /// The asked-for quantity of a module call `{Class}(...)`; arguments are still to be evaluated.
    fn module(&mut self, call: &Module, budget: &mut Budget) -> Result<Value, EvalErrorKind>;

    /// Every name that could have been meant, for a did-you-mean.
    fn known(&self) -> Vec<Name>;
}

/// Why a formula has no value, and at which byte of its text.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct EvalError {
    /// Byte offset in the formula's text.
    pub at: u32,
    /// The reason.
    pub kind: EvalErrorKind,
}

/// Why a formula has no value.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EvalErrorKind {
    /// `hiden_size`: nobody defines the name.
    #[error("unknown name `{name}`{hint}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// `, did you mean ...?`, or nothing.
        hint: String,
    },
    /// `x = y`, `y = x`.
    #[error("`{0}` is defined by itself")]
    Cycle(Name),
    /// `foo(1)`.
    #[error("unknown function `{name}`{hint}")]
    UnknownFunction {
        /// The function asked for.
        name: Name,
        /// `, did you mean ...?`, or nothing.
        hint: String,
    },
    /// `ceil_div(1)`.
    #[error("`{function}` takes {takes} arguments, got {got}")]
    Arity {
        /// The function.
        function: String,
        /// How many it takes.
        takes: String,
        /// How many it got.
        got: usize,
    },
    /// `len(3)`: a function got a value it has no answer for.
    #[error("{0}")]
    Argument(String),
    /// Arithmetic without a result.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// `[1, 2][5]`.
    #[error("index {index} is outside a list of {length}")]
    Index {
        /// The index.
        index: i128,
        /// The length of the list.
        length: usize,
    },
    /// `config.missing`.
    #[error("the object has no key `{key}`{hint}")]
    Key {
        /// The key.
        key: String,
        /// `, did you mean ...?`, or nothing.
        hint: String,
    },
    /// A wrong kind of value: `3[0]`, `1 in 2`.
    #[error("{0}")]
    Kind(String),
    /// More than the named limit of something.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// The most that is allowed.
        limit: u64,
    },
    /// An error inside another formula that this one needs, already complete.
    #[error("{0}")]
    Inner(Arc<dyn std::error::Error + Send + Sync>),
}

/// What evaluation may still spend. One budget serves a whole analysis.
#[derive(Debug)]
pub struct Budget {
    steps: u64,
    items: u64,
    depth: usize,
    lookups: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            steps: MAX_STEPS,
            items: MAX_ITEMS_TOTAL,
            depth: 0,
            lookups: 0,
        }
    }
}

/// Deepest recursion over syntax trees and names together; keeps the evaluator within a small stack.
const MAX_RECURSION: usize = 600;

impl Budget {
    /// Takes one step.
    pub fn step(&mut self) -> Result<(), EvalErrorKind> {
        self.steps = self.steps.checked_sub(1).ok_or(EvalErrorKind::Limit {
            what: "the number of evaluation steps",
            limit: MAX_STEPS,
        })?;
        Ok(())
    }

    /// Takes room for list items.
    fn hold(&mut self, value: Value) -> Result<Value, EvalErrorKind> {
        if let Value::List(items) = &value {
            let limit = EvalErrorKind::Limit {
                what: "the number of list items",
                limit: MAX_ITEMS_TOTAL,
            };
            self.items = self.items.checked_sub(items.len() as u64).ok_or(limit)?;
        }
        Ok(value)
    }

    /// Runs `inner` one look-up deeper.
    pub fn lookup<T>(
        &mut self,
        inner: impl FnOnce(&mut Budget) -> Result<T, EvalErrorKind>,
    ) -> Result<T, EvalErrorKind> {
        if self.lookups >= MAX_LOOKUPS {
            return Err(EvalErrorKind::Limit {
                what: "the depth of names defined by names",
                limit: MAX_LOOKUPS as u64,
            });
        }
        self.lookups += 1;
        let result = inner(self);
        self.lookups -= 1;
        result
    }
}

/// Evaluates `expr`.
pub fn eval(expr: &Expr, names: &mut dyn Names, budget: &mut Budget) -> Result<Value, EvalError> {
    let fail = |kind: EvalErrorKind| EvalError { at: expr.at, kind };
    budget.step().map_err(fail)?;
    if budget.depth >= MAX_RECURSION {
        return Err(fail(EvalErrorKind::Limit {
            what: "the depth of evaluation",
            limit: MAX_RECURSION as u64,
        }));
    }
    budget.depth += 1;
    let result = node(expr, names, budget);
    budget.depth -= 1;
    result
}

fn node(expr: &Expr, names: &mut dyn Names, budget: &mut Budget) -> Result<Value, EvalError> {
    let fail = |kind: EvalErrorKind| EvalError { at: expr.at, kind };
    match &expr.kind {
        Kind::Value(value) => Ok(value.clone()),
        Kind::Name(name) => names.name(*name, budget).map_err(fail),
        Kind::Negate(a) => {
            let a = eval(a, names, budget)?;
            Value::sub(&Value::Int(0), &a).map_err(|e| fail(e.into()))
        }
        Kind::Not(a) => Ok(Value::Bool(!eval(a, names, budget)?.truth())),
        Kind::Binary(op, ab) => {
            let a = eval(&ab.0, names, budget)?;
            let b = eval(&ab.1, names, budget)?;
            let result = binary(*op, &a, &b).map_err(|e| fail(e.into()))?;
            budget.hold(result).map_err(fail)
        }
        Kind::Compare(op, ab) => {
            let a = eval(&ab.0, names, budget)?;
            let b = eval(&ab.1, names, budget)?;
            compare(*op, &a, &b).map(Value::Bool).map_err(fail)
        }
        Kind::And(ab) => {
            let a = eval(&ab.0, names, budget)?;
            if a.truth() {
                eval(&ab.1, names, budget)
            } else {
                Ok(a)
            }
        }
        Kind::Or(ab) => {
            let a = eval(&ab.0, names, budget)?;
            if a.truth() {
                Ok(a)
            } else {
                eval(&ab.1, names, budget)
            }
        }
        Kind::If(i) => {
            let chosen = if eval(&i.condition, names, budget)?.truth() {
                &i.then
            } else {
                &i.other
            };
            eval(chosen, names, budget)
        }
        Kind::Index(ab) => {
            let list = eval(&ab.0, names, budget)?;
            let index = eval(&ab.1, names, budget)?;
            index_of(&list, &index).map_err(fail)
        }
        Kind::Key(a, key) => {
            let object = eval(a, names, budget)?;
            key_of(&object, key).map_err(fail)
        }
        Kind::Call(function, args) => {
            let mut values = Vec::with_capacity(args.len());
            for arg in args {
                values.push(eval(arg, names, budget)?);
            }
            functions::call(*function, &values, names, budget).map_err(fail)
        }
        Kind::Module(call) => names.module(call, budget).map_err(fail),
        Kind::List(items) => {
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                values.push(eval(item, names, budget)?);
            }
            budget.hold(Value::List(values.into())).map_err(fail)
        }
        Kind::For(f) => {
            let list = comprehension(f, names, budget)?;
            budget.hold(list).map_err(fail)
        }
    }
}

fn binary(op: Binary, a: &Value, b: &Value) -> Result<Value, ValueError> {
    match op {
        Binary::Add => Value::add(a, b),
        Binary::Sub => Value::sub(a, b),
        Binary::Mul => Value::mul(a, b),
        Binary::Div => Value::div(a, b),
        Binary::FloorDiv => Value::floor_div(a, b),
        Binary::Rem => Value::rem(a, b),
        Binary::Pow => Value::pow(a, b),
    }
}

fn compare(op: Compare, a: &Value, b: &Value) -> Result<bool, EvalErrorKind> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    Ok(match op {
        Compare::Equal | Compare::Is => Value::equal(a, b),
        Compare::NotEqual | Compare::IsNot => !Value::equal(a, b),
        Compare::Less => Value::compare(a, b)? == Less,
        Compare::LessEqual => matches!(Value::compare(a, b)?, Less | Equal),
        Compare::Greater => Value::compare(a, b)? == Greater,
        Compare::GreaterEqual => matches!(Value::compare(a, b)?, Greater | Equal),
        Compare::In => contains(b, a)?,
        Compare::NotIn => !contains(b, a)?,
    })
}

fn contains(container: &Value, item: &Value) -> Result<bool, EvalErrorKind> {
    match (container, item) {
        (Value::List(items), _) => Ok(items.iter().any(|i| Value::equal(i, item))),
        (Value::Str(text), Value::Str(part)) => Ok(text.contains(&**part)),
        (Value::Object(object), Value::Str(key)) => Ok(object.get(key).is_some()),
        _ => Err(EvalErrorKind::Kind(format!(
            "`in` looks into a list, a string or an object, not {}",
            container.describe()
        ))),
    }
}

fn index_of(list: &Value, index: &Value) -> Result<Value, EvalErrorKind> {
    if let (Value::Object(_), Value::Str(key)) = (list, index) {
        return key_of(list, key);
    }
    let Value::List(items) = list else {
        return Err(EvalErrorKind::Kind(format!(
            "only a list can be indexed, not {}",
            list.describe()
        )));
    };
    let Some(i) = index.as_int() else {
        return Err(EvalErrorKind::Kind(format!(
            "an index is an integer, not {}",
            index.describe()
        )));
    };
    let from_end = if i < 0 {
        i.checked_add(items.len() as i128)
    } else {
        Some(i)
    };
    let item = from_end
        .and_then(|i| usize::try_from(i).ok())
        .and_then(|i| items.get(i));
    item.cloned().ok_or(EvalErrorKind::Index {
        index: i,
        length: items.len(),
    })
}

fn key_of(object: &Value, key: &str) -> Result<Value, EvalErrorKind> {
    let Value::Object(fields) = object else {
        return Err(EvalErrorKind::Kind(format!(
            "`.{key}` reads an object of a config, not {}",
            object.describe()
        )));
    };
    fields.get(key).cloned().ok_or_else(|| EvalErrorKind::Key {
        key: key.into(),
        hint: super::did_you_mean(key, fields.0.iter().map(|(k, _)| &**k)),
    })
}

/// The values that a `for` runs over: the items of a list, or 0 .. n-1.
pub(crate) fn items_of(over: &Value) -> Result<Arc<[Value]>, EvalErrorKind> {
    if let Value::List(items) = over {
        return Ok(items.clone());
    }
    match over.as_int() {
        Some(n) if n > MAX_ITEMS as i128 => Err(EvalErrorKind::Limit {
            what: "the length of a list",
            limit: MAX_ITEMS as u64,
        }),
        Some(n) if n >= 0 => Ok((0..n).map(Value::Int).collect()),
        _ => Err(EvalErrorKind::Kind(format!(
            "`for` runs over a list or a number of items, not {}",
            over.describe()
        ))),
    }
}

/// One row of a `for` taken apart into its variables.
pub(crate) fn bind(vars: &[Name], item: &Value) -> Result<Vec<(Name, Value)>, EvalErrorKind> {
    if let [var] = vars {
        return Ok(vec![(*var, item.clone())]);
    }
    match item {
        Value::List(parts) if parts.len() == vars.len() => {
            Ok(vars.iter().copied().zip(parts.iter().cloned()).collect())
        }
        _ => Err(EvalErrorKind::Kind(format!(
            "`for` takes {} values from each row, but a row is {}",
            vars.len(),
            item.describe()
        ))),
    }
}

fn comprehension(f: &For, names: &mut dyn Names, budget: &mut Budget) -> Result<Value, EvalError> {
    let over = eval(&f.over, names, budget)?;
    let items = items_of(&over).map_err(|kind| EvalError {
        at: f.over.at,
        kind,
    })?;
    let mut values = Vec::with_capacity(items.len());
    for item in items.iter() {
        let bound = bind(&f.vars, item).map_err(|kind| EvalError {
            at: f.over.at,
            kind,
        })?;
        values.push(eval(
            &f.item,
            &mut Bound {
                bound: &bound,
                outer: names,
            },
            budget,
        )?);
    }
    Ok(Value::List(values.into()))
}

/// The surroundings of a comprehension's item: its loop variables, then everything outside.
struct Bound<'a> {
    bound: &'a [(Name, Value)],
    outer: &'a mut dyn Names,
}

impl Names for Bound<'_> {
    fn name(&mut self, name: Name, budget: &mut Budget) -> Result<Value, EvalErrorKind> {
        match self.bound.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => Ok(value.clone()),
            None => self.outer.name(name, budget),
        }
    }

    fn module(&mut self, _: &Module, _: &mut Budget) -> Result<Value, EvalErrorKind> {
        // A quantity call evaluates its arguments outside, where the loop variable does not exist.
        Err(EvalErrorKind::Kind(
            "a module cannot be called inside a `for` of a formula; multiply instead".into(),
        ))
    }

    fn known(&self) -> Vec<Name> {
        let mut known = self.outer.known();
        known.extend(self.bound.iter().map(|(n, _)| *n));
        known
    }
}
