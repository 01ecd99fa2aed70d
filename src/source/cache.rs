//! The Hub's cache on this machine, as huggingface_hub lays it out.
//!
//! ```text
//! models--org--name/refs/main                        the commit, as text; other branches, tags and refs/pr/1 beside it
//! models--org--name/snapshots/COMMIT/config.json     links to ../../blobs/ETAG
//! models--org--name/.no_exist/COMMIT/config.json     empty: the repository has no such file at that commit
//! ```
//!
//! A repository and a revision in, its files out. Nothing is written here.

use super::local::parse_config;
use super::repo::{self, RepoId};
use super::{
    CONFIG, Files, Folder, Head, INDEX_ENDING, MAX_CONFIG_BYTES, ModelFiles, SourceError,
    SourceKind, WEIGHTS_ENDING, shards,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A repository in the cache at one commit.
#[derive(Debug)]
pub(super) struct Snapshot {
    id: RepoId,
    commit: String,
    root: PathBuf,
    files: Folder,
}

impl Snapshot {
    /// What the cache has of a repository at a branch, tag or commit; `None` where it has nothing.
    pub(super) fn find(
        cache: &Path,
        id: &RepoId,
        revision: &str,
    ) -> Result<Option<Snapshot>, SourceError> {
        let folder = cache.join(id.repo().folder_name());
        let Some(commit) = commit_of(&folder, revision)? else {
            return Ok(None);
        };
        let cached = hf_hub::Cache::new(cache.into()).repo(id.repo());
        let root = cached.pointer_path(&commit);
        if !root.is_dir() {
            return Ok(None);
        }
        Ok(Some(Snapshot {
            id: id.clone(),
            commit,
            files: Folder::of_snapshot(&root, cache)?,
            root,
        }))
    }

    /// The model, if there is a config or at least weights.
    pub(super) fn open(self) -> Result<Option<ModelFiles>, SourceError> {
        let config_file = self.root.join(CONFIG).display().to_string();
        let config = match self.files.read_at_most(CONFIG, MAX_CONFIG_BYTES)? {
            Some(bytes) => Some(parse_config(&config_file, bytes)?),
            None => None,
        };
        if config.is_none() && !self.has_weights()? {
            return Ok(None);
        }
        Ok(Some(ModelFiles {
            id: self.id.to_string(),
            revision: Some(self.commit.clone()),
            source: SourceKind::Cache,
            config,
            root: None,
            file: config_file,
            notes: Vec::new(),
            files: Some(Arc::new(self)),
        }))
    }

    /// Whether the config is here, or known not to exist, and every file with weights that the index names.
    pub(super) fn is_complete(&self) -> Result<bool, SourceError> {
        let repository = self.root.parent().and_then(Path::parent);
        let config = self.root.join(CONFIG).exists()
            || repository.is_some_and(|repository| lacks_config(repository, &self.commit));
        let names = self.files.names()?;
        let index = names.iter().find(|name| name.ends_with(INDEX_ENDING));
        let single = names.iter().any(|name| name == "model.safetensors");
        let shards = match index.filter(|_| !single) {
            Some(index) => self.shards(index)?,
            None => return Ok(config && self.has_weights()?),
        };
        let is_here = |shard: &String| self.files.path(shard).is_some();
        Ok(config && !shards.is_empty() && shards.iter().all(is_here))
    }

    /// The files that an index names; none where it cannot be read.
    fn shards(&self, index: &str) -> Result<Vec<String>, SourceError> {
        let json = self.files.read(index)?.unwrap_or_default();
        Ok(shards::files(&json))
    }

    fn has_weights(&self) -> Result<bool, SourceError> {
        let names = self.files.names()?;
        Ok(names.iter().any(|name| name.ends_with(WEIGHTS_ENDING)))
    }
}

impl Files for Snapshot {
    /// An index stands for its files: where none of them was fetched, there are no weights.
    fn names(&self) -> Result<Vec<String>, SourceError> {
        let mut names = self.files.names()?;
        if !names.iter().any(|name| name.ends_with(WEIGHTS_ENDING)) {
            names.retain(|name| !name.ends_with(INDEX_ENDING));
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.files.read(name)
    }

    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        self.files.heads(names)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.files.path(name)
    }

    fn label(&self, name: &str) -> String {
        self.files.label(name)
    }
}

/// Whether the cache knows that a repository has no config at a revision.
pub(super) fn knows_no_config(cache: &Path, id: &RepoId, revision: &str) -> bool {
    let repository = cache.join(id.repo().folder_name());
    match commit_of(&repository, revision) {
        Ok(Some(commit)) => lacks_config(&repository, &commit),
        _ => false,
    }
}

/// huggingface_hub notes files that a repository does not have.
fn lacks_config(repository: &Path, commit: &str) -> bool {
    let note = repository.join(".no_exist").join(commit).join(CONFIG);
    note.is_file()
}

/// The commit that a revision names, as far as the cache knows.
fn commit_of(repository: &Path, revision: &str) -> Result<Option<String>, SourceError> {
    if repo::is_commit(revision) {
        return Ok(Some(revision.into()));
    }
    if !repo::is_revision(revision) {
        return Ok(None);
    }
    let file = repository.join("refs").join(revision);
    match fs::read_to_string(&file) {
        // A ref that is no commit would be taken for a path.
        Ok(text) if repo::is_commit(text.trim()) => Ok(Some(text.trim().into())),
        // Another process is about to write it.
        Ok(text) if text.is_empty() => Ok(None),
        Ok(_) => Err(SourceError::Unreadable {
            path: file,
            reason: "not a commit; delete the file, or let `bitcost fetch` write it anew".into(),
        }),
        // A branch `a` beside a branch `a/b`, or no such ref.
        Err(_) => Ok(None),
    }
}
