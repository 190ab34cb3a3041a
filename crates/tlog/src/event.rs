//! An audit event as it was sent, and as it is kept (`audit.md` 5.2, 5.3).

use std::borrow::Cow;
use std::sync::Arc;

use caracal_core::digest::sha256_hex;
use caracal_core::event::Event;
use caracal_core::time::Time;
use serde_json::{Map, Value, json};

use crate::canonical::Canonical;

/// Largest normalised event, in bytes.
const EVENT_BYTES_MAX: usize = 48 * 1024;
/// Largest integer up to which every one is exactly a double. Larger ones are kept as text, also those that would be exact: readers
/// disagree about their digits.
const EXACT: u64 = 1 << 53;
/// Longest id of a zone, a policy set, a version or a manifest, in bytes.
const ID_BYTES_MAX: usize = 256;

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("json_parse_error:{0}")]
pub struct NotAnEvent(pub String);

/// An event that was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The event, normalised.
    pub event: Arc<Event>,
    /// Its canonical text.
    pub canonical: Arc<Canonical>,
    /// Whether it was too large and lost its values.
    pub oversize: bool,
}

/// Reads and normalises the `data` of a message.
pub fn read(data: &[u8]) -> Result<Read, NotAnEvent> {
    let event = normalised(data)?;
    let canonical = Canonical::of(&event);
    let size = canonical.text().len();
    if size <= EVENT_BYTES_MAX {
        return Ok(Read { event: event.into(), canonical: canonical.into(), oversize: false });
    }
    let stub = json!({"caracal_oversize": size, "sha256": sha256_hex(data)});
    let event = Event { determining: stub.clone(), diagnostics: stub.clone(), metadata: Some(stub), ..event };
    Ok(Read { canonical: Canonical::of(&event).into(), event: event.into(), oversize: true })
}

fn normalised(data: &[u8]) -> Result<Event, NotAnEvent> {
    let fail = |why: &str| NotAnEvent(why.to_owned());
    let text = readable(data);
    let mut value: Value = serde_json::from_slice(&text).map_err(|e| NotAnEvent(e.to_string()))?;
    if matches!(text, Cow::Owned(_)) {
        without_nul(&mut value);
    }
    let Value::Object(mut members) = value else { return Err(fail("not an object")) };
    let mut text =
        |name: &str| members.remove(name).and_then(|v| if let Value::String(t) = v { Some(t) } else { None }).unwrap_or_default();
    let id = text("id").parse().map_err(|_| fail("id"))?;
    let zone_id = text("zone_id");
    if zone_id.is_empty() || zone_id.len() > ID_BYTES_MAX {
        return Err(fail("zone_id"));
    }
    let occurred_at =
        Time::parse_rfc3339(&text("occurred_at")).filter(|t| t.as_micros() != 0).ok_or_else(|| fail("occurred_at"))?;
    let mut truncated = false;
    let mut cut = |text: String, most: usize| {
        let trimmed = text.trim();
        let short: String = trimmed.chars().take(most).collect();
        truncated |= short.len() < trimmed.len();
        short
    };
    let (event_type, decision, evaluation_status) =
        (cut(text("event_type"), 128), cut(text("decision"), 32), cut(text("evaluation_status"), 128));
    let request_id = cut(text("request_id"), 256);
    let mut present = |t: String| Some(cut(t, ID_BYTES_MAX)).filter(|t| !t.is_empty());
    let (policy_set_id, policy_set_version_id, manifest_sha) =
        (present(text("policy_set_id")), present(text("policy_set_version_id")), present(text("manifest_sha")));
    let mut json = |name: &str| members.remove(name).filter(|v| !v.is_null());
    let determining = json("determining_policies_json").unwrap_or_else(|| json!([]));
    let diagnostics = json("diagnostics_json").unwrap_or_else(|| json!([]));
    let mut metadata = json("metadata_json");
    if truncated {
        let mut map = match metadata {
            Some(Value::Object(map)) => map,
            Some(other) => Map::from_iter([("value".to_owned(), other)]),
            None => Map::new(),
        };
        map.insert("caracal_truncated".into(), true.into());
        metadata = Some(Value::Object(map));
    }
    Ok(Event {
        id,
        zone_id,
        event_type,
        request_id,
        decision,
        evaluation_status,
        policy_set_id,
        policy_set_version_id,
        manifest_sha,
        determining,
        diagnostics,
        metadata,
        occurred_at,
    })
}

