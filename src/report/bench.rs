//! The stable JSON of `bench-kernel`, its table and its lines of values.

use super::table::grid;
use super::tool::{TOOL, Tool};
use crate::device::Device;
use crate::kernels::measure::{Honesty, Timing};
use serde::Serialize;

/// What a run measured.
pub struct Bench {
    /// The machine.
    pub device: Device,
    /// The instruction sets of the kernels that it runs.
    pub isas: Vec<&'static str>,
    /// What the probes are worth, for each number of threads.
    pub honesty: Vec<(usize, Honesty)>,
    /// Kernels.
    pub timings: Vec<Timing>,
    /// Products by others, where that was asked for.
    pub baselines: Vec<Baseline>,
    /// What the reader has to know.
    pub notes: Vec<(&'static str, String)>,
}

/// A dense product of the same sizes by somebody else's code.
#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    /// Whose.
    pub name: &'static str,
    /// Of what numbers.
    pub dtype: &'static str,
    /// Tokens.
    pub m: usize,
    /// Rows.
    pub n: usize,
    /// Columns.
    pub k: usize,
    /// Threads.
    pub threads: usize,
    /// Microseconds of a call whose weights are in memory.
    pub median_us: f64,
    /// Products a nanosecond.
    pub gmac_s: f64,
}

#[derive(Serialize)]
struct BenchJson<'a> {
    schema: &'static str,
    tool: Tool,
    machine: MachineJson<'a>,
    results: Vec<ResultJson>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    baselines: &'a [Baseline],
    notes: Vec<NoteJson<'a>>,
}

#[derive(Serialize)]
struct MachineJson<'a> {
    processor: Option<&'a str>,
    cores: usize,
    last_cache_bytes: Option<u64>,
    isas: &'a [&'static str],
    probes: Vec<ProbeJson>,
}

#[derive(Serialize)]
struct ProbeJson {
    threads: usize,
    clock_ghz: Option<f64>,
    read_over_plain: f64,
    peak_over_clock: Option<f64>,
}

#[derive(Serialize)]
struct ResultJson {
    kernel: &'static str,
    isa: &'static str,
    packing: &'static str,
    m: usize,
    n: usize,
    k: usize,
    threads: usize,
    mode: &'static str,
    checked_rows: usize,
    packed_bytes: usize,
    median_us: Option<f64>,
    p10_us: Option<f64>,
    p90_us: Option<f64>,
    packed_gb_s: Option<f64>,
    probe_gb_s: Option<f64>,
    probe_ratio: Option<f64>,
    probe_moved: Option<f64>,
    gmac_s: Option<f64>,
    peak_gmac_s: Option<f64>,
    peak_ratio: Option<f64>,
    page_kib: Option<u64>,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    code: &'static str,
    message: &'a str,
}

/// The object of `bitcost.bench-kernel/1`.
pub fn json(bench: &Bench) -> impl Serialize + '_ {
    BenchJson {
        schema: "bitcost.bench-kernel/1",
        tool: TOOL,
        machine: MachineJson {
            processor: bench.device.processor.as_deref(),
            cores: bench.device.cores,
            last_cache_bytes: bench.device.last_cache_bytes(),
            isas: &bench.isas,
            probes: bench.honesty.iter().map(probe).collect(),
        },
        results: bench.timings.iter().map(result).collect(),
        baselines: &bench.baselines,
        notes: bench
            .notes
            .iter()
            .map(|(code, message)| NoteJson { code, message })
            .collect(),
    }
}

fn probe((threads, honesty): &(usize, Honesty)) -> ProbeJson {
    ProbeJson {
        threads: *threads,
        clock_ghz: honesty.clock_ghz,
        read_over_plain: honesty.read_over_plain,
        peak_over_clock: honesty.peak_over_clock,
    }
}

fn result(timing: &Timing) -> ResultJson {
    let speed = timing.speed.as_ref();
    ResultJson {
        kernel: timing.kernel.name,
        isa: timing.kernel.isa.name(),
        packing: timing.kernel.packing.name(),
        m: timing.shape.m,
        n: timing.shape.n,
        k: timing.shape.k,
        threads: timing.threads,
        mode: timing.mode.name(),
        checked_rows: timing.checked_rows,
        packed_bytes: timing.packed_bytes,
        median_us: speed.map(|s| s.median_us),
        p10_us: speed.map(|s| s.p10_us),
        p90_us: speed.map(|s| s.p90_us),
        packed_gb_s: speed.map(|s| s.packed_gb_s),
        probe_gb_s: speed.and_then(|s| s.probe_gb_s),
        probe_ratio: speed.and_then(|s| s.probe_ratio),
        probe_moved: speed.and_then(|s| s.probe_moved),
        gmac_s: speed.map(|s| s.gmac_s),
        peak_gmac_s: speed.and_then(|s| s.peak_gmac_s),
        peak_ratio: speed.and_then(|s| s.peak_ratio),
        page_kib: timing.page_kib,
    }
}

