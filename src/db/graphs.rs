//! Models that are recognised by the tensors of a checkpoint, where no config names a class.
//!
//! The table `$graphs`: name -> the class (or several, of which the tree decides), tensors that must be there, and what a config of the class would say, as formulas
//! over the one name `tensors`. That is the checkpoint as an object: names are taken apart at their dots, numbered parts are
//! lists (None where a number is missing), a tensor is the list of its sizes. So `len(tensors.layer1)` counts blocks,
//! `tensors.fc.weight[0]` is a width, `'conv3' in tensors.layer1[0]` asks whether a tensor is there.
//!
//! A formula that meets another checkpoint than it expects has no value, and the graph is not that checkpoint's. What the
//! formulas say is a conjecture; whoever uses it holds the tree that follows from it against the tensors.

use super::error::DbError;
use crate::formula::{Budget, EvalErrorKind, Formula, Kind, ModuleCall, Names, eval};
use crate::value::{Name, Object, Value};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A model that its tensors tell.
#[derive(Clone, Debug)]
pub struct Graph {
    /// What users call it.
    pub name: Arc<str>,
    /// Its class, or several that differ in their heads: the one whose tree has the tensors.
    pub classes: Vec<Arc<str>>,
    /// Tensors that must be there.
    pub when: Vec<Arc<str>>,
    /// Keys of its config, with formulas over `tensors`.
    pub config: Vec<(Arc<str>, Formula)>,
}

impl Graph {
    /// The config that tensors tell; `None` where they are not those of this model.
    pub fn config_of(&self, tensors: &Tensors) -> Option<Object> {
        if !self.when.iter().all(|name| tensors.has(name)) {
            return None;
        }
        let mut surroundings = Surroundings(&tensors.tree);
        let mut budget = Budget::default();
        let told = self.config.iter().map(|(key, formula)| {
            let value = eval(&formula.expr, &mut surroundings, &mut budget).ok()?;
            Some((key.clone(), value))
        });
        Some(Object(told.collect::<Option<_>>()?))
    }
}

/// The tensors of a checkpoint as formulas see them.
pub struct Tensors {
    tree: Value,
}

/// Most parts of a tensor's name; deeper ones are left out.
const MAX_PARTS: usize = 32;

impl Tensors {
    /// Of names with their shapes, where those are known.
    pub fn new<'t>(tensors: impl Iterator<Item = (&'t str, Option<&'t [u64]>)>) -> Tensors {
        let mut root = Branch::default();
        for (name, shape) in tensors {
            if name.split('.').count() > MAX_PARTS {
                continue;
            }
            let end = name.split('.').fold(&mut root, |branch, part| {
                branch.below.entry(part).or_default()
            });
            end.shape = Some(shape.map_or(Value::None, |sizes| {
                Value::List(sizes.iter().map(|n| Value::Int((*n).into())).collect())
            }));
        }
        Tensors { tree: root.value() }
    }

    fn has(&self, name: &str) -> bool {
        let mut at = &self.tree;
        for part in name.split('.') {
            let below = match at {
                Value::Object(object) => object.get(part),
                Value::List(items) => part.parse().ok().and_then(|n: usize| items.get(n)),
                _ => None,
            };
            match below {
                Some(below) => at = below,
                None => return false,
            }
        }
        matches!(at, Value::List(sizes) if sizes.iter().all(|size| size.as_int().is_some()))
    }
}

/// What begins with one part of a name.
#[derive(Default)]
struct Branch<'t> {
    shape: Option<Value>,
    below: BTreeMap<&'t str, Branch<'t>>,
}

