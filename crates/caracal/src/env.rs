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

/// Whether a name of the TOML file is a variable of ours.
pub(crate) fn known(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let tables = [
        caracal_host::config::COMMON,
        caracal_sts::KEYS,
        caracal_gateway::KEYS,
        caracal_coordinator::KEYS,
        caracal_audit::KEYS,
        caracal_api::KEYS,
        caracal_stream::spool::KEYS,
        crate::stack::ground::KEYS,
    ];
    tables.into_iter().flatten().any(|key| key.name == upper || format!("{}_FILE", key.name) == upper)
}

/// Every variable that is text, for the typed configuration.
pub(crate) fn all() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}
