-- Evidence: one row an entry, from the first one the leaf of a Merkle tree. Never updated, never deleted.

CREATE TABLE ledger_heads (
    zone TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    next_seq BIGINT NOT NULL,
    last_content BLOB,
    last_ingested BIGINT NOT NULL,
    frontier BLOB NOT NULL,
    dedupe_key BLOB NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE ledger_entries (
    zone TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    decision TEXT NOT NULL,
    evaluation_status TEXT NOT NULL,
    request_id TEXT NOT NULL,
    application_id TEXT,
    session_id TEXT,
    delegation_id TEXT,
    record_id TEXT,
    resource TEXT,
    labels TEXT,
    fingerprint TEXT,
    trace_id TEXT,
    occurred_at BIGINT NOT NULL,
    ingested_at BIGINT NOT NULL,
    body BLOB NOT NULL,
    secret BLOB NOT NULL,
    hash_version BIGINT NOT NULL,
    content BLOB NOT NULL,
    previous BLOB,
    chain_hmac BLOB,
    chain_key_id TEXT,
    dedupe BLOB NOT NULL,
    producer_sig TEXT NOT NULL,
    data_hash BLOB NOT NULL,
    PRIMARY KEY (zone, seq)
);
CREATE UNIQUE INDEX ledger_entries_event ON ledger_entries (zone, event_id);
CREATE INDEX ledger_entries_request ON ledger_entries (zone, request_id);
CREATE INDEX ledger_entries_time ON ledger_entries (zone, occurred_at, event_id);
CREATE INDEX ledger_entries_session ON ledger_entries (zone, session_id, occurred_at) WHERE session_id IS NOT NULL;
CREATE INDEX ledger_entries_application ON ledger_entries (zone, application_id, occurred_at) WHERE application_id IS NOT NULL;

CREATE TABLE ledger_dead_letters (
    id BLOB PRIMARY KEY,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    data TEXT NOT NULL,
    sig TEXT NOT NULL,
    received_at BIGINT NOT NULL
);

CREATE TABLE ledger_alerts (
    id BLOB PRIMARY KEY,
    zone TEXT NOT NULL,
    event_id BLOB NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    observed_at BIGINT NOT NULL,
    acked_at BIGINT
);

CREATE TRIGGER ledger_entries_stay BEFORE UPDATE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END;
CREATE TRIGGER ledger_entries_remain BEFORE DELETE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;