impl Branch<'_> {
    fn value(self) -> Value {
        if self.below.is_empty() {
            return self.shape.unwrap_or(Value::None);
        }
        let number = |part: &str| match part.as_bytes() {
            [b'0'] | [b'1'..=b'9', ..] => part.parse::<usize>().ok(),
            _ => None,
        };
        let numbers: Option<Vec<usize>> = self.below.keys().map(|part| number(part)).collect();
        // Gaps are parts without tensors, such as activations; a list that is mostly gaps is none.
        let most = 16 + 8 * self.below.len();
        match numbers.filter(|numbers| numbers.iter().all(|n| *n < most)) {
            Some(numbers) => {
                let length = numbers.iter().max().map_or(0, |last| last + 1);
                let mut items = vec![Value::None; length];
                for (number, branch) in numbers.into_iter().zip(self.below.into_values()) {
                    items[number] = branch.value();
                }
                Value::List(items.into())
            }
            None => {
                let fields = self.below.into_iter();
                let fields = fields.map(|(part, branch)| (part.into(), branch.value()));
                Value::Object(Arc::new(Object(fields.collect())))
            }
        }
    }
}

/// The one name that the formulas know.
const TENSORS: &str = "tensors";

struct Surroundings<'t>(&'t Value);

impl Names for Surroundings<'_> {
    fn name(&mut self, name: Name, _: &mut Budget) -> Result<Value, EvalErrorKind> {
        if name.as_str() == TENSORS {
            return Ok(self.0.clone());
        }
        Err(EvalErrorKind::UnknownName {
            name: name.to_string(),
            hint: format!(", there is only `{TENSORS}`"),
        })
    }

    fn module(&mut self, _: &ModuleCall, _: &mut Budget) -> Result<Value, EvalErrorKind> {
        Err(EvalErrorKind::Kind(
            "a graph tells its config from tensors, not from modules".into(),
        ))
    }

    fn known(&self) -> Vec<Name> {
        vec![Name::new(TENSORS)]
    }
}

/// Reads the table.
pub(super) fn read(table: &Object) -> Result<Vec<Graph>, DbError> {
    table
        .0
        .iter()
        .filter(|(name, _)| &**name != "doc")
        .map(|(name, value)| graph(name, value))
        .collect()
}

fn graph(name: &Arc<str>, value: &Value) -> Result<Graph, DbError> {
    let wrong = |reason: &str| DbError::schema("$graphs", name.to_string(), reason);
    let object = value.as_object().ok_or_else(|| wrong("needs an object"))?;
    let texts = |value: &Value| match value {
        Value::Str(text) => Some(vec![text.clone()]),
        Value::List(items) => items
            .iter()
            .map(|item| item.as_str().map(Arc::from))
            .collect(),
        _ => None,
    };
    let classes = object
        .get("class")
        .and_then(texts)
        .filter(|of| !of.is_empty());
    let classes = classes.ok_or_else(|| wrong("lacks `class`, a class or a list of classes"))?;
    let when = object.get("when").and_then(texts);
    let when = when.ok_or_else(|| wrong("lacks `when`, a list of names of tensors"))?;
    let config = match object.get("config") {
        None => &Object::default(),
        Some(config) => config
            .as_object()
            .ok_or_else(|| wrong("`config` is an object"))?,
    };
    let config = config.0.iter().map(|(key, value)| {
        let formula = match value {
            Value::Str(text) => {
                Formula::parse(text).map_err(|e| wrong(&format!("config.{key}: {e}")))?
            }
            constant => Formula::constant(constant.clone()),
        };
        known_names(&formula).map_err(|name| {
            wrong(&format!(
                "config.{key}: unknown name `{name}`, there is only `{TENSORS}`"
            ))
        })?;
        Ok((key.clone(), formula))
    });
    Ok(Graph {
        name: name.clone(),
        classes,
        when,
        config: config.collect::<Result<_, DbError>>()?,
    })
}

/// The first name of a formula that is neither `tensors` nor a loop variable.
fn known_names(formula: &Formula) -> Result<(), Name> {
    let mut known = HashSet::from([Name::new(TENSORS)]);
    formula.expr.walk(&mut |expr| {
        if let Kind::For(each) = &expr.kind {
            known.extend(each.vars.iter().copied());
        }
    });
    let mut unknown = None;
    formula.expr.walk(&mut |expr| {
        if let Kind::Name(name) = &expr.kind
            && !known.contains(name)
        {
            unknown = unknown.or(Some(*name));
        }
    });
    unknown.map_or(Ok(()), Err)
}
