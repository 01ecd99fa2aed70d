//! Writing the Hub's cache, so that huggingface_hub finds what it would have written itself.
//!
//! ```text
//! models--org--name/blobs/ETAG                  a file by its hash; ETAG.incomplete while it arrives
//! models--org--name/snapshots/COMMIT/NAME       a relative link to the blob, a copy where links cannot be made
//! models--org--name/refs/REVISION               the commit
//! .locks/models--org--name/ETAG.lock            held while a blob is fetched, by flock
//! ```
//!
//! **A name in `blobs` or `snapshots` always stands for a whole file**: both come into being by one rename or link.

use super::fetch::FetchError;
use crate::source::progress::{Event, Progress};
use crate::source::repo::RepoId;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the file says that keeps caches out of backups, as huggingface_hub writes it.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// How often a lock is tried that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Waiting that is worth a word; two small files of the same content in one fetch wait less for each other.
const NOTEWORTHY: Duration = Duration::from_millis(300);

/// One repository of the cache at one commit, to be written.
#[derive(Debug)]
pub(super) struct Store {
    cache: PathBuf,
    repository: PathBuf,
    locks: PathBuf,
    snapshot: PathBuf,
    /// Copy instead of linking.
    copies: bool,
}

impl Store {
    /// Nothing is written before it is needed: a complete cache may be read-only.
    pub(super) fn new(cache: &Path, id: &RepoId, commit: &str, copies: bool) -> Store {
        let folder = id.repo().folder_name();
        let repository = cache.join(&folder);
        Store {
            locks: cache.join(".locks").join(folder),
            snapshot: hf_hub::Cache::new(cache.into())
                .repo(id.repo())
                .pointer_path(commit),
            cache: cache.into(),
            repository,
            copies,
        }
    }

    /// The folder with the files of the commit.
    pub(super) fn snapshot(&self) -> &Path {
        &self.snapshot
    }

    /// The size of a file that is here already.
    pub(super) fn bytes_of(&self, name: &str) -> Option<u64> {
        let meta = fs::metadata(self.snapshot.join(name)).ok()?;
        meta.is_file().then_some(meta.len())
    }

    /// Makes the folders that a file needs.
    pub(super) fn prepare(&self, name: &str) -> Result<(), FetchError> {
        let pointer = self.snapshot.join(name);
        let folders = [
            Some(self.repository.join("blobs").as_path()),
            Some(self.locks.as_path()),
            pointer.parent(),
        ]
        .map(|folder| folder.map(Path::to_path_buf));
        for folder in folders.into_iter().flatten() {
            fs::create_dir_all(&folder).map_err(|e| FetchError::write(&folder, &e))?;
        }
        let tag = self.cache.join("CACHEDIR.TAG");
        if !tag.exists() {
            // Whoever makes backups may miss it; the cache does not.
            let _ = fs::write(&tag, CACHEDIR_TAG);
        }
        Ok(())
    }

    /// The file that a blob has when it is whole.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(etag)
    }

    /// The file that a blob arrives in.
    pub(super) fn part(&self, etag: &str) -> PathBuf {
        self.repository
            .join("blobs")
            .join(format!("{etag}.incomplete"))
    }

    /// Waits until no other process fetches the blob; the lock lasts as long as the file is open. Nothing is locked on file
    /// systems without locks: there two processes fetch the same file, and the hash decides.
    pub(super) fn lock(
        &self,
        etag: &str,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<File, FetchError> {
        let path = self.locks.join(format!("{etag}.lock"));
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let lock = lock.map_err(|e| FetchError::write(&path, &e))?;
        let mut waited = Duration::ZERO;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                    return Ok(lock);
                }
                Err(TryLockError::Error(e)) => return Err(FetchError::write(&path, &e)),
                Err(TryLockError::WouldBlock) if progress.stopped() => {
                    return Err(FetchError::Interrupted);
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if waited == NOTEWORTHY {
                progress.on(&Event::Locked { file: name });
            }
            waited += LOCK_PAUSE;
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Makes a part the blob, all at once.
    pub(super) fn keep(&self, etag: &str, part: File) -> Result<(), FetchError> {
        let (from, to) = (self.part(etag), self.blob(etag));
        let kept = part.sync_all().and_then(|()| fs::rename(&from, &to));
        kept.map_err(|e| FetchError::write(&to, &e))
    }

    /// Gives a blob its name in the snapshot.
    pub(super) fn link(&self, etag: &str, name: &str) -> Result<(), FetchError> {
        let pointer = self.snapshot.join(name);
        let up = "../".repeat(2 + name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        let fail = |e: std::io::Error| FetchError::write(&pointer, &e);
        if fs::symlink_metadata(&pointer).is_ok() {
            // A link to a blob that was deleted.
            fs::remove_file(&pointer).map_err(fail)?;
        }
        if !self.copies && symlink(&target, &pointer).is_ok() {
            return Ok(());
        }
        let draft = draft(&pointer);
        let copied = fs::copy(self.blob(etag), &draft).and_then(|_| fs::rename(&draft, &pointer));
        copied.map_err(|e| {
            let _ = fs::remove_file(&draft);
            fail(e)
        })
    }

    /// Notes which commit a branch or tag names now.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), FetchError> {
        let path = self.repository.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.repository);
        let draft = draft(&path);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            File::create(&draft)?.write_all(commit.as_bytes())?;
            fs::rename(&draft, &path)
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&draft);
            FetchError::write(&path, &e)
        })
    }
}

/// A name beside a file that no other process uses.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _link: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
