//! BitLinear's three lives: training against torch, evaluation against training, deployment against evaluation; and what each
//! refuses.

#[path = "../examples/train_classifier/classifier.rs"]
mod classifier;

use bitcost::bitlinear::{
    BitLinear, Dequantization, Init, LayerError, PackedBitLinear, QuantConfig, Ternary,
};
use bitcost::kernels::{
    Activations, Counts, Granularity, KernelError, Packed, Packing, Pool, available, best,
};
use bitcost::random::Random;
use classifier::{Classifier, Data, Training, logits};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::ops::Deref;

/// Half the distance of neighbouring floats at 1: what one rounding is off by, at most, relatively.
const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;

/// What a sum that went through so many roundings may be off by, where `magnitude` is the sum of its terms' magnitudes
/// (Higham, Accuracy and Stability, lemma 3.1).
fn bound(roundings: usize, magnitude: f64) -> f64 {
    let n = roundings as f64 * ROUNDING;
    n / (1.0 - n) * magnitude
}

fn config(activations: &str, weights: &str) -> QuantConfig {
    QuantConfig::named("int8", activations, weights).expect("names that are known")
}

/// The numbers that stand for the codes of an input.
fn quantized_input(x: &[f32], features: usize, granularity: Granularity) -> Vec<f32> {
    let x = Activations::quantize(x, features, granularity, &Pool::alone()).expect("an input");
    let token = |token: usize| x.codes(token).into_iter().map(move |code| (token, code));
    let codes = (0..x.tokens()).flat_map(token);
    codes
        .map(|(token, code)| f32::from(code) / x.scales()[token])
        .collect()
}

fn kernel(packing: Packing) -> bitcost::kernels::Runnable {
    best(packing, 1)
}

/// Configs of every kind, ragged groups included.
fn configs() -> Vec<QuantConfig> {
    let weights = ["per_tensor", "per_row", "per_group_7", "per_group_16"];
    let all = weights
        .map(|weights| ["per_token", "per_tensor"].map(|activations| config(activations, weights)));
    all.concat()
}

/// A case that torch computed.
struct Case<'f> {
    file: &'f SafeTensors<'f>,
    name: &'f str,
}

impl Case<'_> {
    fn has(&self, tensor: &str) -> bool {
        let name = format!("{}.{tensor}", self.name);
        self.file.tensor(&name).is_ok()
    }

    fn bytes<const N: usize>(&self, tensor: &str) -> Vec<[u8; N]> {
        let name = format!("{}.{tensor}", self.name);
        let tensor = self.file.tensor(&name).expect("a tensor of the case");
        tensor.data().as_chunks::<N>().0.to_vec()
    }

    fn shape(&self, tensor: &str) -> Vec<usize> {
        let name = format!("{}.{tensor}", self.name);
        let tensor = self.file.tensor(&name).expect("a tensor of the case");
        tensor.shape().to_vec()
    }

    fn f32(&self, tensor: &str) -> Vec<f32> {
        let bytes = self.bytes(tensor).into_iter();
        bytes.map(f32::from_le_bytes).collect()
    }

    fn f64(&self, tensor: &str) -> Vec<f64> {
        let bytes = self.bytes(tensor).into_iter();
        bytes.map(f64::from_le_bytes).collect()
    }

    fn i8(&self, tensor: &str) -> Vec<i8> {
        let bytes = self.bytes(tensor).into_iter();
        bytes.map(i8::from_le_bytes).collect()
    }

    /// Every number is torch's but for roundings, of which a sum of so many terms has so many.
    #[track_caller]
    fn agrees(&self, what: &str, found: &[f32], terms: usize, magnitude: impl Fn(usize) -> f64) {
        let expected = self.f64(what);
        assert_eq!(found.len(), expected.len(), "{}.{what}", self.name);
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let off = (f64::from(*found) - expected).abs();
            assert!(
                // A product, the sum, and a number added at the end.
                off <= bound(terms + 2, magnitude(at)),
                "{}.{what}[{at}] is {found}, torch has {expected}",
                self.name
            );
        }
    }
}

