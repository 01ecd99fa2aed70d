//! How fast a whole model runs, against what memory and multipliers allow: `cargo bench --bench decode`.
//!
//! The 2B-4T configuration of the catalog with random weights: speed does not depend on what weights are. Each run decodes
//! tokens one by one and reads memory plainly between them, so that what slows the machine for a moment slows both; medians are
//! told. Ratios are bytes that must be read over time, over the plain read. `BITCOST_BENCH_TOKENS` sets how many tokens.

#![allow(clippy::print_stdout)]

use bitcost::bitnet::{CacheBits, Decoder, HeadBits, Plan, Session, Settings, Source, Spent, Step};
use bitcost::db::Db;
use bitcost::kernels::measure::median;
use bitcost::kernels::probe::{peak_gmac_s, read_gb_s};
use bitcost::kernels::{Isa, Packing, Pool, available};
use bitcost::memory::{MemoryPool, PoolConfig};
use bitcost::model::{Asked, Model};
use bitcost::source::Catalog;
use std::time::Instant;

const MODEL: &str = "microsoft/bitnet-b1.58-2B-4T";

fn main() {
    let known = Catalog::embedded()
        .get(MODEL)
        .expect("a model of the catalog");
    let db = Db::embedded().expect("the database");
    let model = Model::load(&db, known.config, known.root.as_deref()).expect("a model");
    let tree = model
        .expand(&model.workload(&Asked::default()).expect("a workload"))
        .expect("a tree");
    let plan = Plan::of(&model, &tree).expect("a plan");
    let tokens = std::env::var("BITCOST_BENCH_TOKENS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    println!(
        "{:>5} {:>5} {:>8} {:>8} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7}",
        "bits",
        "head",
        "threads",
        "kernel",
        "read GB/s",
        "linear",
        "ratio",
        "logits",
        "ratio",
        "other",
        "token/s",
        "ratio"
    );
    for packing in Packing::ALL {
        for head in [HeadBits::Stored, HeadBits::Eight] {
            let settings = Settings {
                packing,
                head,
                cache: CacheBits::F32,
                context: 512,
            };
            let memory = MemoryPool::new(PoolConfig::default());
            let start = Instant::now();
            let decoder = Decoder::load(
                &memory,
                plan.clone(),
                Source::Random { seed: 1 },
                &settings,
                &|_, _| {},
            );
            let decoder = decoder.expect("a model");
            let loaded = start.elapsed();
            for threads in [1, 2] {
                let pool = Pool::new(threads);
                for kernel in available()
                    .iter()
                    .filter(|kernel| kernel.packing == packing)
                {
                    if kernel.isa != Isa::Scalar {
                        decode(&memory, &decoder, &settings, *kernel, &pool, tokens);
                    }
                }
                if head == HeadBits::Stored {
                    prefill(&memory, &decoder, &settings, &pool);
                }
            }
            println!("made in {:.2} s", loaded.as_secs_f64());
        }
    }
}

fn decode(
    memory: &MemoryPool,
    decoder: &Decoder,
    settings: &Settings,
    kernel: bitcost::kernels::Runnable,
    pool: &Pool,
    tokens: usize,
) {
    let mut session = Session::new(memory, decoder, settings, kernel, pool).expect("a session");
    session.feed(&[1; 8]).expect("logits");
    let (mut reads, mut spents) = (Vec::new(), Vec::<Spent>::new());
    let mut ratios = [const { Vec::new() }; 3];
    let shape = decoder.plan.shape;
    for _ in 0..tokens {
        let before = read_gb_s(decoder.region(), pool);
        session.take_spent();
        session.feed(&[2]).expect("logits");
        let spent = session.take_spent();
        let read = (before + read_gb_s(decoder.region(), pool)) / 2.0;
        let linear: u64 = Step::LINEAR.iter().map(|step| spent.of(*step)).sum();
        let cache = (session.position() * shape.kv() * 2 * 4 * shape.layers) as u64;
        let all = decoder.ternary_bytes() + decoder.head_bytes() + cache;
        ratios[0].push(decoder.ternary_bytes() as f64 / linear as f64 / read);
        ratios[1].push(decoder.head_bytes() as f64 / spent.of(Step::Head) as f64 / read);
        ratios[2].push(all as f64 / spent.total() as f64 / read);
        reads.push(read);
        spents.push(spent);
    }
    let milliseconds = |of: &dyn Fn(&Spent) -> u64| {
        median(
            &mut spents
                .iter()
                .map(|spent| of(spent) as f64 / 1e6)
                .collect::<Vec<_>>(),
        )
    };
    let linear = milliseconds(&|spent| Step::LINEAR.iter().map(|step| spent.of(*step)).sum());
    let logits = milliseconds(&|spent| spent.of(Step::Head));
    let all = milliseconds(&|spent| spent.total());
    let [of_linear, of_head, of_all] = ratios.each_mut().map(|ratios| median(ratios));
    println!(
        "{:>5} {:>5} {:>8} {:>8} {:>9.1} {linear:>7.2} {of_linear:>7.3} {logits:>7.2} {of_head:>7.3} {:>8.2} {:>8.1} {of_all:>7.3}",
        settings.packing.name(),
        if settings.head == HeadBits::Stored {
            16
        } else {
            8
        },
        pool.threads(),
        kernel.isa.name(),
        median(&mut reads),
        all - linear - logits,
        1e3 / all,
    );
}

/// 128 tokens at once: products a nanosecond in the linear layers, over what the widest instruction alone does.
fn prefill(memory: &MemoryPool, decoder: &Decoder, settings: &Settings, pool: &Pool) {
    const TOKENS: usize = 128;
    let kernel = bitcost::kernels::best(settings.packing, TOKENS);
    let mut session = Session::new(memory, decoder, settings, kernel, pool).expect("a session");
    let products = decoder.plan.ternary_products() as f64 * TOKENS as f64;
    let (mut ratios, mut linears, mut alls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let before = peak_gmac_s(kernel.isa, pool);
        session.reset();
        session.take_spent();
        session.feed(&[3; TOKENS]).expect("logits");
        let spent = session.take_spent();
        let linear: u64 = Step::LINEAR.iter().map(|step| spent.of(*step)).sum();
        if let (Some(before), Some(after)) = (before, peak_gmac_s(kernel.isa, pool)) {
            ratios.push(products / linear as f64 / ((before + after) / 2.0));
        }
        linears.push(linear as f64 / 1e6);
        alls.push(spent.total() as f64 / 1e6);
    }
    if !ratios.is_empty() {
        println!(
            "{TOKENS} tokens at once, {}, {} threads: linear {:.1} ms, {:.3} of the peak; all {:.1} ms",
            kernel.name,
            pool.threads(),
            median(&mut linears),
            median(&mut ratios),
            median(&mut alls)
        );
    }
}
