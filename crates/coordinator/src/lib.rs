//! The Coordinator: Sessions, leases, Delegations that only narrow.
