//! The files of one model, by their names in its repository: a folder, a snapshot in the Hub's cache, the Hub itself.
//!
//! [`Files`] is what the layers above see: small files whole, safetensors files by their headers. [`Folder`] is the one on
//! this machine; it reads nothing outside its boundary, whatever an index names.

use super::SourceError;
use super::head::{self, Head, LENGTH_BYTES, MAX_HEADERS_BYTES};
use crate::units;
use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Largest small file that is read whole: an index of some hundred thousand tensors.
pub const MAX_SMALL_FILE_BYTES: u64 = 64 << 20;

/// The files of a model.
pub trait Files: Debug + Send + Sync {
    /// Names of all files, sorted.
    fn names(&self) -> Result<Vec<String>, SourceError>;

    /// A small file whole; `None` where there is none of the name.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// The headers of safetensors files, in the order of the names; of the data nothing is read.
    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError>;

    /// The file with weights that the user named; then no other counts.
    fn named(&self) -> Option<&str> {
        None
    }

    /// Where a file lies on this machine, if it does.
    fn path(&self, name: &str) -> Option<PathBuf>;

    /// What errors and notes call a file.
    fn label(&self, name: &str) -> String;
}

/// A folder of this machine, or chosen files of it.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    /// Real paths that links may not leave.
    boundaries: Vec<PathBuf>,
    /// The file with weights that the user named.
    named: Option<String>,
}

impl Folder {
    /// A folder, all of it. Links may lead to files below the folder itself and, for a snapshot of the Hub's cache, below
    /// its repository, whose `blobs` they point to.
    pub fn open(root: &Path) -> Result<Folder, SourceError> {
        let real = fs::canonicalize(root).map_err(|e| SourceError::unreadable(root, e))?;
        let boundary = repository_of(&real).unwrap_or(&real).to_path_buf();
        Ok(Folder {
            root: root.into(),
            boundaries: vec![boundary],
            named: None,
        })
    }

    /// A snapshot in the Hub's cache. Its links may also lead to the blobs that all repositories of the cache share.
    pub(super) fn of_snapshot(root: &Path, cache: &Path) -> Result<Folder, SourceError> {
        let mut folder = Folder::open(root)?;
        folder
            .boundaries
            .extend(fs::canonicalize(cache.join("blobs")));
        Ok(folder)
    }

    /// The folder that a named file lies in; of its files with weights only this one counts. The user named it, so it may
    /// be a link to anywhere.
    pub fn of_file(file: &Path) -> Result<Folder, SourceError> {
        let real = fs::canonicalize(file).map_err(|e| SourceError::unreadable(file, e))?;
        let root = file
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let name =
            file.file_name()
                .and_then(|n| n.to_str())
                .ok_or_else(|| SourceError::Unreadable {
                    path: file.into(),
                    reason: "the name is not UTF-8".into(),
                })?;
        let mut folder = Folder::open(root)?;
        folder.boundaries.push(real);
        folder.named = Some(name.into());
        Ok(folder)
    }

