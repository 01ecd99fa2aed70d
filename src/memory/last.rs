//! Who was the last of those that share something, where they are not counted one by one.
//!
//! Members who leave before the end is near are counted by others ([`super::front`]). At the end, [`Last::begin`] says how many
//! are still there, and each of them leaves with [`Last::leave`], even before `begin` was called: then the count is less than 0
//! for a while. Exactly one of all these calls answers `true`, and everything that others did before theirs is seen there.

use super::sync::{AtomicI64, Ordering};

/// How many are left, once that is known.
#[derive(Debug)]
pub(super) struct Last(AtomicI64);

impl Last {
    pub(super) fn new() -> Last {
        Last(AtomicI64::new(0))
    }

    /// Says, once, how many are there or have left with `leave`; whether there is none any more.
    pub(super) fn begin(&self, members: i64) -> bool {
        self.0.fetch_add(members, Ordering::AcqRel) + members == 0
    }

    /// Says that one has gone; whether it was the last. Before `begin` the count is never above 0, so it does not fall to it.
    pub(super) fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
