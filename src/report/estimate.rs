//! What `bitcost estimate` prints: operations, layers and totals, as a table, JSON and CSV; precisions side by side.

use super::csv;
use super::table::Grid;
use super::tool::{TOOL, Tool};
use crate::bops::{Bops, BopsKey};
use crate::cost::blocks::BLOCKS;
use crate::cost::{
    ACTIVATIONS, Bias, BitCostRegister, Conventions, Layer, Operand, Operation, Precision, Shape,
    Totals, options,
};
use crate::units;
use serde::Serialize;

/// One object of `bitcost.estimate/1`.
#[derive(Serialize)]
pub struct EstimateJson<'r> {
    schema: &'static str,
    tool: Tool,
    input: Operand,
    precision: Precision,
    bops_key: &'static str,
    conventions: ConventionsJson,
    totals: TotalsJson,
    scopes: Vec<ScopeJson<'r>>,
    layers: Vec<LayerJson<'r>>,
    operations: Vec<OperationJson<'r>>,
}

#[derive(Serialize)]
struct ConventionsJson {
    bias: &'static str,
    accumulator_bits: u32,
    elementwise_bops: bool,
}

#[derive(Serialize)]
struct TotalsJson {
    bops: Bops,
    bops_of_macs: Bops,
    macs: u128,
    elementwise: u128,
    flops: u128,
    params: u128,
    storage_bits: u128,
    storage_bytes: u128,
}

#[derive(Serialize)]
struct ScopeJson<'r> {
    path: &'r str,
    times: u128,
    #[serde(flatten)]
    totals: TotalsJson,
}

#[derive(Serialize)]
struct LayerJson<'r> {
    id: &'r str,
    kind: &'static str,
    shape: Shape,
    precision: Precision,
    params: u128,
    storage_bits: u128,
    macs: u128,
    bops: Bops,
}

#[derive(Serialize)]
struct OperationJson<'r> {
    scope: &'r str,
    layer: Option<&'r str>,
    name: &'static str,
    left: Operand,
    right: Option<Operand>,
    result: Operand,
    times: u128,
    macs: u128,
    elementwise: u128,
    flops: u128,
    bops: Bops,
}

fn conventions(c: &Conventions) -> ConventionsJson {
    ConventionsJson {
        bias: c.bias.name(),
        accumulator_bits: c.accumulator_bits,
        elementwise_bops: c.bops == BopsKey::Accum,
    }
}

fn totals(t: &Totals) -> TotalsJson {
    TotalsJson {
        bops: t.bops,
        bops_of_macs: t.bops_of_macs,
        macs: t.macs,
        elementwise: t.elementwise,
        flops: t.flops,
        params: t.params,
        storage_bits: t.storage_bits,
        storage_bytes: t.storage_bits.div_ceil(8),
    }
}

fn layer(layer: &Layer) -> LayerJson<'_> {
    LayerJson {
        id: &layer.id,
        kind: layer.kind,
        shape: layer.shape,
        precision: layer.precision,
        params: layer.params,
        storage_bits: layer.storage_bits,
        macs: layer.macs,
        bops: layer.bops,
    }
}

fn operation<'r>(register: &'r BitCostRegister, o: &Operation) -> OperationJson<'r> {
    OperationJson {
        scope: &register.scopes()[o.scope].path,
        layer: o.layer.map(|layer| &*register.layers()[layer].id),
        name: o.name,
        left: o.left,
        right: o.right,
        result: o.result,
        times: register.scopes()[o.scope].times,
        macs: o.macs,
        elementwise: o.elementwise,
        flops: o.flops(),
        bops: o.bops,
    }
}

/// The JSON of an estimate.
pub fn json(input: Operand, register: &BitCostRegister) -> EstimateJson<'_> {
    let c = register.conventions();
    EstimateJson {
        schema: "bitcost.estimate/1",
        tool: TOOL,
        input,
        precision: c.precision,
        bops_key: c.bops.name(),
        conventions: conventions(c),
        totals: totals(register.totals()),
        scopes: register.scopes()[1..]
            .iter()
            .map(|scope| ScopeJson {
                path: &scope.path,
                times: scope.times,
                totals: totals(&scope.totals),
            })
            .collect(),
        layers: register.layers().iter().map(layer).collect(),
        operations: register
            .operations()
            .iter()
            .map(|o| operation(register, o))
            .collect(),
    }
}

/// Comma-separated values: a line per operation, raw digits.
pub fn csv(register: &BitCostRegister) -> String {
    let headings = [
        "scope",
        "layer",
        "operation",
        "left",
        "left_bits",
        "right",
        "right_bits",
        "result",
        "result_bits",
        "times",
        "macs",
        "elementwise",
        "flops",
        "bops",
    ];
    let mut out = csv::line(headings.map(String::from).into_iter());
    for o in register.operations() {
        let o = operation(register, o);
        let right = |of: fn(Operand) -> String| o.right.map_or_else(String::new, of);
        let cells = [
            o.scope.into(),
            o.layer.unwrap_or_default().into(),
            o.name.into(),
            o.left.shape.to_string(),
            o.left.bits.to_string(),
            right(|operand| operand.shape.to_string()),
            right(|operand| operand.bits.to_string()),
            o.result.shape.to_string(),
            o.result.bits.to_string(),
            o.times.to_string(),
            o.macs.to_string(),
            o.elementwise.to_string(),
            o.flops.to_string(),
            o.bops.to_string(),
        ];
        out += &csv::line(cells.into_iter());
    }
    out
}

