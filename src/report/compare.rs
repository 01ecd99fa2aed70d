//! The stable JSON of `compare`, and its table: base and compressed side by side, layer by layer.

use super::table::Grid;
use super::tool::{TOOL, Tool};
use crate::compare::{Apart, BitsSource, Bops, Layer, Macs, Totals, ratio};
use crate::units;
use serde::{Serialize, Serializer};

/// Who was compared, under which conventions.
#[derive(Clone, Debug)]
pub struct CompareMeta {
    /// What the base was asked for by.
    pub base: String,
    /// What the compressed checkpoint was asked for by.
    pub compressed: String,
    /// Whether it is held against itself without zeros.
    pub alone: bool,
    /// The name of the definition of bit operations.
    pub bops: &'static str,
    /// The rule for null channels.
    pub null_rule: &'static str,
    /// Width of activations.
    pub activation_bits: u32,
    /// Where layers and their order are known from.
    pub graph: String,
}

/// A layer of both sides.
pub struct Pair<'s> {
    /// The base's.
    pub base: &'s Layer,
    /// The compressed one.
    pub compressed: &'s Layer,
    /// How far their weights are apart, where that was asked for and can be told.
    pub apart: Option<Apart>,
}

/// A finding.
pub struct CompareNote {
    /// A short stable name.
    pub code: &'static str,
    /// What it is about.
    pub path: String,
    /// What it says.
    pub message: String,
}

/// One object of `bitcost.compare/1`.
#[derive(Serialize)]
pub struct CompareJson<'a> {
    schema: &'static str,
    tool: Tool,
    base: SideJson<'a>,
    compressed: SideJson<'a>,
    conventions: ConventionsJson<'a>,
    layers: Layers<'a>,
    totals: TotalsJson,
    ratios: RatiosJson,
    notes: Vec<NoteJson<'a>>,
}

#[derive(Serialize)]
struct SideJson<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct ConventionsJson<'a> {
    bops: &'a str,
    null_rule: &'a str,
    activation_bits: u32,
    graph: &'a str,
}

#[derive(Serialize)]
struct LayerJson<'a> {
    name: &'a str,
    kind: &'static str,
    shape: &'a [u64],
    groups: usize,
    spatial: Option<[u64; 2]>,
    weight_bits: u32,
    base_weight_bits: u32,
    bits_source: &'static str,
    nnz: Option<u64>,
    zeros: Option<u64>,
    null_in: usize,
    null_out: usize,
    null_in_channels: Vec<usize>,
    null_out_channels: Vec<usize>,
    macs: Macs,
    base_macs: Macs,
    bops: SidesJson<Bops>,
    bytes: SidesJson<u64>,
    error: Option<Apart>,
}

#[derive(Serialize)]
struct SidesJson<T> {
    base: T,
    compressed: T,
}

#[derive(Serialize)]
struct TotalsJson {
    base: Totals,
    compressed: Totals,
}

#[derive(Serialize)]
struct RatiosJson {
    macs: Option<f64>,
    bops: Option<f64>,
    bytes: Option<f64>,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    code: &'a str,
    path: &'a str,
    message: &'a str,
}

/// The JSON of a comparison. A ratio of null is infinite: nothing is left.
pub fn json<'a>(
    meta: &'a CompareMeta,
    (base, compressed): (&Totals, &Totals),
    pairs: &'a [Pair<'a>],
    notes: &'a [CompareNote],
) -> CompareJson<'a> {
    let (base, compressed) = (*base, *compressed);
    CompareJson {
        schema: "bitcost.compare/1",
        tool: TOOL,
        base: SideJson { id: &meta.base },
        compressed: SideJson {
            id: &meta.compressed,
        },
        conventions: ConventionsJson {
            bops: meta.bops,
            null_rule: meta.null_rule,
            activation_bits: meta.activation_bits,
            graph: &meta.graph,
        },
        layers: Layers(pairs),
        totals: TotalsJson { base, compressed },
        ratios: RatiosJson {
            macs: ratio(base.macs as f64, compressed.macs as f64),
            bops: ratio(base.bops.to_f64(), compressed.bops.to_f64()),
            bytes: ratio(base.bytes as f64, compressed.bytes as f64),
        },
        notes: notes
            .iter()
            .map(|note| NoteJson {
                code: note.code,
                path: &note.path,
                message: &note.message,
            })
            .collect(),
    }
}

/// Layers that become JSON one by one.
struct Layers<'a>(&'a [Pair<'a>]);

impl Serialize for Layers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(layer))
    }
}

fn layer<'a>(pair: &Pair<'a>) -> LayerJson<'a> {
    let (base, c) = (pair.base, pair.compressed);
    LayerJson {
        name: &c.name,
        kind: c.kind(),
        shape: &c.shape,
        groups: c.groups,
        spatial: c.spatial.map(|(h, w)| [h, w]),
        weight_bits: c.weight_bits,
        base_weight_bits: base.weight_bits,
        bits_source: c.bits_source.name(),
        nnz: c.nnz,
        zeros: c.zeros,
        null_in: c.null_in.count(),
        null_out: c.null_out.count(),
        null_in_channels: c.null_in.iter().collect(),
        null_out_channels: c.null_out.iter().collect(),
        macs: c.macs,
        base_macs: base.macs,
        bops: SidesJson {
            base: base.bops,
            compressed: c.bops,
        },
        bytes: SidesJson {
            base: base.bytes,
            compressed: c.bytes,
        },
        error: pair.apart,
    }
}

