//! Counts the weights whose value is exactly 0, from the codes alone.
//!
//! A weight is 0 where its code is the one that stands for 0 (the zero point of its group, a fixed code, either of two codes
//! that differ in the sign), or where the scale of its group is 0. Data comes in pieces or chunks of columns, so memory does
//! not grow with the tensor. Scalar and straightforward: this is what a faster scan is compared with, and [`equal`] is the
//! loop that it replaces.

use super::super::{Checkpoint, CheckpointError, Data, Tensor};
use super::Weight;
use super::bitsandbytes;
use super::codes::{CHUNK, Layout, mask};
use super::trained;
use crate::dtype::NumberKind;
use crate::dtype::StoredType;

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

/// How the zeros of a weight are found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    /// The codes are numbers of their dtype.
    Numbers,
    /// Codes against zero points and scales.
    Grid(Box<Grid>),
    /// Codes of a table of values.
    Lookup(Box<bitsandbytes::Lookup>),
    /// Floats that are rounded when they are used.
    Trained(Box<trained::Quantizer>),
    /// No code stands for 0, and why.
    None(&'static str),
}

/// A matrix of codes, and what says which of them are 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) codes: Layout,
    pub(super) zero: Zero,
    /// Scales that may be 0.
    pub(super) scales: Vec<Side>,
    /// Numbers of the weight that are 0 and not stored.
    pub(super) absent: u64,
    /// The dtype of codes that are numbers themselves: one that is not finite stays so under a scale of 0.
    pub(super) dtype: Option<StoredType>,
}

impl Grid {
    /// Numbers of a dtype, row by row.
    pub(super) fn plain(rows: u64, columns: u64, dtype: StoredType) -> Grid {
        let row_bits = columns.saturating_mul(dtype.bits.into());
        Grid {
            rows,
            columns,
            codes: Layout::along(dtype.bits, row_bits.div_ceil(8)),
            zero: match zero_bits(dtype) {
                Some(mask) => Zero::Masked {
                    mask: mask as u32,
                    value: 0,
                },
                // A value that no bits under the mask are.
                None => Zero::Masked { mask: 0, value: 1 },
            },
            scales: Vec::new(),
            absent: 0,
            dtype: Some(dtype),
        }
    }

    /// Floats with the sign on top, row by row.
    pub(super) fn floats(rows: u64, columns: u64, bits: u32) -> Grid {
        let row_bits = columns.saturating_mul(bits.into());
        Grid {
            rows,
            columns,
            codes: Layout::along(bits, row_bits.div_ceil(8)),
            zero: Zero::signed(bits),
            scales: Vec::new(),
            absent: 0,
            dtype: None,
        }
    }
}

/// Which codes stand for 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Zero {
    /// Those of which these bits are this value: one code, or two that differ in the sign.
    Masked { mask: u32, value: u32 },
    /// The zero point of the group, and so many more, in the width of the codes.
    Point { side: Side, plus: u32 },
    /// Those whose product with the scale, rounded to its dtype, plus or minus the shift is 0.
    Product {
        scale: Side,
        shift: Side,
        minus: bool,
    },
    /// The one that is nearest to minus the shift over the scale.
    Nearest { scale: Side, shift: Side },
    /// The one that equals a float.
    Equal(Side),
}

/// A tensor beside the codes: its matrix, and which of its rows and columns belong to a code.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Side {
    pub(super) tensor: u32,
    pub(super) layout: Layout,
    /// Sides of its matrix.
    pub(super) shape: (u64, u64),
    pub(super) rows: Map,
    pub(super) columns: Map,
}

/// Which row (or column) of a side tensor belongs to a row (or column) of codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Map {
    /// The only one.
    One,
    /// The same.
    Same,
    /// One for each so many.
    Per(u64),
    /// One for each `per` of `of`, and then from the beginning for the next `of`: matrices on top of each other.
    Stacked { per: u64, of: u64 },
    /// As a tensor of 32-bit integers lists them.
    Listed(u32),
}

