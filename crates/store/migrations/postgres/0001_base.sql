-- Zones' epochs, the change log, the outbox, admin audit, leases, spool, consumed ids, authority records.

CREATE TABLE installation (
    id BYTEA PRIMARY KEY,
    created_at BIGINT NOT NULL
);

-- The freshness fence: the epoch rises with every change of a zone's authority, under a new random mark.
CREATE TABLE zone_epochs (
    zone_id BYTEA PRIMARY KEY,
    epoch BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    pruned_before BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE change_log (
    zone_id BYTEA NOT NULL,
    epoch BIGINT NOT NULL,
    mark BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    entity_id BYTEA NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (zone_id, epoch, kind, entity_id)
);
CREATE INDEX change_log_at ON change_log (at);

CREATE TABLE outbox (
    id BYTEA PRIMARY KEY,
    producer TEXT COLLATE "C" NOT NULL,
    zone_id BYTEA,
    topic TEXT COLLATE "C" NOT NULL,
    dedupe_key TEXT COLLATE "C",
    payload TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL,
    available_at BIGINT NOT NULL,
    last_error TEXT COLLATE "C",
    dead BIGINT NOT NULL DEFAULT 0,
    published_at BIGINT,
    created_at BIGINT NOT NULL,
    UNIQUE (producer, topic, dedupe_key)
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- Records of administrative calls: inserted and read, never changed. One chain a zone, and one for what belongs to none.
CREATE TABLE admin_audit (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA,
    seq BIGINT NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    actor_id TEXT COLLATE "C",
    actor_name TEXT COLLATE "C",
    actor_scope TEXT COLLATE "C",
    method TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    entity_type TEXT COLLATE "C",
    entity_id TEXT COLLATE "C",
    status BIGINT NOT NULL,
    payload TEXT COLLATE "C",
    content BYTEA NOT NULL,
    previous BYTEA,
    chain_hmac BYTEA,
    occurred_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX admin_audit_zone ON admin_audit (zone_id, seq);
CREATE UNIQUE INDEX admin_audit_platform ON admin_audit (seq) WHERE zone_id IS NULL;
CREATE INDEX admin_audit_time ON admin_audit (occurred_at, id);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is never changed', TG_TABLE_NAME; END $$;
CREATE TRIGGER admin_audit_stay BEFORE UPDATE OR DELETE ON admin_audit FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE leases (
    name TEXT COLLATE "C" PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    until BIGINT NOT NULL
);

-- Evidence that is durable and not yet committed by Audit.
CREATE TABLE spool (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id BYTEA NOT NULL,
    data TEXT COLLATE "C" NOT NULL,
    sig TEXT COLLATE "C" NOT NULL
);

-- Ids that are used up: mandates, nonces.
CREATE TABLE consumed_ids (
    purpose BIGINT NOT NULL,
    id BYTEA NOT NULL,
    until BIGINT NOT NULL,
    PRIMARY KEY (purpose, id)
);
CREATE INDEX consumed_ids_until ON consumed_ids (until);

CREATE TABLE authority_records (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL,
    subject_type TEXT COLLATE "C" NOT NULL CHECK (subject_type IN ('user', 'application')),
    subject TEXT COLLATE "C" NOT NULL,
    application_id BYTEA NOT NULL,
    parent_id BYTEA,
    status TEXT COLLATE "C" NOT NULL CHECK (status IN ('active', 'revoked', 'expired')),
    revoked_at BIGINT,
    reason TEXT COLLATE "C",
    expires_at BIGINT NOT NULL,
    authenticated_at BIGINT NOT NULL
);
CREATE INDEX authority_records_parent ON authority_records (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX authority_records_expiry ON authority_records (expires_at);
CREATE INDEX authority_records_revoked ON authority_records (expires_at) WHERE status = 'revoked';
