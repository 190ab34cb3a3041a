//! What an entry commits to (`audit.md` 18.2 to 18.4): open fields as they are, closed ones as salted digests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::digest::sha256;
use caracal_core::jcs;
use caracal_core::time::Time;
use caracal_crypto::mac::MacKey;

use crate::canonical::{Canonical, Closed};

/// The form of leaves written now.
pub const TYPE: &str = "caracal.audit.leaf/1";
/// Largest leaf, in bytes (C2SP `tlog-tiles` entries carry a 16-bit length).
pub const LEAF_BYTES_MAX: usize = 65_535;

/// The random secret of an entry, from which the salt of each field is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EntrySecret(pub [u8; 16]);

impl std::fmt::Debug for EntrySecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EntrySecret(..)")
    }
}

impl EntrySecret {
    /// The salts of its fields.
    pub fn salts(&self) -> Salts {
        Salts(MacKey::from_bytes(&self.0))
    }
}

/// Makes the salts of an entry.
#[derive(Debug)]
pub struct Salts(MacKey);

impl Salts {
    /// The salt of the field at `family` and `key`.
    pub fn salt(&self, family: &str, key: &[u8]) -> [u8; 16] {
        let tag = self.0.tag(&[b"caracal.audit.salt/1\n", family.as_bytes(), key]);
        let mut salt = [0; 16];
        salt.copy_from_slice(&tag[..16]);
        salt
    }

    /// The digest of a field.
    pub fn digest(&self, field: &Closed<'_>) -> [u8; 32] {
        let salt = self.salt(field.family, field.key);
        sha256(&[b"caracal.audit.field/1\n", field.family.as_bytes(), field.key, b"\n", &salt, &field.value])
    }
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
pub fn leaf_bytes(event: &Canonical, place: Place<'_>, secret: &EntrySecret) -> Vec<u8> {
    let salts = secret.salts();
    let whole = encode(event, place, &salts, false);
    if whole.len() <= LEAF_BYTES_MAX { whole } else { encode(event, place, &salts, true) }
}

fn encode(event: &Canonical, place: Place<'_>, salts: &Salts, folded: bool) -> Vec<u8> {
    let fields = event.closed(folded);
    let mut out = Vec::with_capacity(1024 + fields.len() * 96);
    out.extend_from_slice(br#"{"digests":{"#);
    for (i, field) in fields.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
        // No character of a path needs escaping.
        out.extend_from_slice(field.family.as_bytes());
        out.extend_from_slice(field.key);
        out.extend_from_slice(b"\":\"");
        let at = out.len();
        out.resize(at + 43, 0);
        // 32 bytes are 43 characters.
        let _ = B64.encode_slice(salts.digest(field), &mut out[at..]);
        out.push(b'"');
    }
    out.extend_from_slice(br#"},"event":{"#);
    for (i, member) in event.open().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    out.extend_from_slice(br#"},"ingested_at":"#);
    jcs::write_text(&place.ingested_at.rfc3339_micros(), &mut out);
    out.extend_from_slice(br#","origin":"#);
    jcs::write_text(place.origin, &mut out);
    out.extend_from_slice(format!(r#","seq":{},"type":"{TYPE}"}}"#, place.seq).as_bytes());
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use caracal_core::digest::hex;
    use caracal_core::event::Event;
    use serde_json::json;

    use super::*;
    use crate::event;

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
                (
                    std::sync::Arc::unwrap_or_clone(event::read(event.to_string().as_bytes()).unwrap().event),
                    Time::parse_rfc3339(at).unwrap(),
                    EntrySecret([byte; 16]),
                )
            })
            .collect()
    }

    #[test]
    fn the_leaf_of_the_worked_example() {
        let (event, ingested_at, secret) = example().remove(2);
        let leaf = leaf_bytes(&Canonical::of(&event), Place { origin: ORIGIN, seq: 3, ingested_at }, &secret);
        let wanted = concat!(
            r#"{"digests":{"determining_policies":"tkyODPTxSAvBUr32yMUyH7vkYuGQPaoXlInfn3EzlCQ","diagnostics":"LUhMp458hUXOsXr6pNfxb5_wGrlknfaJBtCj_TOHm00","#,
            r#""metadata/approver_subject_id":"KZzMtU340pDRyjt6JiyUK8LG9oJ0YtM9f1k_9TD-4Og","metadata/challenge_id":"7tO2nQyvJnQytbH8CF1hg62KbIufX7Ysp8CXiIGlmKU","#,
            r#""request_id":"K5IO9EUTVaW_wdflWXTWPXfemhvl9mIr6le5vDuRIuk"},"event":{"decision":"approved","evaluation_status":"complete","#,
            r#""event_type":"step_up_decided","id":"0195f2aa-7c33-7d4e-a01b-3f6c2d9e8b12","occurred_at":"2026-11-23T10:00:01.000000Z","#,
            r#""zone_id":"0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f"},"ingested_at":"2026-11-23T10:00:01.050000Z","#,
            r#""origin":"audit.example.com/log/0195f2a9-1b22-7c3d-9e4f-5a6b7c8d9e0f","seq":3,"type":"caracal.audit.leaf/1"}"#,
        );
        assert_eq!((String::from_utf8(leaf).unwrap().as_str(), wanted.len()), (wanted, 731));
        let values: [(&str, &str, &str, &str); 5] = [
            ("request_id", "", "f21ed5b2e4e13415226840ac04e59c9b", r#""req-8""#),
            ("determining_policies", "", "88db35581807d6e0aeeddb9565b8115a", "[]"),
            ("diagnostics", "", "dddf8cb0a1dac91b4d34d42ccc37c35e", "[]"),
            ("metadata/", "approver_subject_id", "d5147831e6396ff3b0df5f34efd80d07", r#""subject:u-42""#),
            ("metadata/", "challenge_id", "d5408b0b9291fbe464af1c0a5692853d", r#""c-1""#),
        ];
        let canonical = Canonical::of(&event);
        let closed = canonical.closed(false);
        assert_eq!(closed.len(), values.len());
        for (family, key, salt, value) in values {
            let field = closed.iter().find(|f| f.family == family && f.key == key.as_bytes()).unwrap();
            assert_eq!(hex(&secret.salts().salt(family, key.as_bytes())), salt, "{family}{key}");
            assert_eq!(field.value.as_ref(), value.as_bytes(), "{family}{key}");
        }
    }

    #[test]
    fn a_leaf_that_would_be_too_long_folds_its_metadata() {
        let (mut event, ingested_at, secret) = example().remove(0);
        let place = Place { origin: ORIGIN, seq: 1, ingested_at };
        event.policy_set_id = Some("p".repeat(55_000));
        event.metadata = Some((0..128).map(|i| (format!("{}{i:03}", "k".repeat(61)), json!(i))).collect());
        let leaf = leaf_bytes(&Canonical::of(&event), place, &secret);
        let leaf: serde_json::Value = serde_json::from_slice(&leaf).unwrap();
        let paths: Vec<&String> = leaf["digests"].as_object().unwrap().keys().collect();
        assert_eq!(paths, ["determining_policies", "diagnostics", "metadata/~", "request_id"]);
    }
}
