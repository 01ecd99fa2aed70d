//! Bit orders: where in the bytes of a tensor the code of a row and column lies.
//!
//! All formats store little-endian words, so a word of 32 bits is also four bytes in order, and a stream of codes that is
//! dense over words is dense over bytes. Four codes `a b c d` of 4 bits are the bytes `ba dc` ([`Order::Dense`]); of 3 bits
//! they take 12 bits of a stream in which a code may lie across two words.

use super::super::wide::{Loop, widest};
use std::ops::BitOrAssign;

/// Columns that are decoded at a time: 2,048 codes of any width end on a word, and what is made of them stays in the first
/// cache.
pub(super) const CHUNK: usize = 1 << 11;

/// What a code is written to: 32 bits, or the eight that are enough for most.
pub(super) trait Cell: Copy + BitOrAssign + 'static {
    const ZERO: Self;
    /// The low bits of a code.
    fn of(code: u32) -> Self;
}

impl Cell for u32 {
    const ZERO: u32 = 0;
    #[inline(always)]
    fn of(code: u32) -> u32 {
        code
    }
}

impl Cell for u8 {
    const ZERO: u8 = 0;
    #[inline(always)]
    fn of(code: u32) -> u8 {
        code as u8
    }
}

/// Where the codes of a matrix lie in the bytes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    /// Width of a code, 1 to 32.
    pub(super) bits: u32,
    pub(super) direction: Direction,
    pub(super) order: Order,
    /// Added to every word before it is read, wrapping: files that store a zero point less one were written that way.
    pub(super) add: u32,
}

/// Which codes share a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Direction {
    /// Those of a row, which has so many bytes.
    Along { row_bytes: u64 },
    /// Those of a column; so many columns stand beside each other.
    Down { columns: u64 },
    /// Those of rows `r`, `r + rows`, `r + 2 rows` ...: one byte each, the first in the low bits. Bytes are `[rows, columns]`.
    Strided { rows: u64, columns: u64 },
    /// The same with the first in the high bits.
    StridedHigh { rows: u64, columns: u64 },
    /// Those of ten rows `r`, `r + rows` ... in a word of 32 bits, the first in the highest of 30 bits.
    StridedWords { rows: u64, columns: u64 },
    /// Those of `8 / bits` rows that follow each other: one byte each, the first in the low bits.
    RowsOfByte { columns: u64 },
    /// None: codes of whole bytes, column after column, so many rows in each.
    Transposed { rows: u64 },
    /// Four rows, 64 columns of each, in 128 bytes: a row after the other, and in every 32 columns code `8 c + 2 a + b` at
    /// nibble `8 a + 4 b + c`.
    Interleaved { columns: u64 },
}

/// Where in its word a code lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// Code `i` begins at bit `i * bits` of the stream, low bits first, across words.
    Dense,
    /// `32 / bits` codes in each word, low bits first; the rest of the word is unused.
    Whole,
    /// Eight codes of 4 bits in each word, code `i` at nibble `[i]` of the table.
    Nibbles([u8; 8]),
    /// 32 codes in `bits` words, split into planes of 4, 2 and 1 bits, the low plane first; a plane is a stream of its own.
    Planes,
}

/// A run of bits of one code: `width` bits of word `word` from bit `shift` on are bits `to..` of the code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Piece {
    word: u64,
    shift: u32,
    width: u32,
    to: u32,
}

impl Layout {
    /// Codes dense along rows of `row_bytes` bytes.
    pub(super) fn along(bits: u32, row_bytes: u64) -> Layout {
        Layout::new(bits, Direction::Along { row_bytes }, Order::Dense)
    }

    pub(super) fn new(bits: u32, direction: Direction, order: Order) -> Layout {
        Layout {
            bits,
            direction,
            order,
            add: 0,
        }
    }

