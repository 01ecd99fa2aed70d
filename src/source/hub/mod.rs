//! A model on the Hub: what the repository lists, small files whole, safetensors files by their headers.
//!
//! Only `fetch` writes, into the cache. Everything after the first request names the commit that this one
//! told, so that a push in between cannot mix two versions.
//!
//! - `client.rs`: one request: redirects, token, repetitions
//! - `error.rs`: what can go wrong, and what to do
//! - `heads.rs`: headers by range requests
//! - `fetch.rs`, `store.rs`: files into the cache; the layout of the cache
//! - `parallel.rs`: several requests at once

mod client;
mod error;
mod fetch;
mod heads;
mod parallel;
mod store;

pub use error::HubError;
pub use fetch::{Action, FetchError, Fetched, FetchedFile};

use super::files::{MAX_SMALL_FILE_BYTES, is_plain};
use super::local::parse_config;
use super::progress::Progress;
use super::repo::{self, RepoId};
use super::settings::Settings;
use super::{
    CONFIG, Files, Head, INDEX_ENDING, MAX_CONFIG_BYTES, ModelFiles, SourceError, SourceKind,
    WEIGHTS_ENDING,
};
use client::{Client, Request};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Largest list of files that is read.
const MAX_INFO_BYTES: u64 = 64 << 20;

/// A repository of the Hub at one commit.
#[derive(Debug)]
pub struct Hub {
    client: Client,
    id: RepoId,
    /// The id that the Hub answers by; another one where the repository has moved.
    named: String,
    /// The revision that was asked for.
    revision: String,
    commit: String,
    names: Vec<String>,
    /// What is known of the length of headers.
    guess: Mutex<heads::Guess>,
}

/// What the Hub says about a repository, as far as it is used.
#[derive(Deserialize)]
struct Info {
    id: Option<String>,
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// Asks the Hub for a repository at a branch, tag or commit.
    pub fn open(
        id: &RepoId,
        revision: &str,
        settings: &Settings,
        progress: Arc<dyn Progress>,
    ) -> Result<Hub, HubError> {
        let client = Client::new(settings, progress)?;
        let request = Request {
            id,
            revision,
            url: client.info_url(id, revision),
            range: None,
            only_headers: false,
        };
        let info = client.ask(&request, |answer| {
            let url = answer.url.clone();
            let bytes = answer.no_page()?.whole(&client, MAX_INFO_BYTES)?;
            let what = if bytes.trim_ascii_start().starts_with(b"<") {
                "an HTML page".to_string()
            } else {
                "no list of files".to_string()
            };
            serde_json::from_slice::<Info>(&bytes)
                .ok()
                .filter(|info| repo::is_commit(&info.sha))
                .ok_or(HubError::NotTheHub { url, found: what })
        })?;
        Ok(Hub {
            named: info.id.unwrap_or_else(|| id.to_string()),
            names: checked(id, info.siblings)?,
            revision: revision.into(),
            commit: info.sha,
            id: id.clone(),
            client,
            guess: Mutex::default(),
        })
    }

    /// The commit that the revision names.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Names of all files, those in folders too, sorted.
    pub fn all_names(&self) -> &[String] {
        &self.names
    }

    /// The repository's page.
    pub fn page(&self) -> String {
        self.client.page(&self.id)
    }

    /// The id that the repository has now, where it has moved.
    pub fn moved_to(&self) -> Option<&str> {
        (!self.named.eq_ignore_ascii_case(self.id.as_str())).then_some(&*self.named)
    }

    fn top_names(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| !name.contains('/'))
    }

    fn request(&self, file: &str) -> Request<'_> {
        Request {
            id: &self.id,
            revision: &self.commit,
            url: self.client.file_url(&self.id, &self.commit, file),
            range: None,
            only_headers: false,
        }
    }

    fn read_at_most(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, HubError> {
        if !self.names.iter().any(|known| known == name) {
            return Ok(None);
        }
        let bytes = self.client.ask(&self.request(name), |answer| {
            answer.no_page()?.whole(&self.client, most)
        })?;
        Ok(Some(bytes))
    }
}

/// The model of an id on the Hub.
pub(super) fn open(
    id: &RepoId,
    revision: &str,
    settings: &Settings,
    progress: Arc<dyn Progress>,
) -> Result<ModelFiles, SourceError> {
    let hub = Hub::open(id, revision, settings, progress)?;
    let file = hub.label(CONFIG);
    let config = match hub.read_at_most(CONFIG, MAX_CONFIG_BYTES)? {
        Some(bytes) => Some(parse_config(&file, bytes)?),
        None => None,
    };
    if config.is_none() && !hub.top_names().any(|n| n.ends_with(WEIGHTS_ENDING)) {
        return Err(nothing(&hub).into());
    }
    Ok(ModelFiles {
        id: id.to_string(),
        revision: Some(hub.commit.clone()),
        source: SourceKind::Hub,
        config,
        root: None,
        file,
        notes: hub
            .moved_to()
            .map(|now| format!("{id} is called {now} now"))
            .into_iter()
            .collect(),
        files: Some(Arc::new(hub)),
    })
}

fn nothing(hub: &Hub) -> HubError {
    let weights = [".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack"];
    let found = hub
        .names
        .iter()
        .find(|n| weights.iter().any(|end| n.ends_with(end)));
    HubError::Nothing {
        repository: hub.label(""),
        found: found.map_or(String::new(), |name| {
            format!("; it has `{name}`, a format that is not read")
        }),
    }
}

/// Sorted names of files; a name that leads out of the repository makes the whole list incredible.
fn checked(id: &RepoId, siblings: Vec<Sibling>) -> Result<Vec<String>, HubError> {
    let leads_out =
        |name: &str| name.starts_with('/') || name.split(['/', '\\']).any(|part| part == "..");
    let mut names: Vec<String> = siblings.into_iter().map(|s| s.rfilename).collect();
    if let Some(name) = names.iter().find(|name| leads_out(name)) {
        return Err(HubError::Outside {
            id: id.to_string(),
            name: crate::value::shortened(name),
        });
    }
    // Names that cannot be files everywhere are of no use here.
    names.retain(|name| is_plain(name));
    names.sort();
    names.dedup();
    Ok(names)
}

impl Files for Hub {
    /// Files in folders belong to other things: exports, parts of pipelines.
    fn names(&self) -> Result<Vec<String>, SourceError> {
        Ok(self.top_names().cloned().collect())
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let bytes = self.read_at_most(name, MAX_SMALL_FILE_BYTES)?;
        if let Some(bytes) = &bytes
            && name.ends_with(INDEX_ENDING)
        {
            let mut guess = self.guess.lock().unwrap_or_else(PoisonError::into_inner);
            guess.learn_index(bytes);
        }
        Ok(bytes)
    }

    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        heads::read(self, names)
    }

    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }

    fn label(&self, name: &str) -> String {
        let place = format!("{}@{}", self.id, repo::short(&self.commit));
        if name.is_empty() {
            place
        } else {
            format!("{place}/{name}")
        }
    }
}
