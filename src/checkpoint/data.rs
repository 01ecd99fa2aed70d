//! The bytes of a tensor: mapped from its file when first asked for, never copied.
//!
//! A scan takes them in order, in bounded pieces ([`Data::pieces`]), so that it holds no more than it works on.

use super::{File, Tensor};
use crate::memory::{Block, MappedFiles, Tag};
use crate::tensor::{self, Dtype};
use std::sync::{Arc, OnceLock};

/// Bytes of one piece of a scan; a multiple of every packed format's unit.
pub const PIECE_BYTES: usize = 1 << 20;

/// What mapped files are in the metrics of a pool.
const CHECKPOINT: Tag = Tag::of("checkpoint");

/// A file that is mapped when first asked for.
#[derive(Debug, Default)]
pub(super) struct Mapped(OnceLock<Result<Arc<Block>, String>>);

impl Mapped {
    /// The bytes of a tensor of the file, or why they cannot be had.
    pub(super) fn data(&self, file: &File, tensor: &Tensor) -> Result<Data<'_>, String> {
        let map = self.map(file)?;
        let range = usize::try_from(tensor.begin)
            .ok()
            .zip(usize::try_from(tensor.bytes).ok());
        let bytes = range.and_then(|(begin, bytes)| {
            let all = map.bytes();
            all.get(begin..begin.checked_add(bytes)?)
        });
        bytes
            .map(|bytes| Data { bytes })
            .ok_or_else(|| "the file is shorter than its header says".into())
    }

    /// A tensor of the file where it lies; `None` where programs have no numbers of its type, or they lie at odd places.
    pub(super) fn view(
        &self,
        file: &File,
        tensor: &Tensor,
    ) -> Result<Option<tensor::Tensor>, String> {
        let dtype = match tensor.dtype.name {
            "F32" => Dtype::F32,
            "BF16" => Dtype::Bf16,
            "F16" => Dtype::F16,
            "I8" => Dtype::I8,
            _ => return Ok(None),
        };
        let sides = tensor.shape.iter().map(|n| usize::try_from(*n).ok());
        let (Some(sides), Ok(begin)) = (
            sides.collect::<Option<Vec<_>>>(),
            usize::try_from(tensor.begin),
        ) else {
            return Ok(None);
        };
        let memory = self.map(file)?.clone();
        Ok(tensor::Tensor::of_block(memory, begin, dtype, &sides).ok())
    }

    fn map(&self, file: &File) -> Result<&Arc<Block>, String> {
        let map = self.0.get_or_init(|| map(file).map(Arc::new));
        map.as_ref().map_err(String::clone)
    }
}

fn map(file: &File) -> Result<Block, String> {
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
    let map = MappedFiles::new().map(&handle, 0..bytes, CHECKPOINT);
    map.map_err(|e| e.to_string())
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
