//! Statistics, values and errors of weights, held against loops that say the same one number at a time.

mod common;

use bitcost::checkpoint::packed::{Settings, Weight, Weights, weights};
use bitcost::checkpoint::scan::{
    Levels, Reads, Statistics, Wanted, row_reads, statistics, values, weight_error, zero_kinds,
};
use bitcost::checkpoint::{Checkpoint, CheckpointError};
use bitcost::source;
use common::Folder;
use proptest::prelude::*;
use std::path::Path;

/// A tensor to write: name, dtype, shape, bytes.
type Tensor<'t> = (&'t str, &'t str, Vec<u64>, Vec<u8>);

/// A checkpoint of one file, and the weights in it.
struct Written {
    _folder: Folder,
    checkpoint: Checkpoint,
    weights: Weights,
}

fn write(tensors: &[Tensor]) -> Written {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": range});
        header.insert(name.to_string(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    let folder = Folder::new();
    folder.write("model.safetensors", file);
    let checkpoint = open(folder.path());
    let weights = weights(&checkpoint, &Settings::default());
    Written {
        _folder: folder,
        checkpoint,
        weights,
    }
}

fn open(folder: &Path) -> Checkpoint {
    let files = source::Folder::open(folder).expect("a folder");
    Checkpoint::open(&files)
        .expect("readable")
        .expect("it has weights")
}

impl Written {
    fn weight(&self, name: &str) -> &Weight {
        self.weights.get(name).expect("a weight of this name")
    }

    fn scan(&self, name: &str, wanted: &Wanted) -> Statistics {
        self.try_scan(name, wanted)
            .expect("readable")
            .expect("its numbers are known")
    }

    fn try_scan(&self, name: &str, wanted: &Wanted) -> Result<Option<Statistics>, CheckpointError> {
        statistics(&self.checkpoint, self.weight(name), wanted)
    }
}

fn f32s(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn bf16s(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|n| ((n.to_bits() >> 16) as u16).to_le_bytes())
        .collect()
}

fn all() -> Wanted {
    Wanted {
        moments: true,
        supports: true,
        ..Wanted::default()
    }
}

/// What each row reads, as lists.
fn lists(statistics: &Statistics) -> Vec<Vec<(u32, u32)>> {
    let supports = statistics.supports.as_ref().expect("they were asked for");
    (0..supports.rows())
        .map(|row| match supports.row(row) {
            Some(Reads::Listed(list)) => list.to_vec(),
            other => panic!("row {row}: {other:?}"),
        })
        .collect()
}

#[test]
fn a_matrix_is_counted_by_row_and_by_input() {
    let numbers = [1.0, 0.0, -0.0, 2.0, 0.0, 0.0, 0.0, 0.0, -1.0];
    let written = write(&[("w", "F32", vec![3, 3], f32s(&numbers))]);
    let found = written.scan("w", &all());
    assert_eq!((found.nnz, found.elements), (3, 9));
    assert_eq!(found.per_row, [1, 1, 1]);
    assert_eq!(found.per_input, [2, 0, 1]);
    assert_eq!(found.levels, Levels::All(vec![-1.0, 0.0, 1.0, 2.0]));
    assert_eq!(lists(&found), [[(0, 1)], [(0, 1)], [(2, 1)]]);
    let moments = found.moments.expect("asked for");
    assert_eq!((moments.sum, moments.sum_magnitudes), (2.0, 4.0));
    assert_eq!((moments.sum_squares, moments.count), (6.0, 9));
    assert_eq!((moments.min, moments.max), (-1.0, 2.0));
}

#[test]
fn what_is_no_number_is_not_zero_and_has_no_level() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 3.0];
    for (dtype, bytes) in [("F32", f32s(&special)), ("BF16", bf16s(&special))] {
        let written = write(&[("w", dtype, vec![2, 3], bytes)]);
        let found = written.scan("w", &all());
        assert_eq!((found.nnz, found.nan, found.infinite), (4, 1, 2), "{dtype}");
        assert_eq!(found.levels, Levels::All(vec![0.0, 3.0]), "{dtype}");
        let moments = found.moments.expect("asked for");
        assert_eq!((moments.count, moments.sum, moments.max), (3, 3.0, 3.0));
    }
}

