//! Numbers from sums of codes: what a stored scale means, and where the bias stands.
//!
//! Published models do it in three ways, and two of them store a tensor of the same name with inverse meanings, so **the rule
//! is always said, never guessed**. Here all three become factors of the outputs and numbers that are added at the end.

use super::LayerError;
use super::error::same_length;
use crate::kernels::{RowScale, Scaling};

/// A rule that makes numbers of sums of codes. `sum` is that of `code * x_code`, `x_scale` what the token was multiplied by
/// before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dequantization {
    /// `y = sum / x_scale / s + bias` with `s = 1 / max(mean|W|, 1e-5)`: weights are quantized as they are used, and no scale
    /// is stored; the scale is the one that [`Ternary`](super::Ternary) finds, `max(mean|W|, 1e-5)`.
    Online,
    /// `y = (sum / x_scale + bias) * scale`: the stored scale is `max(mean|W|, 1e-5)`, and **the bias is multiplied too**.
    AutoBitLinear,
    /// `y = sum / (scale * x_scale) + bias`: the stored scale is the **reciprocal**, `1 / max(mean|W|, 1e-5)`.
    BitLinear,
}

/// What sums are multiplied by, and what is added then: `y = sum / x_scale * scale + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Multipliers {
    /// One scale, or one for each row and group of columns, `[rows][groups]`. Each is what a code of 1 stands for.
    pub scales: Vec<f32>,
    /// One number a row.
    pub bias: Option<Vec<f32>>,
}

impl Dequantization {
    /// What a file of this rule stores for weights of a scale; nothing if it stores the weights.
    pub fn stored(self, scale: f32) -> Option<f32> {
        match self {
            Dequantization::Online => None,
            Dequantization::AutoBitLinear => Some(scale),
            Dequantization::BitLinear => Some(1.0 / scale),
        }
    }

    /// What a code of 1 stands for.
    pub fn one(self, scale: f32) -> f32 {
        match self {
            // Not the scale itself: the rule divides by the rounded reciprocal, which may give a neighbour.
            Dequantization::Online => 1.0 / (1.0 / scale),
            Dequantization::AutoBitLinear => scale,
            Dequantization::BitLinear => 1.0 / scale,
        }
    }

    /// The factors of `rows` outputs: `scales` as the rule has them are one, or one for each row and group.
    pub fn multipliers(
        self,
        scales: &[f32],
        rows: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Multipliers, LayerError> {
        let usable = |scale: f32| scale > 0.0 && scale.is_normal() && (1.0 / scale).is_normal();
        if let Some(at) = scales.iter().position(|scale| !usable(*scale)) {
            let value = scales[at];
            return Err(LayerError::Scale { at, value });
        }
        let mut bias = bias;
        if let Some(bias) = &mut bias {
            same_length("the bias", bias.len(), rows)?;
            if let Some(row) = bias.iter().position(|bias| !bias.is_finite()) {
                let value = bias[row];
                return Err(LayerError::Bias { row, value });
            }
            if self == Dequantization::AutoBitLinear {
                scale_bias(bias, scales)?;
            }
        }
        let scales = scales.iter().map(|scale| self.one(*scale)).collect();
        Ok(Multipliers { scales, bias })
    }
}

/// Takes a bias out of the multiplication in which it stands.
fn scale_bias(bias: &mut [f32], scales: &[f32]) -> Result<(), LayerError> {
    let rows = bias.len();
    match scales.len() {
        1 => bias.iter_mut().for_each(|bias| *bias *= scales[0]),
        count if count == rows => {
            let each = bias.iter_mut().zip(scales);
            each.for_each(|(bias, scale)| *bias *= scale);
        }
        scales => return Err(LayerError::ScaledBias { scales, rows }),
    }
    Ok(())
}

impl Multipliers {
    /// As the kernels take it, for rows that are one group of columns.
    pub fn scaling(&self) -> Scaling<'_> {
        Scaling {
            rows: row_scale(&self.scales),
            bias: self.bias.as_deref(),
        }
    }
}

