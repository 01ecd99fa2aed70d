//! The Hub's cache: what `bitcost fetch` writes, what is left when it cannot, and what `inspect` finds there.

#![cfg(feature = "hub")]

mod common;

use bitcost::checkpoint::Checkpoint;
use bitcost::source::{self, ModelFiles, SourceError, Wanted};
use common::hub::{
    CONFIG, GOOD_TOKEN, Gate, Hub, Kind, Repo, bitcost, model, run, settings, sharded, weights,
};
use common::{Folder, Ran, TIME_LIMIT, at, keys, list, parse, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The folder of a repository in the cache below a home.
fn repository(home: &Folder, id: &str) -> PathBuf {
    let name = format!("models--{}", id.replace('/', "--"));
    home.path().join("hub").join(name)
}

fn snapshot(home: &Folder, id: &str) -> PathBuf {
    repository(home, id)
        .join("snapshots")
        .join(Repo::new(id).commit)
}

/// Names of the files below a folder, sorted; links count as what they are.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

/// Fetches, and expects it to end well.
#[track_caller]
fn fetched(hub: &Hub, home: &Folder, args: &[&str]) -> Ran {
    let mut all = vec!["fetch"];
    all.extend(args);
    let ran = run(hub, home, &all);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
    ran
}

/// How each file came, as the JSON says it.
#[track_caller]
fn actions(hub: &Hub, home: &Folder, args: &[&str]) -> Vec<(String, String)> {
    let mut all = args.to_vec();
    all.extend(["--format", "json"]);
    let report = parse(&fetched(hub, home, &all).out);
    let text = |value: &_, key: &str| at(value, key).as_str().expect("text").to_string();
    let files = list(&report, "files");
    files
        .iter()
        .map(|file| (text(file, "name"), text(file, "action")))
        .collect()
}

/// Fetches, and expects an error that holds these parts and no token.
#[track_caller]
fn refused(hub: &Hub, home: &Folder, args: &[&str], parts: &[&str]) {
    let mut all = vec!["fetch"];
    all.extend(args);
    let ran = run(hub, home, &all);
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    for part in parts {
        assert!(
            ran.err.contains(part),
            "`{part}` is missing in: {}",
            ran.err
        );
    }
    assert!(
        !ran.err.contains("hf_") && !ran.err.contains("signed-and-secret"),
        "{}",
        ran.err
    );
}

/// Opens without the network.
fn offline(
    hub: &Hub,
    home: &Folder,
    id: &str,
    revision: Option<&str>,
) -> Result<ModelFiles, SourceError> {
    let wanted = Wanted {
        offline: true,
        revision: revision.map(String::from),
        ..Wanted::default()
    };
    let home = home.path().to_str().expect("readable");
    source::open(id, &wanted, &settings(hub, &[("HF_HOME", home)]))
}

#[test]
fn fetch_takes_the_small_files_and_prints_the_snapshot() {
    let repo = model("org/tiny")
        .small("tokenizer.json", "{}")
        .small("vocab.txt", "a\n")
        .small("chat_template.jinja", "x")
        .large("tokenizer.model", "spm")
        .small("README.md", "# no")
        .small("onnx/config.json", "{}")
        .large("model.safetensors", weights(3));
    let hub = Hub::with(repo);
    let home = Folder::new();
    let ran = fetched(&hub, &home, &["org/tiny"]);
    let folder = snapshot(&home, "org/tiny");
    assert_eq!(ran.out.trim_end(), folder.to_str().expect("readable"));
    let expected = [
        "chat_template.jinja",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.txt",
    ];
    assert_eq!(names(&folder), expected);
    assert_eq!(
        fs::read_to_string(folder.join("config.json")).expect("there"),
        CONFIG
    );
}

#[test]
fn the_layout_is_that_of_huggingface_hub() {
    let repo = model("org/tiny")
        .large("model.safetensors", weights(3))
        .small("a/b.json", "{}");
    let etags: Vec<String> = repo.files.iter().map(|(_, body)| body.etag()).collect();
    let commit = repo.commit.clone();
    let hub = Hub::with(repo);
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny", "--weights", "--file", "*.json"]);
    let folder = repository(&home, "org/tiny");
    let mut expected = etags.clone();
    expected.sort();
    assert_eq!(names(&folder.join("blobs")), expected);
    assert_eq!(
        fs::read_to_string(folder.join("refs/main")).expect("a ref"),
        commit
    );
    let link = |name: &str| {
        fs::read_link(folder.join("snapshots").join(&commit).join(name)).expect("a link")
    };
    assert_eq!(
        link("config.json"),
        Path::new("../../blobs").join(&etags[0])
    );
    assert_eq!(
        link("a/b.json"),
        Path::new("../../../blobs").join(&etags[2])
    );
    let locks = home.path().join("hub/.locks/models--org--tiny");
    assert_eq!(
        names(&locks),
        expected
            .iter()
            .map(|e| format!("{e}.lock"))
            .collect::<Vec<_>>()
    );
    assert!(home.path().join("hub/CACHEDIR.TAG").exists());
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(3)));
    let home = Folder::new();
    let names = ["config.json", "model.safetensors"].map(String::from);
    let with = |action: &str| {
        names
            .clone()
            .map(|name| (name, action.to_string()))
            .to_vec()
    };
    assert_eq!(
        actions(&hub, &home, &["org/tiny", "--weights"]),
        with("fetched")
    );
    hub.forget();
    assert_eq!(
        actions(&hub, &home, &["org/tiny", "--weights"]),
        with("cached")
    );
    assert_eq!(hub.asked().len(), 1, "only the commit is asked for");
}

