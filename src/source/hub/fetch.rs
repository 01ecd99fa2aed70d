//! Files of the Hub into its cache on this machine: whole, verified, or not at all.
//!
//! A file arrives in `blobs/ETAG.incomplete` under the lock that huggingface_hub takes too; a transfer that was cut goes on
//! where it ended. Size and hash are checked before the file gets its name. What is here already is not asked for.

use super::client::{Answer, Request, text};
use super::error::HubError;
use super::store::Store;
use super::{Hub, parallel};
use crate::source::progress::Event;
use crate::source::settings::Settings;
use crate::source::{Files, INDEX_ENDING, SourceError, WEIGHTS_ENDING, shards};
use sha2::Digest;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Files that are fetched at once.
const MAX_AT_ONCE: usize = 4;

/// Bytes that are read, hashed and written at once.
const PIECE_BYTES: usize = 256 << 10;

/// Endings of the small files that belong to every model.
const USUAL_ENDINGS: &[&str] = &[".json", ".txt", ".model", ".jinja"];

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The folder with the files.
    pub snapshot: PathBuf,
    /// The files, in the order in which they were asked for.
    pub files: Vec<FetchedFile>,
}

/// One file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How it came here.
    pub action: Action,
}

/// How a file came into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was there already.
    Cached,
    /// It was transferred, all of it.
    Fetched,
    /// The rest of it was transferred.
    Resumed,
}

impl Action {
    /// The name of the action.
    pub fn name(self) -> &'static str {
        match self {
            Action::Cached => "cached",
            Action::Fetched => "fetched",
            Action::Resumed => "resumed",
        }
    }
}

/// Why files could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The Hub did not give it.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The index could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A machine without a home folder.
    #[error("there is no folder for the Hub's cache; set HF_HOME or HF_HUB_CACHE")]
    NoCache,
    /// A cache on a medium that cannot be written.
    #[error(
        "{path}: {reason}; the Hub's cache cannot be written there, set HF_HUB_CACHE (or HF_HOME) to a folder that can"
    )]
    ReadOnly {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A disk without room.
    #[error(
        "{path}: the disk is full; what has arrived is kept, and the same command continues once there is room"
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Any other fault of the disk.
    #[error("{path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A transfer that changed a bit.
    #[error(
        "{file}: the hash of what arrived is {found}, not {expected}; it was deleted, fetch it again"
    )]
    Hash {
        /// The file.
        file: String,
        /// The hash that the Hub states.
        expected: String,
        /// The hash that it has.
        found: String,
    },
    /// Ctrl-C.
    #[error("interrupted; what has arrived is kept, and the same command continues")]
    Interrupted,
}

impl FetchError {
    /// What a fault of the disk means.
    pub(super) fn write(path: &Path, error: &std::io::Error) -> FetchError {
        let (path, reason) = (path.to_path_buf(), error.to_string());
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                FetchError::DiskFull { path }
            }
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory => FetchError::ReadOnly { path, reason },
            _ => FetchError::Write { path, reason },
        }
    }
}

/// What the Hub says about a file before it is fetched.
struct Described<'a> {
    name: &'a str,
    etag: String,
    bytes: u64,
}

impl Hub {
    /// The files that belong to the model, with or without its weights.
    pub fn usual_files(&self, weights: bool) -> Result<Vec<String>, SourceError> {
        let usual = |name: &&String| USUAL_ENDINGS.iter().any(|end| name.ends_with(end));
        let mut chosen: Vec<String> = self.top_names().filter(usual).cloned().collect();
        if weights {
            chosen.extend(self.weights()?);
        }
        Ok(chosen)
    }

