//! How long a thousand blocks take: counted in this process, and as a whole run with its report: `cargo bench --bench estimate`.
//!
//! Each line is the median of 31 runs after 3 unmeasured ones.

#![allow(clippy::print_stdout)]

mod common;

use bitcost::cost::{Chain, Conventions, Operand};
use std::time::Instant;

const RUNS: usize = 31;

fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..RUNS + 3).map(|_| run()).skip(3).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn main() {
    println!(
        "{:44} {:>10} {:>11}",
        "a thousand blocks", "operations", "median ms"
    );
    for chain in [
        "mlp(hiddens=[64,64]) * 1000",
        "transformer(heads=4) * 1000",
        "decoder(heads=4, kv_heads=2) * 1000",
        "mamba * 1000",
        "transformer(heads=4, precision=quantize_2_8) * 1000",
    ] {
        let input = Operand::new(&[128, 32], 32).expect("a shape");
        let blocks = Chain::parse(&[chain]).expect("a chain");
        let count = || {
            blocks
                .count(input, Conventions::default())
                .expect("it fits")
        };
        let took = median(|| {
            let start = Instant::now();
            let register = count();
            let took = start.elapsed().as_secs_f64() * 1000.0;
            assert!(register.totals().macs > 0);
            took
        });
        println!("{chain:44} {:>10} {took:>11.3}", count().operations().len());
    }
    for format in ["table", "json", "csv"] {
        let chain = "transformer(heads=4) * 1000";
        let args = ["estimate", "--input", "128x32", chain, "--format", format];
        let took = median(|| common::run(&args));
        println!(
            "{:44} {:>10} {took:>11.3}",
            format!("{chain}, whole run, {format}"),
            ""
        );
    }
    let peak = common::peak_kib(&[
        "estimate",
        "--input",
        "128x32",
        "transformer(heads=4) * 1000",
    ]);
    let peak = peak.map_or_else(
        || "no GNU time".into(),
        |kib| format!("{:.1} MiB", kib as f64 / 1024.0),
    );
    println!("peak of the run with a table: {peak}");
}
