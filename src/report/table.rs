//! The table for people: a tree of modules, totals, and a line of conventions. Fits 100 columns.

use super::column::{Column, of_all};
use super::{Conventions, Meta};
use crate::analysis::{Analysis, Metrics, Note, Row, Totals};
use crate::model::{Phase, Workload};
use crate::source;
use crate::units;
use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

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
    let first = if layout.tree { "module" } else { "path" };
    let mut grid = Grid::new([first], columns, [], layout.markdown);
    let mut shown: Vec<&str> = Vec::new();
    for row in rows {
        let name = if layout.tree {
            label(row, &mut shown, layout.markdown)
        } else {
            plain_label(row)
        };
        let cells = columns.iter().map(|c| c.cell(row, totals));
        grid.push(std::iter::once(name).chain(cells));
    }
    grid.print()
}

/// A table of one line per model.
pub fn models(models: &[(Meta, Analysis)], columns: &[&Column], markdown: bool) -> String {
    let columns: Vec<&Column> = columns.iter().filter(|c| !c.is_share()).copied().collect();
    let mut grid = Grid::new(["model"], &columns, ["KV/token"], markdown);
    for (meta, analysis) in models {
        let Some(root) = analysis.rows.first() else {
            continue;
        };
        let totals = &analysis.totals;
        let cells = columns
            .iter()
            .map(|c| c.show(root, &totals.all, &totals.all));
        let kv = units::binary(totals.kv_cache_bytes_per_token);
        let id = units::visible(&meta.id);
        grid.push(std::iter::once(id).chain(cells).chain([kv]));
    }
    grid.print()
}

/// A table of one line per point of a sweep.
pub fn sweep(
    points: &[(Workload, u32, Totals)],
    columns: &[&Column],
    root: &Row,
    markdown: bool,
) -> String {
    let useful = |c: &&&Column| c.numeric() && !c.is_share();
    let columns: Vec<&Column> = columns.iter().filter(useful).copied().collect();
    let mut grid = Grid::new(["batch", "seq-len"], &columns, ["KV cache"], markdown);
    grid.numeric.fill(true);
    for (workload, _, totals) in points {
        let cells = columns
            .iter()
            .map(|c| c.show(root, &totals.all, &totals.all));
        let sizes = [workload.batch.to_string(), workload.seq_len.to_string()];
        let cache = units::binary(totals.kv_cache_bytes);
        grid.push(sizes.into_iter().chain(cells).chain([cache]));
    }
    grid.print()
}

/// Widest line that is printed, where the numbers leave it a choice.
const WIDTH: usize = 100;

/// A table of finished cells: the first column is text, the others stand to the right.
pub(super) fn grid(headings: &[&str], rows: Vec<Vec<String>>, markdown: bool) -> String {
    let mut grid = Grid::of(headings, markdown);
    rows.into_iter().for_each(|row| grid.push(row));
    grid.print()
}

/// Cells before they become a table. Laid out here and not by a crate for tables: comparing a hundred thousand layers took
/// longer over its table than over the layers, because such crates keep every cell as values of their own.
pub(super) struct Grid {
    header: Vec<String>,
    numeric: Vec<bool>,
    /// The cells of all rows one after the other, and where each of them ends: a hundred thousand rows have a million.
    cells: String,
    ends: Vec<usize>,
    markdown: bool,
}

impl Grid {
    fn new<const A: usize, const B: usize>(
        before: [&str; A],
        columns: &[&Column],
        after: [&str; B],
        markdown: bool,
    ) -> Grid {
        let headings = columns.iter().map(|c| c.heading);
        let header = before.into_iter().chain(headings).chain(after);
        let mut grid = Grid::of(&header.collect::<Vec<_>>(), markdown);
        grid.numeric.truncate(0);
        grid.numeric.resize(A, false);
        grid.numeric.extend(columns.iter().map(|c| c.numeric()));
        grid.numeric.extend([true; B]);
        grid
    }

    /// A table whose first column is text, and the others stand to the right.
    pub(super) fn of(headings: &[&str], markdown: bool) -> Grid {
        Grid {
            header: headings.iter().map(|heading| heading.to_string()).collect(),
            numeric: (0..headings.len()).map(|column| column > 0).collect(),
            cells: String::new(),
            ends: Vec::new(),
            markdown,
        }
    }

