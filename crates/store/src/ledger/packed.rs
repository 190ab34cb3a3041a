//! The stored form of an event: what columns do not hold, in few bytes (`docs/decisions/0005-ledger-form.md`).
//!
//! A byte for the form, then the values one after the other, each a tag and what it says. Well-known texts are their number; ids and
//! hex are bytes; a text that was said before, in a column or in this body, is the place where it was. What comes out is, value for
//! value, what went in: a leaf is rebuilt from it.

use caracal_core::event::Event;
use caracal_core::id::EventId;
use caracal_core::time::Time;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::words;

/// The form written now.
const FORM: u8 = 1;
/// Deepest nesting; the reader of events takes no deeper one.
const DEPTH_MAX: usize = 130;
/// Shortest hex that is worth packing, in digits.
const HEX_MIN: usize = 8;
/// Most earlier texts that are looked through; what comes after them is said again.
const SAID_MAX: usize = 512;

/// Tags. From [`tag::SAID`] on a tag carries its number in itself.
mod tag {
    pub(super) const NULL: u8 = 0x00;
    pub(super) const FALSE: u8 = 0x01;
    pub(super) const TRUE: u8 = 0x02;
    /// A whole number.
    pub(super) const WHOLE: u8 = 0x03;
    /// −1 minus a whole number.
    pub(super) const BELOW: u8 = 0x04;
    /// A double.
    pub(super) const DOUBLE: u8 = 0x05;
    pub(super) const TEXT: u8 = 0x06;
    /// The canonical text of a UUID.
    pub(super) const UUID: u8 = 0x07;
    /// Lower-case hex.
    pub(super) const HEX: u8 = 0x08;
    pub(super) const WORD_FAR: u8 = 0x09;
    pub(super) const SAID_FAR: u8 = 0x0a;
    pub(super) const LIST: u8 = 0x0b;
    pub(super) const OBJECT: u8 = 0x0c;
    /// 32 texts said before.
    pub(super) const SAID: u8 = 0x20;
    /// 192 words.
    pub(super) const WORD: u8 = 0x40;
}

/// The columns of an event beside its body. A word's number stands for its text; what has none is in the body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    pub(super) id: EventId,
    pub(super) occurred_at: Time,
    pub(super) event_type: Option<u16>,
    pub(super) decision: Option<u16>,
    pub(super) evaluation_status: Option<u16>,
    pub(super) request_id: String,
    /// Of the metadata: `application_id`.
    pub(super) application_id: Option<String>,
    /// Of the metadata: `agent_session_id`.
    pub(super) session_id: Option<String>,
}

impl Columns {
    /// The columns of an event.
    pub(super) fn of(event: &Event) -> Self {
        let meta = |key| event.meta_text(key).map(str::to_owned);
        Self {
            id: event.id,
            occurred_at: event.occurred_at,
            event_type: words::number(&event.event_type),
            decision: words::number(&event.decision),
            evaluation_status: words::number(&event.evaluation_status),
            request_id: event.request_id.clone(),
            application_id: meta("application_id"),
            session_id: meta("agent_session_id"),
        }
    }

    /// The texts that a body takes as said.
    fn said<'a>(&'a self, zone: &'a str) -> Vec<&'a str> {
        let or_none = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
        vec![zone, &self.request_id, or_none(&self.application_id), or_none(&self.session_id)]
    }
}

/// The body of an event whose columns are `columns`.
pub(super) fn pack(event: &Event, columns: &Columns) -> Vec<u8> {
    let mut packer = Packer { out: Vec::with_capacity(512), said: columns.said(&event.zone_id) };
    packer.out.push(FORM);
    for (text, number) in [
        (&event.event_type, columns.event_type),
        (&event.decision, columns.decision),
        (&event.evaluation_status, columns.evaluation_status),
    ] {
        packer.opt_text(number.is_none().then_some(text));
    }
    for text in [&event.policy_set_id, &event.policy_set_version_id, &event.manifest_sha] {
        packer.opt_text(text.as_deref());
    }
    packer.value(&event.determining);
    packer.value(&event.diagnostics);
    packer.value(event.metadata.as_ref().unwrap_or(&Value::Null));
    packer.out
}

