//! `bitcost run` and `bitcost bench-kernel`: what comes out is the product of the weights that a file holds, by whichever kernel.

mod common;

use bitcost::kernels::{Isa, available};
use common::schema::conforms;
use common::weights::floats;
use common::{Folder, at, fixture, int, json, list, program, refused, run, stdout};
use safetensors::SafeTensors;
use std::time::Duration;

/// Weights of the example in the description of the format, four columns each; their absolute mean is 0.4753125.
const WEIGHTS: [[f32; 4]; 8] = [
    [0.9, -0.1, 0.4, -1.2],
    [0.05, 0.6, -0.7, 0.3],
    [-0.5, 0.2, 1.1, -0.02],
    [0.31, -0.33, 0.0, 0.8],
    [1.0, -0.9, 0.2, 0.1],
    [-0.25, 0.45, -0.55, 0.65],
    [0.3, 0.3, -0.3, -0.3],
    [2.0, -0.1, 0.1, -0.2],
];

/// Its outputs for the token 0.5, -1, 0.25, 2, whose codes are 32, -64, 16, 127.
const OUTPUTS: [f32; 8] = [
    -0.591_334, 0.351_806, -0.119_764, 1.669_208, 0.718_583, 0.112_279, -1.309_916, 0.239_528,
];

/// A folder with the example as a layer `fc` and its token as `x.safetensors`.
fn example() -> (Folder, String, String) {
    let folder = Folder::new();
    let weight = WEIGHTS.as_flattened().to_vec();
    let model = floats(&[("fc.weight", &[8, 4], weight)]);
    let model = folder.write("model.safetensors", &model);
    let x = floats(&[("x", &[1, 4], vec![0.5, -1.0, 0.25, 2.0])]);
    let x = folder.write("x.safetensors", &x);
    (folder, model, x)
}

/// The tensor `y` of a file: shape and numbers.
fn output(path: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("an output");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let y = file.tensor("y").expect("an output");
    let (words, _) = y.data().as_chunks::<4>();
    (
        y.shape().to_vec(),
        words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
    )
}

#[test]
fn the_worked_example_comes_out_of_every_kernel() {
    let (folder, model, x) = example();
    for kernel in available() {
        let y = folder.file("y.safetensors");
        let args = [
            "run",
            &model,
            "--input",
            &x,
            "--out",
            &y,
            "--kernel",
            kernel.name,
            "--format",
            "json",
            "--verify",
        ];
        let ran = json(&args);
        assert_eq!(at(&ran, "kernel").as_str(), Some(kernel.name));
        assert_eq!(at(&ran, "layer").as_str(), Some("fc"));
        // Counted by hand from the codes of the example.
        let codes = ["minus", "zero", "plus"].map(|code| int(&ran, &format!("codes.{code}")));
        assert_eq!(codes, [9, 10, 13]);
        assert_eq!(at(&ran, "verified"), bitcost::value::Value::Bool(true));
        let (shape, numbers) = output(&y);
        assert_eq!(shape, [1, 8]);
        for (given, expected) in numbers.iter().zip(OUTPUTS) {
            assert!(
                (given - expected).abs() < 1e-6,
                "{}: {numbers:?}",
                kernel.name
            );
        }
    }
}

