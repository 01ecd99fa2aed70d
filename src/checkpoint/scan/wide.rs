//! Loops over codes and numbers that are worth the widest vectors of x86-64.
//!
//! Counting is written once, as loops that are compiled twice (`checkpoint/wide.rs`). Of sums of floats the compiler makes
//! no vectors, so they are written twice: one after the other, which is what they mean, and with AVX2, which gives the same
//! bits.

#![allow(unsafe_code)]

use super::super::wide::Loop;

/// Codes that are counted beside each other: those of eight bits fill a vector of AVX2.
const WIDTH: usize = 32;

/// A code as it is stored, or a number that was made from one.
pub(super) trait Code: Copy {
    type Lane: Lane;
    fn lane(self) -> Self::Lane;
}

/// An integer as wide as a code: counts stand in lanes beside the codes that they count.
pub(super) trait Lane: Copy + Default + Ord {
    /// Rows after which a count of a column might be full.
    const ROWS: usize;
    /// Columns after which a count of a row might be full, in any lane.
    const COLUMNS: usize;
    fn and(self, mask: Self) -> Self;
    /// 1 where it is not 0.
    fn one(self) -> Self;
    /// All bits where it is another, none elsewhere.
    fn is(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    fn long(self) -> u64;
    fn short(code: u64) -> Self;
}

macro_rules! lanes {
    ($($lane:ty: $bytes:literal, $rows:expr, $columns:expr;)*) => {$(
        impl Lane for $lane {
            const ROWS: usize = $rows;
            const COLUMNS: usize = $columns;
            #[inline(always)]
            fn and(self, mask: Self) -> Self {
                self & mask
            }
            #[inline(always)]
            fn one(self) -> Self {
                Self::from(self != 0)
            }
            #[inline(always)]
            fn is(self, other: Self) -> Self {
                if self == other { Self::MAX } else { 0 }
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn long(self) -> u64 {
                self.into()
            }
            #[inline(always)]
            fn short(code: u64) -> Self {
                code as Self
            }
        }
        impl Code for [u8; $bytes] {
            type Lane = $lane;
            #[inline(always)]
            fn lane(self) -> $lane {
                <$lane>::from_le_bytes(self)
            }
        }
    )*};
}

// Of 16 bits and more so many columns as no block has.
lanes! {
    u8: 1, 255, 255 * WIDTH;
    u16: 2, 65_535, 65_535 * WIDTH;
    u32: 4, 1 << 30, 1 << 30;
    u64: 8, 1 << 30, 1 << 30;
}

impl Code for f32 {
    type Lane = u32;
    #[inline(always)]
    fn lane(self) -> u32 {
        self.to_bits()
    }
}

/// Counts what is not 0 in some rows, at most [`Lane::ROWS`] of them: adds to the count of each column, writes the count of
/// each row, and gives the largest code under the mask.
pub(super) struct Rows<'b, C: Code> {
    pub(super) codes: &'b [C],
    /// Bits that are 0 in a zero and in nothing else.
    pub(super) mask: C::Lane,
    pub(super) columns: &'b mut [C::Lane],
    pub(super) rows: &'b mut [u32],
}

impl<C: Code> Loop for Rows<'_, C> {
    type Out = C::Lane;

    #[inline(always)]
    fn run(self) -> C::Lane {
        let width = self.columns.len().max(1);
        let mut top = [C::Lane::default(); WIDTH];
        let mut last_top = C::Lane::default();
        for (codes, found) in self.codes.chunks_exact(width).zip(self.rows) {
            let mut sum = 0;
            let runs = codes.chunks(C::Lane::COLUMNS);
            for (codes, columns) in runs.zip(self.columns.chunks_mut(C::Lane::COLUMNS)) {
                let mut row = [C::Lane::default(); WIDTH];
                let (whole, rest) = codes.as_chunks::<WIDTH>();
                let (columns, last) = columns.as_chunks_mut::<WIDTH>();
                // Of arrays whose length the compiler knows it makes vectors. They stay in registers if it also knows that
                // none lies in another, so codes and columns are copied, and that no lane is chosen while it runs.
                for (codes, columns) in whole.iter().zip(columns) {
                    let (codes, mut counts) = (*codes, *columns);
                    for lane in 0..WIDTH {
                        let code = codes[lane].lane().and(self.mask);
                        let one = code.one();
                        counts[lane] = counts[lane].plus(one);
                        row[lane] = row[lane].plus(one);
                        top[lane] = top[lane].max(code);
                    }
                    *columns = counts;
                }
                for (code, column) in rest.iter().zip(last) {
                    let code = code.lane().and(self.mask);
                    *column = column.plus(code.one());
                    sum += code.one().long();
                    last_top = last_top.max(code);
                }
                sum += row.into_iter().map(Lane::long).sum::<u64>();
            }
            *found = sum as u32;
        }
        top.into_iter().fold(last_top, Ord::max)
    }
}

