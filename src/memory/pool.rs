//! The pool of the machine's own memory.

use super::block::Place;
use super::metrics::Ledger;
use super::{Arena, Block, HUGE_PAGE, MemoryError, Metrics, PoolConfig, Tag};
use std::sync::Arc;

/// Memory of this machine, handed out in blocks. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct MemoryPool {
    config: Arc<PoolConfig>,
    ledger: Arc<Ledger>,
}

impl MemoryPool {
    /// A pool. It takes memory from the system when the first block is asked for.
    pub fn new(config: PoolConfig) -> MemoryPool {
        MemoryPool {
            config: Arc::new(config),
            ledger: Arc::default(),
        }
    }

    /// A block of so many bytes, aligned to 64 bytes or to `align` where that is more. What the bytes are is not specified.
    pub fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        if !align.is_power_of_two() || align > HUGE_PAGE {
            return Err(MemoryError::Alignment { align });
        }
        let taken = self.ledger.metrics().reserved_bytes;
        match self.config.limit {
            Some(limit) if taken.saturating_add(bytes as u64) > limit => Err(MemoryError::Limit {
                needed: bytes as u64,
                tag: tag.name,
                limit,
                taken,
            }),
            _ => {
                let arena = Arena::zeroed(bytes).map_err(|_| MemoryError::System {
                    needed: bytes as u64,
                    tag: tag.name,
                    available: None,
                })?;
                Ok(Block::new(
                    Place::Own(arena),
                    bytes,
                    tag,
                    self.ledger.clone(),
                ))
            }
        }
    }

    /// A block of zeros.
    pub fn zeroed(&self, bytes: usize, align: usize, tag: Tag) -> Result<Block, MemoryError> {
        self.allocate(bytes, align, tag)
    }

    /// What it knows of itself.
    pub fn metrics(&self) -> Metrics {
        self.ledger.metrics()
    }

    /// Lets the peaks begin anew at what is live now.
    pub fn reset_peak(&self) {
        self.ledger.reset_peak();
    }

    /// Gives back to the system what no block lies in; how many bytes that were.
    pub fn cleanup(&self) -> u64 {
        0
    }
}
