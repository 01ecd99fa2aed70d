//! The source tree as `src/lib.rs` draws it: imports go down, only `cli` prints, files say what they are.

use std::path::{Path, PathBuf};

/// Level of each module of `src/`, as drawn in the crate's documentation.
const LEVELS: &[(&str, u8)] = &[
    ("cli", 7),
    ("report", 6),
    ("bitnet", 5),
    ("analysis", 5),
    ("check", 5),
    ("compare", 5),
    ("flow", 4),
    ("join", 4),
    ("stats", 4),
    ("model", 3),
    ("bitlinear", 3),
    ("machine", 3),
    ("db", 2),
    ("checkpoint", 2),
    ("kernels", 2),
    ("formula", 1),
    ("cost", 1),
    ("tensor", 1),
    ("device", 1),
    ("text", 1),
    ("source", 1),
    ("memory", 0),
    ("threads", 0),
    ("wide", 0),
    ("value", 0),
    ("json", 0),
    ("units", 0),
    ("dtype", 0),
    ("float16", 0),
    ("glob", 0),
    ("channels", 0),
    ("bops", 0),
    ("random", 0),
];

/// Imports that the picture names as exceptions.
const ALLOWED: &[(&str, &str)] = &[
    ("source", "formula"),
    ("cost", "formula"),
    ("json", "value"),
    ("memory", "units"),
    ("units", "json"),
    ("units", "value"),
    ("check", "analysis"),
];

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "benches", "examples"] {
        files(&root.join(folder), &mut paths);
    }
    paths
        .into_iter()
        .map(|p| {
            (
                p.strip_prefix(root).expect("below the root").to_path_buf(),
                std::fs::read_to_string(&p).expect("text"),
            )
        })
        .collect()
}

/// `src/model/scope.rs` belongs to `model`, `src/value.rs` to `value`.
fn module_of(path: &Path) -> Option<String> {
    let rest = path.strip_prefix("src").ok()?;
    let first = rest.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_string())
}

fn level(module: &str) -> u8 {
    LEVELS
        .iter()
        .find(|(m, _)| *m == module)
        .unwrap_or_else(|| panic!("`{module}` has no level in tests/tidy.rs"))
        .1
}

#[test]
fn imports_go_down_the_picture() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else {
            continue;
        };
        // One import names one module; a group would hide which.
        if text.contains("use crate::{") {
            wrong.push(format!("{}: `use crate::{{..}}`", path.display()));
        }
        for (at, _) in text.match_indices("crate::") {
            let used: String = text[at + 7..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            if used == module
                || !LEVELS.iter().any(|(m, _)| *m == used)
                || text[..at]
                    .lines()
                    .last()
                    .is_some_and(|l| l.trim_start().starts_with("//"))
            {
                continue;
            }
            let allowed = ALLOWED.contains(&(module.as_str(), used.as_str()));
            if level(&used) >= level(&module) && !allowed {
                wrong.push(format!("{}: {module} uses {used}", path.display()));
            }
        }
    }
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "imports that go up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_the_command_line_prints() {
    for (path, text) in sources() {
        if path.starts_with("src") && module_of(&path).is_some_and(|m| m != "cli") {
            let prints =
                text.contains("println!(") || text.contains("eprint!(") || text.contains("dbg!(");
            assert!(!prints, "{} prints", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_ends_in_a_newline() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{} does not begin with what it is",
            path.display()
        );
        assert!(
            text.ends_with('\n') && !text.ends_with("\n\n"),
            "{} does not end in one newline",
            path.display()
        );
    }
}

#[test]
fn no_model_is_named_in_the_program() {
    let families = [
        "llama",
        "mistral",
        "qwen",
        "gemma",
        "deepseek",
        "bert",
        "resnet",
        "mobilenet",
        "whisper",
        "mamba",
        "falcon",
        "opt_",
        "gpt2",
    ];
    for (path, text) in sources() {
        if !path.starts_with("src") || path.starts_with("src/cli") {
            continue;
        }
        // Comments may name examples; code and messages may not.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (i, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default().to_lowercase();
            for family in families {
                // The original estimator has a block of this name, which is no model's class.
                if path.starts_with("src/cost/blocks") && family == "mamba" {
                    continue;
                }
                assert!(
                    !line.contains(family),
                    "{}:{}: names `{family}`",
                    path.display(),
                    i + 1
                );
            }
        }
    }
}
