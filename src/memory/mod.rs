//! Memory that execution works in: where weights lie, aligned and on large pages.
//!
//! - `arena.rs`: one region for weights that are written once and then only read

mod arena;

pub use arena::{Arena, HUGE_PAGE};
