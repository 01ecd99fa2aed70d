//! The stable JSON of a text that a whole model made, and what is told of it to people.

use super::table::grid;
use super::tool::{TOOL, Tool};
use crate::bitnet::{Generated, Needed, Step, Took};
use crate::kernels::Runnable;
use crate::memory::Metrics;
use crate::units::{binary, decimal};
use serde::Serialize;
use std::fmt::Write;

/// A text that a model made.
pub struct Sequence<'s> {
    /// What the model was asked for by.
    pub model: String,
    /// Whether its weights are made up.
    pub random: bool,
    /// The kernel for single tokens.
    pub kernel: Runnable,
    /// Threads.
    pub threads: usize,
    /// Room for tokens.
    pub context: usize,
    /// Width of a cached number.
    pub kv_bits: u32,
    /// Width of a number of the output matrix.
    pub head_bits: u32,
    /// Packed bytes that a token reads.
    pub ternary_bytes: u64,
    /// Bytes of the output matrix that it reads.
    pub head_bytes: u64,
    /// What went in.
    pub prompt_ids: &'s [u32],
    /// The text, where there is a tokenizer.
    pub text: Option<&'s str>,
    /// What loading took.
    pub load_seconds: f64,
    /// What came out.
    pub made: &'s Generated,
    /// What it took of memory.
    pub memory: Memory<'s>,
    /// What was predicted, where that was asked for.
    pub figures: Option<Figures>,
}

/// What was predicted of memory, and what the pool says.
pub struct Memory<'s> {
    /// Predicted.
    pub needed: Needed,
    /// Measured.
    pub measured: &'s Metrics,
}

/// What was predicted of the steps, and what the machine reaches.
pub struct Figures {
    /// Bytes a nanosecond that all threads read, measured beside the run.
    pub read_gb_s: f64,
    /// Products a nanosecond of the kernel's instruction, where it is one that is known.
    pub peak_gmac_s: Option<f64>,
    /// Of the prompt.
    pub prompt: Predicted,
    /// Of the tokens after it.
    pub decode: Predicted,
}

/// Products and bytes by step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Predicted {
    /// In the order of [`Step::ALL`].
    pub steps: [(u128, u128); Step::ALL.len()],
}

#[derive(Serialize)]
struct SequenceJson<'s> {
    schema: &'static str,
    tool: Tool,
    model: &'s str,
    random_weights: bool,
    kernel: &'static str,
    packing: &'static str,
    threads: usize,
    context: usize,
    kv_bits: u32,
    head_bits: u32,
    prompt_ids: &'s [u32],
    generated_ids: &'s [u32],
    text: Option<&'s str>,
    ended: &'static str,
    timings: TimingsJson,
    memory: MemoryJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<ProfileJson>,
}

#[derive(Serialize)]
struct TimingsJson {
    load_seconds: f64,
    prompt: TookJson,
    decode: TookJson,
}

#[derive(Serialize)]
struct TookJson {
    tokens: usize,
    seconds: f64,
    tokens_per_second: Option<f64>,
    /// As if the output matrix took no time.
    tokens_per_second_without_logits: Option<f64>,
}

#[derive(Serialize)]
struct MemoryJson {
    predicted: PredictedMemoryJson,
    peak_bytes: Option<u64>,
    live: Vec<TagJson>,
    ternary_bytes_per_token: u64,
    head_bytes_per_token: u64,
}

#[derive(Serialize)]
struct PredictedMemoryJson {
    weights: u64,
    head: u64,
    cache: u64,
    scratch: u64,
    total: u64,
}

#[derive(Serialize)]
struct TagJson {
    tag: &'static str,
    bytes: u64,
}

#[derive(Serialize)]
struct ProfileJson {
    read_gb_s: f64,
    peak_gmac_s: Option<f64>,
    prompt: Vec<StepJson>,
    decode: Vec<StepJson>,
}

