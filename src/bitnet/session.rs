//! A model at work: tokens in, logits out, with the memory that it works in.
//!
//! All memory is taken at the beginning; a step for one token takes none.

use super::RunError;
use super::attention::{Asked, Partial, attend};
use super::cache::Cache;
use super::decoder::{Decoder, Layer, Settings};
use super::plan::{Plan, Shape};
use super::spent::{Spent, Step};
use crate::bitlinear::PackedBitLinear;
use crate::kernels::{Activations, Granularity, Runnable, best};
use crate::memory::{MemoryPool, Tag};
use crate::tensor::{Dtype, Tensor, ops};
use crate::threads::{Pool, rows};

/// What the memory that a step works in is in the metrics of a pool.
pub const SCRATCH: Tag = Tag::of("scratch");

/// Tokens that go through the layers at once.
pub const AT_ONCE: usize = 128;

/// Is told of numbers on their way: the layer, what they are, the numbers of all tokens that are under way.
pub type Trace<'t> = &'t mut dyn FnMut(usize, &'static str, &[f32]);

/// Is told the logits of a token.
pub type Logits<'l> = &'l mut dyn FnMut(&[f32]);

/// A model at work on one sequence.
pub struct Session<'d> {
    decoder: &'d Decoder,
    pool: &'d Pool,
    /// For one token, and for many.
    kernels: [Runnable; 2],
    cache: Cache,
    /// Cosines and sines of positions, `[context][head_dim / 2]` each.
    turns: [Tensor; 2],
    scratch: Scratch,
    position: usize,
    spent: Spent,
}

/// Numbers of the tokens under way, each `[tokens][features]`.
struct Scratch {
    hidden: Tensor,
    normed: Tensor,
    qkv: Tensor,
    attention: Tensor,
    gate_up: Tensor,
    gated: Tensor,
    /// Of `intermediate` features.
    inner: Tensor,
    /// Features whose logits are computed, where the output matrix has 8 bits.
    last: Vec<i16>,
    logits: Tensor,
    partial: Partial,
    codes: Codes,
}

/// Quantized activations of so many tokens, by their features.
struct Codes {
    hidden: Activations,
    attention: Activations,
    inner: Activations,
}

impl Codes {
    fn new(shape: &Shape, tokens: usize) -> Result<Codes, RunError> {
        let zeros = |features: usize| {
            let zeros = vec![0.0; tokens * features];
            Activations::quantize(&zeros, features, Granularity::Token, &Pool::alone())
        };
        Ok(Codes {
            hidden: zeros(shape.hidden)?,
            attention: zeros(shape.attention())?,
            inner: zeros(shape.intermediate)?,
        })
    }
}

/// Bytes that a session works in, without its cache; `None` where no memory holds so many.
pub(super) fn scratch_bytes(plan: &Plan, context: usize) -> Option<u64> {
    let shape = &plan.shape;
    let features = [
        shape.hidden.checked_mul(2)?,
        shape.attention().checked_mul(2)?,
        shape.kv().checked_mul(2)?,
        shape.intermediate.checked_mul(3)?,
        shape.intermediate.max(shape.attention()),
    ];
    let features = features
        .iter()
        .try_fold(0usize, |all, n| all.checked_add(*n))?;
    let tokens = AT_ONCE.min(context);
    let numbers = features
        .checked_mul(tokens)?
        .checked_add(shape.vocabulary)?;
    let turns = context.checked_mul(shape.head_dim)?;
    (numbers.checked_add(turns)? as u64).checked_mul(4)
}

