//! The layer as it is deployed: codes, scales and bias, nothing else.

use super::dequantize::row_scale;
use super::error::same_length;
use super::product::transposed;
use super::{Dequantization, LayerError, Multipliers};
use crate::kernels::{
    Activations, Counts, Granularity, KernelError, Packed, Packing, Pool, RowScale, Runnable,
    Scaling, multiply,
};

/// A deployed layer. It has no float weights and no way back to them; it is made by
/// [`BitLinear::deploy`](super::BitLinear::deploy), or of what a file holds.
#[derive(Debug)]
pub struct PackedBitLinear {
    /// Neighbouring columns that share their scales, in order. One group where columns have no scales of their own.
    groups: Vec<Packed>,
    /// Here scales lie `[groups][rows]`, because kernels run over a group.
    multipliers: Multipliers,
    activations: Granularity,
}

impl PackedBitLinear {
    /// A layer of parts that a file holds.
    ///
    /// `groups` are packed groups of neighbouring columns, all rows of each; a matrix whose columns have no scales of their own
    /// is one. `scales` are as the rule stores them: one for all, or `[rows, groups]`.
    pub fn from_parts(
        groups: Vec<Packed>,
        rule: Dequantization,
        scales: &[f32],
        bias: Option<Vec<f32>>,
        activations: Granularity,
    ) -> Result<PackedBitLinear, LayerError> {
        let first = groups
            .first()
            .ok_or(KernelError::Empty { rows: 0, cols: 0 })?;
        let multipliers = rule.multipliers(scales, first.rows(), bias)?;
        PackedBitLinear::from_multipliers(groups, multipliers, activations)
    }

    /// The same of scales and bias that a rule was applied to already, such as those of several layers that were put under each
    /// other. Scales are one for all, or `[rows, groups]`.
    pub fn from_multipliers(
        groups: Vec<Packed>,
        mut multipliers: Multipliers,
        activations: Granularity,
    ) -> Result<PackedBitLinear, LayerError> {
        let first = groups
            .first()
            .ok_or(KernelError::Empty { rows: 0, cols: 0 })?;
        let rows = first.rows();
        for (number, group) in groups.iter().enumerate() {
            if group.rows() != rows || group.packing() != first.packing() {
                return Err(LayerError::Group {
                    group: number,
                    rows: group.rows(),
                    packing: group.packing().name(),
                    first_rows: rows,
                    first_packing: first.packing().name(),
                });
            }
        }
        let scales = &multipliers.scales;
        if scales.len() != 1 {
            same_length(
                "the scale of the weights",
                scales.len(),
                rows * groups.len(),
            )?;
            multipliers.scales = transposed(scales, groups.len());
        }
        Ok(PackedBitLinear {
            groups,
            multipliers,
            activations,
        })
    }

    /// The layer's outputs `[.., out]` for inputs `[.., in]` of any leading shape.
    pub fn forward(
        &self,
        x: &[f32],
        kernel: Runnable,
        pool: &Pool,
    ) -> Result<Vec<f32>, LayerError> {
        let x = Activations::quantize(x, self.in_features(), self.activations, pool)?;
        let mut out = vec![0.0; x.tokens() * self.out_features()];
        self.multiply(&x, kernel, pool, &mut out)?;
        Ok(out)
    }

    /// The same for inputs that are quantized already, which layers with one input can share.
    pub fn multiply(
        &self,
        x: &Activations,
        kernel: Runnable,
        pool: &Pool,
        out: &mut [f32],
    ) -> Result<(), LayerError> {
        match &self.groups[..] {
            [weights] => {
                let scaling = self.multipliers.scaling();
                Ok(multiply(kernel, weights, x, &scaling, pool, out)?)
            }
            groups => self.multiply_groups(groups, x, kernel, pool, out),
        }
    }

