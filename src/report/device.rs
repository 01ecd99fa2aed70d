//! The stable JSON of `device`, and its table.

use super::bench::rate;
use super::table::{grid, wrap};
use super::tool::{TOOL, Tool};
use crate::device::{Cache, Device};
use crate::machine::{Known, Measured, Peak, Read, instruction_sets};
use crate::units;
use serde::Serialize;
use std::env::consts::ARCH;

/// Devices that models run on elsewhere. They are named, so that nobody looks for them.
const OTHERS: &[&str] = &["cuda", "rocm", "metal", "vulkan"];

/// What is known of this machine.
pub struct Machine {
    /// What it has.
    pub device: Device,
    /// What it reaches; `None` where it could not be measured.
    pub known: Option<Known>,
    /// What the reader has to know.
    pub notes: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
struct MachineJson<'a> {
    schema: &'static str,
    tool: Tool,
    processor: Option<&'a str>,
    architecture: &'static str,
    features: Option<&'a [&'static str]>,
    isas: Vec<&'static str>,
    cores: CoresJson,
    caches: Vec<CacheJson>,
    memory: MemoryJson,
    pages: PagesJson<'a>,
    measured: Option<MeasuredJson<'a>>,
    other_devices: Vec<OtherJson>,
    notes: Vec<NoteJson<'a>>,
}

#[derive(Serialize)]
struct CoresJson {
    usable: usize,
    logical: Option<usize>,
    physical: Option<usize>,
}

#[derive(Serialize)]
struct CacheJson {
    level: u32,
    kind: &'static str,
    bytes: u64,
    shared_by: Option<usize>,
    count: usize,
}

#[derive(Serialize)]
struct MemoryJson {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    limit_bytes: Option<u64>,
}

#[derive(Serialize)]
struct PagesJson<'a> {
    base_bytes: Option<u64>,
    huge_bytes: &'a [u64],
    transparent: Option<&'a str>,
}

#[derive(Serialize)]
struct MeasuredJson<'a> {
    at: &'a str,
    kept: bool,
    clock_ghz: Option<f64>,
    read_bytes: u64,
    reads: &'a [Read],
    peaks: &'a [Peak],
}

#[derive(Serialize)]
struct OtherJson {
    name: &'static str,
    available: bool,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    code: &'static str,
    message: &'a str,
}

/// The object of `bitcost.device/1`.
pub fn json(machine: &Machine) -> impl Serialize + '_ {
    let device = &machine.device;
    MachineJson {
        schema: "bitcost.device/1",
        tool: TOOL,
        processor: device.processor.as_deref(),
        architecture: ARCH,
        features: device.features.as_deref(),
        isas: instruction_sets().map(|isa| isa.name()).collect(),
        cores: CoresJson {
            usable: device.cores,
            logical: device.logical_cores,
            physical: device.physical_cores,
        },
        caches: device.caches.iter().map(cache).collect(),
        memory: MemoryJson {
            total_bytes: device.memory.total_bytes,
            available_bytes: device.memory.available_bytes,
            limit_bytes: device.memory.limit_bytes,
        },
        pages: PagesJson {
            base_bytes: device.pages.base_bytes,
            huge_bytes: &device.pages.huge_bytes,
            transparent: device.pages.transparent.as_deref(),
        },
        measured: machine.known.as_ref().map(|known| MeasuredJson {
            at: &known.measured.at,
            kept: known.kept,
            clock_ghz: known.measured.clock_ghz,
            read_bytes: known.measured.read_bytes,
            reads: &known.measured.reads,
            peaks: &known.measured.peaks,
        }),
        other_devices: OTHERS
            .iter()
            .map(|name| OtherJson {
                name,
                available: false,
            })
            .collect(),
        notes: machine
            .notes
            .iter()
            .map(|(code, message)| NoteJson { code, message })
            .collect(),
    }
}

fn cache(cache: &Cache) -> CacheJson {
    CacheJson {
        level: cache.level,
        kind: cache.kind.name(),
        bytes: cache.bytes,
        shared_by: cache.shared_by,
        count: cache.count,
    }
}

/// What is not told is said to be so.
const UNTOLD: &str = "not told";

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or(UNTOLD.into(), |bytes| units::binary(bytes.into()))
}

