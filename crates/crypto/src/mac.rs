//! HMAC-SHA256, and the canonical texts it signs: stream origin (`streams.md` 3), audit events (4.1), chains of records
//! (`audit.md` 7.3), Gateway calls (`sts.md` 11).

use std::fmt;

use aws_lc_rs::hmac;
use caracal_core::digest::sha256_hex;
use zeroize::Zeroizing;

/// A key for HMAC-SHA256, at least 32 bytes.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

/// The key is no hex, or shorter than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at least 64 hex digits (32 bytes)")]
pub struct WeakKey;

impl MacKey {
    /// From hex of at least 32 bytes.
    pub fn from_hex(text: &str) -> Result<Self, WeakKey> {
        let bytes = Zeroizing::new(hex::decode(text.trim()).map_err(|_| WeakKey)?);
        if bytes.len() < 32 { Err(WeakKey) } else { Ok(Self::from_bytes(&bytes)) }
    }

    /// From bytes that are known to be strong.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The tag of the parts, one after the other.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Whether `tag` is the tag of the parts; constant time.
    pub fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        constant_time_eq(&self.tag(parts), tag)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// Whether two byte strings are equal, in time that depends on their lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    a.ct_eq(b).into()
}

/// The signature of a stream message, lower-case hex. Fields in any order; `_sig` is not among what is signed.
pub fn origin_signature(key: &MacKey, stream: &str, fields: &[(String, String)]) -> String {
    hex::encode(key.tag(&[&origin_canonical(stream, fields)]))
}

/// Whether a stream message carries a signature of one of the keys; constant time on the decoded bytes.
pub fn origin_verified(keys: &[MacKey], stream: &str, fields: &[(String, String)]) -> bool {
    let signature = fields.iter().find(|(name, _)| name == "_sig").and_then(|(_, hex)| hex::decode(hex).ok());
    let plain = fields.iter().all(|(name, value)| name == "_sig" || caracal_core::message::is_plain_field(name, value));
    let (Some(signature), true) = (signature, plain) else { return false };
    let canonical = origin_canonical(stream, fields);
    keys.iter().any(|key| key.verify(&[&canonical], &signature))
}

fn origin_canonical(stream: &str, fields: &[(String, String)]) -> Vec<u8> {
    let mut sorted: Vec<&(String, String)> = fields.iter().filter(|(name, _)| name != "_sig").collect();
    sorted.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(stream.as_bytes());
    text.push(b'\n');
    for (name, value) in sorted {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text
}

/// The signature over an audit event's exact `data` bytes, lower-case hex.
pub fn audit_signature(key: &MacKey, data: &[u8]) -> String {
    hex::encode(key.tag(&[data]))
}

/// Whether `signature` (hex, either case) is one of the keys' over `data`.
pub fn audit_verified(keys: &[MacKey], data: &[u8], signature: &str) -> bool {
    hex::decode(signature).is_ok_and(|tag| keys.iter().any(|key| key.verify(&[data], &tag)))
}

/// The link of a chain of records (`audit.md` 7.3): an HMAC over a record's content hash and the one before it, which only this
/// deployment can make. The first has none before it.
pub fn chain_link(key: &MacKey, content: &[u8; 32], previous: Option<&[u8; 32]>) -> [u8; 32] {
    let previous = previous.map(hex::encode).unwrap_or_default();
    key.tag(&[hex::encode(content).as_bytes(), b"|", previous.as_bytes()])
}

/// What a Gateway call signs: moment, nonce, method, escaped path without query, and the body's digest.
#[derive(Clone, Copy, Debug)]
pub struct GatewayCall<'a> {
    /// Unix seconds.
    pub timestamp: i64,
    /// Single use.
    pub nonce: &'a str,
    /// Upper case.
    pub method: &'a str,
    /// As sent, without query.
    pub path: &'a str,
    /// The exact bytes; empty for GET.
    pub body: &'a [u8],
}

