//! Memory that execution works in: blocks for tensors and packed weights, aligned, counted, and on large pages where that pays.
//!
//! ```
//! use bitcost::memory::{MemoryPool, PoolConfig, Tag};
//!
//! const SCORES: Tag = Tag::of("scores");
//! let pool = MemoryPool::new(PoolConfig::default());
//! let mut block = pool.zeroed(4096, 64, SCORES)?;
//! block.bytes_mut()?[0] = 1;
//! assert_eq!(pool.metrics().live_bytes, 4096);
//! drop(block);
//! assert_eq!(pool.metrics().live_bytes, 0);
//! # Ok::<(), bitcost::memory::MemoryError>(())
//! ```
//!
//! - `arena.rs`: one region on large pages, the only way in which memory is taken from the system
//! - `pool.rs`: the pool of the machine's own memory
//! - `mapped.rs`: the pool of mapped files
//! - `devices.rs`: what pools of all devices have in common, and which devices there are
//! - `block.rs`: what pools hand out
//! - `tag.rs`, `metrics.rs`, `track.rs`: what memory is for, how much there is of it, what is remembered of it
//! - `pressure.rs`, `system.rs`: how near a pool is to what it may take, and what the machine has
//! - `front.rs`, `lock.rs`: what a thread meets first
//! - `store.rs`, `classes.rs`, `buddy.rs`: what lies behind
//! - `shared.rs`, `last.rs`: the inside of a pool, and how long it lives

#![allow(unsafe_code)]

mod arena;
mod block;
mod buddy;
mod classes;
mod config;
mod devices;
mod error;
mod front;
mod last;
mod lock;
mod mapped;
mod metrics;
mod pool;
mod pressure;
mod shared;
mod store;
mod sync;
mod system;
mod tag;
mod track;

pub use arena::{Arena, HUGE_PAGE};
pub use block::Block;
pub use config::{Cleanup, PoolConfig, Pressure, Tracking};
pub use devices::{DEVICES, DevicePool, device_pool};
pub use error::MemoryError;
pub use mapped::MappedFiles;
pub use metrics::{Metrics, TagMetrics};
pub use pool::{ALIGN, MemoryPool};
pub use tag::Tag;
pub use track::{Event, LiveBlock, Patterns, TIMELINE_EVENTS};
