//! `bitcost deploy`: the packed bytes are those of transformers, everything else is what it was, and nothing is left behind
//! where it cannot be done.

mod common;

use bitcost::value::Value;
use common::weights::floats;
use common::{Folder, Ran, at, fixture, int, json, list, parse, program, refused, run, wait};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor as a file holds it: dtype, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// All tensors of the safetensors files of a folder, or of one file.
#[track_caller]
fn tensors(path: impl AsRef<Path>) -> BTreeMap<String, Stored> {
    let path = path.as_ref();
    let files: Vec<_> = if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    } else {
        vec![path.to_path_buf()]
    };
    let mut all = BTreeMap::new();
    for file in files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "safetensors"))
    {
        let bytes = fs::read(file).expect("a file");
        // The library of the format reads it: headers, offsets and lengths are what it expects.
        let read = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        for (name, view) in read.tensors() {
            let stored = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(
                all.insert(name.clone(), stored).is_none(),
                "{name} stands twice"
            );
        }
    }
    all
}

/// Names of the files of a folder, hidden ones included.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("readable");
    let mut names: Vec<String> = entries
        .map(|entry| name(entry.expect("an entry")))
        .collect();
    names.sort();
    names
}

/// Packs a fixture and holds it against what transformers packs of the same floats.
#[track_caller]
fn equals_transformers(name: &str, class: &str) {
    let folder = Folder::new();
    let (source, packed) = (fixture(&format!("deploy/{name}")), folder.file("packed"));
    let told = json(&[
        "deploy",
        &source,
        "-o",
        &packed,
        "--linear-class",
        class,
        "--format",
        "json",
    ]);
    let expected = tensors(fixture("deploy/expected.safetensors"));
    let (mut before, mut after) = (tensors(&source), tensors(&packed));
    let scale_of = match class {
        "autobitlinear" => "mean",
        _ => "reciprocal",
    };
    let layers = list(&told, "layers");
    assert_eq!(layers.len(), 14, "seven projections in each of two layers");
    for layer in &layers {
        let path = at(layer, "name");
        let path = path.as_str().expect("a path");
        let codes = after.remove(&format!("{path}.weight"));
        assert_eq!(
            codes.as_ref(),
            expected.get(&format!("{name}.{path}.codes")),
            "{path}"
        );
        let scale = after.remove(&format!("{path}.weight_scale"));
        let scale = scale.expect("its scale");
        let wanted = &expected[&format!("{name}.{path}.{scale_of}")];
        assert_eq!((scale.0, &scale.1), (wanted.0, &wanted.1), "{path}");
        // torch sums in 32 bits, the program in 64: the last of the 24 bits of a mean may differ, and the last two of its
        // reciprocal. A BF16 does not show it here.
        let bits = |stored: &Stored| match stored.0 {
            Dtype::F32 => u32::from_le_bytes(stored.2[..4].try_into().expect("a float")),
            _ => u16::from_le_bytes(stored.2[..2].try_into().expect("a float")).into(),
        };
        let apart = bits(&scale).abs_diff(bits(wanted));
        let most = match (scale.0, class) {
            (Dtype::F32, "autobitlinear") => 1,
            (Dtype::F32, _) => 2,
            _ => 0,
        };
        assert!(apart <= most, "{path}: {apart} steps apart");
        let weight = before
            .remove(&format!("{path}.weight"))
            .expect("its float weight");
        let elements: usize = weight.1.iter().product();
        let counted =
            int(layer, "codes.minus") + int(layer, "codes.zero") + int(layer, "codes.plus");
        assert_eq!(counted, elements as i128, "{path}");
        assert_eq!(int(layer, "bytes_before"), weight.2.len() as i128);
        let scale_bytes = scale.2.len();
        assert_eq!(
            int(layer, "bytes_after"),
            (elements / 4 + scale_bytes) as i128
        );
        let bias = format!("{path}.bias");
        if class == "autobitlinear" && before.contains_key(&bias) {
            // Divided by the scale; what comes of it is held against transformers by fixtures/deploy/check.py.
            let (was, is) = (before.remove(&bias), after.remove(&bias));
            let (was, is) = (was.expect("a bias"), is.expect("a bias"));
            assert_eq!((was.0, &was.1), (is.0, &is.1), "{bias}");
            assert_ne!(was.2, is.2, "{bias}");
        }
    }
    assert_eq!(after, before, "everything else is copied byte for byte");
}

