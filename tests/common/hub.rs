//! An imitation of the Hub for tests: real HTTP/1.1 on loopback, with keep-alive, two hosts, and faults on demand.
//!
//! The endpoint is `127.0.0.1:PORT` and the host with the bytes of LFS files is `localhost:PORT2`, so that a redirect really
//! leads to another host. Everything that was asked for is kept, for tests to count.

use super::{Folder, Ran, TIME_LIMIT, program, wait};
use bitcost::source::Settings;
use sha2::Digest;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The token that may see everything.
pub(crate) const GOOD_TOKEN: &str = "hf_goodgoodgood";

/// A valid token of an account that has accepted no licence.
pub(crate) const OTHER_TOKEN: &str = "hf_otherotherother";

/// A running imitation; it ends with its owner.
pub(crate) struct Hub {
    state: Arc<State>,
    hosts: [String; 2],
}

struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Vec<Fault>>,
    asked: Mutex<Vec<Asked>>,
    latency: Mutex<Duration>,
    number: AtomicUsize,
    connections: AtomicUsize,
    /// Requests that wait for their answer, and the most that ever did at once.
    waiting: AtomicUsize,
    peak: AtomicUsize,
    ended: AtomicBool,
    cdn: String,
}

/// A repository with one commit.
#[derive(Clone)]
pub(crate) struct Repo {
    pub(crate) id: String,
    pub(crate) commit: String,
    pub(crate) refs: Vec<String>,
    pub(crate) files: Vec<(String, Body)>,
    pub(crate) gate: Gate,
    /// The id that the repository has now.
    pub(crate) moved_to: Option<String>,
}

/// Who may see a repository.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Gate {
    Open,
    Gated,
    Private,
}

/// The bytes of a file.
#[derive(Clone)]
pub(crate) enum Body {
    /// In git.
    Small(Arc<Vec<u8>>),
    /// In LFS: served by the other host.
    Large(Arc<Vec<u8>>),
    /// In LFS, zeros after its beginning; its etag is not its hash.
    Padded(Arc<Vec<u8>>, u64),
}

/// What goes wrong, how often, for which requests.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) times: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    /// A status with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// The connection closes after so many bytes of the body.
    Cut(u64),
    /// So long nothing is said.
    Silent(Duration),
    /// `Content-Length` is wrong by so much; then the connection closes.
    Longer(i64),
    /// `Range` is ignored.
    WholeFile,
    /// Other bytes than the etag says.
    Corrupt,
    /// Each 64 KiB of the body take so long.
    Slow(Duration),
}