#[test]
fn taps_of_a_kernel_belong_to_one_input() {
    // [2, 2, 1, 2]: output 0 reads input 0 twice, output 1 reads input 1 once.
    let numbers = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0];
    let written = write(&[("w", "F32", vec![2, 2, 1, 2], f32s(&numbers))]);
    let found = written.scan("w", &all());
    assert_eq!(found.per_row, [2, 1]);
    assert_eq!(found.per_input, [2, 1]);
    assert_eq!(lists(&found), [vec![(0, 2)], vec![(1, 1)]]);
}

#[test]
fn groups_have_inputs_of_their_own() {
    // Four rows in two groups of two, two inputs each: rows 2 and 3 read inputs 2 and 3.
    let numbers = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    let written = write(&[("w", "F32", vec![4, 2], f32s(&numbers))]);
    let wanted = Wanted { groups: 2, ..all() };
    let found = written.scan("w", &wanted);
    assert_eq!(found.per_input, [1, 0, 0, 2]);
    assert_eq!(
        lists(&found),
        [vec![(0, 1)], vec![], vec![(3, 1)], vec![(3, 1)]]
    );
    let depthwise = Wanted { groups: 4, ..all() };
    assert_eq!(
        written.scan("w", &depthwise).per_input,
        [1, 0, 0, 0, 0, 1, 0, 1]
    );
    let uneven = Wanted { groups: 3, ..all() };
    let error = written
        .try_scan("w", &uneven)
        .expect_err("4 rows make no 3 groups");
    assert!(error.to_string().contains("groups"), "{error}");
}

#[test]
fn transposed_rows_are_inputs() {
    // [in, out] = [2, 3]; output 2 reads input 0, output 0 reads both.
    let numbers = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0];
    let written = write(&[("w", "F32", vec![2, 3], f32s(&numbers))]);
    let wanted = Wanted {
        transposed: true,
        ..all()
    };
    let found = written.scan("w", &wanted);
    assert_eq!(found.per_row, [2, 0, 1]);
    assert_eq!(found.per_input, [2, 1]);
    assert_eq!(lists(&found), [vec![(0, 1), (1, 1)], vec![], vec![(0, 1)]]);
}

#[test]
fn stacked_matrices_have_rows_and_inputs_of_their_own() {
    // Two experts [2, 2]: rows 2 and 3 and inputs 2 and 3 are the second's.
    let numbers = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    let written = write(&[("w", "F32", vec![2, 2, 2], f32s(&numbers))]);
    let wanted = Wanted {
        stacked: true,
        ..all()
    };
    let found = written.scan("w", &wanted);
    assert_eq!(found.per_row, [1, 0, 0, 2]);
    assert_eq!(found.per_input, [1, 0, 1, 1]);
}

#[test]
fn odd_shapes_are_legal() {
    let written = write(&[
        ("scalar", "F32", vec![], f32s(&[2.0])),
        ("vector", "F32", vec![3], f32s(&[0.0, 1.0, 2.0])),
        ("empty", "F32", vec![0, 4], vec![]),
        ("narrow", "F32", vec![4, 0], vec![]),
        (
            "five",
            "F32",
            vec![2, 1, 1, 1, 2],
            f32s(&[0.0, 1.0, 0.0, 0.0]),
        ),
        ("huge", "F32", vec![0, 1 << 31, 1 << 31], vec![]),
    ]);
    let counts = |name| {
        let found = written.scan(name, &all());
        (found.nnz, found.per_row, found.per_input)
    };
    assert_eq!(counts("scalar"), (1, vec![1], vec![]));
    assert_eq!(counts("vector"), (2, vec![0, 1, 1], vec![]));
    assert_eq!(counts("empty"), (0, vec![], vec![0; 4]));
    assert_eq!(counts("narrow"), (0, vec![0; 4], vec![]));
    assert_eq!(counts("five"), (1, vec![1, 0], vec![1]));
    assert_eq!(counts("huge"), (0, vec![], vec![]));
    assert_eq!(written.scan("empty", &all()).levels, Levels::All(vec![]));
}

