//! The canonical text of an event (JCS), written once: its size decides what is kept, its pieces are what the leaf commits to, and two
//! events are the same when their texts are.

use std::borrow::Cow;
use std::ops::Range;

use caracal_core::event::Event;
use caracal_core::jcs;
use serde_json::Value;

/// Most metadata keys with a digest of their own.
const KEYS_MAX: usize = 128;
/// Longest such key.
const KEY_BYTES_MAX: usize = 64;

/// An event's canonical text, and where in it the parts of the leaf lie.
#[derive(Clone, Debug)]
pub struct Canonical {
    text: Vec<u8>,
    /// `"name":value` of the open fields, in canonical order.
    open: Vec<Range<usize>>,
    determining: Range<usize>,
    diagnostics: Range<usize>,
    request_id: Range<usize>,
    metadata: Metadata,
}

#[derive(Clone, Debug)]
enum Metadata {
    Absent,
    Object(Vec<Member>),
    Other(Range<usize>),
}

#[derive(Clone, Debug)]
struct Member {
    /// `"key":value`.
    whole: Range<usize>,
    /// The value.
    value: Range<usize>,
    /// Whether the key names a path of its own: then its text is the key.
    plain: bool,
}

impl Member {
    const fn key(&self) -> Range<usize> {
        self.whole.start + 1..self.value.start - 2
    }
}

/// Two events are the same when their canonical texts are.
impl PartialEq for Canonical {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A field that the leaf commits to by a digest.
#[derive(Debug)]
pub struct Closed<'c> {
    /// First part of its path.
    pub family: &'static str,
    /// The rest of its path.
    pub key: &'c [u8],
    /// Its value's canonical text.
    pub value: Cow<'c, [u8]>,
}

impl Canonical {
    /// The canonical text of `event`.
    pub fn of(event: &Event) -> Self {
        let mut text = Vec::with_capacity(2048);
        let mut open = Vec::with_capacity(9);
        text.push(b'{');
        let mut member = |text: &mut Vec<u8>, name: &str, value: &str| {
            let from = name_of(text, name);
            jcs::write_text(value, text);
            open.push(from..text.len());
        };
        member(&mut text, "decision", &event.decision);
        let determining = closed(&mut text, "determining_policies_json", &event.determining);
        let diagnostics = closed(&mut text, "diagnostics_json", &event.diagnostics);
        member(&mut text, "evaluation_status", &event.evaluation_status);
        member(&mut text, "event_type", &event.event_type);
        member(&mut text, "id", &event.id.to_string());
        if let Some(manifest) = &event.manifest_sha {
            member(&mut text, "manifest_sha", manifest);
        }
        let metadata = event.metadata.as_ref().map_or(Metadata::Absent, |metadata| metadata_of(&mut text, metadata));
        member(&mut text, "occurred_at", &event.occurred_at.rfc3339_micros());
        if let Some(set) = &event.policy_set_id {
            member(&mut text, "policy_set_id", set);
        }
        if let Some(version) = &event.policy_set_version_id {
            member(&mut text, "policy_set_version_id", version);
        }
        name_of(&mut text, "request_id");
        let from = text.len();
        jcs::write_text(&event.request_id, &mut text);
        let request_id = from..text.len();
        member(&mut text, "zone_id", &event.zone_id);
        text.push(b'}');
        Self { text, open, determining, diagnostics, request_id, metadata }
    }

    /// The whole text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The open fields, each `"name":value`, in canonical order.
    pub fn open(&self) -> impl Iterator<Item = &[u8]> {
        self.open.iter().map(|range| &self.text[range.clone()])
    }

