//! The product of a matrix of plain numbers with one vector, however the numbers are stored: the output matrix of a model.
//!
//! It is bound by memory: a thread takes rows that lie side by side and asks for their lines before they are needed, and numbers
//! are widened where they are used, never before. Numbers of 8 bits meet the vector in 16 bits: what that rounds away is 2^-16 of
//! its largest number, where their own rounding is 2^-8 of theirs, and whole numbers need half of the instructions.

#![allow(unsafe_code)]

use super::ops::{LANES, total};
use super::{Dtype, Tensor, TensorError};
use crate::threads::{Pool, Shared, chunks};
use crate::wide::{AHEAD, Loop, soon, wide};

/// How numbers are stored, and what they are as floats.
pub(crate) trait Stored: Sync {
    /// What stands in memory.
    type Bits: super::Element + Sync;
    /// As a float.
    fn float(bits: Self::Bits) -> f32;
}

/// Floats of 32 bits.
pub(crate) struct F32;
/// Floats of 16 bits with 5 of exponent.
pub(crate) struct F16;
/// Whole numbers of 8 bits.
pub(crate) struct I8;

impl Stored for F32 {
    type Bits = f32;
    #[inline(always)]
    fn float(bits: f32) -> f32 {
        bits
    }
}

impl Stored for F16 {
    type Bits = u16;
    /// Without a branch, so that it is done for many: shifted into place a magnitude is 2^112 times too small, subnormal or not.
    #[inline(always)]
    fn float(bits: u16) -> f32 {
        let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
        let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
        let other = 0x7f80_0000 | magnitude << 13;
        let number = if magnitude < 0x7c00 {
            finite.to_bits()
        } else {
            other
        };
        f32::from_bits(number | sign)
    }
}

impl Stored for I8 {
    type Bits = i8;
    #[inline(always)]
    fn float(bits: i8) -> f32 {
        f32::from(bits)
    }
}

/// Columns that loops take at once; vectors are padded with 0 to a multiple.
const AT_ONCE: usize = 64;

/// Bytes of the matrix that a thread takes at once.
const PIECE: usize = 64 << 10;

/// A vector, in the forms in which matrices meet it. Its memory is used again for the next numbers.
#[derive(Debug)]
pub struct Vector {
    numbers: Vec<f32>,
    /// Of every 32 numbers those at even places, then those at odd ones: a word of BF16 holds one of each.
    halves: Vec<f32>,
    /// Rounded to 16 bits.
    whole: Vec<i16>,
    /// What a whole number of 1 stands for.
    unit: f32,
}

impl Vector {
    /// Zeros.
    pub fn new(cols: usize) -> Vector {
        let padded = cols.next_multiple_of(AT_ONCE);
        Vector {
            numbers: vec![0.0; cols],
            halves: vec![0.0; padded],
            whole: vec![0; padded],
            unit: 0.0,
        }
    }

    /// Takes other numbers, as many as it has.
    fn set(&mut self, x: &[f32], dtype: Dtype) {
        self.numbers.copy_from_slice(x);
        match dtype {
            Dtype::Bf16 => {
                for (halves, x) in self.halves.chunks_exact_mut(32).zip(x.chunks(32)) {
                    for (at, x) in x.iter().enumerate() {
                        halves[at % 2 * 16 + at / 2] = *x;
                    }
                }
            }
            Dtype::I8 => {
                let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
                let scale = if most > 0.0 { 32767.0 / most } else { 0.0 };
                self.unit = most / 32767.0;
                for (whole, x) in self.whole.iter_mut().zip(x) {
                    *whole = (x * scale).round_ties_even() as i16;
                }
            }
            _ => {}
        }
    }
}

/// `out[row] = sum over k of matrix[row][k] * x[k] * scales[row]`; without scales they are 1. `vector` is memory for `x`, of as
/// many numbers.
pub fn multiply(
    matrix: &Tensor,
    scales: Option<&[f32]>,
    x: &[f32],
    vector: &mut Vector,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let [rows, cols] = *matrix.shape() else {
        return Err(shape(matrix, &[x.len()]));
    };
    let fits = x.len() == cols && vector.numbers.len() == cols && out.len() == rows;
    if !fits || scales.is_some_and(|scales| scales.len() != rows) {
        return Err(shape(matrix, &[x.len(), out.len()]));
    }
    vector.set(x, matrix.dtype());
    let vector = &*vector;
    match matrix.dtype() {
        Dtype::F32 => floats::<F32>(matrix, vector, pool, out)?,
        Dtype::F16 => floats::<F16>(matrix, vector, pool, out)?,
        Dtype::Bf16 => each(matrix.numbers()?, cols, pool, out, bf16(), vector),
        Dtype::I8 => each(matrix.numbers()?, cols, pool, out, whole(), vector),
        dtype @ Dtype::Ternary(_) => {
            return Err(TensorError::Dtype {
                dtype,
                asked: "plain numbers",
            });
        }
    }
    if let Some(scales) = scales {
        out.iter_mut()
            .zip(scales)
            .for_each(|(out, scale)| *out *= scale);
    }
    Ok(())
}

