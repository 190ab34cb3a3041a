-- Evidence: one row an entry, from the first one the leaf of a Merkle tree. Never updated, never deleted.
-- What is where, and why: docs/decisions/0005-ledger-form.md.

CREATE TABLE ledger_heads (
    log INTEGER PRIMARY KEY,
    zone TEXT NOT NULL UNIQUE,
    origin TEXT NOT NULL,
    next_seq BIGINT NOT NULL,
    last_content BLOB,
    last_ingested BIGINT NOT NULL,
    frontier BLOB NOT NULL
);

CREATE TABLE ledger_entries (
    log INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    occurred_at BIGINT NOT NULL,
    ingested_at BIGINT NOT NULL,
    event_type SMALLINT,
    decision SMALLINT,
    evaluation_status SMALLINT,
    event_id BLOB NOT NULL,
    request_id BLOB NOT NULL,
    application_id BLOB,
    session_id BLOB,
    secret BLOB NOT NULL,
    content BLOB NOT NULL,
    chain_key_id BLOB,
    chain_hmac BLOB,
    producer_sig BLOB,
    data_hash BLOB,
    data_mac BLOB,
    body BLOB NOT NULL,
    PRIMARY KEY (log, seq)
);
CREATE UNIQUE INDEX ledger_entries_event ON ledger_entries (log, event_id);
CREATE INDEX ledger_entries_time ON ledger_entries (log, occurred_at);
CREATE INDEX ledger_entries_request ON ledger_entries (log, request_id);
CREATE INDEX ledger_entries_session ON ledger_entries (log, session_id, occurred_at) WHERE session_id IS NOT NULL;
CREATE INDEX ledger_entries_application ON ledger_entries (log, application_id, occurred_at) WHERE application_id IS NOT NULL;

CREATE TABLE ledger_dead_letters (
    id BLOB PRIMARY KEY,
    source TEXT NOT NULL,
    reason TEXT NOT NULL,
    data BLOB,
    sig BLOB NOT NULL,
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
