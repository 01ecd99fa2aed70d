//! Where a model's files come from: a folder or file that is named, then the embedded catalog.
//!
//! [`open`] tries the sources in that order and says which one answered. The Hub's cache and the Hub itself take their
//! places in the same list.

mod catalog;
mod files;
mod head;
mod local;

pub use catalog::{Catalog, CatalogModel, Published};
pub use files::{Files, Folder, MAX_SMALL_FILE_BYTES, is_plain};
pub use head::{FrameError, Head, LENGTH_BYTES, MAX_HEADER_BYTES, header_bytes, is_other_format};

use crate::json::JsonError;
use crate::value::Object;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest config that is read.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

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
    /// Everything else that the source has of the model; `None` where it has a config and nothing more.
    pub files: Option<Arc<dyn Files>>,
}

/// The sources there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder or file.
    Local,
    /// The embedded catalog.
    Catalog,
}

impl SourceKind {
    /// The name of the source.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Local => "local",
            SourceKind::Catalog => "catalog",
        }
    }
}

/// Why a model's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Neither a path nor in the catalog.
    #[error(
        "`{id}` is neither a file or folder here nor in the catalog{hint}; `bitcost catalog` lists what is, and a folder with the model's config.json always works"
    )]
    NotFound {
        /// What was asked for.
        id: String,
        /// `, did you mean ...?`, or nothing.
        hint: String,
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

impl SourceError {
    fn unreadable(path: &Path, error: std::io::Error) -> SourceError {
        SourceError::Unreadable {
            path: path.into(),
            reason: error.to_string(),
        }
    }
}

/// The files of the model called `id`: a path that exists, else a catalog id.
pub fn open(id: &str) -> Result<ModelFiles, SourceError> {
    if let Some(files) = local::open(id)? {
        return Ok(files);
    }
    let catalog = Catalog::embedded();
    catalog.open(id).ok_or_else(|| SourceError::NotFound {
        id: id.into(),
        hint: catalog.hint(id),
    })
}
