//! The pool from outside: what it gives out is apart, aligned and its own, what is counted is so, and nothing is left at the end.

use bitcost::memory::{
    ALIGN, Block, Cleanup, DevicePool, HUGE_PAGE, MappedFiles, MemoryError, MemoryPool, PoolConfig,
    Pressure, Tag, TagMetrics, Tracking, device_pool,
};
use proptest::prelude::*;
use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TAG: Tag = Tag::of("test");
const LEVELS: [Tracking; 4] = [
    Tracking::None,
    Tracking::Basic,
    Tracking::Standard,
    Tracking::Detailed,
];

/// A pool of small regions, so that it soon needs another.
fn small_pool(tracking: Tracking) -> MemoryPool {
    MemoryPool::new(PoolConfig {
        arena_bytes: 2 << 20,
        tracking,
        ..PoolConfig::default()
    })
}

/// Everything has come back, and the system has it again.
#[track_caller]
fn reconciles(pool: &MemoryPool) {
    pool.cleanup();
    let metrics = pool.metrics();
    assert_eq!(metrics.live_bytes, 0);
    assert_eq!(metrics.reserved_bytes, 0);
    assert_eq!(metrics.allocations, metrics.frees);
    assert!(metrics.tags.iter().all(|tag| tag.live_bytes == 0));
    assert!(pool.live_blocks().is_none_or(|live| live.is_empty()));
}

/// What a block holds: the same number at its begin and its end.
fn mark(block: &mut Block, number: u8) {
    let bytes = block.bytes_mut().expect("no file");
    if let Some(last) = bytes.len().checked_sub(1) {
        (bytes[0], bytes[last]) = (number, number);
    }
}

fn marked(block: &Block, number: u8) -> bool {
    let ends = [block.bytes().first(), block.bytes().last()];
    ends.into_iter().flatten().all(|byte| *byte == number)
}

#[test]
fn blocks_of_every_kind_are_what_was_asked_for() {
    for tracking in LEVELS {
        let pool = small_pool(tracking);
        let mut blocks = Vec::new();
        for bytes in [
            0,
            1,
            64,
            65,
            4096,
            70_000,
            (1 << 20) - 1,
            1 << 20,
            (1 << 20) + 1,
            3 << 20,
        ] {
            for align in [1, 64, 4096, 128 << 10, HUGE_PAGE] {
                let mut block = pool.allocate(bytes, align, TAG).expect("memory");
                assert_eq!(block.bytes().len(), bytes);
                assert_eq!(block.bytes().as_ptr() as usize % align.max(ALIGN), 0);
                mark(&mut block, blocks.len() as u8);
                blocks.push(block);
            }
        }
        for (number, block) in blocks.iter().enumerate() {
            assert!(
                marked(block, number as u8),
                "block {number} is another's too"
            );
        }
        drop(blocks);
        reconciles(&pool);
    }
}

