//! Attention over the cache: for every token and query head, a softmax over the positions so far, and the mean of values that it
//! gives.
//!
//! Positions are gone through once, block by block, with the largest score so far: when a larger one comes, what was summed
//! shrinks by the difference. So nothing is as long as the context but the cache itself. Query heads that share a cached head
//! share its reading. Many tokens are shared among threads by token and head; a single one by head and span of positions, whose
//! sums are put together in order, so that any number of threads gives the same bits.

#![allow(unsafe_code)]

use super::RunError;
use super::cache::{BLOCK, Cache, CacheBits, HeadCache};
use super::plan::Shape;
use crate::tensor::dense::{F16, F32, I8, Stored};
use crate::tensor::ops::exp;
use crate::tensor::{Element, TensorError};
use crate::threads::{Pool, Shared, chunks};
use crate::wide::{Loop, ask_ahead_of, wide};

/// Positions that a thread goes through at once for a single token.
const SPAN: usize = 8 * BLOCK;

/// Query heads that meet a block of keys at once; more do not fit the registers.
const HEADS: usize = 4;

/// Features of values that are summed at once.
const FEATURES: usize = 32;

/// Sums of spans of positions of a single token.
pub(super) struct Partial {
    /// `[heads][spans][head_dim]`
    sums: Vec<f32>,
    /// Largest score and sum of exponentials, `[heads][spans]`.
    softmax: Vec<[f32; 2]>,
    spans: usize,
}

impl Partial {
    pub(super) fn new(shape: &Shape, context: usize) -> Partial {
        let spans = context.div_ceil(SPAN);
        Partial {
            sums: vec![0.0; shape.heads * spans * shape.head_dim],
            softmax: vec![[0.0; 2]; shape.heads * spans],
            spans,
        }
    }
}

/// What is asked: queries of some tokens, `[tokens][stride]` with the heads first, of which the first stands at position `first`.
pub(super) struct Asked<'a> {
    pub(super) shape: &'a Shape,
    pub(super) layer: usize,
    pub(super) queries: &'a [f32],
    pub(super) stride: usize,
    pub(super) first: usize,
}

/// Attends to all positions of a layer that are not after a token's own; `out` is `[tokens][heads][head_dim]`.
pub(super) fn attend(
    cache: &Cache,
    asked: &Asked<'_>,
    pool: &Pool,
    partial: &mut Partial,
    out: &mut [f32],
) -> Result<(), RunError> {
    let attend = match cache.bits {
        CacheBits::F32 => attend_as::<F32>,
        CacheBits::F16 => attend_as::<F16>,
        CacheBits::I8 => attend_as::<I8>,
    };
    attend(cache, asked, pool, partial, out)
}

