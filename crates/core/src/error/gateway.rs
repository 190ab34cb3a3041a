//! The Gateway (`gateway.md` 1.4, 3). What the STS refuses passes with the STS's own code.

crate::error::situations! { Gateway;
    /// The request's head is malformed: a repeated header, a bad path or query, a missing resource.
    MALFORMED = "invalid_token" 400 Never Caller;
    /// No bearer mandate was sent.
    MANDATE_MISSING = "invalid_token" 401 Never Caller;
    /// The bearer is no mandate of its zone for the Gateway.
    MANDATE_INVALID = "invalid_token" 401 Never Caller;
    /// The mandate ends in less than 35 seconds, or has ended.
    MANDATE_EXPIRING = "credential_expired_not_renewable" 401 Never Caller;
    /// The mandate was used before.
    MANDATE_REPLAYED = "invalid_token" 401 Never Caller;
    /// What the mandate stands on was revoked.
    MANDATE_REVOKED = "invalid_token" 401 Never Caller;
    /// The mandate is for another request.
    BOUND_REQUEST = "access_denied" 403 Never Caller;
    /// The resource has no upstream under this name.
    NOT_CONFIGURED = "access_denied" 403 Never Operator;
    /// An operator route or object that does not exist, or hides.
    NOT_FOUND = "resource_not_found" 404 Never Caller;
    /// CONNECT and TRACE are not served.
    METHOD = "invalid_token" 405 Never Caller;
    /// The body is larger than allowed.
    TOO_LARGE = "payload_too_large" 413 Never Caller;
    /// The path is longer than 8 KiB.
    PATH_TOO_LONG = "invalid_token" 414 Never Caller;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
    /// The STS cannot be reached, or its answer cannot be used.
    STS_FAILED = "sts_unavailable" 502 Never Support;
    /// The upstream's address, host or directive is refused.
    UPSTREAM_REFUSED = "internal_error" 502 Never Operator;
    /// The upstream cannot be reached, or broke off.
    UPSTREAM_FAILED = "internal_error" 502 Never Operator;
    /// Revocation state, replay memory, evidence or capacity is not to be had.
    UNAVAILABLE = "sts_unavailable" 503 Later Support;
    /// The STS did not answer in time.
    STS_LATE = "sts_unavailable" 504 Never Support;
    /// The upstream did not answer in time.
    UPSTREAM_LATE = "internal_error" 504 Never Operator;
}
