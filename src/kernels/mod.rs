//! Products of ternary weights and 8-bit activations, at the speed that the machine's memory and multipliers allow.
//!
//! A matrix of weights in {-1, 0, 1} is packed once ([`packing`]), activations are quantized to 8 bits once per input
//! ([`Activations`]), and [`multiply()`] or [`accumulate`] runs a kernel over both with some threads ([`Pool`]).
//!
//! ## The contract of a kernel
//!
//! **A kernel sees one group of 32 rows over all its columns, and a block of 1 to 8 tokens.** It gives the integers
//! `sum over k of c[row][k] * x[token][k]` with the codes `c = weight + 1` in {0, 1, 2}; whoever calls it subtracts the sum
//! of the activations, which is the same for all rows and was found when they were quantized. The integers are exact:
//! **all kernels give the same bits**, and `scalar.rs` is what they mean. Everything around the kernel (threads, tails, scales)
//! is written once, in `multiply.rs`.
//!
//! A kernel has two doors: `one` for a single token, which is bound by memory, and `some` for a block, which is bound by
//! multipliers. Lengths are checked once, before; within, only loads, stores and prefetches are `unsafe`.
//!
//! - [`packing`]: how weights lie in memory, and the forms that files have
//! - `activations.rs`: 8-bit activations and how they lie
//! - `table.rs`: all kernels, which of them run here, and which is best
//! - `scalar.rs`: what a kernel computes; runs everywhere
//! - `x86/`, `arm/`: the same for the vectors of a machine, one file for an instruction set
//! - `multiply.rs`: a kernel over a whole product
//! - [`measure`]: how fast kernels are
//! - [`probe`]: what the machine can do at most
//!
//! ## How to add a kernel
//!
//! 1. A file with two functions that have the contract above, and say in their doc which layout they read, how they treat
//!    tails, and which intermediate is the largest and why it fits.
//! 2. A row in `table.rs`: its name, what it needs of the machine, its functions.
//! 3. `cargo test --test kernels`: every row is held against the scalar kernel over every length around a lane's boundary, with
//!    the activations and weights that overflow what is too narrow.

#![allow(unsafe_code)]

mod activations;
#[cfg(target_arch = "aarch64")]
mod arm;
mod error;
pub mod measure;
mod multiply;
pub mod packing;
pub mod probe;
mod scalar;
mod table;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use crate::threads::Pool;
pub use activations::{ABSMAX_FLOOR, Activations, Granularity};
pub use error::KernelError;
pub use multiply::{RowScale, Scaling, accumulate, multiply};
pub use packing::{Counts, Packed, Packing};
pub use table::{Isa, KERNELS, Kernel, Runnable, available, best, best_of, by_name};

/// The most tokens of a block.
pub const TOKENS: usize = 8;
