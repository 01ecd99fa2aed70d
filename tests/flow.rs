//! Null channels through `forward`: which channels of which layers are null when some rows of some weights are zero.

use bitcost::channels::Channels;
use bitcost::db::Db;
use bitcost::flow::{Form, Nulls, Rule, Weights, nulls};
use bitcost::model::{Asked, Model, Node, Tree, path_below};
use bitcost::value::{Object, Value};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Weights that are all non-zero, except for whole rows, single connections and given vectors.
#[derive(Default)]
struct Given {
    zero_rows: HashMap<String, Vec<usize>>,
    /// Inputs that a row reads at all, where it does not read every one.
    reads: HashMap<(String, usize), Vec<usize>>,
    vectors: HashMap<String, Vec<f64>>,
    shapes: HashMap<String, Vec<u64>>,
}

impl Weights for Given {
    type Error = Infallible;

    fn null_rows(
        &mut self,
        tensor: &str,
        null_in: &Channels,
        form: Form,
    ) -> Result<Channels, Infallible> {
        let (rows, _) = form.sides(&self.shapes[tensor]).expect("a matrix");
        let per_group = null_in.width() / form.groups;
        let zero = |row: usize| {
            if self
                .zero_rows
                .get(tensor)
                .is_some_and(|zero| zero.contains(&row))
            {
                return true;
            }
            let start = row / rows.div_ceil(form.groups) * per_group;
            match self.reads.get(&(tensor.to_string(), row)) {
                Some(reads) => reads.iter().all(|input| null_in.contains(start + input)),
                None => (start..start + per_group).all(|input| null_in.contains(input)),
            }
        };
        Ok(Channels::of(rows, zero))
    }

    fn vector(&mut self, tensor: &str) -> Result<Option<Vec<f64>>, Infallible> {
        let ones = || vec![1.0; self.shapes[tensor].iter().product::<u64>() as usize];
        Ok(Some(self.vectors.get(tensor).cloned().unwrap_or_else(ones)))
    }
}

fn zero(rows: &[(&str, &[usize])]) -> Given {
    let zero_rows = rows
        .iter()
        .map(|(name, rows)| (name.to_string(), rows.to_vec()))
        .collect();
    Given {
        zero_rows,
        ..Given::default()
    }
}

fn object(text: &str) -> Arc<Object> {
    match bitcost::json::read(text).expect("JSON") {
        Value::Object(object) => object,
        other => panic!("{other}"),
    }
}

/// The shape of every tensor, by path.
fn shapes(tree: &Tree<'_>) -> HashMap<String, Vec<u64>> {
    fn add(node: &Node<'_>, path: &str, shapes: &mut HashMap<String, Vec<u64>>) {
        for tensor in node.tensors.iter().chain(&node.buffers) {
            let sides = tensor.shape.iter();
            let sides = sides.map(|side| u64::try_from(*side).expect("small"));
            shapes.insert(path_below(path, &tensor.name), sides.collect());
        }
        for (name, child) in &node.children {
            add(child, &path_below(path, name), shapes);
        }
    }
    let mut all = HashMap::new();
    add(&tree.root, "", &mut all);
    all
}

fn followed(class: Option<&str>, config: &str, rule: Rule, weights: Given) -> Nulls {
    let db = Db::embedded().expect("the embedded database");
    followed_in(&db, class, config, rule, weights)
}

fn followed_in(
    db: &Db,
    class: Option<&str>,
    config: &str,
    rule: Rule,
    mut weights: Given,
) -> Nulls {
    let model = Model::load(db, object(config), class).expect("a model");
    let workload = model.workload(&Asked::default()).expect("a workload");
    let tree = model.expand(&workload).expect("a tree");
    weights.shapes = shapes(&tree);
    let Ok(found) = nulls(db, &tree.root, rule, &mut weights);
    found
}

const NONE: [usize; 0] = [];
const CIFAR: &str = r#"{"num_blocks": [3, 3, 3], "num_classes": 10}"#;
const EVERY: [usize; 64] = {
    let mut all = [0; 64];
    let mut i = 0;
    while i < 64 {
        all[i] = i;
        i += 1;
    }
    all
};

fn cifar(weights: Given) -> Nulls {
    followed(Some("cifar_resnet.ResNet"), CIFAR, Rule::Weights, weights)
}