    /// The files with weights that loaders use: those of the index, the single one, or all there are.
    fn weights(&self) -> Result<Vec<String>, SourceError> {
        let mut top = self.top_names();
        let single = top.find(|name| *name == "model.safetensors");
        if let Some(single) = single {
            return Ok(vec![single.clone()]);
        }
        let index = self.top_names().find(|name| name.ends_with(INDEX_ENDING));
        if let Some(index) = index {
            let json = self.read(index)?.unwrap_or_default();
            let files = shards::files(&json);
            if !files.is_empty() {
                return Ok(files);
            }
        }
        let all = self
            .top_names()
            .filter(|name| name.ends_with(WEIGHTS_ENDING));
        Ok(all.cloned().collect())
    }

    /// Fetches files into the cache, and notes there which commit the revision names.
    pub fn fetch(&self, names: &[String], settings: &Settings) -> Result<Fetched, FetchError> {
        let cache = settings.cache.as_ref().ok_or(FetchError::NoCache)?;
        let store = Store::new(cache, &self.id, &self.commit, settings.copies);
        let files = parallel::each(names, MAX_AT_ONCE, |_, name| self.fetch_one(&store, name))?;
        let noted = store.set_ref(&self.revision, &self.commit);
        // In a read-only cache that has everything, a ref that is missing or old harms nobody who came here.
        if files.iter().any(|file| file.action != Action::Cached) {
            noted?;
        }
        Ok(Fetched {
            snapshot: store.snapshot().into(),
            files,
        })
    }

    fn fetch_one(&self, store: &Store, name: &str) -> Result<FetchedFile, FetchError> {
        let done = |bytes, action| FetchedFile {
            name: name.into(),
            bytes,
            action,
        };
        if let Some(bytes) = store.bytes_of(name) {
            return Ok(done(bytes, Action::Cached));
        }
        let file = self.describe(name)?;
        store.prepare(name)?;
        let _lock = store.lock(&file.etag, name, &*self.client.progress)?;
        let action = if store.blob(&file.etag).exists() {
            Action::Cached
        } else {
            self.arrive(store, &file)?
        };
        store.link(&file.etag, name)?;
        Ok(done(file.bytes, action))
    }