    /// Sums of groups have scales of their own, so they cannot meet as integers: each group is a product of its own, and the
    /// products are added as numbers, in the order of the groups. That order is the same for every kernel and any threads, and
    /// so are the bits.
    fn multiply_groups(
        &self,
        groups: &[Packed],
        x: &Activations,
        kernel: Runnable,
        pool: &Pool,
        out: &mut [f32],
    ) -> Result<(), LayerError> {
        let rows = self.out_features();
        same_length("a token", x.cols(), self.in_features())?;
        same_length("the output", out.len(), x.tokens() * rows)?;
        let tokens: Vec<Vec<i8>> = (0..x.tokens()).map(|token| x.codes(token)).collect();
        let mut product = vec![0.0; out.len()];
        let mut from = 0;
        out.fill(0.0);
        for (number, weights) in groups.iter().enumerate() {
            let cols = from..from + weights.cols();
            let codes: Vec<&[i8]> = tokens.iter().map(|codes| &codes[cols.clone()]).collect();
            let scaling = Scaling {
                rows: self.group_scale(number),
                bias: None,
            };
            let codes = Activations::of_codes(&codes.concat(), weights.cols())?;
            multiply(kernel, weights, &codes, &scaling, pool, &mut product)?;
            out.iter_mut()
                .zip(&product)
                .for_each(|(out, it)| *out += it);
            from = cols.end;
        }
        for (out, scale) in out.chunks_exact_mut(rows).zip(x.scales()) {
            let token_scale = 1.0 / scale;
            out.iter_mut().for_each(|out| *out *= token_scale);
            if let Some(bias) = &self.multipliers.bias {
                out.iter_mut()
                    .zip(bias)
                    .for_each(|(out, bias)| *out += bias);
            }
        }
        Ok(())
    }

    fn group_scale(&self, group: usize) -> RowScale<'_> {
        match &self.multipliers.scales[..] {
            [one] => RowScale::One(*one),
            scales => row_scale(&scales[group * self.out_features()..][..self.out_features()]),
        }
    }

    /// The shape of the output for an input's.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>, LayerError> {
        output_shape(input, self.in_features(), self.out_features())
    }

    /// How many features come in.
    pub fn in_features(&self) -> usize {
        self.groups.iter().map(Packed::cols).sum()
    }

    /// How many features go out.
    pub fn out_features(&self) -> usize {
        self.groups[0].rows()
    }

    /// How the codes are packed: a kernel of this packing can run.
    pub fn packing(&self) -> Packing {
        self.groups[0].packing()
    }

    /// The packed codes: groups of columns that share their scales, in order.
    pub fn groups(&self) -> &[Packed] {
        &self.groups
    }

    /// What a code of 1 stands for: one number for all, or `[groups][rows]`.
    pub fn scales(&self) -> &[f32] {
        &self.multipliers.scales
    }

    /// What is added at the end, one number an output.
    pub fn bias(&self) -> Option<&[f32]> {
        self.multipliers.bias.as_deref()
    }

    /// How many weights are -1, 0 and 1.
    pub fn counts(&self) -> Counts {
        let groups = self.groups.iter().map(Packed::counts);
        groups.fold(Counts::default(), |sum, group| Counts {
            minus: sum.minus + group.minus,
            zero: sum.zero + group.zero,
            plus: sum.plus + group.plus,
        })
    }

    /// The share of weights that are 0.
    pub fn zero_share(&self) -> f64 {
        let Counts { minus, zero, plus } = self.counts();
        zero as f64 / (minus + zero + plus) as f64
    }

    /// Bytes of the layer: codes with their padding, scales, bias.
    pub fn bytes(&self) -> u64 {
        let codes: usize = self.groups.iter().map(|group| group.bytes().len()).sum();
        let numbers = self.multipliers.scales.len() + self.bias().map_or(0, <[f32]>::len);
        (codes + numbers * size_of::<f32>()) as u64
    }
}

/// `[.., in]` to `[.., out]`.
pub(super) fn output_shape(
    input: &[usize],
    in_features: usize,
    out_features: usize,
) -> Result<Vec<usize>, LayerError> {
    match input.split_last() {
        Some((last, leading)) if *last == in_features => Ok([leading, &[out_features]].concat()),
        _ => Err(LayerError::InputShape {
            shape: input.to_vec(),
            features: in_features,
        }),
    }
}
