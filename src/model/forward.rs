//! Reading a `forward` for sizes: which children run, how often, on what.

use super::expand::{Expansion, Slot};
use super::node::Tensor;
use super::scope::{Place, Scope};
use super::shape::{self, Arg, Flow};
use crate::db::{Children, DbError, Entry};
use crate::formula::{Expr, Kind, Statement, did_you_mean};
use crate::value::{Name, Value};
use std::rc::Rc;

impl<'e> Expansion<'e> {
    /// The flow that the last statement of a `forward` gives.
    pub(super) fn statements(
        &mut self,
        statements: &'e [Statement],
        walk: &mut Walk<'_, 'e>,
    ) -> Result<Flow, DbError> {
        let mut last = Flow::default();
        for statement in statements {
            let place = Place {
                entry: &walk.entry.key,
                field: "forward",
                text: &statement.flow.text,
            };
            last = match self.flow(&statement.flow.expr, walk, place)? {
                Arg::Flow(flow) => flow,
                _ => {
                    return Err(DbError::schema(
                        &walk.entry.key,
                        "forward",
                        format!("`{}` gives nothing that flows", statement.flow.text),
                    ));
                }
            };
            if let Some(name) = statement.name {
                walk.locals.push((name, last));
            }
        }
        Ok(last)
    }

    fn flow(
        &mut self,
        expr: &'e Expr,
        walk: &mut Walk<'_, 'e>,
        place: Place<'e>,
    ) -> Result<Arg, DbError> {
        let fail = |reason: String| {
            Err(DbError {
                formula: Some((place.text.clone(), expr.at as usize)),
                ..DbError::schema(place.entry, "forward", reason)
            })
        };
        match &expr.kind {
            Kind::Name(name) => {
                if let Some((_, flow)) = walk.locals.iter().rev().find(|(n, _)| n == name) {
                    return Ok(Arg::Flow(*flow));
                }
                if let Some(tensor) = walk.tensors.iter().find(|t| *t.name == *name.as_str()) {
                    return Ok(Arg::Tensor(
                        tensor
                            .shape
                            .iter()
                            .map(|d| i128::try_from(*d).unwrap_or(i128::MAX))
                            .collect(),
                    ));
                }
                self.value(walk.scope, expr, place).map(Arg::Value)
            }
            Kind::Call(name, args) => {
                let slot = walk.slots.iter().position(|slot| slot.name == *name);
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    values.push(self.flow(arg, walk, place)?);
                }
                if let Some(i) = slot {
                    let Some(Arg::Flow(input)) = values.first() else {
                        return fail(format!("the child `{name}` needs what flows into it"));
                    };
                    let mut slot = walk.slots.swap_remove(i);
                    let output = self.run(&mut slot, walk.scope, *input);
                    walk.slots.push(slot);
                    let last = walk.slots.len() - 1;
                    walk.slots.swap(i, last);
                    return output.map(Arg::Flow);
                }
                if let Children::Named(named) = &walk.entry.children
                    && named.iter().any(|(n, _)| n == name)
                {
                    return fail(format!(
                        "the child `{name}` does not exist here; write `{name}(x) if {name} else x`"
                    ));
                }
                if let (Some(size), "input") = (self.image_size, name.as_str()) {
                    for side in values.iter_mut().take(2) {
                        *side = Arg::Value(Value::Int(size));
                    }
                }
                match shape::apply(name.as_str(), &values) {
                    Ok(flow) => Ok(Arg::Flow(flow)),
                    Err(_) if crate::formula::functions::find(name.as_str()).is_some() => {
                        self.value(walk.scope, expr, place).map(Arg::Value)
                    }
                    Err(reason) => {
                        let children = walk.slots.iter().map(|slot| slot.name.as_str());
                        let hint = if shape::primitive(name.as_str()).is_none() {
                            did_you_mean(name.as_str(), children)
                        } else {
                            String::new()
                        };
                        fail(format!("{reason}{hint}"))
                    }
                }
            }
            Kind::Binary(_, sides) => match (
                self.flow(&sides.0, walk, place)?,
                self.flow(&sides.1, walk, place)?,
            ) {
                (Arg::Flow(a), Arg::Flow(b)) => Ok(Arg::Flow(a.broadcast(b))),
                (Arg::Flow(a), _) | (_, Arg::Flow(a)) => Ok(Arg::Flow(a)),
                _ => self.value(walk.scope, expr, place).map(Arg::Value),
            },
            Kind::If(i) => {
                let holds = match &i.condition.kind {
                    Kind::Name(name) if walk.is_child(*name) => {
                        walk.slots.iter().any(|slot| slot.name == *name)
                    }
                    _ => self.value(walk.scope, &i.condition, place)?.truth(),
                };
                self.flow(if holds { &i.then } else { &i.other }, walk, place)
            }
            Kind::Module(_) => fail("a `forward` calls children by name, not by class".into()),
            _ => self.value(walk.scope, expr, place).map(Arg::Value),
        }
    }
}

/// A `forward` being read.
pub(super) struct Walk<'w, 'e> {
    pub scope: &'w Rc<Scope<'e>>,
    pub entry: &'e Entry,
    pub slots: Vec<Slot<'e>>,
    pub locals: Vec<(Name, Flow)>,
    pub tensors: Vec<Tensor>,
}

impl Walk<'_, '_> {
    fn is_child(&self, name: Name) -> bool {
        matches!(&self.entry.children, Children::Named(named) if named.iter().any(|(n, _)| *n == name))
    }
}