#[test]
fn a_row_reads_what_it_is_not_zero_for() {
    let numbers = [0.0, 1.0, 0.0, 2.0, 0.0, 0.0];
    let written = write(&[("w", "F32", vec![2, 3], f32s(&numbers))]);
    let reads = |row, transposed| {
        let wanted = Wanted {
            transposed,
            ..Wanted::default()
        };
        let found = row_reads(&written.checkpoint, written.weight("w"), row, &wanted);
        let reads = found.expect("readable").expect("known");
        (reads.width(), reads.iter().collect::<Vec<_>>())
    };
    assert_eq!(reads(0, false), (3, vec![1]));
    assert_eq!(reads(1, false), (3, vec![0]));
    assert_eq!(reads(9, false), (3, vec![]));
    assert_eq!(reads(1, true), (2, vec![0]));
    assert_eq!(reads(2, true), (2, vec![]));
}

#[test]
fn rows_of_values_are_rows_of_dimension_zero() {
    let written = write(&[(
        "w",
        "BF16",
        vec![3, 2],
        bf16s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    )]);
    let mut out = vec![9.0];
    let rows = |rows, out: &mut Vec<f32>| {
        let weight = written.weight("w");
        values(&written.checkpoint, weight, &Wanted::default(), rows, out).expect("readable")
    };
    assert!(rows(1..2, &mut out));
    assert_eq!(out, [3.0, 4.0]);
    assert!(rows(2..9, &mut out));
    assert_eq!(out, [5.0, 6.0]);
    assert!(rows(7..9, &mut out));
    assert!(out.is_empty());
}

#[test]
fn an_error_is_told_against_the_base() {
    // The difference is (0, 1, 0, 0), the base (3, 4, 0, 0): 1 / 5, and 20 log10 5 = 13.979 dB.
    let written = write(&[
        ("base", "F32", vec![2, 2], f32s(&[3.0, 4.0, 0.0, 0.0])),
        ("other", "BF16", vec![2, 2], bf16s(&[3.0, 3.0, 0.0, 0.0])),
        ("zero", "F32", vec![2, 2], f32s(&[0.0; 4])),
        ("long", "F32", vec![4], f32s(&[0.0; 4])),
    ]);
    let error = |base, other| {
        let side = |name| (&written.checkpoint, written.weight(name));
        weight_error(side(base), side(other)).expect("readable")
    };
    let found = error("base", "other").expect("of one shape");
    assert_eq!((found.relative, found.max, found.left_out), (0.2, 1.0, 0));
    assert!((found.snr_db - 13.979_400_086_720_377).abs() < 1e-12);
    assert!((found.cosine - 21.0 / (5.0 * 18f64.sqrt())).abs() < 1e-15);
    let same = error("base", "base").expect("of one shape");
    assert_eq!(
        (same.relative, same.snr_db, same.cosine),
        (0.0, f64::INFINITY, 1.0)
    );
    let from_zero = error("zero", "base").expect("of one shape");
    assert_eq!(from_zero.relative, f64::INFINITY);
    assert_eq!(
        (from_zero.snr_db, from_zero.cosine),
        (f64::NEG_INFINITY, 0.0)
    );
    let zeros = error("zero", "zero").expect("of one shape");
    assert_eq!((zeros.relative, zeros.cosine), (0.0, 1.0));
    assert_eq!(error("base", "long"), None);
}

#[test]
fn zeros_are_told_apart_by_what_the_base_was() {
    let written = write(&[
        ("base", "F32", vec![1, 5], f32s(&[0.0, 0.1, 5.0, 1.0, 2.0])),
        ("other", "F32", vec![1, 5], f32s(&[0.0, 0.0, 0.0, 1.0, 2.0])),
    ]);
    let side = |name| (&written.checkpoint, written.weight(name));
    let kinds = zero_kinds(side("base"), side("other")).expect("readable");
    let kinds = kinds.expect("of one shape");
    assert_eq!((kinds.in_base, kinds.below, kinds.above), (1, 1, 1));
}

