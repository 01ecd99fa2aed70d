//! What this machine reaches at most, measured once and kept: reads of memory, products of bytes, its clock.
//!
//! The probes are those of [`kernels::probe`](crate::kernels::probe); here they become one value that says when and on which
//! processor it was taken. Measuring takes a second or two, so [`known`] keeps the value in a file and takes it from there
//! next time (`kept.rs`).

mod kept;

use crate::device::Device;
use crate::kernels::measure::cold_bytes;
use crate::kernels::probe::{clock_ghz, peak_gmac_s, read_gb_s};
use crate::kernels::{Isa, Pool, available};
use crate::memory::Arena;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// A probe is repeated at least so long: on a machine with other work a moment without it has to come.
const LONG: Duration = Duration::from_millis(200);

/// What a machine reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of which machine, by which bitcost.
    pub key: Key,
    /// When: `2026-11-26T03:10:00Z`.
    pub at: String,
    /// Cycles a nanosecond; `None` where the latency of the instruction is not known.
    pub clock_ghz: Option<f64>,
    /// Bytes that were read. Below four times the last cache, some of them came from it.
    pub read_bytes: u64,
    /// Reads of memory, by threads.
    pub reads: Vec<Read>,
    /// Products of bytes, by instructions and threads.
    pub peaks: Vec<Peak>,
}

/// What makes a measurement that of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The processor's name.
    pub processor: Option<String>,
    /// Cores that were used.
    pub cores: usize,
    /// The version of bitcost, whose probes they are.
    pub version: String,
}

/// A read of memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Threads.
    pub threads: usize,
    /// Bytes a nanosecond, of all of them together.
    pub gb_s: f64,
}

/// An instruction that multiplies bytes, alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// Products a nanosecond, of all of them together.
    pub gmac_s: f64,
}

/// A measurement, and where it is from.
#[derive(Clone, Debug)]
pub struct Known {
    /// What the machine reaches.
    pub measured: Measured,
    /// Whether it was taken before, and kept.
    pub kept: bool,
    /// Why it could not be kept.
    pub unkept: Option<String>,
}

/// What this machine reaches: as it was measured before, if a file in the folder says so, else measured now and kept there.
/// `again` measures in any case. A folder that cannot be written costs time and nothing else.
pub fn known(device: &Device, folder: Option<&Path>, again: bool) -> io::Result<Known> {
    let key = Key::of(device);
    let file = folder.map(|folder| folder.join(key.file_name()));
    let found = file.as_deref().filter(|_| !again);
    if let Some(measured) = found.and_then(|file| kept::read(file, &key)) {
        return Ok(Known {
            measured,
            kept: true,
            unkept: None,
        });
    }
    let measured = Measured::now(device)?;
    let unkept = match &file {
        Some(file) => kept::write(file, &measured).err(),
        None => Some("there is no folder for caches (XDG_CACHE_HOME, HOME)".into()),
    };
    Ok(Known {
        measured,
        kept: false,
        unkept,
    })
}

impl Key {
    /// The key of a machine, for this version.
    fn of(device: &Device) -> Key {
        Key {
            processor: device.processor.clone(),
            cores: device.cores,
            // Without optimization the loops around the probes take longer than what they measure.
            version: match cfg!(debug_assertions) {
                true => concat!(env!("CARGO_PKG_VERSION"), "-debug").into(),
                false => env!("CARGO_PKG_VERSION").into(),
            },
        }
    }
}

impl Measured {
    /// Measures, on an otherwise quiet machine.
    fn now(device: &Device) -> io::Result<Measured> {
        let region = region(device)?;
        let mut reads = Vec::new();
        let mut peaks = Vec::new();
        for threads in numbers_of_threads(device.cores) {
            let pool = Pool::new(threads);
            reads.push(Read {
                threads,
                gb_s: most(|| read_gb_s(region.bytes(), &pool)),
            });
            for isa in instruction_sets() {
                // Not every instruction set multiplies bytes by an instruction of its own.
                if peak_gmac_s(isa, &pool).is_some() {
                    let gmac_s = most(|| peak_gmac_s(isa, &pool).unwrap_or(0.0));
                    let isa = isa.name().into();
                    peaks.push(Peak {
                        isa,
                        threads,
                        gmac_s,
                    });
                }
            }
        }
        Ok(Measured {
            key: Key::of(device),
            at: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            clock_ghz: clock_ghz().map(|_| most(|| clock_ghz().unwrap_or(0.0))),
            read_bytes: region.bytes().len() as u64,
            reads,
            peaks,
        })
    }

