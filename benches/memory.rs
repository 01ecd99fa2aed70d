//! How fast the pool gives out memory, against the system's allocator and mimalloc:
//! `cargo bench --bench memory --features mimalloc`.
//!
//! A pair is one block taken and given back, in nanoseconds. Every number is the median of [`ROUNDS`] rounds, in which all that
//! are compared take turns. Requests of a mix are between 64 bytes and 1 MiB, as many of every doubling, in random order.

#![allow(clippy::print_stdout)]

use bitcost::memory::{Block, MemoryPool, PoolConfig, Tag, Tracking};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

const ROUNDS: usize = 15;
const TAG: Tag = Tag::of("bench");
const LEVELS: [Tracking; 4] = [
    Tracking::None,
    Tracking::Basic,
    Tracking::Standard,
    Tracking::Detailed,
];

fn main() {
    // Names after `--` choose parts.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let parts: [(&str, fn()); 4] = [
        ("sizes", sizes),
        ("mix", || [1, 64].into_iter().for_each(mix)),
        ("threads", threads),
        ("overhead", overhead),
    ];
    for (name, part) in parts {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            part();
        }
    }
}

/// Something that gives out memory.
trait Allocator: Sync {
    /// What it gives out, until it is dropped.
    type Memory;

    fn take(&self, bytes: usize) -> Self::Memory;

    /// Where it is. Who measures says that this is used, and not the handle: writing that to memory is no part of a pair.
    fn start(memory: &Self::Memory) -> *const u8;
}

impl Allocator for MemoryPool {
    type Memory = Block;

    #[inline(always)]
    fn take(&self, bytes: usize) -> Block {
        self.allocate(bytes, 64, TAG).expect("memory")
    }

    #[inline(always)]
    fn start(block: &Block) -> *const u8 {
        block.bytes().as_ptr()
    }
}

/// A general allocator, as a value that can be made anywhere.
trait General: GlobalAlloc + Sync + Sized + 'static {
    const HERE: Self;
}

impl General for System {
    const HERE: System = System;
}

#[cfg(feature = "mimalloc")]
impl General for mimalloc::MiMalloc {
    const HERE: mimalloc::MiMalloc = mimalloc::MiMalloc;
}

/// What a general allocator gives out.
struct Memory<G: General>(*mut u8, Layout, PhantomData<G>);

struct Of<G>(G);

impl<G: General> Allocator for Of<G> {
    type Memory = Memory<G>;

    #[inline(always)]
    #[allow(unsafe_code)]
    fn take(&self, bytes: usize) -> Memory<G> {
        let layout = Layout::from_size_align(bytes, 64).expect("a layout");
        // SAFETY: no request is of 0 bytes.
        Memory(unsafe { self.0.alloc(layout) }, layout, PhantomData)
    }

    #[inline(always)]
    fn start(memory: &Memory<G>) -> *const u8 {
        memory.0
    }
}

impl<G: General> Drop for Memory<G> {
    #[inline(always)]
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: `take` got it there with this layout.
        unsafe { G::HERE.dealloc(self.0, self.1) }
    }
}

/// What is measured, compiled for each allocator.
trait Contestant: Sync {
    /// Pairs of one size.
    fn same(&self, bytes: usize, pairs: usize);

    /// Pairs of many sizes, with a power of two of blocks that are live.
    fn mixed(&self, requests: &[usize], live: usize, pairs: usize);
}

impl<A: Allocator> Contestant for A {
    fn same(&self, bytes: usize, pairs: usize) {
        for _ in 0..pairs {
            let memory = self.take(black_box(bytes));
            black_box(A::start(&memory));
        }
    }

    fn mixed(&self, requests: &[usize], live: usize, pairs: usize) {
        let mut blocks: Vec<Option<A::Memory>> = (0..live).map(|_| None).collect();
        for (number, bytes) in requests.iter().cycle().take(pairs).enumerate() {
            let place = &mut blocks[number & (live - 1)];
            *place = None;
            black_box(A::start(place.insert(self.take(*bytes))));
        }
    }
}

