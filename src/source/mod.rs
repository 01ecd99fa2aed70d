//! Where a model's files come from: a folder or file that is named, the Hub's cache, the embedded catalog, the Hub.
//!
//! [`open`] tries the sources in that order and says which one answered.
//!
//! - `search.rs`: one source after the other
//! - `settings.rs`: what the environment says about the Hub
//! - `repo.rs`: names of repositories and revisions
//! - `files.rs`, `head.rs`: the files of a model, whatever they come from
//! - `local.rs`, `cache.rs`, `catalog.rs`, `hub/`: the sources
//! - `shards.rs`: what an index says, as far as sources need it
//! - `progress.rs`: what a source says while it works

mod cache;
mod catalog;
mod files;
mod head;
#[cfg(feature = "hub")]
mod hub;
mod local;
mod progress;
mod repo;
mod search;
mod settings;
mod shards;

pub use catalog::{Catalog, CatalogModel, Published};
pub use files::{Files, Folder, MAX_SMALL_FILE_BYTES, is_plain};
pub use head::{FrameError, Head, LENGTH_BYTES, MAX_HEADER_BYTES, header_bytes, is_other_format};
#[cfg(feature = "hub")]
pub use hub::{Action, FetchError, Fetched, FetchedFile, Hub, HubError};
pub use progress::{Event, Progress, Silent};
pub use repo::{MAIN, RepoId, is_commit, is_revision, short};
pub use search::{Wanted, open, read};
pub use settings::{DEFAULT_ENDPOINT, Secret, Settings};

use crate::json::JsonError;
use crate::value::Object;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest config that is read.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// The file that describes a model.
const CONFIG: &str = "config.json";

/// How names of files with weights end.
const WEIGHTS_ENDING: &str = ".safetensors";

/// How names of indices end.
const INDEX_ENDING: &str = ".safetensors.index.json";

/// What is known of a model before the database is asked.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The name it was asked for by.
    pub id: String,
    /// The commit, where the source has commits.
    pub revision: Option<String>,
    /// Which source answered.
    pub source: SourceKind,
    /// The config; `None` where there are weights and nothing else.
    pub config: Option<Arc<Object>>,
    /// The root class, where the config is not one that names it.
    pub root: Option<Arc<str>>,
    /// The file that errors are about.
    pub file: String,
    /// What the source has to say, such as the new name of a repository that has moved.
    pub notes: Vec<String>,
    /// Everything else that the source has of the model; `None` where it has a config and nothing more.
    pub files: Option<Arc<dyn Files>>,
}

/// A small file of a model, whole.
#[derive(Clone, Debug)]
pub struct SmallFile {
    /// What errors and notes call it.
    pub label: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The sources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder or file.
    Local,
    /// The Hub's cache on this machine.
    Cache,
    /// The embedded catalog.
    Catalog,
    /// The Hub, over HTTP.
    Hub,
}

impl SourceKind {
    /// The name of the source.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Local => "local",
            SourceKind::Cache => "cache",
            SourceKind::Catalog => "catalog",
            SourceKind::Hub => "hub",
        }
    }
}

/// Why a model's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No source that was asked has it.
    #[error("`{id}` was not found: {tried}{hint}; {advice}")]
    NotFound {
        /// What was asked for.
        id: String,
        /// Where was looked.
        tried: String,
        /// `, did you mean ...?`, or nothing.
        hint: String,
        /// What to do.
        advice: String,
    },
    /// `--source hub --offline`
    #[error(
        "`{0}` was to be asked of the Hub, but the network is off; leave out --offline and unset HF_HUB_OFFLINE, or leave out --source, --refresh and --revision"
    )]
    Offline(String),
    /// `./folder --revision main`
    #[error(
        "`{0}` is to be looked for where there are no revisions; --revision and --refresh ask the Hub, so leave them out, or ask the Hub by the model's id"
    )]
    NoRevisions(String),
    /// `--revision ../main`
    #[error("`{0}` cannot be a revision; it is a branch, a tag, a commit or refs/pr/NUMBER")]
    BadRevision(String),
    /// A program without the feature `hub`.
    #[error(
        "this bitcost was built without the Hub (cargo feature `hub`), so `{0}` cannot be asked for over the network"
    )]
    NotBuilt(String),
    /// The Hub did not give it.
    #[cfg(feature = "hub")]
    #[error("{error}{tried}")]
    Hub {
        /// Why.
        error: HubError,
        /// Where was looked before.
        tried: String,
    },
    /// A folder, or a repository, without the file that is wanted of it.
    #[error("{place}: there is no {name}{advice}")]
    NoFile {
        /// Where was looked.
        place: String,
        /// The file.
        name: String,
        /// Where else it could be, or nothing.
        advice: String,
    },
    /// A folder without config.json.
    #[error("{0}: the folder has no config.json and no safetensors file")]
    NoConfig(PathBuf),
    /// A file that cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file larger than any of its kind.
    #[error("{path}: {bytes} bytes; such a file has at most {most}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A file with another content than its name says.
    #[error("{file}: {error}")]
    Frame {
        /// The file.
        file: String,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A file that is not JSON.
    #[error("{path}: {error}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: JsonError,
    },
    /// JSON that is not an object.
    #[error("{path}: a config is a JSON object, this is {found}")]
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
}

#[cfg(feature = "hub")]
impl From<HubError> for SourceError {
    fn from(error: HubError) -> SourceError {
        SourceError::Hub {
            error,
            tried: String::new(),
        }
    }
}

impl SourceError {
    fn unreadable(path: &Path, error: std::io::Error) -> SourceError {
        SourceError::Unreadable {
            path: path.into(),
            reason: error.to_string(),
        }
    }
}
