//! What lies behind the fronts of a pool: regions of the system's memory, cut into large blocks and into spans of small ones.
//!
//! ```text
//!  system -> region (64 MiB) -> units of 64 KiB, by buddy.rs -> a large block
//!                                                            -> a span -> small blocks of one class
//!         -> a region of its own, for a block that is larger than a region
//! ```
//!
//! Everything is kept beside the memory, nothing in it: no page is touched before who asked for it writes to it.

use super::classes::{CLASSES, SPAN_UNITS, blocks_of_span, bytes_of};
use super::{Arena, MemoryError, PoolConfig, Tag, buddy::Buddy, system};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// What regions are cut into.
pub(super) const UNIT: usize = 64 << 10;

/// Regions and spans of a pool, behind one lock.
#[derive(Debug)]
pub(super) struct Store {
    regions: Vec<Option<Region>>,
    /// Regions that nothing is taken from.
    empty_regions: usize,
    spans: Vec<Span>,
    unused_spans: Vec<u32>,
    /// Of each class, the spans that have a free block.
    partial: [Vec<u32>; CLASSES],
    reserved: u64,
    region_bytes: usize,
    limit: Option<u64>,
    idle: Option<Duration>,
}

#[derive(Debug)]
struct Region {
    memory: Arena,
    start: NonNull<u8>,
    buddy: Buddy,
    empty_since: Option<Instant>,
}

/// Some units that are cut into blocks of one class.
#[derive(Debug)]
struct Span {
    start: NonNull<u8>,
    class: usize,
    large: Large,
    /// A bit for each block, set where it is free.
    free: [u64; 16],
    free_blocks: usize,
    /// Where it stands among the spans of its class that have a free block.
    place: usize,
}

/// A small block of a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Small {
    pub(super) start: NonNull<u8>,
    pub(super) span: u32,
}

/// Some units of a region.
#[derive(Clone, Copy, Debug)]
pub(super) struct Large {
    region: u32,
    first: u32,
    units: u32,
}

// SAFETY: the pointers are addresses of the regions' memory, which any thread may use that owns the block there; the store
// itself never reads or writes through them.
unsafe impl Send for Store {}
// SAFETY: as above; a small block is owned by who has it.
unsafe impl Send for Small {}

impl Store {
    pub(super) fn new(config: &PoolConfig) -> Store {
        let region_bytes = config.arena_bytes.clamp(2 << 20, 1 << 30);
        Store {
            regions: Vec::new(),
            empty_regions: 0,
            spans: Vec::new(),
            unused_spans: Vec::new(),
            partial: [const { Vec::new() }; CLASSES],
            reserved: 0,
            region_bytes: region_bytes.next_power_of_two(),
            limit: config.limit,
            idle: config.cleanup.idle,
        }
    }

    /// Bytes that are taken from the system.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes of a region, which no block is larger than that lies in one.
    pub(super) fn region_bytes(&self) -> usize {
        self.region_bytes
    }

    /// The share of free units that is not part of the largest free block.
    pub(super) fn fragmentation(&self) -> f64 {
        let buddies = || self.regions.iter().flatten().map(|region| &region.buddy);
        let free: usize = buddies().map(Buddy::free_units).sum();
        let largest = buddies().map(Buddy::largest).max().unwrap_or(0);
        match free {
            0 => 0.0,
            free => 1.0 - largest as f64 / free as f64,
        }
    }

