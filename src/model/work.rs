//! What a module does itself: rows, widths, traffic, cache and notes of its entry, evaluated into its node.

use super::expand::Expansion;
use super::node::{ExpertUse, Moved, Node, Status, Tensor, WeightRead, Work};
use super::scope::{Place, Scope};
use crate::db::{DbError, Entry, Row, RowKind};
use crate::formula::{Expr, Formula, Kind, functions};
use crate::value::{Name, Value};
use std::rc::Rc;
use std::sync::LazyLock;

static ROWS: LazyLock<Name> = LazyLock::new(|| Name::new("N"));

impl<'e> Expansion<'e> {
    /// Evaluates everything of an entry that is not its tensors and children.
    pub(super) fn own_work(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        node: &mut Node<'e>,
    ) -> Result<(), DbError> {
        self.widths(entry, scope, node)?;
        if let Some(experts) = &entry.experts {
            let total = self.int(scope, &experts.total, entry)?;
            let per_token = self.int(scope, &experts.per_token, entry)?;
            let arguments = [
                Value::Int(i128::try_from(total).unwrap_or(i128::MAX)),
                Value::Int(i128::try_from(per_token).unwrap_or(i128::MAX)),
                self.value(scope, rows_expr(), Place::of(entry, &experts.total))?,
            ];
            let expected = functions::expected_distinct(&arguments);
            let expected = expected
                .map_err(|e| self.wrong(scope, &experts.per_token, entry, e.to_string()))?;
            let expected_distinct = expected.to_f64().unwrap_or(0.0);
            let stacked = node
                .tensors
                .iter()
                .filter(|t| experts.tensors.contains(&t.name));
            let elements = stacked
                .map(|t| t.elements)
                .try_fold(0u128, u128::checked_add);
            let elements = elements.ok_or_else(|| {
                DbError::schema(&entry.key, "experts", "the tensors do not fit 128 bits")
            })?;
            node.experts = Some(ExpertUse {
                total,
                per_token,
                expected_distinct,
                elements,
            });
        }
        let mut borrowed: Vec<&str> = Vec::new();
        for row in &entry.rows {
            let work = self.work(row, entry, scope, node)?;
            if let (RowKind::WeightMac, Some(operand)) = (&row.kind, &row.operand)
                && !node.tensors.iter().any(|t| t.name == *operand)
                && !borrowed.contains(&&**operand)
            {
                borrowed.push(operand);
            }
            node.work.push(work);
        }
        self.traffic(entry, scope, node, &borrowed)?;
        // Without rows and children the template is all that is known of its work.
        if entry.rows.is_empty()
            && node.children.is_empty()
            && let Some(analysis) = &entry.flop_analysis
        {
            node.estimated_flops = self.int(scope, &analysis.formula, entry)?;
            if node.estimated_flops > 0 || entry.only_templates() {
                node.status = Status::Estimated;
            }
        }
        for (condition, message) in &entry.requires {
            let holds = self.value(scope, &condition.expr, Place::of(entry, condition))?;
            if !holds.truth() {
                return Err(self.wrong(scope, condition, entry, message.to_string()));
            }
        }
        for (name, formula) in &entry.cache {
            node.cache
                .push((name.clone(), self.int(scope, formula, entry)?));
        }
        for note in &entry.notes {
            let place = Place::of(entry, &note.when);
            if self.value(scope, &note.when.expr, place)?.truth() {
                node.notes.push((note.code.clone(), note.message.clone()));
            }
        }
        Ok(())
    }

    fn widths(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        node: &mut Node<'e>,
    ) -> Result<(), DbError> {
        let precision = &entry.precision;
        for (formula, slot) in [
            (&precision.weight, &mut node.weight_bits),
            (&precision.activation, &mut node.activation_bits),
        ] {
            let Some(formula) = formula else { continue };
            let bits = self.int(scope, formula, entry)?;
            let width = u32::try_from(bits).ok().filter(|b| (1..=64).contains(b));
            *slot = Some(width.ok_or_else(|| {
                let reason = format!("a width is 1 to 64 bits, not {bits}");
                DbError::schema(&entry.key, &*formula.field, reason)
            })?);
        }
        let applies = self.rule.as_ref().filter(|rule| {
            let named = rule
                .of
                .iter()
                .any(|class| class.replace('.', "__") == *entry.key);
            named || (rule.experts && entry.experts.is_some())
        });
        if let Some(rule) = applies
            && !self.spared()
        {
            let bits = |b: Option<i128>| b.and_then(|b| u32::try_from(b).ok());
            node.weight_bits = bits(rule.weight_bits).or(node.weight_bits);
            node.activation_bits = bits(rule.activation_bits).or(node.activation_bits);
        }
        Ok(())
    }

