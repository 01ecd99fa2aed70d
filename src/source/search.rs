//! One look for a model: which sources are asked, in which order, and what is said when none has it.
//!
//! An id and wishes in, the model's files out, or one of them. Without wishes: a path, the Hub's cache, the catalog, the Hub.

#[cfg(feature = "hub")]
use super::hub::{self, HubError};
use super::{
    Catalog, Files, MAIN, ModelFiles, Progress, RepoId, Settings, Silent, SmallFile, SourceError,
    SourceKind, cache, is_commit, is_revision, local,
};
use cache::Snapshot;
use std::path::Path;
use std::sync::Arc;

/// What is wanted of the sources.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The only source to ask; `None`: one after the other.
    pub source: Option<SourceKind>,
    /// The branch, tag or commit.
    pub revision: Option<String>,
    /// Ask the Hub even if the model is here already.
    pub refresh: bool,
    /// Never ask the network.
    pub offline: bool,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted {
            source: None,
            revision: None,
            refresh: false,
            offline: false,
            progress: Arc::new(Silent),
        }
    }
}

/// The files of the model called `id`, from the first source that has it: a path, the Hub's cache, the catalog, the Hub. A
/// revision, or the wish to be up to date, goes to the Hub first.
pub fn open(id: &str, wanted: &Wanted, settings: &Settings) -> Result<ModelFiles, SourceError> {
    let search = Search::new(id, wanted, settings)?;
    let without_revisions = match wanted.source {
        Some(SourceKind::Local | SourceKind::Catalog) => {
            wanted.revision.is_some() || wanted.refresh
        }
        Some(SourceKind::Cache) => wanted.refresh,
        _ => false,
    };
    if without_revisions {
        return Err(SourceError::NoRevisions(id.into()));
    }
    let found = match wanted.source {
        Some(SourceKind::Local) => local::open(id)?,
        Some(SourceKind::Cache) => search.cache()?,
        Some(SourceKind::Catalog) => Catalog::embedded().open(id),
        Some(SourceKind::Hub) => search.hub()?,
        None => return search.anywhere(),
    };
    found.ok_or_else(|| search.not_found())
}

/// The small file `name` of what is called `id`: a folder, or the file itself; else of the repository of that id, in the
/// Hub's cache or on the Hub. The catalog has configs alone, so it is not asked.
pub fn read(
    id: &str,
    name: &str,
    wanted: &Wanted,
    settings: &Settings,
) -> Result<SmallFile, SourceError> {
    let search = Search::new(id, wanted, settings)?;
    let hub_first = wanted.refresh || wanted.revision.is_some();
    let found = if hub_first {
        None
    } else {
        local::read(id, name)?
    };
    let found = match found {
        None if !wanted.refresh => search.cached_file(name)?,
        found => found,
    };
    match found {
        Some(found) => Ok(found),
        None => search.file_of_hub(name),
    }
}

/// One look for a model.
struct Search<'a> {
    id: &'a str,
    wanted: &'a Wanted,
    settings: &'a Settings,
    /// The id, where it can be one of the Hub.
    repo: Option<RepoId>,
    offline: bool,
}

