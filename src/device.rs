//! The machine that this runs on, as far as the system tells: its processor, cores and caches.

use std::path::Path;

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The processor's name.
    pub processor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of the largest cache that a core reaches.
    pub last_cache_bytes: Option<u64>,
}

impl Device {
    /// This machine.
    pub fn here() -> Device {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Device {
            processor: processor(&cpuinfo),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            last_cache_bytes: last_cache(Path::new("/sys/devices/system/cpu/cpu0/cache")),
        }
    }
}

/// `model name` is x86's word; aarch64's is a number, and said as it is.
fn processor(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    field("model name").or_else(|| field("CPU part").map(|part| format!("ARM part {part}")))
}

/// The largest size among the caches of a core, which the system writes as `32768K`.
fn last_cache(folder: &Path) -> Option<u64> {
    let sizes = (0..8).filter_map(|index| {
        let text = std::fs::read_to_string(folder.join(format!("index{index}/size"))).ok()?;
        cache_bytes(text.trim())
    });
    sizes.max()
}

fn cache_bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.strip_suffix('K') {
        Some(number) => (number, 10),
        None => match text.strip_suffix('M') {
            Some(number) => (number, 20),
            None => (text, 0),
        },
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_are_read_as_the_system_writes_them() {
        assert_eq!(cache_bytes("32768K"), Some(32 << 20));
        assert_eq!(cache_bytes("2M"), Some(2 << 20));
        assert_eq!(cache_bytes("4096"), Some(4096));
        assert_eq!(cache_bytes("much"), None);
    }

    #[test]
    fn a_processor_has_the_name_that_the_system_gives_it() {
        let x86 = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: avx2\n";
        assert_eq!(processor(x86).as_deref(), Some("AMD EPYC"));
        assert_eq!(
            processor("CPU part\t: 0xd0c\n").as_deref(),
            Some("ARM part 0xd0c")
        );
        assert_eq!(processor(""), None);
    }
}
