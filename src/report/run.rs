//! The stable JSON of `run` for a layer, and what it prints for people.

use super::table::grid;
use super::tool::{TOOL, Tool};
use crate::analysis::{Read, Written};
use crate::kernels::{Counts, Runnable};
use crate::units;
use serde::Serialize;

/// A layer that ran.
pub struct Run {
    /// Its path.
    pub layer: String,
    /// What the checkpoint was asked for by.
    pub checkpoint: String,
    /// What its weights were stored as.
    pub source: String,
    /// The kernel.
    pub kernel: Runnable,
    /// Threads.
    pub threads: usize,
    /// Tokens that went in.
    pub tokens: usize,
    /// Features that went out.
    pub rows: usize,
    /// Features that went in.
    pub cols: usize,
    /// How many weights are -1, 0 and 1.
    pub counts: Counts,
    /// What a code of 1 stands for.
    pub scales: Vec<f32>,
    /// What the scale means.
    pub rule: &'static str,
    /// Bytes of packed weights and scales.
    pub packed_bytes: u64,
    /// Median of the microseconds of a call.
    pub time_us: f64,
    /// What the analyzer says.
    pub predicted: Option<Predicted>,
    /// What a second computation found.
    pub verified: Option<Verified>,
    /// What the reader has to know.
    pub notes: Vec<(&'static str, String)>,
}

/// What the analyzer says of the module, with ternary weights and 8-bit activations.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// Its class.
    pub class: String,
    /// Multiply-accumulates.
    pub macs: u128,
    /// Floating-point operations that they stand for.
    pub flops: u128,
    /// Bit operations.
    pub bops: u128,
    /// Bytes that are read.
    pub read_bytes: Read,
    /// Bytes that are written.
    pub write_bytes: Written,
}

/// What a second computation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verified {
    /// Whether the scalar kernel gives the same bits.
    pub equal: bool,
    /// Of weights that were quantized: length of the error over length of the weights.
    pub weight_error: Option<f64>,
}

#[derive(Serialize)]
struct RunJson<'r> {
    schema: &'static str,
    tool: Tool,
    checkpoint: &'r str,
    layer: &'r str,
    source: &'r str,
    kernel: &'static str,
    isa: &'static str,
    packing: &'static str,
    threads: usize,
    tokens: usize,
    shape: [usize; 2],
    codes: CodesJson,
    scale: ScaleJson,
    rule: &'static str,
    packed_bytes: u64,
    time_us: f64,
    gmac_s: f64,
    predicted: Option<&'r Predicted>,
    verified: Option<bool>,
    weight_error: Option<f64>,
    notes: Vec<NoteJson<'r>>,
}

#[derive(Serialize)]
struct NoteJson<'r> {
    code: &'static str,
    message: &'r str,
}

#[derive(Serialize)]
struct CodesJson {
    minus: u64,
    zero: u64,
    plus: u64,
}

#[derive(Serialize)]
struct ScaleJson {
    count: usize,
    min: f32,
    max: f32,
}

impl Run {
    fn gmac_s(&self) -> f64 {
        self.tokens as f64 * self.rows as f64 * self.cols as f64 / self.time_us / 1e3
    }

    fn scale(&self) -> ScaleJson {
        ScaleJson {
            count: self.scales.len(),
            min: self.scales.iter().copied().fold(f32::INFINITY, f32::min),
            max: self.scales.iter().copied().fold(0.0, f32::max),
        }
    }
}

/// The object of `bitcost.run/1`.
pub fn json(run: &Run) -> impl Serialize + '_ {
    RunJson {
        schema: "bitcost.run/1",
        tool: TOOL,
        checkpoint: &run.checkpoint,
        layer: &run.layer,
        source: &run.source,
        kernel: run.kernel.name,
        isa: run.kernel.isa.name(),
        packing: run.kernel.packing.name(),
        threads: run.threads,
        tokens: run.tokens,
        shape: [run.rows, run.cols],
        codes: CodesJson {
            minus: run.counts.minus,
            zero: run.counts.zero,
            plus: run.counts.plus,
        },
        scale: run.scale(),
        rule: run.rule,
        packed_bytes: run.packed_bytes,
        time_us: run.time_us,
        gmac_s: run.gmac_s(),
        predicted: run.predicted.as_ref(),
        verified: run.verified.map(|verified| verified.equal),
        weight_error: run.verified.and_then(|verified| verified.weight_error),
        notes: run
            .notes
            .iter()
            .map(|(code, message)| NoteJson { code, message })
            .collect(),
    }
}

/// What people read: the layer, what ran, and beside it what the analyzer says.
pub fn table(run: &Run) -> String {
    let all = u128::from(run.counts.minus + run.counts.zero + run.counts.plus);
    let share = |count: u64| {
        format!(
            "{} ({})",
            units::grouped(count.into()),
            units::share(count.into(), all)
        )
    };
    let scale = run.scale();
    let scale = match scale.count {
        1 => format!("{}", scale.max),
        count => format!("{count} from {} to {}", scale.min, scale.max),
    };
    let mut lines = vec![
        format!(
            "{} of {}",
            units::visible(&run.layer),
            units::visible(&run.checkpoint)
        ),
        format!(
            "  {} x {} weights stored as {}, scale {scale} ({})",
            run.rows,
            run.cols,
            units::visible(&run.source),
            run.rule
        ),
        String::new(),
        format!(
            "kernel   {} with {}",
            run.kernel.name,
            units::counted(run.threads as u128, "thread")
        ),
        format!("tokens   {}", units::grouped(run.tokens as u128)),
        format!(
            "codes    -1: {}, 0: {}, 1: {}",
            share(run.counts.minus),
            share(run.counts.zero),
            share(run.counts.plus)
        ),
        format!("time     {:.1} us: {:.1} GMAC/s", run.time_us, run.gmac_s()),
    ];
    lines.push(String::new());
    if let Some(predicted) = &run.predicted {
        lines.push(beside(run, predicted));
    }
    if let Some(verified) = run.verified {
        lines.push(String::new());
        lines.push(match verified.equal {
            true => "verified: the scalar kernel gives the same bits".into(),
            false => "WRONG: the scalar kernel gives other numbers; please report this".into(),
        });
        if let Some(error) = verified.weight_error {
            lines.push(format!(
                "rounding weights to three values: relative error {:.2} %",
                error * 100.0
            ));
        }
    }
    for (code, message) in &run.notes {
        lines.push(format!("note [{code}] {}", units::visible(message)));
    }
    lines.join("\n") + "\n"
}

/// What is predicted, with 2-bit weights and 8-bit activations, and what ran.
fn beside(run: &Run, predicted: &Predicted) -> String {
    let grouped = |n: u128| units::grouped(n);
    let macs = run.tokens as u128 * run.rows as u128 * run.cols as u128;
    let rows = vec![
        vec!["MACs".into(), grouped(predicted.macs), grouped(macs)],
        vec!["BOPs".into(), grouped(predicted.bops), "-".into()],
        vec![
            "weight bytes".into(),
            grouped(predicted.read_bytes.weights),
            grouped(run.packed_bytes.into()),
        ],
        vec![
            "input bytes".into(),
            grouped(predicted.read_bytes.activations),
            grouped(run.tokens as u128 * run.cols as u128),
        ],
        vec![
            "output bytes".into(),
            grouped(predicted.write_bytes.activations),
            grouped(run.tokens as u128 * run.rows as u128 * 4),
        ],
    ];
    grid(
        &[&format!("as {}", predicted.class), "predicted", "ran"],
        rows,
        false,
    )
}
