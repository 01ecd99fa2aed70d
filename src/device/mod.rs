//! The machine that this runs on, as far as the system tells: its processor, cores, caches, memory and pages.
//!
//! The texts of Linux's `/proc` and `/sys` in, values out. What is not told, on this system or to this process, is not known:
//! nothing is guessed, and nothing is an error.
//!
//! - `processor.rs`: name, instructions, cores
//! - `cache.rs`: caches, and who shares them
//! - `memory.rs`: memory, what limits it, pages

mod cache;
mod memory;
mod processor;

pub use cache::{Cache, CacheKind};
pub use memory::{Memory, Pages};

use std::path::{Path, PathBuf};

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The processor's name.
    pub processor: Option<String>,
    /// Instructions that numbers are computed with, by the system's names.
    pub features: Option<Vec<&'static str>>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Cores that the system counts: threads of the hardware.
    pub logical_cores: Option<usize>,
    /// Cores of their own.
    pub physical_cores: Option<usize>,
    /// Caches, the nearest first.
    pub caches: Vec<Cache>,
    /// Memory.
    pub memory: Memory,
    /// Pages of memory.
    pub pages: Pages,
}

impl Device {
    /// This machine.
    pub fn here() -> Device {
        Device::under(Path::new("/"))
    }

    /// The machine whose `proc` and `sys` lie in a folder.
    pub fn under(root: &Path) -> Device {
        let system = System { root };
        let cpuinfo = system.text("proc/cpuinfo").unwrap_or_default();
        let cpus = system.numbered("sys/devices/system/cpu", "cpu", "");
        let cpus: Vec<PathBuf> = cpus.into_iter().map(|(_, path)| path).collect();
        Device {
            processor: processor::name(&cpuinfo),
            features: processor::features(&cpuinfo),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            logical_cores: processor::logical_cores(&cpuinfo),
            physical_cores: processor::physical_cores(&system, &cpus, &cpuinfo),
            caches: cache::read(&system, &cpus),
            memory: memory::read(&system),
            pages: memory::pages(&system),
        }
    }

    /// Bytes of the largest cache that a core reaches.
    pub fn last_cache_bytes(&self) -> Option<u64> {
        self.caches.iter().map(|cache| cache.bytes).max()
    }
}

/// The texts of a system.
struct System<'a> {
    root: &'a Path,
}

impl System<'_> {
    /// A text of the system; `None` where there is none, or none for this process.
    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// What is called `word`, a number and `ending` in a folder: numbers and paths, in the order of the numbers.
    fn numbered(&self, path: impl AsRef<Path>, word: &str, ending: &str) -> Vec<(u64, PathBuf)> {
        let path = path.as_ref();
        let entries = std::fs::read_dir(self.root.join(path));
        let names = entries.into_iter().flatten();
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let numbered = names.filter_map(|name| {
            let number = name.strip_prefix(word)?.strip_suffix(ending)?;
            Some((number.parse().ok()?, path.join(&name)))
        });
        let mut numbered: Vec<(u64, PathBuf)> = numbered.collect();
        numbered.sort();
        numbered
    }
}
