//! Why memory cannot be had.

use crate::units::binary;

/// Why memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A request beyond what the pool may take, such as 2 GiB of a pool of 1 GiB.
    #[error(
        "{} for {tag} cannot be had: the pool may take {} and has taken {}; raise its limit, or take less",
        binary(*needed as u128), binary(*limit as u128), binary(*taken as u128)
    )]
    Limit {
        /// Bytes that were needed.
        needed: u64,
        /// What they were for.
        tag: &'static str,
        /// What the pool may take of the system.
        limit: u64,
        /// What it has taken.
        taken: u64,
    },
    /// A request that the machine has no memory for.
    #[error(
        "{} for {tag} cannot be had: {}; take less, or free memory", size(*needed), there_is(*available)
    )]
    System {
        /// Bytes that were needed.
        needed: u64,
        /// What they were for.
        tag: &'static str,
        /// What the machine has left, as far as it tells.
        available: Option<u64>,
    },
    /// An alignment of 48, or of 4 MiB.
    #[error(
        "memory cannot be aligned to {align} bytes; alignments are powers of two up to {}",
        binary(super::HUGE_PAGE as u128)
    )]
    Alignment {
        /// The alignment.
        align: usize,
    },
    /// Writing to the memory of a mapped file.
    #[error(
        "mapped files are read only; copy the bytes into a block of the pool of the device `cpu`"
    )]
    ReadOnly,
    /// A range that ends behind the file.
    #[error("bytes {begin} to {end} cannot be taken from a file of {bytes}; was it written to?")]
    Range {
        /// Where the range begins.
        begin: u64,
        /// Where it ends.
        end: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// A file that cannot be read or mapped.
    #[error("a file for {tag} cannot be read: {error}")]
    File {
        /// What it was for.
        tag: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// `cuda`, which this build knows nothing of.
    #[error("there is no memory of a device `{name}` in this build; the devices are {}", super::DEVICES.join(" and "))]
    Device {
        /// The name.
        name: String,
    },
}

/// Bytes, or that they are more than can be counted.
fn size(bytes: u64) -> String {
    match bytes {
        u64::MAX => "more memory than can be addressed".into(),
        bytes => binary(bytes as u128),
    }
}

fn there_is(available: Option<u64>) -> String {
    match available {
        Some(bytes) => format!("the machine has {} left", binary(bytes as u128)),
        None => "the system gives no more".into(),
    }
}
