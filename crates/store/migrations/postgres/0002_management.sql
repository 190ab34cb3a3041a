-- Product state: zones, applications, providers, resources, policies, keys, sealed documents, admin tokens.

CREATE TABLE zones (
    id BYTEA PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    slug TEXT COLLATE "C" NOT NULL UNIQUE,
    settings TEXT COLLATE "C" NOT NULL,
    graph_epoch BIGINT NOT NULL DEFAULT 1,
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX zones_list ON zones (created_at, id);

CREATE TABLE applications (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    name TEXT COLLATE "C" NOT NULL,
    name_key TEXT COLLATE "C" NOT NULL,
    registration_method TEXT COLLATE "C" NOT NULL CHECK (registration_method IN ('managed', 'dcr')),
    traits TEXT COLLATE "C" NOT NULL,
    secret_verifier TEXT COLLATE "C",
    expires_at BIGINT,
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT,
    CHECK (registration_method <> 'dcr' OR expires_at IS NOT NULL)
);
CREATE INDEX applications_list ON applications (zone_id, created_at, id);
CREATE UNIQUE INDEX applications_name ON applications (zone_id, name_key) WHERE archived_at IS NULL AND registration_method = 'managed';

CREATE TABLE providers (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    name TEXT COLLATE "C" NOT NULL,
    identifier TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    config TEXT COLLATE "C" NOT NULL,
    secret_keys TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX providers_list ON providers (zone_id, created_at, id);
CREATE UNIQUE INDEX providers_identifier ON providers (zone_id, identifier) WHERE archived_at IS NULL;

CREATE TABLE resources (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    name TEXT COLLATE "C" NOT NULL,
    identifier TEXT COLLATE "C" NOT NULL,
    upstream_url TEXT COLLATE "C",
    scopes TEXT COLLATE "C" NOT NULL,
    operations TEXT COLLATE "C" NOT NULL,
    operation_enforcement TEXT COLLATE "C" NOT NULL CHECK (operation_enforcement IN ('enforced', 'transport_uniform')),
    credential_provider_id BYTEA REFERENCES providers (id),
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX resources_list ON resources (zone_id, created_at, id);
CREATE UNIQUE INDEX resources_identifier ON resources (zone_id, identifier) WHERE archived_at IS NULL;

CREATE TABLE policies (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C",
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX policies_list ON policies (zone_id, created_at, id);
CREATE UNIQUE INDEX policies_name ON policies (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_versions (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    policy_id BYTEA NOT NULL REFERENCES policies (id),
    version BIGINT NOT NULL,
    content TEXT COLLATE "C" NOT NULL,
    content_sha256 TEXT COLLATE "C" NOT NULL,
    schema_version TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (policy_id, version)
);
CREATE TRIGGER policy_versions_stay BEFORE UPDATE OR DELETE ON policy_versions FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE policy_sets (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C",
    created_by TEXT COLLATE "C" NOT NULL,
    updated_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT,
    archived_at BIGINT
);
CREATE INDEX policy_sets_list ON policy_sets (zone_id, created_at, id);
CREATE UNIQUE INDEX policy_sets_name ON policy_sets (zone_id, name) WHERE archived_at IS NULL;

CREATE TABLE policy_set_versions (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    policy_set_id BYTEA NOT NULL REFERENCES policy_sets (id),
    version BIGINT NOT NULL,
    manifest TEXT COLLATE "C" NOT NULL,
    manifest_sha256 TEXT COLLATE "C" NOT NULL,
    schema_version TEXT COLLATE "C" NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (policy_set_id, version)
);
CREATE INDEX policy_set_versions_list ON policy_set_versions (policy_set_id, created_at, id);
CREATE TRIGGER policy_set_versions_stay BEFORE UPDATE OR DELETE ON policy_set_versions FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What is active: one row a zone at most.
CREATE TABLE policy_bindings (
    zone_id BYTEA PRIMARY KEY REFERENCES zones (id),
    policy_set_id BYTEA NOT NULL REFERENCES policy_sets (id),
    policy_set_version_id BYTEA NOT NULL REFERENCES policy_set_versions (id),
    activated_by TEXT COLLATE "C",
    activated_at BIGINT NOT NULL
);

-- Keys that sign mandates; private halves are sealed.
CREATE TABLE signing_keys (
    id BYTEA PRIMARY KEY,
    zone_id BYTEA NOT NULL REFERENCES zones (id),
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    replaced_at BIGINT
);
CREATE INDEX signing_keys_zone ON signing_keys (zone_id, created_at);

-- Machine-made material of the deployment: the verifier key.
CREATE TABLE machine_secrets (
    name TEXT COLLATE "C" PRIMARY KEY,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Documents of the builtin secret backend.
CREATE TABLE sealed_documents (
    ref TEXT COLLATE "C" PRIMARY KEY,
    sealed BYTEA NOT NULL,
    updated_at BIGINT NOT NULL
);
