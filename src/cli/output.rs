//! Where reports go: standard output, or a file that is whole or not there.

use super::{Failure, input};
use crate::json::Escaped;
use serde::Serialize;
use std::io::{BufWriter, ErrorKind, Write, stdout};
use std::path::{Path, PathBuf};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 16;

/// A value as JSON; the control characters that JSON leaves as they are become escapes too.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = Vec::new();
    serde_json::to_writer_pretty(Escaped(&mut text), value).map_err(|e| input(e.to_string()))?;
    String::from_utf8(text).map_err(|e| input(e.to_string()))
}

/// Writes a finished report; a reader of standard output that goes away ends the program quietly.
pub(super) fn write_out(text: &str, file: Option<&Path>) -> Result<(), Failure> {
    write_with(file, |out| {
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Why a report did not come to its end.
pub(super) enum Broken {
    /// It cannot be written.
    Write(std::io::Error),
    /// It cannot be made.
    Made(Failure),
}

impl From<std::io::Error> for Broken {
    fn from(e: std::io::Error) -> Broken {
        Broken::Write(e)
    }
}

impl From<serde_json::Error> for Broken {
    fn from(e: serde_json::Error) -> Broken {
        Broken::Write(e.into())
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken::Made(failure)
    }
}

/// Writes a report while it is made. A file gets all of it or stays as it was; to standard output only what cannot fail may
/// be written this way.
pub(super) fn write_with(
    file: Option<&Path>,
    make: impl FnOnce(&mut dyn Write) -> Result<(), Broken>,
) -> Result<(), Failure> {
    let Some(path) = file else {
        let mut out = BufWriter::with_capacity(BUFFER, stdout().lock());
        let made = make(&mut out);
        return match made.and_then(|()| Ok(out.flush()?)) {
            Ok(()) => Ok(()),
            Err(Broken::Write(e)) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(Broken::Write(e)) => Err(input(format!("standard output: {e}"))),
            Err(Broken::Made(failure)) => Err(failure),
        };
    };
    // A half-written file would look like a result. Devices and pipes cannot be renamed onto.
    let is_file = std::fs::metadata(path).map_or(true, |meta| meta.is_file());
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.part", std::process::id()));
    let draft = PathBuf::from(draft);
    let target = if is_file { draft.as_path() } else { path };
    let written = || -> Result<(), Broken> {
        let mut out = BufWriter::with_capacity(BUFFER, std::fs::File::create(target)?);
        make(&mut out)?;
        out.flush()?;
        if is_file {
            std::fs::rename(target, path)?;
        }
        Ok(())
    };
    written().map_err(|broken| {
        if is_file {
            let _ = std::fs::remove_file(target);
        }
        match broken {
            Broken::Write(e) => input(format!("{}: {e}", path.display())),
            Broken::Made(failure) => failure,
        }
    })
}
