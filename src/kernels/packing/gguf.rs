//! The ternary forms of GGUF files: TQ1_0, TQ2_0 and I2_S.
//!
//! **TQ1_0 and TQ2_0** are rows of blocks of 256 columns, each with a scale of its own, a float of 16 bits after its codes:
//!
//! ```text
//! TQ1_0, 54 bytes    [32] 5 trits each: byte m holds columns 32n + m,        n = 0 .. 5, the first most significant
//!                    [16] 5 trits each: byte m holds columns 160 + 16n + m
//!                    [4]  4 trits each: byte m holds columns 240 + 4n + m
//!                    [1]  F16
//! TQ2_0, 66 bytes    [2][32] byte (g, m) holds columns 128g + 32l + m at bits 2l, 2l + 1,    l = 0 .. 4
//!                    [1]  F16
//! ```
//!
//! A trit is weight + 1. The trits of a byte are a number x of base 3 below 243, stored as the fraction ceil(256 x / 243) of
//! 256: multiplied by 3, the byte carries its first trit and keeps the rest. Any byte is read so. Where a byte has four trits,
//! a fifth, 0, follows.
//!
//! A ternary matrix of one scale has it in every block, or 0 in blocks whose weights are all 0, as the quantizer of these forms
//! leaves them. [`Form::scale`] tells that scale; a matrix of several is for who multiplies each block by its own
//! ([`Form::block_scales`]). [`write_blocks`] writes the one scale to every block.
//!
//! **I2_S** is codes of two bits, weight + 1, and one float of 32 bits for the matrix:
//!
//! ```text
//! [out * in / 4] codes    [1] F32    [28] unused
//! ```
//!
//! How codes lie in their bytes depends on the machine that wrote the file, and the file does not say: see [`Order`].

use super::super::KernelError;
use super::form;
use crate::float16;

/// A form with a scale for each block of 256 columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Five trits to a byte.
    Tq1,
    /// Four codes of two bits to a byte.
    Tq2,
}

/// Columns of a block.
const BLOCK: usize = 256;

/// Bytes of a scale.
const SCALE: usize = 2;

/// Runs of bytes of a block of TQ1_0: where its bytes begin, how many they are, where their columns begin, trits in a byte.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

impl Blocks {
    /// Its name in GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Blocks::Tq1 => "TQ1_0",
            Blocks::Tq2 => "TQ2_0",
        }
    }

    /// Bytes of the codes of a block.
    const fn code_bytes(self) -> usize {
        match self {
            Blocks::Tq1 => 52,
            Blocks::Tq2 => 64,
        }
    }

    /// Bytes of a block.
    const fn block_bytes(self) -> usize {
        self.code_bytes() + SCALE
    }

    /// Bytes of a matrix of rows of whole blocks; `None` where no memory holds so many.
    pub fn bytes(self, rows: usize, cols: usize) -> Option<usize> {
        (cols / BLOCK)
            .checked_mul(self.block_bytes())?
            .checked_mul(rows)
    }

    /// Writes the weights of a block.
    fn decode(self, codes: &[u8], out: &mut [i8; BLOCK]) {
        match self {
            Blocks::Tq1 => {
                for (begin, bytes, first, trits) in RUNS {
                    let codes = &codes[begin..][..bytes];
                    let columns = out[first..].chunks_exact_mut(bytes).take(trits);
                    for (columns, power) in columns.zip([1u8, 3, 9, 27, 81]) {
                        for (weight, code) in columns.iter_mut().zip(codes) {
                            let rest = code.wrapping_mul(power);
                            *weight = ((u16::from(rest) * 3) >> 8) as i8 - 1;
                        }
                    }
                }
            }
            Blocks::Tq2 => {
                for (half, codes) in out.chunks_exact_mut(128).zip(codes.chunks_exact(32)) {
                    for (columns, shift) in half.chunks_exact_mut(32).zip([0, 2, 4, 6]) {
                        for (weight, code) in columns.iter_mut().zip(codes) {
                            *weight = (code >> shift & 3) as i8 - 1;
                        }
                    }
                }
            }
        }
    }

    /// Writes the codes of a block.
    fn encode(self, weights: &[i8; BLOCK], codes: &mut [u8]) {
        match self {
            Blocks::Tq1 => {
                for (begin, bytes, first, trits) in RUNS {
                    for (place, code) in codes[begin..][..bytes].iter_mut().enumerate() {
                        let trit = |n: usize| match n < trits {
                            true => (weights[first + n * bytes + place] + 1) as u32,
                            false => 0,
                        };
                        let number = (0..5).fold(0, |number, n| 3 * number + trit(n));
                        *code = (number * 256).div_ceil(243) as u8;
                    }
                }
            }
            Blocks::Tq2 => {
                for (half, codes) in weights.chunks_exact(128).zip(codes.chunks_exact_mut(32)) {
                    for (columns, shift) in half.chunks_exact(32).zip([0, 2, 4, 6]) {
                        for (weight, code) in columns.iter().zip(&mut *codes) {
                            *code |= ((weight + 1) as u8) << shift;
                        }
                    }
                }
            }
        }
    }
}