#[test]
fn outputs_and_gradients_in_training_are_those_of_torch() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/bitlinear/cases.safetensors"
    );
    let bytes = std::fs::read(path).expect("the fixture");
    let (_, head) = SafeTensors::read_metadata(&bytes).expect("a header");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let names = head.metadata().clone().expect("the cases' names");
    let names: BTreeMap<String, String> = names.into_iter().collect();
    assert_eq!(names.len(), 8);
    for (name, granularities) in &names {
        let case = Case { file: &file, name };
        let (activations, weights) = granularities.split_once(' ').expect("two names");
        let config = config(activations, weights);
        let (rows, cols) = (case.shape("weight")[0], case.shape("weight")[1]);
        let (x, weight, grad) = (case.f32("x"), case.f32("weight"), case.f32("grad"));
        let tokens = x.len() / cols;
        let bias = case.has("bias").then(|| case.f32("bias"));

        let ternary = Ternary::of(&weight, rows, cols, config.weight_granularity).unwrap();
        assert_eq!(ternary.scales(), case.f32("scales"), "{name}");
        let mut codes = vec![9; rows * cols];
        for (row, codes) in codes.chunks_exact_mut(cols).enumerate() {
            ternary.codes(row, codes);
        }
        assert_eq!(codes, case.i8("weight_codes"), "{name}");
        let granularity = config.activation_granularity;
        let quantized = Activations::quantize(&x, cols, granularity, &Pool::alone()).unwrap();
        let x_codes: Vec<i8> = (0..tokens)
            .flat_map(|token| quantized.codes(token))
            .collect();
        assert_eq!(x_codes, case.i8("x_codes"), "{name}");

        let has_bias = bias.is_some();
        let b = bias.clone().unwrap_or(vec![0.0; rows]);
        let layer = BitLinear::from_weights(cols, rows, weight, bias, config).unwrap();
        assert_eq!(
            layer.output_shape(&case.shape("x")).unwrap(),
            case.shape("y")
        );
        let pass = layer.train(&x).unwrap();
        let gradients = pass.backward(&grad).unwrap();

        let x = quantized_input(&x, cols, granularity);
        let w = layer.quantized_weight().unwrap();
        assert_eq!(w, case.f32("quantized_weight"), "{name}");
        let size = |a: f32, b: f32| f64::from(a.abs()) * f64::from(b.abs());
        case.agrees("y", &pass.output, cols, |at| {
            let (token, row) = (at / rows, at % rows);
            let terms = (0..cols).map(|k| size(x[token * cols + k], w[row * cols + k]));
            terms.sum::<f64>() + f64::from(b[row].abs())
        });
        case.agrees("grad_input", &gradients.input, rows, |at| {
            let (token, col) = (at / cols, at % cols);
            let terms = (0..rows).map(|row| size(grad[token * rows + row], w[row * cols + col]));
            terms.sum()
        });
        case.agrees("grad_weight", &gradients.weight, tokens, |at| {
            let (row, col) = (at / cols, at % cols);
            let terms = (0..tokens).map(|t| size(grad[t * rows + row], x[t * cols + col]));
            terms.sum()
        });
        assert_eq!(gradients.bias.is_some(), has_bias);
        if let Some(bias) = &gradients.bias {
            case.agrees("grad_bias", bias, tokens, |row| {
                (0..tokens).map(|t| size(grad[t * rows + row], 1.0)).sum()
            });
        }
    }
}

#[test]
fn evaluation_gives_what_training_gave_but_for_rounding() {
    let mut random = Random::seeded(3);
    let shapes = [
        (1, 1, 1),
        (5, 3, 2),
        (33, 40, 9),
        (70, 257, 4),
        (3, 1024, 1),
    ];
    for (out, width, tokens) in shapes {
        for config in configs() {
            for bias in [false, true] {
                let init = Init::KaimingUniform;
                let layer = BitLinear::new(width, out, bias, init, config, &mut random).unwrap();
                let x: Vec<f32> = (0..tokens * width).map(|_| random.normal()).collect();
                let trained = layer.train(&x).unwrap().output;
                let evaluating = layer.eval(Packing::Planes).unwrap();
                let pool = Pool::alone();
                let evaluated = evaluating
                    .forward(&x, kernel(Packing::Planes), &pool)
                    .unwrap();

                let x = quantized_input(&x, width, config.activation_granularity);
                let w = layer.quantized_weight().unwrap();
                for (at, (trained, evaluated)) in trained.iter().zip(&evaluated).enumerate() {
                    let (token, row) = (at / out, at % out);
                    let terms = (0..width).map(|k| x[token * width + k] * w[row * width + k]);
                    let bias = layer.bias().map_or(0.0, |bias| bias[row]);
                    let magnitude = terms.map(|term| f64::from(term.abs())).sum::<f64>()
                        + f64::from(bias.abs());
                    // Training: the activation's quotient, a product, the sum, the bias. Evaluation: the integer as a float,
                    // two factors of which one is a quotient, the sum over groups, the bias. Then the magnitude's own.
                    let groups = config.weight_granularity.groups(width);
                    let roundings = (1 + 1 + width + 1) + (1 + 3 + groups + 1) + 2;
                    let off = (f64::from(*trained) - f64::from(*evaluated)).abs();
                    assert!(
                        off <= bound(roundings, magnitude),
                        "{out} x {width}, {config}: {trained} and {evaluated}"
                    );
                }
            }
        }
    }
}