#[test]
fn packed_layers_give_what_the_published_model_computes() {
    // Inputs and outputs of a projection as transformers computes them, in both meanings of the scale.
    let stored = std::fs::read(fixture("bitlinear/layer_io.safetensors")).expect("a fixture");
    let stored = SafeTensors::deserialize(&stored).expect("a safetensors file");
    let names: Vec<&str> = stored.names();
    assert!(!names.is_empty());
    let folder = Folder::new();
    for class in ["autobitlinear", "bitlinear"] {
        let (input, expected) = (
            format!("{class}.layers.0.self_attn.q_proj.in"),
            format!("{class}.layers.0.self_attn.q_proj.out"),
        );
        let numbers = |name: &str| -> (Vec<usize>, Vec<f32>) {
            let tensor = stored
                .tensor(name)
                .unwrap_or_else(|e| panic!("{name}: {e}; there are {names:?}"));
            let (words, _) = tensor.data().as_chunks::<4>();
            (
                tensor.shape().to_vec(),
                words.iter().map(|w| f32::from_le_bytes(*w)).collect(),
            )
        };
        let (shape, x) = numbers(&input);
        let (_, expected) = numbers(&expected);
        let x = folder.write("x.safetensors", floats(&[("x", &shape, x)]));
        let y = folder.file("y.safetensors");
        let model = fixture(&format!("bitnet_tiny/{class}"));
        let layer = "model.layers.0.self_attn.q_proj";
        let ran = json(&[
            "run", &model, "--layer", layer, "--input", &x, "--out", &y, "--format", "json",
            "--verify",
        ]);
        assert_eq!(at(&ran, "rule").as_str(), Some(class));
        assert_eq!(at(&ran, "source").as_str(), Some("ternary"));
        let (_, numbers) = output(&y);
        assert_eq!(numbers.len(), expected.len());
        let largest = expected.iter().fold(0f32, |most, y| most.max(y.abs()));
        for (given, expected) in numbers.iter().zip(&expected) {
            // Both compute 128 products of small integers exactly; what differs is the order of two scalings in 32 bits.
            assert!(
                (given - expected).abs() <= largest * 1e-6,
                "{class}: {given} {expected}"
            );
        }
    }
}

#[test]
fn predictions_are_those_of_inspect() {
    let model = fixture("bitnet_tiny/autobitlinear");
    let layer = "model.layers.1.mlp.down_proj";
    let ran = json(&[
        "run", &model, "--layer", layer, "--tokens", "5", "--format", "json",
    ]);
    assert_eq!(int(&ran, "predicted.macs"), 5 * 128 * 344);
    assert_eq!(int(&ran, "predicted.bops"), 5 * 128 * 344 * 2 * 8);
    assert_eq!(int(&ran, "predicted.read_bytes.weights"), 128 * 344 / 4);
    let inspected = json(&[
        "inspect",
        &model,
        "--expand",
        "--format",
        "json",
        "-b",
        "5",
        "-s",
        "1",
        "--weight-bits",
        "2",
        "--activation-bits",
        "8",
    ]);
    let rows = list(&inspected, "modules");
    let row = rows
        .iter()
        .find(|row| at(row, "path").as_str() == Some(layer))
        .expect("a row");
    assert_eq!(int(row, "macs"), int(&ran, "predicted.macs"));
    assert_eq!(int(row, "bops"), int(&ran, "predicted.bops"));
}

#[test]
fn rounding_is_told_and_finer_scales_lose_less() {
    let folder = Folder::new();
    // Rows of very different size, and every second one with columns of very different size: the fewer weights share a scale,
    // the better it fits them.
    let size = |row: usize, col: usize| match (row % 2, col / 16 % 2) {
        (0, _) => 100.0,
        (_, 0) => 10.0,
        _ => 1.0,
    };
    let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) * size(i / 48, i % 48);
    let weight: Vec<f32> = (0..64 * 48).map(number).collect();
    let model = folder.write("m.safetensors", floats(&[("fc.weight", &[64, 48], weight)]));
    let error = |granularity: &str| {
        let args = [
            "run",
            &model,
            "--verify",
            "--format",
            "json",
            "--weight-granularity",
            granularity,
        ];
        let told: serde_json::Value = serde_json::from_str(&stdout(&args)).expect("JSON");
        assert_eq!(told["verified"], true, "{granularity}");
        told["weight_error"].as_f64().expect("an error")
    };
    let (tensor, row, group) = (error("per_tensor"), error("per_row"), error("per_group_16"));
    assert!(0.1 < row && row < tensor && tensor < 1.0, "{tensor} {row}");
    assert!(group < row, "{row} {group}");
}