    /// Adds a row, which has a cell for each heading.
    pub(super) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        for cell in row {
            self.cells += &cell;
            self.ends.push(self.cells.len());
        }
    }

    /// All cells, row after row.
    fn cells(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends
            .iter()
            .map(move |end| &self.cells[std::mem::replace(&mut begin, *end)..*end])
    }

    fn print(&self) -> String {
        let mut out = String::new();
        self.print_to(&mut out);
        out
    }

    /// Adds the table to a text, without a line break at its end.
    pub(super) fn print_to(&self, out: &mut String) {
        let columns = self.header.len();
        let mut widths: Vec<usize> = self.header.iter().map(|cell| cell.width()).collect();
        for (at, cell) in self.cells().enumerate() {
            let width = &mut widths[at % columns];
            *width = cell.width().max(*width);
        }
        if !self.markdown {
            self.fit(&mut widths);
        }
        let line: usize = widths.iter().map(|width| width + 3).sum();
        out.reserve((line + 2) * (self.ends.len() / columns + 2));
        let header = self.header.iter().map(String::as_str);
        self.lines(header, &widths, out);
        self.rule(&widths, out);
        self.lines(self.cells(), &widths, out);
        out.truncate(out.trim_end_matches('\n').len());
    }

    /// Lays cells out, a line for each row.
    fn lines<'c>(&self, cells: impl Iterator<Item = &'c str>, widths: &[usize], out: &mut String) {
        let spaces = |count: usize| std::iter::repeat_n(' ', count);
        for (at, cell) in cells.enumerate() {
            let column = at % widths.len();
            let width = widths[column];
            let cell = cut(cell, width);
            let rest = width.saturating_sub(cell.width());
            out.push_str(match (self.markdown, column) {
                (true, 0) => "| ",
                (true, _) => " | ",
                (false, 0) => "",
                (false, _) => GAP,
            });
            let is_last = column + 1 == widths.len();
            if self.numeric[column] {
                out.extend(spaces(rest));
                out.push_str(&cell);
            } else {
                out.push_str(&cell);
                let fills = self.markdown || !is_last;
                out.extend(spaces(if fills { rest } else { 0 }));
            }
            if is_last {
                out.push_str(if self.markdown { " |\n" } else { "\n" });
            }
        }
    }

    /// One rule under the headings; blank lines and boxes cost width and say nothing.
    fn rule(&self, widths: &[usize], out: &mut String) {
        if self.markdown {
            for width in widths {
                out.push('|');
                out.extend(std::iter::repeat_n('-', width + 2));
            }
            out.push_str("|\n");
            return;
        }
        let line = widths.iter().sum::<usize>() + GAP.len() * (widths.len() - 1) + 1;
        out.extend(std::iter::repeat_n('─', line));
        out.push('\n');
    }

    /// Narrows text, classes before names, until the lines fit; numbers are never cut.
    fn fit(&self, widths: &mut [usize]) {
        let gaps = GAP.len() * widths.len();
        for (column, least) in (1..widths.len()).map(|c| (c, 12)).chain([(0, 24)]) {
            let over = (widths.iter().sum::<usize>() + gaps).saturating_sub(WIDTH);
            if over == 0 || self.numeric[column] {
                continue;
            }
            widths[column] = widths[column]
                .saturating_sub(over)
                .max(least.min(widths[column]));
        }
    }
}

/// What stands between columns.
const GAP: &str = "  ";

/// Text of at most `most` columns of a terminal, the end replaced by an ellipsis where it has more.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.width() <= most {
        return text.into();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if kept.width() + c.width().unwrap_or(0) >= most {
            break;
        }
        kept.push(c);
    }
    (kept + "…").into()
}

/// Lines of at most [`WIDTH`] characters, broken between words; what follows is indented.
pub(super) fn wrap(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            length = indent;
        } else if length > 0 {
            out.push(' ');
            length += 1;
        }
        out.push_str(word);
        length += word_length;
    }
    out
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
    let times = if row.count > 1 && row.repeated {
        format!(" x{}", row.count)
    } else {
        String::new()
    };
    shown.push(&row.path);
    if row.path.is_empty() {
        "(model)".into()
    } else {
        format!("{indent}{}{times}", units::visible(&short_range(name)))
    }
}