fn shape(matrix: &Tensor, asked: &[usize]) -> TensorError {
    TensorError::Shape {
        shape: matrix.shape().to_vec(),
        asked: asked.to_vec(),
    }
}

/// The product of one row with a vector. Unsafe, because it may only run where its instructions exist; `rest` is what follows the
/// row in memory, of which lines are asked for.
type Row<T> = unsafe fn(row: &[T], rest: *const T, x: &Vector) -> f32;

fn floats<S: Stored>(
    matrix: &Tensor,
    x: &Vector,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let row: Row<S::Bits> = |row, _, x| wide(Dot::<S> { row, x: &x.numbers });
    each(matrix.numbers()?, x.numbers.len(), pool, out, row, x);
    Ok(())
}

/// All rows.
fn each<T: Sync>(
    numbers: &[T],
    cols: usize,
    pool: &Pool,
    out: &mut [f32],
    row: Row<T>,
    x: &Vector,
) {
    let place = Shared::of(out);
    let at_once = (PIECE / (cols * size_of::<T>()).max(1)).max(1);
    chunks(pool, place.len(), at_once, &|rows| {
        // SAFETY: every row is given to one thread once.
        let out = unsafe { place.slice(rows.start, rows.len()) };
        for (number, out) in rows.zip(out) {
            let this = &numbers[number * cols..][..cols];
            // A hint about memory that need not be there.
            let ahead = this.as_ptr().wrapping_byte_add(AHEAD);
            // SAFETY: whoever chose the function found its instructions.
            *out = unsafe { row(this, ahead, x) };
        }
    });
}

/// A row of floats times a vector, one lane beside the other.
struct Dot<'d, S: Stored> {
    row: &'d [S::Bits],
    x: &'d [f32],
}

impl<S: Stored> Loop for Dot<'_, S> {
    type Out = f32;
    #[inline(always)]
    fn run(self) -> f32 {
        let mut sums = [0.0f32; LANES];
        for (row, x) in self.row.chunks(LANES).zip(self.x.chunks(LANES)) {
            for ((sum, number), x) in sums.iter_mut().zip(row).zip(x) {
                *sum = S::float(*number).mul_add(*x, *sum);
            }
        }
        total(&sums)
    }
}

/// The row function for BF16 that is best here.
fn bf16() -> Row<u16> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return x86::bf16_avx512;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return x86::bf16_avx2;
        }
    }
    bf16_plain
}

/// What the others mean.
unsafe fn bf16_plain(row: &[u16], _: *const u16, x: &Vector) -> f32 {
    let mut sums = [0.0f32; 32];
    for (row, x) in row.chunks(32).zip(x.halves.chunks_exact(32)) {
        for (at, number) in row.iter().enumerate() {
            let place = at % 2 * 16 + at / 2;
            let number = f32::from_bits(u32::from(*number) << 16);
            sums[place] = number.mul_add(x[place], sums[place]);
        }
    }
    sums.iter().sum()
}

/// The row function for 8 bits that is best here.
fn whole() -> Row<i8> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") {
            return x86::whole_avx512;
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return x86::whole_avx2;
        }
    }
    whole_plain
}

/// Columns after which sums of 32 bits are put away: a lane takes two products of at most 127 * 32767 for each 32 columns, and 2^31
/// holds 258 of such pairs.
const PUT_AWAY: usize = 4096;