#[test]
fn packed_weights_and_scales_are_those_of_transformers() {
    for name in ["f32", "bf16"] {
        for class in ["autobitlinear", "bitlinear"] {
            equals_transformers(name, class);
        }
    }
}

#[test]
fn a_bias_inside_the_scale_is_divided_by_it() {
    let folder = Folder::new();
    let (source, packed) = (fixture("deploy/f32"), folder.file("packed"));
    json(&["deploy", &source, "-o", &packed, "--format", "json"]);
    let number = |stored: &Stored| f32::from_le_bytes(stored.2[..4].try_into().expect("a float"));
    let (before, after) = (tensors(&source), tensors(&packed));
    let layer = "model.layers.1.self_attn.k_proj";
    let scale = number(&after[&format!("{layer}.weight_scale")]);
    let bias = format!("{layer}.bias");
    assert_eq!(number(&after[&bias]), number(&before[&bias]) / scale);
}

#[test]
fn shards_stay_shards_with_an_index_of_what_they_hold() {
    let folder = Folder::new();
    let (source, packed) = (fixture("deploy/f32"), folder.file("packed"));
    let told = json(&["deploy", &source, "-o", &packed, "--format", "json"]);
    assert_eq!(names(&packed), names(&source));
    let index = fs::read_to_string(Path::new(&packed).join("model.safetensors.index.json"));
    let index = parse(&index.expect("an index"));
    let mut bytes = 0;
    let mut listed = 0;
    for file in names(&packed)
        .iter()
        .filter(|name| name.ends_with(".safetensors"))
    {
        for (name, (_, _, data)) in tensors(Path::new(&packed).join(file)) {
            let Value::Object(map) = at(&index, "weight_map") else {
                panic!("no map");
            };
            assert_eq!(
                map.get(&name).and_then(Value::as_str),
                Some(file.as_str()),
                "{name}"
            );
            bytes += data.len();
            listed += 1;
        }
    }
    let Value::Object(map) = at(&index, "weight_map") else {
        panic!("no map");
    };
    assert_eq!(map.0.len(), listed);
    assert_eq!(int(&index, "metadata.total_size"), bytes as i128);
    let old = fs::read_to_string(Path::new(&source).join("model.safetensors.index.json"));
    let old = parse(&old.expect("an index"));
    assert_eq!(
        int(&index, "metadata.total_parameters"),
        int(&old, "metadata.total_parameters")
    );
    let copied = list(&told, "copied");
    assert_eq!(copied, [Value::str("generation_config.json")]);
}

#[test]
fn the_config_says_how_weights_are_packed_and_keeps_the_rest() {
    let folder = Folder::new();
    let (source, packed) = (fixture("deploy/bf16"), folder.file("packed"));
    json(&[
        "deploy",
        &source,
        "-o",
        &packed,
        "--linear-class",
        "bitlinear",
        "--format",
        "json",
    ]);
    let config = |folder: &str| {
        let text = fs::read_to_string(Path::new(folder).join("config.json"));
        text.expect("a config")
    };
    let (before, after) = (parse(&config(&source)), parse(&config(&packed)));
    let (Value::Object(before), Value::Object(mut after)) = (before, after) else {
        panic!("configs are objects");
    };
    let settings = after.get("quantization_config").cloned().expect("settings");
    std::sync::Arc::make_mut(&mut after)
        .0
        .retain(|(key, _)| &**key != "quantization_config");
    assert_eq!(after, before);
    assert_eq!(at(&settings, "quant_method"), Value::str("bitnet"));
    assert_eq!(at(&settings, "linear_class"), Value::str("bitlinear"));
    assert_eq!(at(&settings, "quantization_mode"), Value::str("offline"));
    assert_eq!(
        list(&settings, "modules_to_not_convert"),
        [Value::str("lm_head")]
    );
    // Numbers keep their text: an exact reader would not see that 1e-05 became 0.00001.
    assert!(config(&packed).contains("\"rms_norm_eps\": 1e-05,"));
}

