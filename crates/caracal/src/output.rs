//! What people read: marks and colours on a terminal, plain text elsewhere (`cli.md` 1.2).

use std::io::IsTerminal;

use caracal_host::World;
use caracal_host::config::{Key, Sources};
use caracal_host::telemetry::{self, Form, Settings};

/// How lines are dressed on one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colour: bool,
    utf8: bool,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It worked.
    Done,
    /// It did not.
    Failed,
    /// Good to know.
    Info,
    /// It begins.
    Step,
}

/// Starts the log on standard error: lines for people on a terminal, JSON elsewhere.
pub(crate) fn log(sources: &Sources, world: &World) -> impl Sized + use<> {
    let given = |name: &'static str| sources.value(&Key::new(name, "")).ok().flatten().map(|value| value.text.to_string());
    let settings = Settings {
        form: Form::detect(std::io::stderr().is_terminal()),
        level: given("LOG_LEVEL").unwrap_or_else(|| "info".to_owned()),
        version: crate::version::VERSION.to_owned(),
        environment: given("CARACAL_ENV").unwrap_or_else(|| "development".to_owned()),
        hostname: given("HOSTNAME").unwrap_or_default(),
        field_bytes: given("CARACAL_LOG_MAX_FIELD_BYTES").and_then(|text| text.parse().ok()).unwrap_or(8192),
        queue: 16_384,
    };
    telemetry::init(settings, world.clone())
}

impl Style {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(std::io::stdout().is_terminal())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(std::io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name: &str| crate::env::variable(name).is_some_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
        let off = set("NO_COLOR") || set("CARACAL_NO_COLOR");
        let on = set("FORCE_COLOR") || set("CARACAL_COLOR");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|n| crate::env::variable(n).filter(|v| !v.is_empty()));
        let utf8 = locale.is_none_or(|l| l.to_ascii_lowercase().replace('-', "").contains("utf8"));
        Self { colour: !off && (on || terminal), utf8 }
    }

    /// A line's mark.
    pub(crate) fn mark(self, mark: Mark) -> String {
        let (sign, ascii, code) = match mark {
            Mark::Done => ("✓", "+", "32"),
            Mark::Failed => ("✗", "x", "31"),
            Mark::Info => ("ℹ", "i", "36"),
            Mark::Step => ("→", ">", "36"),
        };
        self.paint(code, if self.utf8 { sign } else { ascii })
    }

    /// Text that stands out.
    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text that stands back.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A table: header, dashes, padded columns; `(no rows)` when empty.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "(no rows)\n".to_owned();
    }
    let width =
        |column: usize| rows.iter().map(|r| r[column].chars().count()).chain([header[column].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut header.iter().map(|h| (*h).to_owned()));
    text += &line(&mut widths.iter().map(|w| "-".repeat(*w)));
    for row in rows {
        text += &line(&mut row.iter().cloned());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_padded_and_an_empty_one_says_so() {
        let rows = vec![vec!["sts".to_owned(), "8080".to_owned()], vec!["coordinator".to_owned(), "-".to_owned()]];
        assert_eq!(table(&["service", "port"], &rows), "service      port\n-----------  ----\nsts          8080\ncoordinator  -\n");
        assert_eq!(table(&["service"], &[]), "(no rows)\n");
    }
}