/// Operations, layers and totals for people.
pub fn table(input: Operand, register: &BitCostRegister, markdown: bool) -> String {
    let all = register.totals();
    let mut out = format!("{}\n\n", head(input, register.conventions()));
    let repeats = register.scopes().iter().any(|scope| scope.times > 1);
    let mut headings = vec!["operation", "takes"];
    headings.extend(repeats.then_some("times"));
    headings.extend(["MACs", "elementwise", "BOPs", "share"]);
    let mut grid = Grid::of(&headings, markdown);
    for o in register.operations() {
        let right = o
            .right
            .map_or_else(String::new, |right| format!(" {}", shown(right)));
        let times = repeats.then(|| units::grouped(register.scopes()[o.scope].times));
        let cells = [place(register, o), format!("{}{right}", shown(o.left))];
        grid.push(cells.into_iter().chain(times).chain([
            units::decimal(o.macs),
            units::decimal(o.elementwise),
            units::decimal(o.bops.rounded()),
            units::share(o.bops.rounded(), all.bops.rounded()),
        ]));
    }
    grid.print_to(&mut out);
    if !register.layers().is_empty() {
        out += "\n\n";
        let headings = [
            "layer",
            "shape",
            "precision",
            "params",
            "stored bits",
            "MACs",
            "BOPs",
        ];
        let mut grid = Grid::of(&headings, markdown);
        for layer in register.layers() {
            grid.push([
                layer.id.to_string(),
                layer.shape.to_string(),
                layer.precision.to_string(),
                units::decimal(layer.params),
                units::grouped(layer.storage_bits),
                units::decimal(layer.macs),
                units::decimal(layer.bops.rounded()),
            ]);
        }
        grid.print_to(&mut out);
    }
    out += "\n\n";
    let blocks = register.scopes().iter().filter(|s| s.parent == Some(0));
    let blocks: Vec<_> = blocks.collect();
    if blocks.len() > 1 {
        let headings = ["block", "BOPs", "stored bits", "MACs", "elementwise"];
        let mut grid = Grid::of(&headings, markdown);
        for scope in blocks {
            grid.push([
                scope.path.to_string(),
                units::grouped(scope.totals.bops.rounded()),
                units::grouped(scope.totals.storage_bits),
                units::grouped(scope.totals.macs),
                units::grouped(scope.totals.elementwise),
            ]);
        }
        grid.print_to(&mut out);
        out += "\n\n";
    }
    let of_macs = all.bops_of_macs.rounded();
    let of_elements = all.bops.rounded().saturating_sub(of_macs);
    let lines = [
        format!(
            "computation  {}: products {}, elementwise {}",
            computation(all.bops),
            units::decimal(of_macs),
            units::decimal(of_elements)
        ),
        format!(
            "storage      {}, {}",
            storage(all.storage_bits),
            units::counted(all.params, "parameter")
        ),
        format!(
            "MACs         {}, FLOPs {}",
            units::grouped(all.macs),
            units::grouped(all.flops)
        ),
        conventions_line(register.conventions()),
    ];
    out + &lines.join("\n")
}

/// What flows in, at which precision, by which definition.
fn head(input: Operand, c: &Conventions) -> String {
    format!(
        "{} of {} bits, layers {}: BOPs by {}",
        input.shape,
        input.bits,
        c.precision,
        c.bops.name()
    )
}

/// `128x32:8`.
fn shown(operand: Operand) -> String {
    format!("{}:{}", operand.shape, operand.bits)
}

/// The layer of an operation, its name beside it where that says more; or its scope and its name.
fn place(register: &BitCostRegister, o: &Operation) -> String {
    match o.layer.map(|layer| &register.layers()[layer]) {
        Some(layer) if layer.kind == o.name => layer.id.to_string(),
        Some(layer) => format!("{} {}", layer.id, o.name),
        None => match &*register.scopes()[o.scope].path {
            "" => o.name.into(),
            path => format!("{path} {}", o.name),
        },
    }
}

/// `5.45161216 GBOPs (5,451,612,160)`.
fn computation(bops: Bops) -> String {
    let n = bops.rounded();
    format!("{}BOPs ({})", units::exact(n, 'G'), units::grouped(n))
}

/// `0.624896 Mb (78,112 bytes)`.
fn storage(bits: u128) -> String {
    let bytes = units::counted(bits.div_ceil(8), "byte");
    format!("{}b ({bytes})", units::exact(bits, 'M'))
}

fn conventions_line(c: &Conventions) -> String {
    let bias = match c.bias {
        Bias::Stored => "biases stored, their sums not counted",
        Bias::Added => "biases stored and added",
        Bias::None => "no biases",
    };
    let elements = if c.bops == BopsKey::Accum {
        "elementwise work counted"
    } else {
        "of products alone"
    };
    format!(
        "conventions: BOPs by {}, {elements}; {bias}; accumulators, biases and scales of {} bits",
        c.bops.name(),
        c.accumulator_bits
    )
}

