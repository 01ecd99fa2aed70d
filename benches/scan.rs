//! How fast the data of a checkpoint is scanned, against reading it: `cargo bench --bench scan`.
//!
//! Writes a file of 2.2 GB with the shapes of a small language model into the temporary folder (which must have room), reads
//! it once so that it is in the page cache, and then alternates reading with `dd`, reading with a loop of this process, and
//! scanning; medians of 5 runs. Anonymous memory is sampled while it scans. `BITCOST_BENCH_GB` makes the file smaller;
//! `BITCOST_BENCH_HOLES_GB` adds a pair of files of holes, each so large, which is scanned and compared.

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
    let gigabytes = number("BITCOST_BENCH_GB").unwrap_or(2.2);
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>7}",
        "", "scan GB/s", "dd", "own loop", "of dd"
    );
    for (name, dtype, kind) in [
        ("BF16, as trained", "BF16", Kind::Random),
        ("BF16, half of it pruned", "BF16", Kind::Pruned),
        ("BF16 of 15 levels", "BF16", Kind::Few),
        ("F32, as trained", "F32", Kind::Random),
        ("F8_E4M3", "F8_E4M3", Kind::Random),
        ("I8", "I8", Kind::Random),
    ] {
        let file = write(
            &folder.join(name.replace([' ', ','], "_")),
            dtype,
            gigabytes,
            kind,
        );
        compare(name, &file, &Wanted::default());
        if kind == Kind::Random {
            let wanted = Wanted {
                moments: true,
                ..Wanted::default()
            };
            compare(&format!("{name}, with moments"), &file, &wanted);
        }
        if dtype == "BF16" && kind == Kind::Pruned {
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

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Random,
    Pruned,
    Few,
}

/// Shapes of a model of 1.1 billion numbers.
fn shapes(bytes_of_number: u64, gigabytes: f64) -> Vec<(String, [u64; 2])> {
    let mut all = vec![("model.embed_tokens.weight".to_string(), [32000, 2048])];
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
            all.push((format!("model.layers.{layer}.{name}.weight"), shape));
            numbers += shape[0] * shape[1];
        }
        if (numbers * bytes_of_number) as f64 >= gigabytes * 1e9 {
            break;
        }
    }
    all
}

fn write(folder: &Path, dtype: &str, gigabytes: f64, kind: Kind) -> PathBuf {
    std::fs::create_dir_all(folder).expect("a folder");
    let size = match dtype {
        "F32" => 4,
        "BF16" => 2,
        _ => 1,
    };
    let shapes = shapes(size, gigabytes);
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in &shapes {
        let end = at + shape[0] * shape[1] * size;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), entry);
        at = end;
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let path = folder.join("model.safetensors");
    let mut out = BufWriter::new(File::create(&path).expect("a file"));
    out.write_all(&(header.len() as u64).to_le_bytes())
        .expect("written");
    out.write_all(&header).expect("written");
    // A megabyte of numbers, again and again from another place.
    let mut state = 1u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let piece: Vec<u8> = (0..(2 << 20) / size)
        .flat_map(|_| {
            let bits = next();
            let sum: f32 = (0..4)
                .map(|i| (bits >> (16 * i) & 0xffff) as f32 / 65536.0 - 0.5)
                .sum();
            let number = match kind {
                Kind::Random => sum * 0.05,
                Kind::Pruned if bits % 2 == 0 => 0.0,
                Kind::Pruned => sum * 0.05,
                Kind::Few => (sum * 7.0).round() / 7.0,
            };
            match dtype {
                "F32" => number.to_le_bytes().to_vec(),
                "BF16" => ((number.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
                _ => vec![(bits >> 56) as u8 & 0xbf],
            }
        })
        .collect();
    let mut left = at as usize;
    while left > 0 {
        let begin = (next() % (1 << 19)) as usize / 8 * 8;
        let here = left.min(1 << 20);
        out.write_all(&piece[begin..begin + here]).expect("written");
        left -= here;
    }
    out.flush().expect("written");
    path
}

fn open(file: &Path) -> (Checkpoint, Weights) {
    let files = Folder::of_file(file).expect("a file");
    let checkpoint = Checkpoint::open(&files)
        .expect("readable")
        .expect("weights");
    let weights = weights(&checkpoint, &Settings::default());
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

fn compare(name: &str, file: &Path, wanted: &Wanted) {
    let bytes = std::fs::metadata(file).expect("a file").len() as f64;
    let (mut scans, mut dds, mut loops) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    dd(file);
    for _ in 0..RUNS {
        dds.push(seconds(|| dd(file)));
        loops.push(seconds(|| own_loop(file)));
        let mut took = 0.0;
        peak = peak.max(anonymous_while(|| took = seconds(|| scan(file, wanted))));
        scans.push(took);
    }
    let (scan, dd, own) = (median(scans), median(dds), median(loops));
    let speed = |seconds: f64| bytes / seconds / 1e9;
    println!(
        "{name:34} {:>9.2} {:>9.2} {:>9.2} {:>7.2}   {:.1} MB anonymous",
        speed(scan),
        speed(dd),
        speed(own),
        dd / scan,
        peak as f64 / 1e6,
    );
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
        for (name, shape) in shapes(2, gigabytes) {
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
