//! What the benches share: one run of the whole program, its time and its peak memory.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_bitcost"))
}

/// Milliseconds of one run.
pub(crate) fn run(args: &[&str]) -> f64 {
    let start = Instant::now();
    let status = Command::new(program())
        .args(args)
        .stdout(Stdio::null())
        .status()
        .expect("it runs");
    let took = start.elapsed().as_secs_f64() * 1000.0;
    assert!(status.success(), "{args:?} ended with {status}");
    took
}

/// Peak resident memory of one run, as GNU time reports it.
pub(crate) fn peak_kib(args: &[&str]) -> Option<u64> {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%M"])
        .arg(program())
        .args(args)
        .stdout(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .last()?
        .trim()
        .parse()
        .ok()
}