#[track_caller]
fn null_in(found: &Nulls, layer: &str) -> Vec<usize> {
    let layer = found
        .layers
        .get(layer)
        .unwrap_or_else(|| panic!("no layer {layer} among {:?}", found.layers.keys()));
    layer.null_in.iter().collect()
}

#[test]
fn every_layer_of_a_residual_network_is_walked() {
    let found = cifar(Given::default());
    assert_eq!(found.layers.len(), 20);
    assert!(found.unknown.is_empty(), "{:?}", found.unknown);
    assert!(
        found
            .layers
            .values()
            .all(|layer| layer.null_in.is_empty() && layer.null_out.is_empty())
    );
}

#[test]
fn null_rows_are_null_inputs_of_the_next_layer() {
    let found = cifar(zero(&[("layer1.0.conv1.weight", &[2, 3])]));
    assert_eq!(null_in(&found, "layer1.0.conv2.weight"), [2, 3]);
    assert_eq!(null_in(&found, "layer1.1.conv1.weight"), NONE);
}

#[test]
fn an_identity_shortcut_restores_what_the_branch_lost() {
    let found = cifar(zero(&[("layer1.0.conv2.weight", &EVERY[..16])]));
    assert_eq!(found.layers["layer1.0.conv2.weight"].null_out.count(), 16);
    assert_eq!(null_in(&found, "layer1.1.conv1.weight"), NONE);
}

#[test]
fn a_padded_shortcut_leaves_the_padding_null() {
    let found = cifar(zero(&[("layer2.0.conv2.weight", &EVERY[..32])]));
    let padding: Vec<usize> = (0..8).chain(24..32).collect();
    assert_eq!(null_in(&found, "layer2.1.conv1.weight"), padding);
    // The next block adds to them.
    assert_eq!(null_in(&found, "layer2.2.conv1.weight"), NONE);
    let found = cifar(zero(&[("layer3.0.conv2.weight", &EVERY)]));
    let padding: Vec<usize> = (0..16).chain(48..64).collect();
    assert_eq!(null_in(&found, "layer3.1.conv1.weight"), padding);
}

#[test]
fn a_channel_is_null_through_a_whole_stage_only_where_every_block_agrees() {
    let rows: [(&str, &[usize]); 4] = [
        ("conv1.weight", &[5]),
        ("layer1.0.conv2.weight", &[5]),
        ("layer1.1.conv2.weight", &[5]),
        ("layer1.2.conv2.weight", &[5]),
    ];
    let found = cifar(zero(&rows));
    assert_eq!(null_in(&found, "layer1.2.conv1.weight"), [5]);
    // Option A: channel 5 of 16 is channel 13 of 32, and the residual branch of layer2.0 fills it again.
    assert_eq!(null_in(&found, "layer2.0.conv1.weight"), [5]);
    assert_eq!(null_in(&found, "layer2.1.conv1.weight"), NONE);
}

#[test]
fn a_row_that_reads_null_inputs_only_is_null() {
    let mut weights = zero(&[("layer1.0.conv1.weight", &[2, 3])]);
    weights
        .reads
        .insert(("layer1.0.conv2.weight".into(), 7), vec![2, 3]);
    weights
        .reads
        .insert(("layer1.0.conv2.weight".into(), 8), vec![2, 4]);
    let found = cifar(weights);
    assert_eq!(
        found.layers["layer1.0.conv2.weight"]
            .null_out
            .iter()
            .collect::<Vec<_>>(),
        [7]
    );
}

const SHIFTS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The same zero row, with a norm behind it whose shift of that channel is `beta - gamma * mean / sqrt(var + eps)`.
fn behind_a_norm(rule: Rule, values: [f64; 4]) -> Vec<usize> {
    let mut weights = zero(&[("layer1.0.conv1.weight", &[2])]);
    for (name, value) in SHIFTS.iter().zip(values) {
        let mut vector = vec![1.0; 16];
        vector[2] = value;
        weights
            .vectors
            .insert(format!("layer1.0.bn1.{name}"), vector);
    }
    let found = followed(Some("cifar_resnet.ResNet"), CIFAR, rule, weights);
    null_in(&found, "layer1.0.conv2.weight")
}