/// Rewrites what no JSON reader takes and a signed event may still hold: halves of surrogate pairs become U+FFFD, numbers that are not
/// exactly doubles become the text of their literal. Everything else stays byte for byte.
fn readable(data: &[u8]) -> Cow<'_, [u8]> {
    if is_readable(data) { Cow::Borrowed(data) } else { Cow::Owned(rewritten(data)) }
}

/// Whether nothing is to be rewritten. Every event of ours is such.
fn is_readable(data: &[u8]) -> bool {
    let mut i = 0;
    let mut in_text = false;
    while let Some(byte) = data.get(i) {
        match byte {
            b'"' => in_text = !in_text,
            // A surrogate, or U+0000.
            b'\\' if matches!(&data[i..], [_, b'u', b'd' | b'D', ..] | [_, b'u', b'0', b'0', b'0', b'0', ..]) => return false,
            b'\\' => i += 1,
            b'-' | b'0'..=b'9' if !in_text => {
                let literal = number(&data[i..]);
                if !exactly_a_double(literal) {
                    return false;
                }
                i += literal.len() - 1;
            }
            _ => {}
        }
        i += 1;
    }
    true
}

/// The number that begins here.
fn number(data: &[u8]) -> &[u8] {
    let length = data.iter().position(|b| !matches!(b, b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E'));
    &data[..length.unwrap_or(data.len())]
}

fn rewritten(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut i = 0;
    while i < data.len() {
        match data[i] {
            b'"' => i = string(data, i, &mut out),
            b'-' | b'0'..=b'9' => {
                let literal = number(&data[i..]);
                if exactly_a_double(literal) {
                    out.extend_from_slice(literal);
                } else {
                    out.push(b'"');
                    out.extend_from_slice(literal);
                    out.push(b'"');
                }
                i += literal.len();
            }
            other => {
                out.push(other);
                i += 1;
            }
        }
    }
    out
}

/// Copies a string that begins at `i`; gives the place behind it.
fn string(data: &[u8], mut i: usize, out: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        let digits = data.get(at..at + 6).filter(|d| d.starts_with(b"\\u"))?;
        u32::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    out.push(data[i]);
    i += 1;
    while i < data.len() {
        match (data[i], unit(i)) {
            (b'"', _) => {
                out.push(b'"');
                return i + 1;
            }
            (_, Some(0xd800..=0xdbff)) if unit(i + 6).is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) => {
                out.extend_from_slice(&data[i..i + 12]);
                i += 12;
            }
            (_, Some(0xd800..=0xdfff)) => {
                out.extend_from_slice(b"\\ufffd");
                i += 6;
            }
            (b'\\', _) => {
                out.extend_from_slice(&data[i..(i + 2).min(data.len())]);
                i += 2;
            }
            (other, _) => {
                out.push(other);
                i += 1;
            }
        }
    }
    i
}

/// Whether a number's literal stands for a double: a fraction is what it rounds to, as for everybody; an integer must be exact, and
/// nothing may be infinite.
fn exactly_a_double(literal: &[u8]) -> bool {
    // Fifteen digits always are.
    if literal.len() <= 15 && literal.iter().all(|b| matches!(b, b'-' | b'0'..=b'9')) {
        return true;
    }
    let Ok(text) = std::str::from_utf8(literal) else { return true };
    match text.parse::<f64>() {
        // Not a number at all: the reader says so.
        Err(_) => true,
        Ok(double) if !double.is_finite() => false,
        Ok(_) if text.contains(['.', 'e', 'E']) => true,
        Ok(_) => text.trim_start_matches('-').parse::<u64>().is_ok_and(|m| m <= EXACT),
    }
}

/// Takes U+0000 out of every text and key; where two keys become one, the last has the word.
fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|c| c != '\0'),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            members.values_mut().for_each(without_nul);
            if members.keys().any(|key| key.contains('\0')) {
                *members = std::mem::take(members).into_iter().map(|(key, value)| (key.replace('\0', ""), value)).collect();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use caracal_core::event::{AuditEvent, Verdict};

    use super::*;

    fn read(more: &str) -> Result<(Event, bool), NotAnEvent> {
        super::read(
            format!(r#"{{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z","occurred_at":"2026-11-23T11:00:00.1234569+01:00"{more}}}"#)
                .as_bytes(),
        )
        .map(|read| (Arc::unwrap_or_clone(read.event), read.oversize))
    }

    #[test]
    fn an_event_needs_an_id_a_zone_and_a_time() {
        let (event, oversize) = read(r#","event_type":" t ","unknown":1"#).unwrap();
        assert_eq!((event.event_type.as_str(), oversize), ("t", false));
        assert_eq!(event.occurred_at.rfc3339_micros(), "2026-11-23T10:00:00.123456Z");
        assert_eq!((event.determining, event.metadata), (json!([]), None));
        for bad in [r#"{"id":"x"}"#, "[]", "{", r#"{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z"}"#] {
            assert!(super::read(bad.as_bytes()).unwrap_err().to_string().starts_with("json_parse_error:"), "{bad}");
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_replaced() {
        let (event, _) =
            read(r#","request_id":"a\u0000b","metadata_json":{"k\u0000":9007199254740993,"x":9007199254740994,"y":[null]}"#)
                .unwrap();
        assert_eq!(event.request_id, "ab");
        assert_eq!(event.metadata, Some(json!({"k":"9007199254740993","x":"9007199254740994","y":[null]})));
    }

    /// `audit.md` acceptance row 9.
    #[test]
    fn what_no_reader_takes_is_kept_as_text() {
        let (event, _) =
            read(r#","request_id":"a\ud800b\\ud800\ud83d\ude00","metadata_json":{"big":1e400,"int":123456789012345678901,"f":0.014700000000000001,"s":"-1e999"}"#)
                .unwrap();
        assert_eq!(event.request_id, "a\u{fffd}b\\ud800\u{1f600}");
        assert_eq!(
            event.metadata,
            Some(json!({"big":"1e400","int":"123456789012345678901","f":0.014_700_000_000_000_001,"s":"-1e999"}))
        );
    }

    #[test]
    fn what_an_emitter_of_ours_signed_is_made_again() {
        let at = Time::from_micros(1_790_000_000_123_456);
        let id = "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap();
        let bare = AuditEvent::new(id, "z".into(), "token_exchange", Verdict::Deny, "complete", at);
        for event in [bare.clone(), bare.with("x", 0.014_700_000_000_000_001).with("é", "\u{e000}\n").with("n", json!([null, -1]))]
        {
            let data = event.to_data();
            assert_eq!(super::read(&data).unwrap().event.to_data(), data);
        }
        let spelt_otherwise =
            br#"{"zone_id":"z", "id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","occurred_at":"2026-11-23T10:00:00Z"}"#;
        assert_ne!(super::read(spelt_otherwise).unwrap().event.to_data(), spelt_otherwise);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let (event, _) = read(&format!(r#","event_type":"{}""#, "t".repeat(129))).unwrap();
        assert_eq!((event.event_type.len(), event.metadata), (128, Some(json!({"caracal_truncated": true}))));
        let (event, oversize) = read(&format!(r#","metadata_json":{{"x":"{}"}}"#, "y".repeat(50_000))).unwrap();
        assert!(oversize && event.metadata.unwrap().get("sha256").is_some());
    }
}
