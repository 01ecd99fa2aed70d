//! The second derivation of costs: its own numbers worked out by hand, and the database's for everything that both know.

mod common;

use bitcost::analysis;
use bitcost::bops::{Bops, BopsKey};
use bitcost::cost::blocks::{self, *};
use bitcost::cost::{
    Bias, BitCostRegister, Chain, Conventions, Convolution, Element, Operand, Precision, Totals,
    Widths, Window,
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
    let found = register.scopes().iter().find(|scope| &*scope.path == path);
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
fn ids_are_unique_whatever_things_are_called() {
    let mut register = BitCostRegister::new(Conventions::default());
    for (name, id) in [
        ("a_2", "a_2"),
        ("a", "a"),
        ("a", "a_3"),
        ("a", "a_4"),
        ("a_2", "a_2_2"),
    ] {
        let layer = register.insert_linear(name, 1, 1, true).unwrap();
        assert_eq!(&*register.layers()[layer].id, id);
    }
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

// ---- agreement with the database ------------------------------------------------------------------------------------

/// Widths of weights and activations under which both derivations count.
#[derive(Clone, Copy, Debug)]
struct Bits {
    weight: u32,
    activation: u32,
}

fn bits() -> impl Strategy<Value = Bits> {
    (1u32..=64, 1u32..=64).prop_map(|(weight, activation)| Bits { weight, activation })
}

/// What is compared: parameters, MACs, FLOPs, BOPs by product.
type Counts = (u128, u128, u128, u128);

/// What the database says about a class.
fn told(db: &Db, class: &str, arguments: &[(&str, Value)], bits: Bits, causal: bool) -> Counts {
    let mut workload = Workload {
        causal,
        ..Workload::default()
    };
    workload.widths.dtype = bits.activation;
    workload.widths.weight = Some(bits.weight);
    workload.widths.activation = Some(bits.activation);
    workload.widths.kv = bits.activation;
    let arguments: Vec<(Name, Value)> = arguments
        .iter()
        .map(|(name, value)| (Name::new(name), value.clone()))
        .collect();
    let cost = analysis::evaluate(db, class, &arguments, &workload)
        .unwrap_or_else(|e| panic!("{class} {arguments:?}: {e}"));
    let known = |n: Option<u128>| n.expect("the entry has rows");
    (
        known(cost.params),
        known(cost.macs),
        known(cost.flops),
        known(cost.bops),
    )
}

/// What a composition of primitives says, biases added, weights and accumulators as wide as the database has them.
fn composed(
    input: &[u64],
    bits: Bits,
    run: impl FnOnce(Operand, &mut BitCostRegister) -> Result<Operand, bitcost::cost::CostError>,
) -> Counts {
    let mut register = BitCostRegister::new(Conventions {
        bops: BopsKey::Product,
        bias: Bias::Added,
        precision: Precision::Dense {
            weight: bits.weight,
        },
        accumulator_bits: bits.activation,
    });
    let input = Operand::new(input, bits.activation).unwrap();
    run(input, &mut register).unwrap();
    let totals = register.totals();
    (totals.params, totals.macs, totals.flops, whole(totals.bops))
}

/// Holds a claim over 64 values of a strategy, with one database for all.
#[track_caller]
fn hold<S: Strategy>(strategy: S, claim: impl Fn(&Db, S::Value)) {
    let db = Db::embedded().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let held = runner.run(&strategy, |value| {
        claim(&db, value);
        Ok(())
    });
    if let Err(e) = held {
        panic!("{e}");
    }
}

fn n(n: u64) -> Value {
    Value::Int(n.into())
}

#[test]
fn linear_layers_agree() {
    let sizes = (1u64..500, 1u64..500, 1u64..500);
    hold(
        (sizes, any::<bool>(), bits()),
        |db, ((rows, inputs, outputs), bias, bits)| {
            let arguments = [
                ("N", n(rows)),
                ("in_features", n(inputs)),
                ("out_features", n(outputs)),
                ("bias", Value::Bool(bias)),
            ];
            assert_eq!(
                composed(&[rows, inputs], bits, |x, r| r
                    .linear("l", x, outputs, bias)),
                told(db, "torch.nn.Linear", &arguments, bits, false)
            );
        },
    );
}

/// A convolution that fits its input, with the arguments of torch.
fn convolutions() -> impl Strategy<Value = (Convolution, u64, u64)> {
    let channels = (1u64..5, 1u64..6, 1u64..6);
    let window = (1u64..6, 1u64..4, 0u64..4, 1u64..3, any::<bool>());
    (channels, window).prop_map(
        |((groups, inputs, outputs), (kernel, stride, padding, dilation, biased))| {
            let how = Convolution {
                outputs: groups * outputs,
                kernel,
                stride,
                padding: Some(padding),
                dilation,
                groups,
                biased,
            };
            (how, groups * inputs, dilation * (kernel - 1) + 1)
        },
    )
}

fn of_convolution(how: Convolution, inputs: u64) -> Vec<(&'static str, Value)> {
    vec![
        ("in_channels", n(inputs)),
        ("out_channels", n(how.outputs)),
        ("kernel_size", n(how.kernel)),
        ("stride", n(how.stride)),
        ("padding", n(how.padding.unwrap())),
        ("dilation", n(how.dilation)),
        ("groups", n(how.groups)),
        ("bias", Value::Bool(how.biased)),
    ]
}

#[test]
fn convolutions_of_sequences_agree() {
    let sizes = (1u64..4, 0u64..40);
    hold(
        (convolutions(), sizes, bits()),
        |db, ((how, inputs, reach), (batch, more), bits)| {
            let length = reach + more;
            let mut arguments = of_convolution(how, inputs);
            arguments.extend([("B", n(batch)), ("S", n(length))]);
            assert_eq!(
                composed(&[batch, length, inputs], bits, |x, r| r.conv1d("c", x, how)),
                told(db, "torch.nn.Conv1d", &arguments, bits, false)
            );
        },
    );
}

#[test]
fn convolutions_of_images_agree() {
    let sizes = (1u64..4, 0u64..20, 0u64..20);
    hold(
        (convolutions(), sizes, bits()),
        |db, ((how, inputs, reach), (batch, h, w), bits)| {
            let (h, w) = (reach + h, reach + w);
            let mut arguments = of_convolution(how, inputs);
            arguments.extend([("B", n(batch)), ("H", n(h)), ("W", n(w))]);
            assert_eq!(
                composed(&[batch, inputs, h, w], bits, |x, r| r.conv2d("c", x, how)),
                told(db, "torch.nn.Conv2d", &arguments, bits, false)
            );
        },
    );
}

#[test]
fn norms_agree() {
    hold(
        (1u64..200, 1u64..200, 1u64..30, bits()),
        |db, (rows, dim, side, bits)| {
            let arguments = [("N", n(rows)), ("dim", n(dim))];
            assert_eq!(
                composed(&[rows, dim], bits, |x, r| r.layer_norm("n", x)),
                told(db, "torch.nn.LayerNorm", &arguments, bits, false)
            );
            assert_eq!(
                composed(&[rows, dim], bits, |x, r| r.rms_norm("n", x)),
                told(db, "LlamaRMSNorm", &arguments, bits, false)
            );
            let elements = n(rows * dim * side * side);
            assert_eq!(
                composed(&[rows, dim, side, side], bits, |x, r| r.batch_norm("n", x)),
                told(
                    db,
                    "torch.nn.BatchNorm2d",
                    &[("dim", n(dim)), ("elements", elements)],
                    bits,
                    false
                )
            );
        },
    );
}

#[test]
fn activations_pooling_and_lookups_agree() {
    let classes = [
        ("torch.nn.ReLU", Element::Relu),
        ("torch.nn.SiLU", Element::Silu),
        ("torch.nn.GELU", Element::Gelu),
        ("torch.nn.Tanh", Element::Tanh),
        ("torch.nn.Sigmoid", Element::Sigmoid),
    ];
    hold(
        (1u64..50, 1u64..50, 4u64..30, bits()),
        |db, (batch, channels, side, bits)| {
            let elements = batch * channels * side * side;
            let image = [batch, channels, side, side];
            for (class, element) in classes {
                assert_eq!(
                    composed(&image, bits, |x, r| r.pointwise(element, x)),
                    told(db, class, &[("elements", n(elements))], bits, false),
                    "{class}"
                );
            }
            let sizes = [
                ("B", n(batch)),
                ("C", n(channels)),
                ("H", n(side)),
                ("W", n(side)),
            ];
            assert_eq!(
                composed(&image, bits, |x, r| r.pool(Element::AvgPool, x, None)),
                told(db, "torch.nn.AdaptiveAvgPool2d", &sizes, bits, false)
            );
            let window = Window {
                kernel: 3,
                stride: 2,
                padding: 1,
            };
            let windows = [("kernel_size", n(3)), ("stride", n(2)), ("padding", n(1))];
            assert_eq!(
                composed(&image, bits, |x, r| r.pool(
                    Element::MaxPool,
                    x,
                    Some(window)
                )),
                told(
                    db,
                    "torch.nn.MaxPool2d",
                    &[&sizes[..], &windows].concat(),
                    bits,
                    false
                )
            );
            let table = [
                ("N", n(batch)),
                ("num_embeddings", n(channels)),
                ("embedding_dim", n(side)),
            ];
            assert_eq!(
                composed(&[batch], bits, |x, r| r.lookup("table", x, channels, side)),
                told(db, "torch.nn.Embedding", &table, bits, false)
            );
        },
    );
}

/// Batch, positions, key-value heads, queries to each, depth of a head.
fn attentions() -> impl Strategy<Value = (u64, u64, u64, u64, u64)> {
    (1u64..4, 1u64..40, 1u64..5, 1u64..4, 1u64..17)
}

/// Arguments of the database's decoder like Llama's.
fn of_decoder(
    (batch, positions, keys, groups, depth): (u64, u64, u64, u64, u64),
    (features, hidden, past): (u64, u64, u64),
    (qkv_bias, mlp_bias): (bool, bool),
) -> Vec<(&'static str, Value)> {
    vec![
        ("B", n(batch)),
        ("S", n(positions)),
        ("past", n(past)),
        ("hidden_size", n(features)),
        ("num_attention_heads", n(keys * groups)),
        ("num_key_value_heads", n(keys)),
        ("head_dim", n(depth)),
        ("qkv_bias", Value::Bool(qkv_bias)),
        ("o_bias", Value::Bool(qkv_bias)),
        ("window", Value::None),
        ("sliding_window", Value::None),
        ("layer_types", Value::None),
        ("intermediate_size", n(hidden)),
        ("mlp_bias", Value::Bool(mlp_bias)),
        ("hidden_act", Value::str("silu")),
    ]
}

#[test]
fn decoders_their_attention_and_their_mlp_agree() {
    let sizes = (1u64..60, 1u64..80, 0u64..30);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    hold(
        (attentions(), sizes, flags, bits()),
        |db, (shape, (features, hidden, past), (attention_bias, mlp_bias, causal), bits)| {
            let (batch, positions, keys, groups, depth) = shape;
            let arguments = of_decoder(shape, (features, hidden, past), (attention_bias, mlp_bias));
            let input = [batch, positions, features];
            let own = Attention {
                heads: keys * groups,
                kv_heads: Some(keys),
                head_dim: Some(depth),
                past,
                causal,
                rope: true,
                biased: attention_bias,
            };
            assert_eq!(
                composed(&input, bits, |x, r| blocks::attention(x, &own, r)),
                told(db, "LlamaAttention", &arguments, bits, causal)
            );
            let mlp = GatedMlp {
                hidden: Some(hidden),
                act: Element::Silu,
                biased: mlp_bias,
            };
            assert_eq!(
                composed(&input, bits, |x, r| blocks::gated_mlp(x, &mlp, r)),
                told(db, "LlamaMLP", &arguments, bits, causal)
            );
            let decoder = Decoder {
                attention: own,
                mlp,
                ..Decoder::default()
            };
            assert_eq!(
                composed(&input, bits, |x, r| blocks::decoder(x, &decoder, r)),
                told(db, "LlamaDecoderLayer", &arguments, bits, causal)
            );
        },
    );
}

#[test]
fn encoder_blocks_agree_at_the_usual_depth_of_heads_only() {
    hold(
        ((1u64..4, 1u64..40, 1u64..6, 1u64..10, 1u64..80), bits()),
        |db, (shape, bits)| {
            let (batch, positions, heads, depth, hidden) = shape;
            let features = heads * depth;
            let arguments = [
                ("B", n(batch)),
                ("S", n(positions)),
                ("hidden_size", n(features)),
                ("num_attention_heads", n(heads)),
                ("intermediate_size", n(hidden)),
                ("hidden_act", Value::str("gelu")),
            ];
            let of = |multiplier: u64| {
                let block = Transformer {
                    model_dim: Some(features),
                    heads,
                    depth_multiplier: n(multiplier),
                    mlp: Mlp {
                        hiddens: vec![hidden],
                        outputs: None,
                        act: Element::Gelu,
                    },
                };
                composed(&[batch, positions, features], bits, |x, r| {
                    blocks::transformer(x, &block, r)
                })
            };
            let database = told(db, "BertLayer", &arguments, bits, false);
            assert_eq!(of(1), database);
            // The original's heads, twice as deep, are another block.
            assert_ne!(of(2), database);
        },
    );
}

#[test]
fn selective_mixers_agree() {
    let sizes = (1u64..3, 1u64..20, 1u64..20, 1u64..24);
    let inside = (1u64..9, 1u64..6, 1u64..6, any::<bool>(), any::<bool>());
    hold(
        (sizes, inside, bits()),
        |db, ((batch, positions, features, inner), inside, bits)| {
            let (state, kernel, rank, conv_bias, projection_bias) = inside;
            let arguments = [
                ("B", n(batch)),
                ("S", n(positions)),
                ("past", n(0)),
                ("hidden_size", n(features)),
                ("inner", n(inner)),
                ("state_size", n(state)),
                ("conv_kernel", n(kernel)),
                ("dt_rank", n(rank)),
                ("use_conv_bias", Value::Bool(conv_bias)),
                ("use_bias", Value::Bool(projection_bias)),
                ("hidden_act", Value::str("silu")),
            ];
            let mixer = Selective {
                inner: Some(inner),
                state,
                kernel,
                rank: Some(rank),
                act: Element::Silu,
                biased: (conv_bias, projection_bias),
            };
            assert_eq!(
                composed(&[batch, positions, features], bits, |x, r| {
                    blocks::selective(x, &mixer, r)
                }),
                told(db, "MambaMixer", &arguments, bits, false)
            );
        },
    );
}

// ---- the command line -----------------------------------------------------------------------------------------------

const EXAMPLE: [&str; 5] = [
    "estimate",
    "--input",
    "128x32",
    "mlp(hiddens=[64,64], act=relu)",
    "transformer(model_dim=32, heads=4)",
];

#[test]
fn the_example_prints_its_totals_with_units() {
    let out = stdout(&EXAMPLE);
    assert!(out.contains("5.45161216 GBOPs (5,451,612,160)"), "{out}");
    assert!(out.contains("0.624896 Mb (78,112 bytes)"), "{out}");
    assert!(
        out.contains("biases stored, their sums not counted"),
        "{out}"
    );
    let value = json(&[&EXAMPLE[..], &["--format", "json"]].concat());
    assert_eq!(at(&value, "schema"), Value::str("bitcost.estimate/1"));
    assert_eq!(int(&value, "totals.bops"), 5_451_612_160);
    assert_eq!(int(&value, "totals.storage_bits"), 624_896);
    assert_eq!(at(&value, "bops_key"), Value::str("accum"));
    assert_eq!(int(&value, "scopes.0.bops"), 1_140_850_688);
    assert_eq!(at(&value, "layers.1.id"), Value::str("mlp.layer_2"));
}

#[test]
fn operations_layers_and_scopes_add_up_to_the_totals() {
    let chain = "mlp; lstm(hidden=8); ssm(state=4); mamba; decoder(heads=2); gru(hidden=6); selective; conv1d(outputs=4)";
    for (precision, bops) in [
        ("quantize_4_8", "accum"),
        ("ternary", "product"),
        ("dense", "density"),
    ] {
        let value = json(&[
            "estimate",
            "--input",
            "2x7x16",
            chain,
            "--precision",
            precision,
            "--bops",
            bops,
            "--format",
            "json",
        ]);
        for key in ["macs", "elementwise", "flops", "bops"] {
            let sum: i128 = list(&value, "operations").iter().map(|o| int(o, key)).sum();
            assert_eq!(sum, int(&value, &format!("totals.{key}")), "{key}");
        }
        for key in ["storage_bits", "params", "macs"] {
            let layers: i128 = list(&value, "layers").iter().map(|l| int(l, key)).sum();
            let total = int(&value, &format!("totals.{key}"));
            // Products of activations belong to no layer.
            assert!(
                if key == "macs" {
                    layers < total
                } else {
                    layers == total
                },
                "{key}"
            );
        }
        let ids: Vec<Value> = list(&value, "layers").iter().map(|l| at(l, "id")).collect();
        let unique: std::collections::BTreeSet<String> =
            ids.iter().map(|id| id.to_string()).collect();
        assert_eq!(ids.len(), unique.len());
    }
}

#[test]
fn text_and_json_say_the_same_chain() {
    let folder = common::Folder::new();
    let file = folder.write(
        "chain.json",
        r#"{"input": [128, 32], "precision": "quantize_2_8", "bops": "accum",
            "blocks": [{"block": "mlp", "hiddens": [64, 64], "act": "relu"},
                       {"block": "transformer", "heads": 4, "precision": "SB_0.5", "repeat": 2},
                       "relu; linear(outputs=5, bias=none)"]}"#,
    );
    let text = [
        "estimate",
        "--input",
        "128x32",
        "--precision",
        "quantize_2_8",
        "mlp( hiddens = [64, 64,], act=relu ) ; transformer(heads=4, precision=SB_0.5)*2;",
        "relu",
        "linear(outputs=5, bias=none)",
        "--format",
        "json",
    ];
    let of_file = ["estimate", "--file", &file, "--format", "json"];
    assert_eq!(stdout(&text), stdout(&of_file));
    // The command line says more than the file.
    let other = [
        &of_file[..],
        &[
            "--precision",
            "dense",
            "--bops",
            "product",
            "--input",
            "64x32",
        ],
    ]
    .concat();
    let value = json(&other);
    assert_eq!(at(&value, "precision"), Value::str("dense"));
    assert_eq!(int(&value, "input.shape.0"), 64);
}

#[test]
fn precisions_stand_side_by_side_and_a_blocks_own_stays() {
    let list = "dense,quantize_8,quantize_4_8,ternary,SB_0.5";
    let chain = [
        "estimate",
        "--input",
        "4x32",
        "linear(outputs=8); linear(outputs=2, precision=dense)",
    ];
    let value = json(
        &[
            &chain[..],
            &["--compare-precision", list, "--format", "json"],
        ]
        .concat(),
    );
    assert_eq!(
        at(&value, "schema"),
        Value::str("bitcost.estimate-precisions/1")
    );
    for (i, precision) in list.split(',').enumerate() {
        let alone = json(&[&chain[..], &["--precision", precision, "--format", "json"]].concat());
        assert_eq!(
            at(&value, &format!("precisions.{i}.totals")),
            at(&alone, "totals")
        );
        assert_eq!(
            at(&value, &format!("precisions.{i}.layers.1.precision")),
            Value::str("dense")
        );
    }
    let table = stdout(&[&chain[..], &["--compare-precision", list]].concat());
    let heading = table.lines().nth(2).unwrap();
    let columns: Vec<&str> = heading.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "BOPs",
            "dense",
            "quantize_8_8",
            "quantize_4_8",
            "ternary",
            "SB_0.5"
        ]
    );
}

