//! The weights of a model as they are stored: safetensors files, sharded or not, packed or plain.
//!
//! [`Checkpoint::open`] reads the headers of all files into one name space; nothing of the data is read until
//! [`Checkpoint::data`] is asked for a tensor, and then it is mapped, not copied. What the tensors mean is told by [`packed`]:
//! [`packed::weights`] joins the codes, scales and zero points of a packed format into logical weights.
//!
//! - `header.rs`: one header, validated
//! - `index.rs`: which file holds which tensor
//! - `data.rs`: the bytes of a tensor, mapped
//! - `batches.rs`: threads over many small weights
//! - [`packed`]: from tensors to weights
//! - [`mod@write`]: a new file, tensor by tensor
//! - [`scan`]: what the data says: statistics of weights, values, and how far two weights are apart

mod batches;
mod data;
mod header;
mod index;
pub mod packed;
pub mod scan;
mod wide;
pub mod write;

pub use batches::{batches, made};
pub use data::{Data, PIECE_BYTES};
pub use header::{Described, Header, HeaderError, MAX_DIMENSIONS, read as read_header};
pub use index::{Index, IndexError, MAX_FILES, read as read_index};

use crate::dtype::StoredType;
use crate::source::{Files, LENGTH_BYTES, SourceError, is_other_format};
use crate::units;
use std::path::PathBuf;
use std::sync::Arc;

/// The name under which the index of a sharded checkpoint is found.
const INDEX: &str = "model.safetensors.index.json";

/// The name of an unsharded checkpoint.
const SINGLE: &str = "model.safetensors";

/// The tensors of all files of a checkpoint, under one name space.
#[derive(Debug)]
pub struct Checkpoint {
    /// Its files.
    pub files: Vec<File>,
    /// Its tensors, by name.
    pub tensors: Vec<Tensor>,
    /// What is odd and does not prevent reading.
    pub notes: Vec<String>,
}

/// One file of a checkpoint.
#[derive(Debug)]
pub struct File {
    /// Its name in the repository.
    pub name: Arc<str>,
    /// What errors call it.
    pub label: String,
    /// Its size.
    pub bytes: u64,
    /// Where its data begins.
    pub data_begin: u64,
    /// The strings of its `__metadata__`.
    pub metadata: Vec<(String, String)>,
    /// Where it lies on this machine, if it does.
    pub path: Option<PathBuf>,
    map: data::Mapped,
}

