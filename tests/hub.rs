//! The Hub over HTTP and its cache, against an imitation on loopback: what is asked for, how often, who sees the token, and
//! what is said when something goes wrong.

#![cfg(feature = "hub")]
// One test tells its figures to whoever asks for them.
#![allow(clippy::print_stderr)]

mod common;

use bitcost::checkpoint::{Checkpoint, CheckpointError};
use bitcost::source::{self, ModelFiles, Settings, SourceError, SourceKind, Wanted};
use common::hub::{
    CONFIG, GOOD_TOKEN, Gate, Hub, Kind, OTHER_TOKEN, Repo, bitcost, model, run, safetensors,
    settings, sharded, weights,
};
use common::{Folder, TIME_LIMIT, at, parse, wait};
use std::time::{Duration, Instant};

fn open(hub: &Hub, id: &str, vars: &[(&str, &str)]) -> Result<ModelFiles, SourceError> {
    source::open(id, &Wanted::default(), &settings(hub, vars))
}

/// The model's checkpoint, read by its headers.
#[track_caller]
fn checkpoint(files: &ModelFiles) -> Checkpoint {
    let files = files.files.as_deref().expect("the Hub has files");
    Checkpoint::open(files).expect("readable").expect("weights")
}

/// The message of a model that cannot be had, which never shows a token.
#[track_caller]
fn refused(hub: &Hub, id: &str, vars: &[(&str, &str)], parts: &[&str]) {
    let message = match open(hub, id, vars) {
        Ok(_) => panic!("{id} was found"),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
    for secret in ["hf_", "signed-and-secret", "Bearer"] {
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn a_model_of_the_hub_is_inspected_by_its_id() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let ran = run(&hub, &home, &["inspect", "org/tiny", "--format", "json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let report = parse(&ran.out);
    assert_eq!(at(&report, "model.source").as_str(), Some("hub"));
    assert_eq!(
        at(&report, "model.revision").as_str(),
        Some(&*Repo::new("org/tiny").commit)
    );
    assert!(!home.path().join("hub").exists(), "inspect writes no cache");
}

#[test]
fn the_title_names_source_and_commit() {
    let hub = Hub::with(model("org/tiny"));
    let ran = run(&hub, &Folder::new(), &["inspect", "org/tiny"]);
    let commit = &Repo::new("org/tiny").commit[..12];
    let title = format!("org/tiny (LlamaForCausalLM, hub at {commit})");
    assert!(ran.out.starts_with(&title), "{}", ran.out);
}

#[test]
fn a_model_of_the_catalog_is_not_asked_for() {
    let hub = Hub::start();
    let ran = run(&hub, &Folder::new(), &["inspect", "openai-community/gpt2"]);
    assert_eq!((ran.code, hub.asked().len()), (Some(0), 0));
}

#[test]
fn source_hub_asks_for_a_model_of_the_catalog_too() {
    let hub = Hub::with(model("openai-community/gpt2"));
    let args = [
        "inspect",
        "openai-community/gpt2",
        "--source",
        "hub",
        "--format",
        "json",
    ];
    let ran = run(&hub, &Folder::new(), &args);
    assert_eq!(at(&parse(&ran.out), "model.source").as_str(), Some("hub"));
}

#[test]
fn refresh_and_revision_go_to_the_hub_first() {
    let mut repo = model("openai-community/gpt2");
    repo.refs.push("refs/pr/1".into());
    let hub = Hub::with(repo);
    for flag in [&["--refresh"][..], &["--revision", "refs/pr/1"]] {
        let mut args = vec!["inspect", "openai-community/gpt2", "--format", "json"];
        args.extend(flag);
        let ran = run(&hub, &Folder::new(), &args);
        assert_eq!(
            at(&parse(&ran.out), "model.source").as_str(),
            Some("hub"),
            "{}",
            ran.err
        );
    }
    assert!(
        hub.asked()
            .iter()
            .any(|a| a.path.ends_with("/revision/refs%2Fpr%2F1"))
    );
}

#[test]
fn offline_asks_nobody() {
    let hub = Hub::with(model("org/tiny"));
    let home = Folder::new();
    let flag = run(&hub, &home, &["inspect", "org/tiny", "--offline"]);
    let mut command = bitcost(&hub, &home, &["inspect", "org/tiny"]);
    command.env("HF_HUB_OFFLINE", "1");
    for ran in [flag, wait(command, TIME_LIMIT)] {
        assert_eq!(ran.code, Some(3));
        assert!(ran.err.contains("the network is off"), "{}", ran.err);
    }
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn source_hub_without_the_network_is_refused() {
    let hub = Hub::with(model("org/tiny"));
    let args = ["inspect", "org/tiny", "--source", "hub", "--offline"];
    let ran = run(&hub, &Folder::new(), &args);
    assert_eq!((ran.code, hub.asked().len()), (Some(3), 0));
    assert!(ran.err.contains("--offline"), "{}", ran.err);
}

#[test]
fn what_cannot_be_an_id_never_reaches_the_network() {
    let hub = Hub::start();
    for id in [
        "a/b/c",
        "../up",
        "a b",
        "org/na--me",
        "org/..",
        "name.git",
        "org/n\u{e4}me",
    ] {
        let ran = run(&hub, &Folder::new(), &["inspect", id]);
        assert_eq!(ran.code, Some(3), "{id}");
    }
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn revisions_of_what_has_none_are_refused() {
    let hub = Hub::with(model("org/tiny"));
    let folder = Folder::new();
    folder.write("config.json", CONFIG);
    let path = folder.path().to_str().expect("readable");
    for args in [
        &["inspect", path, "--revision", "main"][..],
        &[
            "inspect",
            "openai-community/gpt2",
            "--source",
            "catalog",
            "--refresh",
        ],
        &["inspect", "org/tiny", "--source", "cache", "--refresh"],
    ] {
        let ran = run(&hub, &Folder::new(), args);
        assert_eq!((ran.code, hub.asked().len()), (Some(3), 0), "{args:?}");
        assert!(ran.err.contains("no revisions"), "{}", ran.err);
    }
}

#[test]
fn weights_in_folders_belong_to_other_things() {
    let repo = model("org/tiny").large("onnx/model.safetensors", weights(2));
    let hub = Hub::with(repo.large("part/weights.bin", "x"));
    let files = open(&hub, "org/tiny", &[])
        .expect("found")
        .files
        .expect("files");
    assert_eq!(files.names().expect("names"), ["config.json"]);
    assert!(Checkpoint::open(&*files).expect("no error").is_none());
}

#[test]
fn a_revision_that_leads_elsewhere_is_refused() {
    let hub = Hub::with(model("org/tiny"));
    let ran = run(
        &hub,
        &Folder::new(),
        &["inspect", "org/tiny", "--revision", "../main"],
    );
    assert_eq!((ran.code, hub.asked().len()), (Some(3), 0));
}

#[test]
fn one_request_tells_the_commit_and_one_brings_the_config() {
    let hub = Hub::with(model("org/tiny").small("README.md", "# hello"));
    open(&hub, "org/tiny", &[]).expect("found");
    let paths: Vec<String> = hub.asked().into_iter().map(|a| a.path).collect();
    let commit = Repo::new("org/tiny").commit;
    assert_eq!(
        paths,
        [
            "/api/models/org/tiny/revision/main".to_string(),
            format!("/org/tiny/resolve/{commit}/config.json"),
        ]
    );
    let agent = concat!("bitcost/", env!("CARGO_PKG_VERSION"));
    assert_eq!(hub.asked()[0].header("user-agent"), Some(agent));
}

#[test]
fn headers_of_a_single_file_come_with_one_range_request() {
    let bytes = weights(20);
    let hub = Hub::with(model("org/tiny").large("model.safetensors", bytes.clone()));
    let files = open(&hub, "org/tiny", &[]).expect("found");
    hub.forget();
    let read = checkpoint(&files);
    assert_eq!(read.tensors.len(), 20);
    assert_eq!(read.files[0].bytes, bytes.len() as u64);
    let cdn = hub.asked_of(true);
    assert_eq!((hub.asked().len(), cdn.len()), (2, 1));
    assert_eq!(
        (cdn[0].status, cdn[0].header("range")),
        (206, Some("bytes=0-16383"))
    );
}

#[test]
fn a_header_longer_than_the_first_guess_takes_a_second_request_for_the_rest() {
    let bytes = weights(500);
    let header = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
    let hub = Hub::with(model("org/tiny").large("model.safetensors", bytes));
    let files = open(&hub, "org/tiny", &[]).expect("found");
    assert_eq!(checkpoint(&files).tensors.len(), 500);
    let sent: u64 = hub.asked_of(true).iter().map(|a| a.sent).sum();
    assert_eq!((hub.asked_of(true).len(), sent), (2, 8 + header));
}

#[test]
fn shards_take_one_range_request_each_and_little_more_than_their_headers() {
    for tensors in [3, 60, 700, 2500] {
        let (repo, header_bytes, index_bytes) = sharded(model("org/big"), 12, tensors);
        let hub = Hub::with(repo);
        let files = open(&hub, "org/big", &[]).expect("found");
        assert_eq!(checkpoint(&files).tensors.len(), 12 * tensors);
        let cdn = hub.asked_of(true);
        // The first eight are begun before any of them has taught how long entries are.
        let most = if tensors > 1000 { 12 + 8 } else { 12 };
        assert!(cdn.len() <= most, "{tensors}: {} requests", cdn.len());
        let sent: u64 = cdn.iter().map(|a| a.sent).sum();
        assert!(
            sent <= header_bytes + 12 * (16 << 10),
            "{tensors}: {sent} for {header_bytes}"
        );
        let all: u64 = hub.asked().iter().map(|a| a.sent).sum();
        assert!(all <= header_bytes + 12 * (16 << 10) + index_bytes + 8192);
    }
}

#[test]
fn the_headers_of_191_shards_take_less_than_three_seconds_at_50_ms_per_request() {
    let (repo, header_bytes, index_bytes) = sharded(model("org/huge"), 191, 60);
    let hub = Hub::with(repo);
    hub.latency(Duration::from_millis(50));
    let start = Instant::now();
    let files = open(&hub, "org/huge", &[]).expect("found");
    let read = checkpoint(&files);
    let time = start.elapsed();
    let asked = hub.asked();
    let sent: u64 = asked.iter().map(|a| a.sent).sum();
    // `cargo test --release -- --nocapture 191` shows the figures.
    eprintln!(
        "191 shards: {time:?}, {} requests, {sent} bytes (headers {header_bytes}, index {index_bytes})",
        asked.len()
    );
    assert_eq!(read.files.len(), 191);
    // 2 x 191 / 8 rounds of 50 ms are 2.4 s; an unoptimized program among other tests may take longer.
    let limit = if cfg!(debug_assertions) { 6 } else { 3 };
    assert!(time < Duration::from_secs(limit), "{time:?}");
    assert!(sent <= header_bytes + index_bytes + 191 * (16 << 10));
}

#[test]
fn at_most_eight_shards_are_read_at_once_over_connections_that_are_kept() {
    let (repo, ..) = sharded(model("org/big"), 40, 3);
    let hub = Hub::with(repo);
    hub.latency(Duration::from_millis(10));
    let files = open(&hub, "org/big", &[]).expect("found");
    checkpoint(&files);
    let (connections, peak) = hub.load();
    assert!((2..=8).contains(&peak), "{peak} at once");
    // Eight to each host.
    assert!(connections <= 16, "{connections} connections");
}

#[test]
fn a_server_that_ignores_ranges_does_not_make_us_read_the_file() {
    let (start, _) = safetensors(&[("a".into(), vec![1 << 25])]);
    let size = start.len() as u64 + (1 << 26);
    let hub = Hub::with(model("org/tiny").padded("model.safetensors", start, size));
    hub.fault("cdn:", 9, Kind::WholeFile);
    let files = open(&hub, "org/tiny", &[]).expect("found");
    let read = checkpoint(&files);
    assert_eq!((read.tensors.len(), read.files[0].bytes), (1, size));
    // The figure is right once the server has felt that nobody reads on.
    let sent = || hub.asked_of(true)[0].sent;
    let begin = Instant::now();
    while sent() > size / 4 && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(sent() < size / 4, "{} of {size}", sent());
}

#[test]
fn the_token_reaches_the_hub_and_not_the_host_that_it_redirects_to() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(3)));
    let files = open(&hub, "org/tiny", &[("HF_TOKEN", GOOD_TOKEN)]).expect("found");
    checkpoint(&files);
    let bearer = format!("Bearer {GOOD_TOKEN}");
    for asked in hub.asked_of(false) {
        assert_eq!(
            asked.header("authorization"),
            Some(&*bearer),
            "{}",
            asked.path
        );
    }
    assert_eq!(hub.asked_of(true).len(), 1);
    assert_eq!(hub.asked_of(true)[0].header("authorization"), None);
}

#[test]
fn a_redirect_to_another_host_in_the_api_does_not_get_the_token_either() {
    let (hub, other) = (Hub::with(model("org/tiny")), Hub::with(model("org/tiny")));
    let target = format!("{}/api/models/org/tiny/revision/main", other.endpoint());
    hub.fault(
        "/api/",
        1,
        Kind::Status(302, vec![("Location", target)], String::new()),
    );
    open(&hub, "org/tiny", &[("HF_TOKEN", GOOD_TOKEN)]).expect("found");
    assert_eq!(other.asked().len(), 1);
    assert_eq!(other.asked()[0].header("authorization"), None);
}

#[test]
fn redirects_in_a_circle_end() {
    let hub = Hub::with(model("org/tiny"));
    let circle = vec![("Location", "/api/models/org/tiny/revision/main".to_string())];
    hub.fault("/api/", 99, Kind::Status(302, circle, String::new()));
    refused(&hub, "org/tiny", &[], &["redirected more than"]);
}

#[test]
fn the_token_file_is_read() {
    let home = Folder::new();
    home.write("token", format!("{GOOD_TOKEN}\n"));
    let mut repo = model("org/private");
    repo.gate = Gate::Private;
    let hub = Hub::with(repo);
    assert!(open(&hub, "org/private", &[]).is_err());
    let home = home.path().to_str().expect("readable");
    open(&hub, "org/private", &[("HF_HOME", home)]).expect("found");
}

#[test]
fn a_gated_model_says_where_its_licence_is() {
    let mut repo = model("org/gated");
    repo.gate = Gate::Gated;
    let hub = Hub::with(repo);
    let page = format!("{}/org/gated", hub.endpoint());
    refused(&hub, "org/gated", &[], &["gated", &page, "HF_TOKEN"]);
    let other = [("HF_TOKEN", OTHER_TOKEN)];
    refused(
        &hub,
        "org/gated",
        &other,
        &["gated", &page, "no access yet"],
    );
    open(&hub, "org/gated", &[("HF_TOKEN", GOOD_TOKEN)]).expect("found");
}

#[test]
fn a_token_that_is_not_accepted_is_called_so_and_not_shown() {
    let mut repo = model("org/private");
    repo.gate = Gate::Private;
    let hub = Hub::with(repo);
    let bad = [("HF_TOKEN", "hf_expired")];
    refused(&hub, "org/private", &bad, &["does not accept the token"]);
    refused(
        &hub,
        "org/private",
        &[("HF_TOKEN", "hf_a b")],
        &["characters that no token has"],
    );
}

#[test]
fn a_token_in_what_a_server_says_is_not_shown() {
    let hub = Hub::with(model("org/tiny"));
    let said = format!("no access for {GOOD_TOKEN}");
    let headers = vec![("X-Error-Message", said.clone())];
    hub.fault("/api/", 1, Kind::Status(403, headers, said));
    let token = [("HF_TOKEN", GOOD_TOKEN)];
    refused(&hub, "org/tiny", &token, &["no access for ***", "403"]);
}

#[test]
fn a_repository_that_does_not_exist_is_told_with_what_was_tried() {
    let mut private = model("org/private");
    private.gate = Gate::Private;
    let hub = Hub::with(private);
    let parts = [
        "has no model `org/nothing`",
        "HF_TOKEN",
        "not in the catalog",
    ];
    refused(&hub, "org/nothing", &[], &parts);
    refused(
        &hub,
        "org/private",
        &[("HF_TOKEN", OTHER_TOKEN)],
        &["has no model", "may not see it"],
    );
    let hint = "did you mean `meta-llama/Llama-2-7b-hf`?";
    refused(&hub, "meta-llama/Llama-2-7b-hff", &[], &[hint]);
}

#[test]
fn a_revision_that_does_not_exist_is_named() {
    let hub = Hub::with(model("org/tiny"));
    let wanted = Wanted {
        revision: Some("v9".into()),
        ..Wanted::default()
    };
    let error = source::open("org/tiny", &wanted, &settings(&hub, &[])).expect_err("no such tag");
    assert!(
        error.to_string().contains("org/tiny has no revision `v9`"),
        "{error}"
    );
}

#[test]
fn a_moved_repository_is_followed_and_its_new_id_noted() {
    let mut old = Repo::new("old/name");
    old.moved_to = Some("new/name".into());
    let hub = Hub::with(old);
    hub.add(model("new/name"));
    let ran = run(
        &hub,
        &Folder::new(),
        &["inspect", "old/name", "--format", "json"],
    );
    let report = parse(&ran.out);
    assert_eq!(
        at(&report, "notes.0.message").as_str(),
        Some("old/name is called new/name now")
    );
}

#[test]
fn waiting_is_done_as_long_as_the_server_asks() {
    let hub = Hub::with(model("org/tiny"));
    let wait = || vec![("Retry-After", "1".to_string())];
    hub.fault("/api/", 1, Kind::Status(429, wait(), String::new()));
    let start = Instant::now();
    open(&hub, "org/tiny", &[]).expect("found at last");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(hub.asked().len(), 3);
}

#[test]
fn nobody_waits_for_an_hour() {
    let hub = Hub::with(model("org/tiny"));
    let hour = vec![("Retry-After", "3600".to_string())];
    hub.fault("/api/", 9, Kind::Status(429, hour, String::new()));
    refused(
        &hub,
        "org/tiny",
        &[],
        &["too many requests", "3600 seconds"],
    );
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn a_server_that_stumbles_is_asked_again_but_not_for_ever() {
    let hub = Hub::with(model("org/tiny"));
    let stumble = || Kind::Status(503, vec![], "busy".into());
    hub.fault("/resolve/", 2, stumble());
    open(&hub, "org/tiny", &[]).expect("found at the third try");
    hub.forget();
    hub.fault("/resolve/", 99, stumble());
    refused(&hub, "org/tiny", &[], &["answered 503"]);
    assert_eq!(hub.asked().len(), 5);
}

#[test]
fn a_refusal_is_not_asked_again() {
    let hub = Hub::start();
    refused(&hub, "org/nothing", &[], &[]);
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn cut_connections_are_tried_again() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(9)));
    hub.fault("/api/", 1, Kind::Cut(10));
    hub.fault("config.json", 1, Kind::Cut(0));
    hub.fault("cdn:", 2, Kind::Cut(20));
    let files = open(&hub, "org/tiny", &[]).expect("found");
    assert_eq!(checkpoint(&files).tensors.len(), 9);
}

#[test]
fn a_connection_that_always_breaks_is_an_error_that_names_the_file() {
    let hub = Hub::with(model("org/tiny"));
    hub.fault("config.json", 99, Kind::Cut(10));
    refused(
        &hub,
        "org/tiny",
        &[],
        &["config.json", "the connection broke"],
    );
}

#[test]
fn a_silent_server_is_not_waited_for_for_ever() {
    let hub = Hub::with(model("org/tiny"));
    hub.fault("/api/", 99, Kind::Silent(Duration::from_secs(3)));
    let start = Instant::now();
    let timeout = [("HF_HUB_DOWNLOAD_TIMEOUT", "1")];
    refused(
        &hub,
        "org/tiny",
        &timeout,
        &["no answer for 1 seconds", "not in the catalog"],
    );
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_wrong_content_length_is_noticed() {
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(9)));
    hub.fault("config.json", 99, Kind::Longer(5));
    refused(&hub, "org/tiny", &[], &["config.json"]);
    let hub = Hub::with(model("org/tiny").large("model.safetensors", weights(9)));
    let files = open(&hub, "org/tiny", &[]).expect("found");
    hub.fault("cdn:", 99, Kind::Longer(-5));
    let error = Checkpoint::open(files.files.as_deref().expect("files")).expect_err("too short");
    assert!(
        error.to_string().contains("bytes came instead of"),
        "{error}"
    );
}

#[test]
fn an_endpoint_that_answers_html_is_no_hub() {
    let page = || {
        let headers = vec![("Content-Type", "text/html; charset=utf-8".to_string())];
        Kind::Status(200, headers, "<!DOCTYPE html><p>Please log in".into())
    };
    let hub = Hub::with(model("org/tiny"));
    hub.fault("/api/", 1, page());
    refused(&hub, "org/tiny", &[], &["HTML page", "HF_ENDPOINT"]);
    hub.fault("config.json", 1, page());
    refused(&hub, "org/tiny", &[], &["config.json", "HTML page"]);
    hub.fault("/api/", 1, Kind::Status(200, vec![], "{}".into()));
    refused(&hub, "org/tiny", &[], &["no list of files"]);
}

#[test]
fn nobody_there_is_told_with_the_host() {
    let dead = |endpoint: &str| {
        let settings = Settings::read(|name| (name == "HF_ENDPOINT").then(|| endpoint.to_string()));
        let error = source::open("org/tiny", &Wanted::default(), &settings);
        error.expect_err("nobody answers").to_string()
    };
    let refused = dead("http://127.0.0.1:9");
    assert!(refused.contains("127.0.0.1 cannot be reached"), "{refused}");
    assert!(refused.contains("not in the catalog"), "{refused}");
    let unknown = dead("http://no-such-host.invalid");
    let parts = ["no-such-host.invalid is not known", "not in the catalog"];
    assert!(parts.iter().all(|part| unknown.contains(part)), "{unknown}");
    let wrong = dead("hub.example");
    assert!(wrong.contains("begins with https://"), "{wrong}");
    let secret = dead("http://me:password@127.0.0.1:9");
    assert!(!secret.contains("password"), "{secret}");
}

#[test]
fn a_server_without_tls_is_not_taken_for_a_secure_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("https://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let settings = Settings::read(|name| (name == "HF_ENDPOINT").then(|| endpoint.clone()));
    let error = source::open("org/tiny", &Wanted::default(), &settings).expect_err("no TLS");
    let message = error.to_string();
    assert!(
        message.contains("no secure connection to 127.0.0.1"),
        "{message}"
    );
}

#[test]
fn a_file_that_leads_out_of_the_repository_makes_the_list_incredible() {
    for name in ["../../x", "/etc/passwd", "a/../../x.json", "..\\x"] {
        let hub = Hub::with(model("org/evil").small(name, "x"));
        refused(&hub, "org/evil", &[], &["leads out of the repository"]);
    }
}

#[test]
fn an_index_that_leads_out_of_the_repository_is_refused() {
    let index = r#"{"weight_map":{"a":"../../etc/passwd"}}"#;
    let hub = Hub::with(model("org/evil").small("model.safetensors.index.json", index));
    let files = open(&hub, "org/evil", &[]).expect("found");
    hub.forget();
    let error = Checkpoint::open(files.files.as_deref().expect("files")).expect_err("refused");
    assert!(matches!(error, CheckpointError::Index { .. }), "{error}");
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn weights_of_other_formats_are_called_by_their_name() {
    let hub = Hub::with(model("org/old").large("pytorch_model.bin", "pickle"));
    let files = open(&hub, "org/old", &[]).expect("the config is there");
    let error =
        Checkpoint::open(files.files.as_deref().expect("files")).expect_err("no safetensors");
    assert!(error.to_string().contains("pytorch_model.bin"), "{error}");
    let hub = Hub::with(Repo::new("org/gguf").large("q4.gguf", "GGUF"));
    refused(
        &hub,
        "org/gguf",
        &[],
        &["neither a config.json nor a safetensors file", "q4.gguf"],
    );
}

#[test]
fn a_file_that_is_no_safetensors_file_is_called_by_what_it_is() {
    let repo = model("org/odd").large("model.safetensors", &b"PK\x03\x04 a zip archive"[..]);
    for (repo, part) in [
        (repo, "zip archive"),
        (model("org/odd").large("model.safetensors", ""), "too few"),
        (
            model("org/odd").large("model.safetensors", "12345"),
            "too few",
        ),
    ] {
        let hub = Hub::with(repo);
        let files = open(&hub, "org/odd", &[]).expect("found");
        let error = Checkpoint::open(files.files.as_deref().expect("files")).expect_err("odd");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("org/odd@"), "{error}");
    }
}

#[test]
fn a_config_of_gigabytes_is_not_read() {
    let hub = Hub::with(Repo::new("org/large").padded("config.json", b"{".to_vec(), 1 << 30));
    refused(&hub, "org/large", &[], &["config.json", "more than"]);
}

#[test]
fn small_files_in_large_storage_are_read_too() {
    let hub = Hub::with(Repo::new("org/tiny").large("config.json", CONFIG));
    open(&hub, "org/tiny", &[]).expect("found");
    assert_eq!(hub.asked_of(true).len(), 1);
}

#[test]
fn names_with_unusual_characters_are_encoded() {
    let hub = Hub::with(model("org/odd").small("a b#?\u{e9}.json", "{}"));
    let files = open(&hub, "org/odd", &[]).expect("found");
    let read = files
        .files
        .expect("files")
        .read("a b#?\u{e9}.json")
        .expect("readable");
    assert_eq!(read.as_deref(), Some(&b"{}"[..]));
}

#[test]
fn what_the_hub_does_not_list_is_not_asked_for() {
    let hub = Hub::with(model("org/tiny"));
    let files = open(&hub, "org/tiny", &[])
        .expect("found")
        .files
        .expect("files");
    hub.forget();
    assert_eq!(
        files.read("generation_config.json").expect("no error"),
        None
    );
    assert_eq!(hub.asked().len(), 0);
}

#[test]
fn the_source_that_answers_is_named() {
    let hub = Hub::with(model("org/tiny"));
    let files = open(&hub, "org/tiny", &[]).expect("found");
    assert_eq!(
        (files.source, files.source.name()),
        (SourceKind::Hub, "hub")
    );
}

/// A proxy that connects to wherever it is asked, and counts.
fn proxy() -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!(
        "http://user:pass@{}",
        listener.local_addr().expect("an address")
    );
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let target = first.split(' ').nth(1).unwrap_or_default().to_string();
            let Ok(mut server) = std::net::TcpStream::connect(&target) else {
                continue;
            };
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let mut back = (
                server.try_clone().expect("a copy"),
                stream.try_clone().expect("a copy"),
            );
            std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
            std::thread::spawn(move || std::io::copy(&mut stream, &mut server));
        }
    });
    (address, count)
}