#[test]
fn the_analyzer_finds_the_packed_model_as_its_config_says() {
    let folder = Folder::new();
    for name in ["f32", "bf16"] {
        let packed = folder.file(name);
        json(&[
            "deploy",
            &fixture(&format!("deploy/{name}")),
            "-o",
            &packed,
            "--format",
            "json",
        ]);
        let analysis = json(&[
            "inspect", &packed, "--strict", "--expand", "--format", "json",
        ]);
        let modules = list(&analysis, "modules");
        let class = |class: &str| {
            let ends = |module: &&Value| {
                let name = at(module, "class");
                name.as_str().is_some_and(|name| name.ends_with(class))
            };
            modules.iter().filter(ends).count()
        };
        assert_eq!(
            (class("AutoBitLinear"), class(".Linear")),
            (14, 1),
            "{name}"
        );
    }
}

/// A config of a small model with one layer, and its tensors.
struct Tiny {
    intermediate: usize,
    settings: &'static str,
}

const TINY: Tiny = Tiny {
    intermediate: 12,
    settings: "",
};

impl Tiny {
    fn config(&self) -> String {
        format!(
            r#"{{"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_size": 8, "intermediate_size": {},
"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 16,
"tie_word_embeddings": true, "torch_dtype": "float32"{}}}"#,
            self.intermediate, self.settings
        )
    }

    fn tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let (h, i) = (8, self.intermediate);
        vec![
            ("model.embed_tokens.weight", vec![5, h]),
            ("model.layers.0.input_layernorm.weight", vec![h]),
            ("model.layers.0.mlp.down_proj.weight", vec![h, i]),
            ("model.layers.0.mlp.ffn_sub_norm.weight", vec![i]),
            ("model.layers.0.mlp.gate_proj.weight", vec![i, h]),
            ("model.layers.0.mlp.up_proj.weight", vec![i, h]),
            ("model.layers.0.post_attention_layernorm.weight", vec![h]),
            ("model.layers.0.self_attn.attn_sub_norm.weight", vec![h]),
            ("model.layers.0.self_attn.k_proj.weight", vec![4, h]),
            ("model.layers.0.self_attn.o_proj.weight", vec![h, h]),
            ("model.layers.0.self_attn.q_proj.weight", vec![h, h]),
            ("model.layers.0.self_attn.v_proj.weight", vec![4, h]),
            ("model.norm.weight", vec![h]),
        ]
    }

    /// A folder with it; `change` may change the numbers of a tensor.
    fn write(&self, folder: &Folder, name: &str, change: impl Fn(&str, &mut [f32])) -> String {
        write_model(folder, name, &self.config(), &self.tensors(), change)
    }
}

/// A folder with a model of such a config and such tensors.
fn write_model(
    folder: &Folder,
    name: &str,
    config: &str,
    tensors: &[(&'static str, Vec<usize>)],
    change: impl Fn(&str, &mut [f32]),
) -> String {
    let path = folder.file(name);
    fs::create_dir(&path).expect("a new folder");
    let numbers = |name: &str, shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        // Zigzag: all three codes occur.
        let mut numbers: Vec<f32> = (0..count).map(|n| (n * 7 % 11) as f32 - 5.0).collect();
        change(name, &mut numbers);
        numbers
    };
    let all: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| (*name, shape.as_slice(), numbers(name, shape)))
        .collect();
    fs::write(format!("{path}/model.safetensors"), floats(&all)).expect("written");
    fs::write(format!("{path}/config.json"), config).expect("written");
    path
}

/// What is kept of a model, and what its config spares.
#[track_caller]
fn kept_and_spared(folder: &Folder, source: &str) -> (Vec<Value>, Vec<Value>) {
    let packed = folder.file("packed");
    let told = json(&["deploy", source, "-o", &packed, "--format", "json"]);
    let config = fs::read_to_string(format!("{packed}/config.json")).expect("a config");
    let spared = list(
        &parse(&config),
        "quantization_config.modules_to_not_convert",
    );
    let kept = list(&told, "kept")
        .iter()
        .map(|layer| at(layer, "name"))
        .collect();
    let analysis = run(&["inspect", &packed, "--strict", "--format", "json"]);
    assert_eq!(analysis.code, Some(0), "{}", analysis.err);
    (kept, spared)
}

