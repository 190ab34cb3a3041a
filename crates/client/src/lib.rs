//! The Rust SDK: exchange, Sessions, Delegations, governed transport.