    /// The path of a file that stays inside; `None` where there is none.
    fn inside(&self, name: &str) -> Result<Option<PathBuf>, SourceError> {
        let path = self.root.join(name);
        let refuse = |reason: String| SourceError::Unreadable {
            // A name may hold line breaks, and messages do not.
            path: units::visible(&path.display().to_string()).into(),
            reason,
        };
        if !is_plain(name) {
            return Err(refuse(
                "names of files lead neither up nor to the root of the file system, and have no control characters; rename it".into(),
            ));
        }
        let real = match fs::canonicalize(&path) {
            Ok(real) => real,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if fs::symlink_metadata(&path).is_ok() {
                    return Err(refuse("a link to a file that is not there".into()));
                }
                return Ok(None);
            }
            Err(e) => return Err(refuse(e.to_string())),
        };
        if !self.holds(&real) {
            return Err(refuse(format!(
                "a link that leads out of the folder, to {}; copy the file here or name it itself",
                real.display()
            )));
        }
        // A pipe would be waited for, for ever.
        if !fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            return Err(refuse("not a regular file".into()));
        }
        Ok(Some(path))
    }

    /// Whether a real path lies inside.
    fn holds(&self, real: &Path) -> bool {
        self.boundaries.iter().any(|b| real.starts_with(b))
    }

    /// A file whole, if it has at most so many bytes; `None` where there is none of the name.
    pub(super) fn read_at_most(
        &self,
        name: &str,
        most: u64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        match self.inside(name)? {
            Some(path) => read_whole(&path, most).map(Some),
            None => Ok(None),
        }
    }

    /// The header of a file, if it has at most so many bytes.
    fn head(&self, name: &str, most: u64) -> Result<Head, SourceError> {
        let path = self.inside(name)?.ok_or_else(|| SourceError::Unreadable {
            path: self.root.join(name),
            reason:
                "the file is missing; `bitcost fetch MODEL --weights` completes what the Hub has"
                    .into(),
        })?;
        let fail = |e: std::io::Error| SourceError::unreadable(&path, e);
        let mut file = fs::File::open(&path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        let mut start = Vec::new();
        // Long enough to tell other formats by what they begin with.
        Read::by_ref(&mut file)
            .take(24)
            .read_to_end(&mut start)
            .map_err(fail)?;
        let frame = |error| SourceError::Frame {
            file: path.display().to_string(),
            error,
        };
        let header = head::header_bytes(&start, meta.len()).map_err(frame)?;
        if header > most {
            return Err(SourceError::Unreadable {
                path,
                reason: format!(
                    "with this file the headers have more than {MAX_HEADERS_BYTES} bytes; name the file that is meant"
                ),
            });
        }
        let mut json = start.split_off(LENGTH_BYTES as usize);
        json.truncate(header as usize);
        json.reserve_exact(header as usize - json.len());
        let missing = header - json.len() as u64;
        file.take(missing).read_to_end(&mut json).map_err(fail)?;
        if json.len() as u64 != header {
            let error = head::FrameError::Cut {
                header,
                file: LENGTH_BYTES + json.len() as u64,
            };
            return Err(frame(error));
        }
        Ok(Head {
            json,
            file_bytes: meta.len(),
        })
    }
}

impl Files for Folder {
    fn names(&self) -> Result<Vec<String>, SourceError> {
        let mut names = Vec::new();
        let entries =
            fs::read_dir(&self.root).map_err(|e| SourceError::unreadable(&self.root, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| SourceError::unreadable(&self.root, e))?;
            // Names that are not UTF-8 cannot be named by an index either.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if entry.path().is_dir() {
                continue;
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.read_at_most(name, MAX_SMALL_FILE_BYTES)
    }

    fn heads(&self, names: &[String]) -> Result<Vec<Head>, SourceError> {
        let mut left = MAX_HEADERS_BYTES;
        let mut heads = Vec::with_capacity(names.len());
        for name in names {
            let head = self.head(name, left)?;
            left -= head.json.len() as u64;
            heads.push(head);
        }
        Ok(heads)
    }

    fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.inside(name).ok().flatten()
    }

    fn label(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }
}

/// Whether a name stays below the folder that it is relative to: no root, no `..`, no drive, no control characters.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(['\\', ':'])
        && !name.contains(char::is_control)
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// A file of at most `most` bytes; the limit holds for pipes and growing files too.
pub(super) fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>, SourceError> {
    let fail = |e: std::io::Error| SourceError::unreadable(path, e);
    let file = fs::File::open(path).map_err(fail)?;
    let mut content = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut content)
        .map_err(fail)?;
    if content.len() as u64 > most {
        let bytes = fs::metadata(path).map_or(most + 1, |m| m.len().max(most + 1));
        return Err(SourceError::TooLarge {
            path: path.into(),
            bytes,
            most,
        });
    }
    Ok(content)
}

/// The repository folder of a snapshot in the Hub's cache: `models--org--name` for `.../snapshots/COMMIT`.
fn repository_of(snapshot: &Path) -> Option<&Path> {
    let snapshots = snapshot.parent()?;
    let repository = snapshots.parent()?;
    let named = repository.file_name()?.to_str()?.starts_with("models--");
    (named && snapshots.file_name()? == "snapshots").then_some(repository)
}