#[derive(Serialize)]
struct StepJson {
    step: &'static str,
    macs: u128,
    bytes: u128,
    limit_us: f64,
    measured_us: f64,
    of_limit: Option<f64>,
}

impl From<&Took> for TookJson {
    fn from(took: &Took) -> TookJson {
        TookJson {
            tokens: took.tokens,
            seconds: took.time.as_secs_f64(),
            tokens_per_second: took.tokens_per_second(),
            tokens_per_second_without_logits: without_logits(took),
        }
    }
}

/// Tokens a second if logits took no time: what the layers alone reach.
fn without_logits(took: &Took) -> Option<f64> {
    let logits = took.spent.of(Step::Head) as f64 / 1e9;
    let seconds = took.time.as_secs_f64() - logits;
    (took.tokens > 0 && seconds > 0.0).then(|| took.tokens as f64 / seconds)
}

impl Figures {
    /// The steps of a phase; those that neither were predicted nor took time are left out.
    fn steps(&self, predicted: &Predicted, took: &Took) -> Vec<StepJson> {
        let steps = Step::ALL.into_iter().zip(predicted.steps);
        let told = steps.map(|(step, (macs, bytes))| {
            let measured_us = took.spent.of(step) as f64 / 1e3;
            let limit_us = self.limit_us(macs, bytes);
            StepJson {
                step: step.name(),
                macs,
                bytes,
                limit_us,
                measured_us,
                of_limit: (limit_us > 0.0 && measured_us > 0.0).then(|| limit_us / measured_us),
            }
        });
        told.filter(|step| step.measured_us > 0.0 || step.bytes > 0)
            .collect()
    }

    /// The longer of what memory and multipliers take at least.
    fn limit_us(&self, macs: u128, bytes: u128) -> f64 {
        let reading = bytes as f64 / self.read_gb_s / 1e3;
        let multiplying = self
            .peak_gmac_s
            .map_or(0.0, |peak| macs as f64 / peak / 1e3);
        reading.max(multiplying)
    }
}

/// The object of `bitcost.generate/1`.
pub fn json<'s>(it: &'s Sequence<'_>) -> impl Serialize + 's {
    let needed = it.memory.needed;
    SequenceJson {
        schema: "bitcost.generate/1",
        tool: TOOL,
        model: &it.model,
        random_weights: it.random,
        kernel: it.kernel.name,
        packing: it.kernel.packing.name(),
        threads: it.threads,
        context: it.context,
        kv_bits: it.kv_bits,
        head_bits: it.head_bits,
        prompt_ids: it.prompt_ids,
        generated_ids: &it.made.ids,
        text: it.text,
        ended: it.made.ended.name(),
        timings: TimingsJson {
            load_seconds: it.load_seconds,
            prompt: (&it.made.prompt).into(),
            decode: (&it.made.decode).into(),
        },
        memory: MemoryJson {
            predicted: PredictedMemoryJson {
                weights: needed.weights,
                head: needed.head,
                cache: needed.cache,
                scratch: needed.scratch,
                total: needed.total(),
            },
            peak_bytes: it.memory.measured.peak_bytes,
            live: it
                .memory
                .measured
                .tags
                .iter()
                .map(|tag| TagJson {
                    tag: tag.name,
                    bytes: tag.live_bytes,
                })
                .collect(),
            ternary_bytes_per_token: it.ternary_bytes,
            head_bytes_per_token: it.head_bytes,
        },
        profile: it.figures.as_ref().map(|figures| ProfileJson {
            read_gb_s: figures.read_gb_s,
            peak_gmac_s: figures.peak_gmac_s,
            prompt: figures.steps(&figures.prompt, &it.made.prompt),
            decode: figures.steps(&figures.decode, &it.made.decode),
        }),
    }
}