/// The table of a comparison, its totals and what it means.
pub fn table(
    meta: &CompareMeta,
    (b, c): (&Totals, &Totals),
    pairs: &[Pair<'_>],
    notes: &[CompareNote],
    markdown: bool,
) -> String {
    let errors = pairs.iter().any(|pair| pair.apart.is_some());
    let mut headings = vec![
        "layer", "shape", "bits", "null out", "null in", "zeros", "MACs", "BOPs", "of base",
    ];
    headings.extend(errors.then_some("error"));
    let row = |pair: &Pair<'_>| {
        let (b, c) = (pair.base, pair.compressed);
        let shape: Vec<String> = c.shape.iter().map(u64::to_string).collect();
        let mut cells = vec![
            units::visible(&c.name),
            shape.join("x"),
            width(c),
            of(c.null_out.count(), c.null_out.width()),
            of(c.null_in.count(), c.null_in.width()),
            c.zeros.map_or_else(
                || "-".into(),
                |zeros| units::share(zeros.into(), zeros as u128 + u128::from(c.nnz.unwrap_or(0))),
            ),
            units::decimal(chosen(meta, &c.macs)),
            shown(c.bops),
            percent(c.bops.to_f64(), b.bops.to_f64()),
        ];
        let error = pair
            .apart
            .map_or_else(|| "-".into(), |apart| relative(apart.relative_l2));
        cells.extend(errors.then_some(error));
        cells
    };
    let mut grid = Grid::of(&headings, markdown);
    for pair in pairs {
        grid.push(row(pair));
    }
    let against = if meta.alone {
        let bits = pairs.first().map_or(0, |pair| pair.base.weight_bits);
        format!("itself without zeros at {bits} bits")
    } else {
        units::visible(&meta.base)
    };
    let mut out = format!(
        "{}\n  against {against}: BOPs by {}\n\n",
        units::visible(&meta.compressed),
        meta.bops
    );
    grid.print_to(&mut out);
    let mut lines = vec![String::new(); 2];
    for (name, before, after) in [
        ("MACs ", b.macs as f64, c.macs as f64),
        ("BOPs ", b.bops.to_f64(), c.bops.to_f64()),
        ("bytes", b.bytes as f64, c.bytes as f64),
    ] {
        let times = ratio(before, after).map_or_else(
            || "infinitely less".into(),
            |ratio| format!("{ratio:.4} x less"),
        );
        lines.push(format!(
            "{name}  {} of {}: {times} ({} of the base)",
            whole(after),
            whole(before),
            percent(after, before)
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "conventions: graph {}; null channels by {}; activations {} bits; MACs and BOPs of {}",
        meta.graph,
        meta.null_rule,
        meta.activation_bits,
        meaning(meta.bops)
    ));
    for note in notes {
        lines.push(format!(
            "note [{}] {}: {}",
            note.code,
            units::visible(&note.path),
            units::visible(&note.message)
        ));
    }
    out + &lines.join("\n") + "\n"
}

fn chosen(meta: &CompareMeta, macs: &Macs) -> u128 {
    let key = crate::compare::BopsKey::ALL
        .iter()
        .find(|(name, _)| *name == meta.bops);
    key.map_or(macs.dense, |(_, key)| macs.by(*key))
}

fn meaning(bops: &str) -> &'static str {
    match bops {
        "live-nnz" => "non-zero weights on live inputs",
        "density" | "psqs" => "non-zero weights",
        "structured" => "live outputs with live inputs",
        _ => "all weights",
    }
}

/// `16`, and where it is known from if not from the dtype: `4 levels`.
fn width(layer: &Layer) -> String {
    match layer.bits_source {
        BitsSource::Stored | BitsSource::FloatBits => layer.weight_bits.to_string(),
        source => format!("{} {}", layer.weight_bits, source.name()),
    }
}

fn of(count: usize, width: usize) -> String {
    if count == 0 {
        "0".into()
    } else {
        format!("{count}/{width}")
    }
}

fn shown(bops: Bops) -> String {
    units::decimal(bops.rounded())
}

fn whole(n: f64) -> String {
    units::decimal(n.round().max(0.0) as u128)
}

/// A relative error: `0`, `12.34 %`, `1.2e40 %`, `inf`.
fn relative(error: f64) -> String {
    match error {
        0.0 => "0".into(),
        error if error < 1e4 => format!("{:.2} %", error * 100.0),
        error if error.is_finite() => format!("{:.1e} %", error * 100.0),
        _ => "inf".into(),
    }
}

fn percent(part: f64, all: f64) -> String {
    if all == 0.0 {
        "-".into()
    } else {
        format!("{:.2} %", part / all * 100.0)
    }
}

/// Comma-separated values: a line per layer, raw digits.
pub fn csv(pairs: &[Pair<'_>]) -> String {
    let mut out = super::csv::line(
        [
            "layer",
            "kind",
            "weight_bits",
            "base_weight_bits",
            "bits_source",
            "nnz",
            "zeros",
            "null_in",
            "null_out",
            "macs_dense",
            "macs_live_nnz",
            "macs_density",
            "macs_structured",
            "bops",
            "base_bops",
            "bytes",
            "base_bytes",
        ]
        .map(String::from)
        .into_iter(),
    );
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    for Pair {
        base,
        compressed: c,
        ..
    } in pairs
    {
        let cells = [
            c.name.clone(),
            c.kind().into(),
            c.weight_bits.to_string(),
            base.weight_bits.to_string(),
            c.bits_source.name().into(),
            number(c.nnz),
            number(c.zeros),
            c.null_in.count().to_string(),
            c.null_out.count().to_string(),
            c.macs.dense.to_string(),
            c.macs.live_nnz.to_string(),
            c.macs.density.to_string(),
            c.macs.structured.to_string(),
            c.bops.to_string(),
            base.bops.to_string(),
            c.bytes.to_string(),
            base.bytes.to_string(),
        ];
        out += &super::csv::line(cells.into_iter());
    }
    out
}