#[test]
fn the_json_has_the_keys_that_its_schema_requires() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let report = parse(&fetched(&hub, &home, &["org/tiny", "--format", "json"]).out);
    let schema = parse(&run(&hub, &home, &["schema", "fetch"]).out);
    let required = |path: &str| -> Vec<String> {
        let names = list(&schema, path);
        names
            .iter()
            .map(|name| name.as_str().expect("a name").into())
            .collect()
    };
    assert_eq!(keys(&report), required("required"));
    assert_eq!(
        keys(&at(&report, "model")),
        required("properties.model.required")
    );
    let file = required("properties.files.items.required");
    assert_eq!(keys(&at(&report, "files.0")), file);
}

#[test]
fn a_file_that_another_commit_brought_is_only_linked() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny"]);
    let mut next = model("org/tiny");
    next.commit = "b".repeat(40);
    hub.add(next);
    hub.forget();
    assert_eq!(
        actions(&hub, &home, &["org/tiny"]),
        [("config.json".into(), "cached".into())]
    );
    assert!(
        hub.asked()
            .iter()
            .all(|a| a.method == "HEAD" || a.path.contains("/api/"))
    );
    let main = repository(&home, "org/tiny").join("refs/main");
    assert_eq!(fs::read_to_string(main).expect("a ref"), "b".repeat(40));
}

#[test]
fn weights_are_the_files_of_the_index() {
    let (repo, ..) = sharded(model("org/big"), 2, 3);
    let bytes: Vec<(String, Vec<u8>)> = repo
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|(name, _)| (name.clone(), weights(2)))
        .collect();
    let mut repo = repo;
    repo.files
        .retain(|(name, _)| !name.ends_with(".safetensors"));
    for (name, bytes) in bytes {
        repo = repo.large(&name, bytes);
    }
    let hub = Hub::with(repo.large("consolidated.safetensors", weights(9)));
    let home = Folder::new();
    fetched(&hub, &home, &["org/big", "--weights"]);
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(names(&snapshot(&home, "org/big")), expected);
}

#[test]
fn patterns_choose_files_and_one_that_matches_nothing_is_an_error() {
    let hub = Hub::with(
        model("org/tiny")
            .small("README.md", "#")
            .small("a/b.md", "#"),
    );
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny", "--file", "*.md"]);
    assert_eq!(names(&snapshot(&home, "org/tiny")), ["README.md", "a"]);
    refused(
        &hub,
        &home,
        &["org/tiny", "--file", "*.bin"],
        &["`*.bin`", "org/tiny"],
    );
}

#[test]
fn the_token_does_not_follow_a_download_to_another_host() {
    let mut repo = model("org/gated").large("model.safetensors", weights(3));
    repo.gate = Gate::Gated;
    let hub = Hub::with(repo);
    let home = Folder::new();
    refused(
        &hub,
        &home,
        &["org/gated"],
        &["gated", "/org/gated", "HF_TOKEN"],
    );
    let mut command = bitcost(&hub, &home, &["fetch", "org/gated", "--weights"]);
    command.env("HF_TOKEN", GOOD_TOKEN);
    assert_eq!(wait(command, TIME_LIMIT).code, Some(0));
    let cdn = hub.asked_of(true);
    assert_eq!(cdn.len(), 1);
    assert_eq!(cdn[0].header("authorization"), None);
}

