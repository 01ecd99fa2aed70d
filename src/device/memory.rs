//! Memory: how much there is, how much of it this process may have, on which pages it lies.

use super::System;
use std::path::{Path, PathBuf};

/// Memory of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What can be had without swapping.
    pub available_bytes: Option<u64>,
    /// What the control groups of this process leave it; `None` where they leave it all.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// What this process can count on; `None` where nothing is told.
    pub fn usable_bytes(&self) -> Option<u64> {
        [self.available_bytes, self.limit_bytes]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Pages that memory comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The usual size.
    pub base_bytes: Option<u64>,
    /// Sizes of large ones, the smallest first.
    pub huge_bytes: Vec<u64>,
    /// When the system makes large pages of usual ones: `always`, `madvise` or `never`.
    pub transparent: Option<String>,
}

/// The memory that the system tells of.
pub(super) fn read(system: &System<'_>) -> Memory {
    let meminfo = system.text("proc/meminfo").unwrap_or_default();
    let total_bytes = kilobytes(&meminfo, "MemTotal");
    let groups = system.text("proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter();
    let limit_bytes = limits.filter_map(|file| limit(&system.text(file)?)).min();
    Memory {
        total_bytes,
        available_bytes: kilobytes(&meminfo, "MemAvailable"),
        // The first version writes "no limit" as one that no machine reaches.
        limit_bytes: limit_bytes.filter(|limit| total_bytes.is_none_or(|total| *limit < total)),
    }
}

/// The pages that the system tells of.
pub(super) fn pages(system: &System<'_>) -> Pages {
    let smaps = system.text("proc/self/smaps").unwrap_or_default();
    let huge = system.numbered("sys/kernel/mm/hugepages", "hugepages-", "kB");
    let huge = huge
        .into_iter()
        .filter_map(|(kilobytes, _)| kilobytes.checked_mul(1024));
    let transparent = system.text("sys/kernel/mm/transparent_hugepage/enabled");
    Pages {
        base_bytes: kilobytes(&smaps, "KernelPageSize"),
        huge_bytes: huge.collect(),
        transparent: transparent.and_then(|text| chosen(&text)),
    }
}

/// The first value in kB with this name.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number = value.trim().strip_suffix("kB")?.trim_end();
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// Of `always [madvise] never` the one in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (chosen, _) = rest.split_once(']')?;
    Some(chosen.into())
}

/// Where the limits of a process stand, by its `cgroup` file: those of its own group and of all above it, up to the root,
/// which is all that a container sees of its own.
fn limit_files(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        let above = group
            .ancestors()
            .map(|group| Path::new(mount).join(group).join(file));
        files.extend(above);
    }
    files
}

/// `max` is no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_are_found_by_their_name() {
        let text =
            "MemTotal:       24684092 kB\nMemAvailable:    100 kB\nHugePages_Total:       0\n";
        assert_eq!(kilobytes(text, "MemTotal"), Some(24_684_092 << 10));
        assert_eq!(kilobytes(text, "MemAvailable"), Some(102_400));
        assert_eq!(kilobytes(text, "HugePages_Total"), None);
        assert_eq!(kilobytes(text, "Mem"), None);
        assert_eq!(
            kilobytes("MemTotal: 99999999999999999999 kB", "MemTotal"),
            None
        );
    }

    #[test]
    fn the_chosen_word_stands_in_brackets() {
        assert_eq!(
            chosen("always [madvise] never\n").as_deref(),
            Some("madvise")
        );
        assert_eq!(chosen("[always] madvise never").as_deref(), Some("always"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn limits_stand_in_all_groups_above() {
        let files = |text: &str| -> Vec<String> {
            let files = limit_files(text).into_iter();
            files.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            files("0::/user.slice/app\n"),
            [
                "sys/fs/cgroup/user.slice/app/memory.max",
                "sys/fs/cgroup/user.slice/memory.max",
                "sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(files("0::/\n"), ["sys/fs/cgroup/memory.max"]);
        assert_eq!(
            files("5:devices:/\n4:cpu,memory:/box\n1:name=systemd:/\n"),
            [
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes",
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert_eq!(files("nonsense"), [""; 0]);
    }
}
