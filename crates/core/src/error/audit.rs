//! The Audit.

crate::error::situations! { Audit;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
}