#[test]
fn a_cut_transfer_is_resumed_in_the_same_run() {
    let bytes = weights(3000);
    let size = bytes.len() as u64;
    let hub = Hub::with(model("org/tiny").large("model.safetensors", bytes));
    hub.fault("cdn:", 2, Kind::Cut(100_000));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny", "--weights"]);
    let ranges: Vec<Option<String>> = hub
        .asked_of(true)
        .iter()
        .map(|a| a.header("range").map(String::from))
        .collect();
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    assert!(
        ranges[1..]
            .iter()
            .all(|r| r.as_ref().is_some_and(|r| r.starts_with("bytes=")))
    );
    let sent: u64 = hub.asked_of(true).iter().map(|a| a.sent).sum();
    assert!(sent < size + 200_001, "{sent} of {size}");
}

/// A home with the first part of the weights of `org/tiny`, and the Hub with all of them.
fn begun(part: &[u8]) -> (Hub, Folder, PathBuf) {
    let bytes = weights(3000);
    let repo = model("org/tiny").large("model.safetensors", bytes);
    let etag = repo.files[1].1.etag();
    let home = Folder::new();
    let blobs = repository(&home, "org/tiny").join("blobs");
    fs::create_dir_all(&blobs).expect("a folder");
    fs::write(blobs.join(format!("{etag}.incomplete")), part).expect("a part");
    (Hub::with(repo), home, blobs.join(etag))
}

#[test]
fn a_part_of_an_earlier_run_is_continued() {
    let (hub, home, blob) = begun(&weights(3000)[..123_456]);
    let actions = actions(&hub, &home, &["org/tiny", "--weights"]);
    assert_eq!(actions[1], ("model.safetensors".into(), "resumed".into()));
    assert_eq!(hub.asked_of(true)[0].header("range"), Some("bytes=123456-"));
    assert_eq!(fs::read(blob).expect("whole"), weights(3000));
}

#[test]
fn a_part_that_is_complete_is_only_verified() {
    let (hub, home, blob) = begun(&weights(3000));
    fetched(&hub, &home, &["org/tiny", "--weights"]);
    assert_eq!(hub.asked_of(true).len(), 0);
    assert!(blob.exists());
}

#[test]
fn a_damaged_or_overlong_part_is_fetched_anew() {
    for part in [vec![7; 1000], vec![7; 10_000_000]] {
        let (hub, home, blob) = begun(&part);
        let actions = actions(&hub, &home, &["org/tiny", "--weights"]);
        assert_eq!(actions[1].1, "fetched");
        assert_eq!(fs::read(blob).expect("whole"), weights(3000));
    }
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let (hub, home, blob) = begun(&weights(3000)[..1000]);
    hub.fault("cdn:", 9, Kind::WholeFile);
    fetched(&hub, &home, &["org/tiny", "--weights"]);
    assert_eq!(fs::read(blob).expect("whole"), weights(3000));
}

#[test]
fn a_wrong_hash_is_told_and_nothing_is_left() {
    for (file, host) in [
        ("model.safetensors", "cdn:"),
        ("config.json", "hub:/org/tiny/resolve"),
    ] {
        let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(30)));
        hub.fault(host, 99, Kind::Corrupt);
        let home = Folder::new();
        refused(
            &hub,
            &home,
            &["org/tiny", "--file", file],
            &[file, "the hash of what arrived"],
        );
        assert_eq!(names(&repository(&home, "org/tiny").join("blobs")), [""; 0]);
        assert_eq!(names(&snapshot(&home, "org/tiny")), [""; 0]);
    }
}

#[test]
fn a_wrong_length_leaves_a_part_and_no_file() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(30)));
    hub.fault("cdn:", 99, Kind::Longer(-100));
    let home = Folder::new();
    let args = ["org/tiny", "--file", "model*"];
    refused(&hub, &home, &args, &["bytes came instead of"]);
    assert_eq!(names(&snapshot(&home, "org/tiny")), [""; 0]);
    let left = names(&repository(&home, "org/tiny").join("blobs"));
    assert!(
        left.len() == 1 && left[0].ends_with(".incomplete"),
        "{left:?}"
    );
}

