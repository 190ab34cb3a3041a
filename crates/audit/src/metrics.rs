//! Audit's numbers (`audit.md` 9): names are those that shipped alerts read.

use caracal_host::Metrics;
use prometheus::{IntCounter, IntGauge};

/// Every number of Audit.
#[derive(Clone)]
pub struct Numbers {
    /// Entries appended.
    pub inserts: IntCounter,
    /// Copies of known events.
    pub duplicates: IntCounter,
    /// Messages that are no events.
    pub parse_errors: IntCounter,
    /// Messages whose signature does not verify.
    pub hmac_failures: IntCounter,
    /// Messages put aside.
    pub dlq: IntCounter,
    /// Known ids with other content.
    pub tamper_replay: IntCounter,
    /// Batches that will be tried again.
    pub retries: IntCounter,
    /// Events that wait.
    pub consumer_lag: IntGauge,
    /// Dead letters.
    pub dlq_size: IntGauge,
    /// Entries over all zones, since the start.
    pub log_entries: IntGauge,
    /// The registry.
    pub registry: Metrics,
}

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Numbers")
    }
}

impl Numbers {
    /// Registers them.
    pub fn new(registry: Metrics) -> Self {
        Self {
            inserts: registry.counter("inserts_total", "Entries appended."),
            duplicates: registry.counter("duplicates_total", "Copies of known events."),
            parse_errors: registry.counter("parse_errors_total", "Messages that are no events."),
            hmac_failures: registry.counter("hmac_failures_total", "Messages whose signature does not verify."),
            dlq: registry.counter("dlq_total", "Messages put aside."),
            tamper_replay: registry.counter("tamper_replay_total", "Known event ids that came with other content."),
            retries: registry.counter("retries_total", "Batches that will be tried again."),
            consumer_lag: registry.gauge("consumer_lag", "Events that wait."),
            dlq_size: registry.gauge("dlq_size", "Dead letters."),
            log_entries: registry.gauge("log_entries", "Entries appended since the start."),
            registry,
        }
    }
}
