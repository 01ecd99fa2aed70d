//! The product of a matrix of plain numbers with one vector, however the numbers are stored: the output matrix of a model.
//!
//! It is bound by memory: a thread takes rows that lie side by side and asks for their lines before they are needed, and numbers
//! are widened where they are used, never before. Numbers of 8 bits meet the vector in 16 bits: what that rounds away is 2^-16 of
//! its largest number, where their own rounding is 2^-8 of theirs, and whole numbers need half of the instructions.

#![allow(unsafe_code)]

use super::ops::{LANES, total};
use super::{Dtype, Element, Tensor, TensorError};
use crate::threads::{Pool, Shared, chunks};
use crate::wide::{Loop, ask_ahead_of, wide};

/// How numbers are stored, and what they are as floats.
pub(crate) trait Stored: Sync {
    /// What stands in memory.
    type Bits: super::Element + Sync;
    /// As a float.
    fn float(bits: Self::Bits) -> f32;
}

/// Floats of 32 bits.
pub(crate) struct F32;
/// The upper halves of such.
struct Bf16;
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

impl Stored for Bf16 {
    type Bits = u16;
    #[inline(always)]
    fn float(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
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

/// Bytes of the matrix that a thread takes at once.
const PIECE: usize = 64 << 10;

/// `out[row] = sum over k of matrix[row][k] * x[k] * scales[row]`; without scales they are 1. `whole` is memory for `x` in 16 bits,
/// which is used again for the next.
pub fn multiply(
    matrix: &Tensor,
    scales: Option<&[f32]>,
    x: &[f32],
    whole: &mut Vec<i16>,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), TensorError> {
    let [rows, cols] = *matrix.shape() else {
        return Err(shape(matrix, &[x.len()]));
    };
    let fits = x.len() == cols && out.len() == rows;
    if !fits || scales.is_some_and(|scales| scales.len() != rows) {
        return Err(shape(matrix, &[x.len(), out.len()]));
    }
    match matrix.dtype() {
        Dtype::F32 => each(matrix.numbers()?, Floats::<F32>::new(x), pool, out),
        Dtype::Bf16 => each(matrix.numbers()?, Floats::<Bf16>::new(x), pool, out),
        Dtype::F16 => each(matrix.numbers()?, Floats::<F16>::new(x), pool, out),
        Dtype::I8 => each(matrix.numbers()?, Whole::new(x, whole), pool, out),
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

/// A vector, as rows of a kind meet it.
trait Vector: Copy + Sync {
    type Bits: Element + Sync;
    /// How many numbers it has.
    fn len(&self) -> usize;
    /// The product of a row with it.
    fn product(&self, row: &[Self::Bits]) -> f32;
}

/// All rows.
fn each<V: Vector>(numbers: &[V::Bits], x: V, pool: &Pool, out: &mut [f32]) {
    let place = Shared::of(out);
    let at_once = (PIECE / (x.len() * size_of::<V::Bits>()).max(1)).max(1);
    chunks(pool, place.len(), at_once, &|rows| {
        wide(Rows {
            numbers: &numbers[rows.start * x.len()..rows.end * x.len()],
            x,
            // SAFETY: every row is given to one thread once.
            out: unsafe { place.slice(rows.start, rows.len()) },
        });
    });
}

/// Some rows, one after the other.
struct Rows<'r, V: Vector> {
    numbers: &'r [V::Bits],
    x: V,
    out: &'r mut [f32],
}

impl<V: Vector> Loop for Rows<'_, V> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let rows = self.numbers.chunks_exact(self.x.len().max(1));
        for (out, row) in self.out.iter_mut().zip(rows) {
            *out = self.x.product(row);
        }
    }
}

/// For rows of floats, one lane beside the other.
struct Floats<'x, S>(&'x [f32], std::marker::PhantomData<S>);

impl<'x, S> Floats<'x, S> {
    fn new(x: &'x [f32]) -> Floats<'x, S> {
        Floats(x, std::marker::PhantomData)
    }
}

impl<S> Clone for Floats<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Floats<'_, S> {}

impl<S: Stored> Vector for Floats<'_, S> {
    type Bits = S::Bits;

    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn product(&self, row: &[S::Bits]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let add = |sums: &mut [f32; LANES], row: &[S::Bits], x: &[f32]| {
            for ((sum, number), x) in sums.iter_mut().zip(row).zip(x) {
                *sum = S::float(*number).mul_add(*x, *sum);
            }
        };
        let ((whole, rest), (x, x_rest)) = (row.as_chunks::<LANES>(), self.0.as_chunks::<LANES>());
        for (row, x) in whole.iter().zip(x) {
            ask_ahead_of(row);
            add(&mut sums, row, x);
        }
        add(&mut sums, rest, x_rest);
        total(&sums)
    }
}

/// For rows of 8 bits: the vector in 16.
#[derive(Clone, Copy)]
struct Whole<'x> {
    numbers: &'x [i16],
    /// What a whole number of 1 stands for.
    unit: f32,
}

/// Columns whose products a sum of 32 bits holds: 512 * 127 * 32767 < 2^31.
const SUMMED: usize = 512;

impl<'x> Whole<'x> {
    fn new(x: &[f32], numbers: &'x mut Vec<i16>) -> Whole<'x> {
        let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
        let scale = if most > 0.0 { 32767.0 / most } else { 0.0 };
        numbers.clear();
        numbers.extend(x.iter().map(|x| (x * scale).round_ties_even() as i16));
        Whole {
            numbers,
            unit: most / 32767.0,
        }
    }
}

impl Vector for Whole<'_> {
    type Bits = i8;

    fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The sum is exact before it is scaled.
    #[inline(always)]
    fn product(&self, row: &[i8]) -> f32 {
        let product = |(a, b): (&i8, &i16)| i32::from(*a) * i32::from(*b);
        let mut all = 0i64;
        for (row, x) in row.chunks(SUMMED).zip(self.numbers.chunks(SUMMED)) {
            let ((whole, rest), (x, x_rest)) = (row.as_chunks::<LANES>(), x.as_chunks::<LANES>());
            let mut sum: i32 = rest.iter().zip(x_rest).map(product).sum();
            for (row, x) in whole.iter().zip(x) {
                ask_ahead_of(row);
                sum += row.iter().zip(x).map(product).sum::<i32>();
            }
            all += i64::from(sum);
        }
        all as f32 * self.unit
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
        let (pool, mut vector) = (Pool::new(threads), Vec::new());
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
        for (number, most) in [(127i8, 32767.0), (-127, 32767.0), (127, -32767.0)] {
            let pool = MemoryPool::new(PoolConfig::small());
            let matrix = Tensor::of(&pool, Dtype::I8, &[number; 9000], &[1, 9000], TAG);
            let (mut out, mut whole) = ([0.0], Vec::new());
            let x = [most; 9000];
            let matrix = matrix.expect("memory");
            multiply(&matrix, None, &x, &mut whole, &Pool::alone(), &mut out).expect("a product");
            assert_eq!(out[0], f32::from(number) * most * 9000.0);
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
