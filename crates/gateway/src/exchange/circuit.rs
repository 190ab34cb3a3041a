//! The circuit to the STS (`gateway.md` 7.6): after three failures in a row calls are refused at once for ten seconds, then one call
//! is let through to see.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caracal_host::World;

/// Failures without a success in between that open it.
const FAILURES: u32 = 3;
/// How long it stays open.
const OPEN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Duration>,
    probing: bool,
    opened: u64,
}

/// The circuit of one process.
#[derive(Debug)]
pub struct Circuit {
    world: World,
    state: Mutex<State>,
}

/// A call that was let through. Dropped without a verdict (the client went away), it counts for nothing.
#[derive(Debug)]
pub struct Passage<'a> {
    circuit: &'a Circuit,
    probe: bool,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(world: World) -> Self {
        Self { world, state: Mutex::default() }
    }

    /// Seconds until a call may try, while none may.
    pub fn retry_in(&self) -> Option<u64> {
        let state = self.lock();
        let until = state.open_until?;
        let left = until.saturating_sub(self.world.monotonic());
        if left.is_zero() { state.probing.then_some(1) } else { Some(left.as_secs() + u64::from(left.subsec_nanos() > 0)) }
    }

    /// Lets a call through, or says in how many seconds to come back.
    pub fn pass(&self) -> Result<Passage<'_>, u64> {
        if let Some(seconds) = self.retry_in() {
            return Err(seconds);
        }
        let mut state = self.lock();
        let probe = state.open_until.is_some();
        if probe && state.probing {
            return Err(1);
        }
        state.probing = probe;
        Ok(Passage { circuit: self, probe })
    }

    /// Whether it is open, and how often it has opened.
    pub fn status(&self) -> (bool, u64) {
        let state = self.lock();
        (state.open_until.is_some(), state.opened)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage<'_> {
    /// The STS answered, whatever it said.
    pub fn answered(self) {
        let mut state = self.circuit.lock();
        state.failures = 0;
        state.open_until = None;
    }

    /// A failure of the STS that is not about its being there.
    pub fn neutral(self) {
        drop(self);
    }

    /// The STS is not there.
    pub fn failed(self) {
        let mut state = self.circuit.lock();
        state.failures += 1;
        if state.failures >= FAILURES || self.probe {
            if state.open_until.is_none() {
                state.opened += 1;
            }
            state.open_until = Some(self.circuit.world.monotonic() + OPEN);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.circuit.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acceptance row 33.
    #[test]
    fn three_failures_open_it_and_one_probe_closes_it() {
        let (world, clock) = World::fixed(1);
        let circuit = Circuit::new(world);
        for _ in 0..2 {
            circuit.pass().unwrap().failed();
        }
        circuit.pass().unwrap().answered();
        for _ in 0..3 {
            assert_eq!(circuit.retry_in(), None);
            circuit.pass().unwrap().failed();
        }
        assert_eq!((circuit.retry_in(), circuit.pass().unwrap_err(), circuit.status()), (Some(10), 10, (true, 1)));
        clock.advance(Duration::from_millis(9_001));
        assert_eq!(circuit.retry_in(), Some(1), "rounded up");
        clock.advance(Duration::from_secs(1));
        assert_eq!(circuit.retry_in(), None);
        let probe = circuit.pass().unwrap();
        assert_eq!((circuit.retry_in(), circuit.pass().unwrap_err()), (Some(1), 1), "one at a time");
        drop(probe);
        circuit.pass().unwrap().failed();
        assert_eq!(circuit.retry_in(), Some(10), "a failed probe opens it again");
        clock.advance(OPEN);
        circuit.pass().unwrap().answered();
        assert_eq!((circuit.retry_in(), circuit.status()), (None, (false, 1)));
    }
}
