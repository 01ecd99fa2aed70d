//! The processor: what it is called, which instructions it has, how many cores.

use super::System;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Instructions that matter to products of small numbers, by the names that Linux gives them: those of x86-64, of aarch64.
const FEATURES: &[&str] = &[
    "ssse3",
    "sse4_1",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512vbmi",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "svei8mm",
    "sme",
    "sme2",
];

/// The value of the first line with this name.
fn field<'t>(cpuinfo: &'t str, name: &str) -> Option<&'t str> {
    cpuinfo.lines().find_map(|line| value(line, name))
}

fn value<'t>(line: &'t str, name: &str) -> Option<&'t str> {
    let (key, value) = line.split_once(':')?;
    (key.trim() == name).then_some(value.trim())
}

/// `model name` is x86's word; aarch64's is a number, and said as it is.
pub(super) fn name(cpuinfo: &str) -> Option<String> {
    let part = || Some(format!("ARM part {}", field(cpuinfo, "CPU part")?));
    field(cpuinfo, "model name").map(String::from).or_else(part)
}

/// x86 has `flags`, aarch64 `Features`.
pub(super) fn features(cpuinfo: &str) -> Option<Vec<&'static str>> {
    let told = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features"))?;
    let told: BTreeSet<&str> = told.split_whitespace().collect();
    let known = FEATURES.iter().copied();
    Some(known.filter(|feature| told.contains(feature)).collect())
}

/// Each has a paragraph.
pub(super) fn logical_cores(cpuinfo: &str) -> Option<usize> {
    let count = cpuinfo.lines().filter_map(|line| value(line, "processor"));
    Some(count.count()).filter(|count| *count > 0)
}

/// Groups of threads that share a core, by the topology, else pairs of package and core as x86 writes them.
pub(super) fn physical_cores(
    system: &System<'_>,
    cpus: &[PathBuf],
    cpuinfo: &str,
) -> Option<usize> {
    let siblings = cpus
        .iter()
        .filter_map(|cpu| system.text(cpu.join("topology/thread_siblings_list")));
    let groups: BTreeSet<String> = siblings.collect();
    if !groups.is_empty() {
        return Some(groups.len());
    }
    let pairs = cpuinfo.split("\n\n").filter_map(|processor| {
        let package = field(processor, "physical id")?;
        Some((package, field(processor, "core id")?))
    });
    let pairs: BTreeSet<(&str, &str)> = pairs.collect();
    Some(pairs.len()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "processor\t: 0\nmodel name\t: AMD EPYC\nphysical id\t: 0\ncore id\t\t: 0\nflags\t\t: fpu avx avx2 fma avx512f avx512_vnni\n\n\
                       processor\t: 1\nmodel name\t: AMD EPYC\nphysical id\t: 0\ncore id\t\t: 0\nflags\t\t: fpu avx avx2 fma avx512f avx512_vnni\n\n";

    const ARM: &str = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes asimdhp asimddp sve i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n";

    #[test]
    fn a_processor_has_the_name_that_the_system_gives_it() {
        assert_eq!(name(X86).as_deref(), Some("AMD EPYC"));
        assert_eq!(name(ARM).as_deref(), Some("ARM part 0xd40"));
        assert_eq!(name(""), None);
    }

    #[test]
    fn instructions_are_found_among_those_that_matter() {
        let x86 = ["avx", "fma", "avx2", "avx512f", "avx512_vnni"];
        assert_eq!(features(X86), Some(x86.to_vec()));
        let arm = ["asimd", "asimdhp", "asimddp", "i8mm", "sve"];
        assert_eq!(features(ARM), Some(arm.to_vec()));
        // No line is not an empty line.
        assert_eq!(features("model name: x"), None);
        assert_eq!(features("flags\t\t: fpu\n"), Some(Vec::new()));
    }

    #[test]
    fn threads_of_a_core_are_one_core() {
        let nowhere = System {
            root: std::path::Path::new("/nowhere"),
        };
        assert_eq!(logical_cores(X86), Some(2));
        assert_eq!(physical_cores(&nowhere, &[], X86), Some(1));
        assert_eq!(logical_cores(ARM), Some(1));
        assert_eq!(physical_cores(&nowhere, &[], ARM), None);
        assert_eq!(logical_cores(""), None);
    }
}
