//! `bitcost run` of whole models: the ids of transformers come out, and what is wrong is said before any work.

mod common;

use bitcost::value::Value;
use common::schema::output_conforms;
use common::{Folder, at, fixture, int, json, list, parse, program, refused, run};
use safetensors::SafeTensors;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const CLASSES: [&str; 2] = ["autobitlinear", "bitlinear"];

fn model(class: &str) -> String {
    fixture(&format!("bitnet_tiny/{class}"))
}

fn expected(class: &str) -> Value {
    let text = std::fs::read_to_string(format!("{}/expected.json", model(class)));
    parse(&text.expect("what transformers computed"))
}

fn ids(value: &Value, path: &str) -> Vec<i128> {
    list(value, path)
        .iter()
        .map(|id| id.as_int().expect("an id"))
        .collect()
}

fn text(value: &Value, path: &str) -> String {
    at(value, path).as_str().expect("a text").to_string()
}

/// A copy of a fixture, with its config changed.
fn copy(class: &str, folder: &Folder, leave: &[&str], change: impl Fn(String) -> String) -> String {
    let from = model(class);
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let bytes = std::fs::read(Path::new(&from).join(name)).expect("a file");
        if name == "config.json" {
            folder.write(name, change(String::from_utf8(bytes).expect("text")));
        } else if !leave.contains(&name) {
            folder.write(name, bytes);
        }
    }
    folder.path().to_str().expect("a readable name").to_string()
}

#[test]
fn a_prompt_goes_on_as_in_transformers() {
    for class in CLASSES {
        let expected = expected(class);
        let prompt = text(&expected, "prompt");
        for more in [
            &["--threads", "1"][..],
            &["--packing", "1.6"],
            &["--kernel", "scalar-2.0"],
        ] {
            let (model, args) = (
                model(class),
                [
                    "--prompt",
                    &prompt,
                    "--max-new-tokens",
                    "16",
                    "--format",
                    "json",
                ],
            );
            let args = [&["run", &model][..], &args, more].concat();
            let ran = run(&args);
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
            output_conforms("generate", &ran.out);
            let made = parse(&ran.out);
            assert_eq!(ids(&made, "prompt_ids"), ids(&expected, "prompt_ids"));
            assert_eq!(ids(&made, "generated_ids"), ids(&expected, "greedy_ids"));
            assert_eq!(text(&made, "text"), text(&expected, "greedy_text"));
            assert_eq!(text(&made, "ended"), "length");
            // Steps for single tokens: the first new one comes of the prompt's logits.
            assert_eq!(int(&made, "timings.prompt.tokens"), 12);
            assert_eq!(int(&made, "timings.decode.tokens"), 15);
        }
        // The tokenizer alone does not begin with the first token.
        let made = json(&[
            "run",
            &model(class),
            "--prompt",
            &prompt,
            "--no-bos",
            "--max-new-tokens",
            "0",
            "--format",
            "json",
        ]);
        assert_eq!(ids(&made, "prompt_ids"), ids(&expected, "prompt_ids")[1..]);
        assert_eq!(ids(&made, "generated_ids"), []);
    }
}

#[test]
fn the_text_goes_to_standard_output_and_what_it_took_to_standard_error() {
    let prompt = text(&expected(CLASSES[0]), "prompt");
    let model = model(CLASSES[0]);
    let args = ["run", &model, "--prompt", &prompt, "--max-new-tokens", "16"];
    let ran = run(&args);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.out,
        format!("{}\n", text(&expected(CLASSES[0]), "greedy_text"))
    );
    for part in [
        "12 tokens",
        "16 tokens",
        "without the output matrix",
        "ended by length",
        "cache of 32 bits",
        "at its peak",
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    let quiet = run(&[&args[..], &["-q"]].concat());
    assert_eq!((quiet.out, quiet.err.as_str()), (ran.out, ""));
}

