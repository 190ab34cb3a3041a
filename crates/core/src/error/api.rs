//! The Api.

crate::error::situations! { Api;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
}
