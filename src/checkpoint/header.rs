//! The header of one safetensors file: JSON text in, validated tensors out.
//!
//! ```text
//! {"__metadata__": {"format": "pt"},
//!  "a": {"dtype": "F16", "shape": [4, 3], "data_offsets": [0, 24]}}
//! ```
//!
//! Offsets count from the first byte after the header. The file may come from anyone, so nothing in it is believed: keys
//! stand once, products are checked, every tensor is as long as its shape and dtype say, and the tensors tile the data
//! without gap or overlap. Read as a stream by serde, since a header of a hundred thousand tensors must cost neither a tree
//! of values nor a second copy of its text; the crate `safetensors` does not refuse double keys and names fewer tensors in
//! its errors.

use super::shown;
use crate::dtype::StoredType;
use crate::units;
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// Most dimensions of a tensor. Real ones have up to six.
pub const MAX_DIMENSIONS: usize = 32;

/// A tensor as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: Box<str>,
    /// Its number format.
    pub dtype: StoredType,
    /// Its shape, outermost dimension first.
    pub shape: Box<[u64]>,
    /// Where its bytes begin, after the header.
    pub begin: u64,
    /// Where they end.
    pub end: u64,
}

/// A header that holds what it promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The tensors, by where their bytes lie.
    pub tensors: Vec<Described>,
    /// The strings of `__metadata__`, in the order of the file.
    pub metadata: Vec<(String, String)>,
}

/// Why a header cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// `{"a": }`, a key that stands twice, a shape that is no list of numbers, bytes that are not UTF-8.
    #[error("the header is not what a safetensors header looks like: {0}")]
    Malformed(String),
    /// `{"dtype": "F12"}`
    #[error("tensor `{tensor}`: the dtype `{dtype}` is not known")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// What stands there.
        dtype: String,
    },
    /// `{"shape": [4294967296, 4294967296, 2]}`
    #[error("tensor `{0}`: the product of its shape does not fit 64 bits")]
    ShapeOverflow(String),
    /// More dimensions than any tensor has.
    #[error("tensor `{0}` has more than {MAX_DIMENSIONS} dimensions")]
    TooManyDimensions(String),
    /// A shape and dtype that take another number of bytes than the offsets give.
    #[error(
        "tensor `{tensor}`: {needed} by shape and dtype, but the offsets give it {given} bytes"
    )]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// What the shape needs, in words.
        needed: String,
        /// What the offsets say.
        given: u64,
    },
    /// `{"data_offsets": [8, 0]}`
    #[error("tensor `{0}` ends before it begins")]
    Backwards(String),
    /// Two tensors that share bytes, or bytes that no tensor has.
    #[error(
        "tensor `{tensor}` begins at byte {begin} of the data, where {expected} was expected; tensors lie without gap or overlap"
    )]
    NotTiled {
        /// The tensor.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// Where the one before it ended.
        expected: u64,
    },
    /// `head -c 1000 model.safetensors`
    #[error(
        "tensor `{tensor}` ends at byte {end} of the data, the file after {file}; it was probably cut short"
    )]
    Cut {
        /// The first tensor that is not whole.
        tensor: String,
        /// Where it ends.
        end: u64,
        /// What the file has.
        file: u64,
    },
    /// Data that goes on after the last tensor.
    #[error(
        "the tensors take {tensors} bytes, the file has {file} after its header; what the rest is nobody says"
    )]
    TooMuch {
        /// Where the last tensor ends.
        tensors: u64,
        /// What the file has.
        file: u64,
    },
}

/// Reads the JSON text of a header of a file that has `data_bytes` after it.
pub fn read(json: &[u8], data_bytes: u64) -> Result<Header, HeaderError> {
    let mut header = parse(json)?;
    // Order in the text means nothing; empty tensors lie before the one that begins where they do.
    header
        .tensors
        .sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let mut expected = 0;
    for tensor in &header.tensors {
        if tensor.begin != expected {
            return Err(HeaderError::NotTiled {
                tensor: shown(&tensor.name),
                begin: tensor.begin,
                expected,
            });
        }
        if tensor.end > data_bytes {
            return Err(HeaderError::Cut {
                tensor: shown(&tensor.name),
                end: tensor.end,
                file: data_bytes,
            });
        }
        expected = tensor.end;
    }
    if expected != data_bytes {
        return Err(HeaderError::TooMuch {
            tensors: expected,
            file: data_bytes,
        });
    }
    Ok(header)
}