impl<'a> Search<'a> {
    fn new(
        id: &'a str,
        wanted: &'a Wanted,
        settings: &'a Settings,
    ) -> Result<Search<'a>, SourceError> {
        if let Some(revision) = wanted.revision.as_deref().filter(|r| !is_revision(r)) {
            return Err(SourceError::BadRevision(revision.into()));
        }
        Ok(Search {
            id,
            wanted,
            settings,
            repo: RepoId::parse(id),
            offline: wanted.offline || settings.offline,
        })
    }

    fn anywhere(&self) -> Result<ModelFiles, SourceError> {
        let hub_first = self.wanted.refresh || self.wanted.revision.is_some();
        if hub_first && local::is_spelled_as_path(self.id) {
            return Err(SourceError::NoRevisions(self.id.into()));
        }
        if self.wanted.refresh && self.offline {
            return Err(SourceError::Offline(self.id.into()));
        }
        let found = if !hub_first {
            self.nearest()?
        } else if self.offline {
            self.cache()?
        } else {
            self.cached_commit()?
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if self.offline || !self.can_ask() {
            return Err(self.not_found());
        }
        self.hub()?.ok_or_else(|| self.not_found())
    }

    /// The model without the network.
    fn nearest(&self) -> Result<Option<ModelFiles>, SourceError> {
        if let Some(files) = local::open(self.id)? {
            return Ok(Some(files));
        }
        if let Some(files) = self.cache()? {
            return Ok(Some(files));
        }
        Ok(Catalog::embedded().open(self.id))
    }

    fn cache(&self) -> Result<Option<ModelFiles>, SourceError> {
        match self.snapshot()? {
            Some(snapshot) => snapshot.open(),
            None => Ok(None),
        }
    }

    /// What the cache holds of a commit that is named in full, if it holds all of it: a commit does not change.
    fn cached_commit(&self) -> Result<Option<ModelFiles>, SourceError> {
        if self.wanted.refresh || !is_commit(self.revision()) {
            return Ok(None);
        }
        match self.snapshot()? {
            Some(snapshot) if snapshot.is_complete()? => snapshot.open(),
            _ => Ok(None),
        }
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, SourceError> {
        let (Some(repo), Some(cache)) = (&self.repo, &self.settings.cache) else {
            return Ok(None);
        };
        Snapshot::find(cache, repo, self.revision())
    }

    fn cached_file(&self, name: &str) -> Result<Option<SmallFile>, SourceError> {
        match self.snapshot()? {
            Some(snapshot) => small_file(&snapshot, name),
            None => Ok(None),
        }
    }

    fn file_of_hub(&self, name: &str) -> Result<SmallFile, SourceError> {
        let nowhere = |advice: String| SourceError::NoFile {
            place: self.id.into(),
            name: name.into(),
            advice,
        };
        let Some(repo) = &self.repo else {
            return Err(nowhere(
                "; it is no file or folder here, and cannot be the id of a model on the Hub".into(),
            ));
        };
        if self.offline {
            let cache = match &self.settings.cache {
                Some(cache) => format!("the Hub's cache ({}) has none", cache.display()),
                None => "there is no cache of the Hub".into(),
            };
            let why =
                "the Hub was not asked, because the network is off (--offline or HF_HUB_OFFLINE)";
            return Err(nowhere(format!("; {cache}, and {why}")));
        }
        self.ask_for(repo, name)
    }

    #[cfg(feature = "hub")]
    fn ask_for(&self, repo: &RepoId, name: &str) -> Result<SmallFile, SourceError> {
        let progress = self.wanted.progress.clone();
        let hub = hub::Hub::open(repo, self.revision(), self.settings, progress)?;
        let missing = || SourceError::NoFile {
            place: hub.label(""),
            name: name.into(),
            advice: String::new(),
        };
        small_file(&hub, name)?.ok_or_else(missing)
    }

    #[cfg(not(feature = "hub"))]
    fn ask_for(&self, _repo: &RepoId, _name: &str) -> Result<SmallFile, SourceError> {
        Err(SourceError::NotBuilt(self.id.into()))
    }

    /// The Hub's answer; `None` where it has no such model.
    fn hub(&self) -> Result<Option<ModelFiles>, SourceError> {
        let Some(repo) = &self.repo else {
            return Ok(None);
        };
        if self.offline {
            return Err(SourceError::Offline(self.id.into()));
        }
        self.ask(repo)
    }

    #[cfg(feature = "hub")]
    fn ask(&self, repo: &RepoId) -> Result<Option<ModelFiles>, SourceError> {
        let progress = self.wanted.progress.clone();
        match hub::open(repo, self.revision(), self.settings, progress) {
            Ok(files) => Ok(Some(files)),
            Err(SourceError::Hub { error, .. }) => Err(SourceError::Hub {
                tried: match &error {
                    HubError::RepoNotFound { .. } => {
                        format!("; {}{}", self.tried(), Catalog::embedded().hint(self.id))
                    }
                    error if error.is_about_the_network() => format!("; {}", self.tried()),
                    _ => String::new(),
                },
                error,
            }),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(feature = "hub"))]
    fn ask(&self, _repo: &RepoId) -> Result<Option<ModelFiles>, SourceError> {
        Err(SourceError::NotBuilt(self.id.into()))
    }

    /// Whether the Hub could be asked at all.
    fn can_ask(&self) -> bool {
        cfg!(feature = "hub") && self.repo.is_some()
    }

    fn revision(&self) -> &str {
        self.wanted.revision.as_deref().unwrap_or(MAIN)
    }

    /// `no file or folder here, not in the cache (/home/me/.cache/huggingface/hub), not in the catalog`
    fn tried(&self) -> String {
        let path = "no file or folder of this name here".to_string();
        let known = |cache: &Path| {
            let repo = self.repo.as_ref();
            repo.is_some_and(|repo| cache::knows_no_config(cache, repo, self.revision()))
        };
        let cache = match &self.settings.cache {
            Some(cache) if known(cache) => {
                let cache = cache.display();
                format!("the Hub's cache ({cache}) knows that the repository has no config.json")
            }
            Some(cache) => format!("not in the Hub's cache ({})", cache.display()),
            None => "no cache of the Hub".into(),
        };
        let cache = match &self.wanted.revision {
            Some(revision) => format!("{cache} at `{revision}`"),
            None => cache,
        };
        let catalog = "not in the catalog".to_string();
        match self.wanted.source {
            Some(SourceKind::Local) => path,
            Some(SourceKind::Cache) => cache,
            Some(SourceKind::Catalog) => catalog,
            Some(SourceKind::Hub) => "no source but the Hub was asked".into(),
            None if self.wanted.revision.is_some() || self.wanted.refresh => cache,
            None => format!("{path}, {cache}, {catalog}"),
        }
    }

    fn not_found(&self) -> SourceError {
        let advice = if self.repo.is_none() {
            "`bitcost catalog` lists what is in the catalog; models of the Hub are called `name` or `organization/name`, and a folder with the model's config.json always works"
        } else if !cfg!(feature = "hub") {
            "this bitcost was built without the Hub (cargo feature `hub`); `bitcost catalog` lists what is in the catalog, and a folder with the model's config.json always works"
        } else if self.offline {
            "the Hub was not asked, because the network is off (--offline or HF_HUB_OFFLINE); `bitcost catalog` lists what is in the catalog, and a folder with the model's config.json always works"
        } else if self.wanted.source.is_some() {
            "without --source all are asked: paths, the cache, the catalog, the Hub (`bitcost catalog` lists the catalog)"
        } else {
            "`bitcost catalog` lists what is in the catalog, and a folder with the model's config.json always works"
        };
        SourceError::NotFound {
            id: self.id.into(),
            tried: self.tried(),
            hint: Catalog::embedded().hint(self.id),
            advice: advice.into(),
        }
    }
}

fn small_file(files: &dyn Files, name: &str) -> Result<Option<SmallFile>, SourceError> {
    let bytes = files.read(name)?;
    Ok(bytes.map(|bytes| SmallFile {
        label: files.label(name),
        bytes,
    }))
}
