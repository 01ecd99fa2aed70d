//! How near a pool is to what it may take, and who wants to know.

use super::{Pressure, system};
use std::sync::{Arc, Mutex, PoisonError};

/// Called with the new level when it changes.
type Callback = Arc<dyn Fn(Pressure) + Send + Sync>;

/// The level and those who asked to be told.
#[derive(Default)]
pub(super) struct Watch {
    level: Mutex<Pressure>,
    callbacks: Mutex<Vec<Callback>>,
}

impl Watch {
    pub(super) fn add(&self, callback: Callback) {
        let mut callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        callbacks.push(callback);
    }

    /// Notes a level. If it is another than before, all are told; they may give back blocks, because nothing is locked meanwhile.
    pub(super) fn note(&self, level: Pressure) {
        let before = {
            let mut place = self.level.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *place, level)
        };
        if level != before {
            let callbacks = self
                .callbacks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            callbacks.iter().for_each(|callback| callback(level));
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// The pressure when so many bytes are taken of what a pool may take. A pool without a limit may take what the machine has left.
pub(super) fn of(taken: u64, limit: Option<u64>) -> Pressure {
    let limit = limit.or_else(|| Some(taken.saturating_add(system::available()?)));
    let Some(limit) = limit else {
        return Pressure::Low;
    };
    let percent = (u128::from(taken) * 100)
        .checked_div(u128::from(limit))
        .unwrap_or(100);
    match percent {
        ..50 => Pressure::Low,
        50..75 => Pressure::Medium,
        75..90 => Pressure::High,
        _ => Pressure::Critical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_where_they_say() {
        let levels = [
            (0, Pressure::Low),
            (499, Pressure::Low),
            (500, Pressure::Medium),
            (750, Pressure::High),
            (899, Pressure::High),
            (900, Pressure::Critical),
            (2000, Pressure::Critical),
        ];
        for (taken, level) in levels {
            assert_eq!(of(taken, Some(1000)), level, "{taken} of 1000");
        }
        assert_eq!(of(0, Some(0)), Pressure::Critical);
    }

    #[test]
    fn only_changes_are_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let watch = Watch::default();
        let place = told.clone();
        watch.add(Arc::new(move |level| {
            place.lock().expect("whole").push(level)
        }));
        for level in [Pressure::Low, Pressure::High, Pressure::High, Pressure::Low] {
            watch.note(level);
        }
        assert_eq!(
            *told.lock().expect("whole"),
            [Pressure::High, Pressure::Low]
        );
    }
}
