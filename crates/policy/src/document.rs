//! Is this text a data document? The lexical validator of `policy.md` 3.2, step by step, then the engine's parser.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::engine::{Rules, Trouble};
use crate::tables::NAMES;

/// Longest document, in UTF-16 code units.
const MAX: usize = 262_144;

/// Builtins with an effect or with a memory of the world: refused wherever they are called.
pub(crate) const FORBIDDEN: [&str; 9] = [
    "http.send",
    "net.lookup_ip_addr",
    "net.cidr_contains",
    "net.cidr_intersects",
    "net.cidr_expand",
    "net.cidr_merge",
    "opa.runtime",
    "rand.intn",
    "time.now_ns",
];

/// Why a text is no data document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct Invalid {
    /// The code, `error_description` on the wire.
    pub code: String,
    /// Line, from 1, where the engine knows it.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Whether the lexical steps refused it, or the engine.
    pub lexical: bool,
}

fn no(code: impl Into<String>) -> Invalid {
    Invalid { code: code.into(), line: None, column: None, lexical: true }
}

/// Validates a text on its own: lexically, then by the engine's parser.
pub fn validate(text: &str) -> Result<(), Invalid> {
    lexical(text)?;
    if text.contains('\0') {
        return Err(Invalid { lexical: false, ..no("syntax_error: a text holds no NUL") });
    }
    Rules::new().add("document", text).map(|_| ()).map_err(|trouble| match trouble {
        Trouble::OverBound => Invalid { lexical: false, ..no(format!("syntax_error: {trouble}")) },
        Trouble::Refused { message, line, column } => {
            Invalid { code: format!("syntax_error: {message}"), line, column, lexical: false }
        }
    })
}

/// What a text is seen to define and to read, without evaluating it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    package: &'static str,
    rules: BTreeSet<String>,
    default_result: bool,
    decisions: BTreeSet<String>,
    inputs_referenced: BTreeSet<String>,
    data_referenced: BTreeSet<String>,
}

/// The preview of a text that was found valid.
pub fn preview(text: &str) -> Preview {
    let blank = blanked(text).unwrap_or_default();
    Preview {
        package: "caracal.authz",
        rules: rule_names(&blank).into_iter().map(str::to_owned).collect(),
        default_result: false,
        decisions: decisions(text),
        inputs_referenced: paths(&blank, "input."),
        data_referenced: paths(&blank, "data."),
    }
}

/// Values of `"decision": "allow"` and `"deny"` pairs, wherever they occur.
fn decisions(text: &str) -> BTreeSet<String> {
    let value = |rest: &str| {
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        ["allow", "deny"]
            .into_iter()
            .find(|word| rest.strip_prefix('"').and_then(|r| r.strip_prefix(word)).is_some_and(|r| r.starts_with('"')))
    };
    text.split("\"decision\"").skip(1).filter_map(value).map(str::to_owned).collect()
}

/// Dotted paths that start with `root`.
fn paths(blank: &str, root: &str) -> BTreeSet<String> {
    let path = |(at, _): (usize, &str)| {
        let within = blank[..at].chars().next_back().is_some_and(|c| is_word(c) || c == '.');
        let rest = &blank[at..];
        let end = rest.find(|c: char| !is_word(c) && c != '.').unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('.');
        (!within && path.len() > root.len()).then(|| path.to_owned())
    };
    blank.match_indices(root).filter_map(path).collect()
}

/// The lexical steps; stops at the first failure.
pub fn lexical(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(no("empty_policy"));
    }
    if text.encode_utf16().count() > MAX {
        return Err(no("content_too_large"));
    }
    let blank = blanked(text)?;
    if !balanced(&blank) {
        return Err(no("unbalanced_delimiters"));
    }
    let package = package(&blank).ok_or_else(|| no("missing_package_declaration"))?;
    if !package.split('.').all(is_identifier) {
        return Err(no("invalid_package_name"));
    }
    for name in FORBIDDEN {
        if calls(&blank, name) {
            return Err(no(format!("forbidden_builtin:{name}")));
        }
    }
    if package != "caracal.authz" {
        return Err(no("must_use_package_caracal_authz"));
    }
    if !text.lines().any(is_marker) {
        return Err(no("must_be_data_document"));
    }
    let names = rule_names(&blank);
    if names.contains(&"result") {
        return Err(no("data_document_must_not_define_result"));
    }
    if names.is_empty() {
        return Err(no("data_document_must_define_data"));
    }
    match names.iter().find(|name| !NAMES.contains(name)) {
        Some(name) => Err(no(format!("data_document_rule_not_allowed:{name}"))),
        None => Ok(()),
    }
}

/// Comments gone, strings one space each.
pub(crate) fn blanked(text: &str) -> Result<String, Invalid> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' => {
                if chars.by_ref().any(|c| c == '\n') {
                    out.push('\n');
                }
            }
            '"' => {
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => {
                            chars.next();
                        }
                        None | Some('\n') => return Err(no("unterminated_string")),
                        Some(_) => {}
                    }
                }
                out.push(' ');
            }
            '`' => {
                if !chars.by_ref().any(|c| c == '`') {
                    return Err(no("unterminated_string"));
                }
                out.push(' ');
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn balanced(text: &str) -> bool {
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(wanted) {
                    return false;
                }
            }
            _ => {}
        }
    }
    open.is_empty()
}

