//! The walk: reads every module's `forward` for null channels, instance by instance.
//!
//! Equal layers have different weights, so the walk goes down every path of the tree, not every node. What a module gives
//! is what the last statement of its `forward` gives; lists and sequences pass on what the item before gave; a module
//! without `forward` runs its children on something unknown and gives something unknown.

use super::known::Known;
use super::rules::{self, Given, Seen};
use super::{Form, MOST_FOLLOWED, Rule, Weights};
use crate::channels::Channels;
use crate::db::{Children, Db};
use crate::formula::{Binary, Expr, Kind, Statement};
use crate::model::{Arg, Evaluator, Flow, Node, Status, apply_primitive, path_below};
use crate::value::{Name, Value};
use std::collections::HashMap;
use std::rc::Rc;

/// What is known of a layer's channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// How its weight is meant.
    pub form: Form,
    /// Height and width of what it gives, where it gives images.
    pub spatial: Option<(u64, u64)>,
    /// Input channels that are null at every call.
    pub null_in: Channels,
    /// Output channels that are null at every call, before bias and norm.
    pub null_out: Channels,
}

/// The layers of a model by the path of their weight, and the modules whose dataflow is not known.
#[derive(Clone, Debug, Default)]
pub struct Nulls {
    /// Layers, by the path of their weight.
    pub layers: HashMap<String, Layer>,
    /// Paths of modules that say nothing of what flows, and of unknown classes.
    pub unknown: Vec<String>,
}

/// Follows null channels through a tree. `rule` says when a channel is null.
pub fn nulls<W: Weights>(
    db: &Db,
    root: &Rc<Node<'_>>,
    rule: Rule,
    weights: &mut W,
) -> Result<Nulls, W::Error> {
    let mut walk = Walk {
        evaluator: Evaluator::new(db),
        rule,
        weights,
        nulls: Nulls::default(),
    };
    let input = Signal::of(Flow {
        s: walk.length(root),
        ..Flow::default()
    });
    walk.module(root, "", input)?;
    Ok(walk.nulls)
}

/// A value on its way: its sizes and what is known of its channels.
#[derive(Clone, Debug)]
struct Signal {
    flow: Flow,
    known: Known,
}

impl Signal {
    fn unknown() -> Signal {
        Signal::of(Flow::default())
    }

    /// Sizes of which no channel is known to be null.
    fn of(flow: Flow) -> Signal {
        Signal {
            flow,
            known: Known::nothing(0),
        }
    }

    /// Positions of an image, which flattening makes channels of.
    fn positions(&self) -> Option<usize> {
        let positions = self
            .flow
            .h
            .unwrap_or(1)
            .checked_mul(self.flow.w.unwrap_or(1))?;
        usize::try_from(positions).ok().filter(|n| *n <= 1 << 24)
    }
}

/// What an expression of a `forward` gives.
enum Got {
    Signal(Signal),
    Tensor { path: String, shape: Vec<u128> },
    Value(Value),
}

struct Walk<'w, 'e, W> {
    evaluator: Evaluator<'e>,
    rule: Rule,
    weights: &'w mut W,
    nulls: Nulls,
}

/// A `forward` being read: the module, its path, what its statements have named.
struct Frame<'f, 'e> {
    node: &'f Node<'e>,
    path: &'f str,
    locals: Vec<(Name, Signal)>,
}

