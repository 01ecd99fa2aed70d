//! python's huggingface_hub and bitcost share one cache: each finds what the other has fetched, and waits for its locks.
//!
//! Runs where the interpreter that `BITCOST_PYTHON` names, else `python3`, can import huggingface_hub; says loudly where not.

#![cfg(feature = "hub")]

mod common;

use common::hub::{CONFIG, GOOD_TOKEN, Gate, Hub, Kind, Repo, bitcost, model, run, weights};
use common::{Folder, TIME_LIMIT, at, clean, parse, skipped, wait};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The interpreter, or `None` and a word about it.
fn python() -> Option<String> {
    let name = std::env::var("BITCOST_PYTHON").unwrap_or_else(|_| "python3".into());
    let probe = Command::new(&name)
        .args([
            "-c",
            "import huggingface_hub; print(huggingface_hub.__version__)",
        ])
        .stdin(Stdio::null())
        .output();
    match probe {
        Ok(output) if output.status.success() => Some(name),
        _ => {
            skipped(&format!(
                "`{name}` cannot import huggingface_hub; set BITCOST_PYTHON to a python that can"
            ));
            None
        }
    }
}

/// A script, asking this Hub, with its cache in this home.
fn script(python: &str, hub: &Hub, home: &Folder, text: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", text]).stdin(Stdio::null());
    clean(&mut command);
    command
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_HOME", home.path())
        // Bars and questions home are of no use here, and Xet is another protocol.
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_XET", "1");
    command
}

