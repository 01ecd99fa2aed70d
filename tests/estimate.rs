//! The second derivation of costs: its own numbers worked out by hand, and the database's for everything that both know.

mod common;

use bitcost::analysis;
use bitcost::bops::{Bops, BopsKey};
use bitcost::cost::blocks::{self, *};
use bitcost::cost::{
    Bias, BitCostRegister, Chain, Conventions, Convolution, Element, Operand, Precision, Share,
    Totals, Widths,
};
use bitcost::db::Db;
use bitcost::model::Workload;
use bitcost::value::{Name, Value};
use common::{at, int, json, list, run, stdout};
use proptest::prelude::*;

// ---- the original's example -----------------------------------------------------------------------------------------

/// A chain on an input under the original's conventions, with a precision.
#[track_caller]
fn counted(input: &[u64], chain: &[&str], precision: &str) -> BitCostRegister {
    let conventions = Conventions {
        precision: Precision::parse(precision).unwrap(),
        ..Conventions::default()
    };
    let input = Operand::new(input, 32).unwrap();
    Chain::parse(chain)
        .unwrap()
        .count(input, conventions)
        .unwrap()
}

fn whole(bops: Bops) -> u128 {
    match bops {
        Bops::Whole(n) => n,
        other => panic!("{other} is not whole"),
    }
}

/// Totals of the scope of a path.
#[track_caller]
fn scope(register: &BitCostRegister, path: &str) -> Totals {
    let found = register.scopes().iter().find(|scope| scope.path == path);
    found.unwrap_or_else(|| panic!("no scope {path}")).totals
}

#[test]
fn the_example_is_what_the_original_counts() {
    let chain = [
        "mlp(hiddens=[64,64], act=relu)",
        "transformer(model_dim=32, heads=4)",
    ];
    let register = counted(&[128, 32], &chain, "dense");
    let mlp = scope(&register, "mlp");
    // 128 * (32 * 64 + 64 * 64 + 64 * 32) MACs of 32 * 32 + 2 * 32 bit operations; relu is free, biases are not added.
    assert_eq!(whole(mlp.bops), 128 * 8192 * 1088);
    assert_eq!(whole(mlp.bops), 1_140_850_688);
    // Weights and biases of 32 bits.
    assert_eq!(mlp.storage_bits, 32 * (8192 + 64 + 64 + 32));
    assert_eq!(mlp.storage_bits, 267_264);

    let block = scope(&register, "transformer");
    // Heads are ceil(32 / 4 * 2) = 16 deep: Q, K, V of 32 x 64, the output of 64 x 32, an MLP over 40.
    let linear = 128 * (4 * 32 * 64 + 2 * 32 * 40) * 1088;
    // Scores and values: 4 heads of 128 x 128 x 16 each.
    let products = 2 * 4 * 128 * 128 * 16 * 1088;
    let scores = 4 * 128 * 128 * (1024 + 6400);
    let residuals = 2 * 128 * 32 * 64;
    let norms = 2 * (128 * 32 * 5440 + 32 * 1024);
    assert_eq!(
        whole(block.bops),
        linear + products + scores + residuals + norms
    );
    assert_eq!(whole(block.bops), 4_310_761_472);
    assert_eq!(
        block.storage_bits,
        32 * (4 * 32 * 64 + 3 * 64 + 32 + 2 * 32 * 40 + 40 + 32) + 2 * 2 * 32 * 32
    );
    assert_eq!(block.storage_bits, 357_632);

    assert_eq!(whole(register.totals().bops), 5_451_612_160);
    assert_eq!(register.totals().storage_bits, 624_896);
}

#[test]
fn an_element_costs_what_the_original_counts() {
    let each = |element: Element| whole(element.bops(Widths::of(32)));
    assert_eq!(each(Element::Add), 64);
    assert_eq!(each(Element::Mul), 1024);
    assert_eq!(each(Element::Exp), 5 * 1024 + 6 * 32);
    assert_eq!(each(Element::Exp), 5312);
    assert_eq!(each(Element::Sigmoid), 6400);
    assert_eq!(each(Element::Tanh), 11_776);
    assert_eq!(each(Element::Softmax), 6400);
    assert_eq!(each(Element::LayerNorm), 5440);
    assert_eq!(Element::LayerNorm.bops_of_feature(Widths::of(32)), 1024);
    assert_eq!(each(Element::RmsNorm), 3136);
    assert_eq!(Element::RmsNorm.bops_of_feature(Widths::of(32)), 2 * 1024);
    assert_eq!(each(Element::Pow(2)), 1024);
    assert_eq!(each(Element::Pow(3)), 2048);
    assert_eq!(each(Element::Root(2)), 1024);
    assert_eq!(each(Element::Relu), 0);
    // log2 3 halvings are no whole number.
    let cube = Element::Root(3).bops(Widths::of(32)).to_f64();
    assert!((cube - 1024.0 * 3f64.log2()).abs() < 1e-9, "{cube}");
}

#[test]
fn a_mac_costs_what_its_precision_says() {
    // One token of 32 features onto 8: 256 MACs; quantized ones take 32 * 32 for each input and each output beside them.
    let of = |precision| counted(&[1, 32], &["linear(outputs=8)"], precision);
    let scales = (32 + 8) * 1024;
    for (precision, each, beside) in [
        ("dense", 1088, 0),
        ("dense_16", 16 * 32 + 64, 0),
        ("quantize", 128, scales),
        ("quantize_4", 16 + 64, scales),
        ("quantize_2_8", 80, scales),
        ("ternary", 80, scales),
        ("ternary_4", 8 + 64, scales),
    ] {
        let bops = whole(of(precision).totals().bops);
        assert_eq!(bops, 256 * each + beside, "{precision}");
    }
    // Half of the weights left: 128 MACs of 1 x 32, and a scale for each output.
    assert_eq!(whole(of("SB_0.5").totals().bops), 128 * 96 + 8 * 1024);
    // Nine tenths of 256 MACs are 230.4.
    assert_eq!(
        of("SB_0.1").totals().bops,
        Bops::Ratio((2304 * 96 + 8 * 10_240) / 2, 5)
    );
}