/// The table: a line for each kernel, shape, number of threads and mode.
pub fn table(bench: &Bench, markdown: bool) -> String {
    let device = &bench.device;
    let cache = device.last_cache_bytes().map_or_else(
        || "last cache unknown".into(),
        |bytes| format!("last cache {}", crate::units::binary(bytes.into())),
    );
    let mut lines = vec![format!(
        "{}: {}, {cache}, {}",
        device.processor.as_deref().unwrap_or("this machine"),
        crate::units::counted(device.cores as u128, "core"),
        bench.isas.join(" "),
    )];
    for (threads, honesty) in &bench.honesty {
        let over = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        lines.push(format!(
            "probes with {}: read {} of a plain read, peak {} of two products a cycle at {} GHz",
            crate::units::counted(*threads as u128, "thread"),
            over(Some(honesty.read_over_plain)),
            over(honesty.peak_over_clock),
            honesty
                .clock_ghz
                .map_or("unknown".into(), |ghz| format!("{ghz:.2}")),
        ));
    }
    lines.push(String::new());
    let headings = [
        "kernel",
        "M x N x K",
        "threads",
        "mode",
        "us",
        "p10-p90",
        "GB/s",
        "read",
        "of it",
        "GMAC/s",
        "peak",
        "of it",
        "page KiB",
    ];
    lines.push(grid(
        &headings,
        bench.timings.iter().map(cells).collect(),
        markdown,
    ));
    if !bench.baselines.is_empty() {
        lines.push(String::new());
        let headings = [
            "dense product by others",
            "M x N x K",
            "threads",
            "us",
            "GMAC/s",
        ];
        let row = |b: &Baseline| {
            vec![
                format!("{} {}", b.name, b.dtype),
                format!("{}x{}x{}", b.m, b.n, b.k),
                b.threads.to_string(),
                time(b.median_us),
                rate(b.gmac_s),
            ]
        };
        lines.push(grid(
            &headings,
            bench.baselines.iter().map(row).collect(),
            markdown,
        ));
    }
    lines.push(String::new());
    lines.push(
        "a call quantizes activations, multiplies and scales; cold weights come from memory, hot ones are the same\n  \
         each time; read: a plain read of memory meanwhile; peak: the kernel's multiplying instruction alone"
            .into(),
    );
    for (code, message) in &bench.notes {
        lines.push(format!("note [{code}] {message}"));
    }
    lines.join("\n") + "\n"
}

fn cells(timing: &Timing) -> Vec<String> {
    let shape = timing.shape;
    let mut cells = vec![
        timing.kernel.name.to_string(),
        format!("{}x{}x{}", shape.m, shape.n, shape.k),
        timing.threads.to_string(),
        timing.mode.name().to_string(),
    ];
    let Some(speed) = &timing.speed else {
        cells.push("too slow".into());
        cells.extend(std::iter::repeat_n("-".to_string(), 8));
        return cells;
    };
    let share =
        |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{:.1} %", ratio * 100.0));
    cells.extend([
        time(speed.median_us),
        format!("{}-{}", time(speed.p10_us), time(speed.p90_us)),
        rate(speed.packed_gb_s),
        speed.probe_gb_s.map_or("-".into(), rate),
        share(speed.probe_ratio),
        rate(speed.gmac_s),
        speed.peak_gmac_s.map_or("-".into(), rate),
        share(speed.peak_ratio),
        timing.page_kib.map_or("-".into(), |kib| kib.to_string()),
    ]);
    cells
}

fn time(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.1}")
    } else {
        format!("{us:.0}")
    }
}

pub(super) fn rate(rate: f64) -> String {
    if rate < 100.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

/// Comma-separated values, raw digits.
pub fn csv(bench: &Bench) -> String {
    let headings = [
        "kernel",
        "isa",
        "packing",
        "m",
        "n",
        "k",
        "threads",
        "mode",
        "median_us",
        "p10_us",
        "p90_us",
        "packed_gb_s",
        "probe_gb_s",
        "probe_ratio",
        "gmac_s",
        "peak_gmac_s",
        "peak_ratio",
        "page_kib",
    ];
    let mut out = super::csv::line(headings.map(String::from).into_iter());
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| x.to_string());
    for timing in &bench.timings {
        let r = result(timing);
        let cells = [
            r.kernel.to_string(),
            r.isa.to_string(),
            r.packing.to_string(),
            r.m.to_string(),
            r.n.to_string(),
            r.k.to_string(),
            r.threads.to_string(),
            r.mode.to_string(),
            number(r.median_us),
            number(r.p10_us),
            number(r.p90_us),
            number(r.packed_gb_s),
            number(r.probe_gb_s),
            number(r.probe_ratio),
            number(r.gmac_s),
            number(r.peak_gmac_s),
            number(r.peak_ratio),
            r.page_kib.map_or_else(String::new, |kib| kib.to_string()),
        ];
        out += &super::csv::line(cells.into_iter());
    }
    out
}
