//! Every kernel of this machine against the plain sum over weights and activations: the integers are the same, whatever the
//! length, the packing, the number of tokens and of threads.

use bitcost::kernels::{
    Activations, Granularity, KernelError, Packed, Packing, Pool, RowScale, Runnable, Scaling,
    accumulate, available, best, by_name, multiply,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A small generator of its own, so that a failing case can be told by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn weight(&mut self) -> i8 {
        (self.next() >> 33) as i8 % 2 * ((self.next() >> 40) & 1) as i8
    }

    fn code(&mut self) -> i8 {
        (self.next() >> 29) as i8
    }
}

/// What a kernel has to give: no packing, no codes, just the sum.
fn naive(weights: &[i8], x: &[i8], rows: usize, cols: usize) -> Vec<i32> {
    let mut out = Vec::new();
    for x in x.chunks_exact(cols) {
        for row in weights.chunks_exact(cols).take(rows) {
            out.push(
                row.iter()
                    .zip(x)
                    .map(|(w, x)| i32::from(*w) * i32::from(*x))
                    .sum(),
            );
        }
    }
    out
}

fn pack(packing: Packing, rows: usize, cols: usize, weights: &[i8]) -> Packed {
    let fill = |row: usize, out: &mut [i8]| out.copy_from_slice(&weights[row * cols..][..cols]);
    Packed::pack(packing, rows, cols, fill).expect("a matrix that can be packed")
}

/// All of them; every 37th where an interpreter checks each access, which takes a thousand times as long.
fn thinned<T>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    all.step_by(if cfg!(miri) { 37 } else { 1 })
}

/// Holds all kernels against the plain sum.
#[track_caller]
fn check(rows: usize, cols: usize, tokens: usize, weights: &[i8], x: &[i8], threads: usize) {
    let expected = naive(weights, x, rows, cols);
    let codes = Activations::of_codes(x, cols).expect("tokens of so many codes");
    let pool = Pool::new(threads);
    for packing in Packing::ALL {
        let packed = pack(packing, rows, cols, weights);
        for kernel in available()
            .iter()
            .filter(|kernel| kernel.packing == packing)
        {
            let mut sums = vec![i32::MIN; rows * tokens];
            accumulate(*kernel, &packed, &codes, &pool, &mut sums).expect("shapes that fit");
            assert!(
                sums == expected,
                "{}: {rows} x {cols}, {tokens} tokens, {threads} threads: first difference at {:?}",
                kernel.name,
                sums.iter().zip(&expected).position(|(a, b)| a != b)
            );
        }
    }
}

fn random(rows: usize, cols: usize, tokens: usize, threads: usize) {
    let mut random = Random((rows * 7919 + cols * 31 + tokens) as u64 + 1);
    let weights: Vec<i8> = (0..rows * cols).map(|_| random.weight()).collect();
    let x: Vec<i8> = (0..tokens * cols).map(|_| random.code()).collect();
    check(rows, cols, tokens, &weights, &x, threads);
}

#[test]
#[allow(clippy::print_stdout)]
fn what_runs_here_is_told() {
    let names: Vec<&str> = available().iter().map(|kernel| kernel.name).collect();
    println!("kernels that run here: {}", names.join(", "));
    assert!(names.contains(&"scalar-2.0") && names.contains(&"scalar-1.6"));
    // Who runs these tests as a proof for some instruction sets says which, so that a machine without them, or an emulator that
    // was not used, does not pass for one.
    if let Ok(expected) = std::env::var("BITCOST_EXPECT_ISAS") {
        let expected: BTreeSet<&str> = expected.split_whitespace().collect();
        let found: BTreeSet<&str> = available().iter().map(|kernel| kernel.isa.name()).collect();
        assert_eq!(found, expected, "instruction sets whose kernels run here");
    }
}

#[test]
fn the_worked_example_of_two_tokens() {
    // Row 0 is x0 - x2, row 1 is -x0 - x1 - x2, row 2 is 0.
    let weights = [1, 0, -1, -1, -1, -1, 0, 0, 0];
    let x = [10, 20, 30, -128, 127, 1];
    assert_eq!(naive(&weights, &x, 3, 3), [-20, -60, 0, -129, 0, 0]);
    check(3, 3, 2, &weights, &x, 1);
}

#[test]
fn every_length_around_a_block_and_a_fold() {
    // Blocks have 16 and 20 columns; AVX2 widens after 8 and 16, and after 12 of them.
    let folds = [
        127, 128, 129, 159, 160, 161, 239, 240, 241, 255, 256, 257, 479, 480, 481,
    ];
    for cols in thinned((1..=85).chain(folds)) {
        random(33, cols, 1, 1);
        random(5, cols, 3, 1);
        random(5, cols, 8, 1);
    }
}