#[test]
fn storage_is_weights_masks_biases_and_scales() {
    let of = |precision| {
        counted(&[1, 32], &["linear(outputs=8)"], precision)
            .totals()
            .storage_bits
    };
    let bias = 8 * 32;
    assert_eq!(of("dense"), 32 * 256 + bias);
    assert_eq!(of("quantize"), 8 * 256 + bias + 2 * 32);
    assert_eq!(of("quantize_2_8"), 2 * 256 + bias + 2 * 32);
    assert_eq!(of("SB_0.5"), 256 + 256 + bias + 32);
    assert_eq!(of("ternary"), 2 * 256 + bias + 32);
}

// ---- worked examples, line by line ----------------------------------------------------------------------------------

/// `b b` of one product or root, `2 b` of one sum, a MAC, all at 32 bits.
const MUL: u128 = 1024;
const ADD: u128 = 64;
const MAC: u128 = 1088;

#[test]
fn an_lstm_of_3_steps_is_worked_out_line_by_line() {
    // 3 positions of 5 features, a state of 4.
    let register = counted(&[3, 5], &["lstm(hidden=4)"], "dense");
    let gates = 4 * (5 + 4) * 4 * MAC;
    let sigmoids = 3 * 4 * 6400;
    let tanhs = 2 * 4 * 11_776;
    // forget * cell, input * candidate, output * tanh(cell); their sum.
    let cell = 3 * 4 * MUL + 4 * ADD;
    let norm = 4 * 5440 + 4 * 1024;
    let step = gates + sigmoids + tanhs + cell + norm;
    assert_eq!(whole(register.totals().bops), 3 * step);
    assert_eq!(whole(register.totals().bops), 1_098_240);
    // The layers are stored once, however many steps there are: four of 9 x 4 with biases, a norm of two vectors.
    assert_eq!(
        register.totals().storage_bits,
        32 * (4 * (9 * 4 + 4) + 2 * 4)
    );
    assert_eq!(register.totals().storage_bits, 5376);
}

/// A state space layer on L positions of d features with a state of s, from the original's composition.
fn state_space(l: u128, d: u128, s: u128) -> (u128, u128) {
    let projections = l * (3 * d * s + 2 * d * d) * MAC;
    let step = l * d * 6400;
    // B * delta, times the input, delta * A: each on every feature and state.
    let discretized = 3 * l * d * s * MUL;
    let scan = l * d * s * (MUL + ADD);
    let product = l * d * s * MAC;
    let skip = l * d * ADD;
    let bits = 32 * (3 * (d * s + s) + 2 * (d * d + d));
    (
        projections + step + discretized + scan + product + skip,
        bits,
    )
}

#[test]
fn an_ssm_of_3_steps_is_worked_out_line_by_line() {
    let register = counted(&[3, 5], &["ssm(state=4)"], "dense");
    assert_eq!(
        (
            whole(register.totals().bops),
            register.totals().storage_bits
        ),
        state_space(3, 5, 4)
    );
    assert_eq!(state_space(3, 5, 4), (770_880, 4224));
}

#[test]
fn a_mamba_block_of_3_steps_is_worked_out_line_by_line() {
    // 3 positions of 5 features, 10 inside, 2 taps.
    let chain = ["mamba(expand=2, patch=2, state=4, act=sigmoid)"];
    let register = counted(&[3, 5], &chain, "dense");
    let (ssm, ssm_bits) = state_space(3, 10, 4);
    let input_and_gate = 2 * 3 * 5 * 10 * MAC;
    let convolution = 3 * 10 * 2 * 10 * MAC;
    let activations = 2 * 3 * 10 * 6400;
    let inner_norm = 3 * 10 * 3136 + 10 * 2048;
    let gating = 3 * 10 * MUL;
    let output = 3 * 10 * 5 * MAC;
    let residual = 3 * 5 * ADD;
    let outer_norm = 3 * 5 * 3136 + 5 * 2048;
    let all = ssm
        + input_and_gate
        + convolution
        + activations
        + inner_norm
        + gating
        + output
        + residual
        + outer_norm;
    assert_eq!(whole(register.totals().bops), all);
    assert_eq!(all, 3_598_080);
    let bits = ssm_bits + 32 * (2 * (5 * 10 + 10) + (10 * 2 * 10 + 10) + (10 * 5 + 5) + 10 + 5);
    assert_eq!(register.totals().storage_bits, bits);
}

#[test]
fn psqs_of_linear_layers_is_the_published_4_652_832() {
    // MACs 1024, 2048, 1024 and 160, each of 32 * 32 + 32 + 32 + log2 of its inputs: 4, 6, 5 and 5.
    let conventions = Conventions {
        bops: BopsKey::Psqs,
        ..Conventions::default()
    };
    let chain = Chain::parse(&["mlp(hiddens=[64,32,32], outputs=5)"]).unwrap();
    let register = chain
        .count(Operand::new(&[1, 16], 32).unwrap(), conventions)
        .unwrap();
    let bops = register.totals().bops;
    assert_eq!(bops, Bops::Real(4_652_832.0));
}
