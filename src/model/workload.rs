//! What is asked of a model: how many tokens, which phase, under which conventions.

use crate::value::{Name, Value};

/// What the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A prompt is processed and leaves its cache.
    Prefill,
    /// New tokens follow a cached past.
    Decode,
    /// One pass without a cache: encoders, vision.
    Forward,
    /// Forward and backward.
    Train,
}

impl Phase {
    /// Every phase with its name.
    pub const ALL: [(&'static str, Phase); 4] = [
        ("prefill", Phase::Prefill),
        ("decode", Phase::Decode),
        ("forward", Phase::Forward),
        ("train", Phase::Train),
    ];

    /// The name of the phase.
    pub fn name(self) -> &'static str {
        Phase::ALL
            .iter()
            .find(|(_, p)| *p == self)
            .map_or("", |(n, _)| n)
    }
}

/// Bits that a ternary weight takes in storage.
pub const TERNARY_BITS: u32 = 2;

/// What is asked of a model. [`crate::model::Model::workload`] fills in what the user left open.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The phase.
    pub phase: Phase,
    /// Sequences, images or clips at once.
    pub batch: u64,
    /// New tokens; for encoder-decoders the encoder's length, for audio the samples.
    pub seq_len: u64,
    /// Cached tokens before them.
    pub past_len: u64,
    /// New tokens of the decoder of an encoder-decoder.
    pub dec_seq_len: u64,
    /// Side of a square image that is not the config's.
    pub image_size: Option<u64>,
    /// Each query sees what comes before it only.
    pub causal: bool,
    /// Only the last position's logits are computed.
    pub last_logits: bool,
    /// Widths.
    pub widths: Widths,
}

/// Widths in bits: what the model is stored and computed in, and what the user wants instead.
#[derive(Clone, Copy, Debug)]
pub struct Widths {
    /// Of everything that nothing else is said about.
    pub dtype: u32,
    /// Of every weight, if the user says so.
    pub weight: Option<u32>,
    /// Of every multiplied activation, if the user says so.
    pub activation: Option<u32>,
    /// Of cached keys, values and states.
    pub kv: u32,
    /// Of a ternary weight.
    pub ternary: u32,
}

impl Default for Widths {
    fn default() -> Self {
        Widths {
            dtype: 16,
            weight: None,
            activation: None,
            kv: 16,
            ternary: TERNARY_BITS,
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            phase: Phase::Forward,
            batch: 1,
            seq_len: 1,
            past_len: 0,
            dec_seq_len: 1,
            image_size: None,
            causal: false,
            last_logits: false,
            widths: Widths::default(),
        }
    }
}

impl Workload {
    /// The implicit names that formulas may use. What follows from others (`N`, `T`, `logit_rows`) is derived where it
    /// is looked up.
    pub(super) fn names(&self) -> Vec<(Name, Value)> {
        let int = |n: u64| Value::Int(i128::from(n));
        let widths = &self.widths;
        [
            ("B", int(self.batch)),
            ("S", int(self.seq_len)),
            ("past", int(self.past_len)),
            ("dec_S", int(self.dec_seq_len)),
            ("decode", Value::Bool(self.phase == Phase::Decode)),
            ("causal", Value::Bool(self.causal)),
            ("last_logits", Value::Bool(self.last_logits)),
            ("dtype_bits", int(widths.dtype.into())),
            (
                "dtype_bytes",
                Value::ratio(widths.dtype.into(), 8).unwrap_or(Value::None),
            ),
            (
                "weight_bits",
                int(widths.weight.unwrap_or(widths.dtype).into()),
            ),
            (
                "activation_bits",
                int(widths.activation.unwrap_or(widths.dtype).into()),
            ),
            ("kv_bits", int(widths.kv.into())),
            ("ternary_bits", int(widths.ternary.into())),
        ]
        .map(|(name, value)| (Name::new(name), value))
        .into()
    }
}