#[test]
fn csv_and_markdown_hold_the_same_operations() {
    let csv = stdout(&[&EXAMPLE[..], &["--format", "csv"]].concat());
    let operations = list(
        &json(&[&EXAMPLE[..], &["--format", "json"]].concat()),
        "operations",
    );
    assert_eq!(csv.lines().count(), 1 + operations.len());
    let bops: u128 = csv
        .lines()
        .skip(1)
        .map(|line| line.rsplit(',').next().unwrap().parse::<u128>().unwrap())
        .sum();
    assert_eq!(bops, 5_451_612_160);
    let markdown = stdout(&[&EXAMPLE[..], &["--format", "markdown"]].concat());
    assert!(
        markdown.lines().any(|line| line.starts_with("| operation")),
        "{markdown}"
    );
}

#[test]
fn every_block_of_the_list_runs_with_its_defaults() {
    let listed = stdout(&["estimate", "--blocks"]);
    for name in blocks::names() {
        assert!(listed.contains(name), "{name}");
        let required: String = bitcost::cost::options(name)
            .iter()
            .filter(|option| option.default.is_empty())
            .map(|option| format!("{}=8,", option.name))
            .collect();
        let chain = format!("{name}({required})");
        let image = matches!(
            name,
            "conv" | "conv2d" | "batch_norm" | "max_pool" | "avg_pool" | "global_pool"
        );
        let input = if image { "3x8x8" } else { "8x16" };
        let ran = run(&["estimate", "--input", input, &chain]);
        assert_eq!(ran.code, Some(0), "{chain}: {}", ran.err);
    }
}

