//! Whole models: what transformers computes comes out.

// The interpreter maps no files.
#![cfg(not(miri))]

mod common;

use bitcost::bitlinear::Dequantization;
use bitcost::bitnet::{CacheBits, Decoder, HeadBits, Needed, Plan, Session, Settings, Source};
use bitcost::db::Db;
use bitcost::join::Headers;
use bitcost::kernels::{Activations, Granularity, Packing, Pool, available, best};
use bitcost::memory::{MemoryPool, PoolConfig};
use bitcost::model::{Asked, Model};
use bitcost::source::{self, Settings as From, Wanted};
use bitcost::value::Value;
use safetensors::SafeTensors;
use std::collections::HashMap;

/// A fixture: a model, and what transformers computes with it.
struct Fixture {
    headers: Headers,
    plan: Plan,
    rule: Dequantization,
    tensors: HashMap<String, Vec<f32>>,
    codes: Vec<i8>,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
}

const CLASSES: [(&str, Dequantization); 2] = [
    ("autobitlinear", Dequantization::AutoBitLinear),
    ("bitlinear", Dequantization::BitLinear),
];

impl Fixture {
    fn open((class, rule): (&str, Dequantization)) -> Fixture {
        let folder = common::fixture(&format!("bitnet_tiny/{class}"));
        let files = source::open(&folder, &Wanted::default(), &From::from_env()).expect("a model");
        let headers = Headers::read(
            &**files.files.as_ref().expect("files"),
            files.config.as_deref(),
        );
        let headers = headers.expect("headers").expect("weights");
        let db = Db::embedded().expect("the database");
        let model = Model::load(&db, files.config.expect("a config"), None).expect("a model");
        let workload = model.workload(&Asked::default()).expect("a workload");
        let tree = model.expand(&workload).expect("a tree");
        let bytes =
            std::fs::read(format!("{folder}/expected.safetensors")).expect("what is expected");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let mut tensors = HashMap::new();
        let mut codes = Vec::new();
        for (name, view) in file.tensors() {
            if name.ends_with("int8") {
                codes = view.data().iter().map(|code| *code as i8).collect();
                continue;
            }
            let (words, _) = view.data().as_chunks::<4>();
            tensors.insert(
                name,
                words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            );
        }
        let text =
            std::fs::read_to_string(format!("{folder}/expected.json")).expect("what is expected");
        let Value::Object(expected) = bitcost::json::read(&text).expect("JSON") else {
            panic!("an object")
        };
        let ids = |key: &str| match expected.get(key) {
            Some(Value::List(ids)) => ids
                .iter()
                .map(|id| id.as_int().expect("an id") as u32)
                .collect(),
            _ => panic!("{key}: a list"),
        };
        Fixture {
            plan: Plan::of(&model, &tree).expect("a plan"),
            headers,
            rule,
            tensors,
            codes,
            prompt: ids("prompt_ids"),
            greedy: ids("greedy_ids"),
        }
    }

    fn source(&self) -> Source<'_> {
        Source::Checkpoint {
            checkpoint: &self.headers.checkpoint,
            weights: &self.headers.weights,
            rule: self.rule,
        }
    }

    fn load(&self, memory: &MemoryPool, settings: &Settings) -> Decoder {
        Decoder::load(
            memory,
            self.plan.clone(),
            self.source(),
            settings,
            &|_, _| {},
        )
        .expect("a decoder")
    }

    fn furthest(&self, name: &str, from: usize, stride: usize, given: &[f32]) -> f32 {
        let expected = &self.tensors[name];
        let cols = expected.len() / self.prompt.len();
        let rows = expected.chunks(cols).zip(given.chunks(stride));
        let numbers =
            rows.flat_map(|(expected, given)| expected.iter().zip(&given[from..from + cols]));
        numbers.fold(0.0, |most, (a, b)| most.max((a - b).abs()))
    }
}

const SETTINGS: Settings = Settings {
    packing: Packing::Planes,
    head: HeadBits::Stored,
    cache: CacheBits::F32,
    context: 64,
};

fn memory() -> MemoryPool {
    MemoryPool::new(PoolConfig::default())
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("logits").0 as u32
}