impl<'e, W: Weights> Walk<'_, 'e, W> {
    /// What a module gives for what flows in.
    fn module(
        &mut self,
        node: &Rc<Node<'e>>,
        path: &str,
        input: Signal,
    ) -> Result<Signal, W::Error> {
        let Some(entry) = node.entry.filter(|_| node.status != Status::Unresolved) else {
            self.nulls.unknown.push(path.to_string());
            return Ok(Signal::unknown());
        };
        if let Some(statements) = &entry.forward {
            return self.statements(statements, node, path, input);
        }
        let chain = entry.container || matches!(entry.children, Children::Numbered(_));
        // Sizes are passed on as the expansion passed them.
        let sizes = Signal::of(Flow {
            c: None,
            ..input.flow
        });
        let mut signal = input;
        for (name, child) in &node.children {
            let given = if chain { signal.clone() } else { sizes.clone() };
            let output = self.module(child, &path_below(path, name), given)?;
            if chain {
                signal = output;
            }
        }
        if chain {
            return Ok(signal);
        }
        if !node.children.is_empty() {
            self.nulls.unknown.push(path.to_string());
        }
        Ok(sizes)
    }

    /// Positions of what arrives at the root.
    fn length(&mut self, root: &Node<'e>) -> Option<i128> {
        let name = Expr::new(0, Kind::Name(Name::new("S")));
        let value = self.evaluator.value(&root.scope, &name);
        value.ok().and_then(|(value, _)| value.as_int())
    }

    fn statements(
        &mut self,
        statements: &'e [Statement],
        node: &Rc<Node<'e>>,
        path: &str,
        input: Signal,
    ) -> Result<Signal, W::Error> {
        let mut frame = Frame {
            node,
            path,
            locals: vec![(Name::new("x"), input)],
        };
        let mut last = Signal::unknown();
        for statement in statements {
            last = match self.expression(&statement.flow.expr, &mut frame)? {
                Got::Signal(signal) => signal,
                _ => Signal::unknown(),
            };
            if let Some(name) = statement.name {
                frame.locals.push((name, last.clone()));
            }
        }
        Ok(last)
    }

    fn expression(&mut self, expr: &'e Expr, frame: &mut Frame<'_, 'e>) -> Result<Got, W::Error> {
        match &expr.kind {
            Kind::Name(name) => Ok(self.name(*name, expr, frame)),
            Kind::Call(name, args) => self.call(*name, args, expr, frame),
            Kind::Binary(operator, sides) => {
                let (a, b) = (
                    self.expression(&sides.0, frame)?,
                    self.expression(&sides.1, frame)?,
                );
                Ok(match (a, b) {
                    (Got::Signal(a), Got::Signal(b)) => {
                        let known = match operator {
                            Binary::Add => a.known.sum(&b.known, 1.0),
                            Binary::Sub => a.known.sum(&b.known, -1.0),
                            Binary::Mul => a.known.product(&b.known),
                            _ => Known::nothing(a.known.nulls.width()),
                        };
                        Got::Signal(Signal {
                            flow: a.flow.broadcast(b.flow),
                            known,
                        })
                    }
                    // A number is added to, or multiplied with, every channel.
                    (Got::Signal(a), _) | (_, Got::Signal(a)) => {
                        let keeps = matches!(operator, Binary::Mul | Binary::Div);
                        let known = if keeps {
                            a.known.nulls.into()
                        } else {
                            Known::nothing(a.known.nulls.width())
                        };
                        Got::Signal(Signal { known, ..a })
                    }
                    _ => self.value(expr, frame),
                })
            }
            Kind::If(choice) => {
                let holds = match &choice.condition.kind {
                    Kind::Name(name) if is_child(frame.node, *name) => {
                        child(frame.node, *name).is_some()
                    }
                    _ => {
                        matches!(self.value(&choice.condition, frame), Got::Value(value) if value.truth())
                    }
                };
                self.expression(if holds { &choice.then } else { &choice.other }, frame)
            }
            _ => Ok(self.value(expr, frame)),
        }
    }

    fn name(&mut self, name: Name, expr: &'e Expr, frame: &Frame<'_, 'e>) -> Got {
        if let Some((_, signal)) = frame.locals.iter().rev().find(|(local, _)| *local == name) {
            return Got::Signal(signal.clone());
        }
        let tensors = frame.node.tensors.iter().chain(&frame.node.buffers);
        match tensors.into_iter().find(|t| *t.name == *name.as_str()) {
            Some(tensor) => Got::Tensor {
                path: path_below(frame.path, &tensor.name),
                shape: tensor.shape.clone(),
            },
            None => self.value(expr, frame),
        }
    }

    /// The value of an expression without signals. Expansion has evaluated it before, so an error cannot be news.
    fn value(&mut self, expr: &'e Expr, frame: &Frame<'_, 'e>) -> Got {
        let value = self.evaluator.value(&frame.node.scope, expr);
        Got::Value(value.map_or(Value::None, |(value, _)| value))
    }

    fn call(
        &mut self,
        name: Name,
        args: &'e [Expr],
        expr: &'e Expr,
        frame: &mut Frame<'_, 'e>,
    ) -> Result<Got, W::Error> {
        let got = args
            .iter()
            .map(|arg| self.expression(arg, frame))
            .collect::<Result<Vec<Got>, _>>()?;
        if let Some(child) = child(frame.node, name) {
            let input = match got.into_iter().next() {
                Some(Got::Signal(signal)) => signal,
                _ => Signal::unknown(),
            };
            return self
                .module(&child, &path_below(frame.path, name.as_str()), input)
                .map(Got::Signal);
        }
        let sizes: Vec<Arg> = got.iter().map(size_of).collect();
        let Ok(flow) = apply_primitive(name.as_str(), &sizes) else {
            // A function of numbers, or sizes that the walk has lost.
            let any_signal = got.iter().any(|got| matches!(got, Got::Signal(_)));
            return Ok(if any_signal {
                Got::Signal(Signal::unknown())
            } else {
                self.value(expr, frame)
            });
        };
        let width = flow
            .c
            .and_then(|c| usize::try_from(c).ok())
            .filter(|c| *c <= MOST_FOLLOWED)
            .unwrap_or(0);
        let given: Vec<Given<'_>> = got.iter().map(given).collect();
        let (known, seen) = rules::apply(name.as_str(), &given, width, self.rule, self.weights)?;
        if let Some(seen) = seen {
            self.layer(seen, flow);
        }
        Ok(Got::Signal(Signal { flow, known }))
    }

    /// A layer that is called again is null only where it is null at every call.
    fn layer(&mut self, seen: Seen, output: Flow) {
        let side = |size: Option<i128>| size.and_then(|size| u64::try_from(size).ok());
        let layer = Layer {
            spatial: side(output.h).zip(side(output.w)),
            form: seen.form,
            null_in: seen.null_in,
            null_out: seen.null_out,
        };
        match self.nulls.layers.get_mut(&seen.tensor) {
            Some(known) => {
                known.null_in = known.null_in.and(&layer.null_in);
                known.null_out = known.null_out.and(&layer.null_out);
            }
            None => {
                self.nulls.layers.insert(seen.tensor, layer);
            }
        }
    }
}