impl GatewayCall<'_> {
    fn canonical(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}\n{}",
            self.timestamp,
            self.nonce,
            self.method.to_ascii_uppercase(),
            self.path,
            sha256_hex(self.body)
        )
    }

    /// Lower-case hex.
    pub fn sign(&self, key: &MacKey) -> String {
        hex::encode(key.tag(&[self.canonical().as_bytes()]))
    }

    /// Whether `signature` (hex, either case) is this call's.
    pub fn verify(&self, key: &MacKey, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|tag| key.verify(&[self.canonical().as_bytes()], &tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MacKey {
        MacKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap()
    }

    fn fields(text: &str) -> Vec<(String, String)> {
        text.split_whitespace().map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap()).collect()
    }

    #[test]
    fn the_origin_vectors_hold() {
        let rows = [
            (
                "caracal.sessions.revoke",
                "zone_id=z-1 session_id=ar-1 reason=operator",
                "bce6438801bcf785046bbf1e531a84a9b811377fa364b125367e75a8d383eb85",
            ),
            (
                "caracal.sessions.revoke",
                "outbox_id=0195f2aa-0000-7000-8000-000000000001 zone_id=z-1 session_id=ar-1 agent_session_id=s-1 delegation_edge_id=e-1 reason=delegation_revoked",
                "f8c2b85577e0f5f9a7452dd05eca2929d1bad022e5914ad78f1654d379c4359a",
            ),
            (
                "caracal.delegations.invalidate",
                "outbox_id=0195f2aa-0000-7000-8000-000000000002 dedupe_key=edge_revoke:e-1 event=edge_revoke zone_id=z-1 edge_id=e-1 affected_edges=2 epoch=7",
                "158da97bf44936f8a45949a42f55103658be6e30483207f90041c236c202446c",
            ),
            (
                "caracal.policy.invalidate",
                "outbox_id=0195f2aa-0000-7000-8000-000000000003 zone_id=z-1 policy_set_id=ps-1 policy_set_version_id=psv-1",
                "40b20f87b0927ea831c58d789e3687fc600d3d2b07e46e30290e8ecff8cfbf1c",
            ),
            (
                "caracal.agents.lifecycle",
                "outbox_id=0195f2aa-0000-7000-8000-000000000004 dedupe_key=spawn:s-1 event=spawn zone_id=z-1 agent_session_id=s-1 application_id=app-1",
                "34ca46268cc5660319605bc534b5596c1fda734a0c523dec1a01b3a9de070d25",
            ),
        ];
        for (stream, text, wanted) in rows {
            let mut signed = fields(text);
            assert_eq!(origin_signature(&key(), stream, &signed), wanted);
            signed.push(("_sig".to_owned(), wanted.to_owned()));
            assert!(origin_verified(&[key()], stream, &signed));
            assert!(!origin_verified(&[key()], "caracal.other", &signed), "the stream's name is part of it");
            signed.push(("more".to_owned(), "x".to_owned()));
            assert!(!origin_verified(&[key()], stream, &signed), "a field was added");
        }
    }

    #[test]
    fn the_published_contract_vectors_hold() {
        let key = MacKey::from_hex(&"0123456789abcdef".repeat(4)).unwrap();
        assert_eq!(
            origin_signature(&key, "audit:events", &fields("action=transfer amount=100")),
            "c06ccc579e026c31a97a04f203981b236a3c88041712e9b46242e8762da23d75"
        );
        assert_eq!(
            origin_signature(&key, "audit:events", &fields("action=transfer")),
            "93c82e377fc1ff7f1430549aa20cd20971150173b5996308ab84cb48d6f2683d"
        );
        let kept_empty = vec![
            ("active".to_owned(), "true".to_owned()),
            ("count".to_owned(), "0".to_owned()),
            ("name".to_owned(), String::new()),
        ];
        assert_eq!(
            origin_signature(&key, "audit:events", &kept_empty),
            "dd36b85d880107b52155410569f95436acd8b5a656bba83e37c4b0196fb32ae1"
        );
    }

    #[test]
    fn a_line_break_in_a_value_is_no_second_field() {
        let smuggled = vec![("a".to_owned(), "x\nb=y".to_owned())];
        let honest = fields("a=x b=y");
        let signature = origin_signature(&key(), "s", &honest);
        assert_eq!(signature, origin_signature(&key(), "s", &smuggled), "the canonical form is ambiguous by itself");
        let mut smuggled = smuggled;
        smuggled.push(("_sig".to_owned(), signature));
        assert!(!origin_verified(&[key()], "s", &smuggled));
    }

    #[test]
    fn the_audit_vector_holds() {
        let data = br#"{"id":"0195f2aa-7c31-7d4e-a01b-3f6c2d9e8b10","zone_id":"z-1","event_type":"token_exchange","request_id":"req-7","decision":"allow","policy_set_version_id":"psv-1","manifest_sha":"9f86d081884c7d65","evaluation_status":"complete","determining_policies_json":[{"policy":"grants"}],"diagnostics_json":[],"metadata_json":{"application_id":"app-1","resource":"resource://ledger","requested_scopes":["ledger:read"]},"occurred_at":"2026-11-23T10:00:00.123456Z"}"#;
        let signature = audit_signature(&key(), data);
        assert_eq!(signature, "a25ed6bee4a2cc6062e00119e1058d78058378655627e2d4731f4ee4e589e712");
        assert!(audit_verified(&[key()], data, &signature.to_uppercase()));
        assert!(!audit_verified(&[key()], &data[1..], &signature));
    }

    #[test]
    fn the_chain_vectors_of_administrative_records_hold() {
        let content = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
        let first = content("03f8c21c1ece3ec3cf54043e57c0f5016e8ae01aa9875b3dcdde3943a2b2c6ed");
        let second = content("1ed13e236a63889e4aa4cd7bc57859bac759db2f1dda52350fe92c6c6170e73f");
        assert_eq!(
            hex::encode(chain_link(&key(), &first, None)),
            "9f124e14bf41b41e9cd592077a0d6d0d6d762f0d8c744162be87487da408d7c6"
        );
        assert_eq!(
            hex::encode(chain_link(&key(), &second, Some(&first))),
            "9fdfe51dcd97a8d2762fed6a257222c6e339538c91203f4e284954faa9da3611"
        );
    }

    #[test]
    fn the_gateway_vectors_hold() {
        let body = b"application_id=app-1&gateway_request_id=req-7&resource=resource%3A%2F%2Fledger";
        let call = GatewayCall { timestamp: 1_790_000_000, nonce: "9f8e7d6c", method: "POST", path: "/oauth/2/token", body };
        assert_eq!(call.sign(&key()), "e2f6d2521eb38aa07fd0794ea3c68e34436722dd366332ced90049213f7d6373");
        let get = GatewayCall { method: "GET", path: "/internal/policy/status/z-1", body: b"", ..call };
        assert_eq!(get.sign(&key()), "fb550e53ef9b112185236cf0b3583b4292acf486e732fc7b3dbe776cc8de8cae");
        assert!(call.verify(&key(), &call.sign(&key()).to_uppercase()));
        assert!(!GatewayCall { timestamp: 1_790_000_001, ..call }.verify(&key(), &call.sign(&key())));
    }

    #[test]
    fn weak_keys_are_refused_and_none_is_printed() {
        assert_eq!(MacKey::from_hex("00").unwrap_err(), WeakKey);
        assert_eq!(MacKey::from_hex(&"zz".repeat(32)).unwrap_err(), WeakKey);
        assert_eq!(format!("{:?}", key()), "MacKey(..)");
    }
}