fn parse(json: &[u8]) -> Result<Header, HeaderError> {
    let mut found = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let header = reader
        .deserialize_map(Entries { found: &mut found })
        .and_then(|header| reader.end().map(|()| header));
    let header = match (header, found) {
        (_, Some(error)) => return Err(error),
        (Ok(header), None) => header,
        (Err(error), None) => return Err(HeaderError::Malformed(malformed(&error))),
    };
    let names = header.tensors.iter().map(|tensor| &*tensor.name);
    match twice(names, header.tensors.len()) {
        Some(name) => Err(HeaderError::Malformed(stands_twice(name))),
        None => Ok(header),
    }
}

/// The first of so many names that stood before. Asked at the end, so that no name has to be kept a second time.
pub(super) fn twice<'n>(
    mut names: impl Iterator<Item = &'n str>,
    number: usize,
) -> Option<&'n str> {
    let mut seen = HashSet::with_capacity(number);
    names.find(|name| !seen.insert(*name))
}

pub(super) fn stands_twice(name: &str) -> String {
    format!("`{}` stands twice", shown(name))
}

/// What serde says, which may quote the file at any length; the place stands at the end.
pub(super) fn malformed(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    // Room for a name and what is wrong with it.
    match text.strip_suffix(&place) {
        Some(what) => format!("{}{place}", units::clipped(what, 640)),
        None => units::clipped(&text, 640),
    }
}

/// Bytes of a tensor, if shape and width make whole ones.
fn bytes_of(name: &str, dtype: StoredType, shape: &[u64], given: u64) -> Result<u64, HeaderError> {
    let overflow = || HeaderError::ShapeOverflow(shown(name));
    let elements = shape
        .iter()
        .try_fold(1u64, |product, side| product.checked_mul(*side))
        .ok_or_else(overflow)?;
    let bits = elements
        .checked_mul(dtype.bits.into())
        .ok_or_else(overflow)?;
    let wrong = |needed: String| HeaderError::WrongLength {
        tensor: shown(name),
        needed,
        given,
    };
    if bits % 8 != 0 {
        return Err(wrong(format!("{bits} bits, not whole bytes,")));
    }
    if bits / 8 != given {
        return Err(wrong(format!("{} bytes", bits / 8)));
    }
    Ok(bits / 8)
}

/// Reads the entries of the header's object. serde's errors are text, so an error with a meaning is left in `found`.
struct Entries<'f> {
    found: &'f mut Option<HeaderError>,
}

/// The value of one entry, as it is written.
#[derive(serde::Deserialize)]
struct Written<'j> {
    #[serde(borrow)]
    dtype: Cow<'j, str>,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(A::Error::custom(stands_twice(&name)));
                }
                let strings = map.next_value::<Strings>();
                header.metadata = strings
                    .map_err(|e| A::Error::custom(format!("`__metadata__`: {}", inner(&e))))?
                    .0;
                continue;
            }
            let written: Written<'de> = map.next_value().map_err(|e| {
                A::Error::custom(format!("tensor `{}`: {}", shown(&name), inner(&e)))
            })?;
            match described(&name, written) {
                Ok(tensor) => header.tensors.push(tensor),
                Err(error) => {
                    *self.found = Some(error);
                    // The error that counts is in `found`; reading stops here.
                    return Err(A::Error::custom("refused"));
                }
            }
        }
        Ok(header)
    }
}

/// What is wrong with a value; the place is found anew when the whole is.
fn inner(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    units::clipped(text.split(" at line ").next().unwrap_or(&text), 320)
}

fn described(name: &str, written: Written<'_>) -> Result<Described, HeaderError> {
    let dtype = StoredType::named(&written.dtype).ok_or_else(|| HeaderError::UnknownDtype {
        tensor: shown(name),
        dtype: shown(&written.dtype),
    })?;
    if written.shape.len() > MAX_DIMENSIONS {
        return Err(HeaderError::TooManyDimensions(shown(name)));
    }
    let (begin, end) = written.data_offsets;
    let given = end
        .checked_sub(begin)
        .ok_or_else(|| HeaderError::Backwards(shown(name)))?;
    bytes_of(name, dtype, &written.shape, given)?;
    Ok(Described {
        name: name.into(),
        dtype,
        shape: written.shape.into(),
        begin,
        end,
    })
}

/// `__metadata__`: strings under strings, each key once.
struct Strings(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strings, D::Error> {
        deserializer.deserialize_map(Pairs).map(Strings)
    }
}

/// Reads an object of strings in the order of the file, and refuses a key that stands twice.
struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, String)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<String, String>()? {
            pairs.push(pair);
        }
        match twice(pairs.iter().map(|(key, _)| key.as_str()), pairs.len()) {
            Some(key) => Err(A::Error::custom(stands_twice(key))),
            None => Ok(pairs),
        }
    }
}
