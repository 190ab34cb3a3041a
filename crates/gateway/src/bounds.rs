//! Bounds on what runs at once (`gateway.md` 13). A guard counts until it is dropped, with the response's body.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use caracal_core::id::{ApplicationId, ZoneId};
use prometheus::IntGauge;

type App = (ZoneId, ApplicationId);

/// The bounds of one process.
#[derive(Debug)]
pub struct Bounds {
    calls_max: usize,
    streams_max: usize,
    calls: AtomicUsize,
    streams: Mutex<HashMap<App, usize>>,
    calls_gauge: IntGauge,
    streams_gauge: IntGauge,
}

/// A call that runs.
#[derive(Debug)]
pub struct Running(Arc<Bounds>);

/// A streaming response that is open.
#[derive(Debug)]
pub struct OpenStream(Arc<Bounds>, App);

impl Bounds {
    /// With these maxima; 0 means none.
    pub fn new(calls_max: usize, streams_max: usize, calls_gauge: IntGauge, streams_gauge: IntGauge) -> Arc<Self> {
        let (calls, streams) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { calls_max, streams_max, calls, streams, calls_gauge, streams_gauge })
    }

    /// Admits a call of an application, or says that there is no room.
    pub fn admit(self: &Arc<Self>, app: App) -> Option<Running> {
        if self.streams_max > 0 && self.open(&app) >= self.streams_max {
            return None;
        }
        let before = self.calls.fetch_add(1, Ordering::AcqRel);
        self.calls_gauge.inc();
        let running = Running(self.clone());
        (self.calls_max == 0 || before < self.calls_max).then_some(running)
    }

    /// Counts a streaming response.
    pub fn stream(self: &Arc<Self>, app: App) -> OpenStream {
        *self.streams.lock().unwrap_or_else(PoisonError::into_inner).entry(app).or_default() += 1;
        self.streams_gauge.inc();
        OpenStream(self.clone(), app)
    }

    fn open(&self, app: &App) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(app).copied().unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
        self.0.calls_gauge.dec();
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.1);
            }
        }
        self.0.streams_gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use caracal_host::World;

    use super::*;

    #[test]
    fn room_comes_back_when_guards_go() {
        let (world, _) = World::fixed(1);
        let gauge = || IntGauge::new("g", "g").unwrap();
        let bounds = Bounds::new(2, 1, gauge(), gauge());
        let app = (world.mint(), world.mint());
        let (one, two) = (bounds.admit(app), bounds.admit(app));
        assert!(one.is_some() && two.is_some() && bounds.admit(app).is_none());
        drop(one);
        let stream = bounds.stream(app);
        assert!(bounds.admit(app).is_none(), "its streams are used up");
        assert!(bounds.admit((world.mint(), world.mint())).is_some(), "another application's are not");
        drop(stream);
        assert!(bounds.admit(app).is_some());
        assert!(bounds.streams.lock().unwrap().is_empty());
    }
}