#[test]
fn deployment_gives_the_bits_of_evaluation_whatever_kernel_and_threads() {
    let mut random = Random::seeded(4);
    for config in configs() {
        let layer = BitLinear::new(75, 67, true, Init::XavierUniform, config, &mut random).unwrap();
        let x: Vec<f32> = (0..9 * 75).map(|_| random.normal()).collect();
        let pool = Pool::alone();
        let scalar = bitcost::kernels::by_name("scalar-2.0").unwrap();
        let evaluating = layer.eval(Packing::Planes).unwrap();
        let evaluated = evaluating.forward(&x, scalar, &pool).unwrap();
        for packing in Packing::ALL {
            let deployed = layer.clone().deploy(packing).unwrap();
            for kernel in available() {
                if kernel.packing != packing {
                    let refused = deployed.forward(&x, *kernel, &pool);
                    assert!(matches!(
                        refused,
                        Err(LayerError::Kernel(KernelError::Packing { .. }))
                    ));
                    continue;
                }
                for threads in [1, 3] {
                    let outputs = deployed.forward(&x, *kernel, &Pool::new(threads)).unwrap();
                    assert_eq!(outputs, evaluated, "{} {config}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn a_change_of_weights_is_seen_by_the_next_evaluation() {
    let weight = vec![1.0, -1.0];
    let mut layer = BitLinear::from_weights(2, 1, weight, None, QuantConfig::default()).unwrap();
    let evaluate = |layer: &BitLinear| {
        let evaluating = layer.eval(Packing::Planes).unwrap();
        let kernel = kernel(Packing::Planes);
        evaluating
            .forward(&[127.0, 1.0], kernel, &Pool::alone())
            .unwrap()
    };
    assert_eq!(evaluate(&layer), [126.0]);
    layer.weight_mut()[1] = 1.0;
    assert_eq!(evaluate(&layer), [128.0]);
}

#[test]
fn groups_of_columns_have_scales_of_their_own() {
    // Row 0: [1 -3 | 8] has means 2 and 8, codes [0 -1 | 1] (1/2 is a tie). Row 1: [0 2 | 0] has 1 and the floor, [0 1 | 0].
    let weight = vec![1.0, -3.0, 8.0, 0.0, 2.0, 0.0];
    let config = config("per_token", "per_group_2");
    let layer = BitLinear::from_weights(3, 2, weight, Some(vec![0.0, 10.0]), config).unwrap();
    let deployed = layer.deploy(Packing::Trits).unwrap();
    let widths: Vec<usize> = deployed.groups().iter().map(Packed::cols).collect();
    assert_eq!((widths, deployed.in_features()), (vec![2, 1], 3));
    let kernel = kernel(Packing::Trits);
    let y = deployed
        .forward(&[127.0, 5.0, -4.0], kernel, &Pool::alone())
        .unwrap();
    assert_eq!(y, [-2.0 * 5.0 + 8.0 * -4.0, 5.0 + 10.0]);
    let counts = Counts {
        minus: 1,
        zero: 3,
        plus: 2,
    };
    assert_eq!((deployed.counts(), deployed.zero_share()), (counts, 0.5));
}

#[test]
fn sizes_are_those_of_what_is_held() {
    let mut random = Random::seeded(5);
    let layer = |config| BitLinear::new(512, 256, true, Init::XavierUniform, config, &mut random);
    let layers =
        ["per_tensor", "per_row", "per_group_128"].map(|weights| config("per_token", weights));
    let layers = layers.map(layer).map(Result::unwrap);
    for (layer, scales) in layers.into_iter().zip([1, 256, 4 * 256]) {
        assert_eq!(layer.bytes(), 4 * (512 * 256 + 256));
        let deployed = layer.deploy(Packing::Planes).unwrap();
        assert_eq!(deployed.bytes(), 512 * 256 / 4 + 4 * scales + 4 * 256);
        assert_eq!(deployed.scales().len() as u64, scales);
    }
}

#[test]
fn a_layer_begins_as_its_seed_says() {
    let new = |init, seed| {
        let mut random = Random::seeded(seed);
        BitLinear::new(10, 14, true, init, QuantConfig::default(), &mut random).unwrap()
    };
    for (init, weights, bias) in [
        (Init::XavierUniform, 0.5, 0.0),
        (Init::KaimingUniform, 0.1f32.sqrt(), 0.1f32.sqrt()),
    ] {
        let layer = new(init, 1);
        assert_eq!(layer, new(init, 1));
        assert_ne!(layer, new(init, 2));
        let most = |numbers: &[f32]| numbers.iter().fold(0f32, |most, it| most.max(it.abs()));
        // 140 uniform numbers of which none is in the last tenth: 0.9^140 = 4e-7.
        assert!((0.9 * weights..=weights).contains(&most(layer.weight())));
        assert!(most(layer.bias().unwrap()) <= bias);
        assert_eq!(most(layer.bias().unwrap()) == 0.0, bias == 0.0);
    }
}

/// A layer of two inputs and three outputs.
fn small() -> BitLinear {
    let weight = vec![1.0, 0.0, -1.0, 1.0, 0.0, 0.0];
    BitLinear::from_weights(2, 3, weight, Some(vec![0.5; 3]), QuantConfig::default()).unwrap()
}

#[track_caller]
fn check(result: Result<impl Sized, LayerError>, message: &str) {
    let error = result.err().expect("an error");
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_layer_without_inputs_or_outputs_is_refused() {
    for (width, out) in [(0, 3), (3, 0), (0, 0)] {
        let (init, config) = (Init::default(), QuantConfig::default());
        check(
            BitLinear::new(width, out, true, init, config, &mut Random::seeded(1)),
            &format!("a matrix of {out} rows and {width} columns has no product"),
        );
    }
    let huge = BitLinear::new(
        usize::MAX,
        2,
        true,
        Init::default(),
        QuantConfig::default(),
        &mut Random::seeded(1),
    );
    assert!(matches!(
        huge,
        Err(LayerError::Kernel(KernelError::Memory { .. }))
    ));
    let empty = PackedBitLinear::from_parts(
        vec![],
        Dequantization::Online,
        &[1.0],
        None,
        Granularity::Token,
    );
    check(empty, "a matrix of 0 rows and 0 columns has no product");
}

#[test]
fn shapes_that_do_not_match_are_refused() {
    let (layer, kernel, pool) = (small(), kernel(Packing::Planes), Pool::alone());
    check(
        layer.train(&[1.0; 5]),
        "5 numbers are no tokens of 2 features",
    );
    check(layer.train(&[]), "0 numbers are no tokens of 2 features");
    let pass = layer.train(&[1.0; 4]).unwrap();
    check(
        pass.backward(&[1.0; 4]),
        "the gradient of the output has 4 numbers where 6 belong",
    );
    let evaluating = layer.eval(Packing::Planes).unwrap();
    check(
        evaluating.forward(&[1.0; 3], kernel, &pool),
        "3 numbers are no tokens of 2 features",
    );
    assert_eq!(layer.output_shape(&[4, 5, 2]).unwrap(), [4, 5, 3]);
    assert_eq!(evaluating.output_shape(&[2]).unwrap(), [3]);
    check(
        layer.output_shape(&[2, 3]),
        "an input of shape [2, 3] does not end in the layer's 2 features",
    );
    assert!(evaluating.output_shape(&[]).is_err());
    check(
        BitLinear::from_weights(2, 3, vec![0.0; 5], None, QuantConfig::default()),
        "the weight has 5 numbers where 6 belong",
    );
    check(
        BitLinear::from_weights(
            2,
            3,
            vec![0.0; 6],
            Some(vec![0.0; 2]),
            QuantConfig::default(),
        ),
        "the bias has 2 numbers where 3 belong",
    );
}

#[test]
fn an_activation_that_is_not_finite_is_named_in_every_life() {
    let layer = small();
    let (kernel, pool) = (kernel(Packing::Planes), Pool::alone());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, value];
        let message =
            format!("feature 1 of token 2 is {value}: only finite numbers can be quantized");
        check(layer.train(&x), &message);
        check(
            layer
                .eval(Packing::Planes)
                .unwrap()
                .forward(&x, kernel, &pool),
            &message,
        );
        let deployed = layer.clone().deploy(Packing::Planes).unwrap();
        check(deployed.forward(&x, kernel, &pool), &message);
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named_in_every_life() {
    let mut layer = small();
    layer.weight_mut()[3] = f32::NAN;
    let message = "the weight in row 1, column 1 is NaN: only finite weights can be quantized";
    check(layer.train(&[1.0; 2]), message);
    check(layer.eval(Packing::Planes), message);
    check(layer.deploy(Packing::Planes), message);
}

#[test]
fn zeros_give_the_bias() {
    let (kernel, pool) = (kernel(Packing::Planes), Pool::alone());
    let both = |layer: &BitLinear, x: &[f32]| {
        let evaluating = layer.eval(Packing::Planes).unwrap();
        let evaluated = evaluating.forward(x, kernel, &pool).unwrap();
        assert_eq!(layer.train(x).unwrap().output, evaluated);
        evaluated
    };
    // Token 1 is all zeros.
    assert_eq!(both(&small(), &[127.0, 0.0, 0.0, 0.0])[3..], [0.5; 3]);
    for config in configs() {
        let zeros = BitLinear::from_weights(20, 2, vec![0.0; 40], Some(vec![3.0, 4.0]), config);
        let zeros = zeros.unwrap();
        assert_eq!(both(&zeros, &[1.0; 20]), [3.0, 4.0]);
        assert_eq!(zeros.deploy(Packing::Planes).unwrap().zero_share(), 1.0);
    }
}

#[test]
fn parts_of_a_file_are_checked() {
    let pack = |rows, cols| {
        Packed::pack(Packing::Planes, rows, cols, |_, out: &mut [i8]| out.fill(1)).unwrap()
    };
    let layer = |groups, scales: &[f32], bias| {
        let rule = Dequantization::BitLinear;
        PackedBitLinear::from_parts(groups, rule, scales, bias, Granularity::Token)
    };
    for (scale, shown) in [
        (0.0, "0"),
        (f32::NAN, "NaN"),
        (-2.0, "-2"),
        (f32::INFINITY, "inf"),
    ] {
        check(
            layer(vec![pack(3, 4)], &[scale], None),
            &format!("scale 0 of the weights is {shown}: a scale is a number from 2^-126 to 2^126"),
        );
    }
    check(
        layer(vec![pack(3, 4)], &[1.0; 2], None),
        "the scale of the weights has 2 numbers where 3 belong",
    );
    check(
        layer(vec![pack(3, 4)], &[], None),
        "the scale of the weights has 0 numbers where 3 belong",
    );
    check(
        layer(vec![pack(3, 4), pack(2, 4)], &[1.0; 6], None),
        "group 1 of the columns is no part of the same layer: it has 2 rows in packing 2.0, the first has 3 in packing 2.0",
    );
    check(
        layer(vec![pack(3, 4)], &[1.0], Some(vec![0.0, f32::NAN, 0.0])),
        "the bias of output 1 is NaN: only finite numbers can be added",
    );
}

#[test]
fn stored_layers_of_both_meanings_give_what_transformers_gives() {
    let read = |path: String| {
        let path = format!("{}/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("the fixture")
    };
    let layers = ["self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"];
    let io = read("bitlinear/layer_io.safetensors".into());
    let io = SafeTensors::deserialize(&io).expect("a safetensors file");
    for (kind, rule) in [
        ("autobitlinear", Dequantization::AutoBitLinear),
        ("bitlinear", Dequantization::BitLinear),
    ] {
        let model = read(format!("bitnet_tiny/{kind}/model.safetensors"));
        let model = SafeTensors::deserialize(&model).expect("a safetensors file");
        for layer in layers {
            let stored = model
                .tensor(&format!("model.layers.0.{layer}.weight"))
                .expect("packed weights");
            let (quarter, cols) = (stored.shape()[0], stored.shape()[1]);
            // Row r stands in byte row r mod (rows / 4), in bits 2 (r div (rows / 4)).
            let weights = Packed::pack(Packing::Planes, 4 * quarter, cols, |row, out| {
                let bytes = &stored.data()[row % quarter * cols..][..cols];
                for (weight, byte) in out.iter_mut().zip(bytes) {
                    *weight = (byte >> (2 * (row / quarter)) & 3) as i8 - 1;
                }
            });
            let scale = model
                .tensor(&format!("model.layers.0.{layer}.weight_scale"))
                .expect("a scale");
            // A bfloat16 is the upper half of a float of 32 bits.
            let scale = f32::from_le_bytes([0, 0, scale.data()[0], scale.data()[1]]);
            let groups = vec![weights.unwrap()];
            let activations = Granularity::Token;
            let packed = PackedBitLinear::from_parts(groups, rule, &[scale], None, activations);
            let (packed, pool) = (packed.unwrap(), Pool::alone());

            let name = format!("{kind}.layers.0.{layer}");
            let case = Case {
                file: &io,
                name: &name,
            };
            let (x, expected) = (case.f32("in"), case.f32("out"));
            let y = packed.forward(&x, kernel(Packing::Planes), &pool).unwrap();
            let x = quantized_input(&x, cols, Granularity::Token);
            let one = rule.one(scale);
            for (token, x) in x.chunks_exact(cols).enumerate() {
                // Every term has at most this size; transformers adds floats, in an order of its own.
                let magnitude: f64 = x.iter().map(|x| f64::from((x * one).abs())).sum();
                for row in 0..4 * quarter {
                    let (y, expected) = (
                        y[token * 4 * quarter + row],
                        expected[token * 4 * quarter + row],
                    );
                    let off = (f64::from(y) - f64::from(expected)).abs();
                    // There: a quotient, the sum, the scale. Here: the integer, three factors.
                    let bound = bound(cols + 2 + 4, magnitude);
                    assert!(off <= bound, "{name}: {y}, transformers has {expected}");
                }
            }
        }
    }
}

#[test]
fn the_same_numbers_come_of_both_meanings_of_a_stored_scale() {
    let pack = || {
        let weights = [[1, 0], [-1, 1]];
        let fill = |row: usize, out: &mut [i8]| out.copy_from_slice(&weights[row]);
        Packed::pack(Packing::Planes, 2, 2, fill).unwrap()
    };
    let y = |rule, scales: &[f32], bias: [f32; 2]| {
        let (groups, bias) = (vec![pack()], Some(bias.to_vec()));
        let layer = PackedBitLinear::from_parts(groups, rule, scales, bias, Granularity::Token);
        let kernel = kernel(Packing::Planes);
        layer
            .unwrap()
            .forward(&[127.0, 3.0], kernel, &Pool::alone())
            .unwrap()
    };
    // Sums are 127 and -124; weights stand for 0.25, or for 0.25 and 2.
    assert_eq!(
        y(Dequantization::AutoBitLinear, &[0.25], [4.0, 8.0]),
        [32.75, -29.0]
    );
    assert_eq!(
        y(Dequantization::BitLinear, &[4.0], [1.0, 2.0]),
        [32.75, -29.0]
    );
    assert_eq!(
        y(Dequantization::Online, &[0.25], [1.0, 2.0]),
        [32.75, -29.0]
    );
    assert_eq!(
        y(Dequantization::AutoBitLinear, &[0.25, 2.0], [4.0, 8.0]),
        [32.75, -232.0]
    );
    assert_eq!(
        y(Dequantization::BitLinear, &[4.0, 0.5], [1.0, 16.0]),
        [32.75, -232.0]
    );
}

#[test]
fn a_classifier_learns_and_deploys_as_it_was_evaluated() {
    let (train, test) = Data::generated(1, 700).split(500);
    let training = Training {
        epochs: 8,
        ..Training::default()
    };
    let mut classifier = Classifier::new(training.seed).unwrap();
    let losses = classifier.train(&train, &training).unwrap();
    // Four classes that are guessed cost ln 4.
    assert!(losses[0] < 2.0 * 4f32.ln(), "{losses:?}");
    assert!(losses[7] < 0.25 * losses[0], "{losses:?}");

    let (kernel, pool) = (best(Packing::Planes, test.len()), Pool::new(2));
    let evaluating = classifier.eval(Packing::Planes).unwrap();
    let layers = evaluating.iter().map(Deref::deref);
    let evaluated = logits(layers, &test.x, kernel, &pool).unwrap();
    assert!(
        test.accuracy(&evaluated) > 0.7,
        "{}",
        test.accuracy(&evaluated)
    );

    let float_bytes = classifier.bytes();
    let deployed = classifier.deploy(Packing::Planes).unwrap();
    assert_eq!(
        logits(&deployed, &test.x, kernel, &pool).unwrap(),
        evaluated
    );
    let bytes: u64 = deployed.iter().map(PackedBitLinear::bytes).sum();
    assert!(bytes * 8 < float_bytes, "{bytes} of {float_bytes}");
}
