//! Counts the weights whose value is exactly 0, from the codes alone.
//!
//! A weight is 0 where its code is the one that stands for 0 (the zero point of its group, a fixed code, either of two codes
//! that differ in the sign), or where the scale of its group is 0. Data comes in pieces or chunks of columns, so memory does
//! not grow with the tensor. Scalar and straightforward: this is what a faster scan is compared with, and [`equal`] is the
//! loop that it replaces.

use super::super::{Checkpoint, CheckpointError, Data, Tensor};
use super::codes::{CHUNK, Layout, mask};
use super::floats::{is_finite, number, rounded, zero_bits};
use super::rules::{Grid, Map, Rule, Side, Zero};
use super::{Weight, bitsandbytes, trained};

/// How many weights are exactly 0; `None` where a format has no code that stands for 0, as [`Weight::without_zeros`] says.
pub fn zeros(checkpoint: &Checkpoint, weight: &Weight) -> Result<Option<u64>, CheckpointError> {
    let codes = codes(checkpoint, weight);
    match &weight.rule {
        Rule::Numbers => numbers(checkpoint, codes).map(Some),
        Rule::Grid(grid) => grid_zeros(checkpoint, codes, grid).map(Some),
        Rule::Lookup(lookup) => bitsandbytes::zeros(checkpoint, codes, lookup).map(Some),
        Rule::Trained(quantizer) => trained::zeros(checkpoint, codes, quantizer).map(Some),
        Rule::None(_) => Ok(None),
    }
}

impl Weight {
    /// Why [`zeros`] has no number for it, if it has none.
    pub fn without_zeros(&self) -> Option<&'static str> {
        match self.rule {
            Rule::None(why) => Some(why),
            _ => None,
        }
    }
}

/// The tensor of the codes.
fn codes<'c>(checkpoint: &'c Checkpoint, weight: &Weight) -> &'c Tensor {
    &checkpoint.tensors[weight.parts[0] as usize]
}

