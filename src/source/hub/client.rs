//! Requests to the Hub: redirects, the token, repetitions, and what a status means.
//!
//! **The token is sent to the endpoint's own origin and nowhere else.** Redirects are followed here and not by the HTTP
//! library, because the first answer (commit, etag) and the last one (bytes) are both needed, and because each hop decides
//! anew whether it may see the token.

use super::error::HubError;
use crate::source::progress::{Event, Progress};
use crate::source::repo::RepoId;
use crate::source::settings::{Secret, Settings};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Response, Uri};

/// Redirects that are followed before somebody is leading us around.
const MAX_HOPS: usize = 10;

/// How often a request is sent before its error is believed.
const MAX_TRIES: u32 = 4;

/// Waiting before the second try; doubled before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest that a server may make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Bytes of an error page or a redirect that are read, so that its connection can be used again.
const MAX_REMAINDER_BYTES: u64 = 16 << 10;

/// Somebody to ask.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    token: Option<Secret>,
    timeout: Duration,
    pub(super) progress: Arc<dyn Progress>,
}

/// Scheme, host and port: who gets the token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin(String, String, u16);

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Request<'a> {
    /// The repository, for errors.
    pub(super) id: &'a RepoId,
    /// The revision, for errors.
    pub(super) revision: &'a str,
    /// The address, encoded.
    pub(super) url: String,
    /// First and last byte, where not everything is wanted.
    pub(super) range: Option<(u64, Option<u64>)>,
    /// What stands about a file in the answer is enough; another host is not asked.
    pub(super) only_headers: bool,
}

/// The answer to a request, with a body that has still to be read.
pub(super) struct Answer {
    /// 200, 206 or 416.
    pub(super) status: u16,
    /// What the endpoint itself said, before it sent us to another host.
    pub(super) first: HeaderMap,
    /// What the host with the bytes said.
    pub(super) last: HeaderMap,
    /// The bytes.
    pub(super) body: ureq::Body,
    /// The address for messages.
    pub(super) url: String,
}

impl Client {
    pub(super) fn new(
        settings: &Settings,
        progress: Arc<dyn Progress>,
    ) -> Result<Client, HubError> {
        let endpoint = settings.endpoint.clone();
        let origin = (endpoint.parse::<Uri>().ok())
            .and_then(|uri| Origin::of(&uri))
            .ok_or_else(|| HubError::BadEndpoint(without_secrets(&endpoint)))?;
        let token = settings.token();
        let fits = |token: &Secret| token.reveal().chars().all(|c| c.is_ascii_graphic());
        if !token.as_ref().is_none_or(fits) {
            return Err(HubError::BadToken);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("bitcost/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .proxy(proxy(settings)?)
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .max_idle_connections(32)
            .max_idle_connections_per_host(16);
        Ok(Client {
            agent: config.build().new_agent(),
            endpoint,
            origin,
            token,
            timeout: settings.timeout,
            progress,
        })
    }

    /// The address of the Hub as messages show it.
    pub(super) fn endpoint(&self) -> String {
        without_secrets(&self.endpoint)
    }

    /// The page of a repository.
    pub(super) fn page(&self, id: &RepoId) -> String {
        format!("{}/{id}", self.endpoint())
    }

    /// The address that says what a repository holds at a revision.
    pub(super) fn info_url(&self, id: &RepoId, revision: &str) -> String {
        format!(
            "{}/api/models/{id}/revision/{}",
            self.endpoint,
            encoded(revision, "")
        )
    }

    /// The address of a file.
    pub(super) fn file_url(&self, id: &RepoId, commit: &str, file: &str) -> String {
        format!(
            "{}/{id}/resolve/{}/{}",
            self.endpoint,
            encoded(commit, ""),
            encoded(file, "/")
        )
    }

    /// Sends a request and reads its answer, again if the network or the server stumbles.
    pub(super) fn ask<T>(
        &self,
        request: &Request<'_>,
        mut read: impl FnMut(Answer) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.send(request).and_then(&mut read) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match self.wait_before_try(&error, tries) {
                Some(wait) => self.sleep(&error, wait),
                None => return Err(error),
            }
        }
    }

    /// How long to wait before another try; `None` where another would be in vain.
    pub(super) fn wait_before_try(&self, error: &HubError, tries: u32) -> Option<Duration> {
        if !error.is_passing() || tries >= MAX_TRIES || self.progress.stopped() {
            return None;
        }
        let doubled = FIRST_WAIT * 2u32.pow(tries - 1);
        match error {
            HubError::TooManyRequests { wait, .. } => {
                let wait = wait.unwrap_or(doubled);
                (wait <= LONGEST_WAIT).then_some(wait)
            }
            // A silent server has been waited for already.
            HubError::Timeout { .. } if tries >= 2 => None,
            _ => Some(doubled),
        }
    }

    /// Waits, and says so.
    pub(super) fn sleep(&self, error: &HubError, wait: Duration) {
        let reason = error.to_string();
        self.progress.on(&Event::Again {
            reason: &reason,
            wait,
        });
        let mut left = wait;
        while !left.is_zero() && !self.progress.stopped() {
            let piece = left.min(Duration::from_millis(50));
            std::thread::sleep(piece);
            left -= piece;
        }
    }

    /// Sends a request once, over as many hops as it takes.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer, HubError> {
        let mut uri = uri(&request.url)?;
        let mut first: Option<HeaderMap> = None;
        for _ in 0..MAX_HOPS {
            let ours = Origin::of(&uri).as_ref() == Some(&self.origin);
            let response = self.hop(request, &uri, ours)?;
            let (parts, body) = response.into_parts();
            let url = without_secrets(&uri.to_string());
            let target = match parts.status.as_u16() {
                301 | 302 | 303 | 307 | 308 => location(&uri, &parts.headers),
                _ => None,
            };
            if let Some(target) = target {
                drain(body);
                let elsewhere = Origin::of(&target).as_ref() != Some(&self.origin);
                if ours && elsewhere && first.is_none() {
                    if request.only_headers {
                        return Ok(Answer {
                            status: 200,
                            first: parts.headers,
                            last: HeaderMap::new(),
                            body: ureq::Body::builder().data(""),
                            url,
                        });
                    }
                    first = Some(parts.headers);
                }
                uri = target;
                continue;
            }
            let status = parts.status.as_u16();
            if !matches!(status, 200 | 206 | 416) {
                return Err(self.refusal(request, &url, status, &parts.headers, body));
            }
            return Ok(Answer {
                status,
                first: first.unwrap_or_else(|| parts.headers.clone()),
                last: parts.headers,
                body,
                url,
            });
        }
        Err(HubError::RedirectedTooOften {
            url: without_secrets(&request.url),
            most: MAX_HOPS,
        })
    }

