//! What a model's steps take, measured where they run.

use std::time::Instant;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tokens looked up.
    Embedding,
    /// All norms.
    Norm,
    /// Queries, keys and values, with the quantization of what goes in.
    Qkv,
    /// Positions, and storing keys and values.
    Rope,
    /// Scores, softmax, weighted values.
    Attention,
    /// The product after attention.
    Output,
    /// The products before the gate.
    GateUp,
    /// Activation and gating.
    Gate,
    /// The product after the gate.
    Down,
    /// What layers add to the features.
    Residual,
    /// Logits.
    Head,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Step; 11] = [
        Step::Embedding,
        Step::Norm,
        Step::Qkv,
        Step::Rope,
        Step::Attention,
        Step::Output,
        Step::GateUp,
        Step::Gate,
        Step::Down,
        Step::Residual,
        Step::Head,
    ];

    /// Products with ternary weights.
    pub const LINEAR: [Step; 4] = [Step::Qkv, Step::Output, Step::GateUp, Step::Down];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Step::Embedding => "embedding",
            Step::Norm => "norms",
            Step::Qkv => "query, key, value",
            Step::Rope => "positions, cache",
            Step::Attention => "attention",
            Step::Output => "output",
            Step::GateUp => "gate, up",
            Step::Gate => "gating",
            Step::Down => "down",
            Step::Residual => "residuals",
            Step::Head => "logits",
        }
    }
}

/// Nanoseconds by kind of step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    nanoseconds: [u64; Step::ALL.len()],
    since: Option<Instant>,
}

impl Spent {
    /// Nanoseconds of a kind.
    pub fn of(&self, step: Step) -> u64 {
        self.nanoseconds[step as usize]
    }

    /// Nanoseconds of all.
    pub fn total(&self) -> u64 {
        self.nanoseconds.iter().sum()
    }

    /// Adds what another found.
    pub fn add(&mut self, other: &Spent) {
        for (own, other) in self.nanoseconds.iter_mut().zip(other.nanoseconds) {
            *own += other;
        }
    }

    pub(super) fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    /// What passed since the last call of this or of `begin` was a step of a kind.
    pub(super) fn end(&mut self, step: Step) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            self.nanoseconds[step as usize] += (now - since).as_nanos() as u64;
        }
    }
}
