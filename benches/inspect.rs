//! How long `bitcost inspect` takes as a whole process, and what it takes of memory: `cargo bench`.
//!
//! Each command runs 3 times unmeasured and 31 times measured; the median is what counts on a noisy machine. The third
//! command reads its classes from a file, so that nothing could have been computed beforehand. Peak memory needs GNU time
//! at /usr/bin/time; without it the column says so.

#![allow(clippy::print_stdout)]

mod common;

use common::{peak_kib, run};

const RUNS: usize = 31;

fn main() {
    let folder = std::env::temp_dir().join(format!("bitcost-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let overlay = folder.join("overlay.json");
    // A family of its own names: every class is derived from the file at run time.
    std::fs::write(
        &overlay,
        r#"{"my__modeling_own": {"like": "transformers__models__llama__modeling_llama", "rename": {"Llama": "Own"}}}"#,
    )
    .expect("written");
    let config = folder.join("config.json");
    std::fs::write(&config, r#"{"architectures": ["OwnForCausalLM"], "model_type": "own", "hidden_size": 4096, "num_hidden_layers": 32}"#)
        .expect("written");
    let lengths: Vec<String> = (1..=100).map(|i| (i * 320).to_string()).collect();
    let lengths = lengths.join(",");
    let (overlay, config) = (overlay.display().to_string(), config.display().to_string());
    let commands: &[(&str, Vec<&str>)] = &[
        (
            "Llama-2-7b",
            vec![
                "inspect",
                "--model-id",
                "meta-llama/Llama-2-7b-hf",
                "--flops",
            ],
        ),
        (
            "Llama-2-7b as JSON",
            vec![
                "inspect",
                "--model-id",
                "meta-llama/Llama-2-7b-hf",
                "--format",
                "json",
            ],
        ),
        (
            "from an overlay",
            vec!["inspect", &config, "--module-db", &overlay, "--flops"],
        ),
        (
            "Llama-3.1-405B",
            vec![
                "inspect",
                "--model-id",
                "meta-llama/Llama-3.1-405B",
                "--flops",
            ],
        ),
        (
            "DeepSeek-V3",
            vec![
                "inspect",
                "--model-id",
                "deepseek-ai/DeepSeek-V3",
                "--flops",
            ],
        ),
        (
            "sweep of 100 lengths",
            vec![
                "inspect",
                "--model-id",
                "meta-llama/Llama-2-7b-hf",
                "-s",
                &lengths,
                "--format",
                "csv",
            ],
        ),
        (
            "sweep, DeepSeek-V3",
            vec![
                "inspect",
                "--model-id",
                "deepseek-ai/DeepSeek-V3",
                "-s",
                &lengths,
                "--format",
                "csv",
            ],
        ),
    ];
    println!(
        "{:24} {:>10} {:>10} {:>10} {:>12}",
        "whole process", "min ms", "median ms", "max ms", "peak MiB"
    );
    for (name, args) in commands {
        let mut times: Vec<f64> = (0..RUNS + 3).map(|_| run(args)).skip(3).collect();
        times.sort_by(f64::total_cmp);
        let peak = peak_kib(args).map_or_else(
            || "no GNU time".into(),
            |kib| format!("{:.1}", kib as f64 / 1024.0),
        );
        println!(
            "{name:24} {:>10.2} {:>10.2} {:>10.2} {peak:>12}",
            times[0],
            times[RUNS / 2],
            times[RUNS - 1]
        );
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}
