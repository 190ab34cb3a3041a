//! The Gateway.

crate::error::situations! { Gateway;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
}
