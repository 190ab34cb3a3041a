//! The STS (`sts.md` 23).

crate::error::situations! { Sts;
    /// A parameter is malformed, repeated, missing or contradicts another.
    MALFORMED = "invalid_token" 400 Never Caller;
    /// `ttl_seconds` is no number or out of range.
    TTL_RANGE = "invalid_token" 400 Never Caller;
    /// The presented token was refused.
    TOKEN_REFUSED = "invalid_token" 401 Never Caller;
    /// The Application, workload or Gateway did not authenticate.
    CLIENT_REFUSED = "access_denied" 401 Never Caller;
    /// An approval is unknown, does not match or has expired.
    APPROVAL_REFUSED = "access_denied" 401 Never Caller;
    /// Somebody must approve first.
    INTERACTION_REQUIRED = "interaction_required" 401 Never Caller;
    /// Policy, a reference or a limit of a Delegation says no.
    DENIED = "access_denied" 403 Never Operator;
    /// The presented token names no Authority record.
    TOKEN_WITHOUT_RECORD = "invalid_token" 403 Never Caller;
    /// The secret is right, the zone is another.
    ZONE_MISMATCH = "zone_invalid" 403 Never Caller;
    /// The operation is not declared, or the mandate lacks its scope.
    OPERATION = "operation_not_permitted" 403 Never Operator;
    /// The policy's result is not complete.
    POLICY_INCOMPLETE = "policy_eval_failed" 403 Never Operator;
    /// The route, zone or object is not known.
    NOT_FOUND = "resource_not_found" 404 Never Caller;
    /// The path is known, the method is not.
    METHOD = "invalid_token" 405 Never Caller;
    /// The approval is spent.
    APPROVAL_SPENT = "approval_consumed" 409 Never Caller;
    /// The body is larger than 65,536 bytes.
    TOO_LARGE = "payload_too_large" 413 Never Caller;
    /// The media type is not `application/x-www-form-urlencoded`.
    MEDIA_TYPE = "invalid_token" 415 Never Caller;
    /// Too many failures, or every requested resource's mint budget is used up.
    THROTTLED = "provider_rate_limited" 429 Later Caller;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
    /// The provider's credential is not to be had.
    PROVIDER_CREDENTIAL = "http_request_failed" 502 Never Operator;
    /// Store, clock, fence or spool cannot be established.
    UNAVAILABLE = "sts_unavailable" 503 Later Support;
    /// The active policy cannot be evaluated.
    POLICY_FAILED = "policy_eval_failed" 503 Later Support;
}
