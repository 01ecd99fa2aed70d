//! The stable JSON of `inspect`: key names and order are a contract that other programs rely on.

use super::column::bits_per_weight;
use super::{Conventions, Meta};
use crate::analysis::{Analysis, Metrics, Note, Read, Row, StoredTotals, Totals, Train, Written};
use crate::model::{ExpertUse, Stored, Workload};
use serde::Serialize;

/// One object of `bitcost.inspect/1`.
#[derive(Serialize)]
pub struct InspectJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    workload: WorkloadJson,
    conventions: &'a Conventions,
    totals: TotalsJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a StoredTotals>,
    modules: Vec<ModuleJson<'a>>,
    notes: Vec<NoteJson<'a>>,
}

/// What every output begins with.
#[derive(Serialize)]
struct Head<'a> {
    schema: &'static str,
    tool: Tool,
    db: Database<'a>,
    model: ModelJson<'a>,
}

#[derive(Serialize)]
struct Tool {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Database<'a> {
    sha256: &'a str,
    overlays: &'a [String],
}

#[derive(Serialize)]
struct ModelJson<'a> {
    id: &'a str,
    revision: Option<&'a str>,
    source: &'static str,
    architecture: &'a str,
    model_type: Option<&'a str>,
}

#[derive(Serialize)]
struct WorkloadJson {
    batch: u64,
    seq_len: u64,
    past_len: u64,
    dec_seq_len: Option<u64>,
    image_size: Option<u64>,
    phase: &'static str,
    weight_bits: u32,
    activation_bits: u32,
    kv_bits: u32,
}

#[derive(Serialize)]
struct MetricsJson {
    params: u128,
    weight_bytes: u128,
    macs: u128,
    flops: u128,
    bops: u128,
    read_bytes: Read,
    write_bytes: Written,
    intermediate_bytes: u128,
}

#[derive(Serialize)]
struct TotalsJson {
    #[serde(flatten)]
    metrics: MetricsJson,
    params_active: u128,
    kv_cache_bytes: u128,
    kv_cache_bytes_per_token: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<Train>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<StoredJson<'static>>,
}

/// How a checkpoint holds parameters.
#[derive(Serialize)]
struct StoredJson<'a> {
    bytes: u128,
    params: u128,
    bits_per_weight: f64,
    /// Format of the module's own weights; null where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<SchemeJson<'a>>,
}

#[derive(Serialize)]
struct SchemeJson<'a> {
    name: &'a str,
    label: &'a str,
    code_bits: Option<u32>,
}

#[derive(Serialize)]
struct ModuleJson<'a> {
    path: &'a str,
    class: &'a str,
    count: u128,
    depth: usize,
    #[serde(flatten)]
    metrics: MetricsJson,
    #[serde(rename = "self")]
    own: MetricsJson,
    status: &'static str,
    validation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<ExpertsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<StoredJson<'a>>,
}

#[derive(Serialize)]
struct ExpertsJson {
    total: u128,
    per_token: u128,
    expected_distinct: f64,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    code: &'a str,
    path: &'a str,
    message: &'a str,
}

impl From<&Metrics> for MetricsJson {
    fn from(m: &Metrics) -> MetricsJson {
        MetricsJson {
            params: m.params,
            weight_bytes: m.weight_bytes,
            macs: m.macs,
            flops: m.flops,
            bops: m.bops,
            read_bytes: m.read,
            write_bytes: m.write,
            intermediate_bytes: m.intermediate_bytes,
        }
    }
}

impl From<&Totals> for TotalsJson {
    fn from(t: &Totals) -> TotalsJson {
        TotalsJson {
            metrics: (&t.all).into(),
            params_active: t.params_active,
            kv_cache_bytes: t.kv_cache_bytes,
            kv_cache_bytes_per_token: t.kv_cache_bytes_per_token,
            train: t.train,
            stored: stored(&t.all, None),
        }
    }
}

impl From<&ExpertUse> for ExpertsJson {
    fn from(e: &ExpertUse) -> ExpertsJson {
        ExpertsJson {
            total: e.total,
            per_token: e.per_token,
            expected_distinct: e.expected_distinct,
        }
    }
}

fn workload(workload: &Workload, weight_bits: u32, seq2seq: bool) -> WorkloadJson {
    WorkloadJson {
        batch: workload.batch,
        seq_len: workload.seq_len,
        past_len: workload.past_len,
        dec_seq_len: seq2seq.then_some(workload.dec_seq_len),
        image_size: workload.image_size,
        phase: workload.phase.name(),
        weight_bits,
        activation_bits: workload.widths.activation.unwrap_or(workload.widths.dtype),
        kv_bits: workload.widths.kv,
    }
}