/// The event of a body and its columns; `None` when they are no event.
pub(super) fn unpack(zone: &str, columns: &Columns, body: &[u8]) -> Option<Event> {
    let mut reader = Reader { rest: body, said: columns.said(zone).into_iter().map(str::to_owned).collect() };
    if reader.byte()? != FORM {
        return None;
    }
    let mut word = |number: Option<u16>| match (reader.opt_text()?, number) {
        (None, Some(number)) => words::word(number).map(str::to_owned),
        (Some(text), None) => Some(text),
        _ => None,
    };
    let (event_type, decision, evaluation_status) =
        (word(columns.event_type)?, word(columns.decision)?, word(columns.evaluation_status)?);
    let event = Event {
        id: columns.id,
        zone_id: zone.to_owned(),
        event_type,
        request_id: columns.request_id.clone(),
        decision,
        evaluation_status,
        policy_set_id: reader.opt_text()?,
        policy_set_version_id: reader.opt_text()?,
        manifest_sha: reader.opt_text()?,
        determining: reader.value(0)?,
        diagnostics: reader.value(0)?,
        metadata: Some(reader.value(0)?).filter(|metadata| !metadata.is_null()),
        occurred_at: columns.occurred_at,
    };
    // What says the same in other columns would be found by other questions.
    (reader.rest.is_empty() && Columns::of(&event) == *columns).then_some(event)
}

/// The key by which a text is found: the 16 bytes of an id, or a zero and the text. Never 16 bytes for anything else.
pub(super) fn key_of(text: &str) -> Vec<u8> {
    match uuid_of(text) {
        Some(bytes) => bytes.to_vec(),
        None if text.len() == 15 => [b"\0\0", text.as_bytes()].concat(),
        None => [b"\0", text.as_bytes()].concat(),
    }
}

/// The text of a key; `None` where the text has another.
pub(super) fn text_of(key: &[u8]) -> Option<String> {
    let text = if let Ok(bytes) = key.try_into() {
        uuid_text(bytes)
    } else {
        let text = key.strip_prefix(b"\0")?;
        String::from_utf8(text.strip_prefix(b"\0").unwrap_or(text).to_vec()).ok()?
    };
    (key_of(&text) == key).then_some(text)
}

struct Packer<'e> {
    out: Vec<u8>,
    said: Vec<&'e str>,
}

impl<'e> Packer<'e> {
    fn value(&mut self, value: &'e Value) {
        match value {
            Value::Null => self.out.push(tag::NULL),
            Value::Bool(false) => self.out.push(tag::FALSE),
            Value::Bool(true) => self.out.push(tag::TRUE),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.counted(tag::LIST, items.len());
                for item in items {
                    self.value(item);
                }
            }
            Value::Object(members) => {
                self.counted(tag::OBJECT, members.len());
                for (key, value) in members {
                    self.text(key);
                    self.value(value);
                }
            }
        }
    }

    fn opt_text(&mut self, text: Option<&'e (impl AsRef<str> + ?Sized)>) {
        match text {
            Some(text) => self.text(text.as_ref()),
            None => self.out.push(tag::NULL),
        }
    }

    fn text(&mut self, text: &'e str) {
        match words::number(text) {
            Some(number @ 0..192) => self.out.push(tag::WORD + u8::try_from(number).unwrap_or_default()),
            Some(number) => self.counted(tag::WORD_FAR, number.into()),
            None => match self.said.iter().position(|said| *said == text) {
                Some(at @ 0..32) => self.out.push(tag::SAID + u8::try_from(at).unwrap_or_default()),
                Some(at) => self.counted(tag::SAID_FAR, at),
                None => self.new_text(text),
            },
        }
    }

    fn new_text(&mut self, text: &'e str) {
        if self.said.len() < SAID_MAX {
            self.said.push(text);
        }
        if let Some(bytes) = uuid_of(text) {
            self.out.push(tag::UUID);
            self.out.extend_from_slice(&bytes);
        } else if let Some(bytes) = hex_of(text) {
            self.counted(tag::HEX, bytes.len());
            self.out.extend_from_slice(&bytes);
        } else {
            self.counted(tag::TEXT, text.len());
            self.out.extend_from_slice(text.as_bytes());
        }
    }

    fn number(&mut self, number: &Number) {
        if let Some(whole) = number.as_u64() {
            self.out.push(tag::WHOLE);
            self.varint(whole);
        } else if let Some(negative) = number.as_i64() {
            self.out.push(tag::BELOW);
            self.varint((-1 - negative).unsigned_abs());
        } else {
            self.out.push(tag::DOUBLE);
            self.out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
        }
    }

    fn counted(&mut self, tag: u8, count: usize) {
        self.out.push(tag);
        self.varint(count as u64);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.out.push(number.to_le_bytes()[0]);
    }
}