impl<'d> Session<'d> {
    /// A session with room for as many tokens as the settings say. `kernel` is for single tokens.
    pub fn new(
        memory: &MemoryPool,
        decoder: &'d Decoder,
        settings: &Settings,
        kernel: Runnable,
        pool: &'d Pool,
    ) -> Result<Session<'d>, RunError> {
        let shape = decoder.plan.shape;
        let tokens = AT_ONCE.min(settings.context);
        let of = |features: usize| Tensor::zeros(memory, Dtype::F32, &[tokens, features], SCRATCH);
        let scratch = Scratch {
            hidden: of(shape.hidden)?,
            normed: of(shape.hidden)?,
            qkv: of(shape.attention() + 2 * shape.kv())?,
            attention: of(shape.attention())?,
            gate_up: of(2 * shape.intermediate)?,
            gated: of(shape.intermediate)?,
            inner: of(shape.intermediate.max(shape.attention()))?,
            last: Vec::with_capacity(shape.hidden),
            logits: Tensor::zeros(memory, Dtype::F32, &[shape.vocabulary], SCRATCH)?,
            partial: Partial::new(&shape, settings.context),
            codes: Codes::new(&shape, 1)?,
        };
        Ok(Session {
            decoder,
            pool,
            kernels: [kernel, best(settings.packing, crate::kernels::TOKENS)],
            cache: Cache::new(memory, shape, settings.context, settings.cache)?,
            turns: turns(memory, &decoder.plan, settings.context)?,
            scratch,
            position: 0,
            spent: Spent::default(),
        })
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Tokens so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens that there is still room for.
    pub fn room(&self) -> usize {
        self.cache.context() - self.position
    }

    /// What took how long since the last call of this.
    pub fn take_spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    /// Takes tokens and gives the logits of the last.
    pub fn feed(&mut self, ids: &[u32]) -> Result<&[f32], RunError> {
        self.run(ids, None, None)?;
        Ok(self.scratch.logits.numbers()?)
    }

    /// The same, and tells the logits of every token and, to `trace`, numbers on their way.
    pub fn feed_traced(
        &mut self,
        ids: &[u32],
        logits: Logits<'_>,
        trace: Option<Trace<'_>>,
    ) -> Result<(), RunError> {
        self.run(ids, Some(logits), trace)
    }