#[test]
fn zeroed_blocks_are_zeros_where_others_were_before() {
    let pool = small_pool(Tracking::Basic);
    let sizes = [100, 70_000, 1 << 20, 3 << 20];
    // An interpreter looks at each byte for itself.
    for bytes in &sizes[..if cfg!(miri) { 2 } else { 4 }] {
        let mut block = pool.allocate(*bytes, 64, TAG).expect("memory");
        block.bytes_mut().expect("no file").fill(7);
        drop(block);
        let block = pool.zeroed(*bytes, 64, TAG).expect("memory");
        assert!(block.bytes().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn metrics_are_exact_by_tag_and_peaks_begin_anew() {
    let pool = small_pool(Tracking::Basic);
    let weights = pool
        .allocate(5 << 20, 64, Tag::of("weights"))
        .expect("memory");
    let scores = pool.allocate(1000, 64, Tag::of("scores")).expect("memory");
    drop(weights);
    let metrics = pool.metrics();
    let of = |name, live_bytes, peak_bytes| TagMetrics {
        name,
        live_bytes,
        peak_bytes,
    };
    assert_eq!(metrics.live_bytes, 1000);
    assert_eq!(metrics.peak_bytes, Some((5 << 20) + 1000));
    assert_eq!(
        metrics.tags,
        [of("weights", 0, 5 << 20), of("scores", 1000, 1000)]
    );
    assert_eq!((metrics.allocations, metrics.frees), (2, 1));
    pool.reset_peak();
    assert_eq!(pool.metrics().peak_bytes, Some(1000));
    drop(scores);
    reconciles(&pool);
    assert_eq!(small_pool(Tracking::None).metrics().peak_bytes, None);
}

#[test]
fn a_block_outlives_its_pool_on_any_thread() {
    for bytes in [64, 2000, 1 << 20, 3 << 20] {
        for tracking in LEVELS {
            let pool = small_pool(tracking);
            let mut first = pool.allocate(bytes, 64, TAG).expect("memory");
            let second = pool.clone().allocate(bytes, 64, TAG).expect("memory");
            drop(pool);
            drop(second);
            mark(&mut first, 3);
            let thread = std::thread::spawn(move || marked(&first, 3));
            assert!(thread.join().expect("ends"));
        }
    }
}

#[test]
fn live_blocks_are_listed_with_their_tags() {
    let pool = small_pool(Tracking::Standard);
    let cache = pool.allocate(300, 64, Tag::of("cache")).expect("memory");
    let scores = pool
        .allocate(2 << 20, 64, Tag::of("scores"))
        .expect("memory");
    let list = |pool: &MemoryPool| -> Vec<(&str, usize, u64)> {
        let live = pool.live_blocks().expect("tracked");
        live.iter()
            .map(|block| (block.tag, block.bytes, block.number))
            .collect()
    };
    assert_eq!(list(&pool), [("cache", 300, 1), ("scores", 2 << 20, 2)]);
    drop(cache);
    assert_eq!(list(&pool), [("scores", 2 << 20, 2)]);
    drop(scores);
    reconciles(&pool);
    assert_eq!(small_pool(Tracking::Basic).live_blocks(), None);
}

#[test]
fn a_timeline_tells_what_came_and_went_and_patterns_what_is_common() {
    let pool = small_pool(Tracking::Detailed);
    let first = pool.allocate(100, 64, TAG).expect("memory");
    let second = pool.allocate(60, 64, TAG).expect("memory");
    drop(first);
    let timeline = pool.timeline().expect("tracked");
    let steps: Vec<_> = timeline
        .iter()
        .map(|event| (event.allocated, event.bytes, event.live_bytes))
        .collect();
    assert_eq!(steps, [(true, 100, 100), (true, 60, 160), (false, 100, 60)]);
    drop(second);
    let patterns = pool.patterns().expect("tracked");
    assert_eq!(patterns.sizes, [(64, 1), (128, 1)]);
    assert_eq!(
        patterns
            .lifetimes
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>(),
        2
    );
    assert_eq!(small_pool(Tracking::Standard).timeline(), None);
}

#[test]
fn what_cannot_be_had_is_an_error_that_says_what_there_is() {
    let pool = MemoryPool::new(PoolConfig {
        arena_bytes: 2 << 20,
        limit: Some(4 << 20),
        ..PoolConfig::default()
    });
    let kept = pool.allocate(1 << 20, 64, TAG).expect("memory");
    let error = pool
        .allocate(3 << 20, 64, TAG)
        .expect_err("beyond the limit");
    assert!(matches!(
        error,
        MemoryError::Limit { needed, limit, taken, .. }
            if (needed, limit, taken) == (3 << 20, 4 << 20, 2 << 20)
    ));
    let text = error.to_string();
    for part in [
        "3.00 MiB for test",
        "may take 4.00 MiB",
        "has taken 2.00 MiB",
    ] {
        assert!(text.contains(part), "{text}");
    }
    drop(kept);
    // What nobody uses is given up before anything is refused.
    drop(pool.allocate(3 << 20, 64, TAG).expect("now it is there"));
    reconciles(&pool);

    let pool = MemoryPool::new(PoolConfig::default());
    let much = if cfg!(miri) { usize::MAX } else { 1 << 46 };
    for bytes in [usize::MAX, usize::MAX - HUGE_PAGE, much] {
        let error = pool
            .allocate(bytes, 64, TAG)
            .expect_err("no machine has it");
        assert!(matches!(error, MemoryError::System { .. }), "{error}");
    }
    for align in [0, 48, 2 * HUGE_PAGE] {
        let error = pool.allocate(64, align, TAG).expect_err("no alignment");
        assert!(matches!(error, MemoryError::Alignment { .. }), "{error}");
    }
    reconciles(&pool);
}

#[test]
fn pressure_is_told_and_what_is_unused_is_given_up_under_it() {
    let pool = MemoryPool::new(PoolConfig {
        arena_bytes: 2 << 20,
        limit: Some(8 << 20),
        ..PoolConfig::default()
    });
    let take = || pool.allocate(2 << 20, 64, TAG).expect("memory");
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::new(Mutex::new(vec![take()]));
    let (place, spare) = (told.clone(), kept.clone());
    pool.on_pressure(move |level| {
        place.lock().expect("whole").push(level);
        if level >= Pressure::High {
            // What can be done without goes back to the pool, which may be used here.
            spare.lock().expect("whole").clear();
        }
    });
    let mut blocks = vec![take(), take()];
    assert!(kept.lock().expect("whole").is_empty());
    // It has the place of what was given back.
    blocks.push(take());
    assert_eq!(pool.metrics().reserved_bytes, 6 << 20);
    assert_eq!(pool.pressure(), Pressure::High);
    assert_eq!(
        *told.lock().expect("whole"),
        [Pressure::Medium, Pressure::High]
    );
    blocks.clear();
    pool.cleanup();
    assert_eq!(told.lock().expect("whole").last(), Some(&Pressure::Low));
    reconciles(&pool);
}

#[test]
fn idle_regions_go_back_while_the_pool_is_used() {
    let pool = MemoryPool::new(PoolConfig {
        arena_bytes: 2 << 20,
        cleanup: Cleanup {
            idle: Some(Duration::ZERO),
            pressure: None,
        },
        ..PoolConfig::default()
    });
    let kept = pool.allocate(1 << 20, 64, TAG).expect("memory");
    let large = pool.allocate(2 << 20, 64, TAG).expect("memory");
    assert_eq!(pool.metrics().reserved_bytes, 4 << 20);
    drop(large);
    assert_eq!(pool.metrics().reserved_bytes, 2 << 20);
    drop(kept);
    assert_eq!(pool.metrics().reserved_bytes, 0);
    reconciles(&pool);
}

#[test]
fn fragmentation_is_what_the_largest_free_piece_leaves() {
    let pool = small_pool(Tracking::Basic);
    // All of a region in blocks of half its size; the first is given back and then half of it taken.
    let first = pool.allocate(1 << 20, 64, TAG).expect("memory");
    let second = pool.allocate(1 << 20, 64, TAG).expect("memory");
    assert_eq!(pool.metrics().fragmentation, 0.0);
    drop(first);
    let quarter = pool
        .allocate((1 << 20) + (512 << 10), 64, TAG)
        .expect("memory");
    // Free: 1 MiB of the first region, 512 KiB of the second.
    let fragmentation = pool.metrics().fragmentation;
    assert!((fragmentation - 1.0 / 3.0).abs() < 1e-9, "{fragmentation}");
    drop((second, quarter));
    reconciles(&pool);
}

#[test]
#[cfg_attr(miri, ignore = "an interpreter maps no files")]
fn files_are_mapped_counted_and_read_only_and_the_machine_reads_them() {
    let text: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
    let path = std::env::temp_dir().join(format!("bitcost-memory-{}", std::process::id()));
    std::fs::File::create(&path)
        .and_then(|mut file| file.write_all(&text))
        .expect("written");
    let file = std::fs::File::open(&path).expect("there");
    let both = ["cpu", "file"].map(|name| device_pool(name, PoolConfig::default()).expect("there"));
    for pool in &both {
        let block = pool.load(&file, 4097..9000, TAG).expect("in the file");
        assert_eq!(block.bytes(), &text[4097..9000], "{}", pool.device());
        assert_eq!(pool.metrics().live_bytes, 4903);
        assert!(
            pool.load(&file, 5..5, TAG)
                .expect("nothing")
                .bytes()
                .is_empty()
        );
        for (begin, end) in [(0, 10_001), (20_000, 20_001), (2, 1)] {
            let error = pool
                .load(&file, begin..end, TAG)
                .expect_err("not in the file");
            assert!(
                matches!(error, MemoryError::Range { bytes: 10_000, .. }),
                "{error}"
            );
        }
        drop(block);
        assert_eq!(pool.metrics().live_bytes, 0);
    }
    let mapped = MappedFiles::new();
    let mut block = mapped.map(&file, 0..10, TAG).expect("in the file");
    assert!(matches!(block.bytes_mut(), Err(MemoryError::ReadOnly)));
    assert!(matches!(
        mapped.allocate(1, 1, TAG),
        Err(MemoryError::ReadOnly)
    ));
    std::fs::remove_file(path).expect("removed");
}

/// Threads give each other blocks, so that most come back on another thread than they were taken on.
#[test]
fn threads_that_exchange_blocks_see_only_their_own_bytes() {
    let rounds = if cfg!(miri) { 12 } else { 4000 };
    for tracking in LEVELS {
        let pool = small_pool(tracking);
        let threads = 4u8;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| sync_channel(16)).unzip();
        std::thread::scope(|scope| {
            for (number, receiver) in (0..threads).zip(receivers) {
                let next = senders[usize::from(number + 1) % senders.len()].clone();
                let pool = pool.clone();
                scope.spawn(move || {
                    let mut state = u64::from(number) + 1;
                    for _ in 0..rounds {
                        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                        let bytes = 1 << ((state >> 33) % 21);
                        let mut block = pool.allocate(bytes, 1, TAG).expect("memory");
                        mark(&mut block, number);
                        // Where the next one has enough, or has ended, it comes back here.
                        let _ = next.try_send((block, number));
                        if let Ok((block, from)) = receiver.try_recv() {
                            assert!(marked(&block, from), "a block is another's too");
                        }
                        if state >> 40 & 255 == 0 {
                            pool.cleanup();
                        }
                    }
                    drop(next);
                    // The pool's last handle may go before the last blocks.
                    drop(pool);
                    drop(receiver);
                });
            }
        });
        drop(senders);
        reconciles(&pool);
    }
}

/// The last handle and the last blocks go at the same time.
#[test]
fn a_pool_ends_once_while_blocks_come_back_from_all_sides() {
    for round in 0..if cfg!(miri) { 8 } else { 500 } {
        let pool = small_pool(LEVELS[round % 4]);
        let blocks: Vec<Block> = (0..6)
            .map(|number| pool.allocate(100 << (3 * number), 64, TAG).expect("memory"))
            .collect();
        std::thread::scope(|scope| {
            let mut blocks = blocks.into_iter();
            while let (Some(one), Some(two)) = (blocks.next(), blocks.next()) {
                scope.spawn(move || drop((one, two)));
            }
            drop(pool);
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 60 }))]

    #[test]
    fn any_sequence_keeps_blocks_apart_and_reconciles(
        level in 0..4usize,
        steps in proptest::collection::vec((any::<bool>(), 0..22u32, 0..1000usize, 0..13u32), 1..if cfg!(miri) { 25 } else { 200 }),
    ) {
        let pool = small_pool(LEVELS[level]);
        let mut live: Vec<(Block, u8)> = Vec::new();
        for (number, (give, shift, more, align)) in steps.into_iter().enumerate() {
            if give && !live.is_empty() {
                let (block, mark) = live.swap_remove(more % live.len());
                prop_assert!(marked(&block, mark));
                continue;
            }
            let bytes = (1usize << shift) + more * ((1usize << shift) / 1000);
            let mut block = pool.allocate(bytes, 1 << align, TAG).expect("memory");
            prop_assert_eq!(block.bytes().as_ptr() as usize % (1usize << align).max(ALIGN), 0);
            mark(&mut block, number as u8);
            live.push((block, number as u8));
        }
        let mut ranges: Vec<_> = live.iter().map(|(block, _)| block.bytes().as_ptr_range()).collect();
        ranges.sort_by_key(|range| range.start);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let bytes: usize = live.iter().map(|(block, _)| block.bytes().len()).sum();
        prop_assert_eq!(pool.metrics().live_bytes, bytes as u64);
        drop(live);
        reconciles(&pool);
    }
}
