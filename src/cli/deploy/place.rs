//! A place beside the output where it is made, until all of it is there: then it gets its name at once. Whatever happens
//! before, the output is what it was, and nothing is left beside it.

use super::super::args::DeployArgs;
use super::super::{Failure, input, usage};
use super::{CONFIG, Input};
use crate::units::visible;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One safetensors file.
    File,
    /// A folder with everything that a loader needs.
    Folder,
}

/// Whether the output may be written where it is wanted; the path of it.
pub(super) fn check(args: &DeployArgs, source: &Input) -> Result<PathBuf, Failure> {
    let target = &args.output;
    let label = visible(&target.display().to_string());
    let Some(name) = target.file_name() else {
        return Err(usage(format!(
            "{label}: the output needs a name of its own"
        )));
    };
    let parent = parent(target);
    let real = fs::canonicalize(parent).map_err(|e| {
        let parent = visible(&parent.display().to_string());
        input(format!(
            "{parent}: {e}; the output is written into a folder that exists"
        ))
    })?;
    let real = fs::canonicalize(target).unwrap_or_else(|_| real.join(name));
    apart(&real, &label, source)?;
    match (fs::metadata(target), source.kind) {
        (Err(_), _) => {}
        (Ok(meta), Kind::File) if meta.is_dir() => {
            return Err(usage(format!(
                "{label} is a folder, and one file becomes one file; name a file in it"
            )));
        }
        (Ok(meta), _) if !meta.is_dir() && !meta.is_file() => {
            return Err(usage(format!("{label} is no regular file; name another")));
        }
        (Ok(meta), Kind::Folder) if !meta.is_dir() => {
            return Err(usage(format!(
                "{label} is a file, and a folder becomes a folder; name another"
            )));
        }
        (Ok(_), Kind::Folder) if is_empty(target) => {}
        (Ok(_), _) if !args.force => {
            return Err(usage(format!("{label} exists; --force replaces it")));
        }
        (Ok(_), Kind::Folder) if !is_model(target) => {
            return Err(usage(format!(
                "{label} holds more than the files of a model, and --force would delete it; name another folder"
            )));
        }
        (Ok(_), _) => {}
    }
    Ok(target.clone())
}

/// Refuses to write a model into itself.
fn apart(real: &Path, label: &str, source: &Input) -> Result<(), Failure> {
    let same = || {
        usage(format!(
            "{label}: input and output have to lie apart; name another place for the output"
        ))
    };
    let files = source.checkpoint().files.iter();
    for path in files.filter_map(|file| file.path.as_deref()) {
        if fs::canonicalize(path).is_ok_and(|path| path == real) {
            return Err(same());
        }
    }
    let folder = fs::canonicalize(&source.folder).unwrap_or_else(|_| source.folder.clone());
    let nested = real.starts_with(&folder) || folder.starts_with(real);
    match source.kind {
        Kind::Folder if nested => Err(same()),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether a folder holds files of a model and no folders, so that replacing it deletes nothing else.
fn is_model(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    let mut has_weights = false;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            return false;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        has_weights |= name == CONFIG || name.ends_with(".safetensors");
    }
    has_weights
}

/// An output that is not finished. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    target: PathBuf,
    kind: Kind,
    is_kept: bool,
}

impl Draft {
    pub(super) fn new(target: &Path, kind: Kind) -> Result<Draft, Failure> {
        let path = beside(target, "part");
        if kind == Kind::Folder {
            fs::create_dir(&path).map_err(|e| unwritten(&path, &e))?;
        }
        Ok(Draft {
            path,
            target: target.into(),
            kind,
            is_kept: false,
        })
    }

    /// The file, or the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a small file of the folder.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let mut options = fs::File::options();
        options
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.sync_all()
            })
            .map_err(|e| unwritten(&path, &e))
    }

    /// Gives the finished output its name; what had it before is deleted after that.
    pub(super) fn keep(mut self, force: bool) -> Result<(), Failure> {
        let fail = |e: io::Error| unwritten(&self.target, &e);
        if self.kind == Kind::File {
            fs::rename(&self.path, &self.target).map_err(fail)?;
        } else {
            sync(&self.path);
            if is_empty(&self.target) {
                fs::remove_dir(&self.target).map_err(fail)?;
            }
            let old = beside(&self.target, "old");
            let had = force && self.target.exists();
            if had {
                fs::rename(&self.target, &old).map_err(fail)?;
            }
            if let Err(e) = fs::rename(&self.path, &self.target) {
                if had {
                    let _ = fs::rename(&old, &self.target);
                }
                return Err(fail(e));
            }
            if had {
                fs::remove_dir_all(&old).map_err(|e| unwritten(&old, &e))?;
            }
        }
        self.is_kept = true;
        sync(parent(&self.target));
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // What cannot be removed cannot be told either: the error that led here is what counts.
        let _ = match self.kind {
            Kind::File => fs::remove_file(&self.path),
            Kind::Folder => fs::remove_dir_all(&self.path),
        };
    }
}

/// A hidden name beside a path, of this process alone.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{ending}", std::process::id()))
}

/// Makes names in a folder last; where folders cannot be opened, the system does so by itself.
fn sync(folder: &Path) {
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
}

/// A fault of the disk, in words.
pub(super) fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let path = visible(&path.display().to_string());
    input(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            format!("{path}: the disk is full; nothing was written")
        }
        _ => format!("{path}: {error}; nothing was written"),
    })
}