#[test]
fn the_exact_rule_wants_a_norm_that_shifts_by_nothing_or_below_what_relu_cuts_off() {
    // beta - gamma * mean / sqrt(var + eps): 0.5.
    assert_eq!(behind_a_norm(Rule::Weights, [1.0, 0.5, 0.0, 1.0]), [2]);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.5, 0.0, 1.0]), NONE);
    // 0 + 0.5 / sqrt(1 + eps) is more than 0; 0 - 0.5 / sqrt(1 + eps) is less, and 0 behind the relu.
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, -0.5, 1.0]), NONE);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, 0.5, 1.0]), [2]);
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, 0.0, 1.0]), [2]);
    // A gain of 0 leaves beta alone, whatever the mean.
    assert_eq!(behind_a_norm(Rule::Exact, [0.0, 0.0, 0.5, 1.0]), [2]);
    assert_eq!(behind_a_norm(Rule::Exact, [0.0, 0.25, 0.5, 1.0]), NONE);
    // A variance below 0 gives no number.
    assert_eq!(behind_a_norm(Rule::Exact, [1.0, 0.0, 0.5, -4.0]), NONE);
}

#[test]
fn by_the_exact_rule_a_gain_of_zero_makes_a_channel_null_that_has_weights() {
    let of = |rule| {
        let mut weights = Given::default();
        for (name, at_2) in [("weight", 0.0), ("bias", 0.0)] {
            let mut vector = vec![1.0; 16];
            vector[2] = at_2;
            weights
                .vectors
                .insert(format!("layer1.0.bn1.{name}"), vector);
        }
        let found = followed(Some("cifar_resnet.ResNet"), CIFAR, rule, weights);
        null_in(&found, "layer1.0.conv2.weight")
    };
    assert_eq!(of(Rule::Exact), [2]);
    // The rule of weights does not ask the norm.
    assert_eq!(of(Rule::Weights), NONE);
}

/// Channel 2 at the first convolution behind a residual sum of layer1.0, where both convolutions that are added have a
/// zero row 2 and norms that shift the channel by these numbers (gains and variances of 1, epsilon aside).
fn behind_a_sum(shifts: [f64; 2]) -> Vec<usize> {
    let mut weights = zero(&[("conv1.weight", &[2]), ("layer1.0.conv2.weight", &[2])]);
    for (norm, shift) in ["bn1", "layer1.0.bn2"].iter().zip(shifts) {
        for (name, value) in [("bias", shift), ("running_mean", 0.0)] {
            let mut vector = vec![1.0; 16];
            vector[2] = value;
            weights.vectors.insert(format!("{norm}.{name}"), vector);
        }
    }
    let found = followed(Some("cifar_resnet.ResNet"), CIFAR, Rule::Exact, weights);
    null_in(&found, "layer1.1.conv1.weight")
}

#[test]
fn by_the_exact_rule_numbers_are_added_before_they_are_cut_off() {
    assert_eq!(behind_a_sum([0.0, 0.0]), [2]);
    // The shortcut is behind a relu, so it is 0; the branch is not cut off before the sum.
    assert_eq!(behind_a_sum([-1.0, -1.0]), [2]);
    assert_eq!(behind_a_sum([0.0, 1.0]), NONE);
    assert_eq!(behind_a_sum([0.0, -1.0]), [2]);
    // 1 - 2 < 0, but what relu leaves of the stem's 1 is not followed: no null channel is claimed.
    assert_eq!(behind_a_sum([1.0, -2.0]), NONE);
}