#[test]
fn any_number_of_threads_says_the_same() {
    // A few megabytes, so that there are blocks for all: plain rows, long rows, and rows of groups.
    let mut state = 1u64;
    let numbers: Vec<f32> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let number = (state >> 40) as f32 / 1e7 - 0.8;
            if state >> 61 == 0 { 0.0 } else { number }
        })
        .collect();
    let other: Vec<f32> = numbers.iter().map(|n| (n * 7.0).round() / 7.0).collect();
    let written = write(&[
        ("wide", "F32", vec![2, 1 << 19], f32s(&numbers)),
        ("tall", "F32", vec![1 << 14, 64], f32s(&numbers)),
        ("halves", "BF16", vec![1 << 10, 1 << 10], bf16s(&numbers)),
        ("few", "F32", vec![1 << 14, 64], f32s(&other)),
        ("bytes", "F8_E5M2", vec![1 << 12, 1 << 10], f32s(&numbers)),
        // Matrices whose columns are stored one after the other: 1,024 inputs and outputs.
        (
            "packed.qweight",
            "I32",
            vec![128, 1024],
            f32s(&numbers[..1 << 17]),
        ),
        (
            "packed.qzeros",
            "I32",
            vec![8, 128],
            f32s(&numbers[..1 << 10]),
        ),
        (
            "packed.scales",
            "BF16",
            vec![8, 1024],
            bf16s(&numbers[..1 << 13]),
        ),
    ]);
    let told = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().expect("threads").install(|| {
            let wanted = Wanted { groups: 2, ..all() };
            let names = ["wide", "tall", "halves", "few", "bytes", "packed.weight"];
            let scans: Vec<Statistics> = names.map(|name| written.scan(name, &wanted)).into();
            let side = |name| (&written.checkpoint, written.weight(name));
            let error = weight_error(side("tall"), side("few")).expect("readable");
            let kinds = zero_kinds(side("tall"), side("few")).expect("readable");
            // Floats are written with all their digits.
            format!("{scans:?} {error:?} {kinds:?}")
        })
    };
    let one = told(1);
    assert!(one == told(2) && one == told(7));
    assert!(one.contains("levels: More") && one.contains("levels: All"));
}

#[test]
fn codes_that_are_no_numbers_are_no_levels() {
    // Every code of 16 bits that is no number, and three that are: more codes than are listed, three levels.
    let codes: Vec<u8> = (0x7f81..=0x7fffu16)
        .chain(0xff81..=0xffff)
        .chain([0x7f80, 0xff80, 0, 0x8000, 0x3f80, 0xbf80])
        .cycle()
        .take(4096)
        .flat_map(u16::to_le_bytes)
        .collect();
    let written = write(&[("w", "BF16", vec![64, 64], codes)]);
    let found = written.scan("w", &all());
    assert_eq!(found.levels, Levels::All(vec![-1.0, 0.0, 1.0]));
    // 260 codes, 15 times and 196 of them once more.
    assert_eq!((found.nan, found.infinite), (254 * 15 + 196, 30));
}

#[test]
fn exactly_256_levels_are_listed() {
    for (count, listed) in [(256, Some(256)), (257, None)] {
        let numbers: Vec<f32> = (0..8192).map(|i| (i % count) as f32 - 128.0).collect();
        for (dtype, bytes) in [("F32", f32s(&numbers)), ("BF16", bf16s(&numbers))] {
            let written = write(&[("w", dtype, vec![64, 128], bytes)]);
            let found = written.scan("w", &Wanted::default()).levels.count();
            assert_eq!(found, listed, "{dtype} {count}");
        }
    }
}