struct Reader<'b> {
    rest: &'b [u8],
    said: Vec<String>,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A count of things that each take a byte at least.
    fn count(&mut self) -> Option<usize> {
        self.varint().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= self.rest.len())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        let tag = self.byte()?;
        Some(match tag {
            tag::NULL => Value::Null,
            tag::FALSE => Value::Bool(false),
            tag::TRUE => Value::Bool(true),
            tag::WHOLE => self.varint()?.into(),
            tag::BELOW => i64::try_from(self.varint()?).ok().map(|n| -1 - n)?.into(),
            tag::DOUBLE => {
                let bytes = self.bytes(8)?.try_into().ok()?;
                Number::from_f64(f64::from_be_bytes(bytes))?.into()
            }
            tag::LIST => {
                let count = self.count()?;
                Value::Array((0..count).map(|_| self.value(depth + 1)).collect::<Option<_>>()?)
            }
            tag::OBJECT => {
                let count = self.count()?;
                let member = |reader: &mut Self| {
                    let key = reader.byte()?;
                    Some((reader.text(key)?, reader.value(depth + 1)?))
                };
                Value::Object((0..count).map(|_| member(self)).collect::<Option<Map<_, _>>>()?)
            }
            other => self.text(other)?.into(),
        })
    }

    /// A text, or `Some(None)` for none.
    #[allow(clippy::option_option, reason = "no body, no text, a text: three cases")]
    fn opt_text(&mut self) -> Option<Option<String>> {
        match self.byte()? {
            tag::NULL => Some(None),
            tag => self.text(tag).map(Some),
        }
    }

    fn text(&mut self, tag: u8) -> Option<String> {
        let text = match tag {
            tag::WORD.. => return words::word(u16::from(tag - tag::WORD)).map(str::to_owned),
            tag::SAID..tag::WORD => return self.said.get(usize::from(tag - tag::SAID)).cloned(),
            tag::WORD_FAR => return self.varint().and_then(|n| words::word(u16::try_from(n).ok()?)).map(str::to_owned),
            tag::SAID_FAR => return self.varint().and_then(|n| self.said.get(usize::try_from(n).ok()?).cloned()),
            tag::UUID => uuid_text(self.bytes(16)?.try_into().ok()?),
            tag::HEX => {
                let count = self.count()?;
                hex::encode(self.bytes(count)?)
            }
            tag::TEXT => {
                let count = self.count()?;
                std::str::from_utf8(self.bytes(count)?).ok()?.to_owned()
            }
            _ => return None,
        };
        if self.said.len() < SAID_MAX {
            self.said.push(text.clone());
        }
        Some(text)
    }
}

/// The bytes of a UUID's canonical text; nothing for another spelling, which would not come back.
fn uuid_of(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok().map(Uuid::into_bytes)
}

fn uuid_text(bytes: [u8; 16]) -> String {
    Uuid::from_bytes(bytes).as_hyphenated().to_string()
}

