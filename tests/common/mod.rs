//! What the integration tests share: running the program with a time limit, a folder of its own for each test, and
//! reading what was printed.

// Each test program uses its own part of this file.
#![allow(dead_code)]

pub(crate) mod headers;
pub(crate) mod schema;
pub(crate) mod weights;

#[cfg(feature = "hub")]
pub(crate) mod hub;

use bitcost::value::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The longest any run may take. The unoptimized program on a busy machine stays far below it; a hang does not.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What a run of the program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The exit code; `None` if a signal or the time limit ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// Variables of the environment that change what is printed, or which Hub and cache are asked.
const CHANGING: &[&str] = &[
    "BITCOST_KERNEL",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "RUST_BACKTRACE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Says that something could not be shown here, past the test harness, which keeps what passing tests print to itself.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// The program with arguments, without anything of the environment that changes what it prints: no cache, no network.
pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitcost"));
    command.args(args).stdin(Stdio::null());
    clean(&mut command);
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// Takes the developer's own settings of the Hub from a command, and gives it an empty home.
pub(crate) fn clean(command: &mut Command) {
    for name in CHANGING {
        command.env_remove(name);
    }
    // Nobody creates it, so there is neither a cache nor a token.
    command.env("HF_HOME", std::env::temp_dir().join("bitcost-test-no-home"));
    // What bitcost keeps itself does not belong into the developer's own folder.
    command.env(
        "XDG_CACHE_HOME",
        std::env::temp_dir().join("bitcost-test-caches"),
    );
}

/// Runs the program to its end, or kills it at the time limit.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Ran {
    wait(program(args), TIME_LIMIT)
}

/// Runs a prepared command to its end, or kills it at the limit.
#[track_caller]
pub(crate) fn wait(mut command: Command, limit: Duration) -> Ran {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program that cargo built can be started");
    // Both pipes are drained while the program runs; a full pipe would stop it.
    let out = drain(child.stdout.take().expect("stdout is piped"));
    let err = drain(child.stderr.take().expect("stderr is piped"));
    let start = Instant::now();
    let code = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status.code(),
            None if start.elapsed() > limit => {
                child.kill().expect("a child can be killed");
                child.wait().expect("a killed child ends");
                panic!("{command:?} did not end within {limit:?}");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(thread.join().expect("reading a pipe does not panic"))
            .expect("the program prints UTF-8")
    };
    Ran {
        code,
        out: text(out),
        err: text(err),
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The program under `script`, which gives it a terminal of its own; what the terminal saw. `None` where there is no
/// `script`.
pub(crate) fn on_a_terminal(plain: &Command) -> Option<String> {
    let mut line = plain.get_program().to_string_lossy().into_owned();
    for arg in plain.get_args() {
        line.push_str(&format!(" '{}'", arg.to_string_lossy()));
    }
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("TERM", "xterm").stdin(Stdio::null());
    match command.output() {
        Ok(output) => {
            let seen = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{seen}");
            Some(seen)
        }
        Err(e) => {
            skipped(&format!("a terminal for the program needs `script`: {e}"));
            None
        }
    }
}

/// Claims that a run ended with this code, one error that mentions all of this, and nothing on standard output.
#[track_caller]
pub(crate) fn refused(ran: &Ran, code: i32, mentions: &[&str]) {
    assert!(
        !ran.err.contains("panicked") && !ran.err.contains("overflowed its stack"),
        "{}",
        ran.err
    );
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(code), ""),
        "{}",
        ran.err
    );
    assert!(ran.err.starts_with("error: "), "{}", ran.err);
    let errors = ran
        .err
        .lines()
        .filter(|line| line.starts_with("error:"))
        .count();
    assert_eq!(errors, 1, "{}", ran.err);
    for mention in mentions {
        assert!(
            ran.err.contains(mention),
            "the error does not mention `{mention}`:\n{}",
            ran.err
        );
    }
}

/// Runs the program and takes its standard output; anything but success is a failure of the test.
#[track_caller]
pub(crate) fn stdout(args: &[&str]) -> String {
    let ran = run(args);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (Some(0), ""),
        "bitcost {}",
        args.join(" ")
    );
    ran.out
}

/// Runs the program and reads the JSON it prints.
#[track_caller]
pub(crate) fn json(args: &[&str]) -> Value {
    parse(&stdout(args))
}

/// Reads printed JSON: strictly, as any other program would, then exactly and in order.
#[track_caller]
pub(crate) fn parse(text: &str) -> Value {
    if let Err(e) = serde_json::from_str::<serde_json::Value>(text) {
        panic!("not JSON ({e}):\n{text}");
    }
    bitcost::json::read(text).expect("JSON is also what the crate's own reader reads")
}

/// The value at a path such as `totals.read_bytes.weights` or `modules.0.path`.
#[track_caller]
pub(crate) fn at(value: &Value, path: &str) -> Value {
    let mut here = value.clone();
    for part in path.split('.') {
        let next = match &here {
            Value::Object(object) => object.get(part).cloned(),
            Value::List(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|i| items.get(i).cloned()),
            _ => None,
        };
        here = match next {
            Some(next) => next,
            None => panic!("there is no `{path}` (at `{part}`)"),
        };
    }
    here
}

/// The integer at a path.
#[track_caller]
pub(crate) fn int(value: &Value, path: &str) -> i128 {
    match at(value, path) {
        Value::Int(n) => n,
        other => panic!("`{path}` is {other}, not an integer"),
    }
}

/// The items of the list at a path.
#[track_caller]
pub(crate) fn list(value: &Value, path: &str) -> Vec<Value> {
    match at(value, path) {
        Value::List(items) => items.to_vec(),
        other => panic!("`{path}` is {other}, not a list"),
    }
}

/// The keys of an object, in the order they are written.
#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<String> {
    match value {
        Value::Object(object) => object.0.iter().map(|(key, _)| key.to_string()).collect(),
        other => panic!("{other} is not an object"),
    }
}

/// The path of a file under `fixtures/`.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    path.to_str()
        .expect("the crate's folder has a readable name")
        .to_string()
}

/// A folder that lasts as long as its owner.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bitcost-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Folder(path)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file inside, whether it exists or not.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0
            .join(name)
            .to_str()
            .expect("temporary paths are readable")
            .to_string()
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::write(&path, content).expect("a file in a fresh folder can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
