//! The first bytes of any file: the frame, then the header. No input panics; a header that is accepted holds what it promises.

#![no_main]

use bitcost::checkpoint::read_header;
use bitcost::source::{LENGTH_BYTES, MAX_HEADER_BYTES, header_bytes};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;

fuzz_target!(|bytes: &[u8]| {
    // A whole file, as it is.
    if let Ok(header) = header_bytes(bytes, bytes.len() as u64) {
        assert!(header <= MAX_HEADER_BYTES);
        let (json, data) = bytes[LENGTH_BYTES as usize..].split_at(header as usize);
        check(json, data.len() as u64);
    }
    // The input as a JSON text alone, before as much data as its last bytes say.
    let _ = header_bytes(bytes, u64::MAX);
    let (json, length) = bytes.split_last_chunk::<2>().unwrap_or((bytes, &[0, 0]));
    check(json, u16::from_le_bytes(*length).into());
});

fn check(json: &[u8], data_bytes: u64) {
    let header = match read_header(json, data_bytes) {
        Ok(header) => header,
        Err(error) => {
            let text = error.to_string();
            assert!(text.chars().count() < 4000 && !text.contains(['\n', '\x1b']));
            return;
        }
    };
    let mut end = 0;
    let mut names = HashSet::new();
    for tensor in &header.tensors {
        assert!(names.insert(&tensor.name));
        assert_eq!(tensor.begin, end);
        let elements: u64 = tensor.shape.iter().product();
        assert_eq!(
            elements * u64::from(tensor.dtype.bits),
            8 * (tensor.end - tensor.begin)
        );
        end = tensor.end;
    }
    assert_eq!(end, data_bytes);
}
