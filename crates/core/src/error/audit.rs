//! Audit (`audit.md` 1, 4).

crate::error::situations! { Audit;
    /// A parameter of the query does not parse or is out of range.
    BAD_QUERY = "invalid_query" 400 Never Caller;
    /// The operator token is missing or wrong.
    UNAUTHORIZED = "unauthorized" 401 Never Caller;
    /// There is no such route or object, or it hides.
    NOT_FOUND = "not_found" 404 Never Caller;
    /// The path is known, the method is not.
    METHOD = "method_not_allowed" 405 Never Caller;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
    /// The search took too long; narrow it.
    SEARCH_TIMEOUT = "search_timeout" 503 Later Caller;
    /// The ledger cannot be read at the moment.
    UNAVAILABLE = "store_unavailable" 503 Later Support;
}