#[test]
fn the_elementwise_work_is_free_but_under_accum() {
    for (key, free) in [
        ("accum", false),
        ("product", true),
        ("density", true),
        ("uniq", true),
        ("psqs", true),
    ] {
        let value = json(&[
            "estimate", "--input", "4x8", "softmax", "--bops", key, "--format", "json",
        ]);
        assert_eq!(int(&value, "totals.bops") == 0, free, "{key}");
        assert_eq!(int(&value, "totals.elementwise"), 3 * 32);
    }
}

// ---- bad input ------------------------------------------------------------------------------------------------------

#[track_caller]
fn refused(args: &[&str], mentions: &[&str]) {
    let args = [&["estimate", "--input", "128x32"], args].concat();
    common::refused(&run(&args), 2, mentions);
}

#[test]
fn shapes_that_do_not_fit_are_both_shown() {
    refused(
        &["relu", "transformer(model_dim=64)"],
        &["block 2", "transformer", "128x32", "128x64"],
    );
    refused(&["conv2d(outputs=4)"], &["block 1", "128x32", "channels"]);
    let mut register = BitCostRegister::new(Conventions::default());
    let operand = |sides: &[u64]| Operand::new(sides, 32).unwrap();
    let error = register
        .matmul(operand(&[4, 8]), operand(&[9, 5]))
        .unwrap_err();
    assert!(error.to_string().contains("4x8 and 9x5"), "{error}");
    let error = register
        .add(operand(&[4, 8]), operand(&[3, 8]))
        .unwrap_err();
    assert!(error.to_string().contains("4x8 and 3x8"), "{error}");
    let layer = register.insert_linear("l", 8, 2, true).unwrap();
    let error = register.run_linear(layer, operand(&[4, 9])).unwrap_err();
    assert!(error.to_string().contains("4x9 and 8x2"), "{error}");
}

