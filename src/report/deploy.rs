//! What `deploy` has packed: the stable JSON and the table.

use super::table::grid;
use super::tool::{TOOL, Tool};
use crate::units;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was asked for, and what was decided.
#[derive(Clone, Debug)]
pub struct DeployMeta {
    /// The input as it was named.
    pub input: String,
    /// The output as it was named.
    pub output: String,
    /// The class of the packed layers.
    pub linear_class: &'static str,
    /// Whether a config was written that names the packing.
    pub quantization_config: bool,
    /// Linear layers that stay as they are, and why.
    pub kept: Vec<(String, String)>,
    /// Files that were copied.
    pub copied: Vec<String>,
    /// Files that were not, and why.
    pub left: Vec<(String, &'static str)>,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The packed layers, by their number in the plan.
    pub layers: BTreeMap<usize, PackedLayer>,
    /// The files with weights.
    pub files: Vec<PackedFile>,
    /// All tensors, with the file that holds each.
    pub tensors: BTreeMap<String, String>,
    /// Bytes of all tensors.
    pub data_bytes: u64,
}

/// A layer that became ternary.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    /// Its path in the model.
    pub name: String,
    /// The tensor that holds its codes.
    pub tensor: String,
    /// Rows and columns.
    pub shape: [u64; 2],
    /// The number format that its weight had and its scale has.
    pub dtype: &'static str,
    /// Its scale, as it is stored.
    pub scale: f32,
    /// How many weights are -1, 0 and 1.
    pub codes: [u64; 3],
    /// Bytes of the float weight.
    pub bytes_before: u64,
    /// Bytes of codes and scale.
    pub bytes_after: u64,
}

/// A file with weights.
#[derive(Clone, Debug, Serialize)]
pub struct PackedFile {
    /// Its name.
    pub name: String,
    /// Its size before.
    pub bytes_before: u64,
    /// Its size now.
    pub bytes_after: u64,
}

/// One object of `bitcost.deploy/1`.
#[derive(Serialize)]
pub struct DeployJson<'r> {
    schema: &'static str,
    tool: Tool,
    input: &'r str,
    output: &'r str,
    linear_class: &'r str,
    quantization_config: bool,
    layers: Vec<LayerJson<'r>>,
    kept: Vec<ReasonJson<'r>>,
    files: &'r [PackedFile],
    copied: &'r [String],
    left: Vec<ReasonJson<'r>>,
    totals: TotalsJson,
}

#[derive(Serialize)]
struct LayerJson<'r> {
    name: &'r str,
    tensor: &'r str,
    shape: [u64; 2],
    dtype: &'r str,
    scale: f32,
    codes: CodesJson,
    bytes_before: u64,
    bytes_after: u64,
}

#[derive(Serialize)]
struct CodesJson {
    minus: u64,
    zero: u64,
    plus: u64,
}

#[derive(Serialize)]
struct ReasonJson<'r> {
    name: &'r str,
    reason: &'r str,
}

#[derive(Serialize)]
struct TotalsJson {
    layers: SizesJson,
    files: SizesJson,
}

#[derive(Serialize)]
struct SizesJson {
    bytes_before: u64,
    bytes_after: u64,
    ratio: f64,
}

impl SizesJson {
    fn of(sizes: impl Iterator<Item = (u64, u64)>) -> SizesJson {
        let (before, after) = sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        SizesJson {
            bytes_before: before,
            bytes_after: after,
            ratio: before as f64 / after.max(1) as f64,
        }
    }
}

fn totals(report: &Report) -> TotalsJson {
    let layers = report.layers.values();
    let files = report.files.iter();
    TotalsJson {
        layers: SizesJson::of(layers.map(|layer| (layer.bytes_before, layer.bytes_after))),
        files: SizesJson::of(files.map(|file| (file.bytes_before, file.bytes_after))),
    }
}

/// The JSON of what was packed.
pub fn json<'r>(meta: &'r DeployMeta, report: &'r Report) -> DeployJson<'r> {
    let layer = |layer: &'r PackedLayer| LayerJson {
        name: &layer.name,
        tensor: &layer.tensor,
        shape: layer.shape,
        dtype: layer.dtype,
        scale: layer.scale,
        codes: CodesJson {
            minus: layer.codes[0],
            zero: layer.codes[1],
            plus: layer.codes[2],
        },
        bytes_before: layer.bytes_before,
        bytes_after: layer.bytes_after,
    };
    let kept = meta
        .kept
        .iter()
        .map(|(name, reason)| ReasonJson { name, reason });
    let left = meta
        .left
        .iter()
        .map(|(name, reason)| ReasonJson { name, reason });
    DeployJson {
        schema: "bitcost.deploy/1",
        tool: TOOL,
        input: &meta.input,
        output: &meta.output,
        linear_class: meta.linear_class,
        quantization_config: meta.quantization_config,
        layers: report.layers.values().map(layer).collect(),
        kept: kept.collect(),
        files: &report.files,
        copied: &meta.copied,
        left: left.collect(),
        totals: totals(report),
    }
}

/// The table of what was packed, and what it saves.
pub fn table(meta: &DeployMeta, report: &Report) -> String {
    let headings = [
        "layer", "shape", "dtype", "zeros", "scale", "before", "after",
    ];
    let row = |layer: &PackedLayer| {
        let all = layer.codes.iter().map(|n| u128::from(*n)).sum();
        vec![
            units::visible(&layer.name),
            format!("{}x{}", layer.shape[0], layer.shape[1]),
            layer.dtype.into(),
            units::share(layer.codes[1].into(), all),
            layer.scale.to_string(),
            units::binary(layer.bytes_before.into()),
            units::binary(layer.bytes_after.into()),
        ]
    };
    let body = grid(&headings, report.layers.values().map(row).collect(), false);
    let mut lines = vec![
        units::visible(&meta.output),
        format!(
            "  packed from {}: {}, class {}",
            units::visible(&meta.input),
            units::counted(report.layers.len() as u128, "layer"),
            meta.linear_class
        ),
        String::new(),
        body,
        String::new(),
    ];
    let totals = totals(report);
    for (what, sizes) in [("layers", &totals.layers), ("files ", &totals.files)] {
        lines.push(format!(
            "{what}  {} of {}: {:.4} x less",
            units::binary(sizes.bytes_after.into()),
            units::binary(sizes.bytes_before.into()),
            sizes.ratio
        ));
    }
    for (name, reason) in &meta.kept {
        lines.push(format!(
            "kept {}: {}",
            units::visible(name),
            units::visible(reason)
        ));
    }
    for (name, reason) in &meta.left {
        lines.push(format!("not copied: {}: {reason}", units::visible(name)));
    }
    if !meta.quantization_config {
        lines.push("note: a loader needs a config that names the packing; deploy a folder to have it written".into());
    }
    lines.join("\n") + "\n"
}
