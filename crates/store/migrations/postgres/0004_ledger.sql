-- Evidence: one row an entry, from the first one the leaf of a Merkle tree. Never updated, never deleted.

CREATE TABLE ledger_heads (
    zone TEXT COLLATE "C" PRIMARY KEY,
    origin TEXT COLLATE "C" NOT NULL,
    next_seq BIGINT NOT NULL,
    last_content BYTEA,
    last_ingested BIGINT NOT NULL,
    frontier BYTEA NOT NULL,
    dedupe_key BYTEA NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE ledger_entries (
    zone TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    event_id BYTEA NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    decision TEXT COLLATE "C" NOT NULL,
    evaluation_status TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    application_id TEXT COLLATE "C",
    session_id TEXT COLLATE "C",
    delegation_id TEXT COLLATE "C",
    record_id TEXT COLLATE "C",
    resource TEXT COLLATE "C",
    labels TEXT COLLATE "C",
    fingerprint TEXT COLLATE "C",
    trace_id TEXT COLLATE "C",
    occurred_at BIGINT NOT NULL,
    ingested_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    secret BYTEA NOT NULL,
    hash_version BIGINT NOT NULL,
    content BYTEA NOT NULL,
    previous BYTEA,
    chain_hmac BYTEA,
    chain_key_id TEXT COLLATE "C",
    dedupe BYTEA NOT NULL,
    producer_sig TEXT COLLATE "C" NOT NULL,
    data_hash BYTEA NOT NULL,
    PRIMARY KEY (zone, seq)
);
CREATE UNIQUE INDEX ledger_entries_event ON ledger_entries (zone, event_id);
CREATE INDEX ledger_entries_request ON ledger_entries (zone, request_id);
CREATE INDEX ledger_entries_time ON ledger_entries (zone, occurred_at, event_id);
CREATE INDEX ledger_entries_session ON ledger_entries (zone, session_id, occurred_at) WHERE session_id IS NOT NULL;
CREATE INDEX ledger_entries_application ON ledger_entries (zone, application_id, occurred_at) WHERE application_id IS NOT NULL;

CREATE TABLE ledger_dead_letters (
    id BYTEA PRIMARY KEY,
    source TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    data TEXT COLLATE "C" NOT NULL,
    sig TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL
);

CREATE TABLE ledger_alerts (
    id BYTEA PRIMARY KEY,
    zone TEXT COLLATE "C" NOT NULL,
    event_id BYTEA NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    observed_at BIGINT NOT NULL,
    acked_at BIGINT
);
