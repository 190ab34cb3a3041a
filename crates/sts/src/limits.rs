//! Fixed windows of this process: failed authentications (`sts.md` 2.5), mints (6.2), evidence of refusals (18).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caracal_core::time::Time;

/// Most keys of one table; beyond it the oldest windows leave.
const KEYS: usize = 65_536;

/// Counters over fixed windows, bounded in number.
pub(crate) struct Windows<K> {
    length: Duration,
    limit: u32,
    open: Mutex<HashMap<K, (Duration, u32)>>,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is room.
    Free,
    /// There is none until these seconds have passed.
    Full(u64),
}

impl<K: Eq + Hash + Clone> Windows<K> {
    pub(crate) fn new(length: Duration, limit: u32) -> Self {
        Self { length, limit, open: Mutex::default() }
    }

    /// Counts one, if there is room. `now` is monotonic.
    pub(crate) fn count(&self, key: &K, now: Duration) -> Room {
        self.touch(key, now, true)
    }

    /// Looks without counting.
    pub(crate) fn look(&self, key: &K, now: Duration) -> Room {
        self.touch(key, now, false)
    }

    fn touch(&self, key: &K, now: Duration, count: bool) -> Room {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= KEYS && !open.contains_key(key) {
            let length = self.length;
            open.retain(|_, (began, _)| now.saturating_sub(*began) < length);
            if open.len() >= KEYS
                && let Some(oldest) = open.iter().min_by_key(|(_, (began, _))| *began).map(|(k, _)| k.clone())
            {
                open.remove(&oldest);
            }
        }
        let Some((began, used)) = open.get_mut(key).filter(|(began, _)| now.saturating_sub(*began) < self.length) else {
            if count {
                open.insert(key.clone(), (now, 1));
            }
            return Room::Free;
        };
        if *used >= self.limit {
            return Room::Full((self.length.saturating_sub(now.saturating_sub(*began))).as_secs().max(1));
        }
        if count {
            *used += 1;
        }
        Room::Free
    }
}

/// What a bound left out, per ledger, until it is summarised.
#[derive(Default)]
pub(crate) struct Suppressed(Mutex<HashMap<String, LeftOut>>);

/// Events left out of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// When the first was.
    pub(crate) from: Time,
    /// How many.
    pub(crate) count: u64,
}

impl Suppressed {
    pub(crate) fn left_out(&self, ledger: String, at: Time) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many ledgers as there are windows: beyond that nothing is left out of one that is not here.
        if all.len() < KEYS || all.contains_key(&ledger) {
            all.entry(ledger).or_insert(LeftOut { from: at, count: 0 }).count += 1;
        }
    }

    pub(crate) fn take(&self) -> HashMap<String, LeftOut> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_fills_and_opens_again() {
        let windows = Windows::new(Duration::from_mins(1), 2);
        let at = Duration::from_secs;
        assert_eq!(windows.count(&"a", at(0)), Room::Free);
        assert_eq!(windows.look(&"a", at(1)), Room::Free);
        assert_eq!(windows.count(&"a", at(10)), Room::Free);
        assert_eq!(windows.count(&"a", at(20)), Room::Full(40));
        assert_eq!(windows.count(&"b", at(20)), Room::Free, "another key");
        assert_eq!(windows.count(&"a", at(60)), Room::Free, "a new window");
    }
}
