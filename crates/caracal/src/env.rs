//! The process environment as the command line reads it; services read theirs through `host`'s typed configuration.

/// A variable of the process; `None` when unset or not text.
pub(crate) fn variable(name: &str) -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "the one place where the command line reads the environment")]
    std::env::var(name).ok()
}

/// A variable that is set to something.
pub(crate) fn non_empty(name: &str) -> Option<String> {
    variable(name).filter(|value| !value.is_empty())
}

/// Every variable that is text, for the typed configuration.
pub(crate) fn all() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}
