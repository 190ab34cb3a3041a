//! Audit: ingestion into a tamper-evident ledger, search.