/// A matrix of blocks.
#[derive(Clone, Copy, Debug)]
pub struct Form<'b> {
    blocks: Blocks,
    rows: usize,
    cols: usize,
    bytes: &'b [u8],
}

impl<'b> Form<'b> {
    /// The bytes of a matrix, as many as its shape says and without code 3.
    pub fn new(
        blocks: Blocks,
        rows: usize,
        cols: usize,
        bytes: &'b [u8],
    ) -> Result<Form<'b>, KernelError> {
        form::whole_blocks(cols, BLOCK)?;
        form::sized((rows, cols), blocks.bytes(rows, cols), bytes.len())?;
        if blocks == Blocks::Tq2 {
            for (number, block) in bytes.chunks_exact(blocks.block_bytes()).enumerate() {
                let codes = &block[..blocks.code_bytes()];
                form::no_code_3(codes, number * blocks.block_bytes())?;
            }
        }
        Ok(Form {
            blocks,
            rows,
            cols,
            bytes,
        })
    }

    /// Its rows: features that go out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns: features that come in.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The blocks of a row: codes and scale of each.
    fn blocks_of(&self, row: usize) -> impl Iterator<Item = (&'b [u8], f32)> {
        let bytes = self.blocks.block_bytes();
        let line = self.cols / BLOCK * bytes;
        let blocks = self.bytes[row * line..][..line].chunks_exact(bytes);
        blocks.map(move |block| {
            let (codes, scale) = block.split_at(bytes - SCALE);
            let scale = u16::from_le_bytes([scale[0], scale[1]]);
            (codes, float16::from_f16(scale))
        })
    }

    /// Writes the weights of a row, without its scales.
    pub fn row(&self, row: usize, out: &mut [i8]) {
        let (out, _) = out.as_chunks_mut::<BLOCK>();
        for ((codes, _), out) in self.blocks_of(row).zip(out) {
            self.blocks.decode(codes, out);
        }
    }

    /// The scales of a row, one for each 256 columns.
    pub fn block_scales(&self, row: usize) -> impl Iterator<Item = f32> {
        self.blocks_of(row).map(|(_, scale)| scale)
    }

    /// The scale that all blocks share, but for those whose weights are all 0; `None` where they differ. A matrix of nothing
    /// but 0 has the scale of its first block.
    pub fn scale(&self) -> Option<f32> {
        let mut shared: Option<f32> = None;
        let mut weights = [0; BLOCK];
        for (codes, scale) in (0..self.rows).flat_map(|row| self.blocks_of(row)) {
            if shared.is_some_and(|shared| shared.to_bits() == scale.to_bits()) {
                continue;
            }
            self.blocks.decode(codes, &mut weights);
            if weights.iter().all(|weight| *weight == 0) {
                continue;
            }
            if shared.replace(scale).is_some() {
                return None;
            }
        }
        shared.or_else(|| self.block_scales(0).next())
    }
}

/// Writes a matrix of blocks that all have one scale, rounded to 16 bits; `fill` gives the weights of a row, each -1, 0 or 1.
pub fn write_blocks(
    blocks: Blocks,
    rows: usize,
    cols: usize,
    scale: f32,
    fill: impl Fn(usize, &mut [i8]) + Sync,
) -> Result<Vec<u8>, KernelError> {
    form::whole_blocks(cols, BLOCK)?;
    let mut bytes = form::empty((rows, cols), blocks.bytes(rows, cols))?;
    let scale = float16::to_f16(scale).to_le_bytes();
    form::write(
        (rows, cols),
        cols / BLOCK * blocks.block_bytes(),
        &mut bytes,
        std::iter::once,
        fill,
        |_, weights, line| {
            let line = line.chunks_exact_mut(blocks.block_bytes());
            for (block, weights) in line.zip(weights.as_chunks::<BLOCK>().0) {
                let (codes, place) = block.split_at_mut(blocks.code_bytes());
                blocks.encode(weights, codes);
                place.copy_from_slice(&scale);
            }
        },
    )?;
    Ok(bytes)
}

