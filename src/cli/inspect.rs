//! `bitcost inspect`: what a model costs, module by module.

use super::args::{
    AttentionArg, ByArg, CountArg, FormatArg, GateArgs, InspectArgs, LogitsArg, PhaseArg,
    ShownArgs, SourceArg, SourceArgs, WorkloadArgs,
};
use super::tokens::Text;
use super::{
    Exit, Failure, Outcome, database, database_hash, input, model_failure, to_json, usage,
    write_out,
};
use crate::analysis::{self, Analysis, Note, Options, Row, Totals};
use crate::checkpoint::CheckpointError;
use crate::db::{Db, Task};
use crate::formula::did_you_mean;
use crate::glob::matches;
use crate::join::{Headers, MISMATCHES};
use crate::model::{
    Asked, Model, ModelError, Phase, Status, TERNARY_BITS, Workload, explain_module,
};
use crate::report::column::{self, COLUMNS, Column};
use crate::report::{Conventions, Meta, csv, explain, json, table};
use crate::source::{self, ModelFiles, Settings, SourceKind, Wanted};
use crate::units;

pub(super) fn run(args: Box<InspectArgs>) -> Outcome {
    let ids: Vec<&String> = args.models.iter().chain(&args.model_ids).collect();
    let db = database(&args.module_db)?;
    let request = Request::new(&args, &db)?;
    if args.shown.explain.is_some() && (ids.len() > 1 || request.is_sweep()) {
        return Err(usage("--explain takes one model and one workload"));
    }
    if args.shown.explain.is_some() && args.gates.any() {
        return Err(usage("--explain checks no gates; call inspect twice"));
    }
    if args.shown.by.is_some() && (ids.len() > 1 || request.is_sweep()) {
        return Err(usage("--by takes one model and one workload"));
    }
    match ids.as_slice() {
        [] => Err(usage(
            "no model given; `bitcost inspect --help` shows examples, `bitcost catalog` lists models",
        )),
        [id] if request.is_sweep() => sweep(&request, &db, id),
        [id] => one(&request, &db, id),
        several if !request.is_sweep() => many(&request, &db, several),
        _ => Err(usage("a sweep takes one model")),
    }
}

/// The command line, understood.
struct Request<'a> {
    args: &'a InspectArgs,
    shown: &'a ShownArgs,
    /// The columns that were named.
    named: Vec<&'static Column>,
    sort: Option<&'static Column>,
    options: Options,
    conventions: Conventions,
    db_sha256: String,
    wanted: Wanted,
    settings: Settings,
    /// The text whose tokens are the sequence length.
    text: Option<Text>,
}

impl<'a> Request<'a> {
    fn new(args: &'a InspectArgs, db: &Db) -> Result<Request<'a>, Failure> {
        let shown = &args.shown;
        let named = shown
            .columns
            .iter()
            .map(|name| named_column(name))
            .collect::<Result<_, _>>()?;
        let w = &args.workload;
        Ok(Request {
            args,
            shown,
            named,
            sort: shown.sort.as_deref().map(named_column).transpose()?,
            options: Options {
                expand: shown.expand,
                matmul_only: w.count == CountArg::Matmul,
            },
            conventions: Conventions {
                attention: if w.attention == AttentionArg::Causal {
                    "causal"
                } else {
                    "full"
                },
                logits: if w.logits == LogitsArg::Last {
                    "last"
                } else {
                    "all"
                },
                counted: if w.count == CountArg::Matmul {
                    "matmul"
                } else {
                    "all"
                },
                bops: "product",
                ternary_bits: TERNARY_BITS,
                baseline_bits: 32,
            },
            // Only JSON carries the hash; hashing is not free.
            db_sha256: if shown.format == FormatArg::Json {
                database_hash(db)
            } else {
                String::new()
            },
            wanted: wanted(&args.source, shown.quiet),
            settings: Settings::from_env(),
            text: w.tokenize.as_deref().map(Text::read).transpose()?,
        })
    }

    /// The columns to show, for models with a checkpoint or without.
    fn columns(&self, stored: bool) -> Vec<&'static Column> {
        let shown = self.shown;
        if self.named.is_empty() {
            column::group(shown.flops, shown.memory, shown.bops.is_some(), stored)
        } else {
            self.named.clone()
        }
    }

