//! How a command fails: one line that says what is wrong and what to do, and an exit code.

use std::fmt;
use std::path::Path;

use caracal_host::config::ConfigErrors;

/// A command's failure. Its text is one line, fit for a person, without secrets.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// The command was called wrongly.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// Something stopped it from starting or going on.
    pub(crate) fn start(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// A file or directory would not do what was needed.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::start(format!("cannot {what} {}: {error}", path.display()))
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        self.code
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::start(errors.to_string().replace('\n', ". "))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text.replace(['\n', '\r'], " "))
    }
}

impl std::error::Error for Failure {}
