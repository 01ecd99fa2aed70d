//! Loops over codes, written once for one code after the other and compiled a second time for the widest vectors of x86-64.
//!
//! The compiler makes vectors of them: there is no intrinsic here, so the loop that is read is the loop that runs, and both
//! compilations count the same. On other machines the vectors of the target's baseline do, which on aarch64 is NEON.

#![allow(unsafe_code)]

/// A loop that is worth wide vectors. `run` is inlined into its two callers.
pub(super) trait Loop {
    type Out;
    fn run(self) -> Self::Out;
}

/// Runs a loop as it is compiled for this machine.
pub(super) fn widest<L: Loop>(it: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the line above found AVX2, which is all that the function asks of the machine.
        return unsafe { avx2(it) };
    }
    it.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<L: Loop>(it: L) -> L::Out {
    it.run()
}

/// A code as it is stored, or a number that was made from one.
pub(super) trait Code: Copy {
    type Lane: Lane;
    fn lane(self) -> Self::Lane;
}

/// An integer as wide as a code: counts stand in lanes beside the codes that they count.
pub(super) trait Lane: Copy + Default + Ord {
    /// Rows after which a count of a column might be full.
    const ROWS: usize;
    /// Columns after which a count of a row might be full.
    const COLUMNS: usize;
    fn and(self, mask: Self) -> Self;
    /// 1 where it is not 0.
    fn one(self) -> Self;
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

// Of 8 bits so many columns as 255 has whole vectors; of 16 bits and more whatever a block has.
lanes! {
    u8: 1, 255, 192;
    u16: 2, 65_535, 32_768;
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
        let mut top = C::Lane::default();
        for (codes, found) in self.codes.chunks_exact(width).zip(self.rows) {
            let mut sum = 0;
            let runs = codes.chunks(C::Lane::COLUMNS);
            for (codes, columns) in runs.zip(self.columns.chunks_mut(C::Lane::COLUMNS)) {
                let (mut row, mut largest) = (C::Lane::default(), C::Lane::default());
                for (code, column) in codes.iter().zip(columns) {
                    let code = code.lane().and(self.mask);
                    let one = code.one();
                    *column = column.plus(one);
                    row = row.plus(one);
                    largest = largest.max(code);
                }
                sum += row.long();
                top = top.max(largest);
            }
            *found = sum as u32;
        }
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for width in (1..140).chain([191, 192, 193, 255, 256, 257, 384, 385]) {
            check::<1>(&bytes, width, 0x7f);
            check::<2>(&bytes, width, 0x7fff);
            check::<4>(&bytes, width, 0x7fff_ffff);
            check::<8>(&bytes, width, u64::MAX);
        }
    }

    #[test]
    fn no_count_is_full_before_it_is_emptied() {
        // 255 rows of non-zeros, and rows of more non-zeros than 8 bits count.
        check::<1>(&vec![1; 255 * 300], 300, 0xff);
        check::<2>(&vec![1; 2 * 70_000], 70_000, 0xffff);
    }
}
