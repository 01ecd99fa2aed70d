//! Writes a safetensors file whose tensors are known before their data, and the index of several.
//!
//! The header comes first; then every tensor is written to its place, in pieces and in any order, so that no more than a
//! piece has to be in memory. Tensors lie by the width of their numbers, widest first, and then by name, as the library of the
//! format writes them: each begins at a multiple of its width.

use crate::dtype::StoredType;
use crate::tensor::{Dtype, Tensor};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its number format.
    pub dtype: StoredType,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
}

impl Planned {
    /// Its bytes; `None` where they are no whole ones, or do not fit 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        let bits = u64::from(self.dtype.bits);
        let bits = self
            .shape
            .iter()
            .try_fold(bits, |n, side| n.checked_mul(*side));
        bits.filter(|bits| bits % 8 == 0).map(|bits| bits / 8)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Where the file is written next.
    at: u64,
    /// The tensors, in the order in which they were planned.
    places: Vec<Place>,
}

/// A tensor in the file.
#[derive(Debug)]
struct Place {
    name: String,
    /// Where its next bytes go.
    next: u64,
    end: u64,
}

/// An entry of the header.
#[derive(Serialize)]
struct Entry<'p> {
    dtype: &'static str,
    shape: &'p [u64],
    data_offsets: [u64; 2],
}

impl Writer {
    /// Begins a new file with its header.
    pub fn create(
        path: &Path,
        tensors: &[Planned],
        metadata: &[(String, String)],
    ) -> io::Result<Writer> {
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&tensors[*a], &tensors[*b]);
            (b.dtype.bits, &a.name).cmp(&(a.dtype.bits, &b.name))
        });
        let mut places: Vec<Place> = tensors
            .iter()
            .map(|tensor| Place {
                name: tensor.name.clone(),
                next: 0,
                end: 0,
            })
            .collect();
        let mut entries = Vec::new();
        let mut end = 0u64;
        for number in order {
            let tensor = &tensors[number];
            let too_large = || io::Error::other(format!("tensor `{}` is too large", tensor.name));
            let begin = end;
            end = tensor
                .bytes()
                .and_then(|bytes| begin.checked_add(bytes))
                .ok_or_else(too_large)?;
            (places[number].next, places[number].end) = (begin, end);
            let entry = Entry {
                dtype: tensor.dtype.name,
                shape: &tensor.shape,
                data_offsets: [begin, end],
            };
            entries.push(format!("{}:{}", json(&tensor.name), json(&entry)));
        }
        if !metadata.is_empty() {
            let strings = metadata
                .iter()
                .map(|(key, text)| format!("{}:{}", json(key), json(text)));
            let strings: Vec<String> = strings.collect();
            entries.insert(0, format!("\"__metadata__\":{{{}}}", strings.join(",")));
        }
        let mut header = format!("{{{}}}", entries.join(","));
        // Data begins at a multiple of 8, as every width divides it.
        header.extend(std::iter::repeat_n(
            ' ',
            header.len().next_multiple_of(8) - header.len(),
        ));
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let begin = 8 + header.len() as u64;
        for place in &mut places {
            place.next += begin;
            place.end += begin;
        }
        Ok(Writer {
            file,
            at: begin,
            places,
        })
    }

    /// Writes the next bytes of a tensor, by its number in the plan.
    pub fn put(&mut self, tensor: usize, bytes: &[u8]) -> io::Result<()> {
        let place = &mut self.places[tensor];
        let end = place.next + bytes.len() as u64;
        if end > place.end {
            return Err(io::Error::other(format!(
                "tensor `{}` has more bytes than were planned",
                place.name
            )));
        }
        if self.at != place.next {
            self.file.seek(SeekFrom::Start(place.next))?;
        }
        self.file.write_all(bytes)?;
        (place.next, self.at) = (end, end);
        Ok(())
    }

    /// Ends the file, whole and on the disk; its size.
    pub fn finish(self) -> io::Result<u64> {
        if let Some(place) = self.places.iter().find(|place| place.next != place.end) {
            return Err(io::Error::other(format!(
                "tensor `{}` was not written to its end",
                place.name
            )));
        }
        self.file.sync_all()?;
        Ok(self.file.metadata()?.len())
    }
}

/// The text of an index: strings of JSON under `metadata`, by key, and the file of each tensor.
pub fn index(metadata: &BTreeMap<String, String>, tensors: &BTreeMap<&str, &str>) -> String {
    let object = |pairs: Vec<String>| match pairs.is_empty() {
        true => "{}".to_string(),
        false => format!("{{\n    {}\n  }}", pairs.join(",\n    ")),
    };
    let metadata = metadata
        .iter()
        .map(|(key, value)| format!("{}: {value}", json(key)));
    let tensors = tensors
        .iter()
        .map(|(name, file)| format!("{}: {}", json(name), json(file)));
    format!(
        "{{\n  \"metadata\": {},\n  \"weight_map\": {}\n}}\n",
        object(metadata.collect()),
        object(tensors.collect())
    )
}

