//! The Coordinator.

crate::error::situations! { Coordinator;
    /// An unexpected failure.
    INTERNAL = "internal_error" 500 Never Support;
}
