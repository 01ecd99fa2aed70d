//! The file that a measurement is kept in: one for each machine, which a home on several of them has need of.
//!
//! A file that cannot be read, or is of another machine or version, is no file: the measurement is taken again.

use super::{Key, Measured};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

/// Larger files are none of ours.
const MAX_BYTES: u64 = 1 << 16;

impl Key {
    /// `machine-0123456789abcdef.json`, by what the key says.
    pub(super) fn file_name(&self) -> String {
        let mut hash = Sha256::new();
        let processor = self.processor.as_deref().unwrap_or_default();
        hash.update(format!("{processor}\n{}\n{}", self.cores, self.version));
        let hash = hash.finalize();
        let digits: String = hash
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("machine-{digits}.json")
    }
}

/// The measurement that a file has, if it is of this machine.
pub(super) fn read(file: &Path, key: &Key) -> Option<Measured> {
    let mut content = Vec::new();
    let file = fs::File::open(file).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut content).ok()?;
    let measured: Measured = serde_json::from_slice(&content).ok()?;
    let reads = measured.reads.iter().map(|read| read.gb_s);
    let peaks = measured.peaks.iter().map(|peak| peak.gmac_s);
    let sound = |rate: f64| rate.is_finite() && rate > 0.0;
    let rates = reads.chain(peaks).chain(measured.clock_ghz);
    let whole = !measured.reads.is_empty() && rates.into_iter().all(sound);
    (whole && measured.key == *key).then_some(measured)
}

/// Keeps a measurement; the file is whole or not there. The error says what cannot be written.
pub(super) fn write(file: &Path, measured: &Measured) -> Result<(), String> {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let text = serde_json::to_vec_pretty(measured).map_err(|e| fail(&e))?;
    let draft = file.with_extension(format!("{}.part", std::process::id()));
    let written = || -> std::io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut out = fs::File::create(&draft)?;
        out.write_all(&text)?;
        fs::rename(&draft, file)
    };
    written().map_err(|e| {
        let _ = fs::remove_file(&draft);
        fail(&e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::measured;

    #[test]
    fn what_is_kept_is_what_was_measured_on_this_machine() {
        let folder = std::env::temp_dir().join(format!("bitcost-kept-{}", std::process::id()));
        let measured = measured();
        let file = folder.join("deep").join(measured.key.file_name());
        let key = &measured.key;
        assert_eq!(read(&file, key), None);
        write(&file, &measured).expect("a temporary folder can be written");
        assert_eq!(read(&file, key), Some(measured.clone()));
        let other = Key {
            cores: 3,
            ..key.clone()
        };
        assert_eq!(read(&file, &other), None);
        assert_ne!(key.file_name(), other.file_name());

        for broken in [
            "",
            "{}",
            "null",
            &serde_json::to_string(&measured).expect("JSON")[1..],
        ] {
            fs::write(&file, broken).expect("a temporary file can be written");
            assert_eq!(read(&file, key), None, "{broken}");
        }
        let mut still = measured.clone();
        still.reads[0].gb_s = 0.0;
        write(&file, &still).expect("a temporary folder can be written");
        assert_eq!(read(&file, key), None);

        // A folder in whose place a file lies.
        assert!(write(&file.join("x.json"), &measured).is_err());
        fs::remove_dir_all(&folder).expect("its own folder");
    }
}