/// A convolution with a bias, a norm, a relu: channel 1 of VGG's first block, which has weights of 0.
fn behind_a_bias(rule: Rule, norm: bool, bias: f64, mean: f64) -> Vec<usize> {
    let config = format!(r#"{{"cfg": [4, 4, "M"], "batch_norm": {norm}}}"#);
    let mut weights = zero(&[("features.0.weight", &[1])]);
    let mut set = |name: &str, value: f64| {
        let mut vector = vec![1.0; 4];
        vector[1] = value;
        weights.vectors.insert(name.into(), vector);
    };
    set("features.0.bias", bias);
    if norm {
        set("features.1.bias", 0.0);
        set("features.1.running_mean", mean);
    }
    let found = followed(Some("torchvision.models.vgg.VGG"), &config, rule, weights);
    let second = if norm { 3 } else { 2 };
    null_in(&found, &format!("features.{second}.weight"))
}

#[test]
fn by_the_exact_rule_a_bias_counts_with_the_norm_behind_it() {
    assert_eq!(behind_a_bias(Rule::Weights, false, 0.5, 0.0), [1]);
    assert_eq!(behind_a_bias(Rule::Exact, false, 0.5, 0.0), NONE);
    assert_eq!(behind_a_bias(Rule::Exact, false, 0.0, 0.0), [1]);
    assert_eq!(behind_a_bias(Rule::Exact, false, -0.5, 0.0), [1]);
    // beta + gamma * (bias - mean) / sqrt(var + eps) with beta 0: the sign is that of bias - mean.
    assert_eq!(behind_a_bias(Rule::Weights, true, 0.5, 0.25), [1]);
    assert_eq!(behind_a_bias(Rule::Exact, true, 0.5, 0.25), NONE);
    assert_eq!(behind_a_bias(Rule::Exact, true, 0.5, 0.5), [1]);
    assert_eq!(behind_a_bias(Rule::Exact, true, 0.5, 0.75), [1]);
}

#[test]
fn a_layer_norm_leaves_only_channels_without_gain_and_shift() {
    let config = r#"{"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 8,
        "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4}"#;
    let of = |gain: f64, shift: f64| {
        let mut weights = Given::default();
        for (name, value) in [("weight", gain), ("bias", shift)] {
            let mut vector = vec![1.0; 8];
            vector[3] = value;
            let norm = format!("vit.layers.0.layernorm_after.{name}");
            weights.vectors.insert(norm, vector);
        }
        // A channel that arrives null at a norm leaves it as minus the mean.
        weights
            .zero_rows
            .insert("vit.layers.0.attention.o_proj.weight".into(), vec![5]);
        let found = followed(None, config, Rule::Exact, weights);
        null_in(&found, "vit.layers.0.mlp.fc1.weight")
    };
    assert_eq!(of(0.0, 0.0), [3]);
    assert_eq!(of(0.0, 0.5), NONE);
    assert_eq!(of(1.0, 0.0), NONE);
}

const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 32, "torch_dtype": "float16"}"#;

fn llama(weights: Given) -> Nulls {
    followed(None, LLAMA, Rule::Weights, weights)
}

#[test]
fn a_gated_product_is_null_where_either_side_is() {
    let found = llama(zero(&[
        ("model.layers.0.mlp.gate_proj.weight", &[1]),
        ("model.layers.0.mlp.up_proj.weight", &[4, 5]),
    ]));
    assert_eq!(
        null_in(&found, "model.layers.0.mlp.down_proj.weight"),
        [1, 4, 5]
    );
}

#[test]
fn values_carry_their_nulls_through_attention_to_every_query_head_that_they_serve() {
    // Value head 1 serves query heads 2 and 3; its channel 4 + 2 is theirs.
    let found = llama(zero(&[
        ("model.layers.0.self_attn.v_proj.weight", &[6]),
        ("model.layers.0.self_attn.q_proj.weight", &[0, 1]),
    ]));
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.o_proj.weight"),
        [10, 14]
    );
}

#[test]
fn the_residual_stream_is_not_null_where_a_branch_is() {
    let found = llama(zero(&[(
        "model.layers.0.self_attn.o_proj.weight",
        &EVERY[..16],
    )]));
    assert_eq!(null_in(&found, "model.layers.0.mlp.up_proj.weight"), NONE);
}

#[test]
fn a_gain_of_zero_nulls_a_channel_behind_the_norm() {
    let mut weights = Given::default();
    let mut gains = vec![1.0; 16];
    gains[3] = 0.0;
    weights
        .vectors
        .insert("model.layers.0.input_layernorm.weight".into(), gains);
    let found = llama(weights);
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.q_proj.weight"),
        [3]
    );
}

#[test]
fn flattening_an_image_widens_a_null_channel_to_its_positions() {
    // Channel 2 of 512 of the last convolution is 7 * 7 features: 98 to 146.
    let found = followed(
        Some("torchvision.models.vgg.VGG"),
        "{}",
        Rule::Weights,
        zero(&[("features.28.weight", &[2]), ("classifier.0.weight", &[9])]),
    );
    let features: Vec<usize> = (98..147).collect();
    assert_eq!(null_in(&found, "classifier.0.weight"), features);
    assert_eq!(null_in(&found, "classifier.3.weight"), [9]);
    assert!(found.unknown.is_empty(), "{:?}", found.unknown);
}