#[test]
fn moments_of_codes_of_eight_bits_are_of_their_counts() {
    // 100,000 codes: enough for a table of pairs. As floats they are 1, -2, 1, -0 and not a number, as integers with a sign
    // 56, -64, 56, -128 and 127, and without 56, 192, 56, 128 and 127.
    let codes: Vec<u8> = [0x38, 0xc0, 0x38, 0x80, 0x7f].repeat(20_000);
    let written = write(&[
        ("e4m3", "F8_E4M3", vec![1000, 100], codes.clone()),
        ("i8", "I8", vec![1000, 100], codes.clone()),
        ("u8", "U8", vec![1000, 100], codes),
    ]);
    let told = |name| {
        let found = written.scan(name, &all());
        let plain = written.scan(name, &Wanted::default());
        assert_eq!((plain.nnz, plain.nan), (found.nnz, found.nan), "{name}");
        assert_eq!(plain.levels, found.levels, "{name}");
        let m = found.moments.expect("asked for");
        let sums = [m.sum, m.sum_magnitudes, m.sum_squares].map(|sum| sum / 20_000.0);
        (m.count, sums, (m.min, m.max), found.nnz, found.levels)
    };
    let levels = |levels: &[f64]| Levels::All(levels.to_vec());
    assert_eq!(
        told("e4m3"),
        (
            80_000,
            [0.0, 4.0, 6.0],
            (-2.0, 1.0),
            80_000,
            levels(&[-2.0, 0.0, 1.0])
        )
    );
    let squares = |last: f64| 2.0 * 56.0 * 56.0 + 127.0 * 127.0 + last;
    assert_eq!(
        told("i8"),
        (
            100_000,
            [
                112.0 - 64.0 - 128.0 + 127.0,
                112.0 + 64.0 + 128.0 + 127.0,
                squares(64.0 * 64.0 + 128.0 * 128.0)
            ],
            (-128.0, 127.0),
            100_000,
            levels(&[-128.0, -64.0, 56.0, 127.0])
        )
    );
    assert_eq!(
        told("u8"),
        (
            100_000,
            [
                112.0 + 192.0 + 128.0 + 127.0,
                112.0 + 192.0 + 128.0 + 127.0,
                squares(192.0 * 192.0 + 128.0 * 128.0)
            ],
            (56.0, 192.0),
            100_000,
            levels(&[56.0, 127.0, 128.0, 192.0])
        )
    );
}

#[test]
fn weights_that_are_stored_transposed_are_counted_as_their_values_are() {
    // 640 inputs and 304 outputs: tiles of 256 that are cut on both sides.
    let mut state = 7u64;
    let mut bytes = |count: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    };
    let scales: Vec<f32> = (0..5 * 304).map(|i| (i % 17) as f32 / 64.0).collect();
    let written = write(&[
        ("w.qweight", "I32", vec![80, 304], bytes(80 * 304 * 4)),
        ("w.qzeros", "I32", vec![5, 38], bytes(5 * 38 * 4)),
        ("w.scales", "BF16", vec![5, 304], bf16s(&scales)),
    ]);
    let found = written.scan("w.weight", &all());
    assert_eq!(*found.shape, [304, 640]);
    let mut numbers = Vec::new();
    let weight = written.weight("w.weight");
    let wanted = Wanted::default();
    assert!(values(&written.checkpoint, weight, &wanted, 0..304, &mut numbers).expect("readable"));
    let (by_row, by_input) = naive(&numbers, 304, 640, 1, 1);
    assert_eq!((found.per_row, found.per_input), (by_row, by_input));
    let moments = found.moments.expect("asked for");
    // Whole numbers of 64ths, so that every order of sums is exact.
    let wide = numbers.iter().map(|n| f64::from(*n));
    assert_eq!(moments.sum, wide.clone().sum::<f64>());
    assert_eq!(moments.sum_squares, wide.map(|n| n * n).sum::<f64>());
    let mut levels: Vec<f64> = numbers.iter().map(|n| f64::from(n + 0.0)).collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    assert_eq!(found.levels, Levels::All(levels));
    // Any run of values is the same, wherever it begins.
    let mut part = Vec::new();
    assert!(values(&written.checkpoint, weight, &wanted, 17..40, &mut part).expect("readable"));
    assert_eq!(part, numbers[17 * 640..40 * 640]);
}

#[test]
fn experts_that_are_stored_transposed_have_rows_and_inputs_of_their_own() {
    // Two experts of 320 inputs and 304 outputs, whose file has the outputs first.
    let mut state = 11u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 56) as u8
    };
    let codes: Vec<u8> = (0..2 * 304 * 160).map(|_| next()).collect();
    let scales: Vec<u8> = (0..2 * 304 * 10).map(|_| 120 + next() % 8).collect();
    let written = write(&[
        ("w_blocks", "U8", vec![2, 304, 10, 16], codes),
        ("w_scales", "U8", vec![2, 304, 10], scales),
    ]);
    let mut numbers = Vec::new();
    let (weight, plain) = (written.weight("w"), Wanted::default());
    assert!(values(&written.checkpoint, weight, &plain, 0..2, &mut numbers).expect("readable"));
    let (by_input, by_row) = naive(&numbers, 640, 304, 1, 2);
    for wanted in [all(), Wanted::default()] {
        let wanted = Wanted {
            transposed: true,
            stacked: true,
            ..wanted
        };
        let found = written.scan("w", &wanted);
        assert_eq!(*found.shape, [2, 320, 304]);
        assert_eq!((&found.per_row, &found.per_input), (&by_row, &by_input));
        // Output 3 of the second expert.
        let reads = row_reads(&written.checkpoint, weight, 304 + 3, &wanted);
        let reads = reads.expect("readable").expect("known");
        let wanted: Vec<usize> = (320..640)
            .filter(|input| numbers[input * 304 + 3] != 0.0)
            .collect();
        assert_eq!(reads.iter().collect::<Vec<_>>(), wanted);
        assert_eq!(wanted.len() as u64, found.per_row[304 + 3]);
    }
}

