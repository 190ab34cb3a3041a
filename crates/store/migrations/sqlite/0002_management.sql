-- Product state: zones, applications, providers, resources, policies, keys, sealed documents, admin tokens.

CREATE TABLE zones (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    slug TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    graph_epoch BIGINT NOT NULL DEFAULT 1,
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX zones_list ON zones (created_at, id);

CREATE TABLE applications (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    registration_method TEXT NOT NULL CHECK (registration_method IN ('managed', 'dcr')),
    traits TEXT NOT NULL,
    secret_verifier TEXT,
    expires_at BIGINT,
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT,
    CHECK (registration_method <> 'dcr' OR expires_at IS NOT NULL)
);
CREATE INDEX applications_list ON applications (zone_id, created_at, id);
CREATE UNIQUE INDEX applications_name ON applications (zone_id, name_key) WHERE archived_at IS NULL AND registration_method = 'managed';

CREATE TABLE providers (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    name TEXT NOT NULL,
    identifier TEXT NOT NULL,
    kind TEXT NOT NULL,
    config TEXT NOT NULL,
    secret_keys TEXT NOT NULL,
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX providers_list ON providers (zone_id, created_at, id);
CREATE UNIQUE INDEX providers_identifier ON providers (zone_id, identifier) WHERE archived_at IS NULL;

CREATE TABLE resources (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    name TEXT NOT NULL,
    identifier TEXT NOT NULL,
    upstream_url TEXT,
    scopes TEXT NOT NULL,
    operations TEXT NOT NULL,
    operation_enforcement TEXT NOT NULL CHECK (operation_enforcement IN ('enforced', 'transport_uniform')),
    credential_provider_id BLOB REFERENCES providers (id),
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX resources_list ON resources (zone_id, created_at, id);
CREATE UNIQUE INDEX resources_identifier ON resources (zone_id, identifier) WHERE archived_at IS NULL;

CREATE TABLE policies (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    name TEXT NOT NULL,
    description TEXT,
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX policies_list ON policies (zone_id, created_at, id);
CREATE UNIQUE INDEX policies_name ON policies (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_versions (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    policy_id BLOB NOT NULL REFERENCES policies (id),
    version BIGINT NOT NULL,
    content TEXT NOT NULL,
    content_sha256 TEXT NOT NULL,
    schema_version TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (policy_id, version)
);
CREATE TRIGGER policy_versions_stay BEFORE UPDATE ON policy_versions BEGIN SELECT RAISE(ABORT, 'a version is never changed'); END;
CREATE TRIGGER policy_versions_remain BEFORE DELETE ON policy_versions BEGIN SELECT RAISE(ABORT, 'a version is never deleted'); END;

CREATE TABLE policy_sets (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    name TEXT NOT NULL,
    description TEXT,
    created_by TEXT NOT NULL,
    updated_by TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX policy_sets_list ON policy_sets (zone_id, created_at, id);
CREATE UNIQUE INDEX policy_sets_name ON policy_sets (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_set_versions (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    policy_set_id BLOB NOT NULL REFERENCES policy_sets (id),
    version BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    schema_version TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (policy_set_id, version)
);
CREATE INDEX policy_set_versions_list ON policy_set_versions (policy_set_id, created_at, id);
CREATE TRIGGER policy_set_versions_stay BEFORE UPDATE ON policy_set_versions BEGIN SELECT RAISE(ABORT, 'a version is never changed'); END;
CREATE TRIGGER policy_set_versions_remain BEFORE DELETE ON policy_set_versions BEGIN SELECT RAISE(ABORT, 'a version is never deleted'); END;

-- What is active: one row a zone at most.
CREATE TABLE policy_bindings (
    zone_id BLOB PRIMARY KEY REFERENCES zones (id),
    policy_set_id BLOB NOT NULL REFERENCES policy_sets (id),
    policy_set_version_id BLOB NOT NULL REFERENCES policy_set_versions (id),
    activated_by TEXT,
    activated_at BIGINT NOT NULL
);

-- Keys that sign mandates; private halves are sealed.
CREATE TABLE signing_keys (
    id BLOB PRIMARY KEY,
    zone_id BLOB NOT NULL REFERENCES zones (id),
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    replaced_at BIGINT
);
CREATE INDEX signing_keys_zone ON signing_keys (zone_id, created_at);

-- Machine-made material of the deployment: the verifier key.
CREATE TABLE machine_secrets (
    name TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

-- Documents of the builtin secret backend.
CREATE TABLE sealed_documents (
    ref TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    updated_at BIGINT NOT NULL
);