    fn hop(
        &self,
        request: &Request<'_>,
        uri: &Uri,
        with_token: bool,
    ) -> Result<Response<ureq::Body>, HubError> {
        let mut hop = if request.only_headers {
            self.agent.head(uri)
        } else {
            self.agent.get(uri)
        };
        if let Some((begin, end)) = request.range {
            let end = end.map_or(String::new(), |end| end.to_string());
            hop = hop.header("Range", format!("bytes={begin}-{end}"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| with_token) {
            hop = hop.header("Authorization", format!("Bearer {}", token.reveal()));
        }
        hop.call().map_err(|error| self.failure(uri, error))
    }

    /// What an error of the HTTP library means.
    fn failure(&self, uri: &Uri, error: ureq::Error) -> HubError {
        let host = uri.host().unwrap_or("the server").to_string();
        let url = without_secrets(&uri.to_string());
        match error {
            ureq::Error::Io(error) => self.broken(uri, &error),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                HubError::Unreachable {
                    host,
                    reason: format!("no connection within {} seconds", self.timeout.as_secs()),
                }
            }
            ureq::Error::Timeout(_) => HubError::Timeout {
                url,
                timeout: self.timeout,
            },
            ureq::Error::HostNotFound => HubError::NoSuchHost { host },
            ureq::Error::Tls(reason) => HubError::Tls {
                host,
                reason: reason.into(),
            },
            ureq::Error::Rustls(error) => HubError::Tls {
                host,
                reason: error.to_string(),
            },
            ureq::Error::ConnectProxyFailed(reason) => HubError::BadProxy(self.cleaned(&reason)),
            ureq::Error::InvalidProxyUrl => HubError::BadProxy("it is not an address".into()),
            ureq::Error::ConnectionFailed => HubError::Unreachable {
                host,
                reason: "no connection".into(),
            },
            other => HubError::NotTheHub {
                url,
                found: format!("not HTTP ({})", self.cleaned(&other.to_string())),
            },
        }
    }

    /// What an error of the connection means.
    pub(super) fn broken(&self, uri: &Uri, error: &std::io::Error) -> HubError {
        use std::io::ErrorKind as Kind;
        let host = uri.host().unwrap_or("the server").to_string();
        let reason = self.cleaned(&error.to_string());
        let url = without_secrets(&uri.to_string());
        match error.kind() {
            Kind::ConnectionRefused
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::NetworkDown
            | Kind::AddrNotAvailable => HubError::Unreachable { host, reason },
            Kind::NotFound => HubError::NoSuchHost { host },
            Kind::InvalidData => HubError::Tls { host, reason },
            Kind::TimedOut => HubError::Timeout {
                url,
                timeout: self.timeout,
            },
            // The standard library has no kind for it.
            _ if reason.starts_with("failed to lookup address") => HubError::NoSuchHost { host },
            // The body's reader wraps the library's own errors.
            _ => match error.get_ref().and_then(|e| e.downcast_ref()) {
                Some(ureq::Error::Timeout(_)) => HubError::Timeout {
                    url,
                    timeout: self.timeout,
                },
                _ => HubError::Cut { url, reason },
            },
        }
    }

    /// What a status means that is no success.
    fn refusal(
        &self,
        request: &Request<'_>,
        url: &str,
        status: u16,
        headers: &HeaderMap,
        body: ureq::Body,
    ) -> HubError {
        let html = is_html(headers);
        let begin = drain(body);
        let code = text(headers, "x-error-code").unwrap_or_default();
        let said = text(headers, "x-error-message")
            .map(String::from)
            .or_else(|| message_of(&begin));
        let id = request.id.to_string();
        let with_token = self.token.is_some();
        let message = || {
            let said = said.as_deref().unwrap_or_default();
            match self.cleaned(said) {
                said if said.is_empty() => said,
                said => format!(": {said}"),
            }
        };
        match (status, code) {
            (_, "GatedRepo") => HubError::Gated {
                page: self.page(request.id),
                id,
                with_token,
            },
            (_, "RevisionNotFound") => HubError::RevisionNotFound {
                revision: request.revision.into(),
                page: format!("{}/tree/main", self.page(request.id)),
                id,
            },
            (_, "EntryNotFound") => HubError::EntryNotFound {
                id,
                file: file_of(url),
            },
            (401, _) if with_token && code != "RepoNotFound" => HubError::TokenRefused {
                endpoint: self.endpoint(),
            },
            // Whoever is not known gets 401 for what does not exist, too.
            (_, "RepoNotFound") | (401, _) => HubError::RepoNotFound {
                endpoint: self.endpoint(),
                id,
                with_token,
            },
            (429, _) => HubError::TooManyRequests {
                url: url.into(),
                wait: text(headers, "retry-after")
                    .and_then(|seconds| seconds.trim().parse().ok())
                    .map(Duration::from_secs),
            },
            (403, _) => HubError::Forbidden {
                url: url.into(),
                status,
                message: message(),
            },
            (400..=499, _) if html => HubError::NotTheHub {
                url: url.into(),
                found: format!("an HTML page (status {status})"),
            },
            _ => HubError::Status {
                url: url.into(),
                status,
                message: message(),
            },
        }
    }

    /// What a server says, without what it must not repeat to the user, and not at any length.
    fn cleaned(&self, text: &str) -> String {
        let text = match &self.token {
            Some(token) => text.replace(token.reveal(), "***"),
            None => text.into(),
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line.chars().take(300).collect()
    }
}

impl Answer {
    /// The whole body, if it has at most so many bytes and all that were announced.
    pub(super) fn whole(mut self, client: &Client, most: u64) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::new();
        self.read_into(client, &mut bytes, most + 1)?;
        if bytes.len() as u64 > most {
            return Err(HubError::TooLarge {
                url: self.url,
                most,
            });
        }
        Ok(bytes)
    }

    /// At most so many further bytes of the body; what the server still has to say stays unread.
    pub(super) fn read_into(
        &mut self,
        client: &Client,
        bytes: &mut Vec<u8>,
        most: u64,
    ) -> Result<(), HubError> {
        let mut reader = self.body.as_reader().take(most);
        let read = reader.read_to_end(bytes);
        read.map(|_| ())
            .map_err(|error| self.broken(client, &error))
    }

    /// What an error while reading the body means.
    pub(super) fn broken(&self, client: &Client, error: &std::io::Error) -> HubError {
        match uri(&self.url) {
            Ok(uri) => client.broken(&uri, error),
            Err(error) => error,
        }
    }

    /// The commit that the file belongs to.
    pub(super) fn commit(&self) -> Option<&str> {
        text(&self.first, "x-repo-commit").or_else(|| text(&self.last, "x-repo-commit"))
    }

    /// First byte, last byte and size of the file, where the answer is a part of one.
    pub(super) fn content_range(&self) -> Option<(u64, u64, u64)> {
        let range = text(&self.last, "content-range")?.strip_prefix("bytes ")?;
        let (span, size) = range.split_once('/')?;
        let (begin, end) = span.split_once('-')?;
        Some((
            begin.trim().parse().ok()?,
            end.trim().parse().ok()?,
            size.trim().parse().ok()?,
        ))
    }

    /// Bytes that the body is announced to have.
    pub(super) fn content_length(&self) -> Option<u64> {
        text(&self.last, "content-length")?.trim().parse().ok()
    }

    /// Refuses a page for people where a file was asked for: a login page, or an endpoint that is no Hub.
    pub(super) fn no_page(self) -> Result<Answer, HubError> {
        if is_html(&self.last) && self.commit().is_none() {
            return Err(HubError::NotTheHub {
                url: self.url,
                found: "an HTML page".into(),
            });
        }
        Ok(self)
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Origin> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())?
            .to_ascii_lowercase();
        Some(Origin(scheme, host, uri.port_u16().unwrap_or(usual)))
    }
}

