//! How fast the data of a checkpoint is scanned, against reading it: `cargo bench --bench scan`.
//!
//! Writes a file of 2.2 GB with the shapes of a small language model into the temporary folder (which must have room), and
//! smaller ones of every kind of number. Each is read once so that it is in the page cache; then reading with `dd`, reading
//! with a loop of this process, scanning, and scanning with moments alternate; medians of 5 runs. Anonymous memory is sampled
//! while it scans. `BITCOST_BENCH_GB` makes the large file smaller; `BITCOST_BENCH_HOLES_GB` adds a pair of files of holes,
//! each so large, which is scanned and compared.

#![allow(clippy::print_stdout)]

use bitcost::checkpoint::Checkpoint;
use bitcost::checkpoint::packed::{Settings, Weights, weights};
use bitcost::checkpoint::scan::{Wanted, statistics, weight_error, zero_kinds};
use bitcost::source::Folder;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RUNS: usize = 5;

fn main() {
    let folder = std::env::temp_dir().join(format!("bitcost-scan-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let large = number("BITCOST_BENCH_GB").unwrap_or(2.2);
    let small = large.min(0.4);
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>7}",
        "", "scan GB/s", "dd", "own loop", "of dd"
    );
    for (name, gigabytes, tensors) in [
        ("BF16, as trained", large, plain("BF16", Fill::Normal)),
        (
            "BF16, half of it pruned",
            small,
            plain("BF16", Fill::Pruned),
        ),
        ("BF16 of 15 levels", small, plain("BF16", Fill::Few)),
        ("F16, as trained", small, plain("F16", Fill::Normal)),
        ("F32, as trained", small, plain("F32", Fill::Normal)),
        ("F32 of 15 levels", small, plain("F32", Fill::Few)),
        ("F8_E4M3", small, plain("F8_E4M3", Fill::Small)),
        ("F8_E5M2", small, plain("F8_E5M2", Fill::Small)),
        ("I8", small, plain("I8", Fill::Bits)),
        ("U8", small, plain("U8", Fill::Bits)),
        ("gptq int4 g128", small, GPTQ),
        ("pack-quantized int4 g128", small, PACK_QUANTIZED),
        ("mxfp4", small, MXFP4),
        ("bitnet", small, BITNET),
    ] {
        let file = write(
            &folder.join(name.replace([' ', ','], "_")),
            tensors,
            gigabytes,
        );
        compare(name, &file);
        if name.ends_with("pruned") {
            apart(&file);
        }
        std::fs::remove_dir_all(file.parent().expect("a folder")).expect("removed");
    }
    if let Some(gigabytes) = number("BITCOST_BENCH_HOLES_GB") {
        holes(&folder.join("holes"), gigabytes);
    }
    tiny(&folder.join("tiny"));
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// A number of the environment.
fn number(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What the numbers of a tensor are.
#[derive(Clone, Copy)]
enum Fill {
    /// Floats as they are trained.
    Normal,
    /// Half of them 0.
    Pruned,
    /// Of 15 levels.
    Few,
    /// Any bits.
    Bits,
    /// Bytes that are no number of eight bits that is not finite.
    Small,
    /// Bytes of four ternary codes.
    Ternary,
    /// Positive floats.
    Scales,
    /// Powers of two around 1/64.
    Exponents,
}

/// A tensor of a weight: the end of its name, its dtype, its shape from the weight's, and its numbers.
type Part = (&'static str, &'static str, fn([u64; 2]) -> [u64; 2], Fill);

fn plain(dtype: &'static str, fill: Fill) -> &'static [Part] {
    vec![("weight", dtype, same as fn([u64; 2]) -> [u64; 2], fill)].leak()
}

fn same(shape: [u64; 2]) -> [u64; 2] {
    shape
}

const GPTQ: &[Part] = &[
    ("qweight", "I32", |[n, k]| [k / 8, n], Fill::Bits),
    ("qzeros", "I32", |[n, k]| [k / 128, n / 8], Fill::Bits),
    ("scales", "F16", |[n, k]| [k / 128, n], Fill::Scales),
];
const PACK_QUANTIZED: &[Part] = &[
    ("weight_packed", "I32", |[n, k]| [n, k / 8], Fill::Bits),
    ("weight_scale", "BF16", |[n, k]| [n, k / 128], Fill::Scales),
    // Of words of zero points the width of codes is known.
    (
        "weight_zero_point",
        "I32",
        |[n, k]| [n / 8, k / 128],
        Fill::Bits,
    ),
];
const MXFP4: &[Part] = &[
    ("weight_packed", "U8", |[n, k]| [n, k / 2], Fill::Bits),
    ("weight_scale", "U8", |[n, k]| [n, k / 32], Fill::Exponents),
];
const BITNET: &[Part] = &[
    ("weight", "U8", |[n, k]| [n / 4, k], Fill::Ternary),
    ("weight_scale", "BF16", |_| [1, 1], Fill::Scales),
];

/// Shapes of a model of 1.1 billion numbers.
fn shapes(bits_of_number: f64, gigabytes: f64) -> Vec<(String, [u64; 2])> {
    let mut all = vec![("model.embed_tokens".to_string(), [32000, 2048])];
    let mut numbers = 32000 * 2048;
    for layer in 0.. {
        for (name, shape) in [
            ("mlp.down_proj", [2048, 5632]),
            ("mlp.gate_proj", [5632, 2048]),
            ("mlp.up_proj", [5632, 2048]),
            ("self_attn.k_proj", [256, 2048]),
            ("self_attn.o_proj", [2048, 2048]),
            ("self_attn.q_proj", [2048, 2048]),
            ("self_attn.v_proj", [256, 2048]),
        ] {
            all.push((format!("model.layers.{layer}.{name}"), shape));
            numbers += shape[0] * shape[1];
        }
        if numbers as f64 * bits_of_number / 8.0 >= gigabytes * 1e9 {
            break;
        }
    }
    all
}

fn size(dtype: &str) -> u64 {
    match dtype {
        "F32" | "I32" => 4,
        "BF16" | "F16" => 2,
        _ => 1,
    }
}

fn write(folder: &Path, parts: &[Part], gigabytes: f64) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let bytes = parts.iter().map(|(_, dtype, shape, _)| {
        let [rows, columns] = shape([1024, 1024]);
        rows * columns * size(dtype)
    });
    let bits = bytes.sum::<u64>() as f64 * 8.0 / f64::from(1 << 20);
    let mut header = serde_json::Map::new();
    let mut lengths = Vec::new();
    let mut at = 0;
    for (name, shape) in shapes(bits, gigabytes) {
        for (end, dtype, of, _) in parts {
            let shape = of(shape);
            let end_at = at + shape[0] * shape[1] * size(dtype);
            let entry =
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end_at]});
            header.insert(format!("{name}.{end}"), entry);
            lengths.push(end_at - at);
            at = end_at;
        }
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let path = folder.join("model.safetensors");
    let mut out = BufWriter::new(File::create(&path).expect("a file"));
    out.write_all(&(header.len() as u64).to_le_bytes())
        .expect("written");
    out.write_all(&header).expect("written");
    // A megabyte of numbers, again and again from another place.
    let mut state = 1u64;
    let pieces: Vec<Vec<u8>> = parts
        .iter()
        .map(|(_, dtype, _, fill)| piece(dtype, *fill, &mut state))
        .collect();
    for (bytes, piece) in lengths.into_iter().zip(pieces.iter().cycle()) {
        let mut left = bytes as usize;
        while left > 0 {
            let begin = (next(&mut state) % (1 << 19)) as usize / 8 * 8;
            let here = left.min(1 << 20);
            out.write_all(&piece[begin..begin + here]).expect("written");
            left -= here;
        }
    }
    out.flush().expect("written");
    path
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Two megabytes of numbers of a dtype.
fn piece(dtype: &str, fill: Fill, state: &mut u64) -> Vec<u8> {
    let size = size(dtype) as usize;
    (0..(2 << 20) / size)
        .flat_map(|_| {
            let bits = next(state);
            let parts = (0..4).map(|i| (bits >> (16 * i) & 0xffff) as f32 / 65536.0 - 0.5);
            let sum: f32 = parts.sum();
            let byte = (bits >> 56) as u8;
            let number = match fill {
                Fill::Normal => sum * 0.05,
                Fill::Pruned if bits & 1 == 0 => 0.0,
                Fill::Pruned => sum * 0.05,
                Fill::Few => (sum * 7.0).round() / 7.0,
                Fill::Scales => 0.01 + sum.abs() * 0.01,
                Fill::Exponents => return vec![119 + byte % 5],
                Fill::Small => return vec![byte & 0xbf],
                Fill::Ternary => {
                    let codes = (0..4).map(|i| ((bits >> (16 * i)) as u8 % 3) << (2 * i));
                    return vec![codes.sum()];
                }
                Fill::Bits => return bits.to_le_bytes()[8 - size..].to_vec(),
            };
            match dtype {
                "F32" => number.to_le_bytes().to_vec(),
                "BF16" => ((number.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
                _ => half(number).to_le_bytes().to_vec(),
            }
        })
        .collect()
}

/// A half that is not rounded; what is too small for a normal one is 0.
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    match (bits >> 13 & 0x3_ffff).checked_sub(112 << 10) {
        Some(magnitude) if magnitude >= 1 << 10 => sign | magnitude as u16,
        _ => sign,
    }
}

fn open(file: &Path) -> (Checkpoint, Weights) {
    let files = Folder::of_file(file).expect("a file");
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    let weights = weights(&checkpoint, &Settings::default());
    assert!(weights.notes.is_empty(), "{:?}", weights.notes);
    (checkpoint, weights)
}

fn scan(file: &Path, wanted: &Wanted) -> u64 {
    let (checkpoint, weights) = open(file);
    let all = weights.weights.iter();
    all.map(|weight| {
        let found = statistics(&checkpoint, weight, wanted).expect("readable");
        found.expect("its numbers are known").nnz
    })
    .sum()
}

/// Seconds of a call.
fn seconds<T>(call: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(call());
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Reads and scans a file in turns; a line without moments and one with them.
fn compare(name: &str, file: &Path) {
    let bytes = std::fs::metadata(file).expect("a file").len() as f64;
    let (mut dds, mut loops) = (Vec::new(), Vec::new());
    let mut scans = [false, true].map(|moments| {
        let wanted = Wanted {
            moments,
            ..Wanted::default()
        };
        (wanted, Vec::new(), 0)
    });
    dd(file);
    for _ in 0..RUNS {
        dds.push(seconds(|| dd(file)));
        loops.push(seconds(|| own_loop(file)));
        for (wanted, times, peak) in &mut scans {
            let mut took = 0.0;
            let most = anonymous_while(|| took = seconds(|| scan(file, wanted)));
            *peak = most.max(*peak);
            times.push(took);
        }
    }
    let (dd, own) = (median(dds), median(loops));
    let speed = |seconds: f64| bytes / seconds / 1e9;
    for (wanted, times, peak) in scans {
        let scan = median(times);
        let name = if wanted.moments {
            "  with moments"
        } else {
            name
        };
        println!(
            "{name:34} {:>9.2} {:>9.2} {:>9.2} {:>7.2}   {:.1} MB anonymous",
            speed(scan),
            speed(dd),
            speed(own),
            dd / scan,
            peak as f64 / 1e6,
        );
    }
}

fn dd(file: &Path) {
    let status = Command::new("dd")
        .arg(format!("if={}", file.display()))
        .args(["of=/dev/null", "bs=4M"])
        .stderr(Stdio::null())
        .status()
        .expect("dd runs");
    assert!(status.success());
}

fn own_loop(file: &Path) -> u64 {
    let mut file = File::open(file).expect("a file");
    let mut buffer = vec![0; 4 << 20];
    let mut sum = 0;
    while let Ok(read) = file.read(&mut buffer) {
        if read == 0 {
            break;
        }
        sum += u64::from(buffer[0]);
    }
    sum
}

/// Most anonymous memory while something runs, as Linux tells it.
fn anonymous_while(call: impl FnOnce()) -> u64 {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(anonymous().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        call();
        done.store(true, Ordering::Relaxed);
    });
    most.into_inner()
}

fn anonymous() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A weight's error against itself, which reads it twice.
fn apart(file: &Path) {
    let (checkpoint, weights) = open(file);
    let bytes: u64 = weights.weights.iter().map(|w| w.bytes).sum();
    let took = median(
        (0..RUNS)
            .map(|_| {
                seconds(|| {
                    for weight in &weights.weights {
                        let side = (&checkpoint, weight);
                        weight_error(side, side).expect("readable");
                    }
                })
            })
            .collect(),
    );
    println!(
        "{:34} {:>9.2} GB/s of the base",
        "  error against a base",
        bytes as f64 / took / 1e9
    );
}

/// A pair of files of holes: statistics of one, error and zeros of one against the other.
fn holes(folder: &Path, gigabytes: f64) {
    let sides = ["base", "other"].map(|side| {
        let folder = folder.join(side);
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut header = serde_json::Map::new();
        let mut at = 0;
        for (name, shape) in shapes(16.0, gigabytes) {
            let end = at + shape[0] * shape[1] * 2;
            let entry =
                serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, end]});
            header.insert(name, entry);
            at = end;
        }
        let header = serde_json::to_vec(&header).expect("JSON");
        let path = folder.join("model.safetensors");
        let mut file = File::create(&path).expect("a file");
        file.write_all(&(header.len() as u64).to_le_bytes())
            .expect("written");
        file.write_all(&header).expect("written");
        file.set_len(8 + header.len() as u64 + at).expect("holes");
        open(&path)
    });
    let [(base, base_weights), (other, other_weights)] = &sides;
    let mut took = 0.0;
    let peak = anonymous_while(|| {
        took = seconds(|| {
            for (of_base, of_other) in base_weights.weights.iter().zip(&other_weights.weights) {
                let (left, right) = ((base, of_base), (other, of_other));
                statistics(other, of_other, &Wanted::default()).expect("readable");
                weight_error(left, right).expect("readable");
                zero_kinds(left, right).expect("readable");
            }
        });
    });
    println!(
        "{:34} {:>9.1} s   {:.1} MB anonymous",
        format!("a pair of {gigabytes} GB of holes"),
        took,
        peak as f64 / 1e6
    );
}

