//! Time as an argument: a wall clock for what is written down, a monotonic one for deadlines.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use caracal_core::time::Time;

/// Where a process gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// Now, as people write it; may step.
    fn now(&self) -> Time;
    /// Time since some fixed moment of this process; never steps back. Deadlines and ages are measured with it.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The machine's clocks; the monotonic one starts at zero here.
    #[allow(clippy::disallowed_methods, reason = "this is the clock everyone else takes as an argument")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock everyone else takes as an argument")]
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct FixedClock {
    wall: AtomicI64,
    monotonic: AtomicU64,
}

impl FixedClock {
    /// A clock that stands at `now`; its monotonic side stands at zero.
    pub const fn at(now: Time) -> Self {
        Self { wall: AtomicI64::new(now.as_micros()), monotonic: AtomicU64::new(0) }
    }

    /// Lets time pass on both sides.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.monotonic.fetch_add(micros, Ordering::SeqCst);
        self.wall.fetch_add(i64::try_from(micros).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Steps the wall clock only, as an operator or NTP does.
    pub fn set(&self, now: Time) {
        self.wall.store(now.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Time {
        Time::from_micros(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepping_the_wall_leaves_deadlines_alone() {
        let clock = FixedClock::at(Time::from_secs(1_790_000_000));
        clock.advance(Duration::from_secs(5));
        clock.set(Time::EPOCH);
        assert_eq!((clock.now(), clock.monotonic()), (Time::EPOCH, Duration::from_secs(5)));
    }

    #[test]
    fn the_machine_moves_on() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        assert!(clock.now() > Time::from_secs(1_700_000_000));
        assert!(clock.monotonic() >= before);
    }
}