/// One scale stands for all rows.
pub(super) fn row_scale(scales: &[f32]) -> RowScale<'_> {
    match scales {
        [scale] => RowScale::One(*scale),
        scales => RowScale::Each(scales),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ternary, WeightGranularity};
    use super::*;
    use crate::kernels::{
        Activations, Granularity, Packed, Packing, Pool, accumulate, best, multiply,
    };

    const WEIGHTS: [f32; 32] = [
        0.9, -0.1, 0.4, -1.2, 0.05, 0.6, -0.7, 0.3, -0.5, 0.2, 1.1, -0.02, 0.31, -0.33, 0.0, 0.8,
        1.0, -0.9, 0.2, 0.1, -0.25, 0.45, -0.55, 0.65, 0.3, 0.3, -0.3, -0.3, 2.0, -0.1, 0.1, -0.2,
    ];
    const X: [f32; 4] = [0.5, -1.0, 0.25, 2.0];
    const Y: [f32; 8] = [
        -0.591334, 0.351806, -0.119764, 1.669208, 0.718583, 0.112279, -1.309916, 0.239528,
    ];

    #[test]
    fn the_worked_example_of_eight_outputs() {
        let ternary = Ternary::of(&WEIGHTS, 8, 4, WeightGranularity::Tensor).unwrap();
        assert_eq!(ternary.scales(), [0.4753125]);
        let mut codes = [[9i8; 4]; 8];
        for (row, codes) in codes.iter_mut().enumerate() {
            ternary.codes(row, codes);
        }
        let expected = [
            [1, 0, 1, -1],
            [0, 1, -1, 1],
            [-1, 0, 1, 0],
            [1, -1, 0, 1],
            [1, -1, 0, 0],
            [-1, 1, -1, 1],
            [1, 1, -1, -1],
            [1, 0, 0, 0],
        ];
        assert_eq!(codes, expected);

        let pool = Pool::alone();
        let x = Activations::quantize(&X, 4, Granularity::Token, &pool).unwrap();
        assert_eq!(
            (x.codes(0), x.scales()),
            (vec![32, -64, 16, 127], &[63.5][..])
        );
        let packed =
            Packed::pack(Packing::Planes, 8, 4, |row, out| ternary.codes(row, out)).unwrap();
        let kernel = best(Packing::Planes, 1);
        let mut sums = [0; 8];
        accumulate(kernel, &packed, &x, &pool, &mut sums).unwrap();
        assert_eq!(sums, [-79, 47, -16, 223, 96, 15, -175, 32]);

        assert_eq!(Dequantization::Online.stored(0.4753125), None);
        assert_eq!(
            Dequantization::AutoBitLinear.stored(0.4753125),
            Some(0.4753125)
        );
        let reciprocal = Dequantization::BitLinear.stored(0.4753125).unwrap();
        assert!((reciprocal - 2.103879).abs() < 1e-7);
        for (rule, scale) in [
            (Dequantization::Online, 0.4753125),
            (Dequantization::AutoBitLinear, 0.4753125),
            (Dequantization::BitLinear, reciprocal),
        ] {
            let numbers = rule.multipliers(&[scale], 8, None).unwrap();
            let mut y = [0.0; 8];
            multiply(kernel, &packed, &x, &numbers.scaling(), &pool, &mut y).unwrap();
            // The example is told to six places.
            for (y, expected) in y.iter().zip(Y) {
                assert!((y - expected).abs() < 6e-7, "{rule:?}: {y} for {expected}");
            }
        }
    }

    #[test]
    fn a_bias_stands_within_the_multiplication_of_one_rule_only() {
        let bias = || Some(vec![3.0, 5.0]);
        let of =
            |rule: Dequantization, scales: &[f32]| rule.multipliers(scales, 2, bias()).unwrap();
        let inside = of(Dequantization::AutoBitLinear, &[0.5]);
        assert_eq!(
            (inside.scales, inside.bias),
            (vec![0.5], Some(vec![1.5, 2.5]))
        );
        let inside = of(Dequantization::AutoBitLinear, &[0.5, 2.0]);
        assert_eq!(inside.bias, Some(vec![1.5, 10.0]));
        let after = of(Dequantization::BitLinear, &[0.5]);
        assert_eq!((after.scales, after.bias), (vec![2.0], bias()));
        assert_eq!(of(Dequantization::Online, &[0.5]).bias, bias());
        let groups = Dequantization::AutoBitLinear.multipliers(&[1.0; 4], 2, bias());
        assert!(matches!(
            groups,
            Err(LayerError::ScaledBias { scales: 4, rows: 2 })
        ));
    }

    #[test]
    fn a_scale_without_a_reciprocal_is_refused() {
        for scale in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40, f32::MAX] {
            for rule in [
                Dequantization::Online,
                Dequantization::AutoBitLinear,
                Dequantization::BitLinear,
            ] {
                let error = rule.multipliers(&[1.0, scale], 2, None).unwrap_err();
                assert!(matches!(error, LayerError::Scale { at: 1, .. }), "{error}");
            }
        }
        let error = Dequantization::BitLinear.multipliers(&[0.0], 2, None);
        assert_eq!(
            error.unwrap_err().to_string(),
            "scale 0 of the weights is 0: a scale is a number from 2^-126 to 2^126"
        );
    }

    #[test]
    fn a_bias_that_is_no_number_or_too_short_is_refused() {
        let bias = |bias: Vec<f32>| Dequantization::Online.multipliers(&[1.0], 2, Some(bias));
        assert!(matches!(
            bias(vec![0.0, f32::NAN]),
            Err(LayerError::Bias { row: 1, .. })
        ));
        assert_eq!(
            bias(vec![0.0]).unwrap_err().to_string(),
            "the bias has 1 numbers where 2 belong"
        );
    }
}