#[test]
fn a_server_that_cuts_and_then_knows_no_parts_is_not_asked_for_ever() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(3000)));
    for _ in 0..20 {
        hub.fault("cdn:", 1, Kind::Cut(50_000));
        hub.fault("cdn:", 1, Kind::Status(416, vec![], String::new()));
    }
    let args = ["org/tiny", "--file", "model*"];
    refused(&hub, &Folder::new(), &args, &["the connection broke"]);
    assert!(hub.asked_of(true).len() < 10);
}

#[test]
fn a_transfer_that_never_goes_on_leaves_only_the_part() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(3000)));
    hub.fault("cdn:", 1, Kind::Cut(100_000));
    hub.fault("cdn:", 99, Kind::Cut(0));
    let home = Folder::new();
    refused(
        &hub,
        &home,
        &["org/tiny", "--file", "model*"],
        &["model.safetensors", "broke"],
    );
    let left = names(&repository(&home, "org/tiny").join("blobs"));
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with(".incomplete"), "{left:?}");
    assert!(!repository(&home, "org/tiny").join("refs/main").exists());
}

#[test]
fn two_processes_that_fetch_the_same_file_end_with_one_download() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(6000)));
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(60)));
    let home = Folder::new();
    let args = ["fetch", "org/tiny", "--weights"];
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&hub, &home, &args));
        let second = scope.spawn(|| run(&hub, &home, &args));
        (
            first.join().expect("no panic"),
            second.join().expect("no panic"),
        )
    });
    assert_eq!(
        (first.code, second.code),
        (Some(0), Some(0)),
        "{} {}",
        first.err,
        second.err
    );
    assert_eq!(hub.asked_of(true).len(), 1);
    let waited = format!("{}{}", first.err, second.err);
    assert!(
        waited.contains("another process is fetching model.safetensors"),
        "{waited}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_called_so() {
    let (hub, home, blob) = begun(b"");
    let part = blob.with_extension("incomplete");
    fs::remove_file(&part).expect("the part");
    std::os::unix::fs::symlink("/dev/full", &part).expect("a link to the disk that is always full");
    refused(
        &hub,
        &home,
        &["org/tiny", "--weights"],
        &["disk is full", ".incomplete"],
    );
    assert!(!blob.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_cannot_be_written_is_called_so() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let file = home.write("file", "no folder");
    // Nobody, not even root, makes folders there.
    for place in ["/sys/bitcost-test", &format!("{file}/cache")] {
        let mut command = bitcost(&hub, &home, &["fetch", "org/tiny"]);
        command.env("HF_HUB_CACHE", place);
        let ran = wait(command, TIME_LIMIT);
        assert_eq!(ran.code, Some(3));
        assert!(ran.err.contains("set HF_HUB_CACHE"), "{}", ran.err);
    }
}

#[test]
fn files_are_copied_where_links_are_switched_off() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let mut command = bitcost(&hub, &home, &["fetch", "org/tiny"]);
    command.env("HF_HUB_DISABLE_SYMLINKS", "1");
    assert_eq!(wait(command, TIME_LIMIT).code, Some(0));
    let config = snapshot(&home, "org/tiny").join("config.json");
    assert!(fs::symlink_metadata(&config).expect("there").is_file());
    assert_eq!(names(&snapshot(&home, "org/tiny")), ["config.json"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_the_resumable_part_and_ends_with_130() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(6000)));
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(200)));
    let home = Folder::new();
    let mut command = bitcost(&hub, &home, &["fetch", "org/tiny", "--file", "model*"]);
    let child = command
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let child = child.spawn().expect("it starts");
    let blobs = repository(&home, "org/tiny").join("blobs");
    let arrived = || {
        let part = names(&blobs).first().map(|name| blobs.join(name));
        part.and_then(|part| fs::metadata(part).ok())
            .is_some_and(|meta| meta.len() > 0)
    };
    let start = Instant::now();
    while !arrived() && start.elapsed() < TIME_LIMIT {
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("interrupted"), "{err}");
    let left = names(&blobs);
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with(".incomplete"), "{left:?}");
    assert_eq!(names(&snapshot(&home, "org/tiny")), [""; 0]);
    let actions = actions(&hub, &home, &["org/tiny", "--file", "model*"]);
    assert_eq!(actions[0].1, "resumed");
}