#[test]
fn every_number_of_rows_around_a_group_and_of_tokens_around_a_block() {
    let mut shapes = Vec::new();
    for rows in [1, 2, 31, 32, 33, 63, 64, 65] {
        for tokens in (1..=9).chain([15, 16, 17]) {
            shapes.push((rows, tokens));
        }
    }
    for (rows, tokens) in thinned(shapes.into_iter()) {
        random(rows, 40, tokens, 1);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many products for an interpreter")]
fn extremes_overflow_nothing() {
    // 128 sums of 2 * 127 pass 16 bits: the lengths are beyond every width at which a narrow sum would be full.
    for cols in [64, 4096, 6912, 16384, 16384 + 7, 40_000] {
        let rows = 3;
        let of = |weight: i8| vec![weight; rows * cols];
        let flip = |a: i8, b: i8, n| -> Vec<i8> {
            (0..n).map(|i| if i % 2 == 0 { a } else { b }).collect()
        };
        for weights in [of(1), of(-1), of(0), flip(1, -1, rows * cols)] {
            for x in [
                vec![127; cols],
                vec![-128; cols],
                vec![0; cols],
                flip(127, -128, cols),
            ] {
                check(rows, cols, 1, &weights, &x, 1);
                let twice = [x.clone(), x].concat();
                check(rows, cols, 2, &weights, &twice, 1);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many products for an interpreter")]
fn the_widest_matrix_is_exact() {
    let cols = bitcost::kernels::packing::MAX_COLS;
    check(1, cols, 1, &vec![1; cols], &vec![-128; cols], 1);
    check(1, cols, 1, &vec![1; cols], &vec![127; cols], 1);
}

#[test]
fn threads_change_nothing() {
    let (cols, tokens, all): (_, _, &[usize]) = match cfg!(miri) {
        true => (20, 2, &[2]),
        false => (2560, 21, &[1, 2, 3, 7]),
    };
    for threads in all {
        random(200, cols, 1, *threads);
        random(97, cols / 8, tokens, *threads);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 60 }))]

    #[test]
    #[cfg_attr(miri, ignore = "too many products for an interpreter")]
    fn random_shapes_agree(rows in 1usize..100, cols in 1usize..700, tokens in 1usize..20, threads in 1usize..4) {
        random(rows, cols, tokens, threads);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too many weights for an interpreter")]
    fn packed_rows_come_back(rows in 1usize..70, cols in 1usize..200, seed in 1u64..u64::MAX) {
        let mut random = Random(seed);
        let weights: Vec<i8> = (0..rows * cols).map(|_| random.weight()).collect();
        for packing in Packing::ALL {
            let packed = pack(packing, rows, cols, &weights);
            for (row, expected) in weights.chunks_exact(cols).enumerate() {
                let mut out = vec![9; cols];
                packed.row(row, &mut out);
                prop_assert_eq!(&out, expected);
            }
            let counts = packed.counts();
            let plus = weights.iter().filter(|w| **w == 1).count() as u64;
            prop_assert_eq!(counts.plus, plus);
            prop_assert_eq!(counts.plus + counts.zero + counts.minus, (rows * cols) as u64);
        }
    }

    #[test]
    fn activations_are_those_of_the_formula(
        x in prop::collection::vec(-1000.0f32..1000.0, 1..400), tokens in 1usize..20
    ) {
        let cols = x.len();
        let x: Vec<f32> = (0..tokens).flat_map(|t| x.iter().map(move |x| x * (t as f32 - 2.5))).collect();
        let it = Activations::quantize(&x, cols, Granularity::Token, &Pool::new(2)).unwrap();
        for (token, x) in x.chunks_exact(cols).enumerate() {
            let absmax = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            let scale = 127.0 / absmax.max(1e-5);
            prop_assert_eq!(it.scales()[token], scale);
            let codes: Vec<i8> =
                x.iter().map(|x| (x * scale).round_ties_even().clamp(-128.0, 127.0) as i8).collect();
            prop_assert_eq!(it.sums()[token], codes.iter().map(|c| i32::from(*c)).sum::<i32>());
            prop_assert_eq!(it.codes(token), codes);
        }
    }
}

#[test]
fn ties_go_to_the_even_code() {
    // The maximum is 127, so the scale is 1.
    let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -127.0];
    let it = Activations::quantize(&x, 8, Granularity::Token, &Pool::alone()).unwrap();
    assert_eq!(it.codes(0), [127, 0, 2, 2, 0, -2, -2, -127]);
}

#[test]
fn a_token_of_zeros_has_codes_of_zero_and_a_finite_scale() {
    let it = Activations::quantize(&[0.0; 6], 3, Granularity::Token, &Pool::alone()).unwrap();
    assert_eq!(it.codes(1), [0, 0, 0]);
    assert_eq!(it.scales(), [127.0 / 1e-5; 2]);
}

#[test]
fn one_scale_for_all_tokens_is_that_of_the_largest() {
    let x = [1.0, -2.0, 4.0, 0.5];
    let it = Activations::quantize(&x, 2, Granularity::Tensor, &Pool::alone()).unwrap();
    assert_eq!(it.scales(), [127.0 / 4.0; 2]);
    assert_eq!(it.codes(0), [32, -64]);
    assert_eq!(it.codes(1), [127, 16]);
}

#[test]
fn what_is_not_finite_is_named() {
    for (wrong, granularity) in [
        (f32::NAN, Granularity::Token),
        (f32::INFINITY, Granularity::Token),
        (f32::NEG_INFINITY, Granularity::Tensor),
        (f32::NAN, Granularity::Tensor),
    ] {
        let mut x = vec![1.0; 5 * 12];
        x[3 * 12 + 7] = wrong;
        let error = Activations::quantize(&x, 12, granularity, &Pool::new(2)).unwrap_err();
        assert!(
            matches!(
                error,
                KernelError::NotFinite {
                    token: 3,
                    feature: 7,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn numbers_are_sums_over_scales_plus_bias() {
    let (rows, cols) = if cfg!(miri) { (5, 3) } else { (40, 24) };
    let mut random = Random(5);
    let weights: Vec<i8> = (0..rows * cols).map(|_| random.weight()).collect();
    let x: Vec<f32> = (0..9 * cols)
        .map(|_| f32::from(random.code()) / 16.0)
        .collect();
    let each: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
    let bias: Vec<f32> = (0..rows).map(|row| row as f32 / 8.0).collect();
    let pool = Pool::alone();
    let codes = Activations::quantize(&x, cols, Granularity::Token, &pool).unwrap();
    for kernel in available() {
        let packed = pack(kernel.packing, rows, cols, &weights);
        let mut sums = vec![0; 9 * rows];
        accumulate(*kernel, &packed, &codes, &pool, &mut sums).unwrap();
        for (rows_scale, bias) in [
            (RowScale::One(0.25), None),
            (RowScale::Each(&each), Some(&bias[..])),
        ] {
            let scaling = Scaling {
                rows: rows_scale,
                bias,
            };
            let mut out = vec![0.0; 9 * rows];
            multiply(*kernel, &packed, &codes, &scaling, &pool, &mut out).unwrap();
            for (at, y) in out.iter().enumerate() {
                let (token, row) = (at / rows, at % rows);
                let scale = match rows_scale {
                    RowScale::One(scale) => scale,
                    RowScale::Each(scales) => scales[row],
                };
                let number = sums[at] as f32 * (1.0 / codes.scales()[token] * scale);
                assert_eq!(
                    *y,
                    number + bias.map_or(0.0, |bias| bias[row]),
                    "{}",
                    kernel.name
                );
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let packed = pack(Packing::Planes, 2, 3, &[0; 6]);
    let x = Activations::of_codes(&[1, 2, 3], 3).unwrap();
    let pool = Pool::alone();
    let planes = best(Packing::Planes, 1);
    let fails = |kernel: Runnable, x: &Activations, outputs: usize| {
        accumulate(kernel, &packed, x, &pool, &mut vec![0; outputs])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        fails(planes, &x, 3),
        "the output has 3 numbers where 2 belong"
    );
    let other = Activations::of_codes(&[1, 2], 2).unwrap();
    assert_eq!(
        fails(planes, &other, 2),
        "a token has 2 numbers where 3 belong"
    );
    let reads = fails(best(Packing::Trits, 1), &x, 2);
    assert!(
        reads.ends_with("reads weights of 1.6 bits, these have 2.0"),
        "{reads}"
    );
    let empty = Packed::pack(Packing::Planes, 0, 3, |_, _| {}).unwrap_err();
    assert_eq!(
        empty.to_string(),
        "a matrix of 0 rows and 3 columns has no product"
    );
    let wide = Packed::pack(Packing::Planes, 1, 1 << 19, |_, _| {}).unwrap_err();
    assert!(
        wide.to_string().starts_with("524288 columns are more"),
        "{wide}"
    );
    let two = Packed::pack(Packing::Trits, 2, 3, |row, out| out.fill(row as i8 * 2)).unwrap_err();
    assert!(
        two.to_string()
            .starts_with("the weight in row 1, column 0 is 2;"),
        "{two}"
    );
    assert!(Activations::of_codes(&[1, 2, 3], 2).is_err());
    assert!(Activations::quantize(&[], 2, Granularity::Token, &pool).is_err());
}

#[test]
fn kernels_are_found_by_name() {
    assert_eq!(by_name("scalar-1.6").unwrap().name, "scalar-1.6");
    let unknown = by_name("scalar-2").unwrap_err().to_string();
    assert!(
        unknown.contains("did you mean `scalar-2.0`") && unknown.contains("runs scalar-2.0"),
        "{unknown}"
    );
    for tokens in [1, 8] {
        for packing in Packing::ALL {
            assert_eq!(best(packing, tokens).packing, packing);
        }
    }
}