#[test]
fn a_depthwise_convolution_keeps_a_channel_null_and_a_residual_needs_both() {
    let of = |rows: &[(&str, &[usize])]| {
        let class = Some("torchvision.models.mobilenetv2.MobileNetV2");
        followed(class, "{}", Rule::Weights, zero(rows))
    };
    // features.2 widens 16 to 96 channels, convolves each alone, narrows to 24.
    let found = of(&[
        ("features.2.conv.0.0.weight", &[7]),
        ("features.2.conv.1.0.weight", &[11]),
    ]);
    assert_eq!(null_in(&found, "features.2.conv.1.0.weight"), [7]);
    assert_eq!(null_in(&found, "features.2.conv.2.weight"), [7, 11]);
    assert_eq!(null_in(&found, "features.3.conv.0.0.weight"), NONE);
    // features.3 keeps size and width, so its output is added to that of features.2: null where both are.
    let found = of(&[
        ("features.2.conv.2.weight", &[3, 4]),
        ("features.3.conv.2.weight", &[4, 5]),
    ]);
    assert_eq!(null_in(&found, "features.3.conv.0.0.weight"), [3, 4]);
    assert_eq!(null_in(&found, "features.4.conv.0.0.weight"), [4]);
}

#[test]
fn a_gate_cannot_revive_a_channel_and_its_own_nulls_do_not_close_it() {
    // features.4 of the large MobileNetV3: 72 channels, gated through 24.
    let class = Some("torchvision.models.mobilenetv3.MobileNetV3");
    let found = followed(
        class,
        "{}",
        Rule::Weights,
        zero(&[
            ("features.4.block.1.0.weight", &[5]),
            ("features.4.block.2.fc1.weight", &[3]),
            ("features.4.block.2.fc2.weight", &[9]),
        ]),
    );
    assert_eq!(null_in(&found, "features.4.block.2.fc1.weight"), [5]);
    assert_eq!(null_in(&found, "features.4.block.2.fc2.weight"), [3]);
    // hardsigmoid(0) is 1/2: channel 9 is halved, not closed.
    assert_eq!(null_in(&found, "features.4.block.3.0.weight"), [5]);
}

#[test]
fn a_projection_shortcut_is_followed_like_any_convolution() {
    let of = |config: &str, rows: &[(&str, &[usize])]| {
        let class = Some("torchvision.models.resnet.ResNet");
        followed(class, config, Rule::Weights, zero(rows))
    };
    // layer2.0 projects: null where the branch and the projection are, and the next block adds to it.
    let found = of(
        "{}",
        &[
            ("layer2.0.conv2.weight", &[1, 2]),
            ("layer2.0.downsample.0.weight", &[2, 3]),
        ],
    );
    assert_eq!(null_in(&found, "layer2.1.conv1.weight"), [2]);
    assert_eq!(null_in(&found, "layer3.0.conv1.weight"), NONE);
    // Both of layer3.0's convolutions read what layer2.1 leaves null, behind an identity.
    let found = of(
        "{}",
        &[
            ("layer2.0.conv2.weight", &[1, 2]),
            ("layer2.0.downsample.0.weight", &[2, 3]),
            ("layer2.1.conv2.weight", &[2]),
        ],
    );
    assert_eq!(null_in(&found, "layer3.0.conv1.weight"), [2]);
    assert_eq!(null_in(&found, "layer3.0.downsample.0.weight"), [2]);
    // Bottlenecks carry nulls from each convolution to the next; the head reads the last sum.
    let bottleneck = r#"{"block": "Bottleneck", "layers": [1, 1, 1, 1]}"#;
    let found = of(
        bottleneck,
        &[
            ("layer4.0.conv1.weight", &[8]),
            ("layer4.0.conv2.weight", &[9]),
            ("layer4.0.conv3.weight", &[2047]),
            ("layer4.0.downsample.0.weight", &[0, 2047]),
        ],
    );
    assert_eq!(null_in(&found, "layer4.0.conv2.weight"), [8]);
    assert_eq!(null_in(&found, "layer4.0.conv3.weight"), [9]);
    assert_eq!(null_in(&found, "fc.weight"), [2047]);
}