#[test]
fn bars_are_drawn_on_a_terminal_and_nowhere_else() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(6000)));
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(20)));
    let elsewhere = fetched(&hub, &Folder::new(), &["org/tiny", "--weights"]);
    assert_eq!(elsewhere.err, "");
    hub.fault("cdn:", 1, Kind::Slow(Duration::from_millis(20)));
    let home = Folder::new();
    let fetch = bitcost(&hub, &home, &["fetch", "org/tiny", "--weights"]);
    let Some(seen) = common::on_a_terminal(&fetch) else {
        return;
    };
    assert!(
        seen.contains("model.safetensors") && seen.contains('\u{1b}'),
        "{seen}"
    );
    // What is left when it ends is the summary and the path; no bar stays behind.
    let last = seen.trim_end().lines().last().unwrap_or_default();
    assert!(
        last.ends_with(snapshot(&home, "org/tiny").to_str().expect("a path")),
        "{seen}"
    );
}

#[test]
fn a_size_or_etag_that_leads_elsewhere_is_refused() {
    let hub = Hub::with(model("org/tiny"));
    for etag in ["\"../../x\"", "\"\""] {
        let headers = vec![("ETag", etag.to_string())];
        hub.fault("resolve", 1, Kind::Status(200, headers, "{}".into()));
        refused(
            &hub,
            &Folder::new(),
            &["org/tiny"],
            &["without etag or size"],
        );
    }
}

#[test]
fn what_is_no_id_and_what_does_not_exist_is_told() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let ran = run(&hub, &home, &["fetch", "./folder"]);
    assert_eq!((ran.code, hub.asked().len()), (Some(2), 0));
    refused(
        &hub,
        &home,
        &["org/nothing"],
        &["has no model `org/nothing`"],
    );
    refused(
        &hub,
        &home,
        &["org/tiny", "--revision", "v9"],
        &["no revision `v9`"],
    );
    refused(
        &hub,
        &home,
        &["org/tiny", "--revision", "../x"],
        &["cannot be a revision"],
    );
    let mut command = bitcost(&hub, &home, &["fetch", "org/tiny"]);
    command.env("HF_HUB_OFFLINE", "1");
    assert!(wait(command, TIME_LIMIT).err.contains("HF_HUB_OFFLINE"));
    assert!(!home.path().join("hub").exists());
}

#[test]
fn the_cache_answers_without_the_network() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(4)));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny", "--weights"]);
    hub.forget();
    let ran = run(&hub, &home, &["inspect", "org/tiny", "--format", "json"]);
    assert_eq!(at(&parse(&ran.out), "model.source").as_str(), Some("cache"));
    assert_eq!(
        at(&parse(&ran.out), "model.revision").as_str(),
        Some(&*Repo::new("org/tiny").commit)
    );
    let files = offline(&hub, &home, "org/tiny", None)
        .expect("cached")
        .files
        .expect("files");
    let read = Checkpoint::open(&*files)
        .expect("readable")
        .expect("weights");
    assert_eq!(read.tensors.len(), 4);
    assert!(read.data(&read.tensors[0]).is_ok(), "its bytes are mapped");
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn the_cache_wins_over_the_catalog_and_source_catalog_over_the_cache() {
    let id = "openai-community/gpt2";
    let hub = Hub::with(model(id));
    let home = Folder::new();
    fetched(&hub, &home, &[id]);
    let source = |extra: &[&str]| {
        let mut args = vec!["inspect", id, "--format", "json"];
        args.extend(extra);
        at(&parse(&run(&hub, &home, &args).out), "model.source")
            .as_str()
            .map(String::from)
    };
    assert_eq!(source(&[]).as_deref(), Some("cache"));
    assert_eq!(source(&["--source", "cache"]).as_deref(), Some("cache"));
    assert_eq!(source(&["--source", "catalog"]).as_deref(), Some("catalog"));
    assert_eq!(source(&["--refresh"]).as_deref(), Some("hub"));
}

#[test]
fn revisions_are_found_in_the_cache_by_their_refs() {
    let mut repo = model("org/tiny");
    repo.refs.extend(["v1".into(), "refs/pr/1".into()]);
    let commit = repo.commit.clone();
    let hub = Hub::with(repo);
    let home = Folder::new();
    for revision in ["v1", "refs/pr/1"] {
        fetched(&hub, &home, &["org/tiny", "--revision", revision]);
        let files = offline(&hub, &home, "org/tiny", Some(revision)).expect("cached");
        assert_eq!(files.revision.as_deref(), Some(&*commit));
    }
    assert!(offline(&hub, &home, "org/tiny", Some(&commit)).is_ok());
    let error = offline(&hub, &home, "org/tiny", None).expect_err("main was never fetched");
    assert!(
        error.to_string().contains("not in the Hub's cache"),
        "{error}"
    );
    assert!(offline(&hub, &home, "org/tiny", Some("v2")).is_err());
}

