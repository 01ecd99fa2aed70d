//! What the environment says about the Hub: where it is, where its cache lies, who asks, and whether asking is allowed.
//!
//! Names of variables go in as a look-up, so that tests can hand in their own; values come out. The rules are those of
//! python's huggingface_hub: the same variables, the same defaults, the same words for true.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The Hub that is asked unless `HF_ENDPOINT` names another.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long a connection may stay silent, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that the environment decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the Hub, without a slash at the end.
    pub endpoint: String,
    /// The folder of the Hub's cache; `None` where there is not even a home folder.
    pub cache: Option<PathBuf>,
    /// The folder of what bitcost itself keeps; `None` as above.
    pub own_cache: Option<PathBuf>,
    /// Whether the network must not be asked.
    pub offline: bool,
    /// Whether files of the cache are copied where they would be linked.
    pub copies: bool,
    /// How long a connection may stay silent.
    pub timeout: Duration,
    /// The proxy for the endpoint's scheme. It may hold a password.
    pub proxy: Option<Secret>,
    /// Hosts that are asked without the proxy.
    pub no_proxy: Vec<String>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
}

/// A text that no message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret, unless nothing but white space is left of it.
    pub fn new(text: &str) -> Option<Secret> {
        let text = text.trim();
        (!text.is_empty()).then(|| Secret(text.into()))
    }

    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Settings {
    /// What this process's environment says.
    pub fn from_env() -> Settings {
        Settings::read(|name| std::env::var(name).ok())
    }

    /// What a look-up of variables says. A variable that is set to nothing counts as not set.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Settings {
        let var = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let home = var("HOME")
            .or_else(|| var("USERPROFILE"))
            .map(PathBuf::from);
        let path = |name: &str| var(name).map(|value| expanded(&value, home.as_deref(), &var));
        let caches = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|h| h.join(".cache")));
        let cache_of = |name: &str| caches.as_ref().map(|caches| caches.join(name));
        let hf_home = path("HF_HOME").or_else(|| cache_of("huggingface"));
        let beside = |name: &str| hf_home.as_ref().map(|home| home.join(name));
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_string();
        let says = |name: &str| var(name).is_some_and(|value| is_true(&value));
        let silent = says("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        let token = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        // The first that is set decides, even if it says no.
        let offline = var("HF_HUB_OFFLINE").or_else(|| var("TRANSFORMERS_OFFLINE"));
        Settings {
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| beside("hub")),
            own_cache: cache_of("bitcost"),
            offline: offline.is_some_and(|value| is_true(&value)),
            copies: says("HF_HUB_DISABLE_SYMLINKS"),
            timeout: var("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|value| value.trim().parse().ok())
                .filter(|seconds| *seconds > 0)
                .map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            proxy: proxy(&endpoint, &var),
            no_proxy: no_proxy(&var),
            token: (token.iter().find_map(|name| var(name)))
                .filter(|_| !silent)
                .and_then(|token| Secret::new(&token)),
            token_file: path("HF_TOKEN_PATH")
                .or_else(|| beside("token"))
                .filter(|_| !silent),
            endpoint,
        }
    }

    /// The token to ask with: the environment's, else the one in the token file.
    pub fn token(&self) -> Option<Secret> {
        self.token.clone().or_else(|| {
            let file = self.token_file.as_ref()?;
            Secret::new(&std::fs::read_to_string(file).ok()?)
        })
    }
}

/// The words that huggingface_hub takes for true.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// A path with `~`, `$NAME` and `${NAME}` replaced; names that are not set stay as they are.
fn expanded(text: &str, home: Option<&Path>, var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let text = match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", home.display())
        }
        _ => text.to_string(),
    };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, length) = match after.strip_prefix('{') {
            Some(braced) => braced
                .split_once('}')
                .map_or(("", 0), |(name, _)| (name, name.len() + 2)),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &after[..end.unwrap_or(after.len())];
                (name, name.len())
            }
        };
        match var(name).filter(|_| length > 0) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..at + 1 + length]),
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    out.into()
}

