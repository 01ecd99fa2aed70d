//! What is remembered of allocations: which are live, the last events, what is common among sizes and lifetimes.

use super::Tag;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Events that a timeline holds; older ones give way.
pub const TIMELINE_EVENTS: usize = 4096;

/// A block that is live: what a report of leaks lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveBlock {
    /// What it is for.
    pub tag: &'static str,
    /// Its bytes, as they were asked for.
    pub bytes: usize,
    /// The how-manieth allocation of the pool it was, from 1.
    pub number: u64,
}

/// A block that was given out, or that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the pool was made.
    pub at: Duration,
    /// Whether it was given out.
    pub allocated: bool,
    /// What it was for.
    pub tag: &'static str,
    /// Its bytes.
    pub bytes: usize,
    /// Bytes of live blocks after it.
    pub live_bytes: u64,
}

/// What is common among all blocks that a pool gave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// How many blocks were of up to so many bytes, a power of two, and of more than half of it.
    pub sizes: Vec<(u64, u64)>,
    /// How many blocks lived for up to so long, a power of ten of nanoseconds, and for more than a tenth of it.
    pub lifetimes: Vec<(Duration, u64)>,
}

/// The live blocks.
#[derive(Debug, Default)]
pub(super) struct Records {
    places: Vec<Place>,
    /// The last place that became free, and one more than its number; 0 where none is.
    free: u32,
}

#[derive(Debug)]
enum Place {
    Live(Record),
    /// The next free place, as above.
    Free(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    tag: Tag,
    bytes: usize,
    number: u64,
    born: Duration,
}

impl Records {
    pub(super) fn enter(
        &mut self,
        bytes: usize,
        tag: Tag,
        number: u64,
        born: Option<Duration>,
    ) -> u32 {
        let live = Place::Live(Record {
            tag,
            bytes,
            number,
            born: born.unwrap_or_default(),
        });
        let Some(at) = self.free.checked_sub(1) else {
            self.places.push(live);
            return (self.places.len() - 1) as u32;
        };
        let before = std::mem::replace(&mut self.places[at as usize], live);
        if let Place::Free(next) = before {
            self.free = next;
        }
        at
    }

    pub(super) fn leave(&mut self, at: u32) -> Record {
        let free = Place::Free(self.free);
        self.free = at + 1;
        match std::mem::replace(&mut self.places[at as usize], free) {
            Place::Live(record) => record,
            Place::Free(_) => unreachable!("a block leaves once"),
        }
    }

    /// The live blocks, oldest first.
    pub(super) fn live(&self) -> Vec<LiveBlock> {
        let records = self.places.iter().filter_map(|place| match place {
            Place::Live(record) => Some(record),
            Place::Free(_) => None,
        });
        let mut live: Vec<LiveBlock> = records
            .map(|record| LiveBlock {
                tag: record.tag.name,
                bytes: record.bytes,
                number: record.number,
            })
            .collect();
        live.sort_unstable_by_key(|block| block.number);
        live
    }
}

/// The last events, and counts over all.
#[derive(Debug)]
pub(super) struct Detail {
    begin: Instant,
    events: VecDeque<Event>,
    /// Blocks by the power of two that holds them.
    sizes: [u64; 65],
    /// Blocks by the power of ten of nanoseconds that holds how long they lived.
    lifetimes: [u64; 20],
}

impl Default for Detail {
    fn default() -> Detail {
        Detail {
            begin: Instant::now(),
            events: VecDeque::with_capacity(TIMELINE_EVENTS),
            sizes: [0; 65],
            lifetimes: [0; 20],
        }
    }
}

impl Detail {
    pub(super) fn enter(&mut self, bytes: usize, tag: Tag, live_bytes: u64) -> Duration {
        let at = self.begin.elapsed();
        self.sizes[(bytes.max(1) as u64 - 1)
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1)] += 1;
        self.note(Event {
            at,
            allocated: true,
            tag: tag.name,
            bytes,
            live_bytes,
        });
        at
    }

    pub(super) fn leave(&mut self, record: &Record, live_bytes: u64) {
        let at = self.begin.elapsed();
        let lived = (at - record.born).as_nanos().max(1) - 1;
        self.lifetimes[lived
            .checked_ilog10()
            .map_or(0, |log| log as usize + 1)
            .min(19)] += 1;
        self.note(Event {
            at,
            allocated: false,
            tag: record.tag.name,
            bytes: record.bytes,
            live_bytes,
        });
    }

    fn note(&mut self, event: Event) {
        if self.events.len() == TIMELINE_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn timeline(&self) -> Vec<Event> {
        self.events.iter().copied().collect()
    }

    pub(super) fn patterns(&self) -> Patterns {
        let some = |counts: &[u64]| -> Vec<(u32, u64)> {
            let all = (0..).zip(counts.iter().copied());
            all.filter(|(_, count)| *count > 0).collect()
        };
        let size = |(power, count)| (1u64.checked_shl(power).unwrap_or(u64::MAX), count);
        let lifetime = |(power, count)| (Duration::from_nanos(10u64.pow(power)), count);
        Patterns {
            sizes: some(&self.sizes).into_iter().map(size).collect(),
            lifetimes: some(&self.lifetimes).into_iter().map(lifetime).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag::of("test");

    #[test]
    fn live_blocks_are_listed_oldest_first_and_places_are_used_again() {
        let mut records = Records::default();
        let first = records.enter(1, TAG, 1, None);
        let second = records.enter(2, TAG, 2, None);
        records.leave(first);
        records.leave(second);
        assert_eq!(records.enter(3, TAG, 3, None), second);
        assert_eq!(records.enter(4, TAG, 4, None), first);
        records.enter(5, TAG, 5, None);
        let live: Vec<_> = records
            .live()
            .iter()
            .map(|block| (block.number, block.bytes))
            .collect();
        assert_eq!(live, [(3, 3), (4, 4), (5, 5)]);
    }

    #[test]
    fn sizes_are_counted_by_the_power_of_two_that_holds_them() {
        let mut detail = Detail::default();
        for bytes in [0, 1, 2, 3, 4, 5, 1024, 1025] {
            detail.enter(bytes, TAG, 0);
        }
        assert_eq!(
            detail.patterns().sizes,
            [(1, 2), (2, 1), (4, 2), (8, 1), (1024, 1), (2048, 1)]
        );
    }

    #[test]
    fn a_timeline_holds_the_last_events() {
        let mut detail = Detail::default();
        for bytes in 0..TIMELINE_EVENTS + 5 {
            detail.enter(bytes, TAG, 0);
        }
        let timeline = detail.timeline();
        assert_eq!(timeline.len(), TIMELINE_EVENTS);
        assert_eq!(timeline[0].bytes, 5);
        assert!(timeline.is_sorted_by_key(|event| event.at));
    }
}
