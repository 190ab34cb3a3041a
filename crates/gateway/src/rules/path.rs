//! The path and query of a governed call (`gateway.md` 9): refused, or in the one form that goes to the upstream and the one form
//! that is decided on.

/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 8192;
/// Most times a path is decoded to see what it hides.
const STAGES_MAX: usize = 8;

/// A path that may be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafePath {
    /// What goes to the upstream: one spelling of every escape.
    pub forwarded: String,
    /// What is decided on and recorded: every escape decoded except that of the slash.
    pub operation: String,
}

/// Judges a raw path; the text says what is wrong.
pub fn safe_path(raw: &str) -> Result<SafePath, &'static str> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err("the path does not begin with a slash");
    }
    if !bytes.iter().all(|b| (0x21..=0x7e).contains(b) && !b"\\#?".contains(b)) {
        return Err("the path has a character that belongs escaped");
    }
    if !escapes_fine(bytes) {
        return Err("a percent sign in the path is not followed by two hex digits");
    }
    let mut stage = bytes.to_vec();
    let mut first: Option<Vec<u8>> = None;
    for round in 0.. {
        judge_stage(&stage)?;
        let next = decoded(&stage);
        if first.is_none() {
            first = Some(next.clone());
        }
        if next == stage {
            break;
        }
        if round + 1 == STAGES_MAX {
            return Err("the path is escaped too many times");
        }
        stage = next;
    }
    let first = first.unwrap_or_default();
    if slashes(&stage) > slashes(&first) {
        return Err("the path hides a slash");
    }
    let text = std::str::from_utf8(&first).map_err(|_| "the path is not UTF-8")?;
    if text.ends_with(char::is_whitespace) {
        return Err("the path ends in white space");
    }
    let forwarded = canonical(bytes);
    let operation = operation(&forwarded);
    Ok(SafePath { forwarded, operation })
}

/// Whether every `%` is followed by two hex digits.
fn escapes_fine(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().filter(|(_, b)| **b == b'%').all(|(i, _)| escape(bytes, i).is_some())
}

/// The byte that the escape at `i` stands for.
fn escape(bytes: &[u8], i: usize) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(bytes.get(i + 1)?)? << 4 | digit(bytes.get(i + 2)?)?)
}

/// Every valid escape replaced by its byte, once.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i], escape(bytes, i)) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

fn judge_stage(stage: &[u8]) -> Result<(), &'static str> {
    if stage.iter().any(|b| *b < 0x20 || *b == 0x7f || *b == b'\\') {
        return Err("the path hides a control character or a backslash");
    }
    for segment in stage.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        if name == b"." || name == b".." {
            return Err("the path has a dot segment");
        }
    }
    Ok(())
}

#[allow(clippy::naive_bytecount, reason = "a path is short")]
fn slashes(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b'/').count()
}

/// Escapes of unreserved characters decoded, the others in upper case.
fn canonical(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        match (bytes[i], escape(bytes, i)) {
            (b'%', Some(byte)) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    push_escape(&mut out, byte);
                }
                i += 3;
            }
            (byte, _) => {
                out.push(char::from(byte));
                i += 1;
            }
        }
    }
    out
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn operation(forwarded: &str) -> String {
    if !forwarded.contains('%') {
        return forwarded.to_owned();
    }
    let parts: Vec<Vec<u8>> = forwarded.split("%2F").map(|part| decoded(part.as_bytes())).collect();
    // The first stage was UTF-8, and so is each of its parts.
    String::from_utf8(parts.join(&b"%2F"[..])).unwrap_or_default()
}

/// Judges a raw query: visible ASCII without `#`, and names whose escapes are whole.
pub fn query_fine(raw: &str) -> bool {
    raw.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#')
        && raw.split('&').all(|parameter| escapes_fine(parameter.split('=').next().unwrap_or_default().as_bytes()))
}

/// The path at the upstream: its own path, then the call's (`gateway.md` 9.3).
pub fn joined(upstream: &str, forwarded: &str) -> String {
    let upstream = if upstream == "/" { "" } else { upstream };
    match (upstream, forwarded) {
        ("", path) => path.to_owned(),
        (base, "/") => base.to_owned(),
        (base, path) => format!("{}{path}", base.trim_end_matches('/')),
    }
}

/// The query at the upstream: the caller's bytes, unless the upstream or the credential has parameters of its own, which then come
/// first and win over the caller's of the same name.
pub fn merged_query(upstream: Option<&str>, caller: Option<&str>, credential: Option<(&str, &str)>) -> Option<String> {
    let upstream = upstream.filter(|q| !q.is_empty());
    if upstream.is_none() && credential.is_none() {
        return caller.map(str::to_owned);
    }
    let credential_name = credential.map(|(name, _)| name);
    let own: Vec<&str> = upstream.into_iter().flat_map(|q| q.split('&')).filter(|p| !p.is_empty()).collect();
    let own: Vec<&str> = own.into_iter().filter(|p| Some(name_of(p).as_str()) != credential_name).collect();
    let mut taken: Vec<String> = own.iter().map(|p| name_of(p)).collect();
    taken.extend(credential_name.map(str::to_owned));
    let mut parts: Vec<String> = own.into_iter().map(str::to_owned).collect();
    if let Some((name, value)) = credential {
        parts.push(format!("{}={}", encoded(name), encoded(value)));
    }
    let callers = caller.into_iter().flat_map(|q| q.split('&')).filter(|p| !p.is_empty());
    parts.extend(callers.filter(|p| !taken.contains(&name_of(p))).map(str::to_owned));
    Some(parts.join("&"))
}

