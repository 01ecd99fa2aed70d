//! The codes of both packings out of bytes.
//!
//! Five digits to base three become planes of two bits first: `byte = 84 c4 + r`, where two comparisons tell c4, and the four
//! digits of `r`, 0 to 80, stand in a table of 81 entries that six registers hold.

use super::super::packing::Packing;
use std::arch::aarch64::*;

/// Digits 0 to 3 of what is left without digit 4, as planes of two bits.
static FOUR_DIGITS: [u8; 96] = four_digits();

const fn four_digits() -> [u8; 96] {
    let mut table = [0; 96];
    let mut rest = 0;
    while rest < 81 {
        let (low, high) = (
            rest % 3 + 4 * (rest / 3 % 3),
            rest / 9 % 3 + 4 * (rest / 27 % 3),
        );
        table[rest] = (low + 16 * high) as u8;
        rest += 1;
    }
    table
}

/// What a kernel's flag means.
pub(super) const fn packing(trits: bool) -> Packing {
    if trits {
        Packing::Trits
    } else {
        Packing::Planes
    }
}

/// Reads the bytes of a packing; the tables of digits in registers.
#[derive(Clone, Copy)]
pub(super) struct Reader<const TRITS: bool> {
    below_64: uint8x16x4_t,
    from_64: uint8x16x2_t,
}

/// The codes of the bytes of a vector.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    /// Planes 0 to 3, each in its two bits.
    pub(super) planes: uint8x16_t,
    /// Plane 4, where there is one.
    pub(super) last: uint8x16_t,
}

impl<const TRITS: bool> Reader<TRITS> {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn new() -> Self {
        // SAFETY: the table has 96 bytes: six vectors.
        unsafe {
            Reader {
                below_64: vld1q_u8_x4(FOUR_DIGITS.as_ptr()),
                from_64: vld1q_u8_x2(FOUR_DIGITS[64..].as_ptr()),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn codes(&self, bytes: uint8x16_t) -> Codes {
        if !TRITS {
            return Codes {
                planes: bytes,
                last: vdupq_n_u8(0),
            };
        }
        // A comparison that holds gives -1: together they are -c4.
        let minus_last = vaddq_u8(
            vcgeq_u8(bytes, vdupq_n_u8(84)),
            vcgeq_u8(bytes, vdupq_n_u8(168)),
        );
        let rest = vmlaq_u8(bytes, minus_last, vdupq_n_u8(84));
        // An index beyond a table gives 0 in the first look-up and leaves what is there in the second; indices below 64 are
        // beyond the second table once 64 is taken away.
        let planes = vqtbl4q_u8(self.below_64, rest);
        let planes = vqtbx2q_u8(planes, self.from_64, vsubq_u8(rest, vdupq_n_u8(64)));
        let last = vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(minus_last)));
        Codes { planes, last }
    }
}

impl Codes {
    /// The codes of a plane, 0 to 2. Which plane is known when it is compiled, so that no loop asks.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(super) fn plane<const PLANE: usize>(&self) -> uint8x16_t {
        let mask = vdupq_n_u8(3);
        match PLANE {
            0 => vandq_u8(self.planes, mask),
            1 => vandq_u8(vshrq_n_u8::<2>(self.planes), mask),
            2 => vandq_u8(vshrq_n_u8::<4>(self.planes), mask),
            3 => vshrq_n_u8::<6>(self.planes),
            _ => self.last,
        }
    }
}
