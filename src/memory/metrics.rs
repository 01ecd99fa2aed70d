//! How much memory there is: live, at its peak, taken from the system; by tag.

use super::track::{Detail, Records};
use super::{Tag, Tracking};

/// What a pool knows of itself. Exact; while other threads allocate and free, what is counted of blocks is of one moment, except
/// at the level [`Tracking::None`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Bytes of live blocks, as they were asked for.
    pub live_bytes: u64,
    /// The most bytes that were live at once, since the pool was made or the peak reset; not known at the level
    /// [`Tracking::None`].
    pub peak_bytes: Option<u64>,
    /// Bytes taken from the system; of mapped files, what is mapped.
    pub reserved_bytes: u64,
    /// How many blocks were ever given out.
    pub allocations: u64,
    /// How many came back.
    pub frees: u64,
    /// The share of free memory that is not part of the largest free piece, 0 to 1.
    pub fragmentation: f64,
    /// The same by tag, in the order of their first use; empty at the level [`Tracking::None`].
    pub tags: Vec<TagMetrics>,
}

/// What a pool knows of one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagMetrics {
    /// Its name.
    pub name: &'static str,
    /// Bytes of its live blocks, as they were asked for.
    pub live_bytes: u64,
    /// The most of them that were live at once, since the pool was made or the peak reset.
    pub peak_bytes: u64,
}

/// The running account of a pool, or of a part of it that counts for itself.
#[derive(Debug)]
pub(super) struct Account {
    tracking: Tracking,
    live: Live,
    allocations: u64,
    frees: u64,
    tags: Vec<(Tag, Live)>,
    /// Where a tag stands, by the lowest bits of its hash; only a hint.
    hints: [u32; 64],
    records: Option<Records>,
    pub(super) detail: Option<Detail>,
}

/// What a block needs to leave the account that it entered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ticket {
    tag: u32,
    record: u32,
}

/// Bytes that are live. A part of a pool may see more come back than it gave out, so only a sum over all is a number.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    bytes: u64,
    peak: u64,
}

impl Live {
    fn enter(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.peak = self.peak.max(self.bytes);
    }

    fn leave(&mut self, bytes: u64) {
        self.bytes = self.bytes.wrapping_sub(bytes);
    }
}

impl Account {
    pub(super) fn new(tracking: Tracking) -> Account {
        Account {
            tracking,
            live: Live::default(),
            allocations: 0,
            frees: 0,
            tags: Vec::new(),
            hints: [0; 64],
            records: (tracking >= Tracking::Standard).then(Records::default),
            detail: (tracking >= Tracking::Detailed).then(Detail::default),
        }
    }

    /// Counts a block as live.
    #[inline(always)]
    pub(super) fn enter(&mut self, bytes: usize, tag: Tag) -> Ticket {
        self.allocations += 1;
        self.live.enter(bytes as u64);
        let mut ticket = Ticket::default();
        if self.tracking >= Tracking::Basic {
            ticket.tag = self.place_of(tag);
            self.tags[ticket.tag as usize].1.enter(bytes as u64);
        }
        if self.tracking >= Tracking::Standard {
            ticket.record = self.remember(bytes, tag);
        }
        ticket
    }

    /// Counts it as gone.
    #[inline(always)]
    pub(super) fn leave(&mut self, bytes: usize, ticket: Ticket) {
        self.frees += 1;
        self.live.leave(bytes as u64);
        if self.tracking >= Tracking::Basic {
            self.tags[ticket.tag as usize].1.leave(bytes as u64);
        }
        if self.tracking >= Tracking::Standard {
            self.forget(ticket.record);
        }
    }

    fn remember(&mut self, bytes: usize, tag: Tag) -> u32 {
        let detail = self.detail.as_mut();
        let born = detail.map(|detail| detail.enter(bytes, tag, self.live.bytes));
        let records = self.records.as_mut();
        records.map_or(0, |records| {
            records.enter(bytes, tag, self.allocations, born)
        })
    }

    fn forget(&mut self, record: u32) {
        let record = self.records.as_mut().map(|records| records.leave(record));
        if let (Some(record), Some(detail)) = (record, &mut self.detail) {
            detail.leave(&record, self.live.bytes);
        }
    }

    /// Blocks that are live, as far as this account saw them come and go.
    pub(super) fn live_blocks(&self) -> u64 {
        self.allocations.wrapping_sub(self.frees)
    }

    pub(super) fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    #[inline(always)]
    fn place_of(&mut self, tag: Tag) -> u32 {
        let hint = self.hints[tag.hash as usize % 64];
        match self.tags.get(hint as usize) {
            // Mostly the same text at the same place.
            Some((known, _)) if std::ptr::eq(known.name, tag.name) => hint,
            _ => self.search(tag),
        }
    }

    #[cold]
    fn search(&mut self, tag: Tag) -> u32 {
        let known = self.tags.iter().position(|(known, _)| *known == tag);
        let place = known.unwrap_or_else(|| {
            self.tags.push((tag, Live::default()));
            self.tags.len() - 1
        });
        let place = place as u32;
        self.hints[tag.hash as usize % 64] = place;
        place
    }

    pub(super) fn reset_peak(&mut self) {
        let lives = self.tags.iter_mut().map(|(_, live)| live);
        for live in lives.chain([&mut self.live]) {
            live.peak = live.bytes;
        }
    }

    /// Adds it to what others say.
    pub(super) fn add_to(&self, metrics: &mut Metrics) {
        let tracked = self.tracking >= Tracking::Basic;
        metrics.live_bytes = metrics.live_bytes.wrapping_add(self.live.bytes);
        metrics.peak_bytes = tracked.then_some(self.live.peak);
        metrics.allocations += self.allocations;
        metrics.frees += self.frees;
        metrics
            .tags
            .extend(self.tags.iter().map(|(tag, live)| TagMetrics {
                name: tag.name,
                live_bytes: live.bytes,
                peak_bytes: live.peak,
            }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_of_all_and_of_each_tag() {
        let mut account = Account::new(Tracking::Basic);
        let (a, b) = (Tag::of("a"), Tag::of("b"));
        let first = account.enter(100, a);
        let second = account.enter(50, b);
        account.leave(100, first);
        let third = account.enter(70, b);
        let mut metrics = Metrics::default();
        account.add_to(&mut metrics);
        let of = |name, live_bytes, peak_bytes| TagMetrics {
            name,
            live_bytes,
            peak_bytes,
        };
        assert_eq!((metrics.live_bytes, metrics.peak_bytes), (120, Some(150)));
        assert_eq!(metrics.tags, [of("a", 0, 100), of("b", 120, 120)]);
        account.reset_peak();
        account.leave(50, second);
        account.leave(70, third);
        let mut metrics = Metrics::default();
        account.add_to(&mut metrics);
        assert_eq!((metrics.live_bytes, metrics.peak_bytes), (0, Some(120)));
        assert_eq!((metrics.allocations, metrics.frees), (3, 3));
    }

    #[test]
    fn tags_of_one_name_are_one_and_any_number_of_them_is_counted() {
        let mut account = Account::new(Tracking::Basic);
        for number in 0..300 {
            let name: &'static str = format!("tag {}", number % 150).leak();
            account.enter(1, Tag::of(name));
        }
        let mut metrics = Metrics::default();
        account.add_to(&mut metrics);
        assert_eq!(metrics.tags.len(), 150);
        assert!(metrics.tags.iter().all(|tag| tag.live_bytes == 2));
    }
}
