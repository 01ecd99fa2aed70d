//! 8-bit activations: numbers in, codes in the order in which kernels read them out.
//!
//! `scale = 127 / max(|x|, 1e-5)` and `code = round(x * scale)`, ties to even, in floats of 32 bits: what the published BitNet
//! models compute. The maximum is that of a token, or of all tokens ([`Granularity`]).
//!
//! Tokens stand in blocks of 8, the last may be smaller. A block is `[columns / 4][tokens][4]`: a kernel reads it once from
//! begin to end, and a single token is simply its columns in order. Columns are padded with 0 to whole blocks of every packing.

use super::packing::MAX_COLS;
use super::{KernelError, Pool, TOKENS};
use crate::threads::{Shared, chunks};
use crate::wide::{Loop, wide};

/// Below this a maximum counts as this much, so that a token of zeros has a scale.
pub const ABSMAX_FLOOR: f32 = 1e-5;

/// Columns are padded to a multiple of this: whole blocks of 16 and of 20.
const PADDED_TO: usize = 80;

/// What shares a scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// Each token has its own.
    #[default]
    Token,
    /// All tokens of a call share one.
    Tensor,
}

/// Quantized activations of some tokens.
#[derive(Clone, Debug)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    padded: usize,
    codes: Vec<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
}

impl Activations {
    /// Quantizes tokens of `cols` features each, which stand one after the other.
    pub fn quantize(
        x: &[f32],
        cols: usize,
        granularity: Granularity,
        pool: &Pool,
    ) -> Result<Activations, KernelError> {
        let mut it = Activations::empty(x.len(), cols)?;
        it.fill(x, granularity, pool)?;
        Ok(it)
    }

    /// Quantizes other tokens into the same memory; there have to be as many. After an error what it holds means nothing.
    pub fn requantize(
        &mut self,
        x: &[f32],
        granularity: Granularity,
        pool: &Pool,
    ) -> Result<(), KernelError> {
        if x.len() != self.tokens * self.cols {
            return Err(KernelError::Length {
                what: "the input",
                given: x.len(),
                needed: self.tokens * self.cols,
            });
        }
        self.fill(x, granularity, pool)
    }

    /// Activations whose codes are known: tokens of `cols` codes each, with a scale of 1.
    pub fn of_codes(codes: &[i8], cols: usize) -> Result<Activations, KernelError> {
        let mut it = Activations::empty(codes.len(), cols)?;
        let padded = it.padded;
        for (token, codes) in codes.chunks_exact(cols).enumerate() {
            let (first, width) = it.block_of(token);
            let block = &mut it.codes[first * padded..][..width * padded];
            for (four, codes) in codes.chunks(4).enumerate() {
                let at = (four * width + token - first) * 4;
                block[at..][..codes.len()].copy_from_slice(codes);
            }
            it.sums[token] = codes.iter().map(|code| i32::from(*code)).sum();
            it.scales[token] = 1.0;
        }
        Ok(it)
    }

    fn empty(numbers: usize, cols: usize) -> Result<Activations, KernelError> {
        if cols == 0 || numbers == 0 || !numbers.is_multiple_of(cols) {
            return Err(KernelError::Shape {
                given: numbers,
                features: cols,
            });
        }
        if cols > MAX_COLS {
            return Err(KernelError::TooWide { cols });
        }
        let tokens = numbers / cols;
        let padded = cols.next_multiple_of(PADDED_TO);
        let bytes = tokens.saturating_mul(padded);
        let mut codes = Vec::new();
        let room = codes.try_reserve_exact(bytes);
        room.map_err(|e| KernelError::Memory {
            bytes,
            error: std::io::Error::new(std::io::ErrorKind::OutOfMemory, e),
        })?;
        codes.resize(bytes, 0);
        Ok(Activations {
            tokens,
            cols,
            padded,
            codes,
            sums: vec![0; tokens],
            scales: vec![0.0; tokens],
        })
    }

    /// The first token of a token's block, and how many the block has.
    fn block_of(&self, token: usize) -> (usize, usize) {
        let first = token / TOKENS * TOKENS;
        (first, TOKENS.min(self.tokens - first))
    }

