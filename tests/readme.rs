//! The README tells the truth: its console blocks print what they say, its JSON is a database without faults.

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    std::fs::read_to_string(path).expect("README.md")
}

/// The fenced blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line) {
            (Some(block), "```") => blocks.push(std::mem::take(block)),
            (Some(block), line) => *block += &format!("{line}\n"),
            (None, _) => {}
        }
        if line == "```" {
            open = None;
        } else if line.starts_with("```") {
            open = (line == format!("```{language}")).then(String::new);
        }
    }
    blocks
}

fn bitcost(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bitcost"))
        .args(args)
        .env("HF_HUB_OFFLINE", "1")
        .env(
            "HF_HUB_CACHE",
            std::env::temp_dir().join("bitcost-test-no-cache"),
        )
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn console_blocks_print_what_they_say() {
    let blocks = blocks("console");
    assert!(blocks.len() >= 4, "the README shows what it prints");
    for block in blocks {
        let (command, expected) = block.split_once('\n').expect("a command and its output");
        let args: Vec<&str> = command
            .strip_prefix("$ bitcost ")
            .expect("a bitcost command")
            .split(' ')
            .collect();
        let (code, printed) = bitcost(&args);
        assert_eq!(code, 0, "{command}");
        match expected.strip_suffix("...\n") {
            // A block that ends in dots shows the beginning.
            Some(beginning) => assert!(printed.starts_with(beginning), "{command}\n{printed}"),
            None => {
                let shown: Vec<&str> = expected.lines().collect();
                let lines: Vec<&str> = printed.lines().take(shown.len()).collect();
                assert_eq!(lines, shown, "{command}");
            }
        }
    }
}

#[test]
fn there_are_two_commands_to_start() {
    let start = blocks("sh");
    assert_eq!(start.len(), 1);
    let lines: Vec<&str> = start[0].lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("cargo run") && lines[1].starts_with("cargo test"),
        "{lines:?}"
    );
}

#[test]
fn its_database_has_no_faults() {
    let blocks = blocks("json");
    assert!(!blocks.is_empty());
    for (i, block) in blocks.iter().enumerate() {
        let file =
            std::env::temp_dir().join(format!("bitcost-readme-{}-{i}.json", std::process::id()));
        std::fs::write(&file, block).expect("written");
        let (code, printed) = bitcost(&["db", "check", &file.display().to_string()]);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(code, 0, "{printed}");
    }
}
