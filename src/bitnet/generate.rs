//! Texts: a prompt in, tokens out one by one.

use super::{RunError, Session, Spent};
use crate::text::{Sampler, SamplingError};
use std::time::{Duration, Instant};

/// Where a text ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'l> {
    /// After so many tokens.
    pub most: usize,
    /// With one of these.
    pub stop: &'l [u32],
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A stop token came; it is the last one.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// There is no room for more.
    Context,
    /// Whoever watched wanted no more.
    Interrupted,
}

impl Ended {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Stop => "stop",
            Ended::Length => "length",
            Ended::Context => "context",
            Ended::Interrupted => "interrupted",
        }
    }
}

/// A text, and what it took.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub ended: Ended,
    /// From the first token of the prompt to its logits.
    pub prompt: Took,
    /// From those logits to the last token.
    pub decode: Took,
}

/// What some tokens took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    /// How many went through the model.
    pub tokens: usize,
    /// All of the time.
    pub time: Duration,
    /// Where it went.
    pub spent: Spent,
}

impl Took {
    /// Tokens a second; `None` where nothing ran.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.time.as_secs_f64();
        (self.tokens > 0 && seconds > 0.0).then(|| self.tokens as f64 / seconds)
    }
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The model cannot run it.
    #[error(transparent)]
    Run(#[from] RunError),
    /// No token can be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

/// Runs a prompt and goes on from it. `watch` gets each token when it is there, and says whether more are wanted; `logits`,
/// where it is there, gets those of every token of the prompt.
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    sampler: &mut Sampler,
    limits: Limits<'_>,
    logits: Option<super::Logits<'_>>,
    watch: &mut dyn FnMut(u32) -> bool,
) -> Result<Generated, GenerateError> {
    session.reset();
    session.take_spent();
    let start = Instant::now();
    let mut told;
    let mut last: &[f32] = match logits {
        None => session.feed(prompt)?,
        Some(logits) => {
            told = Vec::new();
            let mut each = |of_token: &[f32]| {
                logits(of_token);
                told.clear();
                told.extend_from_slice(of_token);
            };
            session.feed_traced(prompt, &mut each, None)?;
            &told
        }
    };
    let mut out = Generated {
        ids: Vec::with_capacity(limits.most.min(1 << 16)),
        ended: Ended::Length,
        prompt: Took {
            tokens: prompt.len(),
            time: start.elapsed(),
            spent: Spent::default(),
        },
        decode: Took::default(),
    };
    let mut next = (limits.most > 0).then(|| sampler.next(last)).transpose()?;
    out.prompt.spent = session.take_spent();
    let start = Instant::now();
    while let Some(id) = next.take() {
        out.ids.push(id);
        let wanted = watch(id);
        out.ended = if limits.stop.contains(&id) {
            Ended::Stop
        } else if !wanted {
            Ended::Interrupted
        } else if out.ids.len() >= limits.most {
            Ended::Length
        } else if session.room() == 0 {
            Ended::Context
        } else {
            last = session.feed(&[id])?;
            out.decode.tokens += 1;
            next = Some(sampler.next(last)?);
            continue;
        };
    }
    out.decode.time = start.elapsed();
    out.decode.spent = session.take_spent();
    Ok(out)
}