    fn open(&self, id: &str) -> Result<ModelFiles, Failure> {
        Ok(source::open(id, &self.wanted, &self.settings)?)
    }

    fn is_sweep(&self) -> bool {
        self.args.workload.batch_size.len() > 1 || self.args.workload.seq_len.len() > 1
    }

    fn meta(&self, files: &ModelFiles, model: &Model<'_>) -> Meta {
        Meta {
            id: files.id.clone(),
            revision: files.revision.clone(),
            source: files.source.name(),
            architecture: model.architecture.to_string(),
            model_type: model.model_type.as_deref().map(String::from),
            kind: model.task().name(),
            generates: model.task().generates(),
            db_sha256: self.db_sha256.clone(),
            overlays: self
                .args
                .module_db
                .iter()
                .map(|p| p.display().to_string())
                .collect(),
        }
    }
}

pub(super) fn wanted(args: &SourceArgs, quiet: bool) -> Wanted {
    Wanted {
        source: match args.source {
            SourceArg::Auto => None,
            SourceArg::Path => Some(SourceKind::Local),
            SourceArg::Cache => Some(SourceKind::Cache),
            SourceArg::Catalog => Some(SourceKind::Catalog),
            SourceArg::Hub => Some(SourceKind::Hub),
        },
        revision: args.revision.clone(),
        refresh: args.refresh,
        offline: args.offline,
        progress: super::progress::watcher(quiet),
    }
}

/// What the source had to say, as notes of the result.
fn source_notes(files: &ModelFiles) -> impl Iterator<Item = Note> + '_ {
    files.notes.iter().map(|message| Note {
        code: "source".into(),
        path: String::new(),
        message: message.clone(),
    })
}

fn named_column(name: &str) -> Result<&'static Column, Failure> {
    let name = name.trim();
    column::find(name).ok_or_else(|| {
        let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
        usage(format!(
            "no column `{name}`{}; there are {}",
            did_you_mean(name, names.iter().copied()),
            names.join(", ")
        ))
    })
}

fn asked(
    w: &WorkloadArgs,
    headers: Option<&Headers>,
    batch: Option<u64>,
    seq_len: Option<u64>,
) -> Asked {
    Asked {
        phase: w.phase.map(|p| match p {
            PhaseArg::Prefill => Phase::Prefill,
            PhaseArg::Decode => Phase::Decode,
            PhaseArg::Forward => Phase::Forward,
            PhaseArg::Train => Phase::Train,
        }),
        batch,
        seq_len,
        past_len: w.past_len,
        dec_seq_len: w.dec_seq_len,
        image_size: w.image_size,
        causal: w.attention == AttentionArg::Causal,
        last_logits: w.logits == LogitsArg::Last,
        dtype_bits: w.widths.dtype,
        stored_bits: headers.and_then(Headers::float_bits),
        weight_bits: w.widths.weight_bits,
        activation_bits: w.widths.activation_bits,
        kv_bits: w.widths.kv_bits,
    }
}

/// A model, opened: its files, its class, the headers of its weights.
struct Opened<'d> {
    files: ModelFiles,
    model: Model<'d>,
    headers: Option<Headers>,
    /// How many tokens the text has that was named.
    tokens: Option<u64>,
    /// What the source gives reason to say.
    notes: Vec<Note>,
}