/// What the others mean: the sum is exact before it is scaled.
unsafe fn whole_plain(row: &[i8], _: *const i8, x: &Vector) -> f32 {
    let products = row
        .iter()
        .zip(&x.whole)
        .map(|(a, b)| i64::from(*a) * i64::from(*b));
    products.sum::<i64>() as f32 * x.unit
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AT_ONCE, PUT_AWAY, Vector, soon};
    use std::arch::x86_64::*;

    /// Even places of a word are shifted up, odd ones stand where they belong and only lose the even.
    #[target_feature(enable = "avx512f")]
    pub(super) fn bf16_avx512(row: &[u16], rest: *const u16, x: &Vector) -> f32 {
        let mut sums = [_mm512_setzero_ps(); 4];
        let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let (whole, tail) = row.as_chunks::<AT_ONCE>();
        let (halves, _) = x.halves.as_chunks::<AT_ONCE>();
        let mut add = |numbers: &[u16; AT_ONCE], x: &[f32; AT_ONCE]| {
            for (half, sums) in sums.chunks_exact_mut(2).enumerate() {
                // SAFETY: 32 numbers of 16 bits and 32 of 32 bits follow from there.
                let (both, even_x, odd_x) = unsafe {
                    (
                        _mm512_loadu_si512(numbers.as_ptr().add(32 * half).cast()),
                        _mm512_loadu_ps(x.as_ptr().add(32 * half)),
                        _mm512_loadu_ps(x.as_ptr().add(32 * half + 16)),
                    )
                };
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both));
                let odd = _mm512_castsi512_ps(_mm512_and_si512(both, odd));
                sums[0] = _mm512_fmadd_ps(even, even_x, sums[0]);
                sums[1] = _mm512_fmadd_ps(odd, odd_x, sums[1]);
            }
        };
        for (number, (numbers, x)) in whole.iter().zip(halves).enumerate() {
            let ahead = rest.wrapping_add(number * AT_ONCE);
            soon(ahead);
            soon(ahead.wrapping_byte_add(64));
            add(numbers, x);
        }
        if !tail.is_empty() {
            let mut numbers = [0; AT_ONCE];
            numbers[..tail.len()].copy_from_slice(tail);
            add(&numbers, &halves[whole.len()]);
        }
        let [a, b, c, d] = sums;
        _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
    }

    /// The same with vectors of half the width.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn bf16_avx2(row: &[u16], rest: *const u16, x: &Vector) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 8];
        let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        let (whole, tail) = row.as_chunks::<AT_ONCE>();
        let (halves, _) = x.halves.as_chunks::<AT_ONCE>();
        let mut add = |numbers: &[u16; AT_ONCE], x: &[f32; AT_ONCE]| {
            for (quarter, sums) in sums.chunks_exact_mut(2).enumerate() {
                // Of every 32 numbers of the vector the even ones are the first 16.
                let x = &x[quarter / 2 * 32 + quarter % 2 * 8..];
                // SAFETY: 16 numbers of 16 bits follow from there, and 8 of 32 bits from each of the others.
                let (both, even_x, odd_x) = unsafe {
                    (
                        _mm256_loadu_si256(numbers.as_ptr().add(16 * quarter).cast()),
                        _mm256_loadu_ps(x.as_ptr()),
                        _mm256_loadu_ps(x[16..].as_ptr()),
                    )
                };
                let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                let odd = _mm256_castsi256_ps(_mm256_and_si256(both, odd));
                sums[0] = _mm256_fmadd_ps(even, even_x, sums[0]);
                sums[1] = _mm256_fmadd_ps(odd, odd_x, sums[1]);
            }
        };
        for (number, (numbers, x)) in whole.iter().zip(halves).enumerate() {
            let ahead = rest.wrapping_add(number * AT_ONCE);
            soon(ahead);
            soon(ahead.wrapping_byte_add(64));
            add(numbers, x);
        }
        if !tail.is_empty() {
            let mut numbers = [0; AT_ONCE];
            numbers[..tail.len()].copy_from_slice(tail);
            add(&numbers, &halves[whole.len()]);
        }
        let mut lanes = [0.0f32; 8];
        let sum = sums.into_iter().reduce(|a, b| _mm256_add_ps(a, b));
        // SAFETY: 8 numbers of 32 bits have room there.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum.expect("there are sums")) };
        lanes.iter().sum()
    }

    /// Pairs of products of 16 bits are summed in 32, and lanes of 32 in 64 before they overflow.
    #[target_feature(enable = "avx512bw")]
    pub(super) fn whole_avx512(row: &[i8], rest: *const i8, x: &Vector) -> f32 {
        let mut sum = 0i64;
        let pieces = row.chunks(PUT_AWAY).zip(x.whole.chunks(PUT_AWAY));
        for (piece, (row, x)) in pieces.enumerate() {
            let mut sums = [_mm512_setzero_si512(); 2];
            let (whole, tail) = row.as_chunks::<AT_ONCE>();
            let (vector, _) = x.as_chunks::<AT_ONCE>();
            let mut add = |numbers: &[i8; AT_ONCE], x: &[i16; AT_ONCE]| {
                for (half, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: 32 numbers of 8 bits and 32 of 16 bits follow from there.
                    let (numbers, x) = unsafe {
                        (
                            _mm256_loadu_si256(numbers.as_ptr().add(32 * half).cast()),
                            _mm512_loadu_si512(x.as_ptr().add(32 * half).cast()),
                        )
                    };
                    let pairs = _mm512_madd_epi16(_mm512_cvtepi8_epi16(numbers), x);
                    *sum = _mm512_add_epi32(*sum, pairs);
                }
            };
            for (number, (numbers, x)) in whole.iter().zip(vector).enumerate() {
                let ahead = rest.wrapping_add(piece * PUT_AWAY + number * AT_ONCE);
                soon(ahead);
                add(numbers, x);
            }
            if !tail.is_empty() {
                let mut numbers = [0; AT_ONCE];
                numbers[..tail.len()].copy_from_slice(tail);
                add(&numbers, &vector[whole.len()]);
            }
            for sums in sums {
                let mut lanes = [0i32; 16];
                // SAFETY: 16 numbers of 32 bits have room there.
                unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), sums) };
                sum += lanes.iter().map(|lane| i64::from(*lane)).sum::<i64>();
            }
        }
        sum as f32 * x.unit
    }

    /// The same with vectors of half the width.
    #[target_feature(enable = "avx2")]
    pub(super) fn whole_avx2(row: &[i8], rest: *const i8, x: &Vector) -> f32 {
        let mut sum = 0i64;
        let pieces = row.chunks(PUT_AWAY).zip(x.whole.chunks(PUT_AWAY));
        for (piece, (row, x)) in pieces.enumerate() {
            let mut sums = [_mm256_setzero_si256(); 4];
            let (whole, tail) = row.as_chunks::<AT_ONCE>();
            let (vector, _) = x.as_chunks::<AT_ONCE>();
            let mut add = |numbers: &[i8; AT_ONCE], x: &[i16; AT_ONCE]| {
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: 16 numbers of 8 bits and 16 of 16 bits follow from there.
                    let (numbers, x) = unsafe {
                        (
                            _mm_loadu_si128(numbers.as_ptr().add(16 * quarter).cast()),
                            _mm256_loadu_si256(x.as_ptr().add(16 * quarter).cast()),
                        )
                    };
                    let pairs = _mm256_madd_epi16(_mm256_cvtepi8_epi16(numbers), x);
                    *sum = _mm256_add_epi32(*sum, pairs);
                }
            };
            for (number, (numbers, x)) in whole.iter().zip(vector).enumerate() {
                let ahead = rest.wrapping_add(piece * PUT_AWAY + number * AT_ONCE);
                soon(ahead);
                add(numbers, x);
            }
            if !tail.is_empty() {
                let mut numbers = [0; AT_ONCE];
                numbers[..tail.len()].copy_from_slice(tail);
                add(&numbers, &vector[whole.len()]);
            }
            for sums in sums {
                let mut lanes = [0i32; 8];
                // SAFETY: 8 numbers of 32 bits have room there.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
                sum += lanes.iter().map(|lane| i64::from(*lane)).sum::<i64>();
            }
        }
        sum as f32 * x.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float16;
    use crate::memory::{MemoryPool, PoolConfig, Tag};
    use crate::random::Random;

    const TAG: Tag = Tag::of("test");

    fn off(matrix: &Tensor, numbers: &[f32], x: &[f32], threads: usize) -> f64 {
        let rows = numbers.len() / x.len();
        let mut out = vec![9.0; rows];
        let (pool, mut vector) = (Pool::new(threads), Vector::new(x.len()));
        let scales: Vec<f32> = (0..rows).map(|row| 1.0 + row as f32).collect();
        // Twice, because the second time its memory holds other numbers.
        let other = vec![7.0; x.len()];
        multiply(matrix, Some(&scales), &other, &mut vector, &pool, &mut out).expect("a product");
        multiply(matrix, Some(&scales), x, &mut vector, &pool, &mut out).expect("a product");
        let rows = numbers.chunks(x.len()).zip(&out).zip(&scales);
        rows.map(|((row, out), scale)| {
            let products = row
                .iter()
                .zip(x)
                .map(|(a, b)| f64::from(*a) * f64::from(*b));
            let size: f64 = products.clone().map(f64::abs).sum();
            (products.sum::<f64>() - f64::from(*out) / f64::from(*scale)).abs() / size.max(1e-9)
        })
        .fold(0.0, f64::max)
    }

    #[test]
    fn products_are_those_of_64_bits() {
        let pool = MemoryPool::new(PoolConfig::small());
        let mut random = Random::seeded(3);
        for (rows, cols) in [(1, 1), (3, 31), (5, 64), (7, 65), (33, 200), (2, 9000)] {
            if cfg!(miri) && rows * cols > 500 {
                continue;
            }
            let numbers: Vec<f32> = (0..rows * cols).map(|_| random.normal()).collect();
            let x: Vec<f32> = (0..cols).map(|_| random.normal()).collect();
            let shape = [rows, cols];
            let of = |dtype, stored: &dyn Fn(f32) -> u16, number: &dyn Fn(u16) -> f32| {
                let bits: Vec<u16> = numbers.iter().map(|x| stored(*x)).collect();
                let exact: Vec<f32> = bits.iter().map(|bits| number(*bits)).collect();
                let matrix = Tensor::of(&pool, dtype, &bits, &shape, TAG).expect("memory");
                off(&matrix, &exact, &x, 2)
            };
            let bf16 = of(Dtype::Bf16, &float16::to_bf16, &float16::from_bf16);
            assert!(bf16 < 1e-6, "{shape:?}: {bf16:e}");
            let f16 = of(Dtype::F16, &float16::to_f16, &float16::from_f16);
            assert!(f16 < 1e-6, "{shape:?}: {f16:e}");
            let matrix = Tensor::of(&pool, Dtype::F32, &numbers, &shape, TAG).expect("memory");
            let f32 = off(&matrix, &numbers, &x, 1);
            assert!(f32 < 1e-6, "{shape:?}: {f32:e}");
            let codes: Vec<i8> = numbers
                .iter()
                .map(|x| (x * 40.0).clamp(-127.0, 127.0) as i8)
                .collect();
            let exact: Vec<f32> = codes.iter().map(|code| f32::from(*code)).collect();
            let matrix = Tensor::of(&pool, Dtype::I8, &codes, &shape, TAG).expect("memory");
            let i8 = off(&matrix, &exact, &x, 2);
            // Rounding of the vector: half of a step of 1/32767 of its largest number, of which a mean is a third or so.
            assert!(i8 < 1e-4, "{shape:?}: {i8:e}");
        }
    }

    #[test]
    fn whole_numbers_of_every_size_are_exact() {
        let mut x = Vector::new(9000);
        for (number, most) in [(127i8, 32767.0), (-127, 32767.0), (127, -32767.0)] {
            x.set(&vec![most; 9000], Dtype::I8);
            let row = vec![number; 9000];
            // SAFETY: the functions were chosen for this machine.
            let (ours, plain) = unsafe {
                (
                    whole()(&row, row.as_ptr(), &x),
                    whole_plain(&row, row.as_ptr(), &x),
                )
            };
            assert_eq!(ours, plain);
            assert_eq!(ours, f32::from(number) * most * 9000.0);
        }
    }

    #[test]
    fn every_way_gives_what_the_plain_one_does() {
        let mut random = Random::seeded(9);
        for cols in [1, 63, 64, 128, 300] {
            let mut x = Vector::new(cols);
            let numbers: Vec<f32> = (0..cols).map(|_| random.normal()).collect();
            x.set(&numbers, Dtype::Bf16);
            let row: Vec<u16> = numbers.iter().rev().map(|x| float16::to_bf16(*x)).collect();
            // SAFETY: the functions were chosen for this machine.
            let (ours, plain) = unsafe {
                (
                    bf16()(&row, row.as_ptr(), &x),
                    bf16_plain(&row, row.as_ptr(), &x),
                )
            };
            assert!((ours - plain).abs() <= 1e-5 * cols as f32, "{ours} {plain}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "the interpreter makes powers of two inexact")]
    fn all_floats_of_16_bits_are_what_their_bits_say() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (F16::float(bits), float16::from_f16(bits));
            assert!(
                ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(),
                "{bits:#06x}"
            );
        }
    }
}