/// A header that is text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn is_html(headers: &HeaderMap) -> bool {
    text(headers, "content-type").is_some_and(|kind| kind.trim_start().starts_with("text/html"))
}

fn uri(url: &str) -> Result<Uri, HubError> {
    url.parse::<Uri>()
        .map_err(|_| HubError::BadEndpoint(without_secrets(url)))
}

/// Where a redirect leads: an absolute address, or a path on the same host.
fn location(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let target = text(headers, "location")?;
    if target.starts_with("http://") || target.starts_with("https://") {
        return target.parse().ok();
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if let Some(rest) = target.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let path = match target.strip_prefix('/') {
        Some(path) => path.to_string(),
        None => {
            let folder = from
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{}/{target}", folder.trim_start_matches('/'))
        }
    };
    format!("{scheme}://{authority}/{path}").parse().ok()
}

/// An address without user, password and query: signed addresses carry their secret there.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The path of the file in an address of a file.
fn file_of(url: &str) -> String {
    let after = url.split_once("/resolve/").map_or(url, |(_, after)| after);
    after
        .split_once('/')
        .map_or(after, |(_, file)| file)
        .to_string()
}

/// What a JSON error says, as the Hub writes it.
fn message_of(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get("error")?.as_str().map(String::from)
}

/// Text for a URL: everything but letters, digits, `-._~` and what is kept becomes `%XX`.
fn encoded(text: &str, kept: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads what is left of a short body, so that the connection is free for the next request.
fn drain(mut body: ureq::Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    // An error page that breaks off says as much as one that does not.
    let _ = body
        .as_reader()
        .take(MAX_REMAINDER_BYTES)
        .read_to_end(&mut bytes);
    bytes
}

/// The proxy that the settings name.
fn proxy(settings: &Settings) -> Result<Option<ureq::Proxy>, HubError> {
    let Some(url) = &settings.proxy else {
        return Ok(None);
    };
    let wrong = |_| HubError::BadProxy("it is not an address".into());
    let plain = ureq::Proxy::new(url.reveal()).map_err(wrong)?;
    let mut proxy = ureq::Proxy::builder(plain.protocol())
        .host(plain.host())
        .port(plain.port())
        .resolve_target(plain.resolve_target());
    if let Some(user) = plain.username() {
        proxy = proxy.username(user);
    }
    if let Some(password) = plain.password() {
        proxy = proxy.password(password);
    }
    for host in &settings.no_proxy {
        proxy = proxy.no_proxy(host);
        // A name stands for its subdomains too.
        if !host.starts_with(['.', '*']) {
            proxy = proxy.no_proxy(&format!(".{host}"));
        }
    }
    proxy.build().map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_messages_hold_no_secrets() {
        assert_eq!(
            without_secrets("https://me:pw@hub.example/a/b?X-Amz-Signature=1#f"),
            "https://hub.example/a/b"
        );
        assert_eq!(
            without_secrets("https://hub.example:1"),
            "https://hub.example:1"
        );
    }

    #[test]
    fn redirects_lead_to_addresses_and_paths() {
        let lead = |target: &str| {
            let from: Uri = "https://hub.example/a/resolve/main/b"
                .parse()
                .expect("a URI");
            let mut headers = HeaderMap::new();
            headers.insert("location", target.parse().expect("a header"));
            location(&from, &headers).map(|uri| uri.to_string())
        };
        assert_eq!(
            lead("/x/y?z=1").as_deref(),
            Some("https://hub.example/x/y?z=1")
        );
        assert_eq!(
            lead("c").as_deref(),
            Some("https://hub.example/a/resolve/main/c")
        );
        assert_eq!(
            lead("//cdn.example/c").as_deref(),
            Some("https://cdn.example/c")
        );
        assert_eq!(
            lead("http://cdn.example/c").as_deref(),
            Some("http://cdn.example/c")
        );
        assert_eq!(lead("http://"), None);
    }

    #[test]
    fn the_same_host_with_another_port_or_scheme_is_another_origin() {
        let origin = |url: &str| Origin::of(&url.parse().expect("a URI"));
        assert_eq!(
            origin("https://hub.example"),
            origin("https://HUB.example:443/a")
        );
        assert_ne!(
            origin("https://hub.example"),
            origin("http://hub.example:443")
        );
        assert_ne!(
            origin("https://hub.example"),
            origin("https://hub.example:444")
        );
    }

    #[test]
    fn what_is_no_path_is_encoded() {
        assert_eq!(encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/\u{e9}#?.json", "/"), "a%20b/%C3%A9%23%3F.json");
    }
}