#[test]
fn the_proxy_of_the_environment_is_used_unless_no_proxy_names_the_host() {
    use std::sync::atomic::Ordering;
    let hub = Hub::with(model("org/tiny"));
    let (address, count) = proxy();
    open(&hub, "org/tiny", &[("http_proxy", &address)]).expect("found through the proxy");
    let through = count.load(Ordering::Relaxed);
    assert!(through >= 1);
    let direct = [
        ("http_proxy", &*address),
        ("NO_PROXY", "example.com, 127.0.0.1"),
    ];
    open(&hub, "org/tiny", &direct).expect("found without the proxy");
    assert_eq!(count.load(Ordering::Relaxed), through);
}

/// The tokenizer of the tiny model, which the imitation of the Hub serves.
const TOKENIZER: &[u8] = include_bytes!("../fixtures/text/byte_level/tokenizer.json");

/// Whether a report says that a text had so many tokens by this tokenizer.
#[track_caller]
fn counted(ran: &common::Ran, tokens: usize, tokenizer: &str) {
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let report = parse(&ran.out);
    let notes = common::list(&report, "notes");
    let said: Vec<String> = notes
        .iter()
        .map(|note| at(note, "message").to_string())
        .collect();
    let note = format!("seq-len {tokens} is how many tokens");
    let fits = |said: &&String| said.contains(&note) && said.contains(tokenizer);
    assert!(said.iter().find(fits).is_some(), "{said:?}");
}

