//! The frame of a safetensors file: eight bytes of length, a JSON header, then the data.
//!
//! First bytes in, length of the header out, or why this is no safetensors file. Folder and Hub read the same frame, so it
//! stands here; what the header says is `checkpoint`'s business.

/// Longest header that is read, as in the reference implementation.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most bytes that the headers of all files of a model have together; those of 92,000 tensors in 163 files have 13 MB.
pub(super) const MAX_HEADERS_BYTES: u64 = 400_000_000;

/// Bytes before the header.
pub const LENGTH_BYTES: u64 = 8;

/// The header of one safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The JSON text, unread.
    pub json: Vec<u8>,
    /// Size of the whole file.
    pub file_bytes: u64,
}

/// Why a file is no safetensors file. The messages say what a file is that is often taken for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// `touch model.safetensors`
    #[error("{0} bytes are too few for a safetensors file")]
    TooShort(u64),
    /// A pickle that was renamed.
    #[error("this is {0}, not a safetensors file; {1}")]
    OtherFormat(&'static str, &'static str),
    /// `Entry not found`, `{"error": "..."}`
    #[error("this is text, not a safetensors file; {AGAIN}")]
    Text,
    /// A length of 2^63.
    #[error(
        "the first eight bytes give the header {0} bytes, and a header has at most {MAX_HEADER_BYTES}; this is no safetensors file, or a damaged one: fetch it again"
    )]
    TooLong(u64),
    /// A download that was cut.
    #[error(
        "the header should have {header} bytes, but the file ends after {file}; it was probably cut short: fetch it again"
    )]
    Cut {
        /// Bytes that the header should have.
        header: u64,
        /// Bytes of the file.
        file: u64,
    },
}

const CONVERT: &str = "convert it with its own library (`safetensors.torch.save_file`), or use the repository's safetensors files";

const UNPACK: &str = "unpack it first";

const AGAIN: &str = "the download went wrong; fetch it again";

/// What files begin with that people rename to `.safetensors`, and what to do about them.
const OTHER_FORMATS: &[(&[u8], &str, &str)] = &[
    (
        b"PK\x03\x04",
        "a zip archive, as torch.save writes",
        CONVERT,
    ),
    (b"\x80\x02", "a pickle", CONVERT),
    (b"\x80\x03", "a pickle", CONVERT),
    (b"\x80\x04", "a pickle", CONVERT),
    (b"\x80\x05", "a pickle", CONVERT),
    (
        b"GGUF",
        "a GGUF file",
        "GGUF is not read; use the safetensors files that it was made from",
    ),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (b"\x93NUMPY", "a NumPy array", CONVERT),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (
        b"version https://git-lfs",
        "a Git LFS pointer",
        "fetch the file itself with `git lfs pull` or `bitcost fetch MODEL --weights`",
    ),
];

/// How files with weights in formats that are not read are called, what they are, and what to do about them.
const OTHER_ENDINGS: &[(&str, &str, &str)] = &[
    (
        ".gguf",
        "a GGUF file",
        "GGUF is not read; use the safetensors files that it was made from",
    ),
    (
        ".onnx",
        "an ONNX file",
        "ONNX is not read; use the safetensors files of the model that it was made from",
    ),
    (".bin", "a file of torch.save", CONVERT),
    (".pt", "a file of torch.save", CONVERT),
    (".pth", "a file of torch.save", CONVERT),
    (".ckpt", "a checkpoint of another format", CONVERT),
    (".h5", "an HDF5 file", CONVERT),
    (".msgpack", "a Flax checkpoint", CONVERT),
    (".npz", "an archive of NumPy arrays", CONVERT),
];

/// What a file with weights is that is called so; `None` for names that say nothing.
pub(super) fn other_format_by_name(name: &str) -> Option<FrameError> {
    let known = OTHER_ENDINGS.iter().find(|(end, ..)| name.ends_with(end));
    known.map(|(_, what, advice)| FrameError::OtherFormat(what, advice))
}

/// Whether a name is one of weights in a format that is not read.
pub fn is_other_format(name: &str) -> bool {
    let state = ["training_args", "optimizer", "scheduler", "rng_state"];
    other_format_by_name(name).is_some() && !state.iter().any(|s| name.starts_with(s))
}