#[test]
fn tokens_by_number_need_no_tokenizer() {
    let folder = Folder::new();
    let model = copy(
        CLASSES[1],
        &folder,
        &["tokenizer.json", "tokenizer_config.json"],
        |config| config,
    );
    let expected = expected(CLASSES[1]);
    let prompt: Vec<String> = ids(&expected, "prompt_ids")
        .iter()
        .map(i128::to_string)
        .collect();
    let args = [
        "run",
        "--model-id",
        &model,
        "--ids",
        &prompt.join(","),
        "--max-new-tokens",
        "16",
    ];
    let made = json(&[&args[..], &["--format", "json"]].concat());
    assert_eq!(ids(&made, "generated_ids"), ids(&expected, "greedy_ids"));
    assert_eq!(at(&made, "text"), Value::None);
    // In the table ids stand where the text would.
    let greedy: Vec<String> = ids(&expected, "greedy_ids")
        .iter()
        .map(i128::to_string)
        .collect();
    let ran = run(&[&args[..], &["-q"]].concat());
    assert_eq!(ran.out, format!("{}\n", greedy.join(",")));
    refused(
        &run(&["run", &model, "--prompt", "zero"]),
        3,
        &[
            "a prompt needs a tokenizer; --ids takes tokens by number",
            "tokenizer.json",
        ],
    );
}

