//! Points in time: integers, UTC microseconds since the Unix epoch, on every backend and in every row.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time, UTC, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the epoch (a JWT's `NumericDate`); saturates.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This time plus whole seconds; saturates.
    #[must_use]
    pub const fn plus_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1_000_000)))
    }

    /// This time minus whole seconds; saturates.
    #[must_use]
    pub const fn minus_secs(self, secs: i64) -> Self {
        self.plus_secs(-secs)
    }

    /// Microseconds from `earlier` to this time; negative when `earlier` is later.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole seconds from `earlier` to this time, rounded down.
    pub const fn secs_since(self, earlier: Self) -> i64 {
        self.micros_since(earlier).div_euclid(1_000_000)
    }

    /// RFC 3339, whole seconds, `Z` (truncated).
    pub fn rfc3339_secs(self) -> String {
        jiff::Timestamp::from_second(self.as_secs()).map_or_else(|_| "0000-01-01T00:00:00Z".to_owned(), |t| t.to_string())
    }

    /// RFC 3339 with exactly three fractional digits and `Z`: the form of JavaScript's `toISOString`, which published clients read.
    pub fn rfc3339_millis(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(|_| "0000-01-01T00:00:00.000Z".to_owned(), |t| format!("{t:.3}"))
    }

    /// RFC 3339 with exactly six fractional digits and `Z`: the form of audit events.
    pub fn rfc3339_micros(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(|_| "0000-01-01T00:00:00.000000Z".to_owned(), |t| format!("{t:.6}"))
    }

    /// Parses RFC 3339 with any offset; finer than a microsecond is truncated.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_fixed_digits() {
        let t = Time::from_micros(1_790_000_000_120_000);
        assert_eq!(t.rfc3339_secs(), "2026-09-21T14:13:20Z");
        assert_eq!(t.rfc3339_millis(), "2026-09-21T14:13:20.120Z");
        assert_eq!(t.rfc3339_micros(), "2026-09-21T14:13:20.120000Z");
        assert_eq!(Time::parse_rfc3339("2026-09-21T16:13:20.12+02:00"), Some(t));
    }
}