#[test]
fn the_head_that_a_task_adds_stays_as_it_is() {
    let folder = Folder::new();
    let config = TINY
        .config()
        .replace("BitNetForCausalLM", "LlamaForSequenceClassification")
        .replace("\"bitnet\"", "\"llama\", \"num_labels\": 4");
    let mut tensors = TINY.tensors();
    tensors.retain(|(name, _)| !name.contains("sub_norm"));
    tensors.push(("score.weight", vec![4, 8]));
    let source = write_model(&folder, "classifier", &config, &tensors, |_, _| ());
    let (kept, spared) = kept_and_spared(&folder, &source);
    assert_eq!(kept, [Value::str("score")]);
    assert_eq!(spared, ["lm_head", "score"].map(Value::str));
}

#[test]
fn a_weight_that_is_tied_to_an_embedding_stays_as_it_is() {
    let folder = Folder::new();
    let config = r#"{"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 8, "intermediate_size": 12,
"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 5, "max_position_embeddings": 16, "type_vocab_size": 2}"#;
    let vector = |name| (name, vec![8]);
    let square = |name| (name, vec![8, 8]);
    let tensors = [
        ("bert.embeddings.word_embeddings.weight", vec![5, 8]),
        ("bert.embeddings.position_embeddings.weight", vec![16, 8]),
        ("bert.embeddings.token_type_embeddings.weight", vec![2, 8]),
        vector("bert.embeddings.LayerNorm.weight"),
        vector("bert.embeddings.LayerNorm.bias"),
        square("bert.encoder.layer.0.attention.self.query.weight"),
        vector("bert.encoder.layer.0.attention.self.query.bias"),
        square("bert.encoder.layer.0.attention.self.key.weight"),
        vector("bert.encoder.layer.0.attention.self.key.bias"),
        square("bert.encoder.layer.0.attention.self.value.weight"),
        vector("bert.encoder.layer.0.attention.self.value.bias"),
        square("bert.encoder.layer.0.attention.output.dense.weight"),
        vector("bert.encoder.layer.0.attention.output.dense.bias"),
        vector("bert.encoder.layer.0.attention.output.LayerNorm.weight"),
        vector("bert.encoder.layer.0.attention.output.LayerNorm.bias"),
        (
            "bert.encoder.layer.0.intermediate.dense.weight",
            vec![12, 8],
        ),
        ("bert.encoder.layer.0.intermediate.dense.bias", vec![12]),
        ("bert.encoder.layer.0.output.dense.weight", vec![8, 12]),
        vector("bert.encoder.layer.0.output.dense.bias"),
        vector("bert.encoder.layer.0.output.LayerNorm.weight"),
        vector("bert.encoder.layer.0.output.LayerNorm.bias"),
        square("cls.predictions.transform.dense.weight"),
        vector("cls.predictions.transform.dense.bias"),
        vector("cls.predictions.transform.LayerNorm.weight"),
        vector("cls.predictions.transform.LayerNorm.bias"),
        ("cls.predictions.bias", vec![5]),
    ];
    let source = write_model(&folder, "masked", config, &tensors, |_, _| ());
    let (kept, spared) = kept_and_spared(&folder, &source);
    assert_eq!(kept, [Value::str("cls.predictions.decoder")]);
    assert_eq!(
        spared,
        ["lm_head", "cls.predictions.decoder"].map(Value::str)
    );
}

/// Packs a folder that is to be refused; nothing is left beside it.
#[track_caller]
fn not_packed(folder: &Folder, args: &[&str], code: i32, mentions: &[&str]) {
    let before = names(folder.path());
    refused(&run(args), code, mentions);
    assert_eq!(names(folder.path()), before, "something was left behind");
}

#[test]
fn layers_whose_rows_do_not_fill_bytes_stay_as_they_are() {
    let folder = Folder::new();
    let odd = Tiny {
        intermediate: 10,
        ..TINY
    };
    let source = odd.write(&folder, "odd", |_, _| ());
    let packed = folder.file("packed");
    let told = json(&["deploy", &source, "-o", &packed, "--format", "json"]);
    assert_eq!(
        list(&told, "layers").len(),
        5,
        "all but gate_proj and up_proj"
    );
    let config = fs::read_to_string(format!("{packed}/config.json")).expect("a config");
    let spared = list(
        &parse(&config),
        "quantization_config.modules_to_not_convert",
    );
    let expected = [
        "lm_head",
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
    ];
    assert_eq!(spared, expected.map(Value::str));
    let stored = tensors(&packed);
    assert_eq!(stored["model.layers.0.mlp.up_proj.weight"].0, Dtype::F32);
    assert_eq!(stored["model.layers.0.mlp.down_proj.weight"].0, Dtype::U8);
    let analysis = run(&["inspect", &packed, "--strict", "--format", "json"]);
    assert_eq!(analysis.code, Some(0), "{}", analysis.err);
}