/// Facts line by line, then a line for each number of threads.
pub fn table(machine: &Machine) -> String {
    let device = &machine.device;
    let processor = device.processor.as_deref().unwrap_or("processor not told");
    let isas: Vec<&str> = instruction_sets().map(|isa| isa.name()).collect();
    let mut lines = vec![
        format!("{} ({ARCH})", units::visible(processor)),
        String::new(),
    ];
    let mut fact = |name: &str, value: String| lines.push(wrap(&format!("{name:<13} {value}"), 14));
    fact("cores", cores(device));
    fact("instructions", features(device));
    fact("kernels for", isas.join(" "));
    let caches: Vec<String> = device.caches.iter().map(cache_line).collect();
    fact("caches", or_untold(caches.join(", ")));
    fact("memory", memory(device));
    fact("pages", pages(device));
    fact(
        "other devices",
        format!(
            "{}: not available, there are no kernels for them",
            OTHERS.join(", ")
        ),
    );
    if let Some(known) = &machine.known {
        lines.push(String::new());
        lines.extend(measured(known));
    }
    for (code, message) in &machine.notes {
        let note = format!("note [{code}] {}", units::visible(message));
        lines.push(wrap(&note, 9));
    }
    lines.join("\n") + "\n"
}

fn or_untold(text: String) -> String {
    if text.is_empty() { UNTOLD.into() } else { text }
}

fn cores(device: &Device) -> String {
    let count = |count: Option<usize>| count.map_or(UNTOLD.into(), |count| count.to_string());
    format!(
        "{} for this process; logical {}, physical {}",
        device.cores,
        count(device.logical_cores),
        count(device.physical_cores)
    )
}

fn features(device: &Device) -> String {
    match &device.features {
        None => UNTOLD.into(),
        Some(features) if features.is_empty() => "none that matter here".into(),
        Some(features) => features.join(" "),
    }
}

/// `2 x L2 1.000 MiB`, `L3 32.00 MiB unified for 2 cores`.
fn cache_line(cache: &Cache) -> String {
    let count = match cache.count {
        1 => String::new(),
        count => format!("{count} x "),
    };
    let shared = match cache.shared_by {
        Some(cores) if cores > 1 => format!(" for {cores} cores"),
        _ => String::new(),
    };
    format!(
        "{count}L{} {} {}{shared}",
        cache.level,
        cache.kind.name(),
        units::binary(cache.bytes.into())
    )
}

fn memory(device: &Device) -> String {
    let memory = &device.memory;
    let limit = memory.limit_bytes.map_or(String::new(), |limit| {
        format!(", limited to {}", bytes(Some(limit)))
    });
    format!(
        "{}, available {}{limit}",
        bytes(memory.total_bytes),
        bytes(memory.available_bytes)
    )
}

fn pages(device: &Device) -> String {
    let pages = &device.pages;
    let huge: Vec<String> = pages
        .huge_bytes
        .iter()
        .map(|size| bytes(Some(*size)))
        .collect();
    format!(
        "{}; large ones {}; transparent ones {}",
        bytes(pages.base_bytes),
        or_untold(huge.join(", ")),
        units::visible(pages.transparent.as_deref().unwrap_or(UNTOLD))
    )
}

fn measured(known: &Known) -> Vec<String> {
    let Measured {
        at,
        clock_ghz,
        reads,
        peaks,
        ..
    } = &known.measured;
    let when = if known.kept {
        "kept; --remeasure measures again"
    } else {
        "now"
    };
    let clock = clock_ghz.map_or(String::new(), |ghz| format!(", {ghz:.2} GHz"));
    let mut isas: Vec<&str> = Vec::new();
    for peak in peaks {
        if !isas.contains(&&*peak.isa) {
            isas.push(&peak.isa);
        }
    }
    let mut headings = vec!["threads".to_string(), "read GB/s".to_string()];
    headings.extend(isas.iter().map(|isa| format!("{isa} GMAC/s")));
    let rows = reads.iter().map(|read| {
        let mut row = vec![read.threads.to_string(), rate(read.gb_s)];
        row.extend(isas.iter().map(|isa| {
            let of = |peak: &&Peak| peak.isa == *isa && peak.threads == read.threads;
            let found = peaks.iter().find(of);
            found.map_or("-".into(), |peak| rate(peak.gmac_s))
        }));
        row
    });
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    vec![
        format!("measured {at} ({when}){clock}"),
        String::new(),
        grid(&headings, rows.collect(), false),
        String::new(),
        "read: memory, once and in order; GMAC/s: 10^9 products of 8-bit numbers, by the instruction alone".into(),
    ]
}
