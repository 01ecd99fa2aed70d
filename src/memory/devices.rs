//! What pools of all devices have in common, and which devices there are.

use super::mapped::checked;
use super::{Block, MappedFiles, MemoryError, MemoryPool, Metrics, PoolConfig, Tag};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

/// The devices that have memory here: this machine, and files that are mapped into it.
pub const DEVICES: &[&str] = &["cpu", "file"];

/// The memory of one device.
pub trait DevicePool: Send + Sync {
    /// The name of the device, one of [`DEVICES`].
    fn device(&self) -> &'static str;

    /// A block of so many bytes to be written, aligned to 64 bytes or to `align` where that is more.
    fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError>;

    /// Some bytes of a file, on this device.
    fn load(&self, file: &File, range: Range<u64>, tag: Tag) -> Result<Block, MemoryError>;

    /// What the pool knows of itself.
    fn metrics(&self) -> Metrics;
}

/// The pool of a device by name. `cuda`, `metal` and the like are errors that say which devices there are.
pub fn device_pool(name: &str, config: PoolConfig) -> Result<Arc<dyn DevicePool>, MemoryError> {
    match name {
        "cpu" => Ok(Arc::new(MemoryPool::new(config))),
        "file" => Ok(Arc::new(MappedFiles::new())),
        _ => Err(MemoryError::Device { name: name.into() }),
    }
}

impl DevicePool for MemoryPool {
    fn device(&self) -> &'static str {
        "cpu"
    }

    fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        MemoryPool::allocate(self, bytes, align, tag)
    }

    /// Reads them into a block of this pool.
    fn load(&self, file: &File, range: Range<u64>, tag: Tag) -> Result<Block, MemoryError> {
        let mut block = self.allocate(checked(file, &range, tag)?, 1, tag)?;
        let bytes = block.bytes_mut()?;
        let mut file = file;
        let read = file
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| file.read_exact(bytes));
        read.map_err(|error| MemoryError::File {
            tag: tag.name,
            error,
        })?;
        Ok(block)
    }

    fn metrics(&self) -> Metrics {
        MemoryPool::metrics(self)
    }
}

impl DevicePool for MappedFiles {
    fn device(&self) -> &'static str {
        "file"
    }

    /// Files are read only, so there is nothing to be written.
    fn allocate(&self, _: usize, _: usize, _: Tag) -> Result<Block, MemoryError> {
        Err(MemoryError::ReadOnly)
    }

    fn load(&self, file: &File, range: Range<u64>, tag: Tag) -> Result<Block, MemoryError> {
        self.map(file, range, tag)
    }

    fn metrics(&self) -> Metrics {
        MappedFiles::metrics(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_not_there_are_told_with_those_that_are() {
        for name in ["cuda", "metal", "CPU", ""] {
            let error = device_pool(name, PoolConfig::default())
                .err()
                .expect("none");
            let text = error.to_string();
            assert!(text.contains(&format!("`{name}`")) && text.ends_with("cpu and file"));
        }
        for name in DEVICES {
            let pool = device_pool(name, PoolConfig::default()).expect("there");
            assert_eq!(pool.device(), *name);
        }
    }
}
