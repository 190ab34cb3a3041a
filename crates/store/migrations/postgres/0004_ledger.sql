-- Evidence: one row an entry, from the first one the leaf of a Merkle tree. Never updated, never deleted.

CREATE TABLE ledger_heads (
    zone TEXT COLLATE "C" PRIMARY KEY,
    origin TEXT COLLATE "C" NOT NULL,
    next_seq BIGINT NOT NULL,
    last_content BYTEA,
    frontier BYTEA NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE ledger_entries (
    zone TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    event_id BYTEA NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    decision TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    application_id TEXT COLLATE "C",
    session_id TEXT COLLATE "C",
    delegation_id TEXT COLLATE "C",
    record_id TEXT COLLATE "C",
    resource TEXT COLLATE "C",
    occurred_at BIGINT NOT NULL,
    ingested_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    secret BYTEA NOT NULL,
    content BYTEA NOT NULL,
    previous BYTEA,
    chain_hmac BYTEA,
    PRIMARY KEY (zone, seq)
);
CREATE UNIQUE INDEX ledger_entries_event ON ledger_entries (event_id);
CREATE INDEX ledger_entries_request ON ledger_entries (zone, request_id);
CREATE INDEX ledger_entries_time ON ledger_entries (zone, occurred_at);

CREATE TABLE ledger_dead_letters (
    id BYTEA PRIMARY KEY,
    source TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C" NOT NULL,
    data TEXT COLLATE "C" NOT NULL,
    sig TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL
);
