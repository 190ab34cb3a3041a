//! An audit event as it was sent, and as it is kept (`audit.md` 5.2, 5.3).

use caracal_core::digest::sha256_hex;
use caracal_core::id::EventId;
use caracal_core::jcs::canonical;
use caracal_core::time::Time;
use serde_json::{Map, Value, json};

/// Largest normalised event, in bytes.
const EVENT_BYTES_MAX: usize = 48 * 1024;
/// Largest integer up to which every one is exactly a double. Larger ones are kept as text, also those that would be exact: readers
/// disagree about their digits.
const EXACT: u64 = 1 << 53;
/// Longest id of a zone, a policy set, a version or a manifest, in bytes.
const ID_BYTES_MAX: usize = 256;

/// A normalised event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// The zone, `_platform` or `unknown`.
    pub zone_id: String,
    /// Its type.
    pub event_type: String,
    /// The request it belongs to.
    pub request_id: String,
    /// What was decided.
    pub decision: String,
    /// What became of the evaluation.
    pub evaluation_status: String,
    /// The policy set that decided.
    pub policy_set_id: Option<String>,
    /// Its version.
    pub policy_set_version_id: Option<String>,
    /// The digest of its manifest.
    pub manifest_sha: Option<String>,
    /// Policies that decided.
    pub determining: Value,
    /// What the evaluation said.
    pub diagnostics: Value,
    /// Everything else.
    pub metadata: Option<Value>,
    /// When it happened.
    pub occurred_at: Time,
}

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("json_parse_error:{0}")]
pub struct NotAnEvent(pub String);

impl Event {
    /// Reads and normalises the `data` of a message; `true` beside it when it was too large and lost its values.
    pub fn read(data: &[u8]) -> Result<(Self, bool), NotAnEvent> {
        let fail = |why: &str| NotAnEvent(why.to_owned());
        let value: Value = serde_json::from_slice(&readable(data)).map_err(|e| NotAnEvent(e.to_string()))?;
        let Value::Object(mut members) = clean(value) else { return Err(fail("not an object")) };
        let mut text = |name: &str| {
            members.remove(name).and_then(|v| if let Value::String(t) = v { Some(t) } else { None }).unwrap_or_default()
        };
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
        let mut event = Self {
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
        };
        let size = event.to_value().to_string().len();
        if size <= EVENT_BYTES_MAX {
            return Ok((event, false));
        }
        let stub = json!({"caracal_oversize": size, "sha256": sha256_hex(data)});
        (event.determining, event.diagnostics, event.metadata) = (stub.clone(), stub.clone(), Some(stub));
        Ok((event, true))
    }

    /// The event as it was stored: exactly what [`Event::to_value`] gave, so nothing is normalised again.
    pub fn stored(value: &Value) -> Result<Self, NotAnEvent> {
        let fail = |why: &str| NotAnEvent(why.to_owned());
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let needed = |name: &str| text(name).ok_or_else(|| fail(name));
        let json = |name: &str| value.get(name).cloned();
        Ok(Self {
            id: needed("id")?.parse().map_err(|_| fail("id"))?,
            zone_id: needed("zone_id")?,
            event_type: needed("event_type")?,
            request_id: needed("request_id")?,
            decision: needed("decision")?,
            evaluation_status: needed("evaluation_status")?,
            policy_set_id: text("policy_set_id"),
            policy_set_version_id: text("policy_set_version_id"),
            manifest_sha: text("manifest_sha"),
            determining: json("determining_policies_json").ok_or_else(|| fail("determining_policies_json"))?,
            diagnostics: json("diagnostics_json").ok_or_else(|| fail("diagnostics_json"))?,
            metadata: json("metadata_json"),
            occurred_at: Time::parse_rfc3339(&needed("occurred_at")?).ok_or_else(|| fail("occurred_at"))?,
        })
    }

    /// The event in its wire form, as it is stored and shown.
    pub fn to_value(&self) -> Value {
        let mut members = self.open();
        members.insert("request_id".into(), self.request_id.clone().into());
        members.insert("determining_policies_json".into(), self.determining.clone());
        members.insert("diagnostics_json".into(), self.diagnostics.clone());
        if let Some(metadata) = &self.metadata {
            members.insert("metadata_json".into(), metadata.clone());
        }
        Value::Object(members)
    }