    fn work(
        &mut self,
        row: &'e Row,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        node: &mut Node<'e>,
    ) -> Result<Work<'e>, DbError> {
        let count = self.int(scope, &row.formula, entry)?;
        let too_many = || {
            DbError::schema(
                &entry.key,
                format!("rows.{}", row.name),
                "the count does not fit 128 bits",
            )
        };
        let flops = match &row.kind {
            RowKind::WeightMac | RowKind::ActMac => 0,
            RowKind::Flops => count,
            RowKind::Elements(kind) => {
                let unit = self.evaluator.db.elementwise(kind).map_err(|e| {
                    let file = self
                        .evaluator
                        .db
                        .overlay_of(&e.entry)
                        .map_or_else(String::new, |f| format!(" in {f}"));
                    let reason = format!("`{kind}` of {}{file}: {}", e.entry, e.reason);
                    DbError::schema(&entry.key, format!("rows.{}", row.name), reason)
                })?;
                let times = |n: i128| count.checked_mul(n.unsigned_abs()).ok_or_else(too_many);
                if entry.traffic.is_none() {
                    node.moved.reads = node
                        .moved
                        .reads
                        .checked_add(times(unit.reads)?)
                        .ok_or_else(too_many)?;
                    node.moved.writes = node
                        .moved
                        .writes
                        .checked_add(times(unit.writes)?)
                        .ok_or_else(too_many)?;
                }
                times(unit.flops)?
            }
        };
        let weight_bits = match (&row.kind, &row.operand) {
            (RowKind::WeightMac, Some(operand)) => operand_owner(node, operand)
                .map_or(node.weight_bits, |(owner, _)| owner.weight_bits),
            _ => None,
        };
        Ok(Work {
            name: &row.name,
            kind: &row.kind,
            operand: row.operand.as_deref(),
            count,
            flops,
            weight_bits,
        })
    }

    fn traffic(
        &mut self,
        entry: &'e Entry,
        scope: &Rc<Scope<'e>>,
        node: &mut Node<'e>,
        borrowed: &[&str],
    ) -> Result<(), DbError> {
        let mut whole = true;
        if let Some(traffic) = &entry.traffic {
            let mut part = |formula: &'e Option<Formula>| match formula {
                Some(formula) => self.int(scope, formula, entry),
                None => Ok(0),
            };
            node.moved = Moved {
                reads: part(&traffic.reads)?,
                writes: part(&traffic.writes)?,
                kv_reads: part(&traffic.kv_reads)?,
                kv_writes: part(&traffic.kv_writes)?,
                intermediates: part(&traffic.intermediates)?,
            };
            if let Some(formula) = &traffic.weight_reads {
                let elements = self.int(scope, formula, entry)?;
                // A table that is looked up has one tensor, and the rows are its.
                let tensor = match node.tensors.as_slice() {
                    [one] => Some(Rc::from(&*one.name)),
                    _ => None,
                };
                node.weight_reads
                    .push(WeightRead::new(elements, tensor, None));
                whole = false;
            }
        }
        if whole {
            for tensor in &node.tensors {
                let bits = node.weight_bits.filter(|_| tensor.multiplied);
                let expert = entry
                    .experts
                    .as_ref()
                    .is_some_and(|e| e.tensors.contains(&tensor.name));
                let elements = match node.experts.filter(|e| expert && e.total > 0) {
                    Some(experts) => (tensor.elements as f64 / experts.total as f64
                        * experts.expected_distinct)
                        .round() as u128,
                    None => tensor.elements,
                };
                let name = Some(Rc::from(&*tensor.name));
                node.weight_reads
                    .push(WeightRead::new(elements, name, bits));
            }
        }
        for operand in borrowed {
            let Some((owner, name)) = operand_owner(node, operand) else {
                let reason =
                    format!("the operand `{operand}` is no tensor of this module or of a child");
                return Err(DbError::schema(&entry.key, "rows", reason));
            };
            let mut reads = Vec::new();
            let path = if name.is_empty() {
                operand
            } else {
                operand
                    .strip_suffix(name)
                    .unwrap_or(operand)
                    .trim_end_matches('.')
            };
            owned_tensors(&owner, path, name.is_empty(), &mut reads);
            node.weight_reads.extend(reads);
        }
        Ok(())
    }
}

/// The module below `node` that an operand such as `dt_proj.weight` belongs to, and what is left of the path.
fn operand_owner<'e, 'p>(node: &Node<'e>, operand: &'p str) -> Option<(Rc<Node<'e>>, &'p str)> {
    let (first, rest) = operand.split_once('.').unwrap_or((operand, ""));
    let (_, child) = node.children.iter().find(|(name, _)| **name == *first)?;
    if rest.is_empty() || child.tensors.iter().any(|t| *t.name == *rest) {
        return Some((child.clone(), rest));
    }
    operand_owner(child, rest)
}

/// The tensor at a dotted path below `node`, and the width that its module fixes.
pub(crate) fn find_tensor(node: &Node<'_>, path: &str) -> Option<(Tensor, Option<u32>)> {
    if let Some(tensor) = node.tensors.iter().find(|t| *t.name == *path) {
        let bits = node.weight_bits.filter(|_| tensor.multiplied);
        return Some((tensor.clone(), bits));
    }
    let (first, rest) = path.split_once('.')?;
    let (_, child) = node.children.iter().find(|(name, _)| **name == *first)?;
    find_tensor(child, rest)
}

/// The tensor that a row multiplies: the module's own, one below it, or the first multiplied one of a module named whole.
pub(crate) fn operand_tensor(node: &Node<'_>, operand: &str) -> Option<Tensor> {
    if let Some((tensor, _)) = find_tensor(node, operand) {
        return Some(tensor);
    }
    let (owner, _) = operand_owner(node, operand)?;
    owner
        .tensors
        .iter()
        .find(|t| t.multiplied)
        .or(owner.tensors.first())
        .cloned()
}

/// Every tensor that a borrowed operand brings: those of its module, or of everything below a module that is named whole.
fn owned_tensors(owner: &Node<'_>, path: &str, whole: bool, reads: &mut Vec<WeightRead>) {
    reads.extend(owner.tensors.iter().map(|t| {
        let bits = owner.weight_bits.filter(|_| t.multiplied);
        WeightRead::new(t.elements, Some(format!("{path}.{}", t.name).into()), bits)
    }));
    if whole {
        for (name, child) in &owner.children {
            owned_tensors(child, &format!("{path}.{name}"), true, reads);
        }
    }
}

fn rows_expr() -> &'static Expr {
    static EXPR: LazyLock<Expr> = LazyLock::new(|| Expr::new(0, Kind::Name(*ROWS)));
    &EXPR
}