    /// Whether several threads made clearly fewer products than one alone, which only other work can cause.
    pub fn is_busy(&self) -> bool {
        let alone = |isa: &str| {
            self.peaks
                .iter()
                .find(|peak| peak.threads == 1 && peak.isa == isa)
        };
        let less = |peak: &Peak| alone(&peak.isa).is_some_and(|one| peak.gmac_s < 0.9 * one.gmac_s);
        self.peaks.iter().any(less)
    }

    /// Bytes a nanosecond that so many threads read: of the most threads that were measured and are not more.
    pub fn read_gb_s(&self, threads: usize) -> Option<f64> {
        let fitting = self
            .reads
            .iter()
            .filter(|read| read.threads <= threads.max(1));
        fitting
            .max_by_key(|read| read.threads)
            .map(|read| read.gb_s)
    }

    /// Products of bytes a nanosecond that so many threads make by an instruction set, in the same way.
    pub fn peak_gmac_s(&self, isa: Isa, threads: usize) -> Option<f64> {
        let fitting = self
            .peaks
            .iter()
            .filter(|peak| peak.isa == isa.name() && peak.threads <= threads.max(1));
        fitting
            .max_by_key(|peak| peak.threads)
            .map(|peak| peak.gmac_s)
    }
}

/// The largest rate that a probe reaches: whatever disturbs it makes it slower, nothing makes it faster.
fn most(rate: impl Fn() -> f64) -> f64 {
    // The first one wakes the threads.
    rate();
    let begun = Instant::now();
    let mut most = rate();
    while begun.elapsed() < LONG {
        most = most.max(rate());
    }
    most
}

/// Memory to read that no cache holds, as far as there is so much: a quarter of what can be had, at most.
fn region(device: &Device) -> io::Result<Arena> {
    let wanted = cold_bytes(device.last_cache_bytes());
    let most = device
        .memory
        .usable_bytes()
        .map_or(wanted, |bytes| bytes / 4);
    let bytes = usize::try_from(wanted.min(most)).unwrap_or(usize::MAX);
    let mut region = Arena::zeroed(bytes)?;
    // Pages that were never written to are all the same one.
    region.bytes_mut().fill(1);
    Ok(region)
}

/// 1, 2, 4 and so on, and all.
fn numbers_of_threads(cores: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1usize), |threads| threads.checked_mul(2));
    let mut numbers: Vec<usize> = doubled.take_while(|threads| *threads < cores).collect();
    numbers.push(cores.max(1));
    numbers
}

/// The instruction sets that kernels of this machine are written for, each once.
pub fn instruction_sets() -> impl Iterator<Item = Isa> {
    let mut isas: Vec<Isa> = Vec::new();
    for kernel in available() {
        if !isas.contains(&kernel.isa) {
            isas.push(kernel.isa);
        }
    }
    isas.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of two cores.
    pub(super) fn measured() -> Measured {
        Measured {
            key: Key {
                processor: Some("AMD EPYC".into()),
                cores: 2,
                version: "0.1.0".into(),
            },
            at: "2026-11-26T03:10:00Z".into(),
            clock_ghz: None,
            read_bytes: 1 << 29,
            reads: vec![
                Read {
                    threads: 1,
                    gb_s: 20.25,
                },
                Read {
                    threads: 2,
                    gb_s: 40.5,
                },
            ],
            peaks: vec![Peak {
                isa: "avx2".into(),
                threads: 1,
                gmac_s: 100.0,
            }],
        }
    }

    #[test]
    fn a_machine_is_busy_if_two_threads_do_less_than_one() {
        let mut measured = measured();
        let with = |threads, gmac_s| Peak {
            isa: "avx2".into(),
            threads,
            gmac_s,
        };
        // Two threads of one core share what it has.
        measured.peaks.push(with(2, 99.0));
        assert!(!measured.is_busy());
        measured.peaks.push(with(4, 60.0));
        assert!(measured.is_busy());
    }

    #[test]
    fn reads_of_more_threads_than_were_measured_are_those_of_the_most() {
        let measured = measured();
        assert_eq!(measured.read_gb_s(1), Some(20.25));
        assert_eq!(measured.read_gb_s(2), Some(40.5));
        assert_eq!(measured.read_gb_s(64), Some(40.5));
        assert_eq!(measured.peak_gmac_s(Isa::Avx2, 2), Some(100.0));
        assert_eq!(measured.peak_gmac_s(Isa::Neon, 1), None);
    }

    #[test]
    fn threads_double_up_to_all() {
        assert_eq!(numbers_of_threads(1), [1]);
        assert_eq!(numbers_of_threads(2), [1, 2]);
        assert_eq!(numbers_of_threads(12), [1, 2, 4, 8, 12]);
        assert_eq!(numbers_of_threads(16), [1, 2, 4, 8, 16]);
    }
}
