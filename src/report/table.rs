//! The table for people: a tree of modules, totals, and a line of conventions. Fits 100 columns.

use super::column::{Column, of_all};
use super::{Conventions, Meta};
use crate::analysis::{Analysis, Metrics, Row, Totals};
use crate::model::{Phase, Workload};
use crate::units;
use comfy_table::{CellAlignment, LineStyle, Table, presets};

/// How a table is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Markdown instead of plain text.
    pub markdown: bool,
    /// Indent names as a tree; off where rows are filtered or sorted.
    pub tree: bool,
}

/// A table of rows.
pub fn rows(rows: &[&Row], columns: &[&Column], totals: &Metrics, layout: Layout) -> String {
    let mut table = blank(layout.markdown);
    let first = if layout.tree { "module" } else { "path" };
    table.set_header(std::iter::once(first).chain(columns.iter().map(|c| c.heading)));
    let mut shown: Vec<&str> = Vec::new();
    for row in rows {
        let name = if layout.tree {
            label(row, &mut shown, layout.markdown)
        } else {
            plain_label(row)
        };
        let cells = columns.iter().map(|c| c.cell(row, totals));
        table.add_row(std::iter::once(name).chain(cells));
    }
    align(&mut table, columns);
    table.to_string()
}

/// A table of one line per model.
pub fn models(models: &[(Meta, Analysis)], columns: &[&Column], markdown: bool) -> String {
    let mut table = blank(markdown);
    let columns: Vec<&Column> = columns
        .iter()
        .filter(|c| !c.heading.contains("share"))
        .copied()
        .collect();
    table.set_header(
        std::iter::once("model")
            .chain(columns.iter().map(|c| c.heading))
            .chain(["KV/token"]),
    );
    for (meta, analysis) in models {
        let Some(root) = analysis.rows.first() else {
            continue;
        };
        let cells = columns
            .iter()
            .map(|c| c.show(root, &analysis.totals.all, &analysis.totals.all));
        let kv = units::binary(analysis.totals.kv_cache_bytes_per_token);
        table.add_row(
            std::iter::once(units::visible(&meta.id))
                .chain(cells)
                .chain([kv]),
        );
    }
    align(&mut table, &columns);
    if let Some(last) = table.column_mut(columns.len() + 1) {
        last.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A table of one line per point of a sweep.
pub fn sweep(
    points: &[(Workload, u32, Totals)],
    columns: &[&Column],
    root: &Row,
    markdown: bool,
) -> String {
    let mut table = blank(markdown);
    let columns: Vec<&Column> = columns
        .iter()
        .filter(|c| c.numeric() && !c.heading.contains("share"))
        .copied()
        .collect();
    table.set_header(
        ["batch", "seq-len"]
            .into_iter()
            .chain(columns.iter().map(|c| c.heading))
            .chain(["KV cache"]),
    );
    for (workload, _, totals) in points {
        let cells = columns
            .iter()
            .map(|c| c.show(root, &totals.all, &totals.all));
        let sizes = [workload.batch.to_string(), workload.seq_len.to_string()];
        table.add_row(
            sizes
                .into_iter()
                .chain(cells)
                .chain([units::binary(totals.kv_cache_bytes)]),
        );
    }
    for i in 0..columns.len() + 3 {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn blank(markdown: bool) -> Table {
    let mut table = Table::new();
    // One rule under the headings; blank lines and boxes cost width and say nothing.
    let plain = presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(if markdown {
        presets::ASCII_MARKDOWN
    } else {
        plain
    });
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table
}

fn align(table: &mut Table, columns: &[&Column]) {
    for (i, column) in columns.iter().enumerate() {
        if let Some(c) = table.column_mut(i + 1).filter(|_| column.numeric()) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The row's path below the row it hangs under, indented by how many rows it hangs under.
fn label<'r>(row: &'r Row, shown: &mut Vec<&'r str>, markdown: bool) -> String {
    let below = |parent: &str| {
        parent.is_empty()
            || row
                .path
                .strip_prefix(parent)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    while shown.last().is_some_and(|parent| !below(parent)) {
        shown.pop();
    }
    let parent = shown.last().copied().unwrap_or_default();
    let name = row
        .path
        .strip_prefix(parent)
        .unwrap_or(&row.path)
        .trim_start_matches('.');
    let indent = if markdown { "&nbsp;&nbsp;" } else { "  " }.repeat(shown.len());
    let times = if row.count > 1
        && row
            .path
            .ends_with(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '}'])
    {
        format!(" x{}", row.count)
    } else {
        String::new()
    };
    shown.push(&row.path);
    if row.path.is_empty() {
        "(model)".into()
    } else {
        format!("{indent}{}{times}", units::visible(name))
    }
}

fn plain_label(row: &Row) -> String {
    // A sum over a class is named by the class.
    let summed = row.count != row.modules || *row.path == *row.class;
    let name = if summed {
        row.class.rsplit('.').next().unwrap_or_default()
    } else {
        &row.path
    };
    let times = if row.modules > 1 {
        format!(" x{}", row.modules)
    } else {
        String::new()
    };
    if name.is_empty() {
        "(model)".into()
    } else {
        format!("{}{times}", units::visible(name))
    }
}

/// `meta-llama/Llama-2-7b-hf: LlamaForCausalLM, prefill of 1 x 2048 tokens, 16-bit weights`.
pub fn title(meta: &Meta, analysis: &Analysis) -> String {
    let w = &analysis.workload;
    let what = match (w.phase, meta.kind) {
        (_, "vision") => format!("{} of {} image(s)", w.phase.name(), w.batch),
        (Phase::Decode, "seq2seq") => {
            format!(
                "decode of {} x {} token(s) after {}, encoder {}",
                w.batch, w.dec_seq_len, w.past_len, w.seq_len
            )
        }
        (_, "seq2seq") => format!(
            "{} of {} x {} tokens, decoder {}",
            w.phase.name(),
            w.batch,
            w.seq_len,
            w.dec_seq_len
        ),
        (_, "audio") => format!("{} of {} x {} samples", w.phase.name(), w.batch, w.seq_len),
        (Phase::Decode, _) => format!(
            "decode of {} x {} token(s) after {}",
            w.batch, w.seq_len, w.past_len
        ),
        _ if w.past_len > 0 => format!(
            "{} of {} x {} tokens after {}",
            w.phase.name(),
            w.batch,
            w.seq_len,
            w.past_len
        ),
        _ => format!("{} of {} x {} tokens", w.phase.name(), w.batch, w.seq_len),
    };
    let class = meta
        .architecture
        .rsplit(['.', '_'])
        .next()
        .unwrap_or(&meta.architecture);
    format!(
        "{} ({}, from the {}): {what}, {}-bit weights",
        units::visible(&meta.id),
        units::visible(class),
        if meta.source == "local" {
            "file"
        } else {
            meta.source
        },
        analysis.weight_bits
    )
}

/// The lines under a table: totals, then the conventions.
pub fn footer(
    meta: &Meta,
    analysis: &Analysis,
    conventions: &Conventions,
    hidden: usize,
) -> String {
    let t = &analysis.totals;
    let sure = if analysis
        .rows
        .iter()
        .all(|r| r.status == crate::model::Status::Resolved)
    {
        ""
    } else {
        "at least "
    };
    let mut lines = vec![
        format!(
            "params   {sure}{}{}",
            units::grouped(t.all.params),
            if t.params_active == t.all.params {
                String::new()
            } else {
                format!(", {} active per token", units::grouped(t.params_active))
            }
        ),
        format!(
            "weights  {sure}{} bytes ({})",
            units::grouped(t.all.weight_bytes),
            units::binary(t.all.weight_bytes)
        ),
        format!("MACs     {sure}{}", units::grouped(t.all.macs)),
        format!(
            "FLOPs    {sure}{} (2 x MACs = {})",
            units::grouped(t.all.flops),
            units::grouped(t.all.macs.saturating_mul(2))
        ),
        format!("BOPs     {sure}{}", units::grouped(t.all.bops)),
    ];
    if let Some(experts) = analysis.rows.iter().find_map(|row| row.experts) {
        lines.push(format!(
            "experts  {} of {} per token; {:.1} distinct ones expected in this run, routing at random",
            experts.per_token, experts.total, experts.expected_distinct
        ));
    }
    if meta.generates {
        lines.push(format!(
            "KV cache {} bytes held, {} bytes per token",
            units::grouped(t.kv_cache_bytes),
            units::grouped(t.kv_cache_bytes_per_token)
        ));
    }
    if let Some(train) = &t.train {
        lines.push(format!(
            "training {} MACs forward, {} backward",
            units::grouped(train.forward_macs),
            units::grouped(train.backward_macs)
        ));
        let parts = [
            ("weights", train.weight_bytes),
            ("gradients", train.gradient_bytes),
            ("Adam", train.optimizer_bytes),
            ("master copy", train.master_bytes),
            ("activations", train.activation_bytes),
            ("held inside", train.intermediate_bytes),
        ];
        let parts: Vec<String> = parts
            .iter()
            .map(|(name, bytes)| format!("{name} {}", units::binary(*bytes)))
            .collect();
        lines.push(format!(
            "         {} in all: {}",
            units::binary(train.total_bytes),
            parts.join(", ")
        ));
    }
    lines.push(String::new());
    let counted = if conventions.counted == "all" {
        "1 MAC = 2 FLOPs plus elementwise work"
    } else {
        "1 MAC = 2 FLOPs, nothing else"
    };
    lines.push(format!(
        "conventions: rows are for all modules they stand for; {counted}; attention {}, logits for {} positions; BOPs {}",
        conventions.attention,
        conventions.logits,
        match conventions.bops {
            "product" => "= MACs x weight bits x activation bits",
            other => other,
        }
    ));
    if hidden > 0 {
        lines.push(format!(
            "{hidden} {} that cost nothing {} not shown (--all shows them)",
            if hidden == 1 { "row" } else { "rows" },
            if hidden == 1 { "is" } else { "are" }
        ));
    }
    for note in &analysis.notes {
        let place = if note.path.is_empty() {
            String::new()
        } else {
            format!(" {}:", units::visible(&note.path))
        };
        lines.push(format!(
            "note [{}]{place} {}",
            note.code,
            units::visible(&note.message)
        ));
    }
    lines.join("\n")
}

/// Whether a row costs nothing at all.
pub fn free(row: &Row) -> bool {
    row.status == crate::model::Status::Resolved && of_all(row) == Metrics::default()
}