    /// Asks for etag and size of a file, without following to the host that has its bytes.
    fn describe<'a>(&self, name: &'a str) -> Result<Described<'a>, FetchError> {
        if !self.names.iter().any(|known| known == name) {
            return Err(HubError::EntryNotFound {
                id: self.id.to_string(),
                file: name.into(),
            }
            .into());
        }
        let mut request = self.request(name);
        request.only_headers = true;
        let (etag, bytes) = self.client.ask(&request, |answer| {
            let answer = answer.no_page()?;
            let header = |names: &[&str]| names.iter().find_map(|name| text(&answer.first, name));
            let etag = header(&["x-linked-etag", "etag"]).map(plain_etag);
            let size = header(&["x-linked-size"]).or_else(|| text(&answer.last, "content-length"));
            let bytes = size.and_then(|size| size.trim().parse::<u64>().ok());
            etag.filter(|etag| is_etag(etag))
                .zip(bytes)
                .ok_or(HubError::NotTheHub {
                    url: answer.url.clone(),
                    found: "a file without etag or size".into(),
                })
        })?;
        Ok(Described { name, etag, bytes })
    }

    /// Transfers a file, or what is missing of it, and verifies it.
    fn arrive(&self, store: &Store, file: &Described<'_>) -> Result<Action, FetchError> {
        let mut arrival = Arrival::open(store.part(&file.etag), file)?;
        let had = arrival.have;
        self.say_begin(file, had);
        self.transfer(file, &mut arrival)?;
        let mut found = arrival.hash.finish();
        if found.as_ref().is_some_and(|found| *found != file.etag) && had > 0 {
            // What an earlier transfer left was damaged; nothing says where, so all of it comes again.
            arrival.restart()?;
            self.say_begin(file, 0);
            self.transfer(file, &mut arrival)?;
            found = arrival.hash.finish();
        }
        self.client.progress.on(&Event::End { file: file.name });
        if let Some(found) = found.filter(|found| *found != file.etag) {
            let _ = fs::remove_file(&arrival.path);
            return Err(FetchError::Hash {
                file: self.label(file.name),
                expected: file.etag.clone(),
                found,
            });
        }
        let resumed = arrival.resumed;
        store.keep(&file.etag, arrival.part)?;
        Ok(if resumed {
            Action::Resumed
        } else {
            Action::Fetched
        })
    }

    fn say_begin(&self, file: &Described<'_>, had: u64) {
        self.client.progress.on(&Event::Begin {
            file: file.name,
            bytes: file.bytes,
            had,
        });
    }

    /// Transfers until everything is there. As long as something arrives, a broken connection is no reason to give up.
    fn transfer(&self, file: &Described<'_>, arrival: &mut Arrival) -> Result<(), FetchError> {
        let (mut tries, mut most) = (0, arrival.have);
        while arrival.have < arrival.bytes {
            let mut request = self.request(file.name);
            request.range = (arrival.have > 0).then_some((arrival.have, None));
            let result = self.piece(&request, file, arrival);
            // More than ever before, that is: a server that lets us begin anew each time brings nothing.
            tries = if arrival.have > most { 1 } else { tries + 1 };
            most = most.max(arrival.have);
            if self.client.progress.stopped() {
                return Err(FetchError::Interrupted);
            }
            let error = match result {
                Ok(()) => continue,
                Err(FetchError::Hub(error)) => error,
                Err(error) => return Err(error),
            };
            match self.client.wait_before_try(&error, tries) {
                Some(wait) => self.client.sleep(&error, wait),
                None => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One request, and as much as it brings.
    fn piece(
        &self,
        request: &Request<'_>,
        file: &Described<'_>,
        arrival: &mut Arrival,
    ) -> Result<(), FetchError> {
        let mut answer = self.client.send(request)?.no_page()?;
        if !arrival.continues(&answer) {
            // The server does not know parts, or not this one: from the beginning.
            if request.range.is_some() {
                arrival.restart()?;
                self.say_begin(file, 0);
            }
            if answer.status != 200 {
                return match request.range {
                    Some(_) => Ok(()),
                    None => Err(HubError::NotTheHub {
                        url: answer.url,
                        found: "another part of the file than was asked for".into(),
                    }
                    .into()),
                };
            }
        }
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.client.progress.stopped() {
                return Err(FetchError::Interrupted);
            }
            let read = match answer.body.as_reader().read(&mut piece) {
                Ok(read) => read,
                Err(e) => return Err(answer.broken(&self.client, &e).into()),
            };
            if read == 0 {
                break;
            }
            arrival.take(&piece[..read], &answer.url)?;
            let received = Event::Received {
                file: file.name,
                bytes: read as u64,
            };
            self.client.progress.on(&received);
        }
        if arrival.have < arrival.bytes {
            return Err(HubError::WrongLength {
                url: answer.url,
                expected: arrival.bytes,
                found: arrival.have,
            }
            .into());
        }
        Ok(())
    }
}

/// A file that is arriving.
struct Arrival {
    path: PathBuf,
    part: File,
    hash: Hash,
    /// Bytes that are there.
    have: u64,
    /// Bytes that it shall have.
    bytes: u64,
    resumed: bool,
}

impl Arrival {
    /// Opens the part, and hashes what an earlier transfer left in it.
    fn open(path: PathBuf, file: &Described<'_>) -> Result<Arrival, FetchError> {
        let fail = |e: std::io::Error| FetchError::write(&path, &e);
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut part = options.map_err(fail)?;
        let mut have = part.metadata().map_err(fail)?.len();
        if have > file.bytes {
            part.set_len(0).map_err(fail)?;
            have = 0;
        }
        let mut hash = Hash::of(&file.etag, file.bytes);
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = have;
        while left > 0 {
            let read = part.read(&mut piece).map_err(fail)?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            left -= read as u64;
        }
        Ok(Arrival {
            part,
            hash,
            have,
            bytes: file.bytes,
            resumed: have > 0,
            path,
        })
    }

    /// Whether an answer goes on where the part ends.
    fn continues(&self, answer: &Answer) -> bool {
        match answer.status {
            200 => self.have == 0,
            206 => answer
                .content_range()
                .is_some_and(|(begin, _, size)| begin == self.have && size == self.bytes),
            _ => false,
        }
    }

    fn restart(&mut self) -> Result<(), FetchError> {
        let emptied = self
            .part
            .set_len(0)
            .and_then(|()| self.part.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| FetchError::write(&self.path, &e))?;
        self.hash.restart(self.bytes);
        (self.have, self.resumed) = (0, false);
        Ok(())
    }

    fn take(&mut self, piece: &[u8], url: &str) -> Result<(), FetchError> {
        let have = self.have + piece.len() as u64;
        if have > self.bytes {
            return Err(HubError::TooLarge {
                url: url.into(),
                most: self.bytes,
            }
            .into());
        }
        self.part
            .write_all(piece)
            .map_err(|e| FetchError::write(&self.path, &e))?;
        self.hash.update(piece);
        self.have = have;
        Ok(())
    }
}

/// The hash that an etag is: SHA-256 of files in LFS, git's SHA-1 of the others. Other etags are names without meaning.
enum Hash {
    Sha256(sha2::Sha256),
    Git(sha1::Sha1),
    Unknown,
}

impl Hash {
    fn of(etag: &str, bytes: u64) -> Hash {
        let hexadecimal = etag
            .chars()
            .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        let mut hash = match etag.len() {
            64 if hexadecimal => Hash::Sha256(sha2::Sha256::new()),
            40 if hexadecimal => Hash::Git(sha1::Sha1::new()),
            _ => Hash::Unknown,
        };
        hash.restart(bytes);
        hash
    }

    fn restart(&mut self, bytes: u64) {
        match self {
            Hash::Sha256(hash) => hash.reset(),
            Hash::Git(hash) => {
                hash.reset();
                hash.update(format!("blob {bytes}\0"));
            }
            Hash::Unknown => {}
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hash::Sha256(hash) => hash.update(bytes),
            Hash::Git(hash) => hash.update(bytes),
            Hash::Unknown => {}
        }
    }

    /// The hash in hexadecimal digits.
    fn finish(&self) -> Option<String> {
        let bytes = match self {
            Hash::Sha256(hash) => hash.clone().finalize().to_vec(),
            Hash::Git(hash) => hash.clone().finalize().to_vec(),
            Hash::Unknown => return None,
        };
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// `W/"abc"` as `abc`.
fn plain_etag(etag: &str) -> String {
    let etag = etag.trim();
    let etag = etag.strip_prefix("W/").unwrap_or(etag);
    etag.trim_matches('"').into()
}

/// Whether an etag can be the name of a file.
fn is_etag(etag: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=128).contains(&etag.len()) && etag.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_lose_their_quotes() {
        assert_eq!(plain_etag("W/\"abc\""), "abc");
        assert_eq!(plain_etag("\"abc\""), "abc");
        assert_eq!(plain_etag("abc"), "abc");
    }

    #[test]
    fn an_etag_that_is_a_path_is_none() {
        assert!(is_etag("d7edf6bd2a681fb0175f7735299831ee1b22b812"));
        for etag in ["", "../x", "a/b", "..", "a.b"] {
            assert!(!is_etag(etag), "{etag}");
        }
    }

    #[test]
    fn small_files_are_hashed_as_git_does() {
        // `printf hello | git hash-object --stdin`
        let etag = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let mut hash = Hash::of(etag, 5);
        hash.update(b"hel");
        hash.update(b"lo");
        assert_eq!(hash.finish().as_deref(), Some(etag));
    }
}
