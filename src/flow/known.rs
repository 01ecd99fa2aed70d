//! What is known of the channels of a value: which are zero, which hold one other number everywhere.
//!
//! The second kind exists by the exact rule alone: a row without weights leaves its bias, a norm makes a shift of it, an
//! activation or a sum may make zero of that again.

use crate::channels::Channels;
use std::collections::BTreeMap;

/// Knowledge of channels.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Channels that are zero at every position.
    pub nulls: Channels,
    /// Channels that are another number at every position.
    pub constants: BTreeMap<usize, f64>,
}

impl Known {
    /// Nothing but how many channels there are.
    pub(super) fn nothing(width: usize) -> Known {
        Channels::none(width).into()
    }

    /// Channels by the number that they hold everywhere, if they hold one.
    pub(super) fn of(width: usize, number: impl Fn(usize) -> Option<f64>) -> Known {
        let mut known = Known::nothing(width);
        for channel in 0..width {
            match number(channel) {
                Some(0.0) => known.nulls.insert(channel),
                Some(other) if other.is_finite() => {
                    known.constants.insert(channel, other);
                }
                _ => {}
            }
        }
        known
    }

    /// The number that a channel holds everywhere, if it holds one.
    pub(super) fn number(&self, channel: usize) -> Option<f64> {
        if self.nulls.contains(channel) {
            return Some(0.0);
        }
        self.constants.get(&channel).copied()
    }

    /// A sum, or with a sign a difference: zero where both sides are, and where two numbers make zero.
    pub(super) fn sum(&self, other: &Known, sign: f64) -> Known {
        let nulls = self.nulls.and(&other.nulls);
        if self.constants.is_empty() && other.constants.is_empty()
            || self.nulls.width() != other.nulls.width()
        {
            return nulls.into();
        }
        let number = |channel| Some(self.number(channel)? + sign * other.number(channel)?);
        Known::of(nulls.width(), number)
    }

    /// A product: zero where either side is.
    pub(super) fn product(&self, other: &Known) -> Known {
        self.nulls.or(&other.nulls).into()
    }
}

impl From<Channels> for Known {
    fn from(nulls: Channels) -> Known {
        Known {
            nulls,
            constants: BTreeMap::new(),
        }
    }
}