#[test]
fn logits_of_the_prompt_are_those_of_transformers() {
    for class in CLASSES {
        let folder = Folder::new();
        let file = folder.file("logits.safetensors");
        let prompt = text(&expected(class), "prompt");
        let ran = run(&[
            "run",
            &model(class),
            "--prompt",
            &prompt,
            "--max-new-tokens",
            "1",
            "--logits",
            &file,
            "-q",
        ]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        let floats = |path: &str, name: &str| -> (Vec<usize>, Vec<f32>) {
            let bytes = std::fs::read(path).expect("a file");
            let file = SafeTensors::deserialize(&bytes).expect("safetensors");
            let tensor = file.tensor(name).expect("a tensor");
            let (words, _) = tensor.data().as_chunks::<4>();
            (
                tensor.shape().to_vec(),
                words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            )
        };
        let (shape, ours) = floats(&file, "logits");
        let (their_shape, theirs) = floats(
            &format!("{}/expected.safetensors", model(class)),
            "prompt_logits",
        );
        assert_eq!(shape, their_shape);
        let most = ours
            .iter()
            .zip(&theirs)
            .fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(most < 1e-4, "{class}: {most:e}");
    }
}

#[test]
fn floats_are_rounded_where_the_config_says_so() {
    // The floats of ternary weights round to these weights again: mean magnitudes change the scale, and only that.
    let folder = Folder::new();
    let source = model(CLASSES[0]);
    let bytes = std::fs::read(format!("{source}/model.safetensors")).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (name, view) in file.tensors() {
        let data = view.data();
        let bf16 = |data: &[u8]| -> Vec<f32> {
            let (words, _) = data.as_chunks::<2>();
            words
                .iter()
                .map(|word| bitcost::float16::from_bf16(u16::from_le_bytes(*word)))
                .collect()
        };
        if name.ends_with("weight_scale") {
            continue;
        }
        if format!("{:?}", view.dtype()) != "U8" {
            tensors.push((name, view.shape().to_vec(), bf16(data)));
            continue;
        }
        let (packed, cols) = (view.shape()[0], view.shape()[1]);
        let scale = file.tensor(&format!("{name}_scale")).expect("a scale");
        let scale = bf16(scale.data())[0];
        let code = |row: usize, col: usize| {
            f32::from(data[row % packed * cols + col] >> (row / packed * 2) & 3) - 1.0
        };
        let numbers: Vec<f32> = (0..4 * packed * cols)
            .map(|at| code(at / cols, at % cols))
            .collect();
        let mean = numbers.iter().map(|x| x.abs()).sum::<f32>() / numbers.len() as f32;
        let numbers = numbers.iter().map(|x| x * scale / mean).collect();
        tensors.push((name, vec![4 * packed, cols], numbers));
    }
    let parts: Vec<(&str, &[usize], Vec<f32>)> = tensors
        .iter()
        .map(|(name, shape, numbers)| (name.as_str(), shape.as_slice(), numbers.clone()))
        .collect();
    folder.write("model.safetensors", common::weights::floats(&parts));
    let config = std::fs::read_to_string(format!("{source}/config.json")).expect("a config");
    folder.write("config.json", config.replace("offline", "online"));
    let expected = expected(CLASSES[0]);
    let prompt: Vec<String> = ids(&expected, "prompt_ids")
        .iter()
        .map(i128::to_string)
        .collect();
    let path = folder.path().to_str().expect("a readable name");
    let args = [
        "run",
        path,
        "--ids",
        &prompt.join(","),
        "--max-new-tokens",
        "16",
        "--format",
        "json",
    ];
    assert_eq!(
        ids(&json(&args), "generated_ids"),
        ids(&expected, "greedy_ids")
    );
    // Without a word of it floats stay floats, and this does not run floats.
    let begin = config.find("\"quantization_config\"").expect("it is there");
    let plain = format!("{}}}", config[..begin].trim_end().trim_end_matches(','));
    folder.write("config.json", plain);
    refused(
        &run(&args),
        3,
        &["q_proj.weight", "F32", "does not say that it is rounded"],
    );
}

#[test]
fn several_prompts_are_one_object_a_line() {
    let folder = Folder::new();
    let prompt = text(&expected(CLASSES[0]), "prompt");
    let file = folder.write("prompts.txt", format!("{prompt}\n\nzero\n{prompt}\n"));
    let model = model(CLASSES[0]);
    let args = [
        "run",
        &model,
        "--prompt-file",
        &file,
        "--max-new-tokens",
        "16",
        "--temperature",
        "0.8",
        "--format",
        "json",
    ];
    let ran = run(&args);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        output_conforms("generate", line);
    }
    // Each text is what it is alone, whatever came before.
    let made: Vec<Value> = lines.iter().map(|line| parse(line)).collect();
    assert_eq!(
        ids(&made[0], "generated_ids"),
        ids(&made[2], "generated_ids")
    );
    assert_ne!(
        ids(&made[0], "generated_ids"),
        ids(&made[1], "generated_ids")
    );
    // And other seeds choose otherwise.
    let other = run(&[&args[..], &["--seed", "1"]].concat());
    assert_ne!(
        ids(
            &parse(other.out.lines().next().expect("a line")),
            "generated_ids"
        ),
        ids(&made[0], "generated_ids")
    );
    let bad = folder.write("bad.txt", b"good\nb\xff\xffd\n");
    refused(
        &run(&["run", &model, "--prompt-file", &bad]),
        3,
        &["bad.txt", "not UTF-8", "byte 6"],
    );
    let none = folder.write("none.txt", "\n \n");
    refused(
        &run(&["run", &model, "--prompt-file", &none]),
        3,
        &["no prompt"],
    );
}

#[test]
fn a_stop_token_ends_a_text() {
    let expected = expected(CLASSES[0]);
    let greedy = ids(&expected, "greedy_ids");
    let folder = Folder::new();
    let fourth = greedy[3].to_string();
    let model = copy(CLASSES[0], &folder, &[], |config| {
        config.replace(
            "\"eos_token_id\": 1",
            &format!("\"eos_token_id\": [1, {fourth}]"),
        )
    });
    let prompt = text(&expected, "prompt");
    let args = [
        "run",
        &model,
        "--prompt",
        &prompt,
        "--max-new-tokens",
        "16",
        "--format",
        "json",
    ];
    let made = json(&args);
    assert_eq!(ids(&made, "generated_ids"), greedy[..4]);
    assert_eq!(text(&made, "ended"), "stop");
    let on = json(&[&args[..], &["--ignore-stop"]].concat());
    assert_eq!(ids(&on, "generated_ids"), greedy);
    // What generation_config.json says goes before it.
    folder.write(
        "generation_config.json",
        format!("{{\"eos_token_id\": {}}}", greedy[1]),
    );
    assert_eq!(ids(&json(&args), "generated_ids"), greedy[..2]);
}