    /// Bytes that a matrix of so many rows and columns needs; `None` if they cannot be counted.
    pub(super) fn bytes(&self, rows: u64, columns: u64) -> Option<u64> {
        let per_byte = u64::from(8 / self.bits.min(8));
        match self.direction {
            Direction::Along { row_bytes } => {
                let row_bits = match self.order {
                    Order::Dense | Order::Nibbles(_) => columns.checked_mul(self.bits.into())?,
                    Order::Whole => columns
                        .div_ceil(u64::from(32 / self.bits))
                        .checked_mul(32)?,
                    Order::Planes => columns
                        .div_ceil(32)
                        .checked_mul(32)?
                        .checked_mul(self.bits.into())?,
                };
                // A row that is shorter than its codes would be read into the next.
                if row_bits.div_ceil(8) > row_bytes {
                    return None;
                }
                rows.checked_mul(row_bytes)
            }
            Direction::Down { columns: width } => {
                if columns > width {
                    return None;
                }
                let words = match self.order {
                    Order::Whole => rows.div_ceil(u64::from(32 / self.bits)),
                    Order::Planes => rows.div_ceil(32).checked_mul(self.bits.into())?,
                    _ => rows.checked_mul(self.bits.into())?.div_ceil(32),
                };
                words.checked_mul(width)?.checked_mul(4)
            }
            Direction::Strided {
                rows: stride,
                columns: width,
            }
            | Direction::StridedHigh {
                rows: stride,
                columns: width,
            } => {
                let fits = columns <= width && rows <= stride.checked_mul(per_byte)?;
                fits.then(|| stride.checked_mul(width)).flatten()
            }
            Direction::StridedWords {
                rows: stride,
                columns: width,
            } => {
                let fits = columns <= width && rows <= stride.checked_mul(10)?;
                let words = fits.then(|| stride.checked_mul(width)).flatten()?;
                words.checked_mul(4)
            }
            Direction::Transposed { rows: height } => (rows <= height)
                .then(|| columns.checked_mul(height))
                .flatten()?
                .checked_mul((self.bits / 8).into()),
            Direction::Interleaved { columns: width } => {
                let fits = columns <= width && width.is_multiple_of(64) && rows.is_multiple_of(4);
                fits.then(|| rows.checked_mul(width / 2)).flatten()
            }
            Direction::RowsOfByte { columns: width } => (columns <= width)
                .then(|| rows.div_ceil(per_byte).checked_mul(width))
                .flatten(),
        }
    }

    /// Writes the codes of a row from column `first` on. What lies outside the bytes reads as 0; callers have asked
    /// [`Layout::bytes`].
    pub(super) fn read<T: Cell>(&self, bytes: &[u8], row: u64, first: u64, out: &mut [T]) {
        let (bits, add) = (self.bits, self.add);
        let mask = mask(bits);
        let columns = first..;
        match self.direction {
            Direction::Along { row_bytes } => {
                let start = row.saturating_mul(row_bytes);
                if !self.read_whole(bytes, start, first, out) {
                    let word = |i: u64| word(bytes, start.saturating_add(i * 4)).wrapping_add(add);
                    for (out, column) in out.iter_mut().zip(columns) {
                        let pieces = pieces(self.order, bits, column);
                        let code = pieces.iter().map(|piece| piece.of(word(piece.word)));
                        *out = T::of(code.fold(0, |code, piece| code | piece));
                    }
                }
            }
            Direction::Down { columns: width } => {
                out.fill(T::ZERO);
                for piece in pieces(self.order, bits, row).iter().filter(|p| p.width > 0) {
                    let at = piece.word.saturating_mul(width).saturating_add(first);
                    let (words, _) = from(bytes, at.saturating_mul(4)).as_chunks::<4>();
                    widest(Pieces {
                        words,
                        add,
                        piece: *piece,
                        out,
                    });
                }
            }
            Direction::Strided {
                rows,
                columns: width,
            } => {
                let shift = (row / rows.max(1)) as u32 * bits;
                let start = (row % rows.max(1)).saturating_mul(width);
                widest(Bytes {
                    bytes: from(bytes, start.saturating_add(first)),
                    shift,
                    mask,
                    out,
                });
            }
            Direction::StridedHigh {
                rows,
                columns: width,
            } => {
                let slot = (row / rows.max(1)) as u32 + 1;
                let shift = 8u32.saturating_sub(slot.saturating_mul(bits));
                let start = (row % rows.max(1)).saturating_mul(width);
                widest(Bytes {
                    bytes: from(bytes, start.saturating_add(first)),
                    shift,
                    mask,
                    out,
                });
            }
            Direction::StridedWords {
                rows,
                columns: width,
            } => {
                let shift = 27u32.saturating_sub((row / rows.max(1)) as u32 * bits);
                let start = (row % rows.max(1)).saturating_mul(width);
                for (out, column) in out.iter_mut().zip(columns) {
                    let at = start.saturating_add(column).saturating_mul(4);
                    *out = T::of(shifted(word(bytes, at), shift) & mask);
                }
            }
            Direction::Transposed { rows } => {
                let size = u64::from(bits / 8);
                for (out, column) in out.iter_mut().zip(columns) {
                    let at = column.saturating_mul(rows).saturating_add(row);
                    *out = T::of(word(bytes, at.saturating_mul(size)) & mask);
                }
            }
            Direction::Interleaved { columns: width } => {
                let start = (row / 4).saturating_mul(width).saturating_mul(4);
                for (out, column) in out.iter_mut().zip(columns) {
                    let (block, half, within) = (column / 64, column % 64 / 32, column % 32);
                    let (a, b, c) = (within % 8 / 2, within % 2, within / 8);
                    let nibble = block * 256 + row % 4 * 64 + half * 32 + 8 * a + 4 * b + c;
                    let at = start.saturating_add(nibble);
                    *out = T::of(shifted(byte(bytes, at / 2), (at % 2) as u32 * 4) & mask);
                }
            }
            Direction::RowsOfByte { columns: width } => {
                let per_byte = u64::from(8 / bits.clamp(1, 8));
                let shift = (row % per_byte) as u32 * bits;
                let start = (row / per_byte).saturating_mul(width);
                widest(Bytes {
                    bytes: from(bytes, start.saturating_add(first)),
                    shift,
                    mask,
                    out,
                });
            }
        }
    }
}

