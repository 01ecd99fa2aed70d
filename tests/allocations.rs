//! A step for one token takes no memory.

use bitcost::bitnet::{CacheBits, Decoder, HeadBits, Plan, Session, Settings, Source};
use bitcost::db::Db;
use bitcost::kernels::{Packing, Pool, best};
use bitcost::memory::{MemoryPool, PoolConfig};
use bitcost::model::{Asked, Model};
use bitcost::text::{Sampler, Sampling};
use bitcost::value::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, counted, on every thread.
struct Counted;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is handed to the system's allocator as it comes.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller keeps the promises of this function.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of this function.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[test]
fn a_step_for_one_token_takes_no_memory() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bitnet_tiny/bitlinear");
    let text = std::fs::read_to_string(folder.join("config.json")).expect("a config");
    let Value::Object(config) = bitcost::json::read(&text).expect("JSON") else {
        panic!("an object")
    };
    let db = Db::embedded().expect("the database");
    let model = Model::load(&db, config, None).expect("a model");
    let tree = model
        .expand(&model.workload(&Asked::default()).expect("a workload"))
        .expect("a tree");
    let plan = Plan::of(&model, &tree).expect("a plan");
    for (threads, cache, head, temperature) in [
        (1, CacheBits::F32, HeadBits::Stored, 0.0),
        (2, CacheBits::F16, HeadBits::Eight, 0.7),
        (3, CacheBits::I8, HeadBits::Stored, 0.7),
    ] {
        let (memory, pool) = (MemoryPool::new(PoolConfig::default()), Pool::new(threads));
        let settings = Settings {
            packing: Packing::Planes,
            head,
            cache,
            context: 64,
        };
        let source = Source::Random { seed: 1 };
        let decoder =
            Decoder::load(&memory, plan.clone(), source, &settings, &|_, _| {}).expect("a decoder");
        let kernel = best(settings.packing, 1);
        let mut session =
            Session::new(&memory, &decoder, &settings, kernel, &pool).expect("a session");
        let sampling = Sampling {
            temperature,
            top_k: Some(20),
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(sampling).expect("a sampler");
        let mut next = sampler
            .next(session.feed(&[1, 2, 3, 4, 5]).expect("logits"))
            .expect("a token");
        // The first single token makes room for its codes.
        next = sampler
            .next(session.feed(&[next]).expect("logits"))
            .expect("a token");
        let blocks = memory.metrics().allocations;
        let calls = CALLS.load(Ordering::SeqCst);
        for _ in 0..40 {
            next = sampler
                .next(session.feed(&[next]).expect("logits"))
                .expect("a token");
        }
        let after = CALLS.load(Ordering::SeqCst);
        assert_eq!(after - calls, 0, "{threads} threads");
        assert_eq!(memory.metrics().allocations, blocks);
    }
}
