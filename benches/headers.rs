//! How long `bitcost inspect` takes on large checkpoints that are only headers, and what it takes of memory: `cargo bench
//! --bench headers`.
//!
//! Written into a temporary folder: 200 shards of a 70B Llama in BF16, and 191 shards with the tensor names, dtypes and shapes
//! that DeepSeek-V3 has on the Hub. The headers are true, the data are holes. Each command runs 3 times unmeasured and 31
//! times measured; goals stand beside the numbers. Peak memory needs GNU time at /usr/bin/time; without it the column says so.

#![allow(clippy::print_stdout)]

mod common;

use bitcost::dtype::StoredType;
use common::{peak_kib, run};
use std::fs;
use std::io::Write;
use std::path::Path;

const RUNS: usize = 31;

/// A tensor: name, dtype, shape.
type Line = (String, String, Vec<u64>);

fn main() {
    let folder = std::env::temp_dir().join(format!("bitcost-bench-headers-{}", std::process::id()));
    let llama = folder.join("llama");
    let deepseek = folder.join("deepseek");
    let llama_lines = llama_70b();
    let deepseek_lines = deepseek_v3();
    write_checkpoint(&llama, "meta-llama/Llama-2-70b-hf", &llama_lines, 200);
    write_checkpoint(&deepseek, "deepseek-ai/DeepSeek-V3", &deepseek_lines, 191);
    println!(
        "{:30} {:>8} {:>10} {:>10} {:>10} {:>12}  goal",
        "whole process", "tensors", "min ms", "median ms", "max ms", "peak MiB"
    );
    let cases = [
        (
            "Llama-2-70b, 200 shards",
            &llama,
            &llama_lines,
            "60 ms, 60 MB",
        ),
        (
            "DeepSeek-V3, 191 shards",
            &deepseek,
            &deepseek_lines,
            "none set",
        ),
    ];
    for (name, path, lines, goal) in cases {
        let path = path.display().to_string();
        let args = ["inspect", path.as_str(), "--strict"];
        let mut times: Vec<f64> = (0..RUNS + 3).map(|_| run(&args)).skip(3).collect();
        times.sort_by(f64::total_cmp);
        let peak = peak_kib(&args).map_or_else(
            || "no GNU time".into(),
            |kib| format!("{:.1}", kib as f64 / 1024.0),
        );
        println!(
            "{name:30} {:>8} {:>10.2} {:>10.2} {:>10.2} {peak:>12}  {goal}",
            lines.len(),
            times[0],
            times[RUNS / 2],
            times[RUNS - 1]
        );
    }
    fs::remove_dir_all(&folder).expect("removed");
}

/// What `save_pretrained` writes of Llama-2-70b: hidden size 8192, MLP 28672, 80 layers, 8 of 64 heads for keys and values.
fn llama_70b() -> Vec<Line> {
    let line = |name: String, shape: &[u64]| (name, "BF16".to_string(), shape.to_vec());
    let mut lines = vec![line("model.embed_tokens.weight".into(), &[32000, 8192])];
    for layer in 0..80 {
        let mut add = |name: &str, shape: &[u64]| {
            lines.push(line(format!("model.layers.{layer}.{name}.weight"), shape));
        };
        add("self_attn.q_proj", &[8192, 8192]);
        add("self_attn.k_proj", &[1024, 8192]);
        add("self_attn.v_proj", &[1024, 8192]);
        add("self_attn.o_proj", &[8192, 8192]);
        add("mlp.gate_proj", &[28672, 8192]);
        add("mlp.up_proj", &[28672, 8192]);
        add("mlp.down_proj", &[8192, 28672]);
        add("input_layernorm", &[8192]);
        add("post_attention_layernorm", &[8192]);
    }
    lines.push(line("model.norm.weight".into(), &[8192]));
    lines.push(line("lm_head.weight".into(), &[32000, 8192]));
    let params: u64 = lines.iter().map(|(.., s)| s.iter().product::<u64>()).sum();
    assert_eq!(params, 68_976_648_192, "as the catalog has it");
    lines
}

/// The tensors of DeepSeek-V3 on the Hub.
fn deepseek_v3() -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/tensors/deepseek-ai--DeepSeek-V3.json");
    let text = fs::read_to_string(path).expect("the fixture");
    let fixture: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let rows: Vec<Line> =
        serde_json::from_value(fixture["hub_tensors"].clone()).expect("rows of tensors");
    let mut lines = Vec::new();
    for (pattern, dtype, shape) in rows {
        let names = spelled_out(&pattern);
        lines.extend(names.into_iter().map(|n| (n, dtype.clone(), shape.clone())));
    }
    lines.sort();
    lines
}

/// `a.{0-2}.b` -> `a.0.b`, `a.1.b`, `a.2.b`.
fn spelled_out(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_string()];
    };
    let (ranges, tail) = rest.split_once('}').expect("a range ends");
    let mut names = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| -> u64 { text.parse().expect("a number") };
        for number in number(first)..=number(last) {
            let tails = spelled_out(tail).into_iter();
            names.extend(tails.map(|tail| format!("{head}{number}{tail}")));
        }
    }
    names
}

/// Writes config, shards and index; the shards have as many tensors each as goes up evenly.
fn write_checkpoint(folder: &Path, id: &str, lines: &[Line], shards: usize) {
    fs::create_dir_all(folder).expect("a temporary folder");
    let catalog = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/source/catalog.json");
    let catalog = fs::read_to_string(catalog).expect("the catalog");
    let catalog: serde_json::Value = serde_json::from_str(&catalog).expect("JSON");
    let config = serde_json::to_vec(&catalog[id]["config"]).expect("JSON");
    fs::write(folder.join("config.json"), config).expect("written");
    let mut map = serde_json::Map::new();
    for shard in 0..shards {
        let part = &lines[lines.len() * shard / shards..lines.len() * (shard + 1) / shards];
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
        let mut at = 0;
        for (name, dtype, shape) in part {
            let bits = u64::from(StoredType::named(dtype).expect("a dtype").bits);
            let end = at + shape.iter().product::<u64>() * bits / 8;
            let entry =
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]});
            header.insert(name.clone(), entry);
            map.insert(name.clone(), file.clone().into());
            at = end;
        }
        let mut json = serde_json::to_vec(&header).expect("JSON");
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut out = fs::File::create(folder.join(&file)).expect("a file");
        out.write_all(&(json.len() as u64).to_le_bytes())
            .and_then(|()| out.write_all(&json))
            .and_then(|()| out.set_len(8 + json.len() as u64 + at))
            .expect("a header, and holes for the data");
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    let index = serde_json::to_vec_pretty(&index).expect("JSON");
    fs::write(folder.join("model.safetensors.index.json"), index).expect("written");
}