/// Most codes that [`Among`] compares with.
pub(super) const FEW: usize = 16;

/// Whether all codes are among a few, all of which are compared with all.
pub(super) struct Among<'b, C: Code> {
    pub(super) codes: &'b [C],
    pub(super) few: [C::Lane; FEW],
}

impl<C: Code> Loop for Among<'_, C> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let zero = C::Lane::default();
        let (whole, rest) = self.codes.as_chunks::<WIDTH>();
        let mut missing = [zero; WIDTH];
        for codes in whole {
            for lane in 0..WIDTH {
                let code = codes[lane].lane();
                let mut found = zero;
                for known in self.few {
                    found = found.or(code.is(known));
                }
                missing[lane] = missing[lane].or(found.is(zero));
            }
        }
        let rest_is = rest.iter().all(|code| self.few.contains(&code.lane()));
        missing == [zero; WIDTH] && rest_is
    }
}

/// Sums beside each other.
pub(super) const LANES: usize = 8;

/// Sums of numbers in lanes: number `i` is in lane `i mod 8`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sums {
    pub(super) sum: [f64; LANES],
    pub(super) magnitudes: [f64; LANES],
    pub(super) squares: [f64; LANES],
    pub(super) min: [f32; LANES],
    pub(super) max: [f32; LANES],
}

impl Sums {
    pub(super) const NONE: Sums = Sums {
        sum: [0.0; LANES],
        magnitudes: [0.0; LANES],
        squares: [0.0; LANES],
        min: [f32::INFINITY; LANES],
        max: [f32::NEG_INFINITY; LANES],
    };