#[test]
fn a_commit_that_the_cache_holds_completely_is_not_asked_for() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(4)));
    let home = Folder::new();
    let commit = Repo::new("org/tiny").commit;
    let source = || {
        let args = [
            "inspect",
            "org/tiny",
            "--revision",
            &*commit,
            "--format",
            "json",
        ];
        let report = parse(&run(&hub, &home, &args).out);
        at(&report, "model.source").as_str().map(String::from)
    };
    fetched(&hub, &home, &["org/tiny"]);
    assert_eq!(source().as_deref(), Some("hub"), "the weights are missing");
    fetched(&hub, &home, &["org/tiny", "--weights"]);
    hub.forget();
    assert_eq!((source().as_deref(), hub.asked().len()), (Some("cache"), 0));
}

#[test]
fn a_cache_with_a_config_and_no_weights_answers_with_what_it_has() {
    let (repo, ..) = sharded(model("org/big"), 3, 3);
    let hub = Hub::with(repo);
    let home = Folder::new();
    fetched(&hub, &home, &["org/big"]);
    let files = offline(&hub, &home, "org/big", None)
        .expect("cached")
        .files
        .expect("files");
    assert_eq!(files.names().expect("names"), ["config.json"]);
    assert!(Checkpoint::open(&*files).expect("no error").is_none());
}

#[test]
fn a_cache_without_a_config_does_not_answer() {
    let hub = Hub::with(model("org/tiny").small("README.md", "#"));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny", "--file", "README.md"]);
    assert!(offline(&hub, &home, "org/tiny", None).is_err());
}

#[test]
fn a_ref_that_is_no_commit_is_not_taken_for_a_path() {
    let hub = Hub::start();
    let home = Folder::new();
    let refs = repository(&home, "org/tiny").join("refs");
    fs::create_dir_all(&refs).expect("a folder");
    fs::write(refs.join("main"), "../../../etc").expect("a ref");
    let error = offline(&hub, &home, "org/tiny", None).expect_err("no commit");
    assert!(error.to_string().contains("not a commit"), "{error}");
}

/// The cache of `org/tiny` with a snapshot by hand: its config, and a link with this target.
#[cfg(unix)]
fn linked(target: &str) -> (Hub, Folder) {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(4)));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny"]);
    let link = snapshot(&home, "org/tiny").join("model.safetensors");
    std::os::unix::fs::symlink(target, link).expect("a link");
    (hub, home)
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_cache_is_not_followed() {
    let (hub, home) = linked("/etc/passwd");
    let files = offline(&hub, &home, "org/tiny", None)
        .expect("cached")
        .files
        .expect("files");
    let error = Checkpoint::open(&*files).expect_err("a link to elsewhere");
    assert!(
        error.to_string().contains("leads out of the folder"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn blobs_that_all_repositories_share_are_read() {
    // huggingface_hub 2 keeps files of Xet once: blobs/ETAG links to ../../blobs/AB/HASH.
    let (hub, home) = linked("../../blobs/etag");
    let shared = home.path().join("hub/blobs/ab");
    fs::create_dir_all(&shared).expect("a folder");
    fs::write(shared.join("hash"), weights(4)).expect("a blob");
    let link = repository(&home, "org/tiny").join("blobs/etag");
    std::os::unix::fs::symlink("../../blobs/ab/hash", link).expect("a link");
    let files = offline(&hub, &home, "org/tiny", None)
        .expect("cached")
        .files
        .expect("files");
    let read = Checkpoint::open(&*files)
        .expect("readable")
        .expect("weights");
    assert_eq!(read.tensors.len(), 4);
}

#[test]
fn a_complete_cache_that_is_read_only_is_no_fault() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    fetched(&hub, &home, &["org/tiny"]);
    // Nothing is written: not even the lock folder is made again.
    fs::remove_dir_all(home.path().join("hub/.locks")).expect("the locks");
    fetched(&hub, &home, &["org/tiny"]);
    assert!(!home.path().join("hub/.locks").exists());
}
