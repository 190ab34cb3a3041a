//! What an entry commits to (`audit.md` 18.2 to 18.4): open fields as they are, closed ones as salted digests.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::digest::sha256;
use caracal_core::jcs::canonical;
use caracal_core::time::Time;
use caracal_crypto::mac::MacKey;
use serde_json::{Map, Value, json};

use crate::event::Event;

/// The form of leaves written now.
pub const TYPE: &str = "caracal.audit.leaf/1";
/// Largest leaf, in bytes (C2SP `tlog-tiles` entries carry a 16-bit length).
pub const LEAF_BYTES_MAX: usize = 65_535;
/// Most metadata keys with a digest of their own.
const KEYS_MAX: usize = 128;
/// Longest such key.
const KEY_BYTES_MAX: usize = 64;

/// The random secret of an entry, from which the salt of each field is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EntrySecret(pub [u8; 16]);

impl std::fmt::Debug for EntrySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntrySecret(..)")
    }
}

impl EntrySecret {
    /// The salt of a field.
    pub fn salt(&self, path: &str) -> [u8; 16] {
        let tag = MacKey::from_bytes(&self.0).tag(&[b"caracal.audit.salt/1\n", path.as_bytes()]);
        let mut salt = [0; 16];
        salt.copy_from_slice(&tag[..16]);
        salt
    }
}

/// The digest of a field's value.
pub fn field_digest(path: &str, salt: &[u8; 16], value: &Value) -> [u8; 32] {
    sha256(&[b"caracal.audit.field/1\n", path.as_bytes(), b"\n", salt, &canonical(value)])
}

/// The closed fields of an event by path. `folded` puts all metadata under one.
pub fn closed(event: &Event, folded: bool) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::from([
        ("request_id".to_owned(), Value::from(event.request_id.as_str())),
        ("determining_policies".to_owned(), event.determining.clone()),
        ("diagnostics".to_owned(), event.diagnostics.clone()),
    ]);
    match &event.metadata {
        Some(Value::Object(members)) => {
            let mut rest = Map::new();
            let mut own = 0;
            for (key, value) in members {
                let plain = (1..=KEY_BYTES_MAX).contains(&key.len())
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
                if plain && !folded && own < KEYS_MAX {
                    own += 1;
                    fields.insert(format!("metadata/{key}"), value.clone());
                } else {
                    rest.insert(key.clone(), value.clone());
                }
            }
            if !rest.is_empty() {
                fields.insert("metadata/~".to_owned(), Value::Object(rest));
            }
        }
        Some(other) => {
            fields.insert("metadata".to_owned(), other.clone());
        }
        None => {}
    }
    fields
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The log.
    pub origin: &'a str,
    /// 1, 2, 3 ..
    pub seq: u64,
    /// When it was taken in.
    pub ingested_at: Time,
}

/// The leaf's exact bytes, `E` of the spec.
pub fn leaf_bytes(event: &Event, place: Place<'_>, secret: &EntrySecret) -> Vec<u8> {
    let whole = encode(event, place, secret, false);
    if whole.len() <= LEAF_BYTES_MAX { whole } else { encode(event, place, secret, true) }
}