#[test]
fn a_text_is_counted_by_a_tokenizer_of_the_hub() {
    let mut repo = model("org/tiny").small("tokenizer.json", TOKENIZER);
    repo.refs.push("refs/pr/1".into());
    let hub = Hub::with(repo);
    hub.add(Repo::new("org/only-words").small("tokenizer.json", TOKENIZER));
    hub.add(model("org/bare"));
    let home = Folder::new();
    let text = home.write("prompt.txt", "!#");
    let inspect = |id: &str, more: &[&str]| {
        let args = ["inspect", id, "--tokenize", &text, "--format", "json"];
        run(&hub, &home, &[&args[..], more].concat())
    };
    let place = |id: &str| format!("{id}@{}/tokenizer.json", &Repo::new(id).commit[..12]);

    // The model's own, another's, that of a repository with nothing else.
    counted(&inspect("org/tiny", &[]), 3, &place("org/tiny"));
    counted(
        &inspect("org/tiny", &["--revision", "refs/pr/1"]),
        3,
        &place("org/tiny"),
    );
    counted(
        &inspect("org/bare", &["--tokenizer", "org/tiny"]),
        3,
        &place("org/tiny"),
    );
    let other = ["--tokenizer", "org/only-words", "--revision", "refs/pr/1"];
    counted(&inspect("org/tiny", &other), 3, &place("org/only-words"));
    // A model of the catalog has its tokenizer on the Hub.
    hub.add(model("openai-community/gpt2").small("tokenizer.json", TOKENIZER));
    counted(
        &inspect("openai-community/gpt2", &[]),
        3,
        &place("openai-community/gpt2"),
    );

    let ran = inspect("org/bare", &[]);
    common::refused(&ran, 3, &["org/bare@", "no tokenizer.json beside it"]);
    let ran = inspect("org/tiny", &["--tokenizer", "org/bare"]);
    common::refused(&ran, 3, &["org/bare@", "there is no tokenizer.json"]);
    let ran = inspect("org/tiny", &["--tokenizer", "org/absent"]);
    common::refused(&ran, 3, &["org/absent"]);
}