fn open<'d>(request: &Request<'_>, db: &'d Db, id: &str) -> Result<Opened<'d>, Failure> {
    let files = request.open(id)?;
    if let Some(class) = &request.args.class
        && let Err(e) = db.resolve(class, "")
    {
        return Err(usage(format!("--class: {}", e.reason)));
    }
    let (headers, note) = headers(request, &files)?;
    let class = request.args.class.as_deref().or(files.root.as_deref());
    let model = match &files.config {
        Some(config) => match Model::load(db, config.clone(), class) {
            // Weights tell something even where the config does not say what they are.
            Err(ModelError::NoArchitecture(_)) if headers.is_some() => {
                Model::without_class(db, Some(config.clone()))
            }
            loaded => loaded.map_err(|e| model_failure(db, &files.file, e))?,
        },
        None if headers.is_some() => Model::without_class(db, None),
        None => {
            let reason = "neither a config.json nor safetensors files, so nothing is known of it";
            return Err(input(format!("{}: {reason}", files.file)));
        }
    };
    let counted = match &request.text {
        Some(text) => Some(count(request, text, &files, &model)?),
        None => None,
    };
    let (tokens, said) = counted.unzip();
    let notes = source_notes(&files).chain(note).chain(said).collect();
    Ok(Opened {
        files,
        model,
        headers,
        tokens,
        notes,
    })
}

/// The tokens that a text has for a model.
fn count(
    request: &Request<'_>,
    text: &Text,
    files: &ModelFiles,
    model: &Model<'_>,
) -> Result<(u64, Note), Failure> {
    if matches!(model.task(), Task::Vision | Task::Audio) {
        return Err(usage(format!(
            "{} reads no text, so --tokenize means nothing",
            model.architecture
        )));
    }
    let tokenizer = request.args.workload.tokenizer.as_deref();
    text.count(files, tokenizer, &request.wanted, &request.settings)
}

/// The headers of a model's weights, or a note why there are none.
fn headers(
    request: &Request<'_>,
    files: &ModelFiles,
) -> Result<(Option<Headers>, Option<Note>), Failure> {
    let note = |message: String| Note {
        code: "source".into(),
        path: String::new(),
        message,
    };
    let Some(place) = files.files.as_deref().filter(|_| !request.args.config_only) else {
        // Classes of libraries stand in the catalog too; the Hub has no files of theirs.
        let on_the_hub = files.source == SourceKind::Catalog && files.root.is_none();
        let message = "the embedded config alone, no checkpoint; --source hub reads the headers of its weights";
        return Ok((None, on_the_hub.then(|| note(message.into()))));
    };
    match Headers::read(place, files.config.as_deref()) {
        Ok(Some(headers)) => Ok((Some(headers), None)),
        Ok(None) if files.source == SourceKind::Local => Ok((None, None)),
        Ok(None) => Ok((
            None,
            Some(note(
                "there are no weights; the config alone was read".into(),
            )),
        )),
        // A config is worth an answer without the weights beside it.
        Err(e @ CheckpointError::OtherFormat { .. }) if files.config.is_some() => {
            Ok((None, Some(note(format!("{e}; the config alone was read")))))
        }
        Err(e) => Err(input(e.to_string())),
    }
}

/// Opens a model and analyzes it under one workload.
fn analyze(request: &Request<'_>, db: &Db, id: &str) -> Result<(Meta, Analysis), Failure> {
    let Opened {
        files,
        model,
        headers,
        tokens,
        notes,
    } = open(request, db, id)?;
    let headers = headers.as_ref();
    let fail = |e| model_failure(db, &files.file, e);
    let w = &request.args.workload;
    let batch = w.batch_size.first().copied();
    let seq_len = tokens.or(w.seq_len.first().copied());
    let workload = model
        .workload(&asked(w, headers, batch, seq_len))
        .map_err(fail)?;
    let mut analysis =
        analysis::analyze(&model, headers, &workload, request.options).map_err(fail)?;
    analysis.notes.extend(notes);
    Ok((request.meta(&files, &model), analysis))
}

fn one(request: &Request<'_>, db: &Db, id: &str) -> Outcome {
    if let Some(path) = &request.shown.explain {
        return explain_one(request, db, id, path);
    }
    let (meta, analysis) = analyze(request, db, id)?;
    if !request.shown.quiet || request.shown.output.is_some() {
        let text = match request.shown.format {
            FormatArg::Json if request.shown.by.is_some() => to_json(&json::by_class(
                &meta,
                &request.conventions,
                &analysis,
                &column::by_class(&analysis),
            ))?,
            FormatArg::Json => to_json(&json::inspect(
                &meta,
                &request.conventions,
                &analysis,
                &asked_rows(request, &analysis.rows),
            ))?,
            _ => render(request, &meta, &analysis),
        };
        write_out(&text, request.shown.output.as_deref())?;
    }
    Ok(verdict(request, &[(meta, analysis)]))
}