/// What a script prints, if it ends well.
#[track_caller]
fn printed(command: Command) -> String {
    let ran = wait(command, TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out.trim().to_string()
}

/// A model with small files, weights, and a file in a folder.
fn whole() -> Repo {
    let mut repo = model("org/tiny")
        .small("tokenizer.json", "{}")
        .small("sub/extra.json", "{\"a\":1}")
        .large("model.safetensors", weights(1500));
    repo.refs.push("refs/pr/1".into());
    repo
}

#[test]
fn what_python_downloads_bitcost_finds_without_the_network() {
    let Some(python) = python() else { return };
    let (hub, home) = (Hub::with(whole()), Folder::new());
    let text =
        "from huggingface_hub import snapshot_download\nprint(snapshot_download('org/tiny'))";
    let snapshot = printed(script(&python, &hub, &home, text));
    assert!(snapshot.ends_with(&whole().commit), "{snapshot}");
    hub.forget();
    let ran = run(
        &hub,
        &home,
        &["inspect", "org/tiny", "--offline", "--format", "json"],
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(at(&parse(&ran.out), "model.source").as_str(), Some("cache"));
    assert_eq!(
        at(&parse(&ran.out), "model.revision").as_str(),
        Some(&*whole().commit)
    );
    // And nothing has to be fetched again.
    let ran = run(
        &hub,
        &home,
        &["fetch", "org/tiny", "--weights", "--format", "json"],
    );
    assert!(!ran.out.contains("\"fetched\""), "{}", ran.out);
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn what_bitcost_fetches_python_finds_without_the_network() {
    let Some(python) = python() else { return };
    let (hub, home) = (Hub::with(whole()), Folder::new());
    let ran = run(&hub, &home, &["fetch", "org/tiny", "--weights"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    hub.forget();
    let text = "from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache\n\
        a = hf_hub_download('org/tiny', 'config.json', local_files_only=True)\n\
        b = hf_hub_download('org/tiny', 'model.safetensors', local_files_only=True)\n\
        assert try_to_load_from_cache('org/tiny', 'config.json') == a\n\
        print(open(a).read(), end='\\0')\n\
        print(len(open(b, 'rb').read()), end='\\0')\n\
        print(snapshot_download('org/tiny', local_files_only=True))";
    let out = printed(script(&python, &hub, &home, text));
    let parts: Vec<&str> = out.split('\0').collect();
    assert_eq!(parts[0], CONFIG);
    assert_eq!(parts[1], weights(1500).len().to_string());
    assert_eq!(parts[2], ran.out.trim_end());
    let mut offline = script(
        &python,
        &hub,
        &home,
        "from huggingface_hub import hf_hub_download\nprint(hf_hub_download('org/tiny', 'config.json'))",
    );
    offline.env("HF_HUB_OFFLINE", "1");
    assert!(printed(offline).ends_with("config.json"));
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn python_fetches_nothing_again_that_bitcost_has_fetched() {
    let Some(python) = python() else { return };
    let (hub, home) = (Hub::with(whole()), Folder::new());
    assert_eq!(
        run(&hub, &home, &["fetch", "org/tiny", "--weights"]).code,
        Some(0)
    );
    hub.forget();
    let text = "from huggingface_hub import snapshot_download\nsnapshot_download('org/tiny')";
    printed(script(&python, &hub, &home, text));
    let bodies: Vec<String> = hub
        .asked()
        .into_iter()
        .filter(|a| a.method == "GET" && !a.path.contains("/api/"))
        .map(|a| a.path)
        .collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    assert!(bodies[0].ends_with("sub/extra.json"));
}

#[test]
fn the_two_write_the_same_files() {
    let Some(python) = python() else { return };
    let hub = Hub::with(whole());
    let (ours, theirs) = (Folder::new(), Folder::new());
    let args = [
        "fetch",
        "org/tiny",
        "--file",
        "*",
        "--revision",
        "refs/pr/1",
    ];
    assert_eq!(run(&hub, &ours, &args).code, Some(0));
    let text = "from huggingface_hub import hf_hub_download\n\
        for name in ['config.json', 'tokenizer.json', 'sub/extra.json', 'model.safetensors']:\n\
        \x20   hf_hub_download('org/tiny', name, revision='refs/pr/1')";
    printed(script(&python, &hub, &theirs, text));
    assert_eq!(tree(&ours), tree(&theirs));
}

/// Every file of a cache with its content, links with their target.
fn tree(home: &Folder) -> Vec<String> {
    fn walk(root: &std::path::Path, folder: &std::path::Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .strip_prefix(root)
                .expect("below the root")
                .display()
                .to_string();
            let meta = fs::symlink_metadata(&path).expect("there");
            if meta.is_dir() {
                walk(root, &path, out);
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                out.push(format!("{name} -> {}", target.display()));
            } else if !name.ends_with("CACHEDIR.TAG") {
                // Both write the signature that the standard asks for, and their own comment after it.
                out.push(format!("{name}: {:?}", fs::read(&path).expect("readable")));
            }
        }
    }
    let mut out = Vec::new();
    let root = home.path().join("hub");
    walk(&root, &root, &mut out);
    out.sort();
    out
}

#[test]
fn a_file_that_python_knows_not_to_exist_does_not_make_a_model() {
    let Some(python) = python() else { return };
    let hub = Hub::with(Repo::new("org/data").small("README.md", "#"));
    let home = Folder::new();
    let text = "from huggingface_hub import hf_hub_download\n\
        try:\n    hf_hub_download('org/data', 'config.json')\nexcept Exception as e: print(type(e).__name__)";
    assert_eq!(
        printed(script(&python, &hub, &home, text)),
        "RemoteEntryNotFoundError"
    );
    let ran = run(&hub, &home, &["inspect", "org/data", "--offline"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("has no config.json"), "{}", ran.err);
}

#[test]
fn bitcost_waits_for_the_lock_that_python_holds() {
    let Some(python) = python() else { return };
    let (hub, home) = (Hub::with(whole()), Folder::new());
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(300)));
    let text = "from huggingface_hub import hf_hub_download\n\
        print('begun', flush=True)\nhf_hub_download('org/tiny', 'model.safetensors')";
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| wait(script(&python, &hub, &home, text), TIME_LIMIT));
        // Python is at it as soon as it has asked the other host.
        while hub.asked_of(true).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ours = wait(
            bitcost(&hub, &home, &["fetch", "org/tiny", "--file", "model*"]),
            TIME_LIMIT,
        );
        (theirs.join().expect("no panic"), ours)
    });
    assert_eq!(
        (theirs.code, ours.code),
        (Some(0), Some(0)),
        "{} {}",
        theirs.err,
        ours.err
    );
    assert!(
        ours.err.contains("another process is fetching"),
        "{}",
        ours.err
    );
}

#[test]
fn python_waits_for_the_lock_that_bitcost_holds() {
    let Some(python) = python() else { return };
    let (hub, home) = (Hub::with(whole()), Folder::new());
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(300)));
    let text = "from huggingface_hub import hf_hub_download\nhf_hub_download('org/tiny', 'model.safetensors')";
    let (ours, theirs) = std::thread::scope(|scope| {
        let ours = scope.spawn(|| run(&hub, &home, &["fetch", "org/tiny", "--file", "model*"]));
        while hub.asked_of(true).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let theirs = wait(script(&python, &hub, &home, text), TIME_LIMIT);
        (ours.join().expect("no panic"), theirs)
    });
    assert_eq!(
        (ours.code, theirs.code),
        (Some(0), Some(0)),
        "{} {}",
        ours.err,
        theirs.err
    );
    assert_eq!(hub.asked_of(true).len(), 1);
}

#[test]
fn both_read_the_same_token_file() {
    let Some(python) = python() else { return };
    let mut repo = whole();
    repo.gate = Gate::Private;
    let (hub, home) = (Hub::with(repo), Folder::new());
    home.write("token", format!("{GOOD_TOKEN}\n"));
    let text =
        "from huggingface_hub import hf_hub_download\nhf_hub_download('org/tiny', 'config.json')";
    printed(script(&python, &hub, &home, text));
    assert_eq!(run(&hub, &home, &["fetch", "org/tiny"]).code, Some(0));
}
