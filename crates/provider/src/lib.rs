//! Provider kinds and their configuration, token requests, refresh; stores nothing.