fn render(request: &Request<'_>, meta: &Meta, analysis: &Analysis) -> String {
    let classes;
    let source = if request.shown.by == Some(ByArg::Class) {
        classes = column::by_class(analysis);
        &classes
    } else {
        &analysis.rows
    };
    let (rows, hidden) = chosen(request, source);
    if rows.is_empty()
        && let Some(glob) = &request.shown.filter
    {
        eprintln!(
            "no module matches `{}`; a pattern is held against whole paths, as in '*.mlp.*'",
            units::visible(glob)
        );
    }
    let columns = columns(request, analysis);
    let totals = &analysis.totals.all;
    let tree =
        request.sort.is_none() && request.shown.filter.is_none() && request.shown.by.is_none();
    match request.shown.format {
        FormatArg::Csv => csv::rows(&rows, &columns, totals),
        format => {
            let markdown = format == FormatArg::Markdown;
            let body = table::rows(&rows, &columns, totals, table::Layout { markdown, tree });
            let footer = table::footer(meta, analysis, &request.conventions, hidden);
            let footer = if markdown {
                footer
                    .lines()
                    .map(|l| format!("{l}  "))
                    .collect::<Vec<_>>()
                    .join("\n")
            } else {
                footer
            };
            format!("{}\n\n{body}\n\n{footer}\n", table::title(meta, analysis))
        }
    }
}

/// The columns to show: the status joins them where a module is not resolved.
fn columns(request: &Request<'_>, analysis: &Analysis) -> Vec<&'static Column> {
    let mut columns = request.columns(analysis.stored.is_some());
    if request.shown.by.is_some() {
        columns.retain(|c| c.name != "class");
    }
    let doubtful = analysis
        .rows
        .iter()
        .any(|row| row.status != Status::Resolved);
    if doubtful && !columns.iter().any(|c| c.name == "status") {
        columns.extend(column::find("status"));
    }
    columns
}

/// The rows that `--filter`, `--depth` and `--sort` ask for.
fn asked_rows<'r>(request: &Request<'_>, rows: &'r [Row]) -> Vec<&'r Row> {
    let shown = request.shown;
    let asked = |row: &&Row| {
        let shallow = shown.depth.is_none_or(|depth| row.depth <= depth);
        shallow
            && shown
                .filter
                .as_deref()
                .is_none_or(|glob| matches(glob, &row.path))
    };
    let mut out: Vec<&Row> = rows.iter().filter(asked).collect();
    if let Some(column) = request.sort {
        out.sort_by(|a, b| column.order(a, b));
    }
    out
}

/// The rows to show, and how many were left out because they cost nothing.
fn chosen<'r>(request: &Request<'_>, rows: &'r [Row]) -> (Vec<&'r Row>, usize) {
    let shown = request.shown;
    let mut out: Vec<&Row> = Vec::new();
    let mut hidden = 0;
    for row in asked_rows(request, rows) {
        // A list of modules does nothing itself; its items stand in the rows below it.
        let list = row.container
            && shown.by.is_none()
            && !shown.all
            && shown.filter.is_none()
            && shown.depth.is_none();
        if list {
            continue;
        }
        if !shown.all && shown.filter.is_none() && table::free(row) {
            hidden += 1;
            continue;
        }
        out.push(row);
    }
    (out, hidden)
}