/// `{0-4,6-10,12-16}` -> `{0-4,6-10,..}`: the JSON has the whole list.
fn short_range(name: &str) -> String {
    const MOST: usize = 16;
    let (Some(open), Some(close)) = (name.find('{'), name.find('}')) else {
        return name.into();
    };
    if close < open || close - open <= MOST {
        return name.into();
    }
    let inside = &name[open + 1..close];
    let cut = inside
        .char_indices()
        .filter(|(at, c)| *c == ',' && *at < MOST - 4)
        .map(|(at, _)| at)
        .next_back();
    cut.map_or_else(
        || name.into(),
        |at| {
            format!(
                "{}{{{},..}}{}",
                &name[..open],
                &inside[..at],
                &name[close + 1..]
            )
        },
    )
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
    let line = format!(
        "{}: {what}, {}-bit weights",
        model_name(meta),
        analysis.weight_bits
    );
    wrap(&line, 2)
}

/// `meta-llama/Llama-2-7b-hf (LlamaForCausalLM, catalog)`, with the commit where there is one.
pub fn model_name(meta: &Meta) -> String {
    let class = meta
        .architecture
        .rsplit(['.', '_'])
        .next()
        .unwrap_or(&meta.architecture);
    let place = if meta.source == "local" {
        "file"
    } else {
        meta.source
    };
    let commit = meta.revision.as_deref();
    let commit = commit.map_or(String::new(), |c| format!(" at {}", source::short(c)));
    format!(
        "{} ({}, {place}{commit})",
        units::visible(&meta.id),
        units::visible(class)
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
    if let Some(stored) = &analysis.stored {
        let line = format!(
            "stored   {} bytes ({}) of {} in {}; {} bits per weight",
            units::grouped(stored.bytes),
            units::binary(stored.bytes),
            units::counted(stored.tensors as u128, "tensor"),
            units::counted(stored.files as u128, "file"),
            units::bits_per_weight(t.all.stored_bytes, t.all.stored_params)
        );
        lines.insert(2, line);
    }
    if let Some(experts) = analysis.rows.iter().find_map(|row| row.experts) {
        lines.push(format!(
            "experts  {} of {} per token; {:.1} distinct ones expected in this run, routing at random",
            experts.per_token, experts.total, experts.expected_distinct
        ));
    }
    if meta.generates && t.train.is_none() {
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
    lines.push(conventions_line(conventions));
    if hidden > 0 {
        lines.push(format!(
            "{hidden} {} not shown (--all shows them)",
            if hidden == 1 {
                "row that costs nothing is"
            } else {
                "rows that cost nothing are"
            }
        ));
    }
    lines.extend(analysis.notes.iter().map(note_line));
    let wrap_line = |line: &String| {
        if line.contains('\n') {
            line.clone()
        } else {
            wrap(line, 9)
        }
    };
    let wrapped: Vec<String> = lines.iter().map(wrap_line).collect();
    wrapped.join("\n")
}

/// Notes under a table of several workloads or models.
pub fn notes<'n>(notes: impl IntoIterator<Item = &'n Note>) -> String {
    notes
        .into_iter()
        .map(|note| format!("\n{}", wrap(&note_line(note), 9)))
        .collect()
}

fn note_line(note: &Note) -> String {
    let path = if note.path.is_empty() {
        String::new()
    } else {
        format!(" {}:", units::clipped(&note.path, 160))
    };
    format!(
        "note [{}]{path} {}",
        note.code,
        units::visible(&note.message)
    )
}

/// What the numbers mean.
pub fn conventions_line(conventions: &Conventions) -> String {
    let counted = if conventions.counted == "all" {
        "1 MAC = 2 FLOPs plus elementwise work"
    } else {
        "1 MAC = 2 FLOPs, nothing else"
    };
    let bops = match conventions.bops {
        "product" => "MACs x weight bits x activation bits",
        other => other,
    };
    let (attention, logits) = (conventions.attention, conventions.logits);
    let line = format!(
        "conventions: a row is for all modules that it stands for; {counted}; attention {attention}, logits for {logits} positions; BOPs = {bops}"
    );
    wrap(&line, 2)
}

/// Whether a row costs nothing at all.
pub fn free(row: &Row) -> bool {
    row.status == crate::model::Status::Resolved && of_all(row) == Metrics::default()
}
