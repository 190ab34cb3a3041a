//! Clock and entropy together, and the ids made of both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use caracal_core::id::{Id, v4_bytes, v7_bytes};
use caracal_core::time::Time;

use crate::clock::{Clock, FixedClock, SystemClock};
use crate::entropy::{Entropy, SeededEntropy, SystemEntropy};

/// A new id: UUIDv7 of this moment.
pub fn mint<I: Id>(clock: &dyn Clock, entropy: &dyn Entropy) -> I {
    let mut random = [0; 10];
    entropy.fill(&mut random);
    I::from_bytes(v7_bytes(clock.now(), random))
}

/// A new id that carries no time: UUIDv4, for ids that are capabilities.
pub fn mint_random<I: Id>(entropy: &dyn Entropy) -> I {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    I::from_bytes(v4_bytes(random))
}

/// What a process takes from outside itself besides its stores: time and chance. Cheap to clone, passed everywhere.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
}

impl World {
    /// The machine's clock and generator.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy) }
    }

    /// A world for a test, and the clock that moves it: it stands at 2026-09-21T14:13:20Z and draws from `seed`.
    pub fn fixed(seed: u64) -> (Self, Arc<FixedClock>) {
        let clock = Arc::new(FixedClock::at(Time::from_secs(1_790_000_000)));
        (Self { clock: clock.clone(), entropy: Arc::new(SeededEntropy::new(seed)) }, clock)
    }

    /// Now.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Monotonic time.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// A new id of this moment.
    pub fn mint<I: Id>(&self) -> I {
        mint(&*self.clock, &*self.entropy)
    }

    /// A new id that carries no time.
    pub fn mint_random<I: Id>(&self) -> I {
        mint_random(&*self.entropy)
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes);
        bytes
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::id::{HoldId, ZoneId};

    use super::*;

    #[test]
    fn ids_follow_the_clock_and_repeat_with_the_seed() {
        let (world, clock) = World::fixed(1);
        let (same, _) = World::fixed(1);
        let first: ZoneId = world.mint();
        assert_eq!(first, same.mint());
        clock.advance(Duration::from_millis(1));
        assert!(world.mint::<ZoneId>() > first);
        assert_eq!(world.mint_random::<HoldId>().to_bytes()[6] >> 4, 4);
    }
}
