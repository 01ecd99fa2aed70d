//! The next token: logits in, an id out.
//!
//! In the order of transformers: temperature, then the `top_k` most likely, then the fewest most likely that have the
//! probability `top_p` together. Tokens that are equally likely stay or go together, so that the sets are decided by the
//! logits alone and not by the order of equal ones; only a temperature of 0 decides between them, for the first.

use crate::random::Random;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 chooses the first of the largest.
    pub temperature: f32,
    /// Only so many of the most likely; all where there is no number.
    pub top_k: Option<usize>,
    /// Only the fewest most likely that have this probability together, from above 0 to 1.
    pub top_p: f32,
    /// What decides the choices.
    pub seed: u64,
}

impl Default for Sampling {
    /// The first of the largest.
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            seed: 0,
        }
    }
}

/// Why there is no next token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// `--temperature -1`
    #[error("a temperature is a number from 0 on, not {0}")]
    Temperature(f32),
    /// `--top-k 0`
    #[error("top-k chooses among at least 1 token")]
    TopK,
    /// `--top-p 0`
    #[error("top-p is a probability above 0 and at most 1, not {0}")]
    TopP(f32),
    /// Logits of a model whose numbers overflowed.
    #[error("the logit of token {id} is {logit}; the model's numbers are broken before the choice")]
    NotFinite {
        /// The token.
        id: usize,
        /// Its logit.
        logit: f32,
    },
    /// No logits, or all of them -inf.
    #[error("no token is possible: of {0} logits none is above -inf")]
    Impossible(usize),
}

/// Chooses tokens, one after the other. Its buffers are reused, so that a choice allocates nothing once one was made.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    candidates: Vec<Candidate>,
}

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// Its probability, as a multiple of that of the most likely.
    weight: f64,
}

impl Sampler {
    /// A sampler, if its settings make sense.
    pub fn new(sampling: Sampling) -> Result<Sampler, SamplingError> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            seed,
        } = sampling;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(SamplingError::Temperature(temperature));
        }
        if top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP(top_p));
        }
        Ok(Sampler {
            sampling,
            random: Random::seeded(seed),
            candidates: Vec::new(),
        })
    }

    /// The next token of one row of logits.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let largest = largest(logits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(largest);
        }
        let total = self.choose_candidates(logits, logits[largest as usize]);
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return Ok(candidate.id);
            }
        }
        // Sums in another order may leave a last bit; it belongs to the last that can be chosen at all.
        let possible = self.candidates.iter().rev().find(|c| c.weight > 0.0);
        Ok(possible.map_or(largest, |candidate| candidate.id))
    }

    /// Fills the candidates, with weights; their sum.
    fn choose_candidates(&mut self, logits: &[f32], largest: f32) -> f64 {
        let candidates = &mut self.candidates;
        candidates.clear();
        let possible = logits.iter().enumerate();
        let possible = possible.filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        candidates.extend(possible.map(|(id, &logit)| Candidate {
            id: id as u32,
            logit,
            weight: 0.0,
        }));
        if let Some(k) = self.sampling.top_k {
            keep_top_k(candidates, k);
        }
        let temperature = f64::from(self.sampling.temperature);
        for candidate in candidates.iter_mut() {
            let below = f64::from(candidate.logit) - f64::from(largest);
            candidate.weight = (below / temperature).exp();
        }
        let total = candidates.iter().map(|c| c.weight).sum();
        if self.sampling.top_p < 1.0 {
            return keep_top_p(candidates, f64::from(self.sampling.top_p), total);
        }
        total
    }
}

/// The first of the largest logits. What is no logit is an error, wherever it stands.
fn largest(logits: &[f32]) -> Result<u32, SamplingError> {
    let mut best = None;
    let mut best_logit = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SamplingError::NotFinite { id, logit });
        }
        if logit > best_logit {
            (best, best_logit) = (Some(id as u32), logit);
        }
    }
    best.ok_or(SamplingError::Impossible(logits.len()))
}

/// Keeps the `k` largest, and those that equal the last of them.
fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k >= candidates.len() {
        return;
    }
    let falling = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit);
    let (_, last, _) = candidates.select_nth_unstable_by(k - 1, falling);
    let last = last.logit;
    candidates.retain(|candidate| candidate.logit >= last);
    // The selection has mixed them, by a path that is the library's own.
    candidates.sort_unstable_by_key(|candidate| candidate.id);
}

/// Keeps the fewest largest that have the part `p` of `total`, and those that equal the last of them; their sum.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64, total: f64) -> f64 {
    // All that are below this have less than `1 - p` together, so none of them is needed. It leaves few to sort.
    let needless = (1.0 - p) * total / candidates.len() as f64;
    candidates.retain(|candidate| candidate.weight >= needless);
    candidates.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id)));
    let (mut sum, mut count) = (0.0, 0);
    for candidate in candidates.iter() {
        let is_equal = count > 0 && candidates[count - 1].weight == candidate.weight;
        if sum >= p * total && !is_equal {
            break;
        }
        sum += candidate.weight;
        count += 1;
    }
    candidates.truncate(count);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_after_the_first_allocates_nothing() {
        let sampling = Sampling {
            temperature: 1.5,
            top_k: Some(500),
            top_p: 0.9,
            seed: 1,
        };
        let mut sampler = Sampler::new(sampling).expect("settings that make sense");
        let logits: Vec<f32> = (0..1000).map(|id| (id * 37 % 101) as f32 / 20.0).collect();
        let buffer =
            |sampler: &Sampler| (sampler.candidates.as_ptr(), sampler.candidates.capacity());
        sampler.next(&logits).expect("a token");
        let first = buffer(&sampler);
        for _ in 0..50 {
            sampler.next(&logits).expect("a token");
            assert_eq!(buffer(&sampler), first);
        }
    }
}
