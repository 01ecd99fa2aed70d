//! The bytes of a tensor: mapped from its file when first asked for, never copied.
//!
//! A scan takes them in order, in bounded pieces ([`Data::pieces`]), so that it holds no more than it works on.

#![allow(unsafe_code)]

use super::{File, Tensor};
use memmap2::Mmap;
use std::sync::OnceLock;

/// Bytes of one piece of a scan; a multiple of every packed format's unit.
pub const PIECE_BYTES: usize = 1 << 20;

/// A file that is mapped when first asked for.
#[derive(Debug, Default)]
pub(super) struct Mapped(OnceLock<Result<Mmap, String>>);

impl Mapped {
    /// The bytes of a tensor of the file, or why they cannot be had.
    pub(super) fn data(&self, file: &File, tensor: &Tensor) -> Result<Data<'_>, String> {
        let map = self
            .0
            .get_or_init(|| map(file))
            .as_ref()
            .map_err(String::clone)?;
        let range = usize::try_from(tensor.begin)
            .ok()
            .zip(usize::try_from(tensor.bytes).ok());
        let bytes = range.and_then(|(begin, bytes)| map.get(begin..begin.checked_add(bytes)?));
        bytes
            .map(|bytes| Data { bytes })
            .ok_or_else(|| "the file is shorter than its header says".into())
    }
}

fn map(file: &File) -> Result<Mmap, String> {
    let path = file
        .path
        .as_ref()
        .ok_or("only its header is here; `bitcost fetch MODEL --weights` downloads the data")?;
    let handle = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let bytes = handle.metadata().map_err(|e| e.to_string())?.len();
    if bytes != file.bytes {
        return Err(format!(
            "the file has {bytes} bytes now, it had {}; was it written to?",
            file.bytes
        ));
    }
    // SAFETY: the map is only read. Another process that truncates the file while it is mapped ends this one with SIGBUS,
    // as it ends every program that maps files; checkpoints are written once, and the size was checked above.
    unsafe { Mmap::map(&handle) }.map_err(|e| e.to_string())
}

/// The bytes of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Data<'c> {
    /// All of them.
    pub bytes: &'c [u8],
}

impl<'c> Data<'c> {
    /// The bytes in order, in pieces of [`PIECE_BYTES`]; only the last may be shorter.
    pub fn pieces(self) -> impl Iterator<Item = &'c [u8]> {
        self.bytes.chunks(PIECE_BYTES)
    }
}