impl Layout {
    /// Reads codes of a row that lie whole in bytes or words, unit by unit; says whether it could.
    fn read_whole<T: Cell>(&self, bytes: &[u8], start: u64, first: u64, out: &mut [T]) -> bool {
        let (bits, mask) = (self.bits, mask(self.bits));
        let per_word = u64::from(32 / bits.max(1));
        let whole = self.order != Order::Planes && (self.order == Order::Whole || 32 % bits == 0);
        if !whole || !first.is_multiple_of(per_word) {
            return false;
        }
        let row = from(bytes, start.saturating_add(first / per_word * 4));
        let (words, rest) = row.as_chunks::<4>();
        let slot = |slot: usize| match self.order {
            Order::Nibbles(table) => u32::from(table[slot % 8]) * 4,
            _ => slot as u32 * bits,
        };
        let filled = match bits {
            1 => self.units::<32, T>(words, slot, out),
            2 => self.units::<16, T>(words, slot, out),
            4 => self.units::<8, T>(words, slot, out),
            8 => self.units::<4, T>(words, slot, out),
            16 => self.units::<2, T>(words, slot, out),
            _ => 0,
        };
        let (words, mut units) = (
            &words[filled..],
            out[filled * per_word as usize..].chunks_mut(per_word as usize),
        );
        for (word, unit) in words.iter().zip(&mut units) {
            let word = u32::from_le_bytes(*word).wrapping_add(self.add);
            for (i, out) in unit.iter_mut().enumerate() {
                *out = T::of(word >> slot(i) & mask);
            }
        }
        // The last row may end within a word.
        for (unit, at) in units.zip((0u64..).step_by(4)) {
            let word = word(rest, at).wrapping_add(self.add);
            for (i, out) in unit.iter_mut().enumerate() {
                *out = T::of(word >> slot(i) & mask);
            }
        }
        true
    }

    /// Reads words of so many codes each; gives how many words that were.
    fn units<const CODES: usize, T: Cell>(
        &self,
        words: &[[u8; 4]],
        slot: impl Fn(usize) -> u32,
        out: &mut [T],
    ) -> usize {
        let (out, _) = out.as_chunks_mut::<CODES>();
        let count = out.len().min(words.len());
        widest(Units {
            words,
            add: self.add,
            slots: std::array::from_fn(slot),
            out,
        });
        count
    }
}

/// Codes that lie whole in words, each at its slot.
struct Units<'b, const CODES: usize, T> {
    words: &'b [[u8; 4]],
    add: u32,
    slots: [u32; CODES],
    out: &'b mut [[T; CODES]],
}

impl<const CODES: usize, T: Cell> Loop for Units<'_, CODES, T> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let mask = u32::MAX >> (32 - 32 / CODES);
        for (word, out) in self.words.iter().zip(self.out) {
            let word = u32::from_le_bytes(*word).wrapping_add(self.add);
            for (out, slot) in out.iter_mut().zip(self.slots) {
                *out = T::of(word >> (slot & 31) & mask);
            }
        }
    }
}

/// A piece of a code out of each word.
struct Pieces<'b, T> {
    words: &'b [[u8; 4]],
    add: u32,
    piece: Piece,
    out: &'b mut [T],
}