fn explain_one(request: &Request<'_>, db: &Db, id: &str, path: &str) -> Outcome {
    let Opened {
        files,
        model,
        headers,
        tokens,
        ..
    } = open(request, db, id)?;
    let fail = |e| model_failure(db, &files.file, e);
    let w = &request.args.workload;
    let batch = w.batch_size.first().copied();
    let seq_len = tokens.or(w.seq_len.first().copied());
    let workload = model
        .workload(&asked(w, headers.as_ref(), batch, seq_len))
        .map_err(fail)?;
    if model.root.is_none() {
        let tree = model.expand(&workload).map_err(fail)?;
        let notes = analysis::unresolved_notes(&tree);
        let notes: Vec<&Note> = notes.iter().collect();
        unresolved(request, &notes);
        return if request.shown.strict {
            Ok(Exit::Unresolved)
        } else {
            Err(input(format!(
                "{}: there is nothing to explain: no entry for `{}`",
                files.file, model.architecture
            )))
        };
    }
    let step = explain_module(&model, &workload, path).map_err(fail)?;
    let text = if request.shown.format == FormatArg::Json {
        to_json(&step)?
    } else {
        explain::text(&step)
    };
    write_out(&text, request.shown.output.as_deref())?;
    Ok(Exit::Ok)
}

fn many(request: &Request<'_>, db: &Db, ids: &[&String]) -> Outcome {
    let models = ids
        .iter()
        .map(|id| analyze(request, db, id))
        .collect::<Result<Vec<_>, _>>()?;
    let columns = request.columns(false);
    if !request.shown.quiet || request.shown.output.is_some() {
        let text = match request.shown.format {
            FormatArg::Json => {
                let objects = models.iter().map(|(meta, a)| {
                    json::inspect(meta, &request.conventions, a, &asked_rows(request, &a.rows))
                });
                to_json(&json::models(objects.collect()))?
            }
            FormatArg::Csv => csv::models(&models, &columns),
            format => {
                let body = table::models(&models, &columns, format == FormatArg::Markdown);
                format!(
                    "{body}

{}{}",
                    table::conventions_line(&request.conventions),
                    table::notes(models.iter().flat_map(|(_, a)| &a.notes))
                )
            }
        };
        write_out(&text, request.shown.output.as_deref())?;
    }
    Ok(verdict(request, &models))
}

fn sweep(request: &Request<'_>, db: &Db, id: &str) -> Outcome {
    let opened = open(request, db, id)?;
    let (files, model, headers) = (&opened.files, &opened.model, opened.headers.as_ref());
    let fail = |e| model_failure(db, &files.file, e);
    let w = &request.args.workload;
    let or_default = |values: &[u64]| -> Vec<Option<u64>> {
        if values.is_empty() {
            vec![None]
        } else {
            values.iter().copied().map(Some).collect()
        }
    };
    let seq_lens = match opened.tokens {
        Some(tokens) => vec![Some(tokens)],
        None => or_default(&w.seq_len),
    };
    let mut points: Vec<(Workload, u32, Totals)> = Vec::new();
    let meter = analysis::Sweep::new(model, headers, request.options);
    for batch in or_default(&w.batch_size) {
        for seq_len in seq_lens.iter().copied() {
            let workload = model
                .workload(&asked(w, headers, batch, seq_len))
                .map_err(fail)?;
            let (weight_bits, totals) = meter.totals(&workload).map_err(fail)?;
            points.push((workload, weight_bits, totals));
        }
    }
    let mut all = meter.notes();
    all.extend(opened.notes);
    let notes = all;
    let meta = request.meta(files, model);
    let root = Row::of_totals(&meta.architecture);
    let columns = request.columns(false);
    if !request.shown.quiet || request.shown.output.is_some() {
        let text = match request.shown.format {
            FormatArg::Json => to_json(&json::sweep(&meta, &request.conventions, &points, &notes))?,
            FormatArg::Csv => csv::sweep(&points, &columns, &root),
            format => {
                let markdown = format == FormatArg::Markdown;
                let body = table::sweep(&points, &columns, &root, markdown);
                let phase = points.first().map_or("", |(w, _, _)| w.phase.name());
                let name = table::model_name(&meta);
                let conventions = table::conventions_line(&request.conventions);
                format!(
                    "{name}: {phase}\n\n{body}\n\n{conventions}{}",
                    table::notes(&notes)
                )
            }
        };
        write_out(&text, request.shown.output.as_deref())?;
    }
    let mut exit = Exit::Ok;
    for (workload, _, totals) in &points {
        let name = format!(
            "{} (batch {}, seq-len {})",
            meta.id, workload.batch, workload.seq_len
        );
        if !gates(&request.args.gates, &name, totals) {
            exit = Exit::Failed;
        }
    }
    let differs = |note: &Note| MISMATCHES.contains(&note.code.as_str());
    if request.shown.strict && notes.iter().any(differs) {
        say_mismatch(&meta.id);
        exit = Exit::Failed;
    }
    let notes: Vec<&Note> = notes.iter().collect();
    Ok(unresolved(request, &notes).unwrap_or(exit))
}