type Named = (&'static str, Box<dyn Contestant>);

/// The pool with little tracking and with its default, and those it is compared with.
fn contestants() -> Vec<Named> {
    vec![
        ("pool none", pool(Tracking::None)),
        ("pool basic", pool(Tracking::Basic)),
        ("system", Box::new(Of(System))),
        #[cfg(feature = "mimalloc")]
        ("mimalloc", Box::new(Of(mimalloc::MiMalloc))),
    ]
}

fn pool(tracking: Tracking) -> Box<dyn Contestant> {
    Box::new(MemoryPool::new(PoolConfig {
        tracking,
        ..PoolConfig::default()
    }))
}

/// Pairs of one size each.
fn sizes() {
    let contestants = contestants();
    let names = contestants.iter().map(|(name, _)| format!("{name:>11}"));
    println!(
        "ns a pair, by bytes\n{:>10} {}",
        "",
        names.collect::<String>()
    );
    for shift in 6..27 {
        for bytes in [1usize << shift, 3 << (shift - 1)] {
            let pairs = if bytes < 1 << 19 { 20_000 } else { 1000 };
            let times = medians(&contestants, pairs, |contestant| {
                contestant.same(bytes, pairs);
            });
            println!("{bytes:>10} {}", row(&times));
        }
    }
}

/// Pairs of many sizes, with so many blocks live at a time.
fn mix(live: usize) {
    let mut contestants = contestants();
    contestants.extend([
        ("standard", pool(Tracking::Standard)),
        ("detailed", pool(Tracking::Detailed)),
    ]);
    let requests = requests(1);
    let times = medians(&contestants, 20_000, |contestant| {
        contestant.mixed(&requests, live, 20_000);
    });
    println!("\nns a pair, mix of 64 B to 1 MiB, {live} live at a time");
    for ((name, _), time) in contestants.iter().zip(&times) {
        println!("{name:>11} {time:8.1}");
    }
}

/// Millions of pairs a second of a mix by all threads together.
fn threads() {
    println!(
        "\nmillions of pairs a second, mix, by threads\n{:>11} {:>8} {:>8} {:>8} {:>8}",
        "", 1, 2, 16, "16 of 2"
    );
    let mut contestants = contestants();
    contestants.push(("standard", pool(Tracking::Standard)));
    for (name, contestant) in contestants {
        let rate = |threads| {
            let mut rates: Vec<f64> = (0..7).map(|_| rate(&*contestant, threads)).collect();
            rates.sort_by(f64::total_cmp);
            rates[3]
        };
        let [one, two, many] = [1, 2, 16].map(rate);
        println!(
            "{name:>11} {one:8.1} {two:8.1} {many:8.1} {:8.2}",
            many / two
        );
    }
}

fn rate(contestant: &dyn Contestant, threads: u64) -> f64 {
    const PAIRS: usize = 1 << 19;
    let each = PAIRS / threads as usize;
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..threads {
            scope.spawn(move || contestant.mixed(&requests(number), 8, each));
        }
    });
    PAIRS as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Sizes between 64 bytes and 1 MiB, as many of every doubling.
fn requests(seed: u64) -> Vec<usize> {
    let mut state = seed * 2 + 1;
    let mut random = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    (0..4096)
        .map(|_| (64.0 * 2f64.powf(14.0 * random())) as usize)
        .collect()
}

/// Of each, the median of nanoseconds a pair.
fn medians(of: &[Named], pairs: usize, work: impl Fn(&dyn Contestant)) -> Vec<f64> {
    let mut rounds = vec![Vec::new(); of.len()];
    for _ in 0..ROUNDS {
        for ((_, contestant), times) in of.iter().zip(&mut rounds) {
            let start = Instant::now();
            work(&**contestant);
            times.push(start.elapsed().as_secs_f64() * 1e9 / pairs as f64);
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    rounds.into_iter().map(median).collect()
}

fn row(times: &[f64]) -> String {
    times.iter().map(|time| format!("{time:11.1}")).collect()
}

/// What the pool keeps beside the memory that it gives out, of 1 GiB of a mix.
fn overhead() {
    println!("\nbytes kept beside 1 GiB of live blocks of a mix");
    for level in LEVELS {
        let before = HEAP.load(Ordering::Relaxed);
        let pool = MemoryPool::new(PoolConfig {
            tracking: level,
            ..PoolConfig::default()
        });
        let mut blocks = Vec::with_capacity(100_000);
        let vector = HEAP.load(Ordering::Relaxed) - before;
        let mut live = 0;
        for bytes in requests(7).iter().cycle() {
            blocks.push(pool.allocate(*bytes, 64, TAG).expect("memory"));
            live += bytes;
            if live > 1 << 30 {
                break;
            }
        }
        assert!(blocks.len() < 100_000, "the vector did not grow");
        let kept = HEAP.load(Ordering::Relaxed) - before - vector;
        let reserved = pool.metrics().reserved_bytes;
        println!(
            "{level:?}: {kept} bytes beside {live} in {} blocks ({:.3} %); {reserved} reserved",
            blocks.len(),
            kept as f64 * 100.0 / live as f64
        );
    }
}

static HEAP: AtomicI64 = AtomicI64::new(0);

/// Counts what the program has on its heap.
struct Counted;

#[allow(unsafe_code)]
// SAFETY: it does what the system's allocator does.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller holds the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller holds the contract of this function, which is the same.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counted = Counted;