impl<T: Cell> Loop for Pieces<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let Piece {
            shift, width, to, ..
        } = self.piece;
        // A piece has a width, and both it and its place in the code end within 32 bits.
        let mask = mask(width);
        for (out, word) in self.out.iter_mut().zip(self.words) {
            let word = u32::from_le_bytes(*word).wrapping_add(self.add);
            *out |= T::of((word >> (shift & 31) & mask) << (to & 31));
        }
    }
}

/// A code out of each byte; 0 where there are no more.
struct Bytes<'b, T> {
    bytes: &'b [u8],
    shift: u32,
    mask: u32,
    out: &'b mut [T],
}

impl<T: Cell> Loop for Bytes<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        let here = self.out.len().min(self.bytes.len());
        let (out, none) = self.out.split_at_mut(here);
        none.fill(T::ZERO);
        // A row beyond those that share a byte has no codes.
        let mask = if self.shift < 8 { self.mask } else { 0 };
        for (out, byte) in out.iter_mut().zip(self.bytes) {
            *out = T::of(u32::from(*byte) >> (self.shift & 31) & mask);
        }
    }
}

/// The bytes from one on.
fn from(bytes: &[u8], at: u64) -> &[u8] {
    usize::try_from(at)
        .ok()
        .and_then(|at| bytes.get(at..))
        .unwrap_or_default()
}

/// The lowest `bits` bits set.
pub(super) fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits.clamp(1, 32))
}

impl Piece {
    fn of(&self, word: u32) -> u32 {
        // No width, no bits: a shift by 32 is none that a word has.
        let mask = u32::MAX.checked_shr(32 - self.width).unwrap_or(0);
        (shifted(word, self.shift) & mask)
            .checked_shl(self.to)
            .unwrap_or(0)
    }
}

fn shifted(word: u32, shift: u32) -> u32 {
    word.checked_shr(shift).unwrap_or(0)
}

fn byte(bytes: &[u8], at: u64) -> u32 {
    usize::try_from(at)
        .ok()
        .and_then(|at| bytes.get(at))
        .map_or(0, |b| u32::from(*b))
}

/// The little-endian word that begins at a byte. Rows of bytes may end within it.
fn word(bytes: &[u8], at: u64) -> u32 {
    let Ok(at) = usize::try_from(at) else {
        return 0;
    };
    if let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        return u32::from_le_bytes(*word);
    }
    (at..at.saturating_add(4))
        .rev()
        .fold(0, |word, at| word << 8 | byte(bytes, at as u64))
}