fn attend_as<S: Stored>(
    cache: &Cache,
    asked: &Asked<'_>,
    pool: &Pool,
    partial: &mut Partial,
    out: &mut [f32],
) -> Result<(), RunError> {
    let Asked {
        shape,
        layer,
        queries,
        stride,
        first: before,
    } = *asked;
    let (features, group) = (shape.head_dim, shape.heads / shape.kv_heads);
    let tokens = queries.len() / stride;
    // Every head is asked for once here, so that what threads do cannot fail.
    let head = |head| cache.head(layer, head);
    Held::<S::Bits>::of(&head(0)?)?;
    let query =
        |token: usize, head: usize| &queries[token * stride + head * features..][..features];
    let root = 1.0 / (features as f32).sqrt();
    if tokens > 1 {
        let place = Shared::of(out);
        chunks(pool, tokens * shape.kv_heads, 1, &|items| {
            for item in items {
                let (token, kv_head) = (item / shape.kv_heads, item % shape.kv_heads);
                let views = head(kv_head).expect("the first head is there");
                let held = Held::of(&views).expect("the first head could be read");
                for from in (0..group).step_by(HEADS) {
                    let first = kv_head * group + from;
                    let count = HEADS.min(group - from);
                    let at = (token * shape.heads + first) * features;
                    // SAFETY: every token and group of heads is given to one thread once, and this is the place of both.
                    let sums = unsafe { place.slice(at, count * features) };
                    sums.fill(0.0);
                    let softmax = over::<S>(
                        Block {
                            held: &held,
                            features,
                            root,
                            positions: 0..before + token + 1,
                        },
                        |number| query(token, first + number),
                        count,
                        sums,
                    );
                    for (sums, [_, total]) in sums.chunks_exact_mut(features).zip(softmax) {
                        sums.iter_mut().for_each(|sum| *sum /= total);
                    }
                }
            }
        });
        return Ok(());
    }
    let positions = before + 1;
    let spans = positions.div_ceil(SPAN);
    let (sums, softmax) = (
        Shared::of(&mut partial.sums),
        Shared::of(&mut partial.softmax),
    );
    let most = partial.spans;
    chunks(pool, shape.kv_heads * spans, 1, &|items| {
        for item in items {
            let (kv_head, span) = (item / spans, item % spans);
            let views = head(kv_head).expect("the first head is there");
            let held = Held::of(&views).expect("the first head could be read");
            let positions = span * SPAN..positions.min((span + 1) * SPAN);
            for from in (0..group).step_by(HEADS) {
                let count = HEADS.min(group - from);
                let first = kv_head * group + from;
                let mut own = [[0.0; MOST_FEATURES]; HEADS];
                let own = &mut own.as_flattened_mut()[..count * features];
                let block = Block {
                    held: &held,
                    features,
                    root,
                    positions: positions.clone(),
                };
                let told = over::<S>(block, |number| query(0, first + number), count, own);
                for number in 0..count {
                    let at = (first + number) * most + span;
                    // SAFETY: every head and span is given to one thread once, and these are the places of both.
                    let (sums, softmax) =
                        unsafe { (sums.slice(at * features, features), softmax.slice(at, 1)) };
                    sums.copy_from_slice(&own[number * features..][..features]);
                    softmax[0] = told[number];
                }
            }
        }
    });
    for (head, out) in out.chunks_exact_mut(features).enumerate() {
        let sums = &partial.sums[head * most * features..][..spans * features];
        wide(Together {
            softmax: &partial.softmax[head * most..][..spans],
            sums,
            out,
        });
    }
    Ok(())
}

/// Puts the spans of a head together.
struct Together<'t> {
    softmax: &'t [[f32; 2]],
    sums: &'t [f32],
    out: &'t mut [f32],
}

impl Loop for Together<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Together { softmax, sums, out } = self;
        let more = |most: f32, it: &[f32; 2]| if it[0] > most { it[0] } else { most };
        let largest = softmax.iter().fold(f32::NEG_INFINITY, more);
        let mut total = 0.0;
        out.fill(0.0);
        for ([most, of_span], sums) in softmax.iter().zip(sums.chunks_exact(out.len())) {
            let weight = exp(most - largest);
            total += of_span * weight;
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum.mul_add(weight, *out);
            }
        }
        out.iter_mut().for_each(|out| *out /= total);
    }
}

/// The widest head whose sums a thread holds; [`plan`](super::plan) refuses wider ones.
pub(super) const MOST_FEATURES: usize = 512;

/// The numbers of one cached head, as they are stored.
struct Held<'h, T> {
    keys: &'h [T],
    values: &'h [T],
    /// Of keys and of values, one a position, where there are any.
    scales: Option<[&'h [f32]; 2]>,
}

impl<'h, T: Element> Held<'h, T> {
    fn of(views: &'h HeadCache) -> Result<Held<'h, T>, TensorError> {
        Ok(Held {
            keys: views.keys.numbers()?,
            values: views.values.numbers()?,
            scales: match &views.scales {
                Some([keys, values]) => Some([keys.numbers()?, values.numbers()?]),
                None => None,
            },
        })
    }
}

/// Positions of one cached head.
struct Block<'b, T> {
    held: &'b Held<'b, T>,
    features: usize,
    /// What scores are multiplied by.
    root: f32,
    positions: std::ops::Range<usize>,
}

/// Adds values of positions into `sums` `[count][features]`, which are 0, weighted by exponentials of scores; gives the largest
/// score and the sum of exponentials of each query.
fn over<'q, S: Stored>(
    block: Block<'_, S::Bits>,
    query: impl Fn(usize) -> &'q [f32],
    count: usize,
    sums: &mut [f32],
) -> [[f32; 2]; HEADS] {
    match count {
        1 => Over::<S, 1>::run(block, query, sums),
        2 => Over::<S, 2>::run(block, query, sums),
        3 => Over::<S, 3>::run(block, query, sums),
        _ => Over::<S, 4>::run(block, query, sums),
    }
}

struct Over<'o, S: Stored, const H: usize> {
    block: Block<'o, S::Bits>,
    queries: [&'o [f32]; H],
    sums: &'o mut [f32],
}