    /// The fields that anyone who may read the log may read.
    pub fn open(&self) -> Map<String, Value> {
        let mut open = Map::new();
        open.insert("id".into(), self.id.to_string().into());
        open.insert("zone_id".into(), self.zone_id.clone().into());
        open.insert("event_type".into(), self.event_type.clone().into());
        open.insert("decision".into(), self.decision.clone().into());
        open.insert("evaluation_status".into(), self.evaluation_status.clone().into());
        open.insert("occurred_at".into(), self.occurred_at.rfc3339_micros().into());
        for (name, value) in [
            ("policy_set_id", &self.policy_set_id),
            ("policy_set_version_id", &self.policy_set_version_id),
            ("manifest_sha", &self.manifest_sha),
        ] {
            if let Some(value) = value {
                open.insert(name.into(), value.clone().into());
            }
        }
        open
    }

    /// The canonical bytes by which a second copy is told from another event with the same id.
    pub fn identity(&self) -> Vec<u8> {
        canonical(&self.to_value())
    }

    /// A member of the metadata, when it is text.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.get(key)?.as_str()
    }
}

/// Rewrites what no JSON reader takes and a signed event may still hold: halves of surrogate pairs become U+FFFD, numbers that are not
/// exactly doubles become the text of their literal. Everything else stays byte for byte.
fn readable(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut i = 0;
    while i < data.len() {
        match data[i] {
            b'"' => i = string(data, i, &mut out),
            b'-' | b'0'..=b'9' => {
                let length = data[i..].iter().position(|b| !matches!(b, b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E'));
                let literal = &data[i..i + length.unwrap_or(data.len() - i)];
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
    let Ok(text) = std::str::from_utf8(literal) else { return true };
    match text.parse::<f64>() {
        // Not a number at all: the reader says so.
        Err(_) => true,
        Ok(double) if !double.is_finite() => false,
        Ok(_) if text.contains(['.', 'e', 'E']) => true,
        Ok(_) => text.trim_start_matches('-').parse::<u64>().is_ok_and(|m| m <= EXACT),
    }
}

/// Takes out what no canonical form exists for: U+0000, and integers that are no doubles.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(clean).collect()),
        Value::Object(members) => Value::Object(members.into_iter().map(|(k, v)| (without_nul(k), clean(v))).collect()),
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_some_and(|m| m > EXACT) { Value::String(number.to_string()) } else { Value::Number(number) }
        }
        other => other,
    }
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<(Event, bool), NotAnEvent> {
        Event::read(
            format!(r#"{{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z","occurred_at":"2026-11-23T11:00:00.1234569+01:00"{more}}}"#)
                .as_bytes(),
        )
    }

    #[test]
    fn an_event_needs_an_id_a_zone_and_a_time() {
        let (event, oversize) = read(r#","event_type":" t ","unknown":1"#).unwrap();
        assert_eq!((event.event_type.as_str(), oversize), ("t", false));
        assert_eq!(event.occurred_at.rfc3339_micros(), "2026-11-23T10:00:00.123456Z");
        assert_eq!((event.determining, event.metadata), (json!([]), None));
        for bad in [r#"{"id":"x"}"#, "[]", "{", r#"{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z"}"#] {
            assert!(Event::read(bad.as_bytes()).unwrap_err().to_string().starts_with("json_parse_error:"), "{bad}");
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
    fn what_was_stored_reads_back_as_itself() {
        let long = format!(
            r#","event_type":"{} {}","policy_set_id":"{}","metadata_json":{{"x":0.014700000000000001,"y":1e300}}"#,
            "t".repeat(127),
            "u",
            "p".repeat(900)
        );
        let (event, _) = read(&long).unwrap();
        assert_eq!(event.policy_set_id.as_ref().unwrap().len(), 256);
        let stored: Value = serde_json::from_str(&event.to_value().to_string()).unwrap();
        assert_eq!(Event::stored(&stored).unwrap(), event);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let (event, _) = read(&format!(r#","event_type":"{}""#, "t".repeat(129))).unwrap();
        assert_eq!((event.event_type.len(), event.metadata), (128, Some(json!({"caracal_truncated": true}))));
        let (event, oversize) = read(&format!(r#","metadata_json":{{"x":"{}"}}"#, "y".repeat(50_000))).unwrap();
        assert!(oversize && event.metadata.unwrap().get("sha256").is_some());
    }
}
