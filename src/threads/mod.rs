//! Threads that work on one thing together.
//!
//! - `pool.rs`: threads that wait for work without sleeping
//! - `share.rs`: which of them does what

#![allow(unsafe_code)]

mod pool;
mod share;

pub use pool::Pool;
pub(crate) use share::{Shared, chunks, rows};