/// Zeros among plain numbers.
fn numbers(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<u64, CheckpointError> {
    let Some(mask) = zero_bits(tensor.dtype) else {
        return Ok(0);
    };
    let data = checkpoint.data(tensor)?;
    if tensor.dtype.bits == 6 {
        let grid = Grid::floats(1, tensor.elements(), 6);
        return grid_zeros(checkpoint, tensor, &grid);
    }
    Ok(all_equal(data, tensor.dtype.bits, mask, 0))
}

/// Codes of a whole tensor that equal a value in the bits of a mask.
fn all_equal(data: Data<'_>, bits: u32, mask: u64, value: u64) -> u64 {
    data.pieces()
        .map(|piece| equal(piece, bits, mask, value))
        .sum()
}

/// Codes of one piece that equal a value in the bits of a mask; codes have 4, 8, 16, 32 or 64 bits, and a piece is whole.
fn equal(piece: &[u8], bits: u32, mask: u64, value: u64) -> u64 {
    fn count<const N: usize>(piece: &[u8], is: impl Fn([u8; N]) -> bool) -> u64 {
        let (codes, _) = piece.as_chunks::<N>();
        codes.iter().filter(|code| is(**code)).count() as u64
    }
    let is = |code: u64| code & mask == value;
    match bits {
        4 => count(piece, |[b]| is((b & 15).into())) + count(piece, |[b]| is((b >> 4).into())),
        8 => count(piece, |[b]| is(b.into())),
        16 => count(piece, |code| is(u16::from_le_bytes(code).into())),
        32 => count(piece, |code| is(u32::from_le_bytes(code).into())),
        64 => count(piece, |code| is(u64::from_le_bytes(code))),
        _ => 0,
    }
}

fn grid_zeros(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    grid: &Grid,
) -> Result<u64, CheckpointError> {
    // Rows without columns are none, however many a header claims.
    if grid.rows == 0 || grid.columns == 0 {
        return Ok(grid.absent);
    }
    let data = checkpoint.data(tensor)?;
    let needed = grid.codes.bytes(grid.rows, grid.columns);
    if needed.is_none_or(|needed| needed > tensor.bytes) {
        let reason = "it has fewer codes than its shape says";
        return Err(misfit(checkpoint, tensor, reason));
    }
    let mut dead = Vec::new();
    for side in &grid.scales {
        let scales = Loaded::new(checkpoint, side, grid)?;
        if scales.has_zero() {
            dead.push(scales);
        }
    }
    if let Zero::Masked { mask, value } = grid.zero {
        let bits = grid.codes.bits;
        // No gap between rows, so the tensor is one row.
        let row_bits = grid.columns.saturating_mul(bits.into());
        let whole = row_bits.is_multiple_of(8)
            && grid.codes == Layout::along(bits, row_bits / 8)
            && needed == Some(tensor.bytes);
        if dead.is_empty() && whole && matches!(bits, 4 | 8 | 16 | 32) {
            let found = all_equal(data, bits, mask.into(), value.into());
            return Ok(grid.absent + found);
        }
    }
    let mut test = Test::new(checkpoint, grid)?;
    let mut found = grid.absent;
    let (mut codes, mut is_zero) = (vec![0; CHUNK], vec![false; CHUNK]);
    for row in 0..grid.rows {
        for first in (0..grid.columns).step_by(CHUNK) {
            let here = (grid.columns - first).min(CHUNK as u64) as usize;
            let (codes, is_zero) = (&mut codes[..here], &mut is_zero[..here]);
            grid.codes.read(data.bytes, row, first, codes);
            test.ask(row, first, codes, is_zero)?;
            for scales in &mut dead {
                let mask = scales.zero_bits;
                let scales = scales.chunk(row, first, here)?;
                for ((is_zero, code), scale) in is_zero.iter_mut().zip(&*codes).zip(scales) {
                    *is_zero |= u64::from(*scale) & mask == 0
                        && grid.dtype.is_none_or(|dtype| is_finite(*code, dtype));
                }
            }
            found += is_zero.iter().filter(|z| **z).count() as u64;
        }
    }
    Ok(found)
}

/// A [`Zero`] with its tensors at hand.
enum Test<'c> {
    Masked {
        mask: u32,
        value: u32,
    },
    Point {
        points: Loaded<'c>,
        plus: u32,
        mask: u32,
    },
    Product {
        scales: Loaded<'c>,
        shifts: Loaded<'c>,
        sign: f32,
    },
    Nearest {
        scales: Loaded<'c>,
        shifts: Loaded<'c>,
    },
    Equal(Loaded<'c>),
}

impl<'c> Test<'c> {
    fn new(checkpoint: &'c Checkpoint, grid: &'c Grid) -> Result<Test<'c>, CheckpointError> {
        let load = |side: &'c Side| Loaded::new(checkpoint, side, grid);
        Ok(match &grid.zero {
            Zero::Masked { mask, value } => Test::Masked {
                mask: *mask,
                value: *value,
            },
            Zero::Point { side, plus } => Test::Point {
                points: load(side)?,
                plus: *plus,
                mask: mask(grid.codes.bits),
            },
            Zero::Product {
                scale,
                shift,
                minus,
            } => Test::Product {
                scales: load(scale)?,
                shifts: load(shift)?,
                sign: if *minus { 1.0 } else { -1.0 },
            },
            Zero::Nearest { scale, shift } => Test::Nearest {
                scales: load(scale)?,
                shifts: load(shift)?,
            },
            Zero::Equal(side) => Test::Equal(load(side)?),
        })
    }

    /// Says which codes of a row, from column `first` on, stand for 0.
    fn ask(
        &mut self,
        row: u64,
        first: u64,
        codes: &[u32],
        is_zero: &mut [bool],
    ) -> Result<(), CheckpointError> {
        let here = codes.len();
        let all = is_zero.iter_mut().zip(codes);
        match self {
            Test::Masked { mask, value } => {
                all.for_each(|(is_zero, code)| *is_zero = code & *mask == *value);
            }
            Test::Point { points, plus, mask } => {
                let points = points.chunk(row, first, here)?;
                for ((is_zero, code), point) in all.zip(points) {
                    *is_zero = *code == point.wrapping_add(*plus) & *mask;
                }
            }
            Test::Product {
                scales,
                shifts,
                sign,
            } => {
                let dtype = scales.tensor.dtype;
                let shift_dtype = shifts.tensor.dtype;
                let sides = scales.chunk(row, first, here)?;
                let sides = sides.iter().zip(shifts.chunk(row, first, here)?);
                for ((is_zero, code), (scale, shift)) in all.zip(sides) {
                    let product = *code as f32 * number(*scale, dtype);
                    let other = *sign * number(*shift, shift_dtype);
                    // Rounding moves a number by less than that, so most need not be rounded.
                    let near = (product - other).abs() <= product.abs() / 128.0 + 1e-7;
                    *is_zero = near && rounded(product, dtype) == other;
                }
            }
            Test::Nearest { scales, shifts } => {
                let dtype = scales.tensor.dtype;
                let sides = scales.chunk(row, first, here)?;
                let sides = sides.iter().zip(shifts.chunk(row, first, here)?);
                for ((is_zero, code), (scale, shift)) in all.zip(sides) {
                    let point = -number(*shift, dtype) / number(*scale, dtype);
                    *is_zero = *code as f32 == point.round_ties_even();
                }
            }
            Test::Equal(points) => {
                let dtype = points.tensor.dtype;
                let points = points.chunk(row, first, here)?;
                for ((is_zero, code), point) in all.zip(points) {
                    *is_zero = *code as f32 == number(*point, dtype);
                }
            }
        }
        Ok(())
    }
}