fn hex_of(text: &str) -> Option<Vec<u8>> {
    if text.len() < HEX_MIN || text.bytes().any(|b| b.is_ascii_uppercase()) { None } else { hex::decode(text).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "so that a test reads well")]
    fn event(zone: &str, request: &str, texts: [String; 3], values: [Value; 2], metadata: Option<Value>) -> Event {
        let [event_type, decision, status] = texts;
        Event {
            id: "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10".parse().unwrap(),
            zone_id: zone.to_owned(),
            event_type,
            request_id: request.to_owned(),
            decision,
            evaluation_status: status,
            policy_set_id: None,
            policy_set_version_id: Some(zone.to_owned()),
            manifest_sha: Some("9f86d081884c7d65".into()),
            determining: values[0].clone(),
            diagnostics: values[1].clone(),
            metadata,
            occurred_at: Time::from_micros(1_790_000_000_123_456),
        }
    }

    fn back(event: &Event) -> Option<Event> {
        let columns = Columns::of(event);
        unpack(&event.zone_id, &columns, &pack(event, &columns))
    }

    #[test]
    fn what_is_well_known_or_said_before_takes_little() {
        let id = "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f";
        let metadata = json!({"application_id": id, "agent_session_id": id, "jti": "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e10",
            "subject_fingerprint": "befbedc8498059c7", "method": "GET", "latency_ms": 3, "policy_input": {"principal": {"id": id}}});
        let texts = ["token_exchange", "allow", "complete"].map(str::to_owned);
        let event = event(id, id, texts, [json!([{"policy": "mine"}]), json!([])], Some(metadata));
        let packed = pack(&event, &Columns::of(&event));
        // Bytes of texts: an id, two digests in hex, "mine". All else is tags, counts and numbers.
        assert_eq!(packed.len(), 16 + 8 + 8 + 4 + 41, "{packed:02x?}");
        assert_eq!(back(&event).unwrap(), event);
    }

    #[test]
    fn a_key_is_a_text_and_back_and_of_16_bytes_only_for_an_id() {
        for text in [
            "",
            "a",
            "14-characters-",
            "15-characters--",
            "16-characters---",
            "0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10",
            "0195F2AA-7c31-7d4e-a01b-3f6c2d9e8b10",
            "é",
        ] {
            let key = key_of(text);
            assert_eq!(key.len() == 16, text.starts_with("0195f2aa"), "{text}");
            assert_eq!(text_of(&key).as_deref(), Some(text));
        }
        for strange in [&b"no key"[..], b"\0\0a", b"\x000195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10"] {
            assert_eq!(text_of(strange), None);
        }
    }

    #[test]
    fn a_cut_or_altered_body_is_no_event() {
        let event = event(
            "z",
            "r",
            ["t".into(), "allow".into(), "s".into()],
            [json!([1.5, -7]), json!({"a": null})],
            Some(json!({"b": [true, false]})),
        );
        let columns = Columns::of(&event);
        let packed = pack(&event, &columns);
        for cut in 0..packed.len() {
            assert_eq!(unpack("z", &columns, &packed[..cut]), None);
        }
        assert_eq!(unpack("z", &columns, &[&packed[..], &[0]].concat()), None);
        assert_eq!(unpack("z", &Columns { decision: None, ..columns.clone() }, &packed), None);
        assert_eq!(unpack("z", &columns, &vec![tag::LIST; 4096]), None, "neither too deep nor too much is made of it");
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,20}",
            "[0-9a-f]{0,40}",
            "[0-9A-F]{8,16}",
            any::<[u8; 16]>().prop_map(uuid_text),
            any::<[u8; 16]>().prop_map(|b| uuid_text(b).to_uppercase()),
            prop::sample::select(vec!["resource", "allow", "complete", "GET", "said", "said-too"]).prop_map(str::to_owned),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(|f| json!(f)),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            zone in text(), request in text(), texts in [text(), text(), text()], values in [value(), value()],
            metadata in prop::option::of(value().prop_filter("none is none", |v| !v.is_null())),
        ) {
            let event = event(&zone, &request, texts, values, metadata);
            let back = back(&event).unwrap();
            prop_assert_eq!(caracal_core::jcs::canonical(&back.to_value()), caracal_core::jcs::canonical(&event.to_value()));
            prop_assert_eq!(back.to_data(), event.to_data());
            prop_assert_eq!(back, event);
        }

        #[test]
        fn no_bytes_are_too_strange(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let event = event("z", "r", Default::default(), Default::default(), None);
            let _ = unpack("z", &Columns::of(&event), &[&[FORM], &body[..]].concat());
        }
    }
}