#[test]
fn patterns_choose_layers_and_the_config_names_the_others() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let packed = folder.file("packed");
    let told = json(&[
        "deploy",
        &source,
        "-o",
        &packed,
        "--layers",
        "*.self_attn.*",
        "--keep",
        "*.k_proj",
        "--keep",
        "*.v_proj",
        "--format",
        "json",
    ]);
    let layers = list(&told, "layers");
    let packed_layers: Vec<Value> = layers.iter().map(|layer| at(layer, "name")).collect();
    let expected = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.o_proj",
    ];
    assert_eq!(packed_layers, expected.map(Value::str));
    let config = fs::read_to_string(format!("{packed}/config.json")).expect("a config");
    let spared = list(
        &parse(&config),
        "quantization_config.modules_to_not_convert",
    );
    assert_eq!(spared.len(), 6, "lm_head and five layers: {spared:?}");
    let analysis = run(&["inspect", &packed, "--strict", "--format", "json"]);
    assert_eq!(analysis.code, Some(0), "{}", analysis.err);
}

#[test]
fn settings_of_weights_that_are_rounded_when_used_go_on_to_hold() {
    let folder = Folder::new();
    let online = Tiny {
        settings: r#", "quantization_config": {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "online",
"use_rms_norm": false, "modules_to_not_convert": ["model.layers.0.mlp"]}"#,
        ..TINY
    };
    let source = online.write(&folder, "online", |_, _| ());
    let packed = folder.file("packed");
    let told = json(&["deploy", &source, "-o", &packed, "--format", "json"]);
    assert_eq!(list(&told, "layers").len(), 4, "attention alone");
    assert_eq!(at(&told, "linear_class"), Value::str("bitlinear"));
    let config = fs::read_to_string(format!("{packed}/config.json")).expect("a config");
    let settings = at(&parse(&config), "quantization_config");
    assert_eq!(at(&settings, "quantization_mode"), Value::str("offline"));
    assert_eq!(at(&settings, "use_rms_norm"), Value::Bool(false));
    let spared = list(&settings, "modules_to_not_convert");
    assert_eq!(spared, ["model.layers.0.mlp", "lm_head"].map(Value::str));
}

#[test]
fn weights_of_zeros_are_packed_with_the_floor_for_a_scale() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "zeros", |name, numbers| {
        if name.ends_with("q_proj.weight") {
            numbers.fill(0.0);
        }
    });
    let packed = folder.file("packed");
    let told = json(&["deploy", &source, "-o", &packed, "--format", "json"]);
    let layers = list(&told, "layers");
    let is_zero = |layer: &&Value| {
        at(layer, "name")
            .as_str()
            .is_some_and(|name| name.ends_with("q_proj"))
    };
    let zero = layers.iter().find(is_zero).expect("q_proj");
    assert_eq!((int(zero, "codes.zero"), int(zero, "codes.plus")), (64, 0));
    let stored = tensors(&packed);
    assert!(
        stored["model.layers.0.self_attn.q_proj.weight"]
            .2
            .iter()
            .all(|b| *b == 0x55)
    );
    assert_eq!(
        stored["model.layers.0.self_attn.q_proj.weight_scale"].2,
        1e-5f32.to_le_bytes()
    );
}