    /// Adds numbers that are finite.
    pub(super) fn add(&mut self, numbers: &[[f32; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
            unsafe { self.add_avx2(numbers) };
            return;
        }
        self.add_each(numbers);
    }

    /// One number after the other: what the other way is held against.
    fn add_each(&mut self, numbers: &[[f32; LANES]]) {
        for run in numbers {
            for (lane, number) in run.iter().enumerate() {
                let wide = f64::from(*number);
                self.sum[lane] += wide;
                self.magnitudes[lane] += wide.abs();
                self.squares[lane] += wide * wide;
                self.min[lane] = self.min[lane].min(*number);
                self.max[lane] = self.max[lane].max(*number);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn add_avx2(&mut self, numbers: &[[f32; LANES]]) {
        use std::arch::x86_64::*;
        let sign = _mm256_set1_pd(-0.0);
        let [mut sum, mut magnitudes, mut squares] =
            [&self.sum, &self.magnitudes, &self.squares].map(|lanes| load_f64(lanes));
        let (mut min, mut max) = (load_f32(&self.min), load_f32(&self.max));
        for run in numbers {
            let run = load_f32(run);
            min = _mm256_min_ps(min, run);
            max = _mm256_max_ps(max, run);
            for (half, wide) in widened(run).into_iter().enumerate() {
                sum[half] = _mm256_add_pd(sum[half], wide);
                let magnitude = _mm256_andnot_pd(sign, wide);
                magnitudes[half] = _mm256_add_pd(magnitudes[half], magnitude);
                squares[half] = _mm256_add_pd(squares[half], _mm256_mul_pd(wide, wide));
            }
        }
        self.sum = store_f64(sum);
        self.magnitudes = store_f64(magnitudes);
        self.squares = store_f64(squares);
        self.min = store_f32(min);
        self.max = store_f32(max);
    }
}

/// Sums over pairs of numbers in lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PairSums {
    pub(super) base: [f64; LANES],
    pub(super) other: [f64; LANES],
    pub(super) product: [f64; LANES],
    pub(super) difference: [f64; LANES],
    /// Largest difference.
    pub(super) max: [f64; LANES],
}

impl PairSums {
    /// Adds pairs of numbers that are finite.
    pub(super) fn add(&mut self, base: &[[f32; LANES]], other: &[[f32; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
            unsafe { self.add_avx2(base, other) };
            return;
        }
        self.add_each(base, other);
    }

    /// One pair after the other: what the other way is held against.
    fn add_each(&mut self, base: &[[f32; LANES]], other: &[[f32; LANES]]) {
        for (base, other) in base.iter().zip(other) {
            for (lane, (base, other)) in base.iter().zip(other).enumerate() {
                let (base, other) = (f64::from(*base), f64::from(*other));
                let difference = base - other;
                self.base[lane] += base * base;
                self.other[lane] += other * other;
                self.product[lane] += base * other;
                self.difference[lane] += difference * difference;
                self.max[lane] = self.max[lane].max(difference.abs());
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn add_avx2(&mut self, base: &[[f32; LANES]], other: &[[f32; LANES]]) {
        use std::arch::x86_64::*;
        let sign = _mm256_set1_pd(-0.0);
        let [mut bases, mut others, mut products] =
            [&self.base, &self.other, &self.product].map(|lanes| load_f64(lanes));
        let [mut differences, mut max] = [&self.difference, &self.max].map(|lanes| load_f64(lanes));
        for (base, other) in base.iter().zip(other) {
            let pairs = widened(load_f32(base))
                .into_iter()
                .zip(widened(load_f32(other)));
            for (half, (base, other)) in pairs.enumerate() {
                let difference = _mm256_sub_pd(base, other);
                bases[half] = _mm256_add_pd(bases[half], _mm256_mul_pd(base, base));
                others[half] = _mm256_add_pd(others[half], _mm256_mul_pd(other, other));
                products[half] = _mm256_add_pd(products[half], _mm256_mul_pd(base, other));
                let square = _mm256_mul_pd(difference, difference);
                differences[half] = _mm256_add_pd(differences[half], square);
                max[half] = _mm256_max_pd(max[half], _mm256_andnot_pd(sign, difference));
            }
        }
        self.base = store_f64(bases);
        self.other = store_f64(others);
        self.product = store_f64(products);
        self.difference = store_f64(differences);
        self.max = store_f64(max);
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m256d};

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn load_f32(lanes: &[f32; LANES]) -> __m256 {
    // SAFETY: eight floats are 32 bytes, and the load asks for no alignment.
    unsafe { std::arch::x86_64::_mm256_loadu_ps(lanes.as_ptr()) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn store_f32(lanes: __m256) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    // SAFETY: eight floats are 32 bytes, and the store asks for no alignment.
    unsafe { std::arch::x86_64::_mm256_storeu_ps(out.as_mut_ptr(), lanes) };
    out
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn load_f64(lanes: &[f64; LANES]) -> [__m256d; 2] {
    let (halves, _) = lanes.as_chunks::<4>();
    // SAFETY: each half of eight floats is four of 8 bytes, and the load asks for no alignment.
    [0, 1].map(|half| unsafe { std::arch::x86_64::_mm256_loadu_pd(halves[half].as_ptr()) })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn store_f64(halves: [__m256d; 2]) -> [f64; LANES] {
    let mut out = [0.0; LANES];
    for (out, half) in out.as_chunks_mut::<4>().0.iter_mut().zip(halves) {
        // SAFETY: four floats of 8 bytes are the 32 that are stored, and the store asks for no alignment.
        unsafe { std::arch::x86_64::_mm256_storeu_pd(out.as_mut_ptr(), half) };
    }
    out
}

/// Eight floats of 32 bits as two times four of 64.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn widened(lanes: __m256) -> [__m256d; 2] {
    use std::arch::x86_64::*;
    [
        _mm256_cvtps_pd(_mm256_castps256_ps128(lanes)),
        _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(lanes)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::wide::widest;
    use super::*;
    use proptest::prelude::*;

    /// Both compilations of a loop over rows, and a loop that knows no lanes.
    fn check<const N: usize>(bytes: &[u8], width: usize, mask: u64)
    where
        [u8; N]: Code,
    {
        let (codes, _) = bytes.as_chunks::<N>();
        let rows = (codes.len() / width).min(<[u8; N] as Code>::Lane::ROWS);
        let codes = &codes[..rows * width];
        let run = |is_wide: bool| {
            let mut columns = vec![Default::default(); width];
            let mut found = vec![0; rows];
            let it = Rows {
                codes,
                mask: Lane::short(mask),
                columns: &mut columns,
                rows: &mut found,
            };
            let top = if is_wide { widest(it) } else { it.run() };
            let columns: Vec<u64> = columns.into_iter().map(Lane::long).collect();
            (columns, found, top.long())
        };
        let masked = |code: &[u8; N]| code.lane().long() & mask;
        let mut plain = (vec![0; width], vec![0; rows], 0);
        for (at, code) in codes.iter().map(masked).enumerate() {
            plain.0[at % width] += u64::from(code != 0);
            plain.1[at / width] += u32::from(code != 0);
            plain.2 = plain.2.max(code);
        }
        assert_eq!(run(false), plain);
        assert_eq!(run(true), plain);
    }

    #[test]
    fn every_width_around_a_vector_is_counted() {
        let bytes: Vec<u8> = (0..20_000u32)
            .map(|i| [0, 0x80, 1, 0xff, 0x7f][(i * i / 7 % 5) as usize])
            .collect();
        for width in (1..140).chain([191, 192, 193, 255, 256, 257, 384, 385, 8159, 8160, 8161]) {
            check::<1>(&bytes, width, 0x7f);
            check::<2>(&bytes, width, 0x7fff);
            check::<4>(&bytes, width, 0x7fff_ffff);
            check::<8>(&bytes, width, u64::MAX);
        }
    }

    #[test]
    fn codes_are_among_a_few_or_not_wherever_they_stand() {
        fn check<const N: usize>()
        where
            [u8; N]: Code,
        {
            let lane = |code: u64| <[u8; N] as Code>::Lane::short(code);
            let few = std::array::from_fn(|at| lane((at as u64 * at as u64) << (N * 8 - 8)));
            for length in (0..70).chain([255]) {
                let mut codes: Vec<[u8; N]> = (0..length)
                    .map(|at| {
                        let code = ((at % 16) as u64).pow(2) << (N * 8 - 8);
                        *code
                            .to_le_bytes()
                            .first_chunk()
                            .expect("no wider than 64 bits")
                    })
                    .collect();
                let both = |codes: &[[u8; N]]| {
                    let it = || Among { codes, few };
                    assert_eq!(widest(it()), it().run());
                    it().run()
                };
                assert!(both(&codes));
                for at in 0..length {
                    let code = std::mem::replace(&mut codes[at], [2; N]);
                    assert!(!both(&codes));
                    codes[at] = code;
                }
            }
        }
        check::<2>();
        check::<4>();
        check::<8>();
    }

    #[test]
    fn no_count_is_full_before_it_is_emptied() {
        // 255 rows of non-zeros, and rows of more non-zeros than 8 bits count.
        check::<1>(&vec![1; 255 * 300], 300, 0xff);
        check::<1>(&vec![1; 2 * 20_000], 20_000, 0xff);
        check::<2>(&vec![1; 2 * 70_000], 70_000, 0xffff);
    }

    proptest! {
        #[test]
        fn sums_are_those_of_one_number_after_the_other(
            numbers in prop::collection::vec(-1e30f32..1e30, 0..300),
            factor in -2f32..2.0,
        ) {
            let (base, _) = numbers.as_chunks::<LANES>();
            let other: Vec<f32> = numbers.iter().map(|n| n * factor).collect();
            let (other, _) = other.as_chunks::<LANES>();
            let (mut fast, mut each) = (Sums::NONE, Sums::NONE);
            fast.add(base);
            each.add_each(base);
            prop_assert_eq!(fast, each);
            let (mut fast, mut each) = (PairSums::default(), PairSums::default());
            fast.add(base, other);
            each.add_each(base, other);
            prop_assert_eq!(fast, each);
        }
    }
}