/// One request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    number: usize,
    pub(crate) cdn: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) status: u16,
    /// Bytes of the body that were written to the connection.
    pub(crate) sent: u64,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Body::Small(bytes) | Body::Large(bytes) => bytes.len() as u64,
            Body::Padded(_, bytes) => *bytes,
        }
    }

    fn is_large(&self) -> bool {
        !matches!(self, Body::Small(_))
    }

    /// SHA-256 for LFS, git's SHA-1 for the rest.
    pub(crate) fn etag(&self) -> String {
        match self {
            Body::Small(bytes) => {
                let mut hash = sha1::Sha1::new();
                hash.update(format!("blob {}\0", bytes.len()));
                hash.update(&**bytes);
                hex(&hash.finalize())
            }
            Body::Large(bytes) | Body::Padded(bytes, _) => hex(&sha2::Sha256::digest(&**bytes)),
        }
    }

    /// The bytes from one position to another.
    fn piece(&self, begin: u64, end: u64) -> Vec<u8> {
        let (Body::Small(bytes) | Body::Large(bytes) | Body::Padded(bytes, _)) = self;
        let at = |n: u64| (n as usize).min(bytes.len());
        let mut piece = bytes[at(begin)..at(end)].to_vec();
        piece.resize((end - begin) as usize, 0);
        piece
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Repo {
    /// A public repository without files; its commit follows from its id.
    pub(crate) fn new(id: &str) -> Repo {
        Repo {
            id: id.into(),
            commit: hex(&sha1::Sha1::digest(id)),
            refs: vec!["main".into()],
            files: Vec::new(),
            gate: Gate::Open,
            moved_to: None,
        }
    }

    pub(crate) fn small(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Repo {
        let body = Body::Small(Arc::new(bytes.into()));
        self.files.push((name.into(), body));
        self
    }

    pub(crate) fn large(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Repo {
        let body = Body::Large(Arc::new(bytes.into()));
        self.files.push((name.into(), body));
        self
    }

    pub(crate) fn padded(mut self, name: &str, start: Vec<u8>, bytes: u64) -> Repo {
        let body = Body::Padded(Arc::new(start), bytes);
        self.files.push((name.into(), body));
        self
    }

    fn at(&self, revision: &str) -> bool {
        revision == self.commit || self.refs.iter().any(|known| known == revision)
    }

    fn file(&self, name: &str) -> Option<&Body> {
        let found = self.files.iter().find(|(known, _)| known == name);
        found.map(|(_, body)| body)
    }
}

impl Hub {
    /// Starts both hosts.
    pub(crate) fn start() -> Hub {
        let hub = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let cdn = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let hosts = [
            format!("http://127.0.0.1:{}", port(&hub)),
            format!("http://localhost:{}", port(&cdn)),
        ];
        let state = Arc::new(State {
            repos: Mutex::default(),
            faults: Mutex::default(),
            asked: Mutex::default(),
            latency: Mutex::default(),
            number: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            cdn: hosts[1].clone(),
        });
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if state.ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let state = state.clone();
                    std::thread::spawn(move || serve(&state, stream, is_cdn));
                }
            });
        }
        Hub { state, hosts }
    }

    /// Starts with one repository.
    pub(crate) fn with(repo: Repo) -> Hub {
        let hub = Hub::start();
        hub.add(repo);
        hub
    }

    pub(crate) fn add(&self, repo: Repo) {
        let mut repos = self.state.repos.lock().expect("no panic");
        repos.insert(repo.id.clone(), repo);
    }

    pub(crate) fn fault(&self, path: &str, times: usize, kind: Kind) {
        let mut faults = self.state.faults.lock().expect("no panic");
        faults.push(Fault {
            path: path.into(),
            times,
            kind,
        });
    }

    pub(crate) fn latency(&self, latency: Duration) {
        *self.state.latency.lock().expect("no panic") = latency;
    }

    /// The value for `HF_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.hosts[0]
    }

    /// Everything that was asked for up to now, in the order in which it was answered.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("no panic").clone()
    }

    /// The requests to one host.
    pub(crate) fn asked_of(&self, cdn: bool) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|request| request.cdn == cdn);
        asked
    }

    /// Connections up to now, and the most requests that were waiting at once.
    pub(crate) fn load(&self) -> (usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.state.connections), read(&self.state.peak))
    }

    /// Forgets what was asked for.
    pub(crate) fn forget(&self) {
        self.state.asked.lock().expect("no panic").clear();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for host in &self.hosts {
            let address = host.trim_start_matches("http://");
            let address = address.replace("localhost", "127.0.0.1");
            let _ = TcpStream::connect(address);
        }
    }
}

/// An answer before it is written.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
    begin: u64,
    end: u64,
}