/// One stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: Box<str>,
    /// Its number format.
    pub dtype: StoredType,
    /// Its shape, outermost dimension first.
    pub shape: Box<[u64]>,
    /// The number of its file.
    pub file: usize,
    /// Where its bytes begin, from the start of the file.
    pub begin: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Tensor {
    /// How many elements it has. The header was read only because the product fits.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A header that cannot be believed.
    #[error("{file}: {error}; fetch the file again or write it anew")]
    Header {
        /// The file.
        file: String,
        /// Why.
        error: HeaderError,
    },
    /// An index that cannot be used.
    #[error("{file}: {error}")]
    Index {
        /// The file.
        file: String,
        /// Why.
        error: IndexError,
    },
    /// Shards without an index that hold the same tensor.
    #[error("tensor `{tensor}` stands in {first} and in {second}; name the file that is meant")]
    Twice {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A shard that lies elsewhere than the index says.
    #[error("{index} puts tensor `{tensor}` in {file}, which does not hold it")]
    NotThere {
        /// The index.
        index: String,
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// A repository with weights of other formats only.
    #[error(
        "{place} has weights only as {found}; bitcost reads safetensors: convert them with transformers' `save_pretrained`, or look for the repository's safetensors revision"
    )]
    OtherFormat {
        /// The folder or repository.
        place: String,
        /// An example of what is there.
        found: String,
    },
    /// A file that lies elsewhere, or that cannot be mapped.
    #[error("{file}: {reason}")]
    Data {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}

impl Checkpoint {
    /// Reads the headers of a model's weights; `None` where there are none.
    pub fn open(files: &dyn Files) -> Result<Option<Checkpoint>, CheckpointError> {
        let names = files.names()?;
        let Some(Chosen { names, index }) = choose(files, &names)? else {
            return match names.iter().find(|name| is_other_format(name)) {
                Some(found) => Err(CheckpointError::OtherFormat {
                    place: files.label(""),
                    found: shown(found),
                }),
                None => Ok(None),
            };
        };
        let heads = files.heads(&names)?;
        let mut checkpoint = Checkpoint {
            files: Vec::new(),
            tensors: Vec::new(),
            notes: Vec::new(),
        };
        for (name, head) in names.iter().zip(heads) {
            checkpoint.add(name, files, &head)?;
        }
        checkpoint.finish(index)?;
        Ok(Some(checkpoint))
    }

    /// Several checkpoints as one, such as shards that were opened one by one.
    pub fn join(parts: Vec<Checkpoint>) -> Result<Checkpoint, CheckpointError> {
        let mut whole = Checkpoint {
            files: Vec::new(),
            tensors: Vec::new(),
            notes: Vec::new(),
        };
        for part in parts {
            let before = whole.files.len();
            whole.files.extend(part.files);
            whole.notes.extend(part.notes);
            whole
                .tensors
                .extend(part.tensors.into_iter().map(|tensor| Tensor {
                    file: tensor.file + before,
                    ..tensor
                }));
        }
        whole.finish(None)?;
        Ok(whole)
    }

    /// Tensors whose data is not here, as if one file held them all. Their begins say nothing.
    pub fn without_data(
        label: &str,
        mut tensors: Vec<Tensor>,
    ) -> Result<Checkpoint, CheckpointError> {
        for tensor in &mut tensors {
            tensor.file = 0;
            tensor.begin = 0;
        }
        let mut checkpoint = Checkpoint {
            files: vec![File {
                name: label.into(),
                label: label.into(),
                bytes: 0,
                data_begin: 0,
                metadata: Vec::new(),
                path: None,
                map: data::Mapped::default(),
            }],
            tensors,
            notes: Vec::new(),
        };
        checkpoint.finish(None)?;
        Ok(checkpoint)
    }

    fn add(
        &mut self,
        name: &str,
        files: &dyn Files,
        head: &crate::source::Head,
    ) -> Result<(), CheckpointError> {
        let label = files.label(name);
        let data_begin = LENGTH_BYTES + head.json.len() as u64;
        let wrong = |error| CheckpointError::Header {
            file: label.clone(),
            error,
        };
        let header =
            read_header(&head.json, head.file_bytes.saturating_sub(data_begin)).map_err(wrong)?;
        let number = self.files.len();
        self.tensors
            .extend(header.tensors.into_iter().map(|t| Tensor {
                name: t.name,
                dtype: t.dtype,
                shape: t.shape,
                file: number,
                begin: data_begin + t.begin,
                bytes: t.end - t.begin,
            }));
        self.files.push(File {
            name: name.into(),
            label,
            bytes: head.file_bytes,
            data_begin,
            metadata: header.metadata,
            path: files.path(name),
            map: data::Mapped::default(),
        });
        Ok(())
    }

    /// Sorts the tensors and holds them against the index.
    fn finish(&mut self, index: Option<(String, Index)>) -> Result<(), CheckpointError> {
        self.tensors
            .sort_by(|a, b| (&a.name, a.file).cmp(&(&b.name, b.file)));
        if let Some(pair) = self
            .tensors
            .windows(2)
            .find(|pair| pair[0].name == pair[1].name)
        {
            return Err(CheckpointError::Twice {
                tensor: shown(&pair[0].name),
                first: self.files[pair[0].file].label.clone(),
                second: self.files[pair[1].file].label.clone(),
            });
        }
        let Some((label, index)) = index else {
            return Ok(());
        };
        for (name, file) in &index.tensors {
            if self.tensor(name).is_none_or(|tensor| tensor.file != *file) {
                return Err(CheckpointError::NotThere {
                    index: label,
                    tensor: shown(name),
                    file: index.files[*file].to_string(),
                });
            }
        }
        let unlisted = self.tensors.len() - index.tensors.len();
        if unlisted > 0 {
            self.notes.push(format!(
                "{label} does not list {unlisted} of the tensors that its files hold"
            ));
        }
        Ok(())
    }

    /// The tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self
            .tensors
            .binary_search_by(|t| (*t.name).cmp(name))
            .ok()?;
        self.tensors.get(at)
    }

    /// The file of a tensor.
    pub fn file(&self, tensor: &Tensor) -> &File {
        &self.files[tensor.file]
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u128 {
        self.tensors.iter().map(|t| u128::from(t.bytes)).sum()
    }

    /// A tensor where it lies in its mapped file; `None` where it cannot be seen so: packed codes, numbers at odd places.
    pub fn view(&self, tensor: &Tensor) -> Result<Option<crate::tensor::Tensor>, CheckpointError> {
        let file = self.file(tensor);
        let view = file.map.view(file, tensor);
        view.map_err(|reason| self.unreadable(tensor, reason))
    }

    /// The bytes of a tensor, mapped from its file.
    pub fn data(&self, tensor: &Tensor) -> Result<Data<'_>, CheckpointError> {
        let file = self.file(tensor);
        let data = file.map.data(file, tensor);
        data.map_err(|reason| self.unreadable(tensor, reason))
    }

    fn unreadable(&self, tensor: &Tensor, reason: String) -> CheckpointError {
        CheckpointError::Data {
            file: self.file(tensor).label.clone(),
            reason: format!("tensor `{}`: {reason}", shown(&tensor.name)),
        }
    }
}