#[test]
fn heads_have_to_divide() {
    refused(&["transformer(heads=5)"], &["block 1", "32", "heads 5"]);
    refused(
        &["mlp", "attention(heads=4, kv_heads=3)"],
        &["block 2", "4", "key-value heads 3"],
    );
}

#[test]
fn an_unknown_name_has_its_place_and_the_nearest_right_one() {
    refused(
        &["mlp; transfomer(heads=4)"],
        &["block 2", "column 6", "`transfomer`", "`transformer`"],
    );
    refused(&["mlp(act=rleu)"], &["block 1", "column 5", "`relu`"]);
    refused(&["mlp(hidens=3)"], &["block 1", "column 5", "`hiddens`"]);
    refused(
        &["mlp(precision=quantise_8)"],
        &["block 1", "column 5", "`quantize`"],
    );
    refused(
        &["mlp", "--precision", "terary"],
        &["`terary`", "`ternary`"],
    );
    refused(&["mlp", "--bops", "acum"], &["`acum`", "`accum`"]);
    refused(&["mlp", "--bops", "live-nnz"], &["bitcost compare"]);
    refused(&["mlp(bias=aded)"], &["block 1", "`added`"]);
}

#[test]
fn widths_are_1_to_64_bits() {
    for width in ["0", "65"] {
        let precision = format!("quantize_{width}");
        refused(&["mlp", "--precision", &precision], &["1 to 64", width]);
        let precision = format!("mlp(precision=quantize_8_{width})");
        refused(&[&precision], &["block 1", "column 5", "1 to 64", width]);
        refused(&["mlp", "--input-bits", width], &[width]);
    }
    for share in ["SB", "SB_1.5", "SB_x", "SB_-1", "SB_0.00000000001"] {
        refused(&["mlp", "--precision", share], &[share]);
    }
}

