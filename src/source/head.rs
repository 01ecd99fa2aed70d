//! The frame of a safetensors file: eight bytes of length, a JSON header, then the data.
//!
//! First bytes in, length of the header out, or why this is no safetensors file. Folder and Hub read the same frame, so it
//! stands here; what the header says is `checkpoint`'s business.

/// Longest header that is read, as in the reference implementation.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

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
    /// A length of 2^63.
    #[error(
        "the first eight bytes give the header {0} bytes; a header has at most {MAX_HEADER_BYTES}"
    )]
    TooLong(u64),
    /// A download that was cut.
    #[error(
        "the header should have {header} bytes, but the file ends after {file}; it was probably cut short"
    )]
    Cut {
        /// Bytes that the header should have.
        header: u64,
        /// Bytes of the file.
        file: u64,
    },
}

const CONVERT: &str = "convert it with its own library (`safetensors.torch.save_file`), or use the repository's safetensors files";

/// What files begin with that people rename to `.safetensors`, and what to do about them.
const OTHER_FORMATS: &[(&[u8], &str, &str)] = &[
    (
        b"PK\x03\x04",
        "a zip archive, as torch.save writes",
        CONVERT,
    ),
    (b"\x80\x02", "a pickle", CONVERT),
    (b"\x80\x04", "a pickle", CONVERT),
    (
        b"GGUF",
        "a GGUF file",
        "GGUF is not read; use the safetensors files that it was made from",
    ),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (
        b"version https://git-lfs",
        "a Git LFS pointer",
        "fetch the file itself with `git lfs pull` or `bitcost fetch MODEL --weights`",
    ),
    (
        b"<!DOCTYPE",
        "an HTML page",
        "the download went wrong; fetch it again",
    ),
    (
        b"<html",
        "an HTML page",
        "the download went wrong; fetch it again",
    ),
];

/// Length of the JSON header of a file that begins with `start` (at least eight bytes, if it has them).
pub fn header_bytes(start: &[u8], file_bytes: u64) -> Result<u64, FrameError> {
    let known = OTHER_FORMATS
        .iter()
        .find(|(magic, ..)| start.starts_with(magic));
    if let Some((_, what, advice)) = known {
        return Err(FrameError::OtherFormat(what, advice));
    }
    let length = start
        .first_chunk::<8>()
        .ok_or(FrameError::TooShort(file_bytes))?;
    let header = u64::from_le_bytes(*length);
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
    fn renamed_files_are_called_by_their_name() {
        for (start, name) in [
            (&b"PK\x03\x04rest"[..], "zip"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x80\x02ctorch", "pickle"),
        ] {
            let error = header_bytes(start, 100).expect_err("no safetensors file");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
