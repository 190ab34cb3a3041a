//! What the STS counts (`sts.md` 17). Names are a contract with shipped alerts.

use caracal_host::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec};

#[derive(Clone)]
pub(crate) struct Numbers {
    pub(crate) exchanges: IntCounterVec,
    pub(crate) decided_again: IntCounter,
    pub(crate) suppressed: IntCounter,
    pub(crate) invalid_keys: IntCounter,
    pub(crate) mint_seconds: Histogram,
}

impl Numbers {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            exchanges: metrics.counters("exchanges_total", "Exchanges by form and outcome", &["form", "outcome"]),
            decided_again: metrics.counter("decided_again_total", "Exchanges decided again because what they read had changed"),
            suppressed: metrics.counter("denials_suppressed_total", "Events of refusals left out by their bound"),
            invalid_keys: metrics.counter("jwks_invalid_keys_total", "Keys skipped in JWKS because they could not be opened"),
            mint_seconds: metrics.seconds("exchange_seconds", "Time of an exchange"),
        }
    }
}