#[test]
fn a_file_without_a_config_is_packed_by_names_and_shapes() {
    let folder = Folder::new();
    let ones = |count: usize| vec![1.0f32; count];
    let file = folder.write(
        "net.safetensors",
        floats(&[
            ("word_embeddings.weight", &[8, 4], ones(32)),
            ("lm_head.weight", &[8, 4], ones(32)),
            ("block.0.ln_1.weight", &[4, 4], ones(16)),
            ("block.0.multihead_attn.out.weight", &[4, 4], ones(16)),
            ("block.0.conv.weight", &[4, 4, 3], ones(48)),
            ("block.0.fc1.weight", &[6, 4], ones(24)),
            ("block.0.fc2.weight", &[8, 4], ones(32)),
            ("block.0.fc2.bias", &[8], vec![0.5; 8]),
            ("block.0.table", &[8, 4], ones(32)),
        ]),
    );
    let packed = folder.file("packed.safetensors");
    let told = json(&["deploy", &file, "-o", &packed, "--format", "json"]);
    let layers = list(&told, "layers");
    let path = |layer: &Value| at(layer, "name").as_str().map(String::from);
    let paths: Vec<String> = layers.iter().filter_map(path).collect();
    assert_eq!(paths, ["block.0.fc2", "block.0.multihead_attn.out"]);
    assert_eq!(at(&told, "quantization_config"), Value::Bool(false));
    let stored = tensors(&packed);
    // All ones: codes 2, 0b10101010, and the mean 1 that the bias is divided by.
    assert_eq!(
        stored["block.0.fc2.weight"],
        (Dtype::U8, vec![2, 4], vec![0xaa; 8])
    );
    assert_eq!(stored["block.0.fc2.bias"].2, 0.5f32.to_le_bytes().repeat(8));
    assert_eq!(
        stored["block.0.fc1.weight"].0,
        Dtype::F32,
        "six rows fill no bytes"
    );
    // Whoever names layers knows what they are.
    let chosen = json(&[
        "deploy", &file, "-o", &packed, "--force", "--layers", "lm_head", "--format", "json",
    ]);
    let layers = list(&chosen, "layers");
    assert_eq!(
        layers.iter().filter_map(path).collect::<Vec<_>>(),
        ["lm_head"]
    );
}

#[test]
fn packed_input_is_refused() {
    let folder = Folder::new();
    let out = folder.file("out");
    for class in ["autobitlinear", "bitlinear"] {
        let source = fixture(&format!("bitnet_tiny/{class}"));
        not_packed(
            &folder,
            &["deploy", &source, "-o", &out],
            3,
            &["packed already", "bitnet"],
        );
    }
    let gptq = Tiny {
        settings: r#", "quantization_config": {"quant_method": "gptq", "bits": 4}"#,
        ..TINY
    };
    let source = gptq.write(&folder, "gptq", |_, _| ());
    not_packed(
        &folder,
        &["deploy", &source, "-o", &out],
        3,
        &["quantized already", "gptq"],
    );
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let folder = Folder::new();
    let out = folder.file("out");
    for (number, value) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let source = TINY.write(&folder, value, |name, numbers| {
            if name.ends_with("up_proj.weight") {
                numbers[8 * 3 + 5] = number;
            }
        });
        let mentions = ["up_proj.weight", "row 3, column 5", value];
        not_packed(&folder, &["deploy", &source, "-o", &out], 3, &mentions);
    }
}

#[test]
fn a_parameter_that_no_file_holds_is_named() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let two = TINY
        .config()
        .replace("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
    fs::write(format!("{source}/config.json"), two).expect("written");
    let out = folder.file("out");
    let mentions = ["model.layers.1.self_attn.q_proj.weight", "--keep"];
    not_packed(&folder, &["deploy", &source, "-o", &out], 3, &mentions);
}

#[test]
fn a_model_without_linear_layers_is_refused() {
    let folder = Folder::new();
    let file = folder.write(
        "norms.safetensors",
        floats(&[("norm.weight", &[8, 4], vec![1.0; 32])]),
    );
    let out = folder.file("out.safetensors");
    not_packed(
        &folder,
        &["deploy", &file, "-o", &out],
        3,
        &["no linear layer", "norm"],
    );
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let out = folder.file("out");
    let args = [
        "deploy",
        &source,
        "-o",
        &out,
        "--layers",
        "model.layers.0.mlp.up_prj",
    ];
    not_packed(&folder, &args, 3, &["no linear layer", "up_proj"]);
}