impl Rule {
    pub(super) fn grid(grid: Grid) -> Rule {
        Rule::Grid(Box::new(grid))
    }
}

impl Zero {
    /// The one code.
    pub(super) fn code(value: u32) -> Zero {
        Zero::Masked {
            mask: u32::MAX,
            value,
        }
    }

    /// Zero of a float with a sign, the highest of so many bits.
    pub(super) fn signed(bits: u32) -> Zero {
        Zero::Masked {
            mask: mask(bits) >> 1,
            value: 0,
        }
    }
}

impl Side {
    /// A matrix of numbers, as stored.
    pub(super) fn of(
        tensor: &Tensor,
        number: u32,
        shape: (u64, u64),
        rows: Map,
        columns: Map,
    ) -> Side {
        let bits = tensor.dtype.bits;
        Side {
            tensor: number,
            layout: Layout::along(bits, shape.1.saturating_mul(bits.into()).div_ceil(8)),
            shape,
            rows,
            columns,
        }
    }
}

/// The tensor of the codes.
fn codes<'c>(checkpoint: &'c Checkpoint, weight: &Weight) -> &'c Tensor {
    &checkpoint.tensors[weight.parts[0] as usize]
}

/// The bits of a number that are 0 in a zero and in nothing else; `None` for a dtype without zero.
fn zero_bits(dtype: StoredType) -> Option<u64> {
    let all = u64::MAX >> (64 - dtype.bits.clamp(1, 64));
    match dtype.kind {
        NumberKind::Exponent => None,
        // Two numbers; the signs are bits 31 and 63.
        NumberKind::Float if dtype.name.starts_with('C') => Some(0x7fff_ffff_7fff_ffff),
        // What would be -0 is not a number there.
        NumberKind::Float if dtype.name.ends_with("FNUZ") => Some(all),
        NumberKind::Float => Some(all >> 1),
        NumberKind::Signed | NumberKind::Unsigned | NumberKind::Bool => Some(all),
    }
}

/// Whether a code of eight bits is a number. The quantizer of a row of zeros divides by a scale of 0, so such codes exist.
fn is_finite(code: u32, dtype: StoredType) -> bool {
    match dtype.name {
        "F8_E4M3" => code & 0x7f != 0x7f,
        "F8_E5M2" => code & 0x7f < 0x7c,
        "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => code != 0x80,
        _ => true,
    }
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

/// The float of 16 or 32 bits that a code stands for.
pub(super) fn number(code: u32, dtype: StoredType) -> f32 {
    match dtype.name {
        "BF16" => f32::from_bits(code << 16),
        "F16" => {
            let sign = (code & 0x8000) << 16;
            let (exponent, fraction) = (code >> 10 & 31, code & 0x3ff);
            let magnitude = match exponent {
                // Fractions of 2^-24, which are exact.
                0 => fraction as f32 * 2f32.powi(-24),
                31 => f32::from_bits(0x7f80_0000 | fraction << 13),
                _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
            };
            f32::from_bits(magnitude.to_bits() | sign)
        }
        _ => f32::from_bits(code),
    }
}

/// The number of a dtype that is nearest, ties to even; of floats of 32 bits the number itself.
fn rounded(x: f32, dtype: StoredType) -> f32 {
    // Bits after the point, and the smallest exponent of a number that is not subnormal.
    let (fraction, least) = match dtype.name {
        "F16" => (10, -14),
        "BF16" => (7, -126),
        _ => return x,
    };
    let exponent = (x.to_bits() >> 23 & 0xff) as i32 - 127;
    // Powers of two in 64 bits are exact, and so is the division by one.
    let unit = 2f64.powi(exponent.max(least) - fraction);
    ((f64::from(x) / unit).round_ties_even() * unit) as f32
}

pub(super) fn misfit(checkpoint: &Checkpoint, tensor: &Tensor, reason: &str) -> CheckpointError {
    CheckpointError::Data {
        file: checkpoint.file(tensor).label.clone(),
        reason: format!("tensor `{}`: {reason}", tensor.name),
    }
}

/// A side tensor with its bytes, and the values of the chunk that was asked for last.
struct Loaded<'c> {
    side: &'c Side,
    bytes: &'c [u8],
    rows: List<'c>,
    columns: List<'c>,
    zero_bits: u64,
    chunk: Vec<u32>,
    /// Row of the side tensor, first column of the codes and length of the chunk.
    holds: Option<(u64, u64, usize)>,
    /// For errors.
    checkpoint: &'c Checkpoint,
    tensor: &'c Tensor,
}