/// One object of `bitcost.estimate-precisions/1`.
#[derive(Serialize)]
pub struct PrecisionsJson<'r> {
    schema: &'static str,
    tool: Tool,
    input: Operand,
    bops_key: &'static str,
    conventions: ConventionsJson,
    precisions: Vec<PrecisionJson<'r>>,
}

#[derive(Serialize)]
struct PrecisionJson<'r> {
    precision: Precision,
    totals: TotalsJson,
    layers: Vec<LayerJson<'r>>,
}

/// The JSON of several precisions; there is at least one.
pub fn precisions_json(input: Operand, registers: &[BitCostRegister]) -> PrecisionsJson<'_> {
    let c = registers
        .first()
        .map_or_else(Conventions::default, |register| *register.conventions());
    PrecisionsJson {
        schema: "bitcost.estimate-precisions/1",
        tool: TOOL,
        input,
        bops_key: c.bops.name(),
        conventions: conventions(&c),
        precisions: registers
            .iter()
            .map(|register| PrecisionJson {
                precision: register.conventions().precision,
                totals: totals(register.totals()),
                layers: register.layers().iter().map(layer).collect(),
            })
            .collect(),
    }
}

/// Comma-separated values: a line per layer and one for all, raw digits, two columns per precision.
pub fn precisions_csv(registers: &[BitCostRegister]) -> String {
    let names = registers.iter().flat_map(|register| {
        let precision = register.conventions().precision;
        [
            format!("{precision}_bops"),
            format!("{precision}_storage_bits"),
        ]
    });
    let mut out = csv::line(["layer".to_string()].into_iter().chain(names));
    for (number, layer) in layers(registers) {
        let cells = registers.iter().flat_map(|register| {
            let layer = &register.layers()[number];
            [layer.bops.to_string(), layer.storage_bits.to_string()]
        });
        out += &csv::line([layer.id.to_string()].into_iter().chain(cells));
    }
    let cells = registers.iter().flat_map(|register| {
        let all = register.totals();
        [all.bops.to_string(), all.storage_bits.to_string()]
    });
    out + &csv::line(["all".to_string()].into_iter().chain(cells))
}

/// The layers of all registers, which are the same: precision changes what they cost and not which there are.
fn layers(registers: &[BitCostRegister]) -> impl Iterator<Item = (usize, &Layer)> {
    let first = registers.first().map_or(&[][..], BitCostRegister::layers);
    first.iter().enumerate()
}

/// A column of bit operations for each precision.
pub fn precisions(input: Operand, registers: &[BitCostRegister], markdown: bool) -> String {
    let Some(first) = registers.first() else {
        return String::new();
    };
    let names: Vec<String> = registers
        .iter()
        .map(|register| register.conventions().precision.to_string())
        .collect();
    let headings: Vec<&str> = ["BOPs"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let mut grid = Grid::of(&headings, markdown);
    let mut row = |name: &str, cell: &dyn Fn(&BitCostRegister) -> String| {
        let cells = registers.iter().map(cell);
        grid.push([name.to_string()].into_iter().chain(cells));
    };
    for (number, layer) in layers(registers) {
        row(&layer.id, &|r| {
            units::decimal(r.layers()[number].bops.rounded())
        });
    }
    row("outside layers", &|r| {
        let outside = r.operations().iter().filter(|o| o.layer.is_none());
        let bops = outside.fold(Bops::Whole(0), |sum, o| sum.plus(o.bops));
        units::decimal(bops.rounded())
    });
    row("computation", &|r| {
        format!("{}BOPs", units::exact(r.totals().bops.rounded(), 'G'))
    });
    row("of the first", &|r| {
        units::share(r.totals().bops.rounded(), first.totals().bops.rounded())
    });
    row("storage", &|r| {
        format!("{}b", units::exact(r.totals().storage_bits, 'M'))
    });
    row("of the first", &|r| {
        units::share(r.totals().storage_bits, first.totals().storage_bits)
    });
    let c = first.conventions();
    let mut out = format!(
        "{} of {} bits: BOPs by {}\n\n",
        input.shape,
        input.bits,
        c.bops.name()
    );
    grid.print_to(&mut out);
    out + "\n\n" + &conventions_line(c)
}

/// The blocks that a chain can name, with their options.
pub fn blocks() -> String {
    let mut out = String::from("Blocks, with their options and defaults:\n");
    for block in BLOCKS {
        let options = options(block.name);
        let options: Vec<String> = options
            .iter()
            .map(|option| match option.default.as_str() {
                "" => format!("{}=..", option.name),
                default => format!("{}={default}", option.name),
            })
            .collect();
        out += &format!(
            "  {}({})\n      {}\n",
            block.name,
            options.join(", "),
            block.doc
        );
    }
    let names: Vec<&str> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
    out += &format!("Activations, which are blocks too: {}\n", names.join(", "));
    out += "Every block takes precision= and bias= for its layers.";
    out
}