#[test]
fn both_linear_classes_give_the_numbers_of_transformers() {
    for class in CLASSES {
        let fixture = Fixture::open(class);
        for packing in Packing::ALL {
            let settings = Settings {
                packing,
                ..SETTINGS
            };
            let (memory, pool) = (memory(), Pool::new(2));
            let decoder = fixture.load(&memory, &settings);
            let mut session = Session::new(&memory, &decoder, &settings, best(packing, 1), &pool)
                .expect("a session");
            let mut logits = Vec::new();
            let mut apart: Vec<(String, f32)> = Vec::new();
            let mut codes = Vec::new();
            let shape = fixture.plan.shape;
            let qkv = shape.attention() + 2 * shape.kv();
            session
                .feed_traced(
                    &fixture.prompt,
                    &mut |of_token| logits.extend_from_slice(of_token),
                    Some(&mut |layer, what, numbers| {
                        if layer != 0 {
                            return;
                        }
                        let (name, from, stride) = match what {
                            "qkv.input" => ("self_attn.q_proj.in", 0, shape.hidden),
                            "qkv.output" => ("self_attn.q_proj.out", 0, qkv),
                            "output.input" => ("self_attn.o_proj.in", 0, shape.attention()),
                            "output.output" => ("self_attn.o_proj.out", 0, shape.hidden),
                            "gate_up.input" => ("mlp.gate_proj.in", 0, shape.hidden),
                            "gate_up.output" => ("mlp.gate_proj.out", 0, 2 * shape.intermediate),
                            "down.input" => ("mlp.down_proj.in", 0, shape.intermediate),
                            "down.output" => ("mlp.down_proj.out", 0, shape.hidden),
                            other => panic!("{other}"),
                        };
                        let name = format!("layer_io.layers.0.{name}");
                        let most = fixture.furthest(&name, from, stride, numbers);
                        apart.push((name, most));
                        if what == "qkv.input" {
                            let x = Activations::quantize(
                                numbers,
                                shape.hidden,
                                Granularity::Token,
                                &pool,
                            );
                            let x = x.expect("codes");
                            codes = (0..x.tokens()).flat_map(|token| x.codes(token)).collect();
                        }
                    }),
                )
                .expect("logits");
            assert_eq!(apart.len(), 8);
            apart.push((
                "prompt_logits".into(),
                fixture.furthest("prompt_logits", 0, shape.vocabulary, &logits),
            ));
            for (name, most) in &apart {
                assert!(*most < 1e-4, "{}: {name} is {most:e} off", class.0);
            }
            assert_eq!(codes, fixture.codes);

            let mut next = greedy(&logits[logits.len() - shape.vocabulary..]);
            for (step, expected) in fixture.greedy.iter().enumerate() {
                assert_eq!(next, *expected, "{}: token {step}", class.0);
                next = greedy(session.feed(&[next]).expect("logits"));
            }
        }
    }
}

#[test]
fn any_kernel_threads_and_pieces_give_the_same_bits() {
    let fixture = Fixture::open(CLASSES[0]);
    let mut first: Option<Vec<u32>> = None;
    for threads in [1, 3] {
        for kernel in available() {
            let settings = Settings {
                packing: kernel.packing,
                ..SETTINGS
            };
            let (memory, pool) = (memory(), Pool::new(threads));
            let decoder = fixture.load(&memory, &settings);
            let mut session =
                Session::new(&memory, &decoder, &settings, *kernel, &pool).expect("a session");
            session.feed(&fixture.prompt).expect("logits");
            let logits = session.feed(&[7]).expect("logits");
            let bits: Vec<u32> = logits.iter().map(|x| x.to_bits()).collect();
            assert_eq!(
                *first.get_or_insert_with(|| bits.clone()),
                bits,
                "{} on {threads} threads",
                kernel.name
            );
        }
    }
}