#[test]
fn the_context_is_a_limit() {
    let model = model(CLASSES[0]);
    let full = json(&[
        "run",
        &model,
        "--ids",
        "1,2,3",
        "--context",
        "5",
        "--ignore-stop",
        "--format",
        "json",
    ]);
    // Three tokens of the prompt and two more are in the cache; of their logits one more token comes.
    assert_eq!(list(&full, "generated_ids").len(), 3);
    assert_eq!(text(&full, "ended"), "context");
    refused(
        &run(&["run", &model, "--ids", "1,2,3", "--context", "2"]),
        2,
        &["3 tokens", "context of 2", "up to 256"],
    );
    refused(
        &run(&["run", &model, "--ids", "1", "--context", "257"]),
        2,
        &["--context 257", "256 positions"],
    );
    let many: Vec<String> = (0..257).map(|id| id.to_string()).collect();
    refused(
        &run(&["run", &model, "--ids", &many.join(",")]),
        2,
        &["257 tokens", "made for no more"],
    );
}

#[test]
fn a_chat_is_written_as_the_template_says() {
    let folder = Folder::new();
    let template = "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }}: {{ m.content }}\\n{% endfor %}{% if \
                    add_generation_prompt %}assistant:{% endif %}";
    let model = copy(CLASSES[0], &folder, &[], |config| config);
    let args = [
        "run",
        &model,
        "--prompt",
        "zero",
        "--chat",
        "--max-new-tokens",
        "2",
        "--format",
        "json",
    ];
    refused(&run(&args), 3, &["no chat template", "without --chat"]);
    let config =
        std::fs::read_to_string(folder.path().join("tokenizer_config.json")).expect("a file");
    folder.write(
        "tokenizer_config.json",
        config.replacen('{', &format!("{{\"chat_template\": \"{template}\","), 1),
    );
    let chat = ids(
        &json(&[&args[..], &["--system", "minus one"]].concat()),
        "prompt_ids",
    );
    let written = "<|begin_of_text|>system: minus one\nuser: zero\nassistant:";
    let same = json(&[
        "run",
        &model,
        "--prompt",
        written,
        "--no-bos",
        "--max-new-tokens",
        "2",
        "--format",
        "json",
    ]);
    assert_eq!(chat, ids(&same, "prompt_ids"));
    assert_eq!(chat[0], 0);
}