#[test]
fn codes_alone_say_which_numbers_are_zero() {
    // Without moments a weight of many levels is counted by its codes, with them by its numbers. A scale of 0, and one of
    // which products are infinite, are seen.
    let mut state = 3u64;
    let mut bytes = |count: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    };
    for odd in [None, Some(0.0), Some(1e38), Some(f32::NAN)] {
        let mut scales: Vec<f32> = (0..5 * 304).map(|i| 0.01 + i as f32 / 512.0).collect();
        if let Some(odd) = odd {
            scales[1200] = odd;
        }
        let written = write(&[
            ("gptq.qweight", "I32", vec![80, 304], bytes(80 * 304 * 4)),
            ("gptq.qzeros", "I32", vec![5, 38], bytes(5 * 38 * 4)),
            ("gptq.scales", "BF16", vec![5, 304], bf16s(&scales)),
            ("awq.qweight", "I32", vec![640, 38], bytes(80 * 304 * 4)),
            ("awq.qzeros", "I32", vec![5, 38], bytes(5 * 38 * 4)),
            ("awq.scales", "BF16", vec![5, 304], bf16s(&scales)),
            ("int8.weight", "I8", vec![1520, 48], bytes(1520 * 48)),
            ("int8.weight_scale", "F32", vec![1520, 1], f32s(&scales)),
            (
                "ct.weight_packed",
                "I32",
                vec![304, 80],
                bytes(80 * 304 * 4),
            ),
            (
                "ct.weight_zero_point",
                "I32",
                vec![38, 5],
                bytes(5 * 38 * 4),
            ),
            ("ct.weight_scale", "F32", vec![304, 5], f32s(&scales)),
        ]);
        assert_eq!(written.weights.weights.len(), 4);
        for weight in &written.weights.weights {
            let by_numbers = Statistics {
                moments: None,
                supports: None,
                ..written.scan(&weight.name, &all())
            };
            let by_codes = written.scan(&weight.name, &Wanted::default());
            assert_eq!(by_codes, by_numbers, "{} {odd:?}", weight.name);
            assert_eq!(by_codes.levels, Levels::More);
        }
    }
}

#[test]
fn codes_alone_say_which_numbers_there_are() {
    // As above, where levels are few or a code is no number: floats under powers of two, ternary codes, floats of eight bits
    // under one scale and under one that makes small ones 0, and integers under a scale and a bias, which is 0 for some.
    let mut state = 5u64;
    let mut bytes = |count: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    };
    let exponents: Vec<u8> = bytes(256 * 96).iter().map(|b| 120 + b % 7).collect();
    let ternary: Vec<u8> = bytes(64 * 3072)
        .iter()
        .map(|b| [0x00, 0x15, 0x2a, 0x86][usize::from(b % 4)])
        .collect();
    let rows = |scale: f32| f32s(&[scale; 256]);
    let groups = |step: f32| {
        bf16s(
            &(0..256 * 48)
                .map(|i| (i % 5) as f32 * step)
                .collect::<Vec<f32>>(),
        )
    };
    let written = write(&[
        ("mx.weight_packed", "U8", vec![256, 1536], bytes(256 * 1536)),
        ("mx.weight_scale", "U8", vec![256, 96], exponents),
        ("ternary.weight", "U8", vec![64, 3072], ternary),
        ("ternary.weight_scale", "BF16", vec![1], bf16s(&[0.75])),
        ("fp8.weight", "F8_E4M3", vec![256, 3072], bytes(256 * 3072)),
        ("fp8.weight_scale", "F32", vec![256, 1], rows(0.5)),
        (
            "small.weight",
            "F8_E4M3",
            vec![256, 3072],
            bytes(256 * 3072),
        ),
        ("small.weight_scale", "F32", vec![256, 1], rows(1e-43)),
        ("mlx.weight", "U32", vec![256, 384], bytes(256 * 1536)),
        ("mlx.scales", "BF16", vec![256, 48], groups(0.125)),
        ("mlx.biases", "BF16", vec![256, 48], groups(-0.5)),
    ]);
    assert_eq!(
        written.weights.weights.len(),
        5,
        "{:?}",
        written.weights.notes
    );
    for weight in &written.weights.weights {
        assert!(!weight.is_plain(), "{}", weight.name);
        let by_numbers = Statistics {
            moments: None,
            supports: None,
            ..written.scan(&weight.name, &all())
        };
        let by_codes = written.scan(&weight.name, &Wanted::default());
        assert_eq!(by_codes, by_numbers, "{}", weight.name);
        assert!(by_codes.levels.count().is_some(), "{}", weight.name);
        assert!(by_codes.nnz < by_codes.elements, "{}", weight.name);
        let has_nan = weight.name.starts_with("fp8") || weight.name.starts_with("small");
        assert_eq!(by_codes.nan > 0, has_nan, "{}", weight.name);
    }
}

