//! Where a model's files come from: a folder or file that is named, then the embedded catalog.
//!
//! [`open`] tries the sources in that order and says which one answered. The Hub's cache and the Hub itself take their
//! places in the same list.

mod catalog;
mod local;

pub use catalog::{Catalog, CatalogModel, Published};

use crate::json::JsonError;
use crate::value::Object;
use std::path::PathBuf;
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
    /// The config.
    pub config: Arc<Object>,
    /// The root class, where the config is not one that names it.
    pub root: Option<Arc<str>>,
    /// The file that errors are about.
    pub file: String,
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
    #[error("{0}: the folder has no config.json")]
    NoConfig(PathBuf),
    /// A file that cannot be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file larger than any config.
    #[error("{path}: {bytes} bytes; a config has at most {MAX_CONFIG_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
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