#[test]
fn a_tokenizer_in_the_cache_needs_no_network() {
    let hub = Hub::with(model("org/tiny").small("tokenizer.json", TOKENIZER));
    let home = Folder::new();
    let text = home.write("prompt.txt", "!#");
    let args = [
        "inspect",
        "org/tiny",
        "--tokenize",
        &text,
        "--format",
        "json",
    ];
    let config_only = ["fetch", "org/tiny", "--file", "config.json"];
    assert_eq!(run(&hub, &home, &config_only).code, Some(0));
    // The cache has the model without its tokenizer: it is asked for at the same commit, or said to be missing.
    let commit = &Repo::new("org/tiny").commit[..12];
    counted(
        &run(&hub, &home, &args),
        3,
        &format!("org/tiny@{commit}/tokenizer.json"),
    );
    let offline = [&args[..], &["--offline"]].concat();
    common::refused(
        &run(&hub, &home, &offline),
        3,
        &["there is no tokenizer.json", "--offline"],
    );
    let cache = [&args[..], &["--source", "cache"]].concat();
    common::refused(
        &run(&hub, &home, &cache),
        3,
        &["no tokenizer.json beside it"],
    );

    assert_eq!(run(&hub, &home, &["fetch", "org/tiny"]).code, Some(0));
    hub.forget();
    counted(&run(&hub, &home, &args), 3, "snapshots");
    counted(&run(&hub, &home, &offline), 3, "snapshots");
    assert_eq!(hub.asked().len(), 0);
}