    /// The closed fields in the order of their paths (`audit.md` 18.2). `folded` puts all metadata under one.
    pub fn closed(&self, folded: bool) -> Vec<Closed<'_>> {
        let whole = |family, range: &Range<usize>| Closed { family, key: b"", value: Cow::Borrowed(&self.text[range.clone()]) };
        let mut fields = vec![whole("determining_policies", &self.determining), whole("diagnostics", &self.diagnostics)];
        match &self.metadata {
            Metadata::Absent => {}
            Metadata::Other(range) => fields.push(whole("metadata", range)),
            Metadata::Object(members) => {
                let mut rest = Vec::new();
                let mut own = 0;
                for member in members {
                    if member.plain && !folded && own < KEYS_MAX {
                        own += 1;
                        let (key, value) = (&self.text[member.key()], Cow::Borrowed(&self.text[member.value.clone()]));
                        fields.push(Closed { family: "metadata/", key, value });
                    } else {
                        rest.push(if rest.is_empty() { b'{' } else { b',' });
                        rest.extend_from_slice(&self.text[member.whole.clone()]);
                    }
                }
                if !rest.is_empty() {
                    rest.push(b'}');
                    fields.push(Closed { family: "metadata/~", key: b"", value: Cow::Owned(rest) });
                }
            }
        }
        fields.push(whole("request_id", &self.request_id));
        fields
    }
}

/// Begins a member; gives where it begins.
fn name_of(text: &mut Vec<u8>, name: &str) -> usize {
    if text.last() != Some(&b'{') {
        text.push(b',');
    }
    let from = text.len();
    jcs::write_text(name, text);
    text.push(b':');
    from
}

fn closed(text: &mut Vec<u8>, name: &str, value: &Value) -> Range<usize> {
    name_of(text, name);
    let from = text.len();
    jcs::write(value, text);
    from..text.len()
}

fn metadata_of(text: &mut Vec<u8>, metadata: &Value) -> Metadata {
    let Value::Object(members) = metadata else { return Metadata::Other(closed(text, "metadata_json", metadata)) };
    name_of(text, "metadata_json");
    text.push(b'{');
    let members = jcs::sorted(members)
        .into_iter()
        .map(|(key, value)| {
            let from = name_of(text, key);
            let at = text.len();
            jcs::write(value, text);
            let plain =
                (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            Member { whole: from..text.len(), value: at..text.len(), plain }
        })
        .collect();
    text.push(b'}');
    Metadata::Object(members)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::leaf::tests::example;

    #[test]
    fn the_text_is_that_of_another_implementation_and_the_pieces_are_where_they_should_be() {
        let (mut event, ..) = example().remove(0);
        for metadata in [
            None,
            Some(json!({})),
            Some(json!([1])),
            Some(json!({"b": "\u{e000}", "\u{1f600}": 1.50, "\u{e000}": {"é": "\"\n"}, "a": 1e21})),
        ] {
            event.metadata = metadata;
            let canonical = Canonical::of(&event);
            let other = serde_json_canonicalizer::to_string(&event.to_value()).unwrap();
            assert_eq!(String::from_utf8(canonical.text().to_vec()).unwrap(), other);
            for piece in canonical.open() {
                let piece: Value = serde_json::from_slice(&[b"{", piece, b"}"].concat()).unwrap();
                let (name, value) = piece.as_object().unwrap().iter().next().unwrap();
                assert_eq!(event.to_value()[name], *value);
            }
        }
        let closed = Canonical::of(&event).closed(false).iter().map(|c| (c.family, c.key.to_vec())).collect::<Vec<_>>();
        let keys = [
            ("determining_policies", ""),
            ("diagnostics", ""),
            ("metadata/", "a"),
            ("metadata/", "b"),
            ("metadata/~", ""),
            ("request_id", ""),
        ];
        assert_eq!(closed, keys.map(|(family, key)| (family, key.as_bytes().to_vec())));
    }

    #[test]
    fn odd_and_surplus_metadata_keys_share_one_digest() {
        let mut metadata: Map<String, Value> = (0..200).map(|i| (format!("k{i:03}"), json!(i))).collect();
        metadata.insert("odd key".into(), json!(1));
        let (mut event, ..) = example().remove(1);
        event.metadata = Some(Value::Object(metadata));
        let canonical = Canonical::of(&event);
        let fields = canonical.closed(false);
        assert_eq!(fields.iter().filter(|f| f.family == "metadata/").count(), 128);
        let rest = fields.iter().find(|f| f.family == "metadata/~").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&rest.value).unwrap().as_object().unwrap().len(), 73);
        let folded = canonical.closed(true);
        assert_eq!(folded.len(), 4);
        assert_eq!(serde_json::from_slice::<Value>(&folded[2].value).unwrap(), event.metadata.unwrap());
    }
}
