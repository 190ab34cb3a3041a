//! The Gateway's own evidence (`gateway.md` 14): what happened to a call, durable before the caller has the last of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caracal_core::event::AuditEvent;
use caracal_core::id::ZoneId;
use caracal_crypto::mac::{MacKey, audit_signature};
use caracal_store::journal::SpooledEvent;
use caracal_stream::Spool;
use futures::future::BoxFuture;

/// The evidence could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("evidence cannot be written: {0}")]
pub struct NoEvidence(pub String);

/// Where evidence goes.
pub trait Evidence: Send + Sync + 'static {
    /// Makes an event durable. Runs to its end whatever becomes of the caller.
    fn record(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), NoEvidence>>;

    /// Why evidence cannot be written at the moment, as `/ready` says it.
    fn unready(&self) -> Option<&'static str>;
}

/// Evidence through this process's spool.
#[derive(Clone)]
pub struct Spooled {
    spool: Spool,
    key: Option<MacKey>,
}

impl Spooled {
    /// Through this spool; `key` signs (`AUDIT_HMAC_KEY`).
    pub const fn new(spool: Spool, key: Option<MacKey>) -> Self {
        Self { spool, key }
    }
}

impl Evidence for Spooled {
    fn record(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), NoEvidence>> {
        let spool = self.spool.clone();
        let data = event.to_data();
        let sig = self.key.as_ref().map(|key| audit_signature(key, &data)).unwrap_or_default();
        let events = vec![SpooledEvent { id: event.id, data, sig }];
        Box::pin(async move { spool.append(events).await.map_err(|error| NoEvidence(error.to_string())) })
    }

    fn unready(&self) -> Option<&'static str> {
        (!self.spool.healthy()).then_some("audit_replay_unavailable")
    }
}

/// Most denials a zone may put into its ledger in a second; more are counted.
const DENIALS_PER_SECOND: u32 = 100;
/// Most zones counted at once.
const ZONES_MAX: usize = 4096;

/// Bounds the evidence of denials, which callers cause at will.
#[derive(Debug, Default)]
pub struct DenialBounds(Mutex<HashMap<ZoneId, (u64, u32)>>);

impl DenialBounds {
    /// Whether one more denial of this zone may be written at `now`.
    pub fn admit(&self, zone: ZoneId, now: Duration) -> bool {
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now.as_secs();
        if zones.len() >= ZONES_MAX {
            zones.retain(|_, (at, _)| *at == second);
        }
        let (at, count) = zones.entry(zone).or_insert((second, 0));
        if *at != second {
            (*at, *count) = (second, 0);
        }
        *count += 1;
        *count <= DENIALS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use caracal_host::World;

    use super::*;

    #[test]
    fn a_zones_denials_are_bounded_per_second() {
        let (world, _) = World::fixed(1);
        let (bounds, zone) = (DenialBounds::default(), world.mint());
        let admitted = |at: u64| (0..150).filter(|_| bounds.admit(zone, Duration::from_secs(at))).count();
        assert_eq!((admitted(1), admitted(2)), (100, 100));
        assert!(bounds.admit(world.mint(), Duration::from_secs(2)), "another zone has its own");
    }
}
