//! Comma-separated values: raw digits, one line per row, quoted where RFC 4180 asks for it.
//!
//! Written by hand: a field is quoted when it holds a comma, a quote or a line break, and that is all there is to it.

use super::column::Column;
use crate::analysis::{Analysis, Metrics, Row, Totals};
use crate::model::Workload;
use crate::report::Meta;
use crate::units;

/// Rows of an analysis.
pub fn rows(rows: &[&Row], columns: &[&Column], totals: &Metrics) -> String {
    let mut out = line(
        ["path", "count"]
            .into_iter()
            .chain(columns.iter().map(|c| c.name))
            .map(String::from),
    );
    for row in rows {
        out += &line(
            [row.path.clone(), row.modules.to_string()]
                .into_iter()
                .chain(columns.iter().map(|c| c.raw(row, totals))),
        );
    }
    out
}

/// One line per model.
pub fn models(models: &[(Meta, Analysis)], columns: &[&Column]) -> String {
    let mut out = line(
        ["model".to_string()]
            .into_iter()
            .chain(columns.iter().map(|c| c.name.into()))
            .chain(["kv_cache_bytes_per_token".into()]),
    );
    for (meta, analysis) in models {
        let Some(root) = analysis.rows.first() else {
            continue;
        };
        let cells = columns.iter().map(|c| c.raw(root, &analysis.totals.all));
        out += &line(
            [meta.id.clone()]
                .into_iter()
                .chain(cells)
                .chain([analysis.totals.kv_cache_bytes_per_token.to_string()]),
        );
    }
    out
}

/// One line per point of a sweep.
pub fn sweep(points: &[(Workload, u32, Totals)], columns: &[&Column], root: &Row) -> String {
    let columns: Vec<&&Column> = columns.iter().filter(|c| c.numeric()).collect();
    let mut out = line(
        ["batch", "seq_len"]
            .into_iter()
            .chain(columns.iter().map(|c| c.name))
            .chain(["kv_cache_bytes"])
            .map(String::from),
    );
    for (workload, _, totals) in points {
        let row = Row {
            all: totals.all,
            count: 1,
            ..root.clone()
        };
        let cells = columns.iter().map(|c| c.raw(&row, &totals.all));
        let sizes = [workload.batch.to_string(), workload.seq_len.to_string()];
        out += &line(
            sizes
                .into_iter()
                .chain(cells)
                .chain([totals.kv_cache_bytes.to_string()]),
        );
    }
    out
}

pub(super) fn line(fields: impl Iterator<Item = String>) -> String {
    let quoted = fields.map(|f| units::visible(&f)).map(|f| {
        if f.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", f.replace('"', "\"\""))
        } else {
            f
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}
