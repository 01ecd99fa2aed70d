//! The layer as it is trained: float weights, quantized for every product.

use super::error::{matrix_size, same_length};
use super::packed::output_shape;
use super::product::{sums_of_rows, transposed};
use super::{Dequantization, Init, LayerError, PackedBitLinear, QuantConfig, Ternary};
use crate::kernels::{Activations, Packed, Packing, Pool};
use crate::memory::{MemoryPool, PoolConfig};
use crate::random::Random;
use rayon::prelude::*;
use std::ops::Deref;

/// A linear layer whose weights are quantized whenever they are used. The float weights are what an optimizer moves.
#[derive(Clone, Debug, PartialEq)]
pub struct BitLinear {
    in_features: usize,
    out_features: usize,
    /// `[out, in]`
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    config: QuantConfig,
}

/// What a forward pass in training leaves for the way back.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The outputs, `[tokens, out]`.
    pub output: Vec<f32>,
    /// What the codes of the activations stand for, `[tokens, in]`.
    input: Vec<f32>,
    /// What the codes of the weights stand for, `[out, in]`.
    weight: Vec<f32>,
    in_features: usize,
    out_features: usize,
    has_bias: bool,
}

/// How a loss changes with what a layer was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// `[tokens, in]`
    pub input: Vec<f32>,
    /// `[out, in]`
    pub weight: Vec<f32>,
    /// `[out]`, if the layer has a bias.
    pub bias: Option<Vec<f32>>,
}

/// A layer while it is evaluated: all that a deployed one is. It borrows the layer, so weights do not change under its codes,
/// and with its end the codes are gone.
#[derive(Debug)]
pub struct Evaluating<'l> {
    codes: PackedBitLinear,
    _layer: &'l BitLinear,
}

impl Deref for Evaluating<'_> {
    type Target = PackedBitLinear;
    fn deref(&self) -> &PackedBitLinear {
        &self.codes
    }
}

impl BitLinear {
    /// A layer to be trained.
    pub fn new(
        in_features: usize,
        out_features: usize,
        bias: bool,
        init: Init,
        config: QuantConfig,
        random: &mut Random,
    ) -> Result<BitLinear, LayerError> {
        let count = matrix_size(out_features, in_features)?;
        let (weight_bound, bias_bound) = init.bounds(in_features, out_features);
        let mut uniform = |count, bound| (0..count).map(|_| random.uniform(bound)).collect();
        let weight = uniform(count, weight_bound);
        let bias = bias.then(|| uniform(out_features, bias_bound));
        BitLinear::from_weights(in_features, out_features, weight, bias, config)
    }

    /// A layer of weights `[out, in]` that are known.
    pub fn from_weights(
        in_features: usize,
        out_features: usize,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        config: QuantConfig,
    ) -> Result<BitLinear, LayerError> {
        let count = matrix_size(out_features, in_features)?;
        same_length("the weight", weight.len(), count)?;
        if let Some(bias) = &bias {
            same_length("the bias", bias.len(), out_features)?;
        }
        Ok(BitLinear {
            in_features,
            out_features,
            weight,
            bias,
            config,
        })
    }

