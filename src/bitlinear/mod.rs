//! A linear layer with weights in {-1, 0, 1} and 8-bit activations, and the numbers that it is made of.
//!
//! - `ternary.rs`: float weights to codes and scales
//! - `config.rs`: what shares a scale, by the names that configs use
//! - `error.rs`: why a layer cannot be made or run

mod config;
mod error;
mod ternary;

pub use config::{ActivationDtype, QuantConfig, WeightGranularity};
pub use error::LayerError;
pub use ternary::{ABSMEAN_FLOOR, AbsMean, NotFinite, Ternary, codes};
