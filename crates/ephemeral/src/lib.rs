//! What replicas must agree on for a while: consumed ids, nonces, counters, leases on a refresh.