impl<'o, S: Stored, const H: usize> Over<'o, S, H> {
    fn run<'q: 'o>(
        block: Block<'o, S::Bits>,
        query: impl Fn(usize) -> &'q [f32],
        sums: &'o mut [f32],
    ) -> [[f32; 2]; HEADS] {
        wide(Over::<S, H> {
            block,
            queries: std::array::from_fn(query),
            sums,
        })
    }
}

impl<S: Stored, const H: usize> Loop for Over<'_, S, H> {
    type Out = [[f32; 2]; HEADS];

    #[inline(always)]
    fn run(self) -> [[f32; 2]; HEADS] {
        let Block {
            held,
            features,
            root,
            positions,
        } = self.block;
        let end = positions.end;
        let mut softmax = [[f32::NEG_INFINITY, 0.0]; HEADS];
        for from in positions.step_by(BLOCK) {
            let count = BLOCK.min(end - from);
            let keys = &held.keys[from * features..][..BLOCK * features];
            let mut weights = scores::<S, H>(keys, self.queries);
            let mut shrink = [1.0; H];
            for ((weights, softmax), shrink) in
                weights.iter_mut().zip(&mut softmax).zip(&mut shrink)
            {
                weights.iter_mut().for_each(|score| *score *= root);
                if let Some([of_keys, _]) = held.scales {
                    times(weights, &of_keys[from..from + count]);
                }
                weights[count..].fill(f32::NEG_INFINITY);
                let more = |a: f32, b: f32| if a > b { a } else { b };
                let most = more(softmax[0], halved(*weights, more));
                weights
                    .iter_mut()
                    .for_each(|score| *score = exp(*score - most));
                *shrink = exp(softmax[0] - most);
                weights[count..].fill(0.0);
                let total = halved(*weights, |a, b| a + b);
                *softmax = [most, softmax[1].mul_add(*shrink, total)];
                if let Some([_, of_values]) = held.scales {
                    times(weights, &of_values[from..from + count]);
                }
            }
            let values = &held.values[from * features..][..count * features];
            add_values::<S, H>(values, features, &weights, shrink, self.sums);
        }
        softmax
    }
}

/// One number of a block's: halves onto halves, each a vector.
#[inline(always)]
fn halved(mut numbers: [f32; BLOCK], onto: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = BLOCK / 2;
    while half > 0 {
        for at in 0..half {
            numbers[at] = onto(numbers[at], numbers[at + half]);
        }
        half /= 2;
    }
    numbers[0]
}

#[inline(always)]
fn times(numbers: &mut [f32], by: &[f32]) {
    numbers
        .iter_mut()
        .zip(by)
        .for_each(|(number, by)| *number *= by);
}

/// The products of queries with the keys of a block.
#[inline(always)]
fn scores<S: Stored, const H: usize>(keys: &[S::Bits], queries: [&[f32]; H]) -> [[f32; BLOCK]; H] {
    let (rows, _) = keys.as_chunks::<BLOCK>();
    let queries = queries.map(|query| &query[..rows.len()]);
    let mut sums = [[0.0f32; BLOCK]; H];
    for (feature, row) in rows.iter().enumerate() {
        ask_ahead_of(row);
        let row: [f32; BLOCK] = std::array::from_fn(|at| S::float(row[at]));
        for (sums, query) in sums.iter_mut().zip(&queries) {
            let query = query[feature];
            for at in 0..BLOCK {
                sums[at] = row[at].mul_add(query, sums[at]);
            }
        }
    }
    sums
}