/// How the codes of I2_S lie in their bytes. All three have the same size, so only who wrote a file knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Files of x86 machines: blocks of 128 columns in 32 bytes; byte p holds columns 32g + p at bits 6 - 2g, g = 0 .. 4.
    #[default]
    Blocks128,
    /// Files of ARM machines: blocks of 64 columns in 16 bytes; byte p holds columns 16g + p at bits 6 - 2g.
    Blocks64,
    /// Files of newer x86 builds: `[out / 4, in]`; byte (q, c) holds column c of rows 4q + i at bits 6 - 2i, i = 0 .. 4.
    Rows4,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Blocks128, Order::Blocks64, Order::Rows4];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Order::Blocks128 => "128",
            Order::Blocks64 => "64",
            Order::Rows4 => "4x1",
        }
    }

    /// Columns of a block, where it has blocks.
    const fn block(self) -> Option<usize> {
        match self {
            Order::Blocks128 => Some(128),
            Order::Blocks64 => Some(64),
            Order::Rows4 => None,
        }
    }

    /// Refuses a matrix that is no whole blocks.
    fn check(self, rows: usize, cols: usize) -> Result<(), KernelError> {
        match self.block() {
            Some(block) => form::whole_blocks(cols, block),
            // Four rows are a block of one column.
            None if rows.is_multiple_of(4) => Ok(()),
            None => Err(KernelError::Size {
                rows,
                cols,
                needed: i2s_bytes(rows.next_multiple_of(4), cols).unwrap_or(usize::MAX),
                given: i2s_bytes(rows, cols).unwrap_or(usize::MAX),
            }),
        }
    }
}

/// Bytes after the codes of I2_S: the scale, and what is not used.
const TAIL: usize = 32;

/// A matrix in I2_S.
#[derive(Clone, Copy, Debug)]
pub struct I2s<'b> {
    order: Order,
    rows: usize,
    cols: usize,
    codes: &'b [u8],
    scale: f32,
}

/// Bytes of a matrix of whole blocks in I2_S; `None` where no memory holds so many.
pub fn i2s_bytes(rows: usize, cols: usize) -> Option<usize> {
    (rows.checked_mul(cols)? / 4).checked_add(TAIL)
}

impl<'b> I2s<'b> {
    /// The bytes of a matrix, as many as its shape says and without code 3.
    pub fn new(
        order: Order,
        rows: usize,
        cols: usize,
        bytes: &'b [u8],
    ) -> Result<I2s<'b>, KernelError> {
        order.check(rows, cols)?;
        form::sized((rows, cols), i2s_bytes(rows, cols), bytes.len())?;
        let (codes, tail) = bytes.split_at(bytes.len() - TAIL);
        form::no_code_3(codes, 0)?;
        let scale = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
        Ok(I2s {
            order,
            rows,
            cols,
            codes,
            scale,
        })
    }

    /// Its rows: features that go out.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns: features that come in.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// What every weight is to be multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Writes the weights of a row, without the scale.
    pub fn row(&self, row: usize, out: &mut [i8]) {
        let Some(block) = self.order.block() else {
            let line = &self.codes[row / 4 * self.cols..][..self.cols];
            return decode(line, 6 - row % 4 * 2, out);
        };
        let line = &self.codes[row * self.cols / 4..][..self.cols / 4];
        let blocks = out.chunks_exact_mut(block);
        for (block, codes) in blocks.zip(line.chunks_exact(block / 4)) {
            let runs = block.chunks_exact_mut(codes.len());
            for (out, shift) in runs.zip([6, 4, 2, 0]) {
                decode(codes, shift, out);
            }
        }
    }
}

/// The weights of the codes that stand so many bits up in their bytes.
fn decode(codes: &[u8], shift: usize, out: &mut [i8]) {
    for (weight, code) in out.iter_mut().zip(codes) {
        *weight = (code >> shift & 3) as i8 - 1;
    }
}

/// Adds the codes of weights so many bits up in their bytes.
fn encode(weights: &[i8], shift: usize, codes: &mut [u8]) {
    for (weight, code) in weights.iter().zip(codes) {
        *code |= ((weight + 1) as u8) << shift;
    }
}

/// Writes a matrix in I2_S; `fill` gives the weights of a row, each -1, 0 or 1.
pub fn write_i2s(
    order: Order,
    rows: usize,
    cols: usize,
    scale: f32,
    fill: impl Fn(usize, &mut [i8]) + Sync,
) -> Result<Vec<u8>, KernelError> {
    order.check(rows, cols)?;
    let mut bytes = form::empty((rows, cols), i2s_bytes(rows, cols))?;
    let end = bytes.len() - TAIL;
    bytes[end..][..4].copy_from_slice(&scale.to_le_bytes());
    let codes = &mut bytes[..end];
    let shape = (rows, cols);
    match order.block() {
        None => {
            let rows_of = |quad: usize| 4 * quad..4 * quad + 4;
            form::write(shape, cols, codes, rows_of, fill, |place, weights, line| {
                encode(weights, 6 - 2 * place, line);
            })?;
        }
        Some(block) => {
            let rows_of = std::iter::once;
            form::write(shape, cols / 4, codes, rows_of, fill, |_, weights, line| {
                let blocks = line.chunks_exact_mut(block / 4);
                for (codes, weights) in blocks.zip(weights.chunks_exact(block)) {
                    for (run, shift) in weights.chunks_exact(codes.len()).zip([6, 4, 2, 0]) {
                        encode(run, shift, codes);
                    }
                }
            })?;
        }
    }
    Ok(bytes)
}
