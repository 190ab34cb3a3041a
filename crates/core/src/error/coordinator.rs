//! The Coordinator (`coordinator.md` 19).

crate::error::situations! { Coordinator;
    /// A path id is not of the form of ids.
    INVALID_PARAMS = "invalid_params" 400 Never Caller;
    /// The body does not fit the route.
    INVALID_BODY = "invalid_body" 400 Never Caller;
    /// The query does not fit the route.
    INVALID_QUERY = "invalid_query" 400 Never Caller;
    /// The cursor is not one of this list.
    INVALID_CURSOR = "invalid_cursor" 400 Never Caller;
    /// The idempotency key is malformed.
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid" 400 Never Caller;
    /// The idempotency key was sent twice.
    IDEMPOTENCY_KEY_MULTIPLE = "idempotency_key_multiple" 400 Never Caller;
    /// Ending a service needs its lease's generation.
    LEASE_GENERATION_REQUIRED = "lease_generation_required" 400 Never Caller;
    /// A Delegation needs an end.
    DELEGATION_EXPIRY_REQUIRED = "delegation_expiry_required" 400 Never Caller;
    /// The Delegation would have ended already.
    DELEGATION_EXPIRED = "delegation_expired" 400 Never Caller;
    /// A Session cannot delegate to itself.
    SELF_DELEGATION = "self_delegation_denied" 400 Never Caller;
    /// The one resource is not among those of the constraints.
    DELEGATION_RESOURCE_MISMATCH = "delegation_resource_scope_mismatch" 400 Never Caller;
    /// The constraints hold an unknown key.
    INVALID_CONSTRAINT = "invalid_delegation_constraint" 400 Never Caller;
    /// `constraints.resources` is wrong.
    INVALID_RESOURCES = "invalid_resources" 400 Never Caller;
    /// `constraints.max_depth` is wrong.
    INVALID_MAX_DEPTH = "invalid_max_depth" 400 Never Caller;
    /// `constraints.max_hops` is wrong.
    INVALID_MAX_HOPS = "invalid_max_hops" 400 Never Caller;
    /// `constraints.budget` is wrong.
    INVALID_BUDGET = "invalid_budget" 400 Never Caller;
    /// `ttl_seconds` is wrong.
    INVALID_TTL = "invalid_ttl_seconds" 400 Never Caller;
    /// `constraints.policy_approved` is wrong.
    INVALID_POLICY_APPROVED = "invalid_policy_approved" 400 Never Caller;
    /// An expiry is wrong, or too far ahead.
    INVALID_EXPIRES_AT = "invalid_expires_at" 400 Never Caller;
    /// `constraints.broad_reason` is wrong.
    INVALID_BROAD_REASON = "invalid_broad_reason" 400 Never Caller;
    /// No bearer.
    MISSING_TOKEN = "missing_token" 401 Never Caller;
    /// The bearer is no lifecycle mandate.
    INVALID_TOKEN = "invalid_token" 401 Never Caller;
    /// The application or its record is over.
    IDENTITY_REVOKED = "identity_revoked" 401 Never Caller;
    /// The proof of the subject does not hold.
    INVALID_SUBJECT_PROOF = "invalid_subject_proof" 401 Never Caller;
    /// The mandate lacks the lifecycle scope.
    MISSING_SCOPE = "missing_scope" 403 Never Caller;
    /// The mandate is of another zone.
    ZONE_MISMATCH = "zone_mismatch" 403 Never Caller;
    /// The application is not the caller's.
    APPLICATION_OWNERSHIP = "application_ownership_required" 403 Never Caller;
    /// The Delegation's issuer is not the caller's.
    ISSUER_OWNERSHIP = "issuer_ownership_required" 403 Never Caller;
    /// A Delegation without a resource needs a permission.
    BROAD_DELEGATION = "broad_delegation_permission_required" 403 Never Caller;
    /// A scope is declared by none of the resources.
    SCOPES_EXCEED_RESOURCE = "delegation_scopes_exceed_resource" 403 Never Caller;
    /// The parent Delegation is not live.
    PARENT_DELEGATION_INACTIVE = "parent_delegation_not_active" 403 Never Caller;
    /// The Delegation would be wider than its parent.
    EXCEEDS_PARENT = "delegation_exceeds_parent_authority" 403 Never Caller;
    /// The application is not known.
    APPLICATION_NOT_FOUND = "application_not_found" 404 Never Caller;
    /// The Session is not known.
    SESSION_NOT_FOUND = "session_not_found" 404 Never Caller;
    /// The parent Session is not known.
    PARENT_NOT_FOUND = "parent_not_found" 404 Never Caller;
    /// The Delegation is not known.
    DELEGATION_NOT_FOUND = "delegation_not_found" 404 Never Caller;
    /// A Session of the Delegation is not known or not live.
    ENDPOINT_NOT_FOUND = "delegation_endpoint_not_found" 404 Never Caller;
    /// The resource is not known.
    RESOURCE_NOT_FOUND = "resource_not_found" 404 Never Caller;
    /// The route is not known.
    NOT_FOUND = "not_found" 404 Never Caller;
    /// The path is known, the method is not.
    METHOD = "not_found" 405 Never Caller;
    /// The key was used for another request.
    IDEMPOTENCY_CONFLICT = "idempotency_key_conflict" 409 Never Caller;
    /// What the key made is over.
    IDEMPOTENCY_INACTIVE = "idempotency_result_inactive" 409 Never Caller;
    /// A task does not start a service.
    TASK_STARTS_SERVICE = "task_session_cannot_start_service" 409 Never Caller;
    /// The edge to inherit is not live.
    INHERIT_INACTIVE = "inherit_parent_edge_not_active" 409 Never Caller;
    /// Several edges could be inherited.
    INHERIT_AMBIGUOUS = "inherit_parent_edge_ambiguous" 409 Never Caller;
    /// Another holder has the lease.
    LEASE_FENCED = "session_lease_fenced" 409 Never Caller;
    /// The applications are not those of the Sessions.
    APPLICATION_MISMATCH = "delegation_application_mismatch" 409 Never Caller;
    /// Several Delegations could be the parent.
    PARENT_AMBIGUOUS = "parent_delegation_ambiguous" 409 Never Caller;
    /// The target already reaches the source.
    CYCLE = "delegation_cycle_denied" 409 Never Caller;
    /// The body is too large.
    TOO_LARGE = "payload_too_large" 413 Never Caller;
    /// The body is not JSON by its type.
    MEDIA_TYPE = "invalid_request" 415 Never Caller;
    /// The zone has no free slot.
    ZONE_LIMIT = "session_zone_limit_exceeded" 429 Later Operator;
    /// The application has no free slot.
    APPLICATION_LIMIT = "session_limit_exceeded" 429 Later Operator;
    /// The parent has no free slot.
    CHILDREN_LIMIT = "session_children_limit_exceeded" 429 Later Caller;
    /// The tree would be too deep.
    DEPTH_LIMIT = "session_depth_limit_exceeded" 429 Later Caller;
    /// The application holds too many keys.
    RECEIPT_LIMIT = "idempotency_receipt_limit_exceeded" 429 Later Caller;
    /// The Session holds too many offers.
    OFFER_LIMIT = "delegation_offer_limit_exceeded" 429 Later Caller;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
    /// The store, or the zone's keys, cannot be had.
    UNAVAILABLE = "service_unavailable" 503 Later Support;
}