    fn run(
        &mut self,
        ids: &[u32],
        mut each: Option<Logits<'_>>,
        mut trace: Option<Trace<'_>>,
    ) -> Result<(), RunError> {
        let vocabulary = self.decoder.plan.shape.vocabulary;
        if ids.is_empty() {
            return Err(RunError::Empty);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(RunError::Token {
                id: *id,
                vocabulary,
            });
        }
        let tokens = self.position.saturating_add(ids.len());
        if tokens > self.cache.context() {
            return Err(RunError::Context {
                tokens,
                context: self.cache.context(),
                positions: self.decoder.plan.positions,
            });
        }
        let pieces = ids.chunks(AT_ONCE);
        let last = pieces.len() - 1;
        for (number, ids) in pieces.enumerate() {
            let mut told = trace.as_mut().map(|trace| &mut **trace as Trace<'_>);
            self.layers(ids, &mut told)?;
            self.position += ids.len();
            let from = match (&each, number == last) {
                (Some(_), _) => 0,
                (None, true) => ids.len() - 1,
                (None, false) => continue,
            };
            for token in from..ids.len() {
                self.logits(token)?;
                if let Some(each) = &mut each {
                    each(self.scratch.logits.numbers()?);
                }
            }
        }
        Ok(())
    }

    /// All layers for some tokens, in the order in which the model is written.
    fn layers(&mut self, ids: &[u32], trace: &mut Option<Trace<'_>>) -> Result<(), RunError> {
        let plan = &self.decoder.plan;
        let hidden = plan.shape.hidden;
        let tokens = ids.len();
        if self.scratch.codes.hidden.tokens() != tokens {
            self.scratch.codes = Codes::new(&plan.shape, tokens)?;
        }
        self.spent.begin();
        // h = embedding[ids]                                       [tokens, hidden]
        let h = &mut self.scratch.hidden.numbers_mut()?[..tokens * hidden];
        for (id, h) in ids.iter().zip(h.chunks_exact_mut(hidden)) {
            self.decoder.embedding.index(0, *id as usize)?.read(h)?;
        }
        self.spent.end(Step::Embedding);
        for (number, layer) in self.decoder.layers.iter().enumerate() {
            self.attention(number, layer, tokens, trace)?;
            self.mlp(number, layer, tokens, trace)?;
        }
        Ok(())
    }

    /// `h += output(sub_norm(attention(rope(q), rope(k), v)))` with `q, k, v = qkv(norm(h))`
    fn attention(
        &mut self,
        number: usize,
        layer: &Layer,
        tokens: usize,
        trace: &mut Option<Trace<'_>>,
    ) -> Result<(), RunError> {
        let plan = &self.decoder.plan;
        let Shape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            ..
        } = plan.shape;
        let (attention, kv) = (plan.shape.attention(), plan.shape.kv());
        let stride = attention + 2 * kv;
        let it = &mut self.scratch;
        let spent = &mut self.spent;
        let kernel = self.kernels[usize::from(tokens > 1)];
        let h = &mut it.hidden.numbers_mut::<f32>()?[..tokens * hidden];

        // x = norm(h)                                              [tokens, hidden]
        let x = &mut it.normed.numbers_mut::<f32>()?[..tokens * hidden];
        norm(
            self.pool,
            h,
            layer.attention_norm.numbers()?,
            plan.norm_eps,
            x,
        );
        spent.end(Step::Norm);
        // q, k, v = x Wq', x Wk', x Wv'                            [tokens, (heads + 2 kv heads) head_dim]
        let qkv = &mut it.qkv.numbers_mut::<f32>()?[..tokens * stride];
        linear(&layer.qkv, x, &mut it.codes.hidden, kernel, self.pool, qkv)?;
        spent.end(Step::Qkv);
        if let Some(trace) = trace {
            trace(number, "qkv.input", x);
            trace(number, "qkv.output", qkv);
        }
        // q, k turned by position; k, v into the cache
        let [cosines, sines] = [
            self.turns[0].numbers::<f32>()?,
            self.turns[1].numbers::<f32>()?,
        ];
        let half = head_dim / 2;
        let first = self.position;
        rows(self.pool, qkv, stride, &|token, qkv| {
            let at = (first + token) * half;
            let turn = [&cosines[at..at + half], &sines[at..at + half]];
            for head in qkv.chunks_exact_mut(head_dim).take(heads + kv_heads) {
                rotate(head, turn);
            }
        });
        for (token, qkv) in qkv.chunks_exact(stride).enumerate() {
            let (keys, values) = qkv[attention..].split_at(kv);
            self.cache.put(number, first + token, keys, values)?;
        }
        spent.end(Step::Rope);
        // a = softmax(q k' / sqrt(head_dim)) v                     [tokens, heads head_dim]
        let a = &mut it.attention.numbers_mut::<f32>()?[..tokens * attention];
        let asked = Asked {
            shape: &plan.shape,
            layer: number,
            queries: qkv,
            stride,
            first,
        };
        attend(&self.cache, &asked, self.pool, &mut it.partial, a)?;
        spent.end(Step::Attention);
        // a = sub_norm(a)
        let inner = &mut it.inner.numbers_mut::<f32>()?[..tokens * attention];
        let a = match &layer.attention_sub_norm {
            Some(gain) => {
                norm(self.pool, a, gain.numbers()?, plan.norm_eps, inner);
                spent.end(Step::Norm);
                inner
            }
            None => a,
        };
        // h = h + a Wo'                                            [tokens, hidden]
        linear(
            &layer.output,
            a,
            &mut it.codes.attention,
            kernel,
            self.pool,
            x,
        )?;
        spent.end(Step::Output);
        if let Some(trace) = trace {
            trace(number, "output.input", a);
            trace(number, "output.output", x);
        }
        rows(self.pool, h, hidden, &|token, h| {
            ops::add(h, &x[token * hidden..][..hidden])
        });
        spent.end(Step::Residual);
        Ok(())
    }

