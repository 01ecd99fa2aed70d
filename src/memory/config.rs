//! How a pool behaves: sizes, limit, what it tracks, when it gives memory back.

use std::time::Duration;

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Bytes of the regions that are taken from the system; rounded up to a power of two, from 2 MiB to 1 GiB. Larger blocks get
    /// a region of their own.
    pub arena_bytes: usize,
    /// Up to so many bytes of the small blocks of one size that came back are kept for the next that asks, one at least and 16 at
    /// most; 0 keeps none. At the level [`Tracking::None`] threads that run at once keep so many each.
    pub cache_bytes: usize,
    /// What the pool may take from the system at most.
    pub limit: Option<u64>,
    /// What is remembered of allocations.
    pub tracking: Tracking,
    /// When memory that nobody uses goes back to the system.
    pub cleanup: Cleanup,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            arena_bytes: 64 << 20,
            cache_bytes: 256 << 10,
            limit: None,
            tracking: Tracking::Basic,
            cleanup: Cleanup::default(),
        }
    }
}

impl PoolConfig {
    /// For a pool of one block, or a few: its regions are no larger than they have to be.
    pub fn small() -> PoolConfig {
        PoolConfig {
            arena_bytes: super::HUGE_PAGE,
            ..PoolConfig::default()
        }
    }
}

/// What a pool remembers of allocations; each level has what those before it have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tracking {
    /// What is live, and counts. Threads do not meet: what each does is counted apart.
    None,
    /// Peaks, and what is live of every tag.
    #[default]
    Basic,
    /// Every live allocation.
    Standard,
    /// The last events with their times, and what is common among sizes and lifetimes.
    Detailed,
}

/// When memory that nobody uses goes back to the system; there is no thread for it, so it happens while a pool is used, or on
/// call.
#[derive(Clone, Copy, Debug)]
pub struct Cleanup {
    /// After it was not used for so long.
    pub idle: Option<Duration>,
    /// From such a pressure on.
    pub pressure: Option<Pressure>,
}

impl Default for Cleanup {
    fn default() -> Cleanup {
        Cleanup {
            idle: Some(Duration::from_secs(10)),
            pressure: Some(Pressure::High),
        }
    }
}

/// How much of what a pool may take it has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Less than half.
    #[default]
    Low,
    /// Half and more.
    Medium,
    /// Three quarters and more.
    High,
    /// Nine tenths and more.
    Critical,
}
