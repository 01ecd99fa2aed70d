//! A whole model of ternary layers on this machine: tokens in, logits out.
//!
//! ```text
//! entry's `decoder`, tree --plan--> Plan --decoder (weights, head)--> Decoder --session (cache, attention)--> logits
//! ```
//!
//! Which models run is told by the database: an entry whose `decoder` names its modules runs, if they are of the kinds that are
//! computed here. The arithmetic is that of the published models: norms, rotary positions, softmax and gates in floats of 32
//! bits, products of ternary weights with 8-bit activations in integers.
//!
//! - `plan.rs`: what a model has to be so that it runs
//! - `weights.rs`: where its weights come from
//! - `decoder.rs`: the model, loaded
//! - `head.rs`: the output matrix
//! - `session.rs`: the model at work, in the order in which it is written down
//! - `cache.rs`, `attention.rs`: keys and values, and what is made of them
//! - `generate.rs`: a prompt in, tokens out
//! - `spent.rs`: what steps take
//! - `error.rs`: why a model cannot run

mod attention;
mod cache;
mod decoder;
mod error;
mod generate;
mod head;
mod plan;
mod session;
mod spent;
mod weights;

pub use cache::{CACHE, CacheBits};
pub use decoder::{Decoder, NORMS, Settings};
pub use error::RunError;
pub use generate::{Ended, GenerateError, Generated, Limits, Took, generate};
pub use head::{HEAD, HeadBits};
pub use plan::{Plan, Role, Shape};
pub use session::{AT_ONCE, Logits, SCRATCH, Session, Trace};
pub use spent::{Spent, Step};
pub use weights::Source;

use crate::units::binary;

/// Bytes that a model needs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Packed ternary weights.
    pub weights: u64,
    /// The output matrix.
    pub head: u64,
    /// Keys and values.
    pub cache: u64,
    /// What steps work in.
    pub scratch: u64,
}

impl Needed {
    /// All of it.
    pub fn total(&self) -> u64 {
        let parts = [self.weights, self.head, self.cache, self.scratch];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    fn parts(&self) -> String {
        let parts = [
            ("weights", self.weights),
            ("output matrix", self.head),
            ("kv cache", self.cache),
            ("scratch", self.scratch),
        ];
        let parts = parts.map(|(name, bytes)| format!("{name} {}", binary(bytes.into())));
        parts.join(", ")
    }
}