/// What pages begin with, in any case and after blank lines.
const PAGES: &[&[u8]] = &[b"<!doctype", b"<html", b"<head", b"<?xml"];

/// Length of the JSON header of a file that begins with `start` (at least eight bytes, if it has them; nine tell a short
/// header from a pickle, 24 every other format by its name).
pub fn header_bytes(start: &[u8], file_bytes: u64) -> Result<u64, FrameError> {
    let length = start.first_chunk::<8>().map(|l| u64::from_le_bytes(*l));
    // A header of 640 bytes begins as a pickle does; what counts is whether the JSON follows.
    let framed = length.is_some_and(|length| length <= MAX_HEADER_BYTES)
        && start.get(LENGTH_BYTES as usize).is_none_or(|b| *b == b'{');
    if !framed && let Some(error) = other_format(start) {
        return Err(error);
    }
    let header = length.ok_or(FrameError::TooShort(file_bytes))?;
    if header > MAX_HEADER_BYTES {
        return Err(FrameError::TooLong(header));
    }
    if LENGTH_BYTES + header > file_bytes {
        return Err(FrameError::Cut {
            header,
            file: file_bytes,
        });
    }
    Ok(header)
}

/// What a file is that begins so and is no safetensors file.
fn other_format(start: &[u8]) -> Option<FrameError> {
    let known = OTHER_FORMATS
        .iter()
        .find(|(magic, ..)| start.starts_with(magic));
    if let Some((_, what, advice)) = known {
        return Some(FrameError::OtherFormat(what, advice));
    }
    let text = start.trim_ascii_start();
    let begins = |page: &[u8]| {
        text.get(..page.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(page))
    };
    if PAGES.iter().any(|page| begins(page)) {
        return Some(FrameError::OtherFormat("an HTML page", AGAIN));
    }
    // Eight letters as a length are far beyond every limit.
    let letters = |b: &u8| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    (start.len() >= 8 && start.iter().take(8).all(letters)).then_some(FrameError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start: &[u8], file_bytes: u64, expected: Result<u64, FrameError>) {
        assert_eq!(header_bytes(start, file_bytes), expected);
    }

    #[test]
    fn a_length_that_fits_is_the_length() {
        check(&[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], 10, Ok(2));
    }

    #[test]
    fn a_header_beyond_the_end_is_a_cut_file() {
        check(
            &[3, 0, 0, 0, 0, 0, 0, 0, b'{'],
            10,
            Err(FrameError::Cut {
                header: 3,
                file: 10,
            }),
        );
    }

    #[test]
    fn a_length_of_two_to_the_63_is_refused_before_anything_is_reserved() {
        check(
            &(1u64 << 63).to_le_bytes(),
            u64::MAX,
            Err(FrameError::TooLong(1 << 63)),
        );
    }

    #[test]
    fn seven_bytes_are_too_few() {
        check(&[1; 7], 7, Err(FrameError::TooShort(7)));
    }

    #[test]
    fn a_header_of_640_bytes_is_no_pickle() {
        // 640 and 1152 begin with 80 02 and 80 04, and headers are padded to multiples of eight.
        for length in [640u64, 1152, 0x8b1f, 0x0202_0380] {
            let start = [&length.to_le_bytes()[..], b"{\"a\":"].concat();
            check(&start, 1 << 40, Ok(length));
            check(&start[..8], 1 << 40, Ok(length));
        }
    }

    #[test]
    fn renamed_files_are_called_by_their_name() {
        for (start, name) in [
            (&b"PK\x03\x04rest"[..], "zip"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x80\x02ctorch", "pickle"),
            (b"PK\x03\x04\0\0\0\0\x08\0", "zip"),
            (b"\n <!doctype HTML>", "HTML"),
            (b"<?xml version=\"1.0\"?><Error>", "HTML"),
            (b"{\"error\": \"Repository not found\"}", "text"),
            (b"Entry not found", "text"),
        ] {
            let error = header_bytes(start, 100).expect_err("no safetensors file");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
