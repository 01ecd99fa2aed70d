//! The caches of all cores, each kind once.

use super::System;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Equal caches of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Bytes of one of them.
    pub bytes: u64,
    /// Logical cores that share one; `None` where that is not told.
    pub shared_by: Option<usize>,
    /// How many there are.
    pub count: usize,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

impl CacheKind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            CacheKind::Data => "data",
            CacheKind::Instruction => "instruction",
            CacheKind::Unified => "unified",
        }
    }
}

/// The caches that the folders of the logical cores tell of.
pub(super) fn read(system: &System<'_>, cpus: &[PathBuf]) -> Vec<Cache> {
    // The cores of a shared cache tell of it each; what they say of who shares it makes it one.
    let mut told = BTreeSet::new();
    for cpu in cpus {
        for (_, index) in system.numbered(cpu.join("cache"), "index", "") {
            let text = |name: &str| Some(system.text(index.join(name))?.trim().to_string());
            let cache = || {
                let level: u32 = text("level")?.parse().ok()?;
                let kind = kind(&text("type")?)?;
                let bytes = bytes(&text("size")?)?;
                let sharers = text("shared_cpu_list").unwrap_or_default();
                let own = sharers.is_empty().then(|| cpu.clone());
                Some((level, kind, bytes, sharers, own))
            };
            told.extend(cache());
        }
    }
    let mut caches: Vec<Cache> = Vec::new();
    for (level, kind, bytes, sharers, _) in told {
        let cache = Cache {
            level,
            kind,
            bytes,
            shared_by: cores(&sharers),
            count: 1,
        };
        let equal = |known: &&mut Cache| {
            Cache {
                count: 1,
                ..(**known).clone()
            } == cache
        };
        match caches.iter_mut().find(equal) {
            Some(known) => known.count += 1,
            None => caches.push(cache),
        }
    }
    caches
}

fn kind(text: &str) -> Option<CacheKind> {
    match text {
        "Data" => Some(CacheKind::Data),
        "Instruction" => Some(CacheKind::Instruction),
        "Unified" => Some(CacheKind::Unified),
        _ => None,
    }
}

/// Bytes of a cache, which the system writes as `32768K`.
fn bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix('K') {
        Some(number) => (number, 10),
        None => match text.strip_suffix('M') {
            Some(number) => (number, 20),
            None => (text, 0),
        },
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// How many cores a list such as `0-3,8` has.
fn cores(list: &str) -> Option<usize> {
    let mut count = 0usize;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_are_read_as_the_system_writes_them() {
        assert_eq!(bytes("32768K"), Some(32 << 20));
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("much"), None);
        assert_eq!(bytes("99999999999999999999M"), None);
    }

    #[test]
    fn cores_of_a_list_are_counted() {
        assert_eq!(cores("0"), Some(1));
        assert_eq!(cores("0-3,8,10-11"), Some(7));
        assert_eq!(cores(""), None);
        assert_eq!(cores("3-1"), None);
        assert_eq!(cores(&format!("0-{}", usize::MAX)), None);
    }
}
