//! Headers of safetensors files by range requests: as a rule one per file, of about the length that the header has.
//!
//! Names of files in, headers out. The length of a header is not known before it is read, but the index tells which tensors
//! it lists and how long their names are; the rest of an entry hardly varies. Without an index the files before teach.
//! **No guess exceeds the header by more than [`MAX_SURPLUS_BYTES`]**, as far as the entries are like any that were seen in the
//! wild; what a guess lacks, a second request brings.

use super::client::{Answer, Client};
use super::error::HubError;
use super::{Hub, parallel};
use crate::source::head::{self, FrameError, LENGTH_BYTES, MAX_HEADERS_BYTES};
use crate::source::progress::Event;
use crate::source::{Files, Head, SourceError, shards};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Files that are read at once.
const MAX_AT_ONCE: usize = 8;

/// Bytes that may be read beyond a header.
const MAX_SURPLUS_BYTES: u64 = 16 << 10;

/// What an entry has besides the name, at least: `"":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},` with longer numbers.
const LEAST_ENTRY_BYTES: u64 = 66;

/// The same, as a rule: `"":{"dtype":"BF16","shape":[4096,4096],"data_offsets":[1234567890,1268122322]},` has 79.
const USUAL_ENTRY_BYTES: u64 = 80;

/// `__metadata__`, padding, and what else is not an entry.
const FRAME_BYTES: u64 = 512;

/// What is known of the length of headers.
#[derive(Debug, Default)]
pub(super) struct Guess {
    /// Tensors of each file, with the bytes of their names.
    listed: BTreeMap<String, Listed>,
    /// The least and the most bytes of an entry besides its name, in thousandths, that the files before had on average.
    entry_milli: Option<(u64, u64)>,
    /// The shortest and the longest header of the files before.
    seen: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    tensors: u64,
    name_bytes: u64,
}

impl Guess {
    /// Learns from an index which tensors stand in which file. What is no index teaches nothing; `checkpoint` says why.
    pub(super) fn learn_index(&mut self, json: &[u8]) {
        self.listed.clear();
        for (tensor, file) in shards::weight_map(json) {
            let listed = self.listed.entry(file).or_default();
            listed.tensors += 1;
            listed.name_bytes += tensor.len() as u64;
        }
    }

    /// Bytes to ask for first.
    fn bytes(&self, file: &str) -> u64 {
        let most = LENGTH_BYTES + MAX_SURPLUS_BYTES;
        let Some(listed) = self.listed.get(file) else {
            return match self.seen {
                None => MAX_SURPLUS_BYTES,
                Some((shortest, longest)) => {
                    (LENGTH_BYTES + longest + FRAME_BYTES).min(shortest + most)
                }
            };
        };
        let (least, usual) = match self.entry_milli {
            Some(known) => known,
            None => (LEAST_ENTRY_BYTES * 1000, USUAL_ENTRY_BYTES * 1000),
        };
        let header = |milli: u64| listed.name_bytes + (listed.tensors * milli).div_ceil(1000);
        LENGTH_BYTES + (header(usual) + FRAME_BYTES).min(header(least) + MAX_SURPLUS_BYTES)
    }

    fn learn(&mut self, file: &str, header: u64) {
        self.seen = Some(match self.seen {
            None => (header, header),
            Some((shortest, longest)) => (shortest.min(header), longest.max(header)),
        });
        if let Some(listed) = self.listed.get(file).filter(|listed| listed.tensors > 0) {
            let besides = header.saturating_sub(listed.name_bytes);
            let milli = besides * 1000 / listed.tensors;
            // A file of few tensors says more about its metadata than about entries.
            if listed.tensors >= 8 {
                let (least, most) = self.entry_milli.unwrap_or((milli, milli));
                self.entry_milli = Some((least.min(milli), most.max(milli)));
            }
        }
    }
}

