//! Floats by their bits: which are 0, which are finite, what they are and what they round to.

use crate::dtype::NumberKind;
use crate::dtype::StoredType;

/// The bits of a number that are 0 in a zero and in nothing else; `None` for a dtype without zero.
pub(super) fn zero_bits(dtype: StoredType) -> Option<u64> {
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

/// The number of a dtype that is nearest, ties to even; of floats of 32 bits the number itself.
pub(super) fn rounded(x: f32, dtype: StoredType) -> f32 {
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
    fn a_dtype_without_a_sign_of_zero_has_one_zero_or_none() {
        assert_eq!(zero_bits(dtype("BF16")), Some(0x7fff));
        assert_eq!(zero_bits(dtype("F8_E4M3FNUZ")), Some(0xff));
        assert_eq!(zero_bits(dtype("I8")), Some(0xff));
        assert_eq!(zero_bits(dtype("F8_E8M0")), None);
    }
}