#[test]
fn a_folder_without_a_config_is_refused() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    fs::remove_file(format!("{source}/config.json")).expect("there");
    let out = folder.file("out");
    not_packed(
        &folder,
        &["deploy", &source, "-o", &out],
        3,
        &["config.json", "safetensors file"],
    );
    // The file alone is another matter.
    let file = format!("{source}/model.safetensors");
    let ran = run(&["deploy", &file, "-o", &folder.file("out.safetensors"), "-q"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{}", ran.err);
}

#[test]
fn a_class_that_nobody_described_is_refused() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let config = TINY
        .config()
        .replace("BitNetForCausalLM", "NobodysForCausalLM");
    fs::write(format!("{source}/config.json"), config).expect("written");
    let out = folder.file("out");
    let mentions = ["NobodysForCausalLM", "--module-db"];
    not_packed(&folder, &["deploy", &source, "-o", &out], 3, &mentions);
    // The user may know better.
    let class = [
        "deploy",
        &source,
        "-o",
        &out,
        "--class",
        "BitNetForCausalLM",
        "-q",
    ];
    assert_eq!(run(&class).code, Some(0));
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let out = folder.file("out");
    let packed = |args: &[&str]| run(&[&["deploy", &source, "-o", &out], args].concat());
    // An empty folder is nothing to lose.
    fs::create_dir(&out).expect("new");
    assert_eq!(packed(&[]).code, Some(0));
    fs::write(format!("{out}/stale.txt"), "of before").expect("written");
    not_packed(
        &folder,
        &["deploy", &source, "-o", &out],
        2,
        &["exists", "--force"],
    );
    assert!(Path::new(&out).join("stale.txt").exists());
    let before = names(folder.path());
    assert_eq!(packed(&["--force"]).code, Some(0));
    assert_eq!(names(folder.path()), before);
    assert_eq!(names(&out), ["config.json", "model.safetensors"]);
    // A folder with other folders in it is no output of before.
    fs::create_dir(format!("{out}/photos")).expect("new");
    let args = ["deploy", &source, "-o", &out, "--force"];
    not_packed(&folder, &args, 2, &["more than the files of a model"]);
    assert!(Path::new(&out).join("photos").exists());
}

#[test]
fn a_failure_under_force_leaves_the_output_of_before() {
    let folder = Folder::new();
    let good = TINY.write(&folder, "good", |_, _| ());
    let bad = TINY.write(&folder, "bad", |name, numbers| {
        if name.ends_with("v_proj.weight") {
            numbers[0] = f32::NAN;
        }
    });
    let out = folder.file("out");
    assert_eq!(run(&["deploy", &good, "-o", &out]).code, Some(0));
    let before = tensors(&out);
    not_packed(
        &folder,
        &["deploy", &bad, "-o", &out, "--force"],
        3,
        &["v_proj"],
    );
    assert_eq!(tensors(&out), before);
}

#[test]
fn input_and_output_lie_apart() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let inside = format!("{source}/packed");
    not_packed(
        &folder,
        &["deploy", &source, "-o", &inside],
        2,
        &["lie apart"],
    );
    let same = ["deploy", &source, "-o", &source, "--force"];
    not_packed(&folder, &same, 2, &["lie apart"]);
    let around = folder.path().to_str().expect("readable");
    not_packed(
        &folder,
        &["deploy", &source, "-o", around, "--force"],
        2,
        &["lie apart"],
    );
    let file = format!("{source}/model.safetensors");
    let same = ["deploy", &file, "-o", &file, "--force"];
    not_packed(&folder, &same, 2, &["lie apart"]);
    assert_eq!(names(&source), ["config.json", "model.safetensors"]);
}

#[test]
fn an_output_of_another_kind_is_refused() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let file = format!("{source}/model.safetensors");
    let other = folder.file("other");
    fs::create_dir(&other).expect("new");
    not_packed(
        &folder,
        &["deploy", &file, "-o", &other],
        2,
        &["is a folder"],
    );
    let text = folder.write("text", "mine");
    not_packed(
        &folder,
        &["deploy", &source, "-o", &text, "--force"],
        2,
        &["is a file"],
    );
    let nowhere = folder.file("nowhere/out");
    not_packed(
        &folder,
        &["deploy", &source, "-o", &nowhere],
        3,
        &["nowhere", "exists"],
    );
}