#[test]
fn outputs_of_run_and_bench_kernel_conform_to_their_schemas() {
    let model = fixture("bitnet_tiny/bitlinear");
    let layer = "model.layers.0.mlp.up_proj";
    conforms(
        "run",
        &[
            "run", &model, "--layer", layer, "--tokens", "2", "--format", "json",
        ],
    );
    let folder = Folder::new();
    let weight = folder.write("w.safetensors", floats(&[("w", &[3, 5], vec![0.5; 15])]));
    conforms("run", &["run", &weight, "--format", "json", "--verify"]);
}

#[test]
fn kernels_are_checked_and_timed() {
    let args = [
        "bench-kernel",
        "--shape",
        "1x64x160,9x64x160",
        "--threads",
        "1,2",
        "--kernel",
        "scalar-2.0,scalar-1.6",
        "--cold-mib",
        "1",
        "--format",
        "json",
        "-q",
    ];
    conforms("bench-kernel", &args);
    let ran = common::wait(program(&args), Duration::from_secs(120));
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let results = told["results"].as_array().expect("results");
    // Two shapes, two numbers of threads, two kernels, cold and hot.
    assert_eq!(results.len(), 16);
    for result in results {
        assert_eq!(result["checked_rows"], 64);
        assert!(
            result["median_us"].as_f64().is_some_and(|us| us > 0.0),
            "{result}"
        );
        let macs = result["m"].as_f64().unwrap() * 64.0 * 160.0;
        let rate = macs / result["median_us"].as_f64().unwrap() / 1e3;
        assert!((result["gmac_s"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9);
        assert!(
            result["peak_ratio"].is_null(),
            "the scalar kernel has no instruction of its own"
        );
    }
}

#[test]
fn a_models_own_layers_are_the_ternary_ones() {
    let model = fixture("bitnet_tiny/autobitlinear");
    let ran = json(&[
        "bench-kernel",
        "--model-id",
        &model,
        "--kernel",
        "scalar-2.0",
        "--cold-mib",
        "1",
        "--threads",
        "1",
        "--format",
        "json",
        "-q",
    ]);
    let mut sizes: Vec<(i128, i128)> = list(&ran, "results")
        .iter()
        .map(|r| (int(r, "n"), int(r, "k")))
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [(64, 128), (128, 128), (128, 344), (344, 128)]);
}

#[test]
fn the_kernel_of_the_environment_is_taken() {
    let (_folder, model, _) = example();
    let mut command = program(&["run", &model, "--format", "json"]);
    command.env("BITCOST_KERNEL", "scalar-1.6");
    let ran = common::wait(command, common::TIME_LIMIT);
    assert!(
        ran.out.contains("\"kernel\": \"scalar-1.6\""),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn what_cannot_run_is_an_error_that_says_why() {
    let (folder, model, x) = example();
    let tiny = fixture("bitnet_tiny/bitlinear");
    let q = "model.layers.0.self_attn.q_proj";
    refused(
        &run(&["run", &tiny, "--layer", "model.layers.0.self_attn.q_prj"]),
        3,
        &["did you mean", q],
    );
    refused(
        &run(&["run", &tiny, "--layer", "model.norm"]),
        3,
        &["no matrix", "[128]"],
    );
    refused(&run(&["run", &tiny]), 2, &["--layer", "15 matrices"]);
    refused(
        &run(&["run", &model, "--kernel", "avx9000"]),
        2,
        &["no kernel `avx9000`", "scalar-2.0"],
    );
    refused(
        &run(&["run", &model, "--kernel", "scalar-2.0", "--packing", "1.6"]),
        2,
        &["reads weights of 2.0 bits"],
    );
    refused(&run(&["run", &model, "--packing", "3"]), 2, &["2.0 or 1.6"]);
    refused(&run(&["run", &model, "--tokens", "0"]), 2, &["from 1 on"]);
    refused(&run(&["run", &model, "--threads", "0"]), 2, &["1 to 1024"]);
    refused(
        &run(&["run", &tiny, "--layer", q, "--input", &x]),
        3,
        &["[1, 4]", "128 features"],
    );
    refused(
        &run(&["run", &model, "--weight-granularity", "per_group_0"]),
        2,
        &["per_group_0"],
    );
    refused(
        &run(&["run", &model, "--input", &folder.file("none.safetensors")]),
        3,
        &["none.safetensors"],
    );
    refused(
        &run(&["run", &model, "--tokens", "99999999999999"]),
        2,
        &["take fewer tokens"],
    );
    refused(
        &run(&["bench-kernel", "--shape", "99999999999999x1x1"]),
        2,
        &["no two sizes"],
    );
    refused(
        &run(&["bench-kernel", "--shape", "1x2"]),
        2,
        &["1x2560x6912"],
    );
    refused(
        &run(&["bench-kernel", "--shape", "1x4x600000", "-q"]),
        3,
        &["600000 columns are more"],
    );
    refused(
        &run(&["bench-kernel", "--kernel", "scalar-2.0", "--packing", "1.6"]),
        2,
        &["no kernel that was named"],
    );
    for (name, wrong, says) in [
        ("nan.safetensors", f32::NAN, "feature 2 of token 0 is NaN"),
        (
            "inf.safetensors",
            f32::INFINITY,
            "feature 2 of token 0 is inf",
        ),
    ] {
        let x = folder.write(name, floats(&[("x", &[1, 4], vec![0.0, 1.0, wrong, 1.0])]));
        refused(&run(&["run", &model, "--input", &x]), 3, &[says]);
        let weight = floats(&[("fc.weight", &[1, 4], vec![0.0, 1.0, wrong, 1.0])]);
        let weight = folder.write(name, &weight);
        refused(&run(&["run", &weight]), 3, &["fc", "row 0, column 2"]);
    }
}

#[test]
fn a_matrix_without_rows_or_columns_is_refused() {
    let folder = Folder::new();
    for shape in [[8, 0], [0, 4]] {
        let model = folder.write(
            "m.safetensors",
            floats(&[("fc.weight", &shape, Vec::new())]),
        );
        refused(&run(&["run", &model]), 3, &["fc", "has no product"]);
    }
}

#[test]
fn what_a_config_says_of_scales_is_not_guessed() {
    let folder = Folder::new();
    let tiny = fixture("bitnet_tiny/bitlinear");
    std::fs::copy(
        format!("{tiny}/model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .expect("copied");
    let config = std::fs::read_to_string(format!("{tiny}/config.json")).expect("a config");
    let layer = "model.layers.0.self_attn.q_proj";
    let here = folder.file("");
    for (from, to, says) in [
        ("\"bitlinear\"", "\"auto_bit_linear\"", "auto_bit_linear"),
        (
            "\"linear_class\"",
            "\"use_rms_norm\": true, \"linear_class\"",
            "normalize",
        ),
    ] {
        let changed = config.replace(from, to);
        assert_ne!(changed, config, "{from}");
        folder.write("config.json", changed);
        refused(&run(&["run", &here, "--layer", layer]), 3, &[says]);
    }
}

#[test]
fn what_is_read_is_not_written_over() {
    let (_folder, model, x) = example();
    refused(
        &run(&["run", &model, "--out", &model]),
        2,
        &["name another file"],
    );
    refused(
        &run(&["run", &model, "--input", &x, "--out", &x]),
        2,
        &["name another file"],
    );
}

#[test]
fn a_model_that_cannot_be_predicted_runs_all_the_same() {
    let (folder, _, _) = example();
    folder.write(
        "config.json",
        r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": "many"}"#,
    );
    let ran = json(&["run", &folder.file(""), "--layer", "fc", "--format", "json"]);
    assert_eq!(at(&ran, "predicted"), bitcost::value::Value::None);
    let notes = list(&ran, "notes");
    assert_eq!(at(&notes[0], "code").as_str(), Some("not_predicted"));
}

#[test]
fn what_is_named_twice_is_timed_once() {
    let args = [
        "bench-kernel",
        "--shape",
        "1x32x16,2x16x16,3x32x16,1x32x16",
        "--threads",
        "1",
        "--kernel",
        "scalar-2.0,scalar-2.0",
        "--cold-mib",
        "1",
        "--format",
        "json",
        "-q",
    ];
    let ran = json(&args);
    let sizes: Vec<_> = list(&ran, "results")
        .iter()
        .map(|r| (int(r, "m"), int(r, "n"), int(r, "k")))
        .collect();
    // Cold and hot beside each other, shapes as they were named.
    assert_eq!(
        sizes,
        [
            (1, 32, 16),
            (1, 32, 16),
            (2, 16, 16),
            (2, 16, 16),
            (3, 32, 16),
            (3, 32, 16)
        ]
    );
    let codes: Vec<_> = list(&ran, "notes")
        .iter()
        .filter_map(|n| at(n, "code").as_str().map(String::from))
        .collect();
    assert!(codes.contains(&"not_cold".into()), "{codes:?}");
    assert!(
        list(&ran, "results")
            .iter()
            .all(|r| at(r, "probe_ratio") == bitcost::value::Value::None)
    );
}

#[test]
fn a_code_that_is_no_weight_is_named() {
    // The same layer with a byte 0xff among its codes.
    let folder = Folder::new();
    let source =
        std::fs::read(fixture("bitnet_tiny/bitlinear/model.safetensors")).expect("a fixture");
    let file = SafeTensors::deserialize(&source).expect("a safetensors file");
    let layer = "model.layers.0.self_attn.q_proj";
    let codes = file.tensor(&format!("{layer}.weight")).expect("codes");
    let from = codes.data().as_ptr() as usize - source.as_ptr() as usize;
    let mut broken = source.clone();
    broken[from + 17] = 0xff;
    folder.write("model.safetensors", &broken);
    let config =
        std::fs::read_to_string(fixture("bitnet_tiny/bitlinear/config.json")).expect("a config");
    folder.write("config.json", &config);
    refused(
        &run(&["run", &folder.file(""), "--layer", layer]),
        3,
        &[layer, "byte 17", "0xff"],
    );
}

#[test]
fn a_token_of_zeros_and_weights_of_zeros_give_zeros() {
    let folder = Folder::new();
    let zeros = |name: &str, tensor: &str, shape: &[usize]| {
        let count = shape.iter().product();
        folder.write(name, floats(&[(tensor, shape, vec![0.0; count])]))
    };
    let (_other, model, _) = example();
    let (weights, x) = (
        zeros("w.safetensors", "fc.weight", &[8, 4]),
        zeros("x.safetensors", "x", &[1, 4]),
    );
    for args in [
        ["run", &model, "--input", &x],
        ["run", &weights, "--tokens", "1"],
    ] {
        let y = folder.file("y.safetensors");
        let args: Vec<&str> = args.into_iter().chain(["--out", &y, "-q"]).collect();
        assert_eq!(run(&args).code, Some(0));
        assert_eq!(output(&y).1, [0.0; 8]);
    }
}

#[test]
fn more_threads_than_cores_are_said() {
    let (_folder, model, _) = example();
    let text = stdout(&["run", &model, "--threads", "64"]);
    assert!(text.contains("64 threads share"), "{text}");
}

#[test]
fn a_machine_without_wide_vectors_says_what_it_lacks() {
    let lacking = bitcost::kernels::KERNELS.iter().find(|kernel| {
        kernel.isa != Isa::Scalar && !available().iter().any(|found| found.name == kernel.name)
    });
    let Some(kernel) = lacking else {
        common::skipped(
            "this machine runs every kernel of its architecture, so none is refused here",
        );
        return;
    };
    let (_folder, model, _) = example();
    refused(
        &run(&["run", &model, "--kernel", kernel.name]),
        3,
        &[kernel.name, kernel.needs],
    );
}