#[test]
fn a_group_reads_the_nulls_of_its_own_channels() {
    // ResNeXt: layer1.0.conv2 has 32 groups of 4 channels. All of group 1 (4 to 7) is null, so its outputs are.
    let found = followed(
        Some("torchvision.models.resnet.ResNet"),
        r#"{"block": "Bottleneck", "layers": [1, 1, 1, 1], "groups": 32, "width_per_group": 4}"#,
        Rule::Weights,
        zero(&[("layer1.0.conv1.weight", &[3, 4, 5, 6, 7, 8])]),
    );
    let conv2 = &found.layers["layer1.0.conv2.weight"];
    assert_eq!(conv2.form.groups, 32);
    assert_eq!(conv2.null_in.iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
    assert_eq!(null_in(&found, "layer1.0.conv3.weight"), [4, 5, 6, 7]);
}

/// Null inputs of the layer behind attention where this row of the fused projection is zero.
fn behind_fused(config: &str, fused: &str, row: usize, output: &str) -> Vec<usize> {
    let found = followed(None, config, Rule::Weights, zero(&[(fused, &[row])]));
    null_in(&found, output)
}

#[test]
fn values_are_found_in_fused_projections_however_they_are_laid_out() {
    // Four heads of 4. Bloom and GPT-NeoX: per head q, k, v; head 2 begins at 24, its values at 32.
    let bloom = r#"{"architectures": ["BloomForCausalLM"], "model_type": "bloom", "hidden_size": 16, "n_head": 4, "n_layer": 1,
        "vocab_size": 32}"#;
    let of = |row| {
        behind_fused(
            bloom,
            "transformer.h.0.self_attention.query_key_value.weight",
            row,
            "transformer.h.0.self_attention.dense.weight",
        )
    };
    assert_eq!(of(24), NONE);
    assert_eq!(of(31), NONE);
    assert_eq!(of(32), [8]);
    assert_eq!(of(35), [11]);
    // GPT-2: q, k, v one after the other; the weight is [in, out].
    let gpt2 = r#"{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 16, "n_head": 4, "n_layer": 1,
        "vocab_size": 32}"#;
    let (fused, output) = (
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_proj.weight",
    );
    assert_eq!(behind_fused(gpt2, fused, 31, output), NONE);
    assert_eq!(behind_fused(gpt2, fused, 32, output), [0]);
    assert_eq!(behind_fused(gpt2, fused, 47, output), [15]);
    // BigCode with one key-value head: 16 of q, 4 of k, 4 of v; the value serves every head.
    let bigcode = gpt2
        .replace("GPT2LMHeadModel", "GPTBigCodeForCausalLM")
        .replace("gpt2", "gpt_bigcode");
    assert_eq!(behind_fused(&bigcode, fused, 19, output), NONE);
    assert_eq!(behind_fused(&bigcode, fused, 21, output), [1, 5, 9, 13]);
    // Falcon's new decoder with two key-value heads: two groups of two q, k, v; group 1 begins at 16, its value at 28.
    let falcon = r#"{"architectures": ["FalconForCausalLM"], "model_type": "falcon", "hidden_size": 16, "num_attention_heads": 4,
        "num_kv_heads": 2, "num_hidden_layers": 1, "vocab_size": 32, "new_decoder_architecture": true, "multi_query": true}"#;
    let (fused, output) = (
        "transformer.h.0.self_attention.query_key_value.weight",
        "transformer.h.0.self_attention.dense.weight",
    );
    assert_eq!(behind_fused(falcon, fused, 27, output), NONE);
    assert_eq!(behind_fused(falcon, fused, 30, output), [10, 14]);
}

#[test]
fn a_tail_of_latent_attention_is_of_values() {
    // Two heads of 4 + 3 rows: the values of head 1 begin at 11. The latent is 8 of 8 + 2 rows.
    let config = r#"{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32,
        "q_lora_rank": null, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 3,
        "first_k_dense_replace": 1}"#;
    let found = followed(
        None,
        config,
        Rule::Weights,
        zero(&[
            ("model.layers.0.self_attn.kv_b_proj.weight", &[3, 4, 7, 12]),
            (
                "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
                &[5, 9],
            ),
        ]),
    );
    // Rows 3 and 7 are of keys; 4 is value 0 of head 0, 12 is value 1 of head 1.
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.o_proj.weight"),
        [0, 4]
    );
    assert_eq!(
        null_in(&found, "model.layers.0.self_attn.kv_b_proj.weight"),
        [5]
    );
}

