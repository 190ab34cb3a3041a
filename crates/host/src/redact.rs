//! What must not leave in a log line, taken out on the way.

use std::borrow::Cow;

/// Replaces bearer values, JSON web tokens, generated secrets and PEM keys by `[redacted]`.
pub fn redact(text: &str) -> Cow<'_, str> {
    // Nearly every line passes here untouched, so the cheap question comes first.
    if !["earer ", "eyJ", "cs_", "ws_", "-----BEGIN", "secret=", "token=", "password=", "://"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let Some((keep, cut)) = next_secret(rest) else {
            out.push_str(rest);
            break;
        };
        out.push_str(&rest[..keep]);
        out.push_str("[redacted]");
        rest = &rest[keep + cut..];
    }
    Cow::Owned(out)
}

/// Where the first secret begins and how long it is.
fn next_secret(text: &str) -> Option<(usize, usize)> {
    let mut first: Option<(usize, usize)> = None;
    let mut offer = |start: usize, length: usize| {
        if length > 0 && first.is_none_or(|(s, _)| start < s) {
            first = Some((start, length));
        }
    };
    for mark in ["Bearer ", "bearer ", "secret=", "token=", "password="] {
        if let Some(at) = text.find(mark) {
            let start = at + mark.len();
            let length = text[start..].find(|c: char| c.is_whitespace() || "\"'&,;".contains(c)).unwrap_or(text.len() - start);
            // A replaced value is not replaced again.
            if !text[start..].starts_with("[redacted]") {
                offer(start, length);
            }
        }
    }
    if let Some((start, length)) = find_run(text, "eyJ", |c| c.is_ascii_alphanumeric() || "-_.".contains(c), 24) {
        offer(start, length);
    }
    for prefix in ["cs_", "ws_"] {
        if let Some((start, length)) = find_run(text, prefix, |c| c.is_ascii_alphanumeric() || "-_".contains(c), 30) {
            offer(start, length);
        }
    }
    if let Some(start) = text.find("-----BEGIN") {
        let length =
            text[start..].find("-----END").and_then(|end| text[start + end + 8..].find("-----").map(|tail| end + 8 + tail + 5));
        offer(start, length.unwrap_or(text.len() - start));
    }
    if let Some((start, length)) = url_password(text) {
        offer(start, length);
    }
    first
}

fn find_run(text: &str, prefix: &str, part: impl Fn(char) -> bool, least: usize) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find(prefix) {
        let start = from + at;
        let length = text[start..].find(|c| !part(c)).unwrap_or(text.len() - start);
        if length >= least {
            return Some((start, length));
        }
        from = start + prefix.len();
    }
    None
}

/// The password in `scheme://user:password@host`.
fn url_password(text: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let end = text[start..].find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).map_or(text.len(), |n| start + n);
        if let Some(sign) = text[start..end].rfind('@')
            && let Some(colon) = text[start..start + sign].find(':')
            && &text[start + colon + 1..start + sign] != "[redacted]"
        {
            return Some((start + colon + 1, sign - colon - 1));
        }
        from = start;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, want) in [
            ("nothing here", "nothing here"),
            ("sent Bearer abc.def to x", "sent Bearer [redacted] to x"),
            ("got eyJhbGciOiJFUzI1NiIs.eyJzdWIiOiJ4In0.c2ln!", "got [redacted]!"),
            ("eyJ short", "eyJ short"),
            (
                "postgres://caracal:hunter2@db:5432/x and redis://:pw@r/",
                "postgres://caracal:[redacted]@db:5432/x and redis://:[redacted]@r/",
            ),
            ("https://host/path", "https://host/path"),
            ("?token=abc&x=1", "?token=[redacted]&x=1"),
            ("a cs_0123456789abcdef0123456789abcdef b", "a [redacted] b"),
            ("-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n", "[redacted]\n"),
        ] {
            assert_eq!(redact(text), want);
        }
    }
}