/// The decoded name of a parameter; bytes that are no text are compared as they stand.
fn name_of(parameter: &str) -> String {
    let raw = parameter.split('=').next().unwrap_or_default().replace('+', " ");
    String::from_utf8(decoded(raw.as_bytes())).unwrap_or(raw)
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(raw: &str) -> Option<(String, String)> {
        safe_path(raw).ok().map(|p| (p.operation, p.forwarded))
    }

    /// Acceptance row 36.
    #[test]
    fn the_path_table() {
        for (raw, operation, forwarded) in [
            ("/", "/", "/"),
            ("/v1/items/", "/v1/items/", "/v1/items/"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/caf%C3%A9", "/café", "/caf%C3%A9"),
            ("/%7Euser", "/~user", "/~user"),
            ("/a!b", "/a!b", "/a!b"),
            ("/a%2fb", "/a%2Fb", "/a%2Fb"),
            ("/100%25", "/100%", "/100%25"),
            ("/a%2541", "/a%41", "/a%2541"),
            ("//admin", "//admin", "//admin"),
            ("/a//b", "/a//b", "/a//b"),
            ("/.env", "/.env", "/.env"),
            ("/foo..bar", "/foo..bar", "/foo..bar"),
            ("/a;v=1/b", "/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(of(raw), Some((operation.to_owned(), forwarded.to_owned())), "{raw}");
        }
        for raw in [
            "",
            "*",
            "a",
            "/a%252Fb",
            "/v1/../admin",
            "/a/.",
            "/v1/./x",
            "/v1/%2e%2e/admin",
            "/v1/%252e%252e/admin",
            "/a%5cb",
            "/a%255cb",
            "/..;/admin",
            "/a%00b",
            "/a%0d%0ab",
            "/%c0%ae%c0%ae/x",
            "/a%FF",
            "/admin%20",
            "/a%zz",
            "/a%4",
            "/a\\b",
            "/a b",
            "/a%7F",
            "/x%E2%80%83",
            "/a%25252525252525252525",
            "/a?b",
            "/%2e%2e%2fx",
            "/..%2fx",
        ] {
            assert_eq!(of(raw), None, "{raw}");
        }
    }

    /// Acceptance row 38.
    #[test]
    fn the_join_table() {
        for (upstream, path, wanted) in [
            ("/", "/tool", "/tool"),
            ("", "/tool", "/tool"),
            ("/", "/", "/"),
            ("/mcp", "/", "/mcp"),
            ("/mcp/", "/", "/mcp/"),
            ("/mcp/", "/tool", "/mcp/tool"),
            ("/base", "/v1/items", "/base/v1/items"),
            ("/base", "/v1/items/", "/base/v1/items/"),
            ("/base", "/a//b", "/base/a//b"),
            ("/", "//admin", "//admin"),
        ] {
            assert_eq!(joined(upstream, path), wanted, "{upstream} {path}");
        }
    }

    /// Acceptance rows 39 to 41.
    #[test]
    fn queries_pass_byte_for_byte_unless_they_meet_others() {
        let raw = "b=2&a=1&a=%2f&flag&s=x+y&u=%C3%A9&z=%zz&y=1;b=2";
        assert!(query_fine(raw));
        assert_eq!(merged_query(None, Some(raw), None).as_deref(), Some(raw));
        assert_eq!(merged_query(None, Some(""), None).as_deref(), Some(""));
        assert_eq!(merged_query(None, None, None), None);
        for bad in ["%zz=1", "a=1#b", "a b=1", "x%4=1"] {
            assert!(!query_fine(bad), "{bad}");
        }
        assert_eq!(merged_query(Some("lang=en"), Some("lang=fr&l%61ng=de&q=1"), None).as_deref(), Some("lang=en&q=1"));
        assert_eq!(
            merged_query(Some("lang=en&key=old"), Some("key=mine&q=a&k%65y=x"), Some(("key", "k 1&"))).as_deref(),
            Some("lang=en&key=k%201%26&q=a")
        );
    }

    proptest! {
        /// Whatever passes is stable: its forwarded form passes too and means the same.
        #[test]
        fn the_forwarded_form_is_a_fixed_point(raw in "/[a-zA-Z0-9%./;~!é-]{0,24}") {
            if let Ok(path) = safe_path(&raw) {
                let again = safe_path(&path.forwarded).unwrap();
                prop_assert_eq!(&again.forwarded, &path.forwarded);
                prop_assert_eq!(&again.operation, &path.operation);
            }
        }

        /// No decoding by an upstream, however often, meets a dot segment.
        #[test]
        fn nothing_climbs(raw in "/(%2e|%2E|\\.|%25|2e|/|%2f|a|;|5c){0,12}") {
            if let Ok(path) = safe_path(&raw) {
                let mut stage = path.forwarded.into_bytes();
                for _ in 0..12 {
                    prop_assert!(judge_stage(&stage).is_ok());
                    stage = decoded(&stage);
                }
            }
        }
    }
}