/// Experts with one that all tokens pass beside them, between two linear layers of 4 channels: 2 experts of 3 inner channels.
const MIXTURE: &str = r#"{"my.Net": {
    "config": {"hidden_size": 4, "num_experts": 2, "expert_size": 3, "shared_size": 5, "top_k": 1, "norm_topk_prob": false,
        "hidden_act": {"value": "'silu'"}},
    "children": {"before": "{Linear}(N, 4, 4)", "moe": "{Qwen2MoeSparseMoeBlock}()", "after": "{Linear}(N, 4, 2)"},
    "forward": "after(moe(before(x)))"}}"#;

fn mixture(weights: Given) -> Nulls {
    let mut db = Db::embedded().expect("the embedded database");
    db.overlay("mixture", MIXTURE).expect("an overlay");
    let config = r#"{"model_type": "mine"}"#;
    followed_in(&db, Some("my.Net"), config, Rule::Weights, weights)
}

const GATE_UP: &str = "moe.experts.gate_up_proj";
const DOWN: &str = "moe.experts.down_proj";

#[test]
fn each_expert_has_null_channels_of_its_own() {
    // Of each expert rows 0 to 2 are the gate's, 3 to 5 the value's. Expert 0 loses channel 1 by its gate, expert 1 (rows 6
    // to 11) channel 0 by its gate and channel 2 by its value.
    let found = mixture(zero(&[(GATE_UP, &[1, 6, 11])]));
    assert_eq!(found.layers[DOWN].form.groups, 2);
    assert_eq!(found.layers[DOWN].null_in.width(), 6);
    assert_eq!(null_in(&found, DOWN), [1, 3, 5]);
    assert_eq!(null_in(&found, "after.weight"), NONE);
}

#[test]
fn what_arrives_null_is_null_for_every_expert_and_for_the_router() {
    let found = mixture(zero(&[("before.weight", &[2])]));
    assert_eq!(null_in(&found, GATE_UP), [2, 6]);
    for layer in ["gate", "shared_expert.up_proj", "shared_expert_gate"] {
        assert_eq!(null_in(&found, &format!("moe.{layer}.weight")), [2]);
    }
    // A row of an expert that reads nothing else is null, and so is its channel of that expert alone.
    let mut weights = zero(&[("before.weight", &[2])]);
    weights.reads.insert((GATE_UP.into(), 8), vec![2]);
    assert_eq!(null_in(&mixture(weights), DOWN), [5]);
}

#[test]
fn a_mixture_is_null_only_where_all_experts_are() {
    let shared = "moe.shared_expert.down_proj.weight";
    let of = |rows: &[(&str, &[usize])]| null_in(&mixture(zero(rows)), "after.weight");
    // Channel 3 of expert 0 is row 3, of expert 1 row 7.
    assert_eq!(of(&[(DOWN, &[1, 3, 7])]), NONE);
    assert_eq!(of(&[(DOWN, &[1, 3, 6, 7]), (shared, &[1, 3])]), [3]);
    assert_eq!(of(&[(shared, &[0, 1, 2, 3])]), NONE);
}

const GPT_OSS: &str = r#"{"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 8,
    "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "vocab_size": 16, "num_local_experts": 2, "num_experts_per_tok": 1}"#;

#[test]
fn gate_and_value_may_lie_in_turns_and_have_a_bias() {
    let gate_up = "model.layers.0.mlp.experts.gate_up_proj";
    let of = |rule, row: usize, bias: f64| {
        let mut weights = zero(&[(gate_up, &[row])]);
        let mut biases = vec![1.0; 12];
        biases[row] = bias;
        weights.vectors.insert(format!("{gate_up}_bias"), biases);
        let found = followed(None, GPT_OSS, rule, weights);
        let down = &found.layers["model.layers.0.mlp.experts.down_proj"];
        assert!(down.form.transposed && down.null_in.width() == 6);
        down.null_in.iter().collect::<Vec<_>>()
    };
    // Expert 1 has rows 6 to 11, its gates are the even ones: row 8 is its gate 1, channel 3 + 1. What gates are multiplied
    // with gets 1 added, so its zero closes nothing.
    assert_eq!(of(Rule::Weights, 8, 0.5), [4]);
    assert_eq!(of(Rule::Weights, 9, 0.0), NONE);
    assert_eq!(of(Rule::Exact, 8, 0.5), NONE);
    assert_eq!(of(Rule::Exact, 8, 0.0), [4]);
}