/// A hundred thousand tensors of 64 numbers.
fn tiny(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut header = serde_json::Map::new();
    for i in 0..100_000u64 {
        let range = [i * 128, (i + 1) * 128];
        let entry = serde_json::json!({"dtype": "BF16", "shape": [8, 8], "data_offsets": range});
        header.insert(format!("layers.{i}.weight"), entry);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + 100_000 * 128, 7);
    let path = folder.join("model.safetensors");
    std::fs::write(&path, file).expect("written");
    let (checkpoint, weights) = open(&path);
    let took = median(
        (0..RUNS)
            .map(|_| {
                seconds(|| {
                    for weight in &weights.weights {
                        statistics(&checkpoint, weight, &Wanted::default()).expect("readable");
                    }
                })
            })
            .collect(),
    );
    println!("{:34} {:>9.0} ms", "100,000 tiny tensors", took * 1e3);
    // The whole program, report and all; the second file is the first, which saves no work.
    let other = folder.join("other.safetensors");
    std::fs::copy(&path, &other).expect("copied");
    let out = folder.join("out");
    let (path, other, out) = (path.as_os_str(), other.as_os_str(), out.as_os_str());
    let compare: Vec<&OsStr> = ["compare", "--graph", "none", "-o"].map(OsStr::new).into();
    let stats: Vec<&OsStr> = ["stats", "-o"].map(OsStr::new).into();
    for (name, args) in [
        (
            "  bitcost compare, the table",
            [&compare[..], &[out, path, other]].concat(),
        ),
        ("  bitcost stats", [&stats[..], &[out, path]].concat()),
    ] {
        let run = || {
            let status = Command::new(env!("CARGO_BIN_EXE_bitcost"))
                .args(&args)
                .status();
            assert!(status.expect("the program runs").success());
        };
        let took = median((0..RUNS).map(|_| seconds(run)).collect());
        println!("{name:34} {:>9.0} ms", took * 1e3);
    }
}