#[test]
fn other_weights_and_large_files_are_told_and_left() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    for name in [
        "tokenizer.json",
        "consolidated.safetensors",
        "pytorch_model.bin",
    ] {
        fs::write(format!("{source}/{name}"), "{}").expect("written");
    }
    let large = fs::File::create(format!("{source}/vocabulary.txt")).expect("new");
    large.set_len((64 << 20) + 1).expect("a file of holes");
    let out = folder.file("out");
    let told = json(&["deploy", &source, "-o", &out, "--format", "json"]);
    assert_eq!(list(&told, "copied"), [Value::str("tokenizer.json")]);
    let left: Vec<Value> = list(&told, "left")
        .iter()
        .map(|file| at(file, "name"))
        .collect();
    let expected = [
        "consolidated.safetensors",
        "pytorch_model.bin",
        "vocabulary.txt",
    ];
    assert_eq!(left, expected.map(Value::str));
    assert_eq!(
        names(&out),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
}

#[test]
fn a_reciprocal_that_overflows_its_dtype_is_refused() {
    let folder = Folder::new();
    // The mean magnitude 2^-17 is an F16, its reciprocal is not: 131072 is more than 65504.
    let small = 0x0080u16.to_le_bytes().repeat(16);
    let view = TensorView::new(Dtype::F16, vec![4, 4], &small).expect("a tensor");
    let bytes = safetensors::serialize([("fc.weight", view)], None).expect("written");
    let file = folder.write("small.safetensors", bytes);
    let out = folder.file("out.safetensors");
    let args = ["deploy", &file, "-o", &out, "--linear-class", "bitlinear"];
    not_packed(&folder, &args, 3, &["fc.weight", "F16", "autobitlinear"]);
    assert_eq!(run(&["deploy", &file, "-o", &out]).code, Some(0));
}

/// Runs the program in a shell that says how large its files may be.
#[cfg(unix)]
fn with_little_room(args: &[&str]) -> Ran {
    let mut command = program(&[]);
    let mut shell = std::process::Command::new("sh");
    // Without the signal a write beyond the limit is an error, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(args);
    common::clean(&mut shell);
    shell.env("HF_HUB_OFFLINE", "1");
    command.stdin(std::process::Stdio::null());
    wait(shell, common::TIME_LIMIT)
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.write(
        "wide.safetensors",
        floats(&[
            ("embed.weight", &[64, 64], vec![1.0; 4096]),
            ("fc.weight", &[64, 64], vec![1.0; 4096]),
        ]),
    );
    let before = names(folder.path());
    let out = folder.file("out.safetensors");
    refused(
        &with_little_room(&["deploy", &file, "-o", &out]),
        3,
        &["the disk is full", "nothing"],
    );
    assert_eq!(names(folder.path()), before);
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    use std::io::Write;
    use std::time::{Duration, Instant};
    let folder = Folder::new();
    // Four gigabytes of holes to copy, and a small layer after them.
    let rows: u64 = 1 << 20;
    let header = format!(
        r#"{{"embed.weight":{{"dtype":"F32","shape":[{rows},1024],"data_offsets":[0,{end}]}},"fc.weight":{{"dtype":"F32","shape":[4,4],"data_offsets":[{end},{last}]}}}}"#,
        end = rows * 4096,
        last = rows * 4096 + 64
    );
    let path = folder.file("holes.safetensors");
    let mut file = fs::File::create(&path).expect("new");
    file.write_all(&(header.len() as u64).to_le_bytes())
        .expect("written");
    file.write_all(header.as_bytes()).expect("written");
    file.set_len(8 + header.len() as u64 + rows * 4096 + 64)
        .expect("a file of holes");
    drop(file);
    let before = names(folder.path());
    let out = folder.file("out.safetensors");
    let mut command = program(&["deploy", &path, "-o", &out]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("started");
    let begun = Instant::now();
    while names(folder.path()) == before {
        assert!(begun.elapsed() < common::TIME_LIMIT, "nothing was begun");
        assert_eq!(
            child.try_wait().expect("a child"),
            None,
            "it ended before it was interrupted"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill").success());
    let ended = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(names(folder.path()), before);
}

#[test]
fn the_table_tells_sizes_zeros_and_what_is_kept() {
    let folder = Folder::new();
    let source = TINY.write(&folder, "tiny", |_, _| ());
    let out = folder.file("out");
    let text = common::stdout(&["deploy", &source, "-o", &out, "--keep", "*.k_proj"]);
    for part in [
        "6 layers, class autobitlinear",
        "model.layers.0.mlp.down_proj",
        "kept model.layers.0.self_attn.k_proj: --keep matches it",
        "x less",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}