#[test]
fn a_chain_is_not_empty_and_not_endless() {
    refused(&[], &["the chain is empty"]);
    refused(&[" ; "], &["block 1, column 2", "the name of a block"]);
    refused(&["relu * 0"], &["block 1, column 8"]);
    refused(&["relu * 10001"], &["at most 10000 blocks"]);
    let many = format!("mlp(hiddens=[{}])", vec!["1"; 60_000].join(","));
    refused(&[&many], &["block 1", "column", "at most 4096 items"]);
    // A million do not fit a command line; a file holds them.
    let folder = common::Folder::new();
    let list = vec!["1"; 1_000_000].join(",");
    let file = folder.write(
        "many.json",
        format!(
            r#"{{"input": [4, 4], "blocks": ["relu", {{"block": "mlp", "hiddens": [{list}]}}]}}"#
        ),
    );
    let ran = run(&["estimate", "--file", &file]);
    common::refused(
        &ran,
        3,
        &["block 2", "`hiddens`", "1000000 items", "at most 4096"],
    );
}

#[test]
fn what_is_not_finished_is_shown_with_its_column() {
    refused(&["mlp(hiddens=[64"], &["column 16", "`]`"]);
    refused(&["mlp(hiddens"], &["column 12", "`=`"]);
    refused(&["mlp)"], &["column 4", "`)`"]);
    refused(&["linear"], &["block 1", "`outputs` has to be given"]);
    refused(&["mlp(act=relu, act=relu)"], &["column 15", "twice"]);
    refused(&["mlp(hiddens=[0])"], &["column 5", "1 or more"]);
    refused(&["transformer(heads=-1)"], &["column 13", "whole number"]);
}

