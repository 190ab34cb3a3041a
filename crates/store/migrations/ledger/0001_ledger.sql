-- Evidence: one row an entry, from the first one the leaf of a Merkle tree. Never updated, never deleted.

CREATE TABLE ledger_heads (
    zone TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    next_seq BIGINT NOT NULL,
    last_content BLOB,
    frontier BLOB NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE ledger_entries (
    zone TEXT NOT NULL,
    seq BIGINT NOT NULL,
    event_id BLOB NOT NULL,
    event_type TEXT NOT NULL,
    decision TEXT NOT NULL,
    request_id TEXT NOT NULL,
    application_id TEXT,
    session_id TEXT,
    delegation_id TEXT,
    record_id TEXT,
    resource TEXT,
    occurred_at BIGINT NOT NULL,
    ingested_at BIGINT NOT NULL,
    body BLOB NOT NULL,
    secret BLOB NOT NULL,
    content BLOB NOT NULL,
    previous BLOB,
    chain_hmac BLOB,
    PRIMARY KEY (zone, seq)
);
CREATE UNIQUE INDEX ledger_entries_event ON ledger_entries (event_id);
CREATE INDEX ledger_entries_request ON ledger_entries (zone, request_id);
CREATE INDEX ledger_entries_time ON ledger_entries (zone, occurred_at);

CREATE TABLE ledger_dead_letters (
    id BLOB PRIMARY KEY,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    data TEXT NOT NULL,
    sig TEXT NOT NULL,
    received_at BIGINT NOT NULL
);

CREATE TRIGGER ledger_entries_stay BEFORE UPDATE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END;
CREATE TRIGGER ledger_entries_remain BEFORE DELETE ON ledger_entries BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;