#[test]
fn what_cannot_run_is_said_before_any_work() {
    let model = model(CLASSES[0]);
    refused(
        &run(&["run", &model, "--ids", "384"]),
        3,
        &["token 384", "vocabulary of 384"],
    );
    refused(
        &run(&["run", &model, "--prompt", "a", "--temperature=-1"]),
        2,
        &["temperature"],
    );
    refused(
        &run(&["run", &model, "--prompt", "a", "--layer", "x"]),
        2,
        &["--layer", "--prompt"],
    );
    refused(
        &run(&["run", &model, "--prompt", "a", "--ids", "1"]),
        2,
        &["--ids", "--prompt"],
    );
    refused(
        &run(&["run", &model, "--layer", "x", "--max-new-tokens", "3"]),
        2,
        &["--max-new-tokens"],
    );

    let folder = Folder::new();
    let scaled = copy(CLASSES[0], &folder, &[], |config| {
        config.replacen(
            '{',
            "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0},",
            1,
        )
    });
    refused(
        &run(&["run", &scaled, "--ids", "1"]),
        3,
        &["config.json", "`yarn`", "not supported"],
    );

    let folder = Folder::new();
    let gated = copy(CLASSES[0], &folder, &[], |config| {
        config.replace("relu2", "tanh")
    });
    refused(
        &run(&["run", &gated, "--ids", "1"]),
        3,
        &["`tanh`", "relu2"],
    );

    // A config of another size than the weights have.
    let folder = Folder::new();
    let other = copy(CLASSES[0], &folder, &[], |config| {
        config.replace("\"intermediate_size\": 344", "\"intermediate_size\": 348")
    });
    refused(
        &run(&["run", &other, "--ids", "1"]),
        3,
        &["gate_proj.weight", "86", "87"],
    );
    let folder = Folder::new();
    let deeper = copy(CLASSES[0], &folder, &[], |config| {
        config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")
    });
    refused(
        &run(&["run", &deeper, "--ids", "1"]),
        3,
        &["model.layers.2.self_attn.q_proj.weight", "no tensor"],
    );

    let llama = run(&[
        "run",
        "--random-weights",
        "--config",
        "meta-llama/Llama-2-7b-hf",
    ]);
    refused(
        &llama,
        3,
        &[
            "LlamaForCausalLM does not run as a whole",
            "--layer model.layers.0.self_attn.q_proj",
        ],
    );
}

#[test]
fn a_tokenizer_of_another_model_is_told() {
    let folder = Folder::new();
    let model = copy(CLASSES[0], &folder, &["tokenizer.json"], |config| config);
    let path = Path::new(&fixture("bitnet_tiny/autobitlinear")).join("tokenizer.json");
    let text = std::fs::read_to_string(path).expect("a tokenizer");
    // A word of the prompt gets a number that the model has no row for.
    let larger = text
        .replace("\"zero\": 335", "\"zero\": 400")
        .replace("\"Ġzero\": 335", "\"Ġzero\": 400");
    assert_ne!(larger, text, "the fixture has the word");
    folder.write("tokenizer.json", larger);
    let prompt = self::text(&expected(CLASSES[0]), "prompt");
    refused(
        &run(&["run", &model, "--prompt", &prompt]),
        3,
        &["token 400", "vocabulary of 384", "another model"],
    );
}