fn package(blank: &str) -> Option<&str> {
    blank.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix("package")?;
        let name = rest.trim_start();
        if name.len() == rest.len() {
            return None;
        }
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(name.len());
        (end > 0).then(|| &name[..end])
    })
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(is_word)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn calls(blank: &str, name: &str) -> bool {
    blank.match_indices(name).any(|(at, _)| {
        let before = blank[..at].chars().next_back();
        let after = blank[at + name.len()..].trim_start();
        !before.is_some_and(|c| is_word(c) || c == '.') && after.starts_with('(')
    })
}

fn is_marker(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix('#') else { return false };
    let Some(rest) = comment.trim_start_matches([' ', '\t']).strip_prefix("caracal:data-document") else { return false };
    !rest.chars().next().is_some_and(is_word)
}

fn rule_names(blank: &str) -> Vec<&str> {
    blank.lines().filter_map(rule_name).collect()
}

fn rule_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("default").filter(|rest| rest.starts_with([' ', '\t'])).map_or(line, str::trim_start);
    let end = line.find(|c: char| !is_word(c)).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(end);
    if !is_identifier(name) || matches!(name, "package" | "import" | "else" | "with") {
        return None;
    }
    let spaced = rest.trim_start();
    if let Some(arguments) = spaced.strip_prefix('(') {
        rest = &arguments[arguments.find(')')? + 1..];
    }
    let rest = rest.trim_start();
    let word = |w: &str| rest.strip_prefix(w).is_some_and(|after| after.starts_with(char::is_whitespace));
    (rest.starts_with(":=") || rest.starts_with('=') || rest.starts_with('{') || word("contains") || word("if")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validator_vectors_hold() {
        let m = "# caracal:data-document\npackage caracal.authz\n";
        let rows: &[(String, &str)] = &[
            (format!("{m}grants := {{}}"), ""),
            (format!("{m}import rego.v1\napp_ids := {{\"a\":\"a\"}}\ngrants := {{}}\n"), ""),
            ("#caracal:data-document\npackage caracal.authz\ngrants := {}".into(), ""),
            ("package caracal.authz\n  # caracal:data-document extra words\ngrants := {}".into(), ""),
            ("# caracal:data-documents\npackage caracal.authz\ngrants := {}".into(), "must_be_data_document"),
            ("# caracal:data-document-x\npackage caracal.authz\ngrants := {}".into(), ""),
            ("package caracal.authz\ngrants := {}".into(), "must_be_data_document"),
            ("package caracal.authz\ngrants := {} # caracal:data-document".into(), "must_be_data_document"),
            ("# caracal:data-document\npackage caracal.authz2\ngrants := {}".into(), "must_use_package_caracal_authz"),
            ("# caracal:data-document\ngrants := {}".into(), "missing_package_declaration"),
            ("# caracal:data-document\npackage 1abc\ngrants := {}".into(), "invalid_package_name"),
            ("# caracal:data-document\npackage caracal.authz.\ngrants := {}".into(), "invalid_package_name"),
            (format!("{m}grants := {{"), "unbalanced_delimiters"),
            (format!("{m}grants := {{[}}]"), "unbalanced_delimiters"),
            (format!("{m}# }}\ngrants := {{\"a}}\": 1}}"), ""),
            (format!("{m}grants := {{\"a\n\": 1}}"), "unterminated_string"),
            (format!("{m}grants := {{`a\nb`: 1}}"), ""),
            (format!("{m}grants := {{\"a\\\"\": 1}}"), ""),
            (format!("{m}grants := \"a"), "unterminated_string"),
            (format!("{m}grants := {{}}\nresult := {{}}"), "data_document_must_not_define_result"),
            (format!("{m}grants := {{}}\ndefault result := {{}}"), "data_document_must_not_define_result"),
            (format!("{m}grants := {{}}\nhelper if true"), "data_document_rule_not_allowed:helper"),
            (format!("{m}grants := {{}}\nf(x) := 1"), "data_document_rule_not_allowed:f"),
            (format!("{m}default grants := {{}}"), ""),
            (m.to_owned(), "data_document_must_define_data"),
            (format!("{m}grants[\"r\"] := {{}}"), "data_document_must_define_data"),
            (format!("{m}app_ids := {{}}\ngrants[\"r\"] := {{}}"), ""),
            (format!("{m}app_ids := {{}}\nhelper[\"r\"] := {{}}"), ""),
            (format!("{m}restrict contains \"freeze\""), ""),
            (format!("{m}restrict contains \"x\" if {{ input.action.method == \"DELETE\" }}"), ""),
            (format!("{m}restrict contains \"x\" if {{\n  m := input.action.method\n}}"), "data_document_rule_not_allowed:m"),
            (format!("{m}restrict contains \"x\" if {{\n  m == \"DELETE\"\n}}"), "data_document_rule_not_allowed:m"),
            (format!("{m}grants := http.send({{}})"), "forbidden_builtin:http.send"),
            (format!("{m}grants := time.now_ns ()"), "forbidden_builtin:time.now_ns"),
            (format!("{m}grants := {{\"http.send(\": 1}}"), ""),
            (format!("{m}grants := data.http.send"), ""),
            ("package other\ngrants := opa.runtime()".into(), "forbidden_builtin:opa.runtime"),
            ("grants := {".into(), "unbalanced_delimiters"),
            (format!("{m}grants := {{}}\n#{}", "x".repeat(262_145)), "content_too_large"),
            (String::new(), "empty_policy"),
        ];
        for (row, (text, wanted)) in rows.iter().enumerate() {
            let code = lexical(text).err().map(|e| e.code).unwrap_or_default();
            assert_eq!(&code, wanted, "row {}", row + 1);
        }
    }
}