/// The same, one number at a time.
fn naive(
    numbers: &[f32],
    rows: usize,
    inputs: usize,
    taps: usize,
    groups: usize,
) -> (Vec<u64>, Vec<u64>) {
    let mut by_row = vec![0; rows];
    let mut by_input = vec![0; inputs * groups];
    let columns = inputs * taps;
    for (at, number) in numbers.iter().enumerate() {
        if *number != 0.0 {
            let (row, column) = (at / columns, at % columns);
            by_row[row] += 1;
            by_input[row / (rows / groups) * inputs + column / taps] += 1;
        }
    }
    (by_row, by_input)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn counts_are_those_of_a_plain_loop(
        (rows, inputs, taps, groups) in (1usize..5, 1usize..600, prop_oneof![Just(1usize), 1usize..10], 1usize..4),
        zeros in 0u32..=10,
        few in any::<bool>(),
        seed in any::<u64>(),
        dtype in prop::sample::select(vec!["F32", "BF16", "F64", "I8", "I32"]),
    ) {
        let rows = rows * groups;
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let numbers: Vec<f32> = (0..rows * inputs * taps)
            .map(|_| {
                let number = (next() % if few { 9 } else { 120 }) as f32;
                if next() % 10 < zeros.into() { if next() % 2 == 0 { 0.0 } else { -0.0 } } else { number }
            })
            .collect();
        let bytes = match dtype {
            "F32" => f32s(&numbers),
            "BF16" => bf16s(&numbers),
            "F64" => numbers.iter().flat_map(|n| f64::from(*n).to_le_bytes()).collect(),
            "I8" => numbers.iter().map(|n| *n as u8).collect(),
            _ => numbers.iter().flat_map(|n| (*n as i32).to_le_bytes()).collect(),
        };
        let shape = vec![rows as u64, inputs as u64, taps as u64];
        let written = write(&[("w", dtype, shape, bytes)]);
        let wanted = Wanted { groups: groups as u64, ..all() };
        let found = written.scan("w", &wanted);
        let (by_row, by_input) = naive(&numbers, rows, inputs, taps, groups);
        prop_assert_eq!(found.nnz, by_row.iter().sum::<u64>());
        prop_assert_eq!(&found.per_row, &by_row);
        prop_assert_eq!(&found.per_input, &by_input);
        let mut levels: Vec<f64> = numbers.iter().map(|n| f64::from(*n + 0.0)).collect();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        prop_assert_eq!(found.levels, Levels::All(levels));
        let supports = found.supports.expect("asked for");
        for (row, nnz) in by_row.iter().enumerate() {
            match supports.row(row).expect("a row") {
                Reads::Listed(list) => {
                    prop_assert!(list.len() <= 64);
                    prop_assert_eq!(list.iter().map(|(_, n)| u64::from(*n)).sum::<u64>(), *nnz);
                }
                Reads::Many(size) => prop_assert!(size > 64 && size <= *nnz),
            }
        }
    }
}
