//! `bitcost device`: what the system tells is read from its own texts, what is measured is kept, and nothing that is missing
//! is an error.

mod common;

use bitcost::device::{Cache, CacheKind, Device, Memory, Pages};
use common::schema::output_conforms;
use common::{Folder, Ran, TIME_LIMIT, at, int, list, parse, program, wait};
use std::path::Path;

/// A system's files: paths and texts.
fn machine(files: &[(&str, &str)]) -> Device {
    let root = Folder::new();
    for (path, text) in files {
        let path = root.path().join(path);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("a fresh folder can be written");
        std::fs::write(path, text).expect("a fresh file can be written");
    }
    Device::under(root.path())
}

/// The four files of a cache.
macro_rules! cache {
    ($cpu:literal, $index:literal, $level:literal, $kind:literal, $size:literal, $shared:literal) => {
        [
            (
                concat!(
                    "sys/devices/system/cpu/cpu",
                    $cpu,
                    "/cache/index",
                    $index,
                    "/level"
                ),
                $level,
            ),
            (
                concat!(
                    "sys/devices/system/cpu/cpu",
                    $cpu,
                    "/cache/index",
                    $index,
                    "/type"
                ),
                $kind,
            ),
            (
                concat!(
                    "sys/devices/system/cpu/cpu",
                    $cpu,
                    "/cache/index",
                    $index,
                    "/size"
                ),
                $size,
            ),
            (
                concat!(
                    "sys/devices/system/cpu/cpu",
                    $cpu,
                    "/cache/index",
                    $index,
                    "/shared_cpu_list"
                ),
                $shared,
            ),
        ]
    };
}

#[test]
fn a_machine_of_x86_is_read_from_its_texts() {
    let caches = [
        cache!("0", "0", "1\n", "Data\n", "48K\n", "0-1\n"),
        cache!("0", "1", "1\n", "Instruction\n", "32K\n", "0-1\n"),
        cache!("0", "2", "2\n", "Unified\n", "2048K\n", "0-1\n"),
        cache!("0", "3", "3\n", "Unified\n", "32768K\n", "0-3\n"),
        cache!("1", "0", "1\n", "Data\n", "48K\n", "0-1\n"),
        cache!("1", "3", "3\n", "Unified\n", "32768K\n", "0-3\n"),
        cache!("2", "0", "1\n", "Data\n", "48K\n", "2-3\n"),
        cache!("2", "3", "3\n", "Unified\n", "32768K\n", "0-3\n"),
        // A kind that nobody has heard of, and a size that is none.
        cache!("2", "4", "4\n", "Trace\n", "12K\n", "2\n"),
        cache!("2", "5", "4\n", "Unified\n", "large\n", "2\n"),
    ];
    let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.60GHz\nflags\t\t: fpu sse4_1 avx avx2 fma avx512f avx_vnni amx_int8 ht\n\n\
                   processor\t: 1\n\nprocessor\t: 2\n\nprocessor\t: 3\n\n";
    let mut files = vec![
        ("proc/cpuinfo", cpuinfo),
        (
            "proc/meminfo",
            "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   12000000 kB\n",
        ),
        ("proc/self/cgroup", "0::/app.slice/run\n"),
        ("sys/fs/cgroup/app.slice/run/memory.max", "max\n"),
        ("sys/fs/cgroup/app.slice/memory.max", "4294967296\n"),
        ("sys/fs/cgroup/memory.max", "8589934592\n"),
        (
            "proc/self/smaps",
            "00400000-00401000 r-xp 0 00:00 0\nSize:  4 kB\nKernelPageSize:        4 kB\nMMUPageSize: 4 kB\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
            "0\n",
        ),
        (
            "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
            "0\n",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always [madvise] never\n",
        ),
        (
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
            "0-1\n",
        ),
        (
            "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
            "0-1\n",
        ),
        (
            "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
            "2-3\n",
        ),
        ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
    ];
    files.extend(caches.iter().flatten());
    let device = machine(&files);
    assert_eq!(device.processor.as_deref(), Some("Some CPU @ 2.60GHz"));
    let features = [
        "sse4_1", "avx", "fma", "avx2", "avx_vnni", "avx512f", "amx_int8",
    ];
    assert_eq!(device.features, Some(features.to_vec()));
    assert_eq!(
        (device.logical_cores, device.physical_cores),
        (Some(4), Some(2))
    );
    let cache = |level, kind, bytes, shared_by, count| Cache {
        level,
        kind,
        bytes,
        shared_by: Some(shared_by),
        count,
    };
    assert_eq!(
        device.caches,
        [
            cache(1, CacheKind::Data, 48 << 10, 2, 2),
            cache(1, CacheKind::Instruction, 32 << 10, 2, 1),
            cache(2, CacheKind::Unified, 2 << 20, 2, 1),
            cache(3, CacheKind::Unified, 32 << 20, 4, 1),
        ]
    );
    assert_eq!(device.last_cache_bytes(), Some(32 << 20));
    assert_eq!(
        device.memory,
        Memory {
            total_bytes: Some(16_000_000 << 10),
            available_bytes: Some(12_000_000 << 10),
            limit_bytes: Some(4 << 30),
        }
    );
    assert_eq!(device.memory.usable_bytes(), Some(4 << 30));
    assert_eq!(
        device.pages,
        Pages {
            base_bytes: Some(4096),
            huge_bytes: vec![2 << 20, 1 << 30],
            transparent: Some("madvise".into()),
        }
    );
}