/// A map with the list that it may need.
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
    fn new(
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
            chunk: vec![0; CHUNK],
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
    fn chunk(&mut self, row: u64, first: u64, here: usize) -> Result<&[u32], CheckpointError> {
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
            return Ok(&self.chunk[..here]);
        }
        let chunk = &mut self.chunk[..here];
        if self.columns.map == Map::Same {
            if first + here as u64 > self.side.shape.1 {
                return Err(outside());
            }
            self.side.layout.read(self.bytes, side_row, first, chunk);
        } else if let Map::Per(per) = self.columns.map {
            let per = per.max(1);
            let (mut at, mut value) = (0, [0]);
            while at < here {
                let column = (first + at as u64) / per;
                if column >= self.side.shape.1 {
                    return Err(outside());
                }
                let layout = &self.side.layout;
                layout.read(self.bytes, side_row, column, &mut value);
                let end = (column + 1).saturating_mul(per) - first;
                let end = end.min(here as u64) as usize;
                chunk[at..end].fill(value[0]);
                at = end;
            }
        } else {
            let (mut last, mut value) = (None, [0]);
            for (out, column) in chunk.iter_mut().zip(first..) {
                let column = self.columns.at(column);
                if last != Some(column) {
                    if column >= self.side.shape.1 {
                        return Err(outside());
                    }
                    self.side
                        .layout
                        .read(self.bytes, side_row, column, &mut value);
                    last = Some(column);
                }
                *out = value[0];
            }
        }
        self.holds = wanted;
        Ok(&self.chunk[..here])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dtype(name: &str) -> StoredType {
        StoredType::named(name).expect("a dtype")
    }

    #[test]
    fn halves_are_read_and_rounded_to_themselves() {
        let half = dtype("F16");
        assert_eq!(number(0x3c00, half), 1.0);
        assert_eq!(number(0xc000, half), -2.0);
        assert_eq!(number(0x0001, half), 2f32.powi(-24));
        assert_eq!(number(0x7bff, half), 65504.0);
        assert!(number(0x7e00, half).is_nan());
        for code in 0..0x7c00 {
            let x = number(code, half);
            assert_eq!(rounded(x, half), x, "{code:#x}");
        }
    }

    #[test]
    fn ties_round_to_even() {
        // Between 1 and 1 + 2^-10, and between 1 + 2^-10 and 1 + 2^-9.
        assert_eq!(rounded(1.0 + 2f32.powi(-11), dtype("F16")), 1.0);
        let above = 1.0 + 3.0 * 2f32.powi(-11);
        assert_eq!(rounded(above, dtype("F16")), 1.0 + 2f32.powi(-9));
        assert_eq!(rounded(1.0 + 2f32.powi(-8), dtype("BF16")), 1.0);
    }

    #[test]
    fn both_zeros_of_a_float_count_and_nothing_else() {
        let bf16 = [0u16, 0x8000, 1, 0x3f80].map(u16::to_le_bytes).concat();
        assert_eq!(equal(&bf16, 16, 0x7fff, 0), 2);
        assert_eq!(equal(&[0x80, 0x08, 0x1f], 4, 7, 0), 4);
        assert_eq!(zero_bits(dtype("F8_E4M3FNUZ")), Some(0xff));
        assert_eq!(zero_bits(dtype("F8_E8M0")), None);
    }
}