/// What a text took, in a few lines.
pub fn summary(it: &Sequence<'_>) -> String {
    let mut out = String::new();
    let rate = |rate: Option<f64>| rate.map_or("n/a".into(), |rate| format!("{rate:.1}"));
    let (prompt, decode) = (&it.made.prompt, &it.made.decode);
    let _ = writeln!(
        out,
        "loaded in {:.2} s; prompt: {} tokens in {:.2} s, {} a second; then {} tokens in {:.2} s, {} a second, {} without the output \
         matrix; ended by {}",
        it.load_seconds,
        prompt.tokens,
        prompt.time.as_secs_f64(),
        rate(prompt.tokens_per_second()),
        it.made.ids.len(),
        decode.time.as_secs_f64(),
        rate(decode.tokens_per_second()),
        rate(without_logits(decode)),
        it.made.ended.name(),
    );
    let _ = writeln!(
        out,
        "{}, {} threads, {} bits a ternary weight, output matrix of {} bits, cache of {} bits for {} tokens{}",
        it.kernel.name,
        it.threads,
        it.kernel.packing.name(),
        it.head_bits,
        it.kv_bits,
        it.context,
        if it.random {
            "; weights are random, and so is the text"
        } else {
            ""
        }
    );
    let needed = it.memory.needed;
    let _ = writeln!(
        out,
        "memory: {} at its peak, {} predicted (weights {}, output matrix {}, cache {}, scratch {}); a token reads {} of ternary weights \
         and {} of the output matrix",
        it.memory
            .measured
            .peak_bytes
            .map_or("n/a".into(), |bytes| binary(bytes.into())),
        binary(needed.total().into()),
        binary(needed.weights.into()),
        binary(needed.head.into()),
        binary(needed.cache.into()),
        binary(needed.scratch.into()),
        binary(it.ternary_bytes.into()),
        binary(it.head_bytes.into()),
    );
    out
}

/// Predicted beside measured, a table for each phase.
pub fn profile(it: &Sequence<'_>) -> String {
    let Some(figures) = &it.figures else {
        return String::new();
    };
    let mut out = String::new();
    let phases = [
        ("prompt", &figures.prompt, &it.made.prompt),
        ("tokens after it", &figures.decode, &it.made.decode),
    ];
    for (name, predicted, took) in phases {
        let steps = figures.steps(predicted, took);
        if took.tokens == 0 {
            continue;
        }
        let micros = |us: f64| format!("{us:.1}");
        let total: f64 = took.time.as_secs_f64() * 1e6;
        let mut rows: Vec<Vec<String>> = Vec::new();
        let row = |step: &str, macs: u128, bytes: u128, limit: f64, measured: f64| {
            let of_limit = match limit > 0.0 && measured > 0.0 {
                true => format!("{:.0} %", limit / measured * 100.0),
                false => "-".into(),
            };
            vec![
                step.to_string(),
                decimal(macs),
                binary(bytes),
                micros(limit),
                micros(measured),
                of_limit,
                format!("{:.1} %", measured / total * 100.0),
            ]
        };
        for it in &steps {
            rows.push(row(it.step, it.macs, it.bytes, it.limit_us, it.measured_us));
        }
        let sum = |of: &dyn Fn(&StepJson) -> u128| steps.iter().map(of).sum::<u128>();
        let (macs, bytes) = (sum(&|step| step.macs), sum(&|step| step.bytes));
        let limit = steps.iter().map(|step| step.limit_us).sum();
        rows.push(row("all", macs, bytes, limit, total));
        let _ = writeln!(out, "{name}: {} tokens", took.tokens);
        let headings = [
            "step", "MACs", "bytes", "limit us", "took us", "of limit", "of all",
        ];
        out.push_str(&grid(&headings, rows, false));
        out.push('\n');
    }
    let peak = match figures.peak_gmac_s {
        Some(peak) => format!("and MACs over {peak:.0} GMAC/s, "),
        None => String::new(),
    };
    let _ = writeln!(
        out,
        "limit: the longer of bytes over {:.1} GB/s {peak}measured beside the run; weights are counted as they lie packed, the rest as \
         the analyzer predicts it: activations that a cache holds are faster than that",
        figures.read_gb_s,
    );
    out
}
