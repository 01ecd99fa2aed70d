//! What can go wrong between here and the Hub. Messages name the repository, file or host and say what to do; none holds a
//! token, a password or the query of a signed address.

use std::time::Duration;

/// Why the Hub did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// `HF_ENDPOINT=huggingface.co`
    #[error("HF_ENDPOINT is `{0}`; an endpoint begins with https:// or http://")]
    BadEndpoint(String),
    /// `HF_TOKEN="hf_abc def"`
    #[error(
        "the token (HF_TOKEN or the token file) holds characters that no token has; set it again"
    )]
    BadToken,
    /// `HTTPS_PROXY=:::`
    #[error(
        "the proxy of the environment (https_proxy, http_proxy, all_proxy) cannot be used: {0}"
    )]
    BadProxy(String),
    /// A cable that is not plugged in.
    #[error("{host} cannot be reached: {reason}; check the network, HF_ENDPOINT and the proxy")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// `HF_ENDPOINT=https://no.such.host`
    #[error("the host {host} is not known; check the network and HF_ENDPOINT")]
    NoSuchHost {
        /// The host.
        host: String,
    },
    /// A certificate that is not trusted.
    #[error("no secure connection to {host}: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// A server that says nothing.
    #[error(
        "{url}: no answer for {} seconds; try again, or set HF_HUB_DOWNLOAD_TIMEOUT to more", .timeout.as_secs()
    )]
    Timeout {
        /// What was asked for.
        url: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// A connection that breaks in the middle of an answer.
    #[error("{url}: the connection broke: {reason}; try again")]
    Cut {
        /// What was asked for.
        url: String,
        /// How.
        reason: String,
    },
    /// `org/nothing`, or a private repository.
    #[error("{endpoint} has no model `{id}`{}", if *.with_token { ", or the token's account may not see it" } else { "; if it is private, set HF_TOKEN" })]
    RepoNotFound {
        /// The Hub.
        endpoint: String,
        /// The repository.
        id: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// `--revision no-such-branch`
    #[error("{id} has no revision `{revision}`; branches, tags and commits are listed at {page}")]
    RevisionNotFound {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
        /// Where the revisions are listed.
        page: String,
    },
    /// A file that the repository does not have.
    #[error("{id} has no file `{file}`")]
    EntryNotFound {
        /// The repository.
        id: String,
        /// The file.
        file: String,
    },
    /// A licence that must be accepted first.
    #[error("{id} is gated: accept its licence at {page}{}", if *.with_token { " with the account of the token (HF_TOKEN or the token file); it has no access yet" } else { ", then set HF_TOKEN to a token of that account" })]
    Gated {
        /// The repository.
        id: String,
        /// Where the licence is.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// A token that is not valid any more.
    #[error(
        "{endpoint} does not accept the token (HF_TOKEN or the token file); set a valid one, or none for public models"
    )]
    TokenRefused {
        /// The Hub.
        endpoint: String,
    },
    /// An account that may not.
    #[error("{url}: access refused ({status}){message}")]
    Forbidden {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// `: what the server says`, or nothing.
        message: String,
    },
    /// More requests than the Hub allows.
    #[error(
        "{url}: too many requests; the server asks to wait{}; a token (HF_TOKEN) raises the limit", .wait.map_or(String::new(), |w| format!(" {} seconds", w.as_secs()))
    )]
    TooManyRequests {
        /// What was asked for.
        url: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    /// Any other status.
    #[error("{url}: the server answered {status}{message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// `: what the server says`, or nothing.
        message: String,
    },
    /// A login page of a hotel.
    #[error(
        "{url}: the answer is {found}, not what a Hub sends; check HF_ENDPOINT, and whether a proxy or login page is in between"
    )]
    NotTheHub {
        /// What was asked for.
        url: String,
        /// What came.
        found: String,
    },
    /// Two redirects that lead to each other.
    #[error("{url}: redirected more than {most} times")]
    RedirectedTooOften {
        /// What was asked for.
        url: String,
        /// The limit.
        most: usize,
    },
    /// A `Content-Length` that is not the length.
    #[error("{url}: {found} bytes came instead of {expected}; the server or a proxy is broken")]
    WrongLength {
        /// What was asked for.
        url: String,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A config.json of a gigabyte.
    #[error("{url}: more than {most} bytes; such a file has fewer")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit.
        most: u64,
    },
    /// `{"siblings": [{"rfilename": "../../x"}]}`
    #[error("{id}: the Hub lists a file `{name}`, which leads out of the repository; refused")]
    Outside {
        /// The repository.
        id: String,
        /// The file.
        name: String,
    },
    /// A dataset that was uploaded as a model.
    #[error("{repository} has neither a config.json nor a safetensors file{found}")]
    Nothing {
        /// The repository and commit.
        repository: String,
        /// `, only x.gguf`, or nothing.
        found: String,
    },
}

impl HubError {
    /// Whether the same request may succeed if it is sent again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            HubError::Timeout { .. }
            | HubError::Cut { .. }
            | HubError::WrongLength { .. }
            | HubError::TooManyRequests { .. } => true,
            HubError::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether the Hub was never heard.
    pub(crate) fn is_about_the_network(&self) -> bool {
        matches!(
            self,
            HubError::Unreachable { .. }
                | HubError::NoSuchHost { .. }
                | HubError::Tls { .. }
                | HubError::Timeout { .. }
                | HubError::BadProxy(_)
        )
    }
}
