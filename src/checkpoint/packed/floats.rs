//! Floats by their bits: which are 0, which are finite, what they are and what they round to.

use crate::dtype::NumberKind;
use crate::dtype::StoredType;

/// The bits of a number that are 0 in a zero and in nothing else; `None` for a dtype without zero.
pub(in crate::checkpoint) fn zero_bits(dtype: StoredType) -> Option<u64> {
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
pub(super) fn is_finite(code: u32, dtype: StoredType) -> bool {
    match dtype.name {
        "F8_E4M3" => code & 0x7f != 0x7f,
        "F8_E5M2" => code & 0x7f < 0x7c,
        "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => code != 0x80,
        _ => true,
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

/// The number that a code of any dtype stands for, of integers and floats of 64 bits as near as a float of 64 bits comes. A
/// dtype of pairs has none.
pub(in crate::checkpoint) fn value(code: u64, dtype: StoredType) -> f64 {
    let bits = dtype.bits.clamp(1, 64);
    match dtype.kind {
        NumberKind::Signed => (((code << (64 - bits)) as i64) >> (64 - bits)) as f64,
        NumberKind::Unsigned | NumberKind::Bool => code as f64,
        NumberKind::Exponent if code == 255 => f64::NAN,
        NumberKind::Exponent => 2f64.powi(code as i32 - 127),
        NumberKind::Float => match dtype.name {
            "F64" => f64::from_bits(code),
            "F32" | "F16" | "BF16" => number(code as u32, dtype).into(),
            "C64" => f64::NAN,
            "F8_E4M3FNUZ" | "F8_E5M2FNUZ" if code == 0x80 => f64::NAN,
            "F8_E4M3" if code & 0x7f == 0x7f => f64::NAN,
            "F8_E5M2" if code & 0x7f > 0x7c => f64::NAN,
            "F8_E5M2" if code & 0x7f == 0x7c => signed(f64::INFINITY, code >> 7 == 1),
            name => {
                // Bits of the fraction, and what is taken from the exponent.
                let (fraction, bias) = match name {
                    "F8_E4M3" => (3, 7),
                    "F8_E4M3FNUZ" => (3, 8),
                    "F8_E5M2" => (2, 15),
                    "F8_E5M2FNUZ" => (2, 16),
                    "F6_E2M3" => (3, 1),
                    "F6_E3M2" => (2, 3),
                    _ => (1, 1),
                };
                let magnitude = code & ((1 << (bits - 1)) - 1);
                let (exponent, rest) = (magnitude >> fraction, magnitude & ((1 << fraction) - 1));
                // A subnormal has the exponent of the smallest normal number, and no one before the point.
                let whole = if exponent > 0 { 1 << fraction } else { 0 };
                let unit = 2f64.powi(exponent.max(1) as i32 - bias - fraction);
                signed((whole + rest) as f64 * unit, code >> (bits - 1) & 1 == 1)
            }
        },
    }
}

fn signed(magnitude: f64, is_negative: bool) -> f64 {
    if is_negative { -magnitude } else { magnitude }
}

/// The number of a dtype that is nearest, ties to even; of floats of 32 bits the number itself.
pub(super) fn rounded(x: f32, dtype: StoredType) -> f32 {
    match dtype.name {
        "F16" => rounded_to_half(x),
        "BF16" => rounded_to_bf16(x),
        _ => x,
    }
}

/// The bits that do not fit are added up to a half, and to the last bit that fits where they are just that.
#[inline(always)]
pub(super) fn rounded_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if x.is_nan() {
        x
    } else {
        f32::from_bits(rounded)
    }
}

/// All cases are computed and one is taken, so that it is done for many numbers beside each other.
#[inline(always)]
pub(super) fn rounded_to_half(x: f32) -> f32 {
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
    fn small_floats_have_the_values_of_their_formats() {
        // Largest and smallest numbers as the Open Compute Project's formats and torch's finfo name them.
        for (name, code, expected) in [
            ("F8_E4M3", 0x7e, 448.0),
            ("F8_E4M3", 0x01, 2f64.powi(-9)),
            ("F8_E4M3", 0x88, -(2f64.powi(-6))),
            ("F8_E5M2", 0x7b, 57344.0),
            ("F8_E5M2", 0x01, 2f64.powi(-16)),
            ("F8_E5M2", 0xfc, f64::NEG_INFINITY),
            ("F8_E4M3FNUZ", 0x7f, 240.0),
            ("F8_E5M2FNUZ", 0x7f, 57344.0),
            ("F6_E2M3", 0x1f, 7.5),
            ("F6_E3M2", 0x3f, -28.0),
            ("F4", 7, 6.0),
            ("F4", 9, -0.5),
            ("F8_E8M0", 127, 1.0),
            ("I8", 0xff, -1.0),
            ("U8", 0xff, 255.0),
            ("I64", u64::MAX, -1.0),
            ("BF16", 0xbf80, -1.0),
        ] {
            assert_eq!(value(code, dtype(name)), expected, "{name} {code:#x}");
        }
        for (name, code) in [("F8_E4M3", 0xff), ("F8_E5M2", 0x7d), ("F8_E4M3FNUZ", 0x80)] {
            assert!(value(code, dtype(name)).is_nan(), "{name} {code:#x}");
        }
    }

    #[test]
    fn ties_round_to_even() {
        // Between 1 and 1 + 2^-10, and between 1 + 2^-10 and 1 + 2^-9.
        assert_eq!(rounded(1.0 + 2f32.powi(-11), dtype("F16")), 1.0);
        let above = 1.0 + 3.0 * 2f32.powi(-11);
        assert_eq!(rounded(above, dtype("F16")), 1.0 + 2f32.powi(-9));
        assert_eq!(rounded(1.0 + 2f32.powi(-8), dtype("BF16")), 1.0);
        // The largest half is 65504; what is nearer to the next power of two is infinite.
        assert_eq!(rounded(65519.9, dtype("F16")), 65504.0);
        assert_eq!(rounded(-65520.0, dtype("F16")), f32::NEG_INFINITY);
        // Halfway between 0 and the smallest half, and between that and the next.
        assert_eq!(rounded(2f32.powi(-25), dtype("F16")), 0.0);
        assert_eq!(rounded(3.0 * 2f32.powi(-25), dtype("F16")), 2f32.powi(-23));
    }

    #[test]
    fn a_dtype_without_a_sign_of_zero_has_one_zero_or_none() {
        assert_eq!(zero_bits(dtype("BF16")), Some(0x7fff));
        assert_eq!(zero_bits(dtype("F8_E4M3FNUZ")), Some(0xff));
        assert_eq!(zero_bits(dtype("I8")), Some(0xff));
        assert_eq!(zero_bits(dtype("F8_E8M0")), None);
    }
}
