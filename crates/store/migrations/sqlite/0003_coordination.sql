-- Sessions, Delegations, receipts.

CREATE TABLE sessions (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    application_id BLOB NOT NULL REFERENCES applications (id),
    parent_id BLOB REFERENCES sessions (id),
    subject_record_id BLOB NOT NULL,
    subject_is_user BIGINT NOT NULL,
    lifecycle TEXT NOT NULL CHECK (lifecycle IN ('task', 'service')),
    status TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'terminated', 'expired')),
    depth BIGINT NOT NULL,
    labels TEXT NOT NULL,
    metadata TEXT,
    ttl_seconds BIGINT,
    started_at BIGINT NOT NULL,
    last_heartbeat_at BIGINT,
    heartbeat_deadline_at BIGINT,
    lease_generation BIGINT NOT NULL,
    ended_at BIGINT,
    end_reason TEXT,
    updated_at BIGINT NOT NULL
);
CREATE INDEX sessions_zone ON sessions (zone_id, id);
CREATE INDEX sessions_ended ON sessions (updated_at) WHERE status IN ('terminated', 'expired');
CREATE INDEX sessions_suspended ON sessions (id) WHERE status = 'suspended';
CREATE INDEX sessions_parent ON sessions (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX sessions_live ON sessions (zone_id, application_id) WHERE status IN ('active', 'suspended');
CREATE INDEX sessions_record ON sessions (subject_record_id) WHERE status IN ('active', 'suspended');

CREATE TABLE delegations (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    parent_id BLOB REFERENCES delegations (id),
    source_session_id BLOB NOT NULL REFERENCES sessions (id),
    target_session_id BLOB NOT NULL REFERENCES sessions (id),
    issuer_application_id BLOB NOT NULL,
    receiver_application_id BLOB NOT NULL,
    resource_id BLOB,
    scopes TEXT NOT NULL,
    constraints TEXT NOT NULL,
    budget BIGINT,
    budget_spent BIGINT NOT NULL DEFAULT 0,
    presented BIGINT NOT NULL DEFAULT 0,
    status TEXT NOT NULL CHECK (status IN ('active', 'revoked', 'expired')),
    version BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX delegations_zone ON delegations (zone_id, id);
CREATE INDEX delegations_ended ON delegations (coalesce(revoked_at, expires_at)) WHERE status IN ('revoked', 'expired');
CREATE INDEX delegations_parent ON delegations (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX delegations_source ON delegations (source_session_id);
CREATE INDEX delegations_target ON delegations (target_session_id);

CREATE TABLE idempotency_receipts (
    operation TEXT NOT NULL,
    zone_id BLOB NOT NULL,
    scope TEXT NOT NULL,
    key_digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (operation, zone_id, scope, key_digest)
);
CREATE INDEX idempotency_receipts_expiry ON idempotency_receipts (expires_at);