fn say_mismatch(model: &str) {
    eprintln!(
        "strict: {}: the checkpoint is not what the model says; the notes tell where",
        units::visible(model)
    );
}

/// The exit code: unresolved modules under `--strict` win over failed gates.
fn verdict(request: &Request<'_>, models: &[(Meta, Analysis)]) -> Exit {
    let mut exit = Exit::Ok;
    for (meta, analysis) in models {
        let incomplete = analysis.notes.iter().any(|n| n.code == "unresolved");
        if incomplete && request.args.gates.any() {
            eprintln!(
                "gate: {} has modules without an entry, so its totals are not known",
                units::visible(&meta.id)
            );
            exit = Exit::Failed;
        }
        if !gates(&request.args.gates, &meta.id, &analysis.totals) {
            exit = Exit::Failed;
        }
        if request.shown.strict && analysis.stored.is_some_and(|stored| !stored.matches) {
            say_mismatch(&meta.id);
            exit = Exit::Failed;
        }
    }
    let notes: Vec<&Note> = models.iter().flat_map(|(_, a)| &a.notes).collect();
    unresolved(request, &notes).unwrap_or(exit)
}

/// Says which classes have no entry, where the report does not say it itself; the exit code under `--strict`.
fn unresolved(request: &Request<'_>, notes: &[&Note]) -> Option<Exit> {
    let shown = request.shown;
    let in_report = matches!(shown.format, FormatArg::Table | FormatArg::Markdown) && !shown.quiet;
    let mut any = false;
    // An estimate from names and shapes is better than nothing, and no entry all the same.
    let undescribed = |n: &&&Note| n.code == "unresolved" || n.code == "estimated";
    for note in notes.iter().filter(undescribed) {
        any = true;
        if shown.strict || !in_report {
            let path = if note.path.is_empty() {
                "(model)"
            } else {
                &note.path
            };
            eprintln!(
                "{}: {}: {}",
                note.code,
                units::clipped(path, 160),
                units::visible(&note.message)
            );
        }
    }
    (any && shown.strict).then_some(Exit::Unresolved)
}

/// Whether every gate holds; one line for each that does not.
fn gates(gates: &GateArgs, model: &str, totals: &Totals) -> bool {
    let limits = [
        (
            "--max-params",
            gates.max_params,
            totals.all.params,
            "parameters",
        ),
        ("--max-flops", gates.max_flops, totals.all.flops, "FLOPs"),
        ("--max-macs", gates.max_macs, totals.all.macs, "MACs"),
        ("--max-bops", gates.max_bops, totals.all.bops, "BOPs"),
        (
            "--max-weight-bytes",
            gates.max_weight_bytes,
            totals.all.weight_bytes,
            "bytes of weights",
        ),
        (
            "--max-kv-cache-bytes",
            gates.max_kv_cache_bytes,
            totals.kv_cache_bytes,
            "bytes of cache",
        ),
        (
            "--max-kv-bytes-per-token",
            gates.max_kv_bytes_per_token,
            totals.kv_cache_bytes_per_token,
            "bytes of cache per token",
        ),
    ];
    let mut holds = true;
    for (flag, limit, value, unit) in limits {
        if let Some(limit) = limit.filter(|limit| value > *limit) {
            eprintln!(
                "gate {flag}: {} has {} {unit}, {} more than {}",
                units::visible(model),
                units::grouped(value),
                units::grouped(value - limit),
                units::grouped(limit)
            );
            holds = false;
        }
    }
    holds
}
