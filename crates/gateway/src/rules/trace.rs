//! W3C trace context: kept when valid, replaced when not (`gateway.md` 11.2).

use std::fmt::Write;

/// The trace id of a valid `traceparent`.
pub fn trace_id(value: &str) -> Option<&str> {
    let fields: Vec<&str> = value.split('-').collect();
    let [version, trace, parent, flags, more @ ..] = fields.as_slice() else { return None };
    let hex =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let set = |text: &str| text.bytes().any(|b| b != b'0');
    let fine = hex(version, 2)
        && *version != "ff"
        && (*version != "00" || more.is_empty())
        && hex(trace, 32)
        && set(trace)
        && hex(parent, 16)
        && set(parent)
        && hex(flags, 2);
    fine.then_some(*trace)
}

/// A new `traceparent` from random bytes.
pub fn new_traceparent(random: [u8; 24]) -> String {
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    for (i, byte) in random.iter().enumerate() {
        if i == 16 {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text.push_str("-01");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acceptance row 54.
    #[test]
    fn what_is_valid() {
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(trace_id(&format!("00-{trace}-{parent}-01")), Some(trace));
        assert_eq!(trace_id(&format!("01-{trace}-{parent}-01-more")), Some(trace));
        let zeros = "0".repeat(32);
        for bad in [
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{zeros}-{parent}-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-1"),
            String::new(),
        ] {
            assert_eq!(trace_id(&bad), None, "{bad}");
        }
        assert!(trace_id(&new_traceparent([7; 24])).is_some());
    }
}