/// The bits of code `i` of a stream. A piece that is not needed has no width.
fn pieces(order: Order, bits: u32, i: u64) -> [Piece; 3] {
    let none = Piece::default();
    let one = |word, shift| {
        let piece = Piece {
            word,
            shift,
            width: bits,
            to: 0,
        };
        [piece, none, none]
    };
    match order {
        Order::Dense => {
            let bit = i * u64::from(bits);
            let (word, shift) = (bit / 32, (bit % 32) as u32);
            let width = bits.min(32 - shift);
            let low = Piece {
                word,
                shift,
                width,
                to: 0,
            };
            let high = Piece {
                word: word + 1,
                shift: 0,
                width: bits - width,
                to: width,
            };
            [low, high, none]
        }
        Order::Whole => {
            let per_word = u64::from(32 / bits);
            one(i / per_word, (i % per_word) as u32 * bits)
        }
        Order::Nibbles(table) => one(i / 8, u32::from(table[(i % 8) as usize]) * 4),
        Order::Planes => {
            let (block, within) = (i / 32, (i % 32) as u32);
            let mut before = 0;
            [4, 2, 1].map(|plane| {
                if bits & plane == 0 {
                    return none;
                }
                let per_word = 32 / plane;
                let piece = Piece {
                    word: block * u64::from(bits) + u64::from(before + within / per_word),
                    shift: within % per_word * plane,
                    width: plane,
                    to: before,
                };
                // A plane of w bits takes w words, so the words before it are as many as the bits below it.
                before += plane;
                piece
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(layout: Layout, bytes: &[u8], row: u64, expected: &[u32]) {
        let mut out = vec![0u32; expected.len()];
        layout.read(bytes, row, 0, &mut out);
        assert_eq!(out, expected);
        let mut narrow = vec![0u8; expected.len()];
        layout.read(bytes, row, 0, &mut narrow);
        assert!(narrow.into_iter().map(u32::from).eq(out));
        // The same, one by one: where a chunk begins changes nothing.
        for (column, expected) in expected.iter().enumerate() {
            let mut one = [0u32];
            layout.read(bytes, row, column as u64, &mut one);
            assert_eq!(one, [*expected], "column {column}");
        }
    }

    #[test]
    fn dense_nibbles_have_the_low_half_first() {
        check(Layout::along(4, 2), &[0x21, 0x43], 0, &[1, 2, 3, 4]);
    }

    #[test]
    fn three_bits_cross_words() {
        // Code 10 is bits 30 and 31 of word 0 and bit 0 of word 1: 0b110 = 6 sets bit 31 and bit 32.
        let bytes = [0, 0, 0, 0x80, 1, 0, 0, 0];
        check(
            Layout::along(3, 8),
            &bytes,
            0,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0],
        );
    }

    #[test]
    fn a_stream_down_columns_has_its_words_a_row_apart() {
        // Two columns of words, two rows of them: column 0 is (0x80000000, 1), column 1 is (7, 0).
        let bytes = [0, 0, 0, 0x80, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let layout = Layout::new(3, Direction::Down { columns: 2 }, Order::Dense);
        check(layout, &bytes, 10, &[6, 0]);
        check(layout, &bytes, 0, &[0, 7]);
    }

    #[test]
    fn whole_words_leave_bits_unused() {
        // Ten codes of 3 bits in a word; code 10 begins the next.
        let layout = Layout::new(3, Direction::Along { row_bytes: 8 }, Order::Whole);
        let bytes = [0b0100_0001, 0, 0, 0, 5, 0, 0, 0];
        check(layout, &bytes, 0, &[1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn nibbles_by_table() {
        // 0x76543210 holds nibble i at bits 4 i; column j lies at nibble [0, 4, 1, 5, 2, 6, 3, 7][j].
        let layout = Layout::new(
            4,
            Direction::Along { row_bytes: 4 },
            Order::Nibbles([0, 4, 1, 5, 2, 6, 3, 7]),
        );
        let bytes = 0x7654_3210u32.to_le_bytes();
        check(layout, &bytes, 0, &[0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn four_rows_stride_through_a_byte() {
        // 162 = 0b10_10_00_10: rows 0, 2, 4, 6 hold 2, 0, 2, 2, which stand for 1, -1, 1, 1.
        let bytes = [162, 133, 26, 20, 137, 98, 68, 106];
        let layout = Layout::new(
            2,
            Direction::Strided {
                rows: 2,
                columns: 4,
            },
            Order::Dense,
        );
        check(layout, &bytes, 0, &[2, 1, 2, 0]);
        check(layout, &bytes, 7, &[2, 1, 1, 1]);
    }

    #[test]
    fn halves_of_rows_have_the_first_half_in_the_high_bits() {
        let layout = Layout::new(
            4,
            Direction::StridedHigh {
                rows: 1,
                columns: 2,
            },
            Order::Dense,
        );
        check(layout, &[0x12, 0x34], 0, &[1, 3]);
        check(layout, &[0x12, 0x34], 1, &[2, 4]);
    }

    #[test]
    fn neighbouring_rows_share_a_byte() {
        let layout = Layout::new(4, Direction::RowsOfByte { columns: 2 }, Order::Dense);
        check(layout, &[0x12, 0x34], 0, &[2, 4]);
        check(layout, &[0x12, 0x34], 1, &[1, 3]);
    }

    #[test]
    fn planes_are_streams_of_their_own() {
        // 5 bits: words 0 to 3 hold the low 4 bits of 32 codes, word 4 their high bits. Code 9 is 0b1_0110.
        let mut words = [0u32; 5];
        words[1] = 0b0110 << 4;
        words[4] = 1 << 9;
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let layout = Layout::new(5, Direction::Along { row_bytes: 20 }, Order::Planes);
        let mut expected = [0; 32];
        expected[9] = 0b1_0110;
        check(layout, &bytes, 0, &expected);
    }

    #[test]
    fn adding_to_a_word_carries_into_the_next_code() {
        let layout = Layout {
            add: 0x1111_1111,
            ..Layout::along(4, 4)
        };
        check(layout, &0x0f00u32.to_le_bytes(), 0, &[1, 1, 0, 2]);
    }

    #[test]
    fn rows_shorter_than_their_codes_do_not_fit() {
        assert_eq!(Layout::along(4, 2).bytes(3, 4), Some(6));
        assert_eq!(Layout::along(4, 2).bytes(3, 5), None);
        assert_eq!(Layout::along(32, u64::MAX).bytes(2, 1), None);
    }
}
