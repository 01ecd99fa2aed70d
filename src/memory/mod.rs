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
//! ## How a request is met
//!
//! Below 1 MiB a block is one of 96 sizes and comes from a front: an array that is popped and pushed, behind a lock that costs
//! one atomic operation. From 1 MiB on it is units of 64 KiB of a region, by halves; what is larger than a region is a region of
//! its own and never more than was asked for. **Nothing is written beside a block or into free memory**, so pages that nobody
//! wrote to are not there, and what a pool knows (0.1 % of what it gave out) lies elsewhere.
//!
//! **Where peaks and tags are tracked they are exact**, so all threads pass one account; at the level [`Tracking::None`] they
//! do not meet. Memory goes back to the system when a pool is used or asked to clean up; there is no thread for it.
//!
//! ## Why it is written here
//!
//! What exists serves other ends. `bumpalo` frees all or nothing. `buddy_system_allocator` keeps its lists in the free memory,
//! which would make every page of it resident, or in trees, and rounds up to powers of two. `offset-allocator` keeps beside the
//! memory, as here, but knows no alignment. General allocators (the system's, mimalloc) have neither tags, limits and pressure of
//! a part of a program, nor a way to see that it gave everything back. What is taken is `memmap2`, for every page.
//!
//! ## Code map
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
