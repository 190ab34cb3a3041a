-- Zones' epochs, the change log, the outbox, admin audit, leases, spool, consumed ids, authority records.

CREATE TABLE installation (
    id BLOB PRIMARY KEY,
    created_at BIGINT NOT NULL
);

-- The freshness fence: the epoch rises with every change of a zone's authority, under a new random mark.
CREATE TABLE zone_epochs (
    zone_id BLOB PRIMARY KEY,
    epoch BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    pruned_before BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE change_log (
    zone_id BLOB NOT NULL,
    epoch BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    entity_id BLOB NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (zone_id, epoch, kind, entity_id)
);
CREATE INDEX change_log_at ON change_log (at);

CREATE TABLE outbox (
    id BLOB PRIMARY KEY,
    producer TEXT NOT NULL,
    zone_id BLOB,
    topic TEXT NOT NULL,
    dedupe_key TEXT,
    payload TEXT NOT NULL,
    request_id TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    available_at BIGINT NOT NULL,
    last_error TEXT,
    dead BIGINT NOT NULL DEFAULT 0,
    published_at BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (producer, topic, dedupe_key)
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- Records of administrative calls: inserted and read, never changed. One chain a zone, and one for what belongs to none.
CREATE TABLE admin_audit (
    id BLOB PRIMARY KEY,
    zone_id BLOB,
    seq BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    actor_id TEXT,
    actor_name TEXT,
    actor_scope TEXT,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    entity_type TEXT,
    entity_id TEXT,
    status BIGINT NOT NULL,
    payload TEXT,
    content BLOB NOT NULL,
    previous BLOB,
    chain_hmac BLOB,
    occurred_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX admin_audit_zone ON admin_audit (zone_id, seq);
CREATE UNIQUE INDEX admin_audit_platform ON admin_audit (seq) WHERE zone_id IS NULL;
CREATE INDEX admin_audit_time ON admin_audit (occurred_at, id);
CREATE TRIGGER admin_audit_stay BEFORE UPDATE ON admin_audit BEGIN SELECT RAISE(ABORT, 'evidence is never changed'); END;
CREATE TRIGGER admin_audit_remain BEFORE DELETE ON admin_audit BEGIN SELECT RAISE(ABORT, 'evidence is never deleted'); END;

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    generation BIGINT NOT NULL,
    until BIGINT NOT NULL
);

-- Evidence that is durable and not yet committed by Audit.
CREATE TABLE spool (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL,
    data TEXT NOT NULL,
    sig TEXT NOT NULL
);

-- Ids that are used up: mandates, nonces.
CREATE TABLE consumed_ids (
    purpose BIGINT NOT NULL,
    id BLOB NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (purpose, id)
);
CREATE INDEX consumed_ids_until ON consumed_ids (until);

CREATE TABLE authority_records (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL,
    subject_type TEXT NOT NULL CHECK (subject_type IN ('user', 'application')),
    subject TEXT NOT NULL,
    application_id BLOB NOT NULL,
    parent_id BLOB,
    status TEXT NOT NULL CHECK (status IN ('active', 'revoked', 'expired')),
    revoked_at BIGINT,
    reason TEXT,
    expires_at BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL
);
CREATE INDEX authority_records_parent ON authority_records (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX authority_records_expiry ON authority_records (expires_at);
CREATE INDEX authority_records_revoked ON authority_records (expires_at) WHERE status = 'revoked';
