//! `caracal version`: which binary this is.

/// The version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The mode stamped at build time: a source build is `dev`.
pub(crate) const STAMPED_MODE: &str = match option_env!("CARACAL_STAMPED_MODE") {
    Some(mode) => mode,
    None => "dev",
};

/// The commit stamped at build time.
const SHA: &str = match option_env!("CARACAL_STAMPED_SHA") {
    Some(sha) => sha,
    None => "source",
};

/// Prints the version block.
pub(crate) fn run(json: bool) {
    let mode = crate::env::non_empty("CARACAL_MODE").unwrap_or_else(|| STAMPED_MODE.to_owned());
    if json {
        println!("{}", serde_json::json!({"binary": "caracal", "version": VERSION, "mode": mode, "sha": SHA}));
    } else {
        println!("Caracal\n  binary   caracal\n  version  {VERSION}\n  mode     {mode}\n  sha      {SHA}");
    }
}
