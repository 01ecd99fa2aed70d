//! Floats of 16 bits: the numbers that their bits stand for, and what numbers round to.
//!
//! F16 has 5 bits of exponent and 10 of fraction, BF16 is the upper half of a float of 32 bits. Both are read exactly and
//! rounded to the nearest, ties to even.

/// The number of the bits of an F16.
pub fn from_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let sign = (bits & 0x8000) << 16;
    let (exponent, fraction) = (bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match exponent {
        // Fractions of 2^-24, which are exact.
        0 => fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// The number of the bits of a BF16.
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the F16 that is nearest.
pub fn to_f16(x: f32) -> u16 {
    let bits = rounded_to_f16(x).to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let (exponent, fraction) = (bits >> 23 & 255, bits & 0x7f_ffff);
    let magnitude = match exponent {
        255 if fraction != 0 => 0x7e00,
        255 => 0x7c00,
        113.. => (exponent - 112) << 10 | fraction >> 13,
        // Fractions of 2^-24; the number is a multiple of it.
        _ => (f32::from_bits(bits).abs() * 2f32.powi(24)) as u32,
    };
    sign | magnitude as u16
}

/// The bits of the BF16 that is nearest.
pub fn to_bf16(x: f32) -> u16 {
    let upper = (rounded_to_bf16(x).to_bits() >> 16) as u16;
    // What is not a number stays so, even if only low bits said it.
    if x.is_nan() { upper | 0x40 } else { upper }
}

/// The nearest number that a BF16 holds. The bits that do not fit are added up to a half, and to the last bit that fits where
/// they are just that.
#[inline(always)]
pub fn rounded_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if x.is_nan() {
        x
    } else {
        f32::from_bits(rounded)
    }
}

/// The nearest number that an F16 holds. All cases are computed and one is taken, so that it is done for many numbers beside
/// each other.
#[inline(always)]
pub fn rounded_to_f16(x: f32) -> f32 {
    let magnitude = x.abs();
    // Around 3/4 floats are as far apart as subnormal halves, 2^-24, so adding it rounds.
    let subnormal = (magnitude + 0.75) - 0.75;
    let bits = magnitude.to_bits();
    let normal = f32::from_bits(bits.wrapping_add(0xfff + (bits >> 13 & 1)) & 0xffff_e000);
    let finite = if magnitude < 2f32.powi(-14) {
        subnormal
    } else {
        normal
    };
    let rounded = if magnitude >= 65520.0 {
        f32::INFINITY
    } else {
        finite
    };
    let rounded = if x.is_nan() { magnitude } else { rounded };
    rounded.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_come_back() {
        for bits in 0..=u16::MAX {
            let half = from_f16(bits);
            if half.is_nan() {
                assert!(from_f16(to_f16(half)).is_nan(), "{bits:#x}");
            } else {
                assert_eq!(to_f16(half), bits, "{bits:#x}");
            }
            let brain = from_bf16(bits);
            if brain.is_nan() {
                assert!(from_bf16(to_bf16(brain)).is_nan(), "{bits:#x}");
            } else {
                assert_eq!(to_bf16(brain), bits, "{bits:#x}");
            }
        }
    }

    #[test]
    fn known_numbers_have_known_bits() {
        for (x, f16, bf16) in [
            (1.0, 0x3c00, 0x3f80),
            (-2.0, 0xc000, 0xc000),
            (65504.0, 0x7bff, 0x4780),
            (1e-5, 0x00a8, 0x3728),
            (f32::INFINITY, 0x7c00, 0x7f80),
            (0.0, 0, 0),
        ] {
            assert_eq!((to_f16(x), to_bf16(x)), (f16, bf16), "{x}");
        }
    }

    #[test]
    fn a_nan_of_low_bits_is_no_infinity() {
        let nan = f32::from_bits(0x7f80_0001);
        assert!(from_bf16(to_bf16(nan)).is_nan() && from_f16(to_f16(nan)).is_nan());
    }
}