pub(in crate::checkpoint) fn misfit(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    reason: &str,
) -> CheckpointError {
    CheckpointError::Data {
        file: checkpoint.file(tensor).label.clone(),
        reason: format!("tensor `{}`: {reason}", tensor.name),
    }
}

/// A side tensor with its bytes, and the values of the chunk that was asked for last.
#[derive(Clone, Debug)]
pub(super) struct Loaded<'c> {
    pub(super) side: &'c Side,
    bytes: &'c [u8],
    rows: List<'c>,
    columns: List<'c>,
    zero_bits: u64,
    /// Values of it, and the same for every code.
    values: Vec<u32>,
    chunk: Vec<u32>,
    /// Row of the side tensor, first column of the codes and length of the chunk.
    holds: Option<(u64, u64, usize)>,
    /// For errors.
    checkpoint: &'c Checkpoint,
    pub(super) tensor: &'c Tensor,
}

/// A map with the list that it may need.
#[derive(Clone, Copy, Debug)]
struct List<'c> {
    map: Map,
    list: &'c [[u8; 4]],
}

impl<'c> List<'c> {
    fn new(checkpoint: &'c Checkpoint, map: Map, codes: u64) -> Result<List<'c>, CheckpointError> {
        let list = match map {
            Map::Listed(number) => {
                let tensor = &checkpoint.tensors[number as usize];
                let (list, _) = checkpoint.data(tensor)?.bytes.as_chunks::<4>();
                if (list.len() as u64) < codes {
                    return Err(misfit(checkpoint, tensor, "it lists too few groups"));
                }
                list
            }
            _ => &[],
        };
        Ok(List { map, list })
    }

    fn at(&self, code: u64) -> u64 {
        match self.map {
            Map::One => 0,
            Map::Same => code,
            Map::Per(per) => code / per.max(1),
            Map::Stacked { per, of } => {
                let (per, of) = (per.max(1), of.max(1));
                code / of * of.div_ceil(per) + code % of / per
            }
            Map::Listed(_) => usize::try_from(code)
                .ok()
                .and_then(|at| self.list.get(at))
                .map_or(u64::MAX, |group| {
                    i64::from(i32::from_le_bytes(*group)) as u64
                }),
        }
    }
}

impl<'c> Loaded<'c> {
    pub(super) fn new(
        checkpoint: &'c Checkpoint,
        side: &'c Side,
        grid: &Grid,
    ) -> Result<Loaded<'c>, CheckpointError> {
        let tensor = &checkpoint.tensors[side.tensor as usize];
        let data = checkpoint.data(tensor)?;
        let (rows, columns) = side.shape;
        if side
            .layout
            .bytes(rows, columns)
            .is_none_or(|bytes| bytes > tensor.bytes)
        {
            return Err(misfit(
                checkpoint,
                tensor,
                "it has fewer numbers than the codes need",
            ));
        }
        Ok(Loaded {
            side,
            bytes: data.bytes,
            rows: List::new(checkpoint, side.rows, grid.rows)?,
            columns: List::new(checkpoint, side.columns, grid.columns)?,
            zero_bits: zero_bits(tensor.dtype).unwrap_or(u64::MAX),
            values: Vec::new(),
            chunk: Vec::new(),
            holds: None,
            checkpoint,
            tensor,
        })
    }