impl Answer {
    fn text(status: u16, headers: Vec<(&'static str, String)>, text: &str) -> Answer {
        let body = Body::Small(Arc::new(text.as_bytes().to_vec()));
        let end = body.len();
        Answer {
            status,
            headers,
            body,
            begin: 0,
            end,
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Answer {
        let mut headers = vec![
            ("X-Error-Message", message.to_string()),
            ("Content-Type", "application/json".into()),
        ];
        if !code.is_empty() {
            headers.push(("X-Error-Code", code.into()));
        }
        Answer::text(status, headers, &format!("{{\"error\":\"{message}\"}}"))
    }
}

/// Answers the requests of one connection, one after the other.
fn serve(state: &State, stream: TcpStream, cdn: bool) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    let mut stream = stream;
    while let Some((method, path, headers)) = read_request(&mut reader) {
        let waiting = state.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        state.peak.fetch_max(waiting, Ordering::Relaxed);
        let latency = *state.latency.lock().expect("no panic");
        std::thread::sleep(latency);
        let fault = take_fault(state, cdn, &path);
        let mut asked = Asked {
            number: state.number.fetch_add(1, Ordering::Relaxed),
            cdn,
            method,
            path,
            headers,
            status: 0,
            sent: 0,
        };
        if let Some(Kind::Silent(time)) = fault {
            std::thread::sleep(time);
            state.waiting.fetch_sub(1, Ordering::Relaxed);
            state.asked.lock().expect("no panic").push(asked);
            return;
        }
        let mut answer = match &fault {
            Some(Kind::Status(status, headers, body)) => {
                Answer::text(*status, headers.clone(), body)
            }
            _ => answer(state, &asked, matches!(fault, Some(Kind::WholeFile))),
        };
        asked.status = answer.status;
        if let Some(Kind::Corrupt) = fault {
            let mut bytes = answer.body.piece(answer.begin, answer.end);
            if let Some(byte) = bytes.last_mut() {
                *byte ^= 1;
            }
            answer.body = Body::Small(Arc::new(bytes));
            (answer.begin, answer.end) = (0, answer.end - answer.begin);
        }
        // Noted before the client can go on; corrected where the client did not take all.
        asked.sent = if asked.method == "HEAD" {
            0
        } else {
            answer.end - answer.begin
        };
        let (method, number) = (asked.method.clone(), asked.number);
        let noted = asked.sent;
        state.asked.lock().expect("no panic").push(asked);
        state.waiting.fetch_sub(1, Ordering::Relaxed);
        let (sent, stays) = write_answer(&mut stream, &method, &answer, &fault);
        if sent != noted {
            let mut asked = state.asked.lock().expect("no panic");
            if let Some(asked) = asked.iter_mut().find(|a| a.number == number) {
                asked.sent = sent;
            }
        }
        if !stays {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

type Headers = Vec<(String, String)>;

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Headers)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_string(), value.trim().to_string()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some((method, path, headers))
}

fn take_fault(state: &State, cdn: bool, path: &str) -> Option<Kind> {
    let mut faults = state.faults.lock().expect("no panic");
    let host = if cdn { "cdn" } else { "hub" };
    let place = format!("{host}:{path}");
    let fault = faults
        .iter_mut()
        .find(|fault| fault.times > 0 && place.contains(&fault.path))?;
    fault.times -= 1;
    Some(fault.kind.clone())
}

fn write_answer(
    stream: &mut TcpStream,
    method: &str,
    answer: &Answer,
    fault: &Option<Kind>,
) -> (u64, bool) {
    let length = answer.end - answer.begin;
    let announced = match fault {
        Some(Kind::Longer(by)) => (length as i64 + by) as u64,
        _ => length,
    };
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !answer
        .headers
        .iter()
        .any(|(name, _)| *name == "Content-Length")
    {
        head += &format!("Content-Length: {announced}\r\n");
    }
    head += "Connection: keep-alive\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return (0, false);
    }
    if method == "HEAD" {
        return (0, true);
    }
    let end = match fault {
        Some(Kind::Cut(after)) => answer.end.min(answer.begin + after),
        _ => answer.end,
    };
    let mut at = answer.begin;
    while at < end {
        let next = end.min(at + (64 << 10));
        if stream.write_all(&answer.body.piece(at, next)).is_err() {
            return (at - answer.begin, false);
        }
        at = next;
        if let Some(Kind::Slow(time)) = fault {
            std::thread::sleep(*time);
        }
    }
    let whole = !matches!(fault, Some(Kind::Cut(_) | Kind::Longer(_)));
    (at - answer.begin, whole)
}

fn answer(state: &State, asked: &Asked, whole_file: bool) -> Answer {
    let path = asked.path.split('?').next().unwrap_or_default();
    let repos = state.repos.lock().expect("no panic");
    if asked.cdn {
        return from_cdn(&repos, asked, path, whole_file);
    }
    let Some((repo, rest)) = find(&repos, path) else {
        return Answer::error(401, "RepoNotFound", "Invalid username or password.");
    };
    let (is_api, rest) = rest;
    if let Some(now) = &repo.moved_to {
        let target = path.replacen(&repo.id, now, 1);
        return Answer::text(307, vec![("Location", target)], "Temporary Redirect");
    }
    if let Some(refusal) = gate(repo, asked, is_api) {
        return refusal;
    }
    let (verb, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
    let revision = decoded(revision);
    let revision = if verb.is_empty() { "main" } else { &revision };
    if !repo.at(revision) {
        let message = format!("Invalid rev id: {revision}");
        return Answer::error(404, "RevisionNotFound", &message);
    }
    match (is_api, verb) {
        (true, "tree") => Answer::text(200, json(), &tree(repo)),
        (true, _) => Answer::text(200, json(), &info(repo)),
        (false, "resolve") => resolve(state, repo, asked, &decoded(file), whole_file),
        _ => Answer::error(404, "", "Not found"),
    }
}

fn json() -> Vec<(&'static str, String)> {
    vec![("Content-Type", "application/json; charset=utf-8".into())]
}

/// The repository of a path, whether it is the API's, and what follows the id.
fn find<'r, 'p>(
    repos: &'r BTreeMap<String, Repo>,
    path: &'p str,
) -> Option<(&'r Repo, (bool, &'p str))> {
    let (is_api, rest) = match path.strip_prefix("/api/models/") {
        Some(rest) => (true, rest),
        None => (false, path.strip_prefix('/')?),
    };
    repos.values().find_map(|repo| {
        let after = rest.strip_prefix(repo.id.as_str())?;
        let after = if after.is_empty() {
            after
        } else {
            after.strip_prefix('/')?
        };
        Some((repo, (is_api, after)))
    })
}

/// Why somebody may not see a repository. What it is about is public for gated ones.
fn gate(repo: &Repo, asked: &Asked, is_api: bool) -> Option<Answer> {
    let token = asked
        .header("authorization")
        .map(|v| v.replace("Bearer ", ""));
    match (repo.gate, token.as_deref()) {
        (_, Some(GOOD_TOKEN)) | (Gate::Open, None | Some(OTHER_TOKEN)) => None,
        (Gate::Gated, _) if is_api && token.as_deref().is_none_or(|t| t == OTHER_TOKEN) => None,
        (Gate::Gated, None) => Some(Answer::error(
            401,
            "GatedRepo",
            "Access to this model is restricted. You must be authenticated to access it.",
        )),
        (Gate::Gated, Some(OTHER_TOKEN)) => Some(Answer::error(
            403,
            "GatedRepo",
            "Access to this model is restricted and you are not in the authorized list.",
        )),
        (Gate::Private, Some(OTHER_TOKEN)) => {
            Some(Answer::error(404, "RepoNotFound", "Repository not found"))
        }
        (Gate::Private, None) => Some(Answer::error(401, "", "Invalid username or password.")),
        // A server that repeats the token, as some proxies do.
        (_, Some(bad)) => Some(Answer::error(
            401,
            "",
            &format!("Invalid credentials in Authorization header: {bad}"),
        )),
    }
}

fn info(repo: &Repo) -> String {
    let siblings = repo
        .files
        .iter()
        .map(|(name, _)| serde_json::json!({"rfilename": name}));
    serde_json::json!({
        "_id": "0", "id": repo.id, "modelId": repo.id, "sha": repo.commit, "private": false,
        "siblings": siblings.collect::<Vec<_>>(),
    })
    .to_string()
}

fn tree(repo: &Repo) -> String {
    let entries = repo.files.iter().map(|(name, body)| {
        let mut entry = serde_json::json!({
            "type": "file", "oid": body.etag(), "size": body.len(), "path": name,
        });
        if body.is_large() {
            entry["lfs"] =
                serde_json::json!({"oid": body.etag(), "size": body.len(), "pointerSize": 130});
        }
        entry
    });
    serde_json::Value::from(entries.collect::<Vec<_>>()).to_string()
}

fn resolve(state: &State, repo: &Repo, asked: &Asked, file: &str, whole_file: bool) -> Answer {
    let commit = ("X-Repo-Commit", repo.commit.clone());
    let Some(body) = repo.file(file) else {
        let mut answer = Answer::error(404, "EntryNotFound", "Entry not found");
        answer.headers.push(commit);
        return answer;
    };
    let quoted = format!("\"{}\"", body.etag());
    if !body.is_large() {
        let headers = vec![commit, ("ETag", quoted), ("Accept-Ranges", "bytes".into())];
        return part(asked, body.clone(), headers, whole_file);
    }
    let target = format!(
        "{}/{}/{}?Signature=signed-and-secret",
        state.cdn,
        repo.id.replace('/', "--"),
        file
    );
    let headers = vec![
        commit,
        ("Location", target),
        ("X-Linked-Etag", quoted),
        ("X-Linked-Size", body.len().to_string()),
        ("ETag", "\"of-the-pointer\"".into()),
    ];
    Answer::text(302, headers, "Found. Redirecting to the CDN")
}

fn from_cdn(repos: &BTreeMap<String, Repo>, asked: &Asked, path: &str, whole_file: bool) -> Answer {
    let found = repos.values().find_map(|repo| {
        let rest = path.strip_prefix(&format!("/{}/", repo.id.replace('/', "--")))?;
        repo.file(&decoded(rest))
    });
    match found {
        Some(body) if asked.path.contains("Signature=") => {
            let headers = vec![("ETag", "\"of-the-cdn\"".into())];
            part(asked, body.clone(), headers, whole_file)
        }
        _ => Answer::text(403, vec![], "<Error>AccessDenied</Error>"),
    }
}

/// The part of a file that `Range` names.
fn part(
    asked: &Asked,
    body: Body,
    mut headers: Vec<(&'static str, String)>,
    whole_file: bool,
) -> Answer {
    let size = body.len();
    let range = asked
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.split_once('-'))
        .filter(|_| !whole_file);
    let (status, begin, end) = match range {
        None => (200, 0, size),
        Some((begin, end)) => {
            let begin: u64 = begin.parse().expect("a number");
            let end = end.parse().map_or(size, |end: u64| size.min(end + 1));
            if begin >= size {
                headers.push(("Content-Range", format!("bytes */{size}")));
                let mut answer = Answer::text(416, headers, "");
                answer.end = 0;
                return answer;
            }
            let range = format!("bytes {begin}-{}/{size}", end - 1);
            headers.push(("Content-Range", range));
            (206, begin, end)
        }
    };
    Answer {
        status,
        headers,
        body,
        begin,
        end,
    }
}

/// `%2F` as `/`.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)];
            let digits = String::from_utf8_lossy(&digits).into_owned();
            out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The beginning of a safetensors file with BF16 tensors, and the size of the whole file.
pub(crate) fn safetensors(tensors: &[(String, Vec<u64>)]) -> (Vec<u8>, u64) {
    let mut entries = Vec::new();
    let mut at = 0u64;
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<u64>();
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"BF16\",\"shape\":{},\"data_offsets\":[{at},{end}]}}",
            serde_json::Value::from(shape.clone())
        ));
        at = end;
    }
    let mut header = format!(
        "{{\"__metadata__\":{{\"format\":\"pt\"}},{}}}",
        entries.join(",")
    );
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.as_bytes());
    let bytes = start.len() as u64 + at;
    (start, bytes)
}