    fn fill(
        &mut self,
        x: &[f32],
        granularity: Granularity,
        pool: &Pool,
    ) -> Result<(), KernelError> {
        let (cols, padded, tokens) = (self.cols, self.padded, self.tokens);
        let shared = match granularity {
            Granularity::Token => None,
            Granularity::Tensor => Some(scale_of(widest(&[x]))),
        };
        let (codes, sums, scales) = (
            Shared::of(&mut self.codes),
            Shared::of(&mut self.sums),
            Shared::of(&mut self.scales),
        );
        // One token is done before a second thread has heard of it.
        let pool = if tokens == 1 { &Pool::alone() } else { pool };
        let blocks = tokens.div_ceil(TOKENS);
        // A few pieces for each thread, so that one that is kept waiting leaves some to the others.
        let at_once = blocks.div_ceil(4 * pool.threads());
        chunks(pool, blocks, at_once, &|blocks| {
            let mut rows = vec![0; if tokens == 1 { 0 } else { TOKENS * padded }];
            for block in blocks {
                let first = block * TOKENS;
                let width = TOKENS.min(tokens - first);
                // SAFETY: every block of tokens is given to one thread once, and these are the places of this block alone.
                let (codes, sums, scales) = unsafe {
                    (
                        codes.slice(first * padded, width * padded),
                        sums.slice(first, width),
                        scales.slice(first, width),
                    )
                };
                quantize_block(
                    &x[first * cols..][..width * cols],
                    shared,
                    (codes, sums, scales),
                    &mut rows,
                );
            }
        });
        // A maximum that is not finite leaves a scale that is no number of this range: then it is looked for.
        if self.scales.iter().all(|scale| *scale > 0.0) {
            return Ok(());
        }
        let at = x.iter().position(|x| !x.is_finite());
        let at = at.expect("a scale is 0 or no number only where an activation is not finite");
        Err(KernelError::NotFinite {
            token: at / cols,
            feature: at % cols,
            value: x[at],
        })
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Features of a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What each token was multiplied by before rounding.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The sum of the codes of each token.
    pub fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// The codes of a token, in order.
    pub fn codes(&self, token: usize) -> Vec<i8> {
        let (first, width) = self.block_of(token);
        let block = &self.codes[first * self.padded..][..width * self.padded];
        let fours = block.chunks_exact(4).skip(token - first).step_by(width);
        fours.flatten().take(self.cols).copied().collect()
    }

    /// Bytes of one token, padding included.
    pub(super) fn padded(&self) -> usize {
        self.padded
    }

    /// A block of tokens: the first, how many, and their codes in the order of kernels.
    pub(super) fn block(&self, number: usize) -> (usize, usize, &[i8]) {
        let (first, width) = self.block_of(number * TOKENS);
        (
            first,
            width,
            &self.codes[first * self.padded..][..width * self.padded],
        )
    }
}

/// The bits of the largest magnitude of some numbers; above those of all finite ones if one is not finite. Bits of magnitudes
/// are ordered as the magnitudes are, and no number compares false.
fn widest(tokens: &[&[f32]]) -> u32 {
    tokens.iter().map(|x| wide(AbsMax { x })).max().unwrap_or(0)
}

fn scale_of(absmax: u32) -> f32 {
    let absmax = f32::from_bits(absmax);
    if absmax.is_finite() {
        127.0 / absmax.max(ABSMAX_FLOOR)
    } else {
        0.0
    }
}

/// Quantizes the tokens of one block. `rows` holds them meanwhile one after the other, and zeros beyond their columns.
fn quantize_block(
    x: &[f32],
    shared: Option<f32>,
    (codes, sums, scales): (&mut [i8], &mut [i32], &mut [f32]),
    rows: &mut [i8],
) {
    let width = sums.len();
    let cols = x.len() / width;
    if width == 1 {
        scales[0] = shared.unwrap_or_else(|| scale_of(widest(&[x])));
        sums[0] = wide(Quantize {
            x,
            scale: scales[0],
            codes,
        });
        return;
    }
    let padded = codes.len() / width;
    for (token, x) in x.chunks_exact(cols).enumerate() {
        scales[token] = shared.unwrap_or_else(|| scale_of(widest(&[x])));
        let codes = &mut rows[token * padded..][..padded];
        sums[token] = wide(Quantize {
            x,
            scale: scales[token],
            codes,
        });
    }
    wide(Interleave {
        rows: &rows[..codes.len()],
        width,
        codes,
    });
}

struct AbsMax<'x> {
    x: &'x [f32],
}

impl Loop for AbsMax<'_> {
    type Out = u32;
    #[inline(always)]
    fn run(self) -> u32 {
        self.x
            .iter()
            .fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff))
    }
}

/// Codes of one token in order; gives their sum.
struct Quantize<'x> {
    x: &'x [f32],
    scale: f32,
    codes: &'x mut [i8],
}

impl Loop for Quantize<'_> {
    type Out = i32;
    #[inline(always)]
    fn run(self) -> i32 {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, ties to even: a float of that size has no fraction.
        // It holds for magnitudes below 2^22; these are at most 127, and a scale of 0 makes codes that nobody reads.
        const NEAREST: f32 = 12_582_912.0;
        let mut sum = 0;
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            let nearest = (x * self.scale + NEAREST).to_bits() as i32 - NEAREST.to_bits() as i32;
            let nearest = nearest.clamp(-128, 127);
            *code = nearest as i8;
            sum += nearest;
        }
        sum
    }
}

/// From `[tokens][columns]` to `[columns / 4][tokens][4]`: words of four codes change rows for columns.
struct Interleave<'x> {
    rows: &'x [i8],
    width: usize,
    codes: &'x mut [i8],
}

impl Loop for Interleave<'_> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        match self.width {
            #[cfg(target_arch = "x86_64")]
            TOKENS => super::x86::turn(self.rows, self.codes),
            #[cfg(not(target_arch = "x86_64"))]
            TOKENS => turn::<TOKENS>(self.rows, self.codes),
            7 => turn::<7>(self.rows, self.codes),
            6 => turn::<6>(self.rows, self.codes),
            5 => turn::<5>(self.rows, self.codes),
            4 => turn::<4>(self.rows, self.codes),
            3 => turn::<3>(self.rows, self.codes),
            _ => turn::<2>(self.rows, self.codes),
        }
    }
}

/// Turns four words of each token at a time.
#[inline(always)]
fn turn<const T: usize>(rows: &[i8], codes: &mut [i8]) {
    let padded = rows.len() / T;
    let rows: [&[[i8; 16]]; T] =
        std::array::from_fn(|token| rows[token * padded..][..padded].as_chunks().0);
    let (codes, _) = codes.as_chunks_mut::<4>();
    for (at, codes) in codes.chunks_exact_mut(4 * T).enumerate() {
        let words: [&[[i8; 4]]; T] = std::array::from_fn(|token| rows[token][at].as_chunks().0);
        for word in 0..4 {
            for token in 0..T {
                codes[word * T + token] = words[token][word];
            }
        }
    }
}