#[test]
fn what_does_not_fit_128_bits_is_an_error_with_its_place() {
    let side = u64::MAX.to_string();
    let cube = format!("{side}x{side}x{side}");
    let of = |input: &str, chain: &str| run(&["estimate", "--input", input, chain]);
    common::refused(&of(&cube, "relu"), 2, &["block 1", "`relu`", "128 bits"]);
    let square = format!("{side}x{side}");
    common::refused(
        &of(&square, "linear(outputs=9)"),
        2,
        &["block 1", "`linear`", "128 bits"],
    );
    let wide = format!("relu; mlp(hiddens=[{side}], outputs={side})");
    common::refused(
        &of("9000000000x9000000000", &wide),
        2,
        &["block 2", "mlp.", "128 bits"],
    );
}

#[test]
fn a_file_that_is_no_chain_says_where() {
    let folder = common::Folder::new();
    for (text, mentions) in [
        ("[]", &["`blocks`"][..]),
        ("{", &["line 1"]),
        (r#"{"blocks": []}"#, &["the chain is empty"]),
        (
            r#"{"input": [4, 4], "bloks": []}"#,
            &["`bloks`", "`blocks`"],
        ),
        (r#"{"blocks": [{"blok": "mlp"}]}"#, &["block 1", "`block`"]),
        (
            r#"{"blocks": ["relu", {"block": "mlp", "act": 3}]}"#,
            &["block 2", "`act`"],
        ),
        (
            r#"{"blocks": ["relu", "mlp(act=3)"]}"#,
            &["block 2, column 5", "`act`"],
        ),
        (r#"{"blocks": ["relu"], "input": [4, 0]}"#, &["`input`"]),
        (
            r#"{"blocks": ["relu"], "input": [4], "input_bits": 65}"#,
            &["`input_bits`", "1 to 64"],
        ),
        (
            r#"{"blocks": ["relu"], "precision": "densee"}"#,
            &["`precision`", "`dense`"],
        ),
    ] {
        let file = folder.write("chain.json", text);
        let ran = run(&["estimate", "--file", &file]);
        let file_too = [&["chain.json"], mentions].concat();
        common::refused(&ran, 3, &file_too);
    }
    let missing = folder.file("none.json");
    common::refused(&run(&["estimate", "--file", &missing]), 3, &["none.json"]);
    let unknown = folder.write("chain.json", r#"{"blocks": ["relu"]}"#);
    common::refused(&run(&["estimate", "--file", &unknown]), 2, &["--input"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_the_reader(text in r#"([a-z_]{1,12}|[()=;,*\[\].]|[0-9]{1,22}|mlp\(|act=|\PC| ){0,24}"#) {
        let _ = Chain::parse(&[text]);
    }

    /// Sizes up to the largest there are: a number, or an error with its block.
    #[test]
    fn no_size_panics_a_block(
        sides in proptest::collection::vec(0u32..=64, 1..6),
        sizes in proptest::collection::vec(0u32..=64, 4),
        block in 0usize..BLOCKS.len(),
        precision in prop::sample::select(vec!["dense", "quantize_64", "ternary", "SB_0.3"]),
        key in prop::sample::select(bitcost::cost::KEYS.to_vec()),
    ) {
        let size = |bits: u32| ((1u128 << bits) - 1).max(1) as u64;
        let name = BLOCKS[block].name;
        // Options that are sizes take them in turn; those that are not keep their defaults.
        let options = bitcost::cost::options(name);
        let numeric = |default: &str| default.is_empty() || default.parse::<u64>().is_ok();
        let written: Vec<String> = options
            .iter()
            .filter(|option| numeric(&option.default))
            .zip(sizes.iter().cycle())
            .map(|(option, bits)| format!("{}={}", option.name, size(*bits)))
            .collect();
        let chain = Chain::parse(&[format!("{name}({})", written.join(","))]).unwrap();
        let sides: Vec<u64> = sides.iter().map(|bits| size(*bits)).collect();
        let conventions = Conventions {
            bops: key,
            bias: Bias::Added,
            precision: Precision::parse(precision).unwrap(),
            ..Conventions::default()
        };
        if let Err(error) = chain.count(Operand::new(&sides, 32).unwrap(), conventions) {
            prop_assert!(error.to_string().starts_with("block 1 (`"), "{error}");
        }
    }
}