#[test]
fn memory_that_cannot_be_had_is_told_with_what_would_fit() {
    let model = model(CLASSES[0]);
    let with = |more: &[&str]| {
        run(&[
            &[
                "run",
                &model,
                "--ids",
                "1",
                "--context",
                "256",
                "--packing",
                "2.0",
            ][..],
            more,
        ]
        .concat())
    };
    let needed = {
        let ran = with(&["--format", "json", "--max-new-tokens", "1"]);
        let made = parse(&ran.out);
        let peak = int(&made, "memory.peak_bytes");
        let total = int(&made, "memory.predicted.total");
        // Gains of norms and what is rounded up are not predicted: a tenth at most.
        assert!(peak >= total && peak < total + total / 10, "{peak} {total}");
        total
    };
    let less = with(&["--max-memory", &(needed - 1).to_string()]);
    refused(
        &less,
        3,
        &[
            "are needed",
            "kv cache",
            "it fits with --kv-bits 16, or with --head-bits 8, or with --context 25",
        ],
    );
    // What is told to fit fits.
    for option in [
        ["--kv-bits", "16"],
        ["--head-bits", "8"],
        ["--context", "250"],
    ] {
        let ran = run(&[
            "run",
            &model,
            "--ids",
            "1",
            "--packing",
            "2.0",
            "--max-new-tokens",
            "1",
            "--max-memory",
            &needed.to_string(),
        ]
        .iter()
        .copied()
        .chain(option)
        .collect::<Vec<_>>());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    refused(
        &with(&["--max-memory", "1KiB"]),
        3,
        &["no setting makes it fit"],
    );
}

#[test]
fn a_profile_predicts_what_runs() {
    let made = json(&[
        "run",
        &model(CLASSES[0]),
        "--ids",
        "1,2,3",
        "--max-new-tokens",
        "5",
        "--profile",
        "--format",
        "json",
        "--ignore-stop",
    ]);
    let macs = |phase: &str, step: &str| {
        let steps = list(&made, &format!("profile.{phase}"));
        let found = steps
            .iter()
            .find(|it| text(it, "step") == step)
            .expect("a step");
        int(found, "macs")
    };
    // Two layers of 128 features, 4 heads and 2 of keys of 32, 344 inside; 3 tokens of the prompt, then 4 single ones.
    for (phase, tokens) in [("prompt", 3), ("decode", 4)] {
        assert_eq!(
            macs(phase, "query, key, value"),
            2 * tokens * 128 * (128 + 2 * 64)
        );
        assert_eq!(macs(phase, "output"), 2 * tokens * 128 * 128);
        assert_eq!(macs(phase, "gate, up"), 2 * tokens * 2 * 128 * 344);
        assert_eq!(macs(phase, "down"), 2 * tokens * 344 * 128);
    }
    // Logits of the last token of the prompt, and of every one after it.
    assert_eq!(macs("prompt", "logits"), 128 * 384);
    assert_eq!(macs("decode", "logits"), 4 * 128 * 384);
    // Pairs of the prompt are 1 + 2 + 3, each 2 products of 32 features in 4 heads of 2 layers.
    assert_eq!(macs("prompt", "attention"), 6 * 2 * 32 * 4 * 2);
}

/// The program in the middle of a text, and what it still prints.
fn begun(args: &[&str]) -> (Child, ChildStdout) {
    let mut child = program(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut out = child.stdout.take().expect("a pipe");
    out.read_exact(&mut [0; 16]).expect("a text begins");
    (child, out)
}

#[test]
fn random_weights_run_at_any_size_and_interrupts_keep_the_text() {
    let folder = Folder::new();
    let config = copy(CLASSES[0], &folder, &["model.safetensors"], |config| {
        config
            .replace("\"hidden_size\": 128", "\"hidden_size\": 512")
            .replace("\"intermediate_size\": 344", "\"intermediate_size\": 1024")
            .replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4")
            .replace(
                "\"max_position_embeddings\": 256",
                "\"max_position_embeddings\": 40000",
            )
    });
    let args = [
        "run",
        "--random-weights",
        "--config",
        &config,
        "--seed",
        "3",
        "--ignore-stop",
    ];
    let made = |more: &[&str]| {
        json(
            &[
                &args[..],
                more,
                &["--max-new-tokens", "8", "--format", "json"],
            ]
            .concat(),
        )
    };
    assert_eq!(
        ids(&made(&[]), "generated_ids"),
        ids(&made(&["--packing", "1.6"]), "generated_ids")
    );
    assert_eq!(at(&made(&[]), "random_weights"), Value::Bool(true));

    let (child, mut out) = begun(&[&args[..], &["--max-new-tokens", "39000"]].concat());
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let begun = Instant::now();
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("a text ends");
    let ended = child.wait_with_output().expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ended.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("ended by interrupted"));
    assert_eq!(rest.last(), Some(&b'\n'));
}

#[test]
fn a_reader_that_goes_away_ends_a_text_quietly() {
    let folder = Folder::new();
    let config = copy(CLASSES[0], &folder, &["model.safetensors"], |config| {
        config.replace(
            "\"max_position_embeddings\": 256",
            "\"max_position_embeddings\": 40000",
        )
    });
    let args = [
        "run",
        "--random-weights",
        "--config",
        &config,
        "--ignore-stop",
        "--max-new-tokens",
        "39000",
    ];
    let (child, out) = begun(&args);
    drop(out);
    let begun = Instant::now();
    let ended = child.wait_with_output().expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