/// Reads the headers of files of a repository.
pub(super) fn read(hub: &Hub, names: &[String]) -> Result<Vec<Head>, SourceError> {
    let (done, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    parallel::each(names, MAX_AT_ONCE, |_, name| {
        let head = one(hub, name)?;
        let read = head.json.len() as u64;
        if bytes.fetch_add(read, Ordering::Relaxed) + read > MAX_HEADERS_BYTES {
            let reason =
                format!("with this file the headers have more than {MAX_HEADERS_BYTES} bytes");
            return Err(SourceError::Unreadable {
                path: hub.label(name).into(),
                reason,
            });
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        let of = names.len();
        hub.client.progress.on(&Event::Heads { done, of });
        Ok(head)
    })
}

fn one(hub: &Hub, name: &str) -> Result<Head, SourceError> {
    let guess = hub
        .guess
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .bytes(name);
    let Begun {
        mut start,
        file_bytes,
        header,
    } = begin(hub, name, guess)?;
    let end = LENGTH_BYTES + header;
    if (start.len() as u64) < end {
        let rest = rest(hub, name, start.len() as u64, end)?;
        start.extend_from_slice(&rest);
    }
    let mut json = start.split_off(LENGTH_BYTES as usize);
    json.truncate(header as usize);
    hub.guess
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .learn(name, header);
    Ok(Head { json, file_bytes })
}

/// The beginning of a file, and the length of its header.
struct Begun {
    start: Vec<u8>,
    file_bytes: u64,
    header: u64,
}

fn begin(hub: &Hub, name: &str, guess: u64) -> Result<Begun, SourceError> {
    let mut request = hub.request(name);
    request.range = Some((0, Some(guess - 1)));
    let begun = hub
        .client
        .ask(&request, |answer| start_of(&hub.client, answer, guess))?;
    begun.map_err(|error| SourceError::Frame {
        file: hub.label(name),
        error,
    })
}

/// Reads the first bytes of a file from an answer: the part that was asked for, or the begin of the whole file where the
/// server does not know parts. Then the header and nothing more is read, and the connection is dropped.
fn start_of(
    client: &Client,
    answer: Answer,
    guess: u64,
) -> Result<Result<Begun, FrameError>, HubError> {
    let mut answer = answer.no_page()?;
    let mut start = Vec::new();
    match (answer.status, answer.content_range()) {
        // There is no first byte to give.
        (416, _) => Ok(Err(FrameError::TooShort(0))),
        (206, Some((0, last, file_bytes))) => {
            let expected = last + 1;
            answer.read_into(client, &mut start, expected.min(guess) + 1)?;
            if start.len() as u64 != expected {
                return Err(HubError::WrongLength {
                    url: answer.url,
                    expected,
                    found: start.len() as u64,
                });
            }
            Ok(frame(start, file_bytes))
        }
        (200, _) => {
            let Some(file_bytes) = answer.content_length() else {
                return Err(HubError::NotTheHub {
                    url: answer.url,
                    found: "a file without a length".into(),
                });
            };
            // The eight bytes of length first; and those that tell other formats.
            answer.read_into(client, &mut start, 24)?;
            let begun = match frame(start, file_bytes) {
                Ok(begun) => begun,
                Err(error) => return Ok(Err(error)),
            };
            let Begun {
                mut start, header, ..
            } = begun;
            let missing = (LENGTH_BYTES + header).saturating_sub(start.len() as u64);
            answer.read_into(client, &mut start, missing)?;
            Ok(Ok(Begun {
                start,
                file_bytes,
                header,
            }))
        }
        _ => Err(HubError::NotTheHub {
            url: answer.url,
            found: "another part of the file than was asked for".into(),
        }),
    }
}

fn frame(start: Vec<u8>, file_bytes: u64) -> Result<Begun, FrameError> {
    let header = head::header_bytes(&start, file_bytes)?;
    Ok(Begun {
        start,
        file_bytes,
        header,
    })
}

/// The bytes of a file from one position up to another.
fn rest(hub: &Hub, name: &str, from: u64, end: u64) -> Result<Vec<u8>, SourceError> {
    let mut request = hub.request(name);
    request.range = Some((from, Some(end - 1)));
    let bytes = hub.client.ask(&request, |answer| {
        let mut answer = answer.no_page()?;
        let part = answer
            .content_range()
            .map(|(begin, last, _)| (begin, last + 1));
        if answer.status != 206 || part != Some((from, end)) {
            return Err(HubError::NotTheHub {
                url: answer.url,
                found: "another part of the file than was asked for".into(),
            });
        }
        let mut bytes = Vec::new();
        answer.read_into(&hub.client, &mut bytes, end - from + 1)?;
        if bytes.len() as u64 != end - from {
            return Err(HubError::WrongLength {
                url: answer.url,
                expected: end - from,
                found: bytes.len() as u64,
            });
        }
        Ok(bytes)
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index of one file with tensors of a given length of name, and the header such a file has.
    fn shard(tensors: u64, name_bytes: usize, entry_bytes: u64) -> (Vec<u8>, u64) {
        let names = (0..tensors).map(|i| format!("\"{i:0>name_bytes$}\":\"a.safetensors\""));
        let index = format!(
            "{{\"weight_map\":{{{}}}}}",
            names.collect::<Vec<_>>().join(",")
        );
        (
            index.into_bytes(),
            tensors * (name_bytes as u64 + entry_bytes) + 60,
        )
    }

    #[test]
    fn a_guess_from_the_index_covers_the_header_and_little_more() {
        for tensors in [1, 9, 100, 500, 1000] {
            for name_bytes in [5, 40, 120] {
                let (index, header) = shard(tensors, name_bytes, 77);
                let mut guess = Guess::default();
                guess.learn_index(&index);
                let bytes = guess.bytes("a.safetensors");
                assert!(
                    bytes >= LENGTH_BYTES + header,
                    "{tensors} x {name_bytes}: {bytes} < {header}"
                );
                assert!(bytes <= LENGTH_BYTES + header + MAX_SURPLUS_BYTES);
            }
        }
    }

    #[test]
    fn no_guess_exceeds_a_header_of_short_entries_by_more_than_the_allowance() {
        for tensors in [1, 1000, 5000, 50_000] {
            let (index, header) = shard(tensors, 30, LEAST_ENTRY_BYTES);
            let mut guess = Guess::default();
            guess.learn_index(&index);
            assert!(guess.bytes("a.safetensors") <= LENGTH_BYTES + header + MAX_SURPLUS_BYTES);
        }
    }

    #[test]
    fn the_files_before_teach_how_long_entries_are() {
        let (index, header) = shard(1000, 30, 95);
        let mut guess = Guess::default();
        guess.learn_index(&index);
        assert!(guess.bytes("a.safetensors") < header);
        guess.learn("a.safetensors", header);
        assert!(guess.bytes("a.safetensors") >= LENGTH_BYTES + header);
    }

    #[test]
    fn without_an_index_the_files_before_teach_the_length() {
        let mut guess = Guess::default();
        assert_eq!(guess.bytes("a.safetensors"), MAX_SURPLUS_BYTES);
        guess.learn("a.safetensors", 40_000);
        let bytes = guess.bytes("b.safetensors");
        assert!((40_008..40_008 + MAX_SURPLUS_BYTES).contains(&bytes));
        guess.learn("b.safetensors", 100);
        assert!(guess.bytes("c.safetensors") <= LENGTH_BYTES + 100 + MAX_SURPLUS_BYTES);
    }
}