/// Text and numbers as JSON, which they always have.
fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("strings and numbers are JSON")
}

/// Writes tensors of plain numbers as a new file, which appears whole or not at all: it is made beside its place and gets its
/// name at the end.
pub fn save(path: &Path, tensors: &[(&str, &Tensor)]) -> io::Result<()> {
    let planned = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            Dtype::F32 => "F32",
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::I8 => "I8",
            dtype @ Dtype::Ternary(_) => {
                return Err(io::Error::other(format!(
                    "tensor `{name}`: {dtype} is no format of files"
                )));
            }
        };
        Ok(Planned {
            name: name.to_string(),
            dtype: StoredType::named(dtype).expect("a dtype of the format"),
            shape: tensor.shape().iter().map(|side| *side as u64).collect(),
        })
    });
    let planned = planned.collect::<io::Result<Vec<Planned>>>()?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.part", std::process::id()));
    let draft = Path::new(&draft);
    let written = Writer::create(draft, &planned, &[]).and_then(|mut writer| {
        for (number, (_, tensor)) in tensors.iter().enumerate() {
            writer.put(number, tensor.bytes().map_err(io::Error::other)?)?;
        }
        writer.finish()?;
        std::fs::rename(draft, path)
    });
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(draft);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::read_header;

    fn planned(name: &str, dtype: &str, shape: &[u64]) -> Planned {
        Planned {
            name: name.into(),
            dtype: StoredType::named(dtype).expect("a dtype"),
            shape: shape.into(),
        }
    }

    /// A path that nothing else has, removed at the end.
    struct Draft(std::path::PathBuf);

    impl Draft {
        fn new(name: &str) -> Draft {
            let name = format!("bitcost-write-{}-{name}", std::process::id());
            Draft(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Draft {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn tensors_lie_widest_first_whatever_the_order_of_writing() {
        let draft = Draft::new("order");
        let tensors = [
            planned("b\n", "U8", &[3]),
            planned("z", "BF16", &[1]),
            planned("a", "U8", &[2, 1]),
            planned("none", "F32", &[0, 4]),
        ];
        let metadata = [("format".to_string(), "pt".to_string())];
        let mut writer = Writer::create(&draft.0, &tensors, &metadata).expect("a new file");
        writer.put(0, &[1]).expect("its first byte");
        writer.put(2, &[7, 8]).expect("all of it");
        writer.put(0, &[2, 3]).expect("the rest");
        writer.put(1, &[5, 6]).expect("all of it");
        let size = writer.finish().expect("whole");
        let bytes = std::fs::read(&draft.0).expect("the file");
        assert_eq!(bytes.len() as u64, size);
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        assert_eq!(length % 8, 0);
        let (header, data) = bytes[8..].split_at(length);
        assert_eq!(data, [5, 6, 7, 8, 1, 2, 3]);
        let header = read_header(header, data.len() as u64).expect("a header that holds");
        let names: Vec<&str> = header.tensors.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["none", "z", "a", "b\n"]);
        assert_eq!(header.metadata, metadata);
    }

    #[test]
    fn a_tensor_that_is_not_whole_makes_no_file() {
        let draft = Draft::new("short");
        let mut writer = Writer::create(&draft.0, &[planned("a", "U8", &[3])], &[]).expect("new");
        writer.put(0, &[1, 2]).expect("room");
        assert!(writer.put(0, &[3, 4]).is_err(), "four bytes for three");
        assert!(writer.finish().is_err(), "two bytes of three");
    }

    #[test]
    fn a_file_that_exists_is_not_written_to() {
        let draft = Draft::new("exists");
        std::fs::write(&draft.0, "mine").expect("written");
        assert!(Writer::create(&draft.0, &[], &[]).is_err());
        assert_eq!(std::fs::read(&draft.0).expect("there"), b"mine");
    }

    #[test]
    fn an_index_is_what_its_reader_reads() {
        let metadata = BTreeMap::from([("total_size".to_string(), "12".to_string())]);
        let tensors = BTreeMap::from([("a", "x.safetensors"), ("b", "y.safetensors")]);
        let text = index(&metadata, &tensors);
        let read = crate::checkpoint::read_index(text.as_bytes()).expect("an index");
        assert_eq!(read.tensors, [("a".to_string(), 0), ("b".to_string(), 1)]);
        assert!(text.starts_with("{\n  \"metadata\": {\n    \"total_size\": 12\n  },\n"));
    }
}