/// A text from a file as messages show it: on one line, of bearable length.
fn shown(text: &str) -> String {
    units::clipped(text, 160)
}

/// The files that hold the weights.
struct Chosen {
    names: Vec<String>,
    /// Its label and content, where an index chose them.
    index: Option<(String, Index)>,
}

/// Finds the weights among the files: by the index, else the one file there is, else shards that number themselves.
fn choose(files: &dyn Files, names: &[String]) -> Result<Option<Chosen>, CheckpointError> {
    if let Some(name) = files.named() {
        return Ok(Some(Chosen {
            names: vec![name.into()],
            index: None,
        }));
    }
    let has = |name: &str| names.iter().any(|n| n == name);
    let weights: Vec<&String> = names
        .iter()
        .filter(|n| n.ends_with(".safetensors"))
        .collect();
    let indices: Vec<&String> = names
        .iter()
        .filter(|n| n.ends_with(".safetensors.index.json"))
        .collect();
    let index = if has(INDEX) {
        Some(INDEX)
    } else {
        indices.first().map(|n| n.as_str())
    };
    // Both lie in some repositories; the index is what loaders follow only where the single file is missing.
    if let Some(index) = index.filter(|_| !has(SINGLE)) {
        let label = files.label(index);
        let json = files.read(index)?.ok_or_else(|| CheckpointError::Data {
            file: label.clone(),
            reason: "the file is listed, but not there".into(),
        })?;
        let index = read_index(&json).map_err(|error| CheckpointError::Index {
            file: label.clone(),
            error,
        })?;
        let names = index.files.iter().map(|n| n.to_string()).collect();
        return Ok(Some(Chosen {
            names,
            index: Some((label, index)),
        }));
    }
    let numbered = |name: &str| name.contains("-of-");
    let chosen: Vec<String> = if has(SINGLE) {
        vec![SINGLE.into()]
    } else if let [one] = weights.as_slice() {
        vec![one.to_string()]
    } else if weights.iter().any(|name| numbered(name)) {
        weights
            .iter()
            .filter(|name| numbered(name))
            .map(|name| name.to_string())
            .collect()
    } else {
        weights.iter().map(|name| name.to_string()).collect()
    };
    Ok((!chosen.is_empty()).then_some(Chosen {
        names: chosen,
        index: None,
    }))
}