    /// Takes up to `count` blocks of a class that are there; none where no region has room for another span.
    pub(super) fn take_small(&mut self, class: usize, count: usize) -> Option<Vec<Small>> {
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let Some(index) = self.partial[class].last().copied() else {
                // One more span where nothing else is there, and not only to take as many as would be welcome.
                if !taken.is_empty() || !self.new_span(class) {
                    break;
                }
                continue;
            };
            let span = &mut self.spans[index as usize];
            let start = span.take();
            taken.push(Small { start, span: index });
            if span.free_blocks == 0 {
                self.partial[class].pop();
            }
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Gives a small block back.
    pub(super) fn give_small(&mut self, block: Small) {
        let span = &mut self.spans[block.span as usize];
        let class = span.class;
        if span.free_blocks == 0 {
            span.place = self.partial[class].len();
            self.partial[class].push(block.span);
        }
        span.give(block.start);
        if span.free_blocks == blocks_of_span(class) {
            let (place, units) = (span.place, span.large);
            self.partial[class].swap_remove(place);
            if let Some(moved) = self.partial[class].get(place) {
                self.spans[*moved as usize].place = place;
            }
            self.unused_spans.push(block.span);
            self.give_large(units);
        }
    }

    fn new_span(&mut self, class: usize) -> bool {
        let Some((start, large)) = self.take_units(SPAN_UNITS[class].into(), 1) else {
            return false;
        };
        let mut free = [0; 16];
        let blocks = blocks_of_span(class);
        free[..blocks / 64].fill(u64::MAX);
        if !blocks.is_multiple_of(64) {
            free[blocks / 64] = (1 << (blocks % 64)) - 1;
        }
        let span = Span {
            start,
            class,
            large,
            free,
            free_blocks: blocks,
            place: self.partial[class].len(),
        };
        let index = self.unused_spans.pop().unwrap_or(self.spans.len() as u32);
        match self.spans.get_mut(index as usize) {
            Some(unused) => *unused = span,
            None => self.spans.push(span),
        }
        self.partial[class].push(index);
        true
    }

    /// Takes a large block, if a region has room for it.
    pub(super) fn take_large(
        &mut self,
        bytes: usize,
        align: usize,
    ) -> Option<(NonNull<u8>, Large)> {
        self.take_units(bytes.div_ceil(UNIT), align.div_ceil(UNIT))
    }

    fn take_units(&mut self, units: usize, align: usize) -> Option<(NonNull<u8>, Large)> {
        for (index, region) in self.regions.iter_mut().enumerate() {
            let Some(region) = region else { continue };
            let Some(first) = region.buddy.take(units, align) else {
                continue;
            };
            if region.empty_since.take().is_some() {
                self.empty_regions -= 1;
            }
            let large = Large {
                region: index as u32,
                first: first as u32,
                units: units as u32,
            };
            // SAFETY: the units are within the region.
            let start = unsafe { region.start.add(first * UNIT) };
            return Some((start, large));
        }
        None
    }

    /// Gives a large block back.
    pub(super) fn give_large(&mut self, block: Large) {
        let region = self.regions[block.region as usize].as_mut();
        let region = region.expect("a region is there while a block lies in it");
        region
            .buddy
            .give(block.first as usize, block.units as usize);
        if region.buddy.is_empty() {
            region.empty_since = Some(Instant::now());
            self.empty_regions += 1;
        }
    }

    /// Takes a region from the system with room for a block of so many bytes, a multiple of a unit; a smaller one than usual where
    /// the limit or the machine leaves no more. What was asked for is less, and said in the error.
    pub(super) fn grow(&mut self, room: usize, needed: usize, tag: Tag) -> Result<(), MemoryError> {
        let least = room.next_power_of_two();
        let left = self.left();
        let mut size = self.region_bytes;
        while size as u64 > left && size > least {
            size /= 2;
        }
        let mut memory = self.reserve(size, needed, tag)?;
        let region = Region {
            start: memory.start(),
            memory,
            buddy: Buddy::new(size / UNIT),
            empty_since: Some(Instant::now()),
        };
        self.empty_regions += 1;
        match self.regions.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(region),
            None => self.regions.push(Some(region)),
        }
        Ok(())
    }

    /// What the limit and the machine leave.
    fn left(&self) -> u64 {
        let limit = self
            .limit
            .map_or(u64::MAX, |limit| limit.saturating_sub(self.reserved));
        limit.min(system::available().unwrap_or(u64::MAX))
    }

    /// Takes memory from the system; `needed` bytes of it are what was asked for.
    pub(super) fn reserve(
        &mut self,
        bytes: usize,
        needed: usize,
        tag: Tag,
    ) -> Result<Arena, MemoryError> {
        let (needed, tag) = (needed as u64, tag.name);
        if let Some(limit) = self.limit
            && self.reserved.saturating_add(bytes as u64) > limit
        {
            let taken = self.reserved;
            return Err(MemoryError::Limit {
                needed,
                tag,
                limit,
                taken,
            });
        }
        // The system promises memory that it does not have and ends the process when it is used, so it is asked before.
        let available = system::available();
        if available.is_some_and(|available| bytes as u64 > available) {
            return Err(MemoryError::System {
                needed,
                tag,
                available,
            });
        }
        let memory = Arena::zeroed(bytes).map_err(|_| MemoryError::System {
            needed,
            tag,
            available,
        })?;
        self.reserved += bytes as u64;
        Ok(memory)
    }

    /// Counts memory as given back to the system.
    pub(super) fn unreserve(&mut self, bytes: usize) {
        self.reserved -= bytes as u64;
    }

    /// Gives back the regions that nothing is taken from, of those that were so for some time; who drops them unmaps them.
    pub(super) fn release(&mut self, idle: Duration) -> Vec<Arena> {
        let mut released = Vec::new();
        if self.empty_regions == 0 {
            return released;
        }
        let now = Instant::now();
        for place in &mut self.regions {
            let since = place.as_ref().and_then(|region| region.empty_since);
            if since.is_some_and(|since| now.duration_since(since) >= idle) {
                released.extend(place.take().map(|region| region.memory));
            }
        }
        self.empty_regions -= released.len();
        self.reserved -= released
            .iter()
            .map(|memory| memory.len() as u64)
            .sum::<u64>();
        released
    }

    /// Gives back the regions that nothing was taken from for as long as the configuration says.
    pub(super) fn release_idle(&mut self) -> Vec<Arena> {
        self.idle.map_or_else(Vec::new, |idle| self.release(idle))
    }
}

impl Span {
    fn take(&mut self) -> NonNull<u8> {
        let words = self.free.iter_mut().enumerate();
        let mut set = words.filter(|(_, word)| **word != 0);
        let (at, word) = set.next().expect("the span has a free block");
        let block = at * 64 + word.trailing_zeros() as usize;
        *word &= *word - 1;
        self.free_blocks -= 1;
        // SAFETY: the span has so many blocks of this size, so it is within the memory that the span was cut from.
        unsafe { self.start.add(block * bytes_of(self.class)) }
    }

    fn give(&mut self, start: NonNull<u8>) {
        let offset = start.addr().get() - self.start.addr().get();
        let block = offset / bytes_of(self.class);
        debug_assert_eq!(
            self.free[block / 64] >> (block % 64) & 1,
            0,
            "blocks are given back once"
        );
        self.free[block / 64] |= 1 << (block % 64);
        self.free_blocks += 1;
    }
}
