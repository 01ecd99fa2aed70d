//! What one class costs under given arguments, without a model around it.

use super::meter::Meter;
use super::metrics::Metrics;
use super::{Options, overflow};
use crate::db::{Db, DbError};
use crate::formula::Formula;
use crate::model::{ModelError, Phase, Quantity, Workload, entry_of, expand_class, template_value};
use crate::value::{Name, Value};
use std::sync::Arc;

/// What one class costs; `None` where its entry does not say.
#[derive(Clone, Debug, Default)]
pub struct ClassCost {
    /// Full path of the class.
    pub class: Arc<str>,
    /// Parameters.
    pub params: Option<u128>,
    /// MACs.
    pub macs: Option<u128>,
    /// FLOPs.
    pub flops: Option<u128>,
    /// Bit operations.
    pub bops: Option<u128>,
    /// All bytes read.
    pub read_bytes: Option<u128>,
    /// All bytes written.
    pub write_bytes: Option<u128>,
    /// Bytes held in between.
    pub intermediate_bytes: Option<u128>,
    /// The same with reads and writes split, where the entry has rows.
    pub metrics: Option<Metrics>,
}

/// What one class costs under given arguments, without a model around it.
///
/// ```
/// use bitcost::{analysis, db::Db, model::Workload, value::{Name, Value}};
///
/// let db = Db::embedded()?;
/// let arguments = [("N", 2048), ("in_features", 4096), ("out_features", 4096)];
/// let arguments: Vec<_> = arguments.map(|(name, n)| (Name::new(name), Value::Int(n))).into();
/// let cost = analysis::evaluate(&db, "torch.nn.Linear", &arguments, &Workload::default())?;
/// assert_eq!(cost.macs, Some(2048 * 4096 * 4096));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(
    db: &Db,
    class: &str,
    arguments: &[(Name, Value)],
    workload: &Workload,
) -> Result<ClassCost, ModelError> {
    let entry = entry_of(db, class)?;
    if entry.only_templates() {
        let number = |formula: Option<&'_ Formula>,
                      field: &str,
                      quantity|
         -> Result<Option<u128>, ModelError> {
            let Some(formula) = formula else {
                return Ok(None);
            };
            let value = template_value(db, entry, formula, field, quantity, arguments, workload)?;
            let count = value.as_int().and_then(|n| u128::try_from(n).ok());
            count.map(Some).ok_or_else(|| {
                DbError::schema(
                    &entry.key,
                    field,
                    format!(
                        "has to give a whole number of 0 or more, not {}",
                        value.describe()
                    ),
                )
                .into()
            })
        };
        let memory = entry.memory_analysis.as_ref();
        return Ok(ClassCost {
            class: entry.path.clone(),
            flops: number(
                entry.flop_analysis.as_ref().map(|a| &a.formula),
                "flop_analysis.formula_template",
                Quantity::Flops,
            )?,
            read_bytes: number(
                memory.and_then(|m| m.reads.as_ref()),
                "memory_analysis.reads_template",
                Quantity::Reads,
            )?,
            write_bytes: number(
                memory.and_then(|m| m.writes.as_ref()),
                "memory_analysis.writes_template",
                Quantity::Writes,
            )?,
            intermediate_bytes: number(
                memory.and_then(|m| m.intermediates.as_ref()),
                "memory_analysis.intermediates_template",
                Quantity::Intermediates,
            )?,
            ..ClassCost::default()
        });
    }
    let tree = expand_class(db, class, arguments, workload)?;
    let metrics = Meter::new(
        &Workload {
            phase: Phase::Prefill,
            ..workload.clone()
        },
        Options::default(),
    )
    .totals(&tree, workload)?
    .all;
    Ok(ClassCost {
        class: entry.path.clone(),
        params: Some(metrics.params),
        macs: Some(metrics.macs),
        flops: Some(metrics.flops),
        bops: Some(metrics.bops),
        read_bytes: Some(metrics.read.total().ok_or_else(overflow)?),
        write_bytes: Some(metrics.write.total().ok_or_else(overflow)?),
        intermediate_bytes: Some(metrics.intermediate_bytes),
        metrics: Some(metrics),
    })
}