    /// Whether any scale is 0. Almost none is, and then scales need not be looked at again.
    fn has_zero(&self) -> bool {
        let data = Data { bytes: self.bytes };
        all_equal(data, self.tensor.dtype.bits, self.zero_bits, 0) > 0
    }

    /// The values that belong to `here` codes of a row from column `first` on.
    pub(super) fn chunk(
        &mut self,
        row: u64,
        first: u64,
        here: usize,
    ) -> Result<&[u32], CheckpointError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(here, 0);
        let done = self.runs(row, first, here).map(|runs| {
            if let Some(runs) = runs {
                runs.spread(runs.values, &mut chunk);
            }
        });
        self.chunk = chunk;
        done?;
        Ok(&self.chunk)
    }

    /// The same, where values that belong to many codes stand once; `None` if they are those that were asked for last.
    pub(super) fn runs(
        &mut self,
        row: u64,
        first: u64,
        here: usize,
    ) -> Result<Option<Runs<'_>>, CheckpointError> {
        let outside = || {
            misfit(
                self.checkpoint,
                self.tensor,
                "a group is named that it does not have",
            )
        };
        let side_row = self.rows.at(row);
        if side_row >= self.side.shape.0 {
            return Err(outside());
        }
        let wanted = Some((side_row, first, here));
        if self.holds == wanted {
            return Ok(None);
        }
        self.holds = None;
        let (columns, layout) = (self.side.shape.1, &self.side.layout);
        let end = first + here as u64;
        // Values from one on, each of so many codes, the first of which are before the chunk.
        let (begin, count, per) = match self.columns.map {
            _ if here == 0 => (0, 0, 1),
            Map::Same => (first, here as u64, 1),
            Map::One => (0, 1, u64::MAX),
            Map::Per(per) => {
                let per = per.max(1);
                (first / per, (end - 1) / per - first / per + 1, per)
            }
            Map::Stacked { .. } | Map::Listed(_) => {
                self.values.resize(here, 0);
                let mut last = None;
                for (at, column) in (first..end).enumerate() {
                    let column = self.columns.at(column);
                    if column >= columns {
                        return Err(outside());
                    }
                    let value = &mut self.values[at..];
                    match last {
                        Some((of, same)) if of == column => value[0] = same,
                        _ => layout.read(self.bytes, side_row, column, &mut value[..1]),
                    }
                    last = Some((column, value[0]));
                }
                self.holds = wanted;
                return Ok(Some(Runs {
                    values: &self.values,
                    per: 1,
                    skip: 0,
                }));
            }
        };
        if begin + count > columns {
            return Err(outside());
        }
        self.values.resize(count as usize, 0);
        layout.read(self.bytes, side_row, begin, &mut self.values);
        self.holds = wanted;
        Ok(Some(Runs {
            values: &self.values,
            per,
            skip: first % per,
        }))
    }
}

/// Values that belong to runs of codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs<'l> {
    pub(super) values: &'l [u32],
    /// Codes of a run, and how many of the first run come before.
    pub(super) per: u64,
    pub(super) skip: u64,
}

impl Runs<'_> {
    /// Writes what was made of each value once for every code.
    pub(super) fn spread<T: Copy>(&self, made: &[T], out: &mut [T]) {
        if self.per == 1 {
            out.copy_from_slice(made);
            return;
        }
        let (mut rest, mut here) = (out, self.per - self.skip);
        for made in made {
            let run = usize::try_from(here).unwrap_or(usize::MAX).min(rest.len());
            let (run, others) = rest.split_at_mut(run);
            run.fill(*made);
            (rest, here) = (others, self.per);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_zeros_of_a_float_count_and_nothing_else() {
        let bf16 = [0u16, 0x8000, 1, 0x3f80].map(u16::to_le_bytes).concat();
        assert_eq!(equal(&bf16, 16, 0x7fff, 0), 2);
        assert_eq!(equal(&[0x80, 0x08, 0x1f], 4, 7, 0), 4);
    }
}