/// Shrinks sums and adds the values of some positions, weighted.
#[inline(always)]
fn add_values<S: Stored, const H: usize>(
    values: &[S::Bits],
    features: usize,
    weights: &[[f32; BLOCK]; H],
    shrink: [f32; H],
    sums: &mut [f32],
) {
    let whole = features / FEATURES * FEATURES;
    for from in (0..whole).step_by(FEATURES) {
        let mut own: [[f32; FEATURES]; H] = std::array::from_fn(|head| {
            let sums = &sums[head * features + from..][..FEATURES];
            std::array::from_fn(|at| sums[at] * shrink[head])
        });
        for (position, row) in values.chunks_exact(features).enumerate() {
            let row = &row[from..from + FEATURES];
            ask_ahead_of(row);
            let row: [f32; FEATURES] = std::array::from_fn(|at| S::float(row[at]));
            for (own, weights) in own.iter_mut().zip(weights) {
                for at in 0..FEATURES {
                    own[at] = row[at].mul_add(weights[position], own[at]);
                }
            }
        }
        for (head, own) in own.iter().enumerate() {
            sums[head * features + from..][..FEATURES].copy_from_slice(own);
        }
    }
    for head in 0..H {
        for feature in whole..features {
            let sum = &mut sums[head * features + feature];
            *sum *= shrink[head];
            for (row, weight) in values.chunks_exact(features).zip(&weights[head]) {
                *sum = S::float(row[feature]).mul_add(*weight, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryPool, PoolConfig};
    use crate::random::Random;

    /// What attention is, in 64 bits.
    fn exact(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
        let dot = |key: &Vec<f32>| -> f64 {
            let products = query
                .iter()
                .zip(key)
                .map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>() / (query.len() as f64).sqrt()
        };
        let weights: Vec<f64> = keys.iter().map(|key| dot(key).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mean = |feature: usize| {
            let values = values.iter().zip(&weights);
            values
                .map(|(value, weight)| f64::from(value[feature]) * weight)
                .sum::<f64>()
                / total
        };
        (0..query.len()).map(mean).collect()
    }

    /// The largest difference from it over heads and tokens: `before` tokens one by one, then `tokens` at once.
    fn off(shape: Shape, bits: CacheBits, before: usize, tokens: usize) -> f64 {
        let memory = MemoryPool::new(PoolConfig::default());
        let (context, features) = (before + tokens, shape.head_dim);
        let mut cache = Cache::new(&memory, shape, context, bits).expect("memory");
        let mut random = Random::seeded(5);
        let mut numbers =
            |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal()).collect() };
        let held: Vec<[Vec<f32>; 2]> = (0..context)
            .map(|_| [numbers(shape.kv()), numbers(shape.kv())])
            .collect();
        let (pool, layer) = (Pool::new(2), shape.layers - 1);
        for (position, [keys, values]) in held.iter().enumerate() {
            cache.put(layer, position, keys, values).expect("room");
        }
        let queries = numbers(tokens * shape.attention());
        let mut out = vec![9.0; queries.len()];
        let mut partial = Partial::new(&shape, context);
        let asked = Asked {
            shape: &shape,
            layer,
            queries: &queries,
            stride: shape.attention(),
            first: before,
        };
        attend(&cache, &asked, &pool, &mut partial, &mut out).expect("an answer");
        let mut most = 0f64;
        for token in 0..tokens {
            for head in 0..shape.heads {
                let kv_head = head / (shape.heads / shape.kv_heads);
                let part = |which: usize| -> Vec<Vec<f32>> {
                    let seen = held[..=before + token].iter();
                    seen.map(|it| it[which][kv_head * features..][..features].to_vec())
                        .collect()
                };
                let at = (token * shape.heads + head) * features;
                let exact = exact(&queries[at..at + features], &part(0), &part(1));
                let apart = exact
                    .iter()
                    .zip(&out[at..])
                    .map(|(a, b)| (a - f64::from(*b)).abs());
                most = apart.fold(most, f64::max);
            }
        }
        most
    }

    fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
        Shape {
            vocabulary: 1,
            hidden: 1,
            intermediate: 1,
            layers: 2,
            heads,
            kv_heads,
            head_dim,
        }
    }

    #[test]
    fn attention_is_that_of_64_bits() {
        for (heads, kv_heads, head_dim) in
            [(1, 1, 2), (2, 1, 40), (6, 2, 32), (5, 1, 64), (4, 4, 96)]
        {
            let shape = shape(heads, kv_heads, head_dim);
            for (before, tokens) in [
                (0, 1),
                (31, 1),
                (32, 1),
                (SPAN + 1, 1),
                (2 * SPAN - 1, 1),
                (0, 3),
                (30, 5),
            ] {
                let off = off(shape, CacheBits::F32, before, tokens);
                assert!(off < 2e-6, "{shape:?} {before} {tokens}: {off:e}");
            }
        }
    }

    #[test]
    fn narrower_caches_lose_what_their_numbers_lose() {
        let shape = shape(4, 2, 64);
        // Keys move scores, and so weights, by their own error times the root of the features; values come through as they are.
        let halves = off(shape, CacheBits::F16, 300, 1);
        assert!(halves > 0.0 && halves < 4.0 * 2f64.powi(-11), "{halves:e}");
        let bytes = off(shape, CacheBits::I8, 300, 1);
        assert!(bytes > halves && bytes < 4.0 / 127.0, "{bytes:e}");
    }
}
