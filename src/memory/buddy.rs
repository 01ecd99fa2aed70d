//! Which units of a region are free: a buddy allocator over unit numbers, which touches no memory.
//!
//! A free block of order `k` is `2^k` units that begin at a multiple of `2^k`, and is one bit in the map of its order. A request
//! takes the first of the smallest order that holds it and gives back the tail that it does not need, so 17 units take 17 and
//! not 32. What comes back is cut into such blocks and merged with its buddies, at once.

/// Free units of a region.
#[derive(Debug)]
pub(super) struct Buddy {
    /// Of each order, a bit for each block, set where it is free.
    free: Vec<Vec<u64>>,
    /// A bit for each order that has a free block.
    orders: u32,
    free_units: usize,
    units: usize,
}

impl Buddy {
    /// All of a power of two of units, free.
    pub(super) fn new(units: usize) -> Buddy {
        assert!(
            units.is_power_of_two(),
            "a region is one free block at first"
        );
        let orders = units.ilog2() as usize + 1;
        let map = |order: usize| vec![0; (units >> order).div_ceil(64)];
        let mut buddy = Buddy {
            free: (0..orders).map(map).collect(),
            orders: 0,
            free_units: units,
            units,
        };
        buddy.put(orders - 1, 0);
        buddy
    }

    /// Takes so many units side by side that begin at a multiple of `align`, a power of two; which is the first.
    pub(super) fn take(&mut self, units: usize, align: usize) -> Option<usize> {
        let block = units.max(align).checked_next_power_of_two()?;
        let least = block.ilog2();
        let order = self
            .orders
            .checked_shr(least)
            .filter(|rest| *rest != 0)?
            .trailing_zeros()
            + least;
        let first = self.first(order as usize) << order;
        self.remove(order as usize, first);
        self.free_units -= 1 << order;
        self.give(first + units, (1 << order) - units);
        Some(first)
    }

    /// Gives back units that were taken.
    pub(super) fn give(&mut self, first: usize, units: usize) {
        debug_assert!(first + units <= self.units);
        self.free_units += units;
        let (mut at, end) = (first, first + units);
        while at < end {
            // The largest block that begins here and does not reach over the end.
            let order = at.trailing_zeros().min((end - at).ilog2()) as usize;
            self.merge(order, at);
            at += 1 << order;
        }
    }

    pub(super) fn free_units(&self) -> usize {
        self.free_units
    }

    /// Whether nothing is taken.
    pub(super) fn is_empty(&self) -> bool {
        self.free_units == self.units
    }

    /// Units of the largest free block.
    pub(super) fn largest(&self) -> usize {
        self.orders.checked_ilog2().map_or(0, |order| 1 << order)
    }

    /// Frees a block, as part of the largest that its buddies make it.
    fn merge(&mut self, mut order: usize, mut at: usize) {
        while order + 1 < self.free.len() && self.is_free(order, at ^ (1 << order)) {
            self.remove(order, at ^ (1 << order));
            at &= !(1 << order);
            order += 1;
        }
        self.put(order, at);
    }

    fn is_free(&self, order: usize, at: usize) -> bool {
        let bit = at >> order;
        self.free[order][bit / 64] >> (bit % 64) & 1 == 1
    }

    fn put(&mut self, order: usize, at: usize) {
        let bit = at >> order;
        debug_assert!(!self.is_free(order, at), "units are given back once");
        self.free[order][bit / 64] |= 1 << (bit % 64);
        self.orders |= 1 << order;
    }

    fn remove(&mut self, order: usize, at: usize) {
        let bit = at >> order;
        self.free[order][bit / 64] &= !(1 << (bit % 64));
        if self.free[order].iter().all(|word| *word == 0) {
            self.orders &= !(1 << order);
        }
    }

    /// The first free block of an order that has one.
    fn first(&self, order: usize) -> usize {
        let words = self.free[order].iter().enumerate();
        let mut set = words.filter(|(_, word)| **word != 0);
        let (at, word) = set.next().expect("the order has a free block");
        at * 64 + word.trailing_zeros() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tail_that_is_not_needed_stays_free() {
        let mut buddy = Buddy::new(32);
        assert_eq!(buddy.take(17, 1), Some(0));
        assert_eq!(buddy.free_units(), 15);
        // 17 to 32 is 1 + 2 + 4 + 8.
        assert_eq!(buddy.largest(), 8);
        assert_eq!(buddy.take(8, 8), Some(24));
        assert_eq!(buddy.take(8, 1), None);
        buddy.give(0, 17);
        buddy.give(24, 8);
        assert!(buddy.is_empty());
        assert_eq!(buddy.largest(), 32);
        assert_eq!(buddy.take(33, 1), None);
        assert_eq!(buddy.take(1, 64), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn taken_units_are_apart_and_all_merge_again(
            steps in proptest::collection::vec((any::<bool>(), 1..40usize, 0..4u32, any::<usize>()), 1..60),
        ) {
            const UNITS: usize = 128;
            let mut buddy = Buddy::new(UNITS);
            let mut owner = [false; UNITS];
            let mut taken = Vec::new();
            for (give, units, align, which) in steps {
                if give && !taken.is_empty() {
                    let (first, units) = taken.swap_remove(which % taken.len());
                    owner[first..first + units].fill(false);
                    buddy.give(first, units);
                } else if let Some(first) = buddy.take(units, 1 << align) {
                    prop_assert_eq!(first % (1 << align), 0);
                    prop_assert!(owner[first..first + units].iter().all(|owned| !owned));
                    owner[first..first + units].fill(true);
                    taken.push((first, units));
                } else {
                    // Whatever was refused, no free block of that order is there.
                    prop_assert!(buddy.largest() < units.max(1 << align).next_power_of_two());
                }
                prop_assert_eq!(buddy.free_units(), owner.iter().filter(|owned| !**owned).count());
            }
            for (first, units) in taken {
                buddy.give(first, units);
            }
            prop_assert!(buddy.is_empty());
            prop_assert_eq!(buddy.largest(), UNITS);
        }
    }
}
