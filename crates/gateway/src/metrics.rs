//! The Gateway's numbers (`gateway.md` 15): names are those that shipped alerts read.

use caracal_host::Metrics;
use prometheus::{Histogram, IntCounter, IntGauge};

macro_rules! numbers {
    ($($(#[$doc:meta])* $field:ident: $kind:ident($text:literal),)*) => {
        /// Every number of the Gateway.
        pub struct Numbers {
            $($(#[$doc])* pub $field: numbers!(@type $kind),)*
            /// The registry.
            pub registry: Metrics,
        }

        impl Numbers {
            /// Registers them.
            pub fn new(registry: Metrics) -> Self {
                Self { $($field: numbers!(@make registry $kind (stringify!($field)) $text),)* registry }
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type gauge) => { IntGauge };
    (@type seconds) => { Histogram };
    (@make $registry:ident counter ($name:expr) $text:literal) => { $registry.counter(&format!("{}_total", $name), $text) };
    (@make $registry:ident gauge ($name:expr) $text:literal) => { $registry.gauge($name, $text) };
    (@make $registry:ident seconds ($name:expr) $text:literal) => { $registry.seconds($name, $text) };
}

numbers! {
    /// Governed calls begun.
    requests: counter("Governed calls begun."),
    /// Responses copied.
    requests_allowed: counter("Responses copied, broken ones too."),
    /// Refused in steps 1 to 15.
    requests_denied: counter("Calls refused before anything was sent."),
    /// Step 2.
    denials_missing_auth: counter("No bearer."),
    /// Steps 3 and 4.
    denials_bad_bearer: counter("A bearer that is no token."),
    /// Step 5.
    denials_expiring: counter("Mandates with too little time left."),
    /// Steps 6 to 10a.
    denials_bad_routing: counter("Routing headers, ids or queries that are malformed."),
    /// Step 10.
    denials_path_traversal: counter("Paths that are refused."),
    /// Step 11.
    denials_signature: counter("Mandates that their zone did not sign."),
    /// Step 11a.
    denials_bound_request: counter("Mandates for another request."),
    /// Step 12.
    denials_jti_replay: counter("Mandates used before."),
    /// Step 13.
    denials_revoked: counter("Mandates that stand on something revoked."),
    /// Step 1.
    denials_revocation_stale: counter("Calls refused because revocation state was stale."),
    /// Denials that were not written because their zone had too many in a second.
    denials_suppressed: counter("Denials left out of the ledger."),
    /// Step 11b.
    inflight_refusals: counter("Calls refused because too many were in flight."),
    /// Exchanges that the STS could not decide.
    sts_exchange_errors: counter("Exchanges that the STS could not decide."),
    /// Exchanges that were refused.
    exchange_denials: counter("Exchanges that were refused."),
    /// Latest exchange.
    sts_exchange_latency_ms: gauge("Latest exchange, milliseconds."),
    /// Duration of exchanges.
    sts_exchange_duration_seconds: seconds("Duration of exchanges."),
    /// 0 or 1.
    sts_circuit_open: gauge("Whether the circuit to the STS is open."),
    /// Refused by the open circuit.
    sts_circuit_fast_fail: counter("Calls refused by the open circuit."),
    /// Steps 16 to 20 failed.
    upstream_errors: counter("Upstream calls that failed."),
    /// Events written.
    audit_persisted: counter("Events made durable."),
    /// Events that could not be written.
    audit_sink_errors: counter("Events that could not be made durable."),
    /// Events lost.
    audit_dropped: counter("Events lost for good."),
    /// Entries of the three sets.
    revocations_active: gauge("Revoked ids in memory."),
    /// Age of the last snapshot.
    revocation_snapshot_age_seconds: gauge("Age of the last revocation snapshot."),
    /// 0 or 1.
    revocation_snapshot_fresh: gauge("Whether the last snapshot is young enough."),
    /// Messages read.
    revocation_messages: counter("Revocation messages applied."),
    /// Messages whose signature did not verify.
    revocation_invalid_signatures: counter("Messages that were not signed by us."),
    /// Messages that name nothing.
    revocation_dead_letters: counter("Messages that name nothing to revoke."),
    /// Snapshots taken.
    revocation_reloads: counter("Revocation snapshots taken."),
    /// Snapshots that failed.
    revocation_reload_errors: counter("Revocation snapshots that failed."),
    /// Age of the latest message when applied.
    revocation_propagation_seconds: gauge("Age of the latest revocation message when it was applied."),
    /// Responses ended by a revocation.
    stream_revocations: counter("Responses ended by a revocation."),
    /// The memory of used mandates did not answer.
    jti_store_errors: counter("Failures of the memory of used mandates."),
    /// Key fetches that failed.
    jwks_fetch_errors: counter("Key fetches that failed."),
    /// Governed calls running.
    requests_in_flight: gauge("Governed calls running."),
    /// Streaming responses open.
    streams_open: gauge("Streaming responses open."),
    /// Duration of calls.
    request_duration_seconds: seconds("Duration of calls to the response's head."),
    /// Duration without the upstream.
    overhead_seconds: seconds("Duration of calls without the upstream."),
}

impl std::fmt::Debug for Numbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Numbers")
    }
}