    /// A forward pass in training, for inputs `[.., in]` of any leading shape: both sides are quantized, and what their codes
    /// stand for is multiplied in floats.
    pub fn train(&self, x: &[f32]) -> Result<Pass, LayerError> {
        let (in_features, out_features) = (self.in_features, self.out_features);
        let granularity = self.config.activation_granularity;
        let x = Activations::quantize(x, in_features, granularity, &Pool::alone())?;
        let tokens = x.tokens();
        let mut input = Vec::with_capacity(tokens * in_features);
        for (token, scale) in x.scales().iter().enumerate() {
            let codes = x.codes(token).into_iter();
            input.extend(codes.map(|code| f32::from(code) / scale));
        }
        let weight = self.quantized_weight()?;
        let by_input = transposed(&weight, in_features);
        let factor = |token: usize, k: usize| input[token * in_features + k];
        let mut output = sums_of_rows(tokens, in_features, out_features, factor, &by_input);
        if let Some(bias) = &self.bias {
            for output in output.chunks_exact_mut(out_features) {
                output.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        Ok(Pass {
            output,
            input,
            weight,
            in_features,
            out_features,
            has_bias: self.bias.is_some(),
        })
    }

    /// What the codes of the weights stand for, `[out, in]`.
    pub fn quantized_weight(&self) -> Result<Vec<f32>, LayerError> {
        let ternary = self.ternary()?;
        let mut numbers = vec![0.0; self.weight.len()];
        let rows = numbers.par_chunks_exact_mut(self.in_features).enumerate();
        rows.for_each_init(
            || vec![0i8; self.in_features],
            |codes, (row, numbers)| {
                ternary.codes(row, codes);
                let scales = ternary.row_scales(row);
                let group = self.config.weight_granularity.group_cols(self.in_features);
                let groups = numbers.chunks_mut(group).zip(codes.chunks(group));
                for ((numbers, codes), scale) in groups.zip(scales) {
                    let one = Dequantization::Online.one(*scale);
                    for (number, code) in numbers.iter_mut().zip(codes) {
                        *number = f32::from(*code) * one;
                    }
                }
            },
        );
        Ok(numbers)
    }

    /// The layer for evaluation: weights are quantized once.
    pub fn eval(&self, packing: Packing) -> Result<Evaluating<'_>, LayerError> {
        Ok(Evaluating {
            codes: self.packed(packing)?,
            _layer: self,
        })
    }

    /// Quantizes the layer for good: its float weights are given up.
    pub fn deploy(self, packing: Packing) -> Result<PackedBitLinear, LayerError> {
        self.packed(packing)
    }

    fn packed(&self, packing: Packing) -> Result<PackedBitLinear, LayerError> {
        let ternary = self.ternary()?;
        let group = self.config.weight_granularity.group_cols(self.in_features);
        let starts = (0..self.in_features).step_by(group);
        let shapes: Vec<(usize, usize)> = starts
            .map(|from| (self.out_features, group.min(self.in_features - from)))
            .collect();
        let groups = Packed::pack_all(
            &MemoryPool::new(PoolConfig::small()),
            packing,
            &shapes,
            |group, row, out| {
                ternary.group_codes(row, group, out);
            },
        )?;
        PackedBitLinear::from_parts(
            groups,
            Dequantization::Online,
            ternary.scales(),
            self.bias.clone(),
            self.config.activation_granularity,
        )
    }

    fn ternary(&self) -> Result<Ternary<'_>, LayerError> {
        Ternary::of(
            &self.weight,
            self.out_features,
            self.in_features,
            self.config.weight_granularity,
        )
    }

    /// The shape of the output for an input's.
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>, LayerError> {
        output_shape(input, self.in_features, self.out_features)
    }

    /// How many features come in.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// How many features go out.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// How it quantizes.
    pub fn config(&self) -> QuantConfig {
        self.config
    }

    /// The float weights, `[out, in]`.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// The float weights, for an optimizer.
    pub fn weight_mut(&mut self) -> &mut [f32] {
        &mut self.weight
    }

    /// The bias, one number an output.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The bias, for an optimizer.
    pub fn bias_mut(&mut self) -> Option<&mut [f32]> {
        self.bias.as_deref_mut()
    }

    /// Bytes of the float layer: weights and bias.
    pub fn bytes(&self) -> u64 {
        let numbers = self.weight.len() + self.bias().map_or(0, <[f32]>::len);
        (numbers * size_of::<f32>()) as u64
    }
}

impl Pass {
    /// The way back: how the loss changes with the layer's input, weights and bias, given how it changes with the output.
    ///
    /// Rounding has no slope, so both quantizers are taken for the identity ("straight through", nothing is masked where they
    /// clamp): the input's gradient goes through the quantized weights, that of the weights through the quantized input, and
    /// both are handed to the float numbers as they are.
    pub fn backward(&self, output: &[f32]) -> Result<Gradients, LayerError> {
        let (in_features, out_features) = (self.in_features, self.out_features);
        same_length(
            "the gradient of the output",
            output.len(),
            self.output.len(),
        )?;
        let tokens = output.len() / out_features;
        let of = |token: usize, row: usize| output[token * out_features + row];
        let input = sums_of_rows(tokens, out_features, in_features, of, &self.weight);
        let by_row = |row, token| of(token, row);
        let weight = sums_of_rows(out_features, tokens, in_features, by_row, &self.input);
        let bias = self
            .has_bias
            .then(|| sums_of_rows(1, tokens, out_features, |_, _| 1.0, output));
        Ok(Gradients {
            input,
            weight,
            bias,
        })
    }
}
