//! Lists of modules: each item fed with what the one before it gives, equal items expanded once.
//!
//! While an item is expanded, every formula whose value depended on the item's index is logged with its scope. The next
//! item is equal if the same sizes flow in and every logged formula, evaluated with the next index, says the same; then it
//! is the same node. Llama's layers never read their index, so one is expanded; DeepSeek-V3's read it in one comparison, so
//! two are. Collapsing rows and being fast are this one thing.

use super::expand::{Built, Expansion, Logged, failure, flowing};
use super::node::Node;
use super::scope::{Place, Scope, ScopeKind};
use super::shape::Flow;
use crate::db::DbError;
use crate::formula::{EvalError, Expr, Kind, bind, items_of};
use crate::value::Value;
use std::rc::Rc;
use std::sync::Arc;

/// Deepest nesting of lists of modules, over all modules that are open.
const MAX_LISTS: usize = 96;

/// Most groups of equal items that a list's next item is compared with.
const MAX_GROUPS: usize = 16;

/// Items of a list that turned out equal.
struct Group<'e> {
    scope: Rc<Scope<'e>>,
    log: Vec<Logged<'e>>,
    before: Flow,
    after: Flow,
    nodes: Vec<Rc<Node<'e>>>,
}

impl<'e> Expansion<'e> {
    pub(super) fn module_list(
        &mut self,
        spec: &'e Expr,
        scope: &Rc<Scope<'e>>,
        place: Place<'e>,
        input: Flow,
    ) -> Built<'e> {
        let key = self.evaluator.db.resolve("torch__nn__ModuleList", "")?;
        let mut node = self.empty(self.evaluator.db.entry(&key)?, scope.clone());
        let mut list = List::new(input);
        self.items(spec, scope, place, &mut list)?;
        node.children = list.children;
        Ok((Rc::new(node), list.flow))
    }

    /// The items of a list, each fed with what the one before it gives.
    pub(super) fn items(
        &mut self,
        expr: &'e Expr,
        scope: &Rc<Scope<'e>>,
        place: Place<'e>,
        list: &mut List<'e>,
    ) -> Result<(), DbError> {
        if self.lists >= MAX_LISTS {
            let reason = format!("lists inside lists exceed the limit of {MAX_LISTS}");
            return Err(DbError::schema(place.entry, place.field, reason));
        }
        self.lists += 1;
        let result = self.open_items(expr, scope, place, list);
        self.lists -= 1;
        result
    }

    fn open_items(
        &mut self,
        expr: &'e Expr,
        scope: &Rc<Scope<'e>>,
        place: Place<'e>,
        list: &mut List<'e>,
    ) -> Result<(), DbError> {
        match &expr.kind {
            Kind::Value(Value::None) => Ok(()),
            Kind::Module(call) => {
                self.path.push(list.children.len().to_string().into());
                let (node, output) =
                    self.call(call, &flowing(scope, list.flow), place, list.flow)?;
                self.path.pop();
                list.push(node);
                list.flow = output;
                Ok(())
            }
            Kind::If(_) => match self.chosen(expr, scope, place)? {
                Some(expr) => self.items(expr, scope, place, list),
                None => Ok(()),
            },
            Kind::List(items) => items
                .iter()
                .try_for_each(|item| self.items(item, scope, place, list)),
            Kind::Binary(crate::formula::Binary::Add, sides) => {
                self.items(&sides.0, scope, place, list)?;
                self.items(&sides.1, scope, place, list)
            }
            Kind::For(f) => {
                let over = self.value(scope, &f.over, place)?;
                let fail = |e: &mut Self, kind| {
                    let error = failure(
                        &mut e.evaluator,
                        scope,
                        &f.over,
                        place,
                        EvalError {
                            at: f.over.at,
                            kind,
                        },
                    );
                    e.located(error)
                };
                let values = items_of(&over).map_err(|kind| fail(self, kind))?;
                let level = self.logs.len();
                let mut groups: Vec<Group<'e>> = Vec::new();
                for value in values.iter() {
                    let vars = bind(&f.vars, value).map_err(|kind| fail(self, kind))?;
                    let item = Scope::new(Some(scope.clone()), ScopeKind::Item { level, vars });
                    // An item that quantization may treat apart is expanded for itself.
                    let number = list.children.len();
                    let apart = self
                        .rule
                        .as_ref()
                        .is_some_and(|rule| rule.singles_out(number));
                    let known = if apart {
                        None
                    } else {
                        self.equal_group(&groups, &item, list.flow)
                    };
                    if let Some(group) = known {
                        group.nodes.iter().for_each(|node| list.push(node.clone()));
                        list.flow = group.after;
                        continue;
                    }
                    let (before, first) = (list.flow, list.children.len());
                    self.logs.push(Vec::new());
                    let result = self.items(&f.item, &item, place, list);
                    let log = self.logs.pop().unwrap_or_default();
                    result?;
                    if apart {
                        continue;
                    }
                    let nodes = list.children[first..]
                        .iter()
                        .map(|(_, node)| node.clone())
                        .collect();
                    groups.push(Group {
                        scope: item,
                        log,
                        before,
                        after: list.flow,
                        nodes,
                    });
                }
                Ok(())
            }
            _ => Err(DbError::schema(
                place.entry,
                place.field,
                format!("`{expr}` is not a module, a list of modules or None"),
            )),
        }
    }

    /// The group that an item belongs to without being expanded.
    fn equal_group<'g>(
        &mut self,
        groups: &'g [Group<'e>],
        item: &Rc<Scope<'e>>,
        flow: Flow,
    ) -> Option<&'g Group<'e>> {
        // Levels that share a bit cannot be told apart.
        if self.logs.len() >= 63 {
            return None;
        }
        groups.iter().rev().take(MAX_GROUPS).find(|group| {
            group.before == flow
                && group.log.iter().all(|logged| {
                    let scope = logged.scope.rebased(&group.scope, item);
                    match self.evaluator.value(&scope, logged.expr) {
                        Ok((value, deps)) if value == logged.value => {
                            self.log(&scope, logged.expr, &value, deps);
                            true
                        }
                        // An error shows itself again when the item is expanded for itself.
                        _ => false,
                    }
                })
        })
    }
}

/// A list on its way into the tree.
pub(super) struct List<'e> {
    pub flow: Flow,
    pub children: Vec<(Arc<str>, Rc<Node<'e>>)>,
}

impl<'e> List<'e> {
    pub(super) fn new(flow: Flow) -> List<'e> {
        List {
            flow,
            children: Vec::new(),
        }
    }

    fn push(&mut self, node: Rc<Node<'e>>) {
        let number = self.children.len().to_string();
        self.children.push((number.into(), node));
    }
}