fn size_of(got: &Got) -> Arg {
    match got {
        Got::Signal(signal) => Arg::Flow(signal.flow),
        Got::Tensor { shape, .. } => Arg::Tensor(
            shape
                .iter()
                .map(|side| i128::try_from(*side).unwrap_or(i128::MAX))
                .collect(),
        ),
        Got::Value(value) => Arg::Value(value.clone()),
    }
}

fn given(got: &Got) -> Given<'_> {
    match got {
        Got::Signal(signal) => Given::Signal {
            known: &signal.known,
            positions: signal.positions(),
        },
        Got::Tensor { path, shape } => Given::Tensor {
            path: path.clone(),
            shape: shape
                .iter()
                .map(|side| u64::try_from(*side).unwrap_or(u64::MAX))
                .collect(),
        },
        Got::Value(value) => Given::Value(value),
    }
}

fn child<'e>(node: &Node<'e>, name: Name) -> Option<Rc<Node<'e>>> {
    node.children
        .iter()
        .find(|(child, _)| **child == *name.as_str())
        .map(|(_, child)| child.clone())
}

fn is_child(node: &Node<'_>, name: Name) -> bool {
    node.entry.is_some_and(|entry| {
        matches!(&entry.children, Children::Named(named) if named.iter().any(|(child, _)| *child == name))
    })
}
