//! `bitcost compare` against an independent recount of whole checkpoints, against the numbers that the document it came from
//! derives by hand, and on bad input.

mod common;

use common::weights::{Floats, floats};
use common::{Folder, at, fixture, int, json, list, parse, refused, run};
use serde_json::Value as Json;

#[test]
fn every_layer_of_every_case_counts_as_the_recount_does() {
    let folder = fixture("compare");
    let mut cases: Vec<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 14, "{cases:?}");
    let mut wrong = Vec::new();
    for case in &cases {
        let out = differences(case);
        if !out.is_empty() {
            wrong.push(format!("{case}:\n  {}", out.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn read(path: &str) -> Json {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Where a case's comparison differs from its recount.
fn differences(case: &str) -> Vec<String> {
    let file = |case: &str, name: &str| fixture(&format!("compare/{case}/{name}"));
    let want = read(&file(case, "expected.json"));
    let base = want["baseline"].as_str().unwrap_or(case);
    let base_want = read(&file(base, "expected.json"));
    let config = read(&file(case, "config.json"));
    let (base, model) = (
        file(base, "model.safetensors"),
        file(case, "model.safetensors"),
    );
    let input: Vec<String> = config["input"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Json::to_string)
        .collect();
    let input = input.join("x");
    let mut args = vec!["compare", &base, &model];
    match config["kind"].as_str() {
        Some("cifar_resnet") => args.extend(["--graph", "cifar-resnet", "--input", &input]),
        Some("toy") => args.extend(["--graph", "sequential", "--input", &input]),
        _ => args.extend(["--graph", "none"]),
    }
    args.extend(
        "--float-bits 32 --no-infer-bits --activation-bits 32 --bops live-nnz --format json"
            .split(' '),
    );
    let bits = file(case, "bits.json");
    if std::fs::exists(&bits).unwrap_or(false) {
        args.extend(["--bits", &bits]);
    }
    let ran = run(&args);
    if ran.code != Some(0) {
        return vec![format!("exit {:?}: {}", ran.code, ran.err)];
    }
    let got: Json = serde_json::from_str(&ran.out).expect("JSON");
    let mut out = Vec::new();
    let layers = |of: &Json| of["layers"].as_array().cloned().unwrap_or_default();
    let name = |layer: &Json| {
        let name = layer["name"].as_str().unwrap_or_default();
        name.strip_suffix(".weight").unwrap_or(name).to_string()
    };
    let (wanted, found) = (layers(&want), layers(&got));
    for layer in &wanted {
        match found.iter().find(|found| name(found) == name(layer)) {
            Some(found) => layer_differences(&name(layer), layer, found, &mut out),
            None => out.push(format!("{}: missing", name(layer))),
        }
    }
    for layer in &found {
        if !wanted.iter().any(|wanted| name(wanted) == name(layer)) {
            out.push(format!("{}: unexpected", name(layer)));
        }
    }
    for (side, want) in [("base", &base_want), ("compressed", &want)] {
        for key in ["macs", "bops"] {
            let (have, need) = (&got["totals"][side][key], &want[format!("total_{key}")]);
            same(&format!("totals.{side}.{key}"), have, need, &mut out);
        }
    }
    for key in ["macs", "bops"] {
        let total = |of: &Json| of[format!("total_{key}")].as_f64().expect("a total");
        let (need, have) = (
            total(&base_want) / total(&want),
            got["ratios"][key].as_f64(),
        );
        if total(&want) > 0.0 && have.is_none_or(|have| (have - need).abs() > 1e-9 * have) {
            out.push(format!("ratios.{key}: {have:?}, not {need}"));
        }
    }
    out
}

/// Claims that a printed number is a number of the recount, which writes some whole ones as floats.
fn same(what: &str, have: &Json, need: &Json, out: &mut Vec<String>) {
    if have != need && (have.as_f64().is_none() || have.as_f64() != need.as_f64()) {
        out.push(format!("{what}: {have}, not {need}"));
    }
}

fn layer_differences(name: &str, want: &Json, got: &Json, out: &mut Vec<String>) {
    let of = |value: &Json| value.as_u64().expect("a count");
    let (shape, kernel, spatial) = (&want["shape"], &want["kernel"], &want["spatial"]);
    let spots = of(&spatial[0]) * of(&spatial[1]);
    let live = |side: usize, null: &str| of(&shape[side]) - of(&want[null]);
    let structured = live(1, "null_in_channels")
        * live(0, "null_out_channels")
        * of(&kernel[0])
        * of(&kernel[1])
        * spots;
    let density = of(&want["nnz"]) * spots;
    for (key, have, need) in [
        ("nnz", &got["nnz"], &want["nnz"]),
        ("zeros", &got["zeros"], &want["zeros"]),
        ("null_in", &got["null_in"], &want["null_in_channels"]),
        ("null_out", &got["null_out"], &want["null_out_channels"]),
        ("macs.dense", &got["macs"]["dense"], &want["dense_macs"]),
        ("macs.live_nnz", &got["macs"]["live_nnz"], &want["macs"]),
        ("macs.density", &got["macs"]["density"], &density.into()),
        (
            "macs.structured",
            &got["macs"]["structured"],
            &structured.into(),
        ),
        ("weight_bits", &got["weight_bits"], &want["bitwidth"]),
        ("bops.compressed", &got["bops"]["compressed"], &want["bops"]),
    ] {
        same(&format!("{name}: {key}"), have, need, out);
    }
    for (key, list) in [
        ("null_in", "null_in_channels"),
        ("null_out", "null_out_channels"),
    ] {
        if want.get(key).is_some_and(|want| *want != got[list]) {
            out.push(format!("{name}: {list}: {}, not {}", got[list], want[key]));
        }
    }
}

/// What the document counts by: 32-bit floats and activations, one layer after the other on a 4 x 4 image.
const BY_HAND: &[&str] = &[
    "--graph",
    "sequential",
    "--input",
    "2x4x4",
    "--float-bits",
    "32",
    "--no-infer-bits",
    "--format",
    "json",
];

fn ones(count: usize) -> Vec<f32> {
    vec![1.0; count]
}

/// Ones, and zeros in the rows from `first` on.
fn ones_then_zeros(rows: usize, row: usize, first: usize) -> Vec<f32> {
    (0..rows * row)
        .map(|at| if at / row < first { 1.0 } else { 0.0 })
        .collect()
}

/// Compares two files of floats.
#[track_caller]
fn compared(base: &[Floats<'_>], other: &[Floats<'_>], args: &[&str]) -> bitcost::value::Value {
    let folder = Folder::new();
    let base = folder.write("base.safetensors", floats(base));
    let other = folder.write("other.safetensors", floats(other));
    json(&[&["compare", &base, &other], args].concat())
}

/// Compares two files of floats where that is refused.
#[track_caller]
fn compared_and_refused(
    base: &[Floats<'_>],
    other: &[Floats<'_>],
    args: &[&str],
    mentions: &[&str],
) {
    let folder = Folder::new();
    let base = folder.write("base.safetensors", floats(base));
    let other = folder.write("other.safetensors", floats(other));
    let ran = run(&[&["compare", &base, &other], args].concat());
    refused(&ran, 3, mentions);
}

/// One file of floats against itself.
#[track_caller]
fn counted(model: &[Floats<'_>]) -> bitcost::value::Value {
    compared(model, model, BY_HAND)
}

fn channels(value: &bitcost::value::Value, path: &str) -> Vec<i128> {
    list(value, path)
        .iter()
        .map(|channel| channel.as_int().expect("a channel"))
        .collect()
}

const CONV: &[usize] = &[4, 2, 3, 3];
const SECOND: &[usize] = &[8, 4, 3, 3];

#[test]
fn test_single_conv_dense() {
    let got = counted(&[("conv.weight", CONV, ones(72))]);
    assert_eq!(int(&got, "layers.0.weight_bits"), 32);
    assert_eq!(channels(&got, "layers.0.spatial"), [4, 4]);
    assert_eq!(int(&got, "layers.0.macs.live_nnz"), 1152);
    assert_eq!(int(&got, "layers.0.bops.compressed"), 1_179_648);
    assert_eq!(int(&got, "layers.0.null_out"), 0);
}

#[test]
fn test_single_conv_half_sparse() {
    let got = counted(&[("conv.weight", CONV, ones_then_zeros(4, 18, 2))]);
    assert_eq!(int(&got, "layers.0.macs.live_nnz"), 576);
    assert_eq!(int(&got, "layers.0.bops.compressed"), 589_824);
    assert_eq!(channels(&got, "layers.0.null_out_channels"), [2, 3]);
}

#[test]
fn test_two_conv_null_propagation() {
    let got = counted(&[
        ("conv1.weight", CONV, vec![0.0; 72]),
        ("conv2.weight", SECOND, ones(288)),
    ]);
    assert_eq!(channels(&got, "layers.0.null_out_channels"), [0, 1, 2, 3]);
    assert_eq!(int(&got, "layers.1.macs.live_nnz"), 0);
    assert_eq!(int(&got, "layers.1.null_out"), 8);
}

#[test]
fn test_two_conv_partial_null() {
    let got = counted(&[
        ("conv1.weight", CONV, ones_then_zeros(4, 18, 2)),
        ("conv2.weight", SECOND, ones(288)),
    ]);
    assert_eq!(channels(&got, "layers.1.null_in_channels"), [2, 3]);
    assert_eq!(int(&got, "layers.1.macs.live_nnz"), 2304);
    // By density the null inputs count all the same.
    assert_eq!(int(&got, "layers.1.macs.density"), 4608);
    assert_eq!(int(&got, "layers.1.macs.structured"), 2304);
}

#[test]
fn test_linear_layer() {
    let model: &[Floats<'_>] = &[("fc.weight", &[8, 4], ones(32))];
    let mut args = BY_HAND.to_vec();
    args[3] = "4";
    let got = compared(model, model, &args);
    assert_eq!(int(&got, "layers.0.weight_bits"), 32);
    assert_eq!(at(&got, "layers.0.spatial"), bitcost::value::Value::None);
    assert_eq!(int(&got, "layers.0.macs.live_nnz"), 32);
    assert_eq!(int(&got, "layers.0.bops.compressed"), 32_768);
}

#[test]
fn test_compression_ratio_simple() {
    let got = compared(
        &[("conv.weight", CONV, ones(72))],
        &[("conv.weight", CONV, ones_then_zeros(4, 18, 2))],
        BY_HAND,
    );
    assert_eq!(at(&got, "ratios.macs").to_f64(), Some(2.0));
    assert_eq!(at(&got, "ratios.bops").to_f64(), Some(2.0));
}

/// The smallest residual network of the document, one block per group, all weights 1; `zero` changes tensors.
fn small(zero: impl Fn(&str, &mut [f32])) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        let mut numbers = ones(shape.iter().product());
        zero(&name, &mut numbers);
        tensors.push((name, shape.to_vec(), numbers));
    };
    let norm = |add: &mut dyn FnMut(String, &[usize]), name: &str, channels: usize| {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{name}.{part}"), &[channels]);
        }
    };
    add("conv1.weight".into(), &[16, 3, 3, 3]);
    norm(&mut add, "bn1", 16);
    let mut width = 16;
    for (group, out) in [(1, 16), (2, 32), (3, 64)] {
        add(format!("layer{group}.0.conv1.weight"), &[out, width, 3, 3]);
        norm(&mut add, &format!("layer{group}.0.bn1"), out);
        add(format!("layer{group}.0.conv2.weight"), &[out, out, 3, 3]);
        norm(&mut add, &format!("layer{group}.0.bn2"), out);
        width = out;
    }
    add("linear.weight".into(), &[10, 64]);
    add("linear.bias".into(), &[10]);
    tensors
}

/// Counts of the small network, with a layer's null inputs taken out.
fn null_inputs(layer: &str, zero: impl Fn(&str, &mut [f32])) -> Vec<i128> {
    let model = small(zero);
    let model: Vec<Floats<'_>> = model
        .iter()
        .map(|(name, shape, numbers)| (&**name, &**shape, numbers.clone()))
        .collect();
    let got = compared(
        &model,
        &model,
        &[
            "--graph",
            "cifar-resnet",
            "--input",
            "3x32x32",
            "--format",
            "json",
        ],
    );
    let layers = list(&got, "layers");
    let found = layers
        .iter()
        .find(|found| at(found, "name").as_str() == Some(layer))
        .unwrap_or_else(|| panic!("no {layer}"));
    channels(found, "null_in_channels")
}

#[test]
fn test_skip_identity_restores_channels() {
    let null = null_inputs("layer2.0.conv1", |name, numbers| {
        if name == "layer1.0.conv2.weight" {
            numbers.fill(0.0);
        }
    });
    assert_eq!(null, []);
}

#[test]
fn test_skip_lambda_padded_channels_are_null() {
    let null = null_inputs("layer3.0.conv1", |name, numbers| {
        if name == "layer2.0.conv2.weight" {
            numbers.fill(0.0);
        }
    });
    assert_eq!(null, (0..8).chain(24..32).collect::<Vec<_>>());
}

#[test]
fn test_skip_both_paths_null_intersection() {
    let null = null_inputs("layer2.0.conv1", |name, numbers| match name {
        "conv1.weight" => numbers[..8 * 27].fill(0.0),
        "layer1.0.conv2.weight" => numbers.fill(0.0),
        _ => {}
    });
    assert_eq!(null, (0..8).collect::<Vec<_>>());
}

#[test]
fn test_skip_dense_shortcut_clears_all_null() {
    // The residual branch gives nothing, and its input too is null in half of its channels.
    let null = null_inputs("layer2.0.conv1", |name, numbers| match name {
        "layer1.0.conv1.weight" => numbers[..8 * 144].fill(0.0),
        "layer1.0.conv2.weight" => numbers.fill(0.0),
        _ => {}
    });
    assert_eq!(null, []);
}

/// A layer of the ResNet-20 with one convolution of zeros, against the dense one.
fn resnet20(zeroed: &str, change: Option<&str>) -> bitcost::value::Value {
    let dense = fixture("compare/resnet20_dense/model.safetensors");
    let folder = Folder::new();
    let other = match change {
        None => fixture(&format!("compare/{zeroed}/model.safetensors")),
        Some(layer) => {
            let bytes = std::fs::read(&dense).expect("a fixture");
            let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("a fixture");
            let changed: Vec<_> = tensors
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    let data = if name == layer {
                        vec![0; view.data().len()]
                    } else {
                        view.data().to_vec()
                    };
                    (name, view.dtype(), view.shape().to_vec(), data)
                })
                .collect();
            let views = changed.iter().map(|(name, dtype, shape, data)| {
                let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data);
                (name, view.expect("as it was"))
            });
            let file = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("written");
            folder.write("model.safetensors", file)
        }
    };
    json(&[
        "compare",
        &dense,
        &other,
        "--graph",
        "cifar-resnet",
        "--input",
        "3x32x32",
        "--float-bits",
        "32",
        "--no-infer-bits",
        "--format",
        "json",
    ])
}

fn named(got: &bitcost::value::Value, name: &str) -> bitcost::value::Value {
    list(got, "layers")
        .into_iter()
        .find(|layer| at(layer, "name").as_str() == Some(name))
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn test_skip_connection_stress() {
    // Task 7, step 3: the zeroed layer costs nothing, the one behind the identity shortcut costs all.
    let got = resnet20("", Some("layer1.0.conv2.weight"));
    assert_eq!(int(&got, "totals.base.macs"), 40_551_040);
    assert_eq!(int(&got, "totals.base.bops"), 41_524_264_960);
    assert_eq!(int(&got, "totals.compressed.macs"), 38_191_744);
    let zeroed = named(&got, "layer1.0.conv2");
    assert_eq!(int(&zeroed, "macs.live_nnz"), 0);
    assert_eq!(int(&zeroed, "null_out"), 16);
    let next = named(&got, "layer1.1.conv1");
    assert_eq!(int(&next, "null_in"), 0);
    assert_eq!(int(&next, "macs.live_nnz"), int(&next, "macs.dense"));
}

#[test]
fn test_lambda_layer_shortcut() {
    // Task 7, step 4: of the shortcut's 32 channels the 16 padded ones stay null.
    let got = resnet20("resnet20_zero_layer2.0.conv2", None);
    assert_eq!(int(&got, "totals.compressed.macs"), 37_012_096);
    let zeroed = named(&got, "layer2.0.conv2");
    assert_eq!(int(&zeroed, "macs.live_nnz"), 0);
    assert_eq!(int(&zeroed, "null_out"), 32);
    let next = named(&got, "layer2.1.conv1");
    assert_eq!(
        channels(&next, "null_in_channels"),
        (0..8).chain(24..32).collect::<Vec<_>>()
    );
    assert_eq!(channels(&named(&got, "conv1"), "spatial"), [32, 32]);
    assert_eq!(
        channels(&named(&got, "layer2.0.conv1"), "spatial"),
        [16, 16]
    );
}

#[test]
fn scattered_zeros_are_saved_by_density_and_not_by_structure() {
    // Two 3x3 convolutions, 2 channels throughout, 4x4 outputs, four non-zeros each that touch every row and channel:
    // 2 x 2 x 2 x 9 x 16 = 1,152 structured, 2 x 4 x 16 = 128 of non-zeros.
    let mut numbers = vec![0.0; 36];
    for (at, place) in [(0, 4), (1, 0), (2, 8), (3, 2)] {
        numbers[at * 9 + place] = 1.0;
    }
    let model: &[Floats<'_>] = &[
        ("conv1.weight", &[2, 2, 3, 3], numbers.clone()),
        ("conv2.weight", &[2, 2, 3, 3], numbers),
    ];
    let total = |key: &str| {
        let got = counted(model);
        (0..2)
            .map(|layer| int(&got, &format!("layers.{layer}.macs.{key}")))
            .sum::<i128>()
    };
    assert_eq!(total("dense"), 1152);
    assert_eq!(total("structured"), 1152);
    assert_eq!(total("density"), 128);
    assert_eq!(total("live_nnz"), 128);
    for (bops, macs) in [
        ("live-nnz", 128),
        ("density", 128),
        ("structured", 1152),
        ("product", 1152),
    ] {
        let mut args = BY_HAND.to_vec();
        args.extend(["--bops", bops]);
        let got = compared(model, model, &args);
        assert_eq!(int(&got, "totals.compressed.macs"), macs, "{bops}");
        assert_eq!(int(&got, "totals.compressed.bops"), macs * 1024, "{bops}");
    }
}

#[test]
fn everything_pruned_saves_without_end() {
    let base: &[Floats<'_>] = &[("conv.weight", CONV, ones(72))];
    let none: &[Floats<'_>] = &[("conv.weight", CONV, vec![0.0; 72])];
    let got = compared(base, none, BY_HAND);
    assert_eq!(at(&got, "ratios.macs"), bitcost::value::Value::None);
    assert_eq!(at(&got, "ratios.bops"), bitcost::value::Value::None);
    assert_eq!(int(&got, "totals.compressed.macs"), 0);
    let folder = Folder::new();
    let (base, none) = (
        folder.write("base.safetensors", floats(base)),
        folder.write("none.safetensors", floats(none)),
    );
    for format in ["table", "csv", "markdown"] {
        let ran = run(&[
            "compare",
            &base,
            &none,
            "--format",
            format,
            "--min-bop-ratio",
            "1000",
        ]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(
            !ran.out.contains("NaN") && !ran.out.contains("inf "),
            "{}",
            ran.out
        );
    }
    // Nothing of nothing: no gain, no loss.
    let got = json(&["compare", &none, &none, "--format", "json"]);
    assert_eq!(at(&got, "ratios.bops").to_f64(), Some(1.0));
}

#[test]
fn a_checkpoint_against_itself_saves_nothing() {
    let got = counted(&[("conv.weight", CONV, ones_then_zeros(4, 18, 1))]);
    for key in ["macs", "bops", "bytes"] {
        assert_eq!(
            at(&got, &format!("ratios.{key}")).to_f64(),
            Some(1.0),
            "{key}"
        );
    }
}

#[test]
fn what_is_no_number_is_not_zero_and_noted() {
    let numbers = vec![f32::NAN, f32::INFINITY, -0.0, 0.0, 1.0, f32::NEG_INFINITY];
    let got = counted(&[("fc.weight", &[2, 3], numbers)]);
    assert_eq!(int(&got, "layers.0.nnz"), 4);
    assert_eq!(int(&got, "layers.0.zeros"), 2);
    let notes = list(&got, "notes");
    let note = notes
        .iter()
        .find(|note| at(note, "code").as_str() == Some("not_finite"))
        .expect("a note");
    assert_eq!(at(note, "path").as_str(), Some("fc"));
    assert!(at(note, "message").to_string().contains('3'), "{note}");
}

#[test]
fn files_without_a_common_layer_are_refused() {
    let a: &[Floats<'_>] = &[("a.weight", &[2, 2], ones(4))];
    let b: &[Floats<'_>] = &[("b.weight", &[2, 2], ones(4))];
    compared_and_refused(
        a,
        b,
        &[],
        &["only the base has 1 layers: a", "--allow-missing"],
    );
    compared_and_refused(a, b, &["--allow-missing"], &["no layer in common"]);
    let vectors: &[Floats<'_>] = &[("a", &[4], ones(4))];
    compared_and_refused(vectors, vectors, &[], &["no layer in common"]);
}

#[test]
fn layers_of_one_side_are_listed_and_the_rest_is_compared_if_asked() {
    let one: &[Floats<'_>] = &[("a.weight", &[2, 2], ones(4))];
    let two: &[Floats<'_>] = &[
        ("a.weight", &[2, 2], ones(4)),
        ("b.weight", &[2, 2], ones(4)),
    ];
    compared_and_refused(two, one, &[], &["only the base has 1 layers: b"]);
    compared_and_refused(
        one,
        two,
        &[],
        &["only the compressed checkpoint has 1 layers: b"],
    );
    let got = compared(two, one, &["--allow-missing", "--format", "json"]);
    assert_eq!(list(&got, "layers").len(), 1);
    assert_eq!(at(&got, "notes.0.code").as_str(), Some("only_in_base"));
}

#[test]
fn totals_are_sums_of_the_layers_that_are_compared() {
    let one: &[Floats<'_>] = &[("a.weight", &[2, 2], ones(4))];
    let two: &[Floats<'_>] = &[
        ("a.weight", &[2, 2], ones(4)),
        ("b.weight", &[2, 2], ones(4)),
    ];
    let got = compared(two, one, &["--allow-missing", "--format", "json"]);
    // A layer that is missing in the candidate is no saving.
    assert_eq!(at(&got, "ratios.macs").to_f64(), Some(1.0));
}

#[test]
fn other_shapes_are_refused() {
    compared_and_refused(
        &[("a.weight", &[2, 2], ones(4))],
        &[("a.weight", &[2, 3], ones(6))],
        &[],
        &["layer a", "[2, 2]", "[2, 3]"],
    );
}

#[test]
fn bits_of_unknown_layers_or_of_no_bit_are_refused() {
    let model: &[Floats<'_>] = &[("conv1.weight", &[2, 2], ones(4))];
    for (bits, mentions) in [
        (r#"{"conv2": 4}"#, &["`conv2`", "did you mean"][..]),
        (r#"{"conv1": 0}"#, &["conv1", "1 to 64"]),
        (r#"{"conv1": 65}"#, &["conv1", "1 to 64"]),
        (r#"{"conv1": -1}"#, &["conv1", "1 to 64"]),
        (r#"{"conv1": "4"}"#, &["conv1", "1 to 64"]),
        (r#"{"conv1": 4.5}"#, &["conv1", "1 to 64"]),
        (r#"[4]"#, &["object"]),
        ("", &["bits.json"]),
    ] {
        let folder = Folder::new();
        let bits = folder.write("bits.json", bits);
        compared_and_refused(model, model, &["--bits", &bits], mentions);
    }
    compared_and_refused(
        model,
        model,
        &["--bits", "./not-there.json"],
        &["not-there"],
    );
}

#[test]
fn bits_of_a_file_are_those_of_the_compressed_layers() {
    let model: &[Floats<'_>] = &[("conv1.weight", &[2, 2], ones(4))];
    let folder = Folder::new();
    let bits = folder.write("bits.json", r#"{"conv1.weight": 4}"#);
    let got = compared(
        model,
        model,
        &["--bits", &bits, "--no-infer-bits", "--format", "json"],
    );
    assert_eq!(int(&got, "layers.0.weight_bits"), 4);
    assert_eq!(int(&got, "layers.0.base_weight_bits"), 32);
    assert_eq!(at(&got, "layers.0.bits_source").as_str(), Some("file"));
    assert_eq!(at(&got, "ratios.bops").to_f64(), Some(8.0));
}

#[test]
fn few_levels_are_a_quantized_weight_unless_told_otherwise() {
    let numbers: Vec<f32> = (0..150).map(|at| (at % 15) as f32 - 7.0).collect();
    let model: &[Floats<'_>] = &[("fc.weight", &[10, 15], numbers)];
    let got = compared(model, model, &["--format", "json"]);
    assert_eq!(int(&got, "layers.0.weight_bits"), 4);
    assert_eq!(at(&got, "layers.0.bits_source").as_str(), Some("levels"));
    let got = compared(model, model, &["--no-infer-bits", "--format", "json"]);
    assert_eq!(int(&got, "layers.0.weight_bits"), 32);
}

#[test]
fn gates_that_fail_exit_with_1_and_say_so() {
    let folder = Folder::new();
    let base = folder.write(
        "base.safetensors",
        floats(&[("conv.weight", CONV, ones(72))]),
    );
    let half = folder.write(
        "half.safetensors",
        floats(&[("conv.weight", CONV, ones_then_zeros(4, 18, 2))]),
    );
    for gate in ["--min-bop-ratio", "--min-mac-ratio"] {
        let with = |least: &str| {
            run(&[
                "compare",
                &base,
                &half,
                "--no-infer-bits",
                "--quiet",
                gate,
                least,
            ])
        };
        assert_eq!(with("2").code, Some(0));
        let ran = with("2.01");
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        assert!(
            ran.err.contains(gate) && ran.err.contains("half"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn several_candidates_are_a_list() {
    let folder = Folder::new();
    let base = folder.write(
        "base.safetensors",
        floats(&[("conv.weight", CONV, ones(72))]),
    );
    let got = parse(&run(&["compare", &base, &base, &base, "--format", "json"]).out);
    assert_eq!(int(&got, "1.totals.base.macs"), 72);
}

#[test]
fn odd_weights_are_left_out_or_counted_and_never_a_panic() {
    let model: &[Floats<'_>] = &[
        ("empty.weight", &[0, 4], vec![]),
        ("hollow.weight", &[4, 0], vec![]),
        ("scalar", &[], vec![1.0]),
        ("vector", &[3], ones(3)),
        ("five.weight", &[1, 2, 1, 2, 1], ones(4)),
        ("fc.weight", &[2, 2], ones(4)),
    ];
    for graph in ["none", "sequential", "auto"] {
        let folder = Folder::new();
        let file = folder.write("a.safetensors", floats(model));
        for format in ["json", "table", "csv", "markdown"] {
            let ran = run(&[
                "compare", &file, &file, "--graph", graph, "--format", format,
            ]);
            assert_eq!(ran.code, Some(0), "{graph} {format}: {}", ran.err);
            assert!(!ran.out.contains("NaN"), "{}", ran.out);
        }
    }
}

/// Two files of one matrix each, compared.
fn pair(base: &[f32], other: &[f32], args: &[&str]) -> common::Ran {
    let folder = Folder::new();
    let file = |name: &str, numbers: &[f32]| {
        folder.write(name, floats(&[("a.weight", &[2, 2], numbers.to_vec())]))
    };
    let (base, other) = (
        file("base.safetensors", base),
        file("other.safetensors", other),
    );
    run(&[&["compare", &base, &other], args].concat())
}

#[test]
fn weights_that_stop_being_numbers_are_infinitely_wrong() {
    let (one, broken) = ([1.0; 4], [1.0, 1.0, f32::NAN, 1.0]);
    let gate = ["--max-relative-error", "1e9", "--format", "json"];
    let ran = pair(&one, &broken, &gate);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("gate: a: relative error inf"),
        "{}",
        ran.err
    );
    let value: Json = serde_json::from_str(&ran.out).expect("JSON without NaN");
    let error = &value["layers"][0]["error"];
    assert!(
        error["relative_l2"].is_null() && error["max_abs"].is_null(),
        "{error}"
    );
    // What was no number before is no error.
    let ran = pair(&broken, &broken, &gate);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("not_finite_in_base"), "{}", ran.out);
    assert_eq!(pair(&broken, &one, &gate).code, Some(0));
}

#[test]
fn limits_that_nothing_can_fail_are_refused() {
    for gate in ["--max-relative-error", "--min-bop-ratio", "--min-mac-ratio"] {
        for limit in ["nan", "-1", "inf", "x"] {
            let limit = format!("{gate}={limit}");
            refused(
                &pair(&[1.0; 4], &[1.0; 4], &[&limit]),
                2,
                &["a number from 0 on"],
            );
        }
    }
}

#[test]
fn a_large_error_stays_readable() {
    let ran = pair(&[1e-30; 4], &[1e30; 4], &[]);
    assert!(
        ran.out.lines().all(|line| line.chars().count() < 121),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("1.0e62 %"), "{}", ran.out);
}

#[test]
fn weights_that_are_no_layers_without_a_graph_are_named() {
    let folder = Folder::new();
    let matrix: Floats<'_> = ("m.weight", &[2, 2], ones(4));
    let volume: Floats<'_> = ("five.weight", &[1, 1, 2, 1, 1], ones(2));
    let image: Floats<'_> = ("c.weight", &[1, 1, 1, 1], ones(1));
    let vector: Floats<'_> = ("v.weight", &[2], ones(2));
    let all = [matrix, volume, image, vector.clone()];
    let all = folder.write("all.safetensors", floats(&all));
    let graph = |name| common::stdout(&["compare", "--only", &all, "--graph", name]);
    assert!(graph("none").contains("note [not_layers] five.weight: 1 weights"));
    assert!(!graph("none").contains("no_input"));
    assert!(graph("sequential").contains("note [no_input] c.weight"));
    let vectors = folder.write("vectors.safetensors", floats(&[vector]));
    refused(
        &run(&["compare", "--only", &vectors]),
        3,
        &["vectors.safetensors", "no layer"],
    );
}

#[test]
fn a_layer_has_one_width_in_a_file_of_widths() {
    let folder = Folder::new();
    let bits = folder.write("bits.json", r#"{"a":4,"a.weight":5}"#);
    let ran = pair(&[1.0; 4], &[1.0; 4], &["--bits", &bits]);
    refused(&ran, 3, &["bits.json", "a stands twice"]);
}

#[test]
fn groups_that_do_not_divide_are_told_as_the_reason() {
    let good = fixture("packed/gptq_4bit_g32_sym");
    let folder = Folder::new();
    let file = std::fs::read(format!("{good}/model.safetensors")).expect("there");
    let all = safetensors::SafeTensors::deserialize(&file).expect("valid");
    // A row of scales and of zero points too many: five groups of 128 inputs.
    let odd = all.iter().map(|(name, view)| {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if name.contains("q_proj.scales") || name.contains("q_proj.qzeros") {
            data.extend_from_within(..data.len() / shape[0]);
            shape[0] += 1;
        }
        (name.to_string(), view.dtype(), shape, data)
    });
    let odd: Vec<_> = odd.collect();
    let views = odd.iter().map(|(name, dtype, shape, data)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data);
        (name, view.expect("a view"))
    });
    let odd = safetensors::serialize(views, None).expect("written");
    folder.write("model.safetensors", odd);
    for name in ["config.json", "quantize_config.json"] {
        folder.write(
            name,
            std::fs::read(format!("{good}/{name}")).expect("there"),
        );
    }
    let bad = folder.path().to_str().expect("text");
    let ran = run(&["compare", &good, bad]);
    refused(
        &ran,
        3,
        &["q_proj", "groups do not divide", "--allow-missing"],
    );
    let ran = run(&["compare", &good, bad, "--allow-missing"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("note [checkpoint]"), "{}", ran.out);
}

#[cfg(feature = "hub")]
mod downloads {
    use crate::common::Folder;
    use crate::common::hub::{CONFIG, GOOD_TOKEN, Gate, Hub, Repo, bitcost, model, run, weights};
    use crate::common::{TIME_LIMIT, refused, wait};

    /// Two models of one layer, whose weights stand in one file and in an index's shard.
    fn repos() -> [Repo; 2] {
        let shard = "model-00001-of-00001.safetensors";
        let name = "model.layers.0.self_attn.q_proj.weight";
        let index = format!(r#"{{"metadata":{{}},"weight_map":{{"{name}":"{shard}"}}}}"#);
        [
            model("org/base").large("model.safetensors", weights(1)),
            model("org/other")
                .large(shard, weights(1))
                .small("model.safetensors.index.json", index),
        ]
    }

    fn hub() -> Hub {
        let hub = Hub::start();
        repos().into_iter().for_each(|repo| hub.add(repo));
        hub
    }

    const ASK: [&str; 5] = ["compare", "org/base", "org/other", "--format", "json"];

    /// The counts of a comparison, whoever was compared.
    fn counts(text: &str) -> serde_json::Value {
        let mut value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value["base"].take();
        value["compressed"].take();
        value
    }

    #[test]
    fn weights_that_are_not_here_are_asked_for_and_not_fetched() {
        let (hub, home) = (hub(), Folder::new());
        let only = ["compare", "--only", "org/other"];
        for (args, id) in [(&ASK[..], "org/base"), (&only, "org/other")] {
            let fetch = format!("`bitcost fetch {id} --weights`");
            refused(&run(&hub, &home, args), 3, &[&fetch, "--download"]);
            // Nothing was left behind that would do without the network.
            let offline = [args, &["--offline"]].concat();
            refused(&run(&hub, &home, &offline), 3, &[id]);
        }
    }

    #[test]
    fn download_fetches_what_is_missing_into_the_cache_once() {
        let (hub, home) = (hub(), Folder::new());
        let ask = [&ASK[..], &["--download"]].concat();
        let ran = run(&hub, &home, &ask);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        let here = Folder::new();
        let sides =
            ["base", "other"].map(|name| here.write(&format!("{name}.safetensors"), weights(1)));
        here.write("config.json", CONFIG);
        let want = crate::common::stdout(&["compare", &sides[0], &sides[1], "--format", "json"]);
        assert_eq!(counts(&ran.out), counts(&want));
        // Both lie where `bitcost fetch` puts them, and nobody asks for them again.
        hub.forget();
        let again = run(&hub, &home, &ask);
        assert_eq!(again, ran);
        let without = run(&hub, &home, &ASK);
        assert_eq!(without, ran);
        assert!(hub.asked().is_empty(), "{:?}", hub.asked());
    }

    #[test]
    fn a_download_that_fails_is_told_as_fetch_tells_it() {
        let hub = Hub::start();
        let [base, mut other] = repos();
        other.gate = Gate::Gated;
        hub.add(base);
        hub.add(other);
        let home = Folder::new();
        let ask = [&ASK[..], &["--download"]].concat();
        let ran = run(&hub, &home, &ask);
        refused(&ran, 3, &["org/other"]);
        let mut with_token = bitcost(&hub, &home, &ask);
        with_token.env("HF_TOKEN", GOOD_TOKEN);
        assert_eq!(wait(with_token, TIME_LIMIT).code, Some(0));
        let offline = [&ask[..], &["--offline"]].concat();
        refused(&run(&hub, &home, &offline), 2, &["--download", "--offline"]);
    }

    #[test]
    fn a_repository_without_weights_is_told() {
        let hub = Hub::with(model("org/empty"));
        let home = Folder::new();
        let ran = run(
            &hub,
            &home,
            &["compare", "--only", "org/empty", "--download"],
        );
        refused(&ran, 3, &["no weights"]);
    }
}

#[test]
fn gate_and_value_that_a_file_keeps_as_one_weight_are_one_layer_of_both() {
    // Hidden size 6 makes an inner width of 16: rows 0 to 15 are the gate's, 16 to 31 the value's.
    let config = r#"{"architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 6, "num_hidden_layers": 1,
        "num_attention_heads": 1, "mlp_ratio": 4, "image_size": 14, "patch_size": 14, "use_swiglu_ffn": true}"#;
    let mut gate_value = ones(32 * 6);
    gate_value[6..2 * 6].fill(0.0);
    gate_value[18 * 6..19 * 6].fill(0.0);
    // By the exact rule the gate's channel 1 keeps its bias, and the value's channel 2 has none.
    let mut bias = ones(32);
    bias[18] = 0.0;
    let folder = Folder::new();
    folder.write("config.json", config);
    folder.write(
        "model.safetensors",
        floats(&[
            (
                "encoder.layer.0.mlp.weights_in.weight",
                &[32, 6],
                gate_value,
            ),
            ("encoder.layer.0.mlp.weights_in.bias", &[32], bias),
            ("encoder.layer.0.mlp.weights_out.weight", &[6, 16], ones(96)),
        ]),
    );
    let path = folder.path().to_str().expect("UTF-8");
    let by = |rule: &str| {
        let got = json(&[
            "compare",
            "--only",
            path,
            "--null-rule",
            rule,
            "--format",
            "json",
        ]);
        [
            "encoder.layer.0.mlp.weights_in",
            "encoder.layer.0.mlp.down_proj",
        ]
        .map(|name| named(&got, name))
    };
    let [both, down] = by("weights");
    assert_eq!(channels(&both, "null_out_channels"), [1, 18]);
    assert_eq!((int(&both, "nnz"), int(&both, "zeros")), (180, 12));
    // One patch and one token for the class: 2 positions.
    assert_eq!(int(&both, "macs.dense"), 2 * 192);
    assert_eq!(int(&both, "macs.live_nnz"), 2 * 180);
    assert_eq!(int(&both, "macs.structured"), 2 * 30 * 6);
    assert_eq!(channels(&down, "null_in_channels"), [1, 2]);
    assert_eq!(int(&down, "macs.live_nnz"), 2 * 14 * 6);
    let [_, down] = by("exact");
    assert_eq!(channels(&down, "null_in_channels"), [2]);
}

#[test]
fn a_model_of_audio_is_compared_at_a_second_of_it() {
    let config = r#"{"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "conv_dim": [24, 20, 16],
        "conv_kernel": [10, 3, 2], "conv_stride": [5, 4, 8], "num_feat_extract_layers": 3, "hidden_size": 60,
        "intermediate_size": 100, "num_attention_heads": 6, "num_hidden_layers": 1, "vocab_size": 29,
        "num_conv_pos_embeddings": 12, "num_conv_pos_embedding_groups": 4}"#;
    let mlp = "wav2vec2.encoder.layers.0.feed_forward";
    let (first, second) = (
        format!("{mlp}.intermediate_dense"),
        format!("{mlp}.output_dense"),
    );
    let weights = [&first, &second].map(|name| format!("{name}.weight"));
    let file = floats(&[
        (&weights[0], &[100, 60], ones_then_zeros(100, 60, 98)),
        (&weights[1], &[60, 100], ones(6000)),
    ]);
    let folder = Folder::new();
    folder.write("config.json", config);
    folder.write("model.safetensors", file);
    let path = folder.path().to_str().expect("UTF-8");
    let macs = |args: &[&str]| {
        let got = json(&[&["compare", "--only", path, "--format", "json"], args].concat());
        [&first, &second].map(|name| int(&named(&got, name), "macs.live_nnz"))
    };
    // 16000 samples, 3199 and 800 positions behind the first two convolutions, 100 frames; half as many give 50.
    assert_eq!(macs(&[]), [100 * 98 * 60; 2]);
    assert_eq!(macs(&["--seq-len", "8000"]), [50 * 98 * 60; 2]);
}