/// The proxy for the endpoint's scheme, by curl's rules: the small name first, and `HTTP_PROXY` never in capitals under a
/// web server, which would let a request's header choose it.
fn proxy(endpoint: &str, var: &dyn Fn(&str) -> Option<String>) -> Option<Secret> {
    let own: &[&str] = if endpoint.starts_with("http://") {
        &["http_proxy", "HTTP_PROXY"]
    } else {
        &["https_proxy", "HTTPS_PROXY"]
    };
    let under_a_web_server = var("REQUEST_METHOD").is_some();
    own.iter()
        .chain(&["all_proxy", "ALL_PROXY"])
        .filter(|name| !(under_a_web_server && **name == "HTTP_PROXY"))
        .find_map(|name| var(name))
        .and_then(|url| Secret::new(&url))
}

/// The hosts of `NO_PROXY`; a name stands for its subdomains too.
fn no_proxy(var: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let list = var("no_proxy").or_else(|| var("NO_PROXY"));
    let hosts = list.iter().flat_map(|list| list.split(','));
    let hosts = hosts.map(str::trim).filter(|host| !host.is_empty());
    hosts.map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        let vars: Vec<(String, String)> = vars
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Settings::read(move |name| {
            let found = vars.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[track_caller]
    fn cache(vars: &[(&str, &str)], expected: &str) {
        assert_eq!(settings(vars).cache, Some(PathBuf::from(expected)));
    }

    #[test]
    fn the_cache_lies_where_huggingface_hub_looks_for_it() {
        cache(&[("HOME", "/h")], "/h/.cache/huggingface/hub");
        cache(
            &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
            "/x/huggingface/hub",
        );
        let own = |vars| settings(vars).own_cache;
        assert_eq!(own(&[("HOME", "/h")]), Some("/h/.cache/bitcost".into()));
        assert_eq!(own(&[("HF_HOME", "/hf")]), None);
        cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")], "/h/hf/hub");
        cache(
            &[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")],
            "/old",
        );
        cache(
            &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")],
            "/new",
        );
        cache(
            &[("D", "/d"), ("HF_HUB_CACHE", "$D/${D}/$E/${"), ("HOME", "")],
            "/d//d/$E/${",
        );
    }

    #[test]
    fn offline_knows_the_words_that_python_knows() {
        for (word, offline) in [
            ("1", true),
            ("on", true),
            ("Yes", true),
            ("TRUE", true),
            ("0", false),
            ("y", false),
            ("2", false),
        ] {
            assert_eq!(
                settings(&[("HF_HUB_OFFLINE", word)]).offline,
                offline,
                "{word}"
            );
        }
        assert!(settings(&[("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }

    #[test]
    fn the_token_of_the_environment_wins_and_can_be_held_back() {
        let token = |vars: &[(&str, &str)]| settings(vars).token().map(|t| t.reveal().to_string());
        assert_eq!(token(&[("HF_TOKEN", " hf_a\n")]), Some("hf_a".into()));
        assert_eq!(
            token(&[("HUGGING_FACE_HUB_TOKEN", "hf_b"), ("HF_TOKEN", "")]),
            Some("hf_b".into())
        );
        assert_eq!(
            token(&[("HF_TOKEN", "hf_a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]),
            None
        );
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let settings = settings(&[
            ("HF_TOKEN", "hf_secret"),
            ("https_proxy", "http://u:secret@p"),
        ]);
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn the_proxy_is_that_of_the_endpoints_scheme() {
        let proxy = |vars: &[(&str, &str)]| settings(vars).proxy.map(|p| p.reveal().to_string());
        let both = ("HTTPS_PROXY", "http://s");
        assert_eq!(
            proxy(&[both, ("http_proxy", "http://p")]),
            Some("http://s".into())
        );
        assert_eq!(
            proxy(&[
                both,
                ("http_proxy", "http://p"),
                ("HF_ENDPOINT", "http://hub/")
            ]),
            Some("http://p".into())
        );
        assert_eq!(
            proxy(&[("ALL_PROXY", "http://all")]),
            Some("http://all".into())
        );
        assert_eq!(proxy(&[("HTTP_PROXY", "http://p")]), None);
    }
}