/// A model of two layers, small enough to write down.
pub(crate) const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
"intermediate_size":16,"num_attention_heads":2,"num_key_value_heads":2,"num_hidden_layers":2,"vocab_size":32,
"max_position_embeddings":64,"torch_dtype":"bfloat16"}"#;

/// A repository with the config above.
pub(crate) fn model(id: &str) -> Repo {
    Repo::new(id).small("config.json", CONFIG)
}

/// Weights that fill one file.
pub(crate) fn weights(layers: usize) -> Vec<u8> {
    let tensors: Vec<(String, Vec<u64>)> = (0..layers)
        .map(|i| {
            (
                format!("model.layers.{i}.self_attn.q_proj.weight"),
                vec![8, 8],
            )
        })
        .collect();
    let (mut bytes, size) = safetensors(&tensors);
    // Not all alike, so that a piece in the wrong place shows.
    let mut next = 1u32;
    while (bytes.len() as u64) < size {
        next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((next >> 24) as u8);
    }
    bytes
}

/// A sharded checkpoint with true headers and nothing but zeros as data; also the bytes of all headers and of the index.
pub(crate) fn sharded(repo: Repo, shards: usize, tensors: usize) -> (Repo, u64, u64) {
    let mut repo = repo;
    let mut map = serde_json::Map::new();
    let mut header_bytes = 0;
    for shard in 1..=shards {
        let file = format!("model-{shard:05}-of-{shards:05}.safetensors");
        let names = (0..tensors).map(|i| {
            let kind = ["gate_proj", "up_proj", "down_proj"][i % 3];
            let name = format!("model.layers.{shard}.mlp.experts.{i}.{kind}.weight");
            let shape = if i % 7 == 0 {
                vec![7168]
            } else {
                vec![2048, 7168]
            };
            (name, shape)
        });
        let names: Vec<(String, Vec<u64>)> = names.collect();
        for (name, _) in &names {
            map.insert(name.clone(), file.clone().into());
        }
        let (start, bytes) = safetensors(&names);
        header_bytes += start.len() as u64;
        repo = repo.padded(&file, start, bytes);
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    let index_bytes = index.len() as u64;
    (
        repo.small("model.safetensors.index.json", index),
        header_bytes,
        index_bytes,
    )
}

/// The program, asking this Hub.
pub(crate) fn bitcost(hub: &Hub, home: &Folder, args: &[&str]) -> Command {
    let mut command = program(args);
    command
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_HOME", home.path());
    command
}

/// Runs the program to its end, asking this Hub.
pub(crate) fn run(hub: &Hub, home: &Folder, args: &[&str]) -> Ran {
    wait(bitcost(hub, home, args), TIME_LIMIT)
}

/// Settings as the environment would give them.
pub(crate) fn settings(hub: &Hub, vars: &[(&str, &str)]) -> Settings {
    Settings::read(|name| match name {
        "HF_ENDPOINT" => Some(hub.endpoint().into()),
        name => vars
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.to_string()),
    })
}
