//! The API (`api.md` 31).

crate::error::situations! { Api;
    /// A path id is not of the form of ids.
    INVALID_PARAMS = "invalid_params" 400 Never Caller;
    /// The body is no JSON.
    INVALID_JSON = "invalid_json" 400 Never Caller;
    /// The body does not fit the route.
    INVALID_BODY = "invalid_body" 400 Never Caller;
    /// The query does not fit the route.
    INVALID_QUERY = "invalid_query" 400 Never Caller;
    /// The cursor is not one of this list.
    INVALID_CURSOR = "invalid_cursor" 400 Never Caller;
    /// A field of an export is not known.
    INVALID_FIELDS = "invalid_fields" 400 Never Caller;
    /// A zone's fields are wrong.
    INVALID_ZONE = "invalid_zone" 400 Never Caller;
    /// An application's fields are wrong.
    INVALID_APPLICATION = "invalid_application" 400 Never Caller;
    /// A provider's fields are wrong.
    INVALID_PROVIDER = "invalid_provider" 400 Never Caller;
    /// A provider's identifier is wrong.
    INVALID_PROVIDER_IDENTIFIER = "invalid_provider_identifier" 400 Never Caller;
    /// A provider's configuration is wrong.
    INVALID_PROVIDER_CONFIG = "invalid_provider_config" 400 Never Caller;
    /// A kind is changed without its configuration.
    PROVIDER_CONFIG_REQUIRED = "provider_config_required" 400 Never Caller;
    /// The kind's connectivity cannot be checked.
    PROVIDER_CHECK_UNSUPPORTED = "provider_check_unsupported" 400 Never Caller;
    /// A resource's fields are wrong.
    INVALID_RESOURCE = "invalid_resource" 400 Never Caller;
    /// A resource's identifier is wrong.
    INVALID_RESOURCE_IDENTIFIER = "invalid_resource_identifier" 400 Never Caller;
    /// A resource needs a provider.
    CREDENTIAL_PROVIDER_REQUIRED = "credential_provider_required" 400 Never Caller;
    /// A resource needs an upstream.
    UPSTREAM_URL_REQUIRED = "upstream_url_required" 400 Never Caller;
    /// An operation lacks method or path.
    OPERATION_INCOMPLETE = "operation_method_and_path_required" 400 Never Caller;
    /// An operation's path does not begin with a slash.
    OPERATION_PATH = "operation_path_must_be_absolute" 400 Never Caller;
    /// An operation's scope is not declared on the resource.
    OPERATION_SCOPE = "operation_scope_not_in_resource_scopes" 400 Never Caller;
    /// An operation occurs twice.
    OPERATION_DUPLICATE = "operation_duplicate" 400 Never Caller;
    /// An application has too many traits.
    TRAIT_COUNT = "trait_count_exceeded" 400 Never Caller;
    /// A trait is not in the form of traits.
    TRAIT_INVALID = "trait_invalid" 400 Never Caller;
    /// A trait occurs twice.
    TRAIT_DUPLICATE = "trait_duplicate" 400 Never Caller;
    /// What happens to self-registered applications is asked only when their registration ends.
    DCR_SHUTDOWN_NOT_APPLICABLE = "dcr_shutdown_not_applicable" 400 Never Caller;
    /// Nothing to change.
    NO_FIELDS = "no_fields" 400 Never Caller;
    /// The bearer is missing or wrong.
    INVALID_ADMIN_TOKEN = "invalid_admin_token" 401 Never Caller;
    /// The token may only read.
    READ_ONLY = "admin_token_read_only" 403 Never Operator;
    /// The token may only read and decide approvals.
    APPROVE_ONLY = "admin_token_approve_only" 403 Never Operator;
    /// The token is of another zone, or of a zone where the deployment is asked for.
    ZONE_MISMATCH = "admin_token_zone_mismatch" 403 Never Operator;
    /// The zone is the platform's.
    SYSTEM_ZONE = "system_zone_read_only" 403 Never Operator;
    /// The trait is a privilege that a token of one zone can neither give nor touch.
    TRAIT_FORBIDDEN = "trait_forbidden" 403 Never Operator;
    /// The route is not known.
    NOT_FOUND = "not_found" 404 Never Caller;
    /// The zone is not known.
    ZONE_NOT_FOUND = "zone_not_found" 404 Never Caller;
    /// Nothing happened under this request id.
    REQUEST_NOT_FOUND = "request_not_found" 404 Never Caller;
    /// The application is not known.
    APPLICATION_NOT_FOUND = "application_not_found" 404 Never Caller;
    /// The secret is not stored.
    CLIENT_SECRET_NOT_STORED = "client_secret_not_stored" 404 Never Caller;
    /// The provider is not known.
    PROVIDER_NOT_FOUND = "provider_not_found" 404 Never Caller;
    /// The resource is not known.
    RESOURCE_NOT_FOUND = "resource_not_found" 404 Never Caller;
    /// The policy is not known.
    POLICY_NOT_FOUND = "policy_not_found" 404 Never Caller;
    /// The policy set is not known.
    POLICY_SET_NOT_FOUND = "policy_set_not_found" 404 Never Caller;
    /// The policy set is not known, or governs nothing any more.
    POLICY_SET_BINDING_NOT_FOUND = "policy_set_binding_not_found" 404 Never Caller;
    /// The policy set version is not known.
    POLICY_SET_VERSION_NOT_FOUND = "policy_set_version_not_found" 404 Never Caller;
    /// The version to activate is not known.
    VERSION_NOT_FOUND = "version_not_found" 404 Never Caller;
    /// No version is active.
    ACTIVE_VERSION_NOT_FOUND = "active_policy_set_version_not_found" 404 Never Caller;
    /// The path is known, the method is not.
    METHOD = "method_not_allowed" 405 Never Caller;
    /// The slug is taken.
    ZONE_SLUG_CONFLICT = "zone_slug_conflict" 409 Never Caller;
    /// The name is taken.
    APPLICATION_NAME_TAKEN = "application_name_taken" 409 Never Caller;
    /// The identifier is taken.
    PROVIDER_IDENTIFIER_CONFLICT = "provider_identifier_conflict" 409 Never Caller;
    /// The identifier is taken.
    RESOURCE_IDENTIFIER_CONFLICT = "resource_identifier_conflict" 409 Never Caller;
    /// The zone has as many resources as it may.
    RESOURCE_QUOTA = "resource_quota_exceeded" 409 Never Operator;
    /// The name is taken.
    POLICY_NAME_CONFLICT = "policy_name_conflict" 409 Never Caller;
    /// The name is taken.
    POLICY_SET_NAME_CONFLICT = "policy_set_name_conflict" 409 Never Caller;
    /// The name belongs to the platform.
    RESERVED_NAMESPACE = "reserved_namespace" 409 Never Caller;
    /// The body is too large.
    TOO_LARGE = "payload_too_large" 413 Never Caller;
    /// The body is not JSON by its type.
    MEDIA_TYPE = "unsupported_media_type" 415 Never Caller;
    /// The text is no data document.
    INVALID_REGO = "invalid_rego" 422 Never Caller;
    /// The manifest is wrong.
    INVALID_POLICY_CONTRACT = "invalid_policy_contract" 422 Never Caller;
    /// The documents do not go together.
    INVALID_POLICY_BUNDLE = "invalid_policy_bundle" 422 Never Caller;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
    /// The secret cannot be sealed or opened.
    SECRET_BACKEND = "secret_backend_unavailable" 502 Later Support;
    /// The administrative record cannot be written, and so nothing was done.
    AUDIT_UNAVAILABLE = "audit_unavailable" 503 Later Support;
    /// The store cannot be reached.
    STORE_UNAVAILABLE = "store_unavailable" 503 Later Support;
}