#[test]
fn a_machine_of_aarch64_is_read_from_its_texts() {
    let cpuinfo = "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd evtstrm aes atomics asimdhp asimddp sve i8mm bf16\n\
                   CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\n\nprocessor\t: 1\n\n";
    let own = cache!("0", "0", "1\n", "Data\n", "64K\n", "");
    let other = cache!("1", "0", "1\n", "Data\n", "64K\n", "");
    let mut files = vec![
        ("proc/cpuinfo", cpuinfo),
        ("proc/meminfo", "MemTotal: 8000000 kB\n"),
        ("proc/self/cgroup", "9:cpu:/\n4:memory:/box\n0::/\n"),
        (
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
        ("proc/self/smaps", "KernelPageSize:       64 kB\n"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never\n",
        ),
    ];
    files.extend(
        own.iter()
            .chain(&other)
            .filter(|(_, text)| !text.is_empty()),
    );
    let device = machine(&files);
    assert_eq!(device.processor.as_deref(), Some("ARM part 0xd40"));
    let features = ["asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"];
    assert_eq!(device.features, Some(features.to_vec()));
    assert_eq!(
        (device.logical_cores, device.physical_cores),
        (Some(2), None)
    );
    // Who shares a cache is not told, so each core's is its own.
    let cache = Cache {
        level: 1,
        kind: CacheKind::Data,
        bytes: 64 << 10,
        shared_by: None,
        count: 2,
    };
    assert_eq!(device.caches, [cache]);
    assert_eq!(device.memory.limit_bytes, Some(1 << 30));
    assert_eq!(device.pages.base_bytes, Some(64 << 10));
    assert_eq!(device.pages.transparent.as_deref(), Some("always"));
}

#[test]
fn a_limit_beyond_the_machine_is_none() {
    let device = machine(&[
        ("proc/meminfo", "MemTotal: 8000000 kB\n"),
        ("proc/self/cgroup", "4:memory:/\n"),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
    ]);
    assert_eq!(device.memory.limit_bytes, None);
}

#[test]
fn what_is_not_told_is_not_known() {
    let nothing = Device::under(Path::new("/nowhere/at/all"));
    let known = Device {
        cores: nothing.cores,
        ..Device::default()
    };
    assert!(nothing.cores > 0);
    assert_eq!(nothing, known);
    // Texts that make no sense tell nothing.
    let nonsense = machine(&[
        ("proc/cpuinfo", ":::\n\n\u{1f642}"),
        ("proc/meminfo", "MemTotal: many kB\nMemAvailable\n"),
        ("proc/self/cgroup", "x\n0::\n::::\n"),
        ("sys/fs/cgroup/memory.max", "-1\n"),
        (
            "sys/kernel/mm/hugepages/hugepages-99999999999999999999kB/x",
            "",
        ),
        ("sys/kernel/mm/transparent_hugepage/enabled", "]["),
        ("sys/devices/system/cpu/cpu0/cache/index0/level", "first"),
    ]);
    assert_eq!(nonsense, known);
}

/// The command, with this for its folder of caches.
fn device(caches: Option<&str>, args: &[&str]) -> Ran {
    let mut command = program(&[&["device"], args].concat());
    for name in ["XDG_CACHE_HOME", "HOME", "USERPROFILE"] {
        command.env_remove(name);
    }
    if let Some(caches) = caches {
        command.env("XDG_CACHE_HOME", caches);
    }
    wait(command, TIME_LIMIT)
}

#[track_caller]
fn json(caches: Option<&str>, args: &[&str]) -> bitcost::value::Value {
    let ran = device(caches, &[args, &["--format", "json"]].concat());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    output_conforms("device", &ran.out);
    parse(&ran.out)
}

fn codes(report: &bitcost::value::Value) -> Vec<String> {
    let notes = list(report, "notes");
    let codes = notes
        .iter()
        .map(|note| at(note, "code").as_str().map(String::from));
    codes.map(|code| code.expect("a code")).collect()
}

#[test]
fn what_is_measured_is_kept_until_it_is_asked_for_again() {
    let folder = Folder::new();
    let caches = folder.file("caches");
    let measured = |report: &bitcost::value::Value| at(report, "measured");
    let kept = |report: &bitcost::value::Value| at(report, "measured.kept").truth();

    let first = json(Some(&caches), &[]);
    assert!(!kept(&first));
    assert!(!codes(&first).contains(&"not_kept".to_string()));
    let own = std::fs::read_dir(folder.path().join("caches/bitcost")).expect("a folder");
    let files: Vec<_> = own.map(|entry| entry.expect("an entry").path()).collect();
    let [file] = files.as_slice() else {
        panic!("one file and no draft of it: {files:?}")
    };

    // One thread, two, and so on to all; each instruction set for all of these.
    let reads = list(&measured(&first), "reads");
    let cores = int(&first, "cores.usable");
    assert_eq!(int(&reads[0], "threads"), 1);
    assert_eq!(int(reads.last().expect("reads"), "threads"), cores);
    let peaks = list(&measured(&first), "peaks").len();
    assert!(
        peaks.is_multiple_of(reads.len()),
        "{peaks} peaks, {} reads",
        reads.len()
    );

    let second = json(Some(&caches), &[]);
    assert!(kept(&second));
    for same in ["at", "reads", "peaks", "clock_ghz", "read_bytes"] {
        assert_eq!(
            at(&measured(&first), same),
            at(&measured(&second), same),
            "{same}"
        );
    }
    let table = device(Some(&caches), &[]);
    assert_eq!(table.code, Some(0));
    let when = at(&second, "measured.at");
    let when = when.as_str().expect("a date");
    assert!(
        table.out.contains(&format!("measured {when} (kept;")),
        "{}",
        table.out
    );
    assert!(
        table
            .out
            .contains("cuda, rocm, metal, vulkan: not available"),
        "{}",
        table.out
    );
    assert!(
        table.out.lines().all(|line| line.chars().count() <= 100),
        "{}",
        table.out
    );

    // A date of long ago is told until it is measured again.
    let text = std::fs::read_to_string(file).expect("a file");
    std::fs::write(file, text.replace(when, "2001-01-01T00:00:00Z")).expect("its own file");
    assert_eq!(
        at(&json(Some(&caches), &[]), "measured.at").as_str(),
        Some("2001-01-01T00:00:00Z")
    );
    let again = json(Some(&caches), &["--remeasure"]);
    assert!(!kept(&again));
    assert_ne!(
        at(&again, "measured.at").as_str(),
        Some("2001-01-01T00:00:00Z")
    );
    assert!(kept(&json(Some(&caches), &[])));
}

#[test]
fn a_folder_that_cannot_be_written_costs_a_note() {
    let folder = Folder::new();
    // Nobody can make a folder below a file, root included.
    let file = folder.write("file", "");
    let report = json(Some(&file), &[]);
    assert!(!at(&report, "measured.kept").truth());
    assert!(codes(&report).contains(&"not_kept".to_string()));

    let table = device(None, &[]);
    assert_eq!((table.code, table.err.as_str()), (Some(0), ""));
    assert!(
        table
            .out
            .contains("note [not_kept] there is no folder for caches"),
        "{}",
        table.out
    );
}