fn encode(event: &Event, place: Place<'_>, secret: &EntrySecret, folded: bool) -> Vec<u8> {
    let digests: Map<String, Value> = closed(event, folded)
        .into_iter()
        .map(|(path, value)| {
            let digest = B64.encode(field_digest(&path, &secret.salt(&path), &value));
            (path, digest.into())
        })
        .collect();
    canonical(&json!({
        "digests": digests,
        "event": event.open(),
        "ingested_at": place.ingested_at.rfc3339_micros(),
        "origin": place.origin,
        "seq": place.seq,
        "type": TYPE,
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The log of the worked example.
    pub(crate) const ORIGIN: &str = "audit.example.com/log/0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f";

    /// The three events of the worked example (`audit.md` 18.14) with their time of ingestion and secret.
    pub(crate) fn example() -> Vec<(Event, Time, EntrySecret)> {
        let zone = "0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f";
        let rows = [
            (
                json!({"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":zone,"event_type":"token_exchange","request_id":"req-7","decision":"allow",
                    "policy_set_version_id":"psv-1","manifest_sha":"9f86d081884c7d65","evaluation_status":"complete","determining_policies_json":[{"policy":"grants"}],
                    "diagnostics_json":[],"metadata_json":{"application_id":"app-1","resource":"resource://ledger"},"occurred_at":"2026-11-23T10:00:00.123456Z"}),
                "2026-11-23T10:00:00.150000Z",
                0x10,
            ),
            (
                json!({"id":"0195f2aa-7c32-7d4e-a01b-3f6c2d9e8b11","zone_id":zone,"event_type":"gateway_resource_request","request_id":"req-7","decision":"allow",
                    "evaluation_status":"executed","metadata_json":{"method":"GET","latency_ms":12},"occurred_at":"2026-11-23T10:00:00.200000Z"}),
                "2026-11-23T10:00:00.250000Z",
                0x20,
            ),
            (
                json!({"id":"0195f2aa-7c33-7d4e-a01b-3f6c2d9e8b12","zone_id":zone,"event_type":"step_up_decided","request_id":"req-8","decision":"approved",
                    "evaluation_status":"complete","determining_policies_json":[],"diagnostics_json":[],
                    "metadata_json":{"approver_subject_id":"subject:u-42","challenge_id":"c-1"},"occurred_at":"2026-11-23T10:00:01.000000Z"}),
                "2026-11-23T10:00:01.050000Z",
                0x30,
            ),
        ];
        rows.into_iter()
            .map(|(event, at, byte)| {
                let (event, _) = Event::read(event.to_string().as_bytes()).unwrap();
                (event, Time::parse_rfc3339(at).unwrap(), EntrySecret([byte; 16]))
            })
            .collect()
    }

    #[test]
    fn the_leaf_of_the_worked_example() {
        let (event, ingested_at, secret) = example().remove(2);
        let leaf = leaf_bytes(&event, Place { origin: ORIGIN, seq: 3, ingested_at }, &secret);
        let wanted = concat!(
            r#"{"digests":{"determining_policies":"tkyODPTxSAvBUr32yMUyH7vkYuGQPaoXlInfn3EzlCQ","diagnostics":"LUhMp458hUXOsXr6pNfxb5_wGrlknfaJBtCj_TOHm00","#,
            r#""metadata/approver_subject_id":"KZzMtU340pDRyjt6JiyUK8LG9oJ0YtM9f1k_9TD-4Og","metadata/challenge_id":"7tO2nQyvJnQytbH8CF1hg62KbIufX7Ysp8CXiIGlmKU","#,
            r#""request_id":"K5IO9EUTVaW_wdflWXTWPXfemhvl9mIr6le5vDuRIuk"},"event":{"decision":"approved","evaluation_status":"complete","#,
            r#""event_type":"step_up_decided","id":"0195f2aa-7c33-7d4e-a01b-3f6c2d9e8b12","occurred_at":"2026-11-23T10:00:01.000000Z","#,
            r#""zone_id":"0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f"},"ingested_at":"2026-11-23T10:00:01.050000Z","#,
            r#""origin":"audit.example.com/log/0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f","seq":3,"type":"caracal.audit.leaf/1"}"#,
        );
        assert_eq!((String::from_utf8(leaf).unwrap().as_str(), wanted.len()), (wanted, 731));
        for (path, salt) in [
            ("request_id", "f21ed5b2e4e13415226840ac04e59c9b"),
            ("determining_policies", "88db35581807d6e0aeeddb9565b8115a"),
            ("metadata/challenge_id", "d5408b0b9291fbe464af1c0a5692853d"),
        ] {
            assert_eq!(hex::encode(secret.salt(path)), salt, "{path}");
        }
    }

    #[test]
    fn odd_and_surplus_metadata_keys_share_one_digest() {
        let mut metadata: Map<String, Value> = (0..200).map(|i| (format!("k{i:03}"), json!(i))).collect();
        metadata.insert("odd key".into(), json!(1));
        let (mut event, ..) = example().remove(1);
        event.metadata = Some(Value::Object(metadata));
        let fields = closed(&event, false);
        assert_eq!(fields.keys().filter(|k| k.starts_with("metadata/k")).count(), 128);
        assert_eq!(fields["metadata/~"].as_object().unwrap().len(), 73);
        event.metadata = Some(json!([1]));
        assert!(closed(&event, false).contains_key("metadata"));
    }
}