/// How far logits are from those of a cache of 32 bits and the output matrix as it is stored: length of the difference over
/// length.
fn off(fixture: &Fixture, settings: Settings) -> f64 {
    let logits = |settings: Settings| {
        let (memory, pool) = (memory(), Pool::alone());
        let decoder = fixture.load(&memory, &settings);
        let kernel = best(settings.packing, 1);
        let mut session =
            Session::new(&memory, &decoder, &settings, kernel, &pool).expect("a session");
        let mut all = session.feed(&fixture.prompt).expect("logits").to_vec();
        for id in [5, 300, 17] {
            all.extend_from_slice(session.feed(&[id]).expect("logits"));
        }
        all
    };
    let (exact, other) = (logits(SETTINGS), logits(settings));
    let square = |x: f32| f64::from(x).powi(2);
    let apart: f64 = exact.iter().zip(&other).map(|(a, b)| square(a - b)).sum();
    (apart / exact.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

#[test]
fn an_output_matrix_of_8_bits_is_near() {
    let fixture = Fixture::open(CLASSES[0]);
    let head = off(
        &fixture,
        Settings {
            head: HeadBits::Eight,
            ..SETTINGS
        },
    );
    // A number of a row is off by half a step of 1/127 of the largest at most, and rounding goes both ways.
    assert!(head > 0.0 && head < 0.01, "{head}");
}

#[test]
fn one_token_after_the_other_is_all_of_them_at_once() {
    let fixture = Fixture::open(CLASSES[1]);
    let (memory, pool) = (memory(), Pool::new(2));
    let decoder = fixture.load(&memory, &SETTINGS);
    let kernel = best(Packing::Planes, 1);
    let mut session = Session::new(&memory, &decoder, &SETTINGS, kernel, &pool).expect("a session");
    let at_once = session.feed(&fixture.prompt).expect("logits").to_vec();
    session.reset();
    let mut last = Vec::new();
    for id in &fixture.prompt {
        last = session.feed(&[*id]).expect("logits").to_vec();
    }
    let most = at_once
        .iter()
        .zip(&last)
        .fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(most < 1e-5, "{most:e}");
}

#[test]
fn a_pool_holds_what_was_said_to_be_needed() {
    let fixture = Fixture::open(CLASSES[0]);
    for source in [fixture.source(), Source::Random { seed: 1 }] {
        for (head, cache) in [
            (HeadBits::Stored, CacheBits::F32),
            (HeadBits::Eight, CacheBits::I8),
        ] {
            let settings = Settings {
                head,
                cache,
                ..SETTINGS
            };
            let needed = Needed::of(&fixture.plan, source, &settings).expect("sizes");
            let (memory, pool) = (memory(), Pool::alone());
            let plan = fixture.plan.clone();
            let decoder = Decoder::load(&memory, plan, source, &settings, &|_, _| {});
            let decoder = decoder.expect("a decoder");
            let kernel = best(Packing::Planes, 1);
            let session = Session::new(&memory, &decoder, &settings, kernel, &pool);
            let session = session.expect("a session");
            let metrics = memory.metrics();
            let of = |name: &str| {
                let tag = metrics.tags.iter().find(|tag| tag.name == name);
                tag.expect("a tag").live_bytes
            };
            assert_eq!(of("packed weights"), needed.weights);
            assert_eq!(of("output matrix"), needed.head);
            assert_eq!(of("kv cache"), needed.cache);
            assert_eq!(of("scratch"), needed.scratch);
            drop(session);
            drop(decoder);
            assert_eq!(memory.metrics().live_bytes, 0);
        }
    }
}

#[test]
fn what_cannot_run_is_said_before() {
    let fixture = Fixture::open(CLASSES[0]);
    let (memory, pool) = (memory(), Pool::alone());
    let settings = Settings {
        context: 13,
        ..SETTINGS
    };
    let decoder = fixture.load(&memory, &settings);
    let kernel = best(Packing::Planes, 1);
    let mut session = Session::new(&memory, &decoder, &settings, kernel, &pool).expect("a session");
    let refused =
        |e: Result<&[f32], bitcost::bitnet::RunError>| e.expect_err("refused").to_string();
    assert_eq!(
        refused(session.feed(&[])),
        "there are no tokens to begin with"
    );
    assert_eq!(
        refused(session.feed(&[384])),
        "token 384 is beyond the vocabulary of 384"
    );
    session.feed(&fixture.prompt).expect("12 tokens");
    assert_eq!(
        refused(session.feed(&[1, 2])),
        "14 tokens are more than the context of 13; give --context up to 256"
    );
    session.feed(&[1]).expect("13 tokens");
}