    /// `h += down(sub_norm(activation(gate(x)) * up(x)))` with `x = norm(h)`
    fn mlp(
        &mut self,
        number: usize,
        layer: &Layer,
        tokens: usize,
        trace: &mut Option<Trace<'_>>,
    ) -> Result<(), RunError> {
        let plan = &self.decoder.plan;
        let Shape {
            hidden,
            intermediate,
            ..
        } = plan.shape;
        let it = &mut self.scratch;
        let spent = &mut self.spent;
        let kernel = self.kernels[usize::from(tokens > 1)];
        let h = &mut it.hidden.numbers_mut::<f32>()?[..tokens * hidden];

        // x = norm(h)                                              [tokens, hidden]
        let x = &mut it.normed.numbers_mut::<f32>()?[..tokens * hidden];
        norm(self.pool, h, layer.mlp_norm.numbers()?, plan.norm_eps, x);
        spent.end(Step::Norm);
        // g, u = x Wg', x Wu'                                      [tokens, 2 intermediate]
        let gate_up = &mut it.gate_up.numbers_mut::<f32>()?[..tokens * 2 * intermediate];
        linear(
            &layer.gate_up,
            x,
            &mut it.codes.hidden,
            kernel,
            self.pool,
            gate_up,
        )?;
        spent.end(Step::GateUp);
        if let Some(trace) = trace {
            trace(number, "gate_up.input", x);
            trace(number, "gate_up.output", gate_up);
        }
        // m = activation(g) * u                                    [tokens, intermediate]
        let m = &mut it.gated.numbers_mut::<f32>()?[..tokens * intermediate];
        rows(self.pool, m, intermediate, &|token, m| {
            let gate_up = &gate_up[token * 2 * intermediate..][..2 * intermediate];
            let (gate, up) = gate_up.split_at(intermediate);
            ops::gate(plan.activation, gate, up, m);
        });
        spent.end(Step::Gate);
        // m = sub_norm(m)
        let inner = &mut it.inner.numbers_mut::<f32>()?[..tokens * intermediate];
        let m = match &layer.mlp_sub_norm {
            Some(gain) => {
                norm(self.pool, m, gain.numbers()?, plan.norm_eps, inner);
                spent.end(Step::Norm);
                inner
            }
            None => m,
        };
        // h = h + m Wd'                                            [tokens, hidden]
        linear(&layer.down, m, &mut it.codes.inner, kernel, self.pool, x)?;
        spent.end(Step::Down);
        if let Some(trace) = trace {
            trace(number, "down.input", m);
            trace(number, "down.output", x);
        }
        rows(self.pool, h, hidden, &|token, h| {
            ops::add(h, &x[token * hidden..][..hidden])
        });
        spent.end(Step::Residual);
        Ok(())
    }

    /// The logits of one of the tokens that went through the layers last.
    fn logits(&mut self, token: usize) -> Result<(), RunError> {
        let plan = &self.decoder.plan;
        let hidden = plan.shape.hidden;
        let h = &self.scratch.hidden.numbers::<f32>()?[token * hidden..][..hidden];
        let x = &mut self.scratch.normed.numbers_mut::<f32>()?[..hidden];
        self.spent.begin();
        ops::rms_norm(h, self.decoder.norm.numbers()?, plan.norm_eps, x);
        self.spent.end(Step::Norm);
        let logits = self.scratch.logits.numbers_mut::<f32>()?;
        self.decoder
            .head
            .logits(x, &mut self.scratch.last, self.pool, logits)?;
        self.spent.end(Step::Head);
        Ok(())
    }
}

/// A norm of every token.
fn norm(pool: &Pool, x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let width = gain.len();
    rows(pool, out, width, &|token, out| {
        ops::rms_norm(&x[token * width..][..width], gain, eps, out);
    });
}

/// A ternary layer on numbers.
fn linear(
    layer: &PackedBitLinear,
    x: &[f32],
    codes: &mut Activations,
    kernel: Runnable,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), RunError> {
    codes.requantize(x, Granularity::Token, pool)?;
    Ok(layer.multiply(codes, kernel, pool, out)?)
}

/// Turns each feature of the first half with that of the second.
fn rotate(head: &mut [f32], [cosines, sines]: [&[f32]; 2]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Cosines and sines of all positions. Frequencies and angles are floats of 32 bits, as in the published models; at the far end
/// of a long context their rounding is a part of the model.
fn turns(memory: &MemoryPool, plan: &Plan, context: usize) -> Result<[Tensor; 2], RunError> {
    let half = plan.shape.head_dim / 2;
    let zeros = || Tensor::zeros(memory, Dtype::F32, &[context, half], SCRATCH);
    let mut turns = [zeros()?, zeros()?];
    let frequency = |pair: usize| {
        let power = (2 * pair) as f32 / plan.shape.head_dim as f32;
        1.0 / plan.rope_theta.powf(power)
    };
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let [cosines, sines] = &mut turns;
    let rows = cosines.numbers_mut::<f32>()?.chunks_exact_mut(half);
    let rows = rows.zip(sines.numbers_mut::<f32>()?.chunks_exact_mut(half));
    for (position, (cosines, sines)) in rows.enumerate() {
        for (pair, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(position as f32 * frequency);
            cosines[pair] = angle.cos() as f32;
            sines[pair] = angle.sin() as f32;
        }
    }
    Ok(turns)
}