fn module(row: &Row) -> ModuleJson<'_> {
    ModuleJson {
        path: &row.path,
        class: &row.class,
        count: row.count,
        depth: row.depth,
        metrics: (&row.all).into(),
        own: (&row.own).into(),
        status: row.status.name(),
        validation: if row.validated {
            "validated"
        } else {
            "pending"
        },
        experts: row.experts.as_ref().map(Into::into),
        stored: stored(&row.all, row.stored.as_deref()),
    }
}

fn stored<'a>(metrics: &Metrics, own: Option<&'a Stored>) -> Option<StoredJson<'a>> {
    Some(StoredJson {
        bytes: metrics.stored_bytes,
        params: metrics.stored_params,
        bits_per_weight: bits_per_weight(metrics)?,
        scheme: own.map(|own| SchemeJson {
            name: &own.scheme,
            label: &own.label,
            code_bits: own.code_bits,
        }),
    })
}

fn note(note: &Note) -> NoteJson<'_> {
    NoteJson {
        code: &note.code,
        path: &note.path,
        message: &note.message,
    }
}

fn head<'a>(schema: &'static str, meta: &'a Meta) -> Head<'a> {
    Head {
        schema,
        tool: Tool {
            name: "bitcost",
            version: env!("CARGO_PKG_VERSION"),
        },
        db: Database {
            sha256: &meta.db_sha256,
            overlays: &meta.overlays,
        },
        model: ModelJson {
            id: &meta.id,
            revision: meta.revision.as_deref(),
            source: meta.source,
            architecture: &meta.architecture,
            model_type: meta.model_type.as_deref(),
        },
    }
}

/// The JSON of an analysis.
pub fn inspect<'a>(
    meta: &'a Meta,
    conventions: &'a Conventions,
    analysis: &'a Analysis,
    rows: &[&'a Row],
) -> InspectJson<'a> {
    InspectJson {
        head: head("bitcost.inspect/1", meta),
        workload: workload(
            &analysis.workload,
            analysis.weight_bits,
            meta.kind == "seq2seq",
        ),
        conventions,
        totals: (&analysis.totals).into(),
        checkpoint: analysis.stored.as_ref(),
        modules: rows.iter().map(|row| module(row)).collect(),
        notes: analysis.notes.iter().map(note).collect(),
    }
}

/// One object of `bitcost.sweep/1`.
#[derive(Serialize)]
pub struct SweepJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    conventions: &'a Conventions,
    points: Vec<PointJson>,
    notes: Vec<NoteJson<'a>>,
}

#[derive(Serialize)]
struct PointJson {
    workload: WorkloadJson,
    totals: TotalsJson,
}

/// The JSON of a sweep.
pub fn sweep<'a>(
    meta: &'a Meta,
    conventions: &'a Conventions,
    points: &[(Workload, u32, Totals)],
    notes: &'a [Note],
) -> SweepJson<'a> {
    SweepJson {
        head: head("bitcost.sweep/1", meta),
        conventions,
        points: points
            .iter()
            .map(|(w, bits, totals)| PointJson {
                workload: workload(w, *bits, meta.kind == "seq2seq"),
                totals: totals.into(),
            })
            .collect(),
        notes: notes.iter().map(note).collect(),
    }
}

/// One object of `bitcost.by-class/1`.
#[derive(Serialize)]
pub struct ByClassJson<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    workload: WorkloadJson,
    conventions: &'a Conventions,
    totals: TotalsJson,
    classes: Vec<ClassJson<'a>>,
    notes: Vec<NoteJson<'a>>,
}

#[derive(Serialize)]
struct ClassJson<'a> {
    class: &'a str,
    modules: u128,
    #[serde(flatten)]
    metrics: MetricsJson,
}

/// The JSON of sums per class, without children. They add up to the totals, except that a tied tensor counts at each of
/// its owners.
pub fn by_class<'a>(
    meta: &'a Meta,
    conventions: &'a Conventions,
    analysis: &'a Analysis,
    classes: &'a [Row],
) -> ByClassJson<'a> {
    let class = |row: &'a Row| ClassJson {
        class: &row.class,
        modules: row.modules,
        metrics: (&row.all).into(),
    };
    ByClassJson {
        head: head("bitcost.by-class/1", meta),
        workload: workload(
            &analysis.workload,
            analysis.weight_bits,
            meta.kind == "seq2seq",
        ),
        conventions,
        totals: (&analysis.totals).into(),
        classes: classes.iter().map(class).collect(),
        notes: analysis.notes.iter().map(note).collect(),
    }
}

/// One object of `bitcost.models/1`: several models, each as `bitcost.inspect/1`.
#[derive(Serialize)]
pub struct ModelsJson<'a> {
    schema: &'static str,
    models: Vec<InspectJson<'a>>,
}

/// The JSON of several models.
pub fn models(models: Vec<InspectJson<'_>>) -> ModelsJson<'_> {
    ModelsJson {
        schema: "bitcost.models/1",
        models,
    }
}
